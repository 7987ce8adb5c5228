"""Making networks, and the names of their bridges (networking.md 1.5)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hostagent.netctl import refusals_network
from hostagent.netctl.fields import flag, number, text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hostagent.db.transaction import Transaction
    from hostagent.db.view import View
    from hostagent.netctl.control import References

BRIDGE = re.compile(r"xapi(\d{1,9})", re.ASCII)
MTU = 1500


def create(transaction: Transaction, references: References, values: Mapping[str, object]) -> str:
    """Make a network of these fields of its constructor; without a bridge it gets one, `xapiN`.

    An MTU of 0 or less is 1500. Raises RefusedError, InvalidValueError, and what `Transaction.create` raises.
    """
    name = values.get("bridge", "")
    if isinstance(name, str) and name:
        refusals_network.bridge(transaction, name)
    ref = references.create(transaction, "network", values)
    if not name and flag(transaction, "network", ref, "managed"):
        transaction.set("network", ref, "bridge", free_bridge(transaction))
    mtu = number(transaction, "network", ref, "MTU")
    if mtu <= 0:
        transaction.set("network", ref, "MTU", MTU)
    else:
        refusals_network.mtu(mtu)
    return ref


def free_bridge(view: View) -> str:
    """`xapiN` with a number above those in use: one that was just given up may still be somewhere in the kernel."""
    taken = [
        int(found[1])
        for _, record in view.records("network")
        if (found := BRIDGE.fullmatch(str(record["bridge"])))
    ]
    return f"xapi{max(taken, default=-1) + 1}"


def destroy(transaction: Transaction, network: str) -> bool:
    """Whether there can be a bridge of it in the kernel."""
    is_ours = flag(transaction, "network", network, "managed") and bool(
        text(transaction, "network", network, "bridge")
    )
    transaction.destroy("network", network)
    return is_ours
