"""Guests' interfaces that go with a network from one PIF of this host to another (networking.md 3.9)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.netctl.fields import flag, text, texts

if TYPE_CHECKING:
    from hostagent.db.transaction import Transaction
    from hostagent.db.view import View


def move_vifs(transaction: Transaction, old: str, new: str, host: str) -> dict[str, str]:
    """Put interfaces of guests that run here, or could run nowhere else, on another network.

    Returns {old: new} when one of them is attached: its bridge changes too.
    """
    attached = False
    if old == new:
        return {}
    for vif in texts(transaction, "network", old, "VIFs"):
        vm = text(transaction, "VIF", vif, "VM")
        if transaction.exists("VM", vm) and belongs_here(transaction, vm, host):
            attached = attached or flag(transaction, "VIF", vif, "currently_attached")
            transaction.set("VIF", vif, "network", new)
    return {old: new} if attached else {}


def belongs_here(view: View, vm: str, host: str) -> bool:
    """Does it run here, or can it run nowhere else: on no other host is all the storage of its disks?"""
    resident = text(view, "VM", vm, "resident_on")
    if resident:
        return resident == host
    possible = set(view.refs("host"))
    for vbd in texts(view, "VM", vm, "VBDs"):
        vdi = text(view, "VBD", vbd, "VDI")
        if vdi and view.exists("VDI", vdi):
            pbds = texts(view, "SR", text(view, "VDI", vdi, "SR"), "PBDs")
            possible &= {text(view, "PBD", pbd, "host") for pbd in pbds}
    return possible == {host}
