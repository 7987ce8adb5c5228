"""Calls that make and unmake VLANs, of the classes VLAN and pool; those of tunnels and SR-IOV, which are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.api.dispatch import Implementation
from hostagent.netctl import objects_pif, objects_vlan, refusals, refusals_pif, refusals_vlan
from hostagent.netctl.effect import Draft
from hostagent.netctl.fields import flag, text, texts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hostagent.api.core import Call
    from hostagent.db.transaction import Transaction
    from hostagent.db.view import View
    from hostagent.netctl.control import Control, References


def making(
    control: Control,
    transaction: Transaction,
    references: References,
    tagged: str,
    tag: int,
    network: str,
    foreign: Mapping[tuple[str, int], str],
) -> tuple[str, str]:
    """A new VLAN and its upper PIF, or the refusal. `foreign` as `Effect.foreign_vlans`."""
    host = control.host(transaction)
    transaction.get("network", network, "uuid")
    refusals.ours(transaction, tagged, host, "VLAN.create")
    refusals_vlan.create(transaction, tagged, tag, network, host, foreign)
    return objects_vlan.create(transaction, references, tagged, tag, network)


def create(call: Call, tagged: str, tag: int, network: str) -> str:
    control = call.core.net
    foreign = control.effect.foreign_vlans()

    def work(transaction: Transaction, references: References) -> Draft:
        vlan, untagged = making(control, transaction, references, tagged, tag, network, foreign)
        return Draft(result=vlan, up=(untagged,))

    return control.change(work)


def destroy(call: Call, vlan: str) -> str:
    control = call.core.net

    def work(transaction: Transaction, _references: References) -> Draft:
        untagged = text(transaction, "VLAN", vlan, "untagged_PIF")
        refusals.ours(transaction, untagged, control.host(transaction), "VLAN.destroy")
        refusals_vlan.destroy(transaction, vlan)
        attached = objects_pif.attached(transaction, (untagged,))
        objects_vlan.destroy(transaction, vlan)
        return Draft(down=attached)

    return control.change(work)


def pool_introduce(call: Call, tagged: str, untagged: str, tag: int, other_config: dict[str, str]) -> str:
    """The record alone, for joins."""
    refusals.vlan_tag(tag)
    with call.core.db.write() as transaction:
        values = {"tagged_PIF": tagged, "untagged_PIF": untagged, "tag": tag, "other_config": other_config}
        vlan = transaction.create("VLAN", values)
        transaction.set("PIF", untagged, "VLAN_master_of", vlan)
        return vlan


def create_everywhere(call: Call, pif: str, network: str, tag: int) -> list[str]:
    """A VLAN on each live host's PIF that is on the network of `pif`; so far that may be this host's only."""
    control = call.core.net
    foreign = control.effect.foreign_vlans()

    def work(transaction: Transaction, references: References) -> Draft:
        own = text(transaction, "PIF", pif, "network")
        tagged = _only_ours(control, transaction, texts(transaction, "network", own, "PIFs"))
        _, untagged = making(control, transaction, references, tagged or pif, tag, network, foreign)
        return Draft(result=untagged, up=(untagged,))

    return [control.change(work)]


def create_by_device(call: Call, device: str, network: str, tag: int) -> list[str]:
    """As `create_everywhere`, for the PIFs with this device name."""
    control = call.core.net
    foreign = control.effect.foreign_vlans()

    def work(transaction: Transaction, references: References) -> Draft:
        host = control.host(transaction)
        tagged = refusals_pif.device_named(transaction, host, device)
        same = [ref for ref, record in transaction.records("PIF") if record["device"] == device]
        _only_ours(control, transaction, same)
        _, untagged = making(control, transaction, references, tagged, tag, network, foreign)
        return Draft(result=untagged, up=(untagged,))

    return [control.change(work)]


def _only_ours(control: Control, view: View, pifs: list[str]) -> str:
    """This host's PIF among them, empty for none; a live host besides cannot be served."""
    ours, host = "", control.host(view)
    for pif in pifs:
        owner = text(view, "PIF", pif, "host")
        if owner == host:
            ours = ours or pif
        elif is_live(view, owner):
            refusals.this_host(owner, host, "VLAN.create")
    return ours


def is_live(view: View, host: str) -> bool:
    """Whether another host of the pool answers, as far as the database knows."""
    metrics = text(view, "host", host, "metrics") if view.exists("host", host) else ""
    return (
        bool(metrics) and view.exists("host_metrics", metrics) and flag(view, "host_metrics", metrics, "live")
    )


def create_tunnel(call: Call, transport: str, network: str, _protocol: str) -> None:
    with call.core.db.read() as view:
        refusals_vlan.tunnel(view, transport, network)


def destroy_tunnel(call: Call, tunnel: str) -> None:
    with call.core.db.read() as view:
        refusals_vlan.existing_tunnel(view, tunnel)


def create_sriov(call: Call, pif: str, network: str) -> None:
    with call.core.db.read() as view:
        refusals_vlan.sriov(view, pif, network)


def existing_sriov(call: Call, ref: str) -> None:
    with call.core.db.read() as view:
        refusals_vlan.existing_sriov(view, ref)


CALLS = (
    Implementation("VLAN.create", create),
    Implementation("VLAN.destroy", destroy),
    Implementation("VLAN.pool_introduce", pool_introduce),
    Implementation("pool.create_VLAN_from_PIF", create_everywhere),
    Implementation("pool.create_VLAN", create_by_device),
    Implementation("tunnel.create", create_tunnel),
    Implementation("tunnel.destroy", destroy_tunnel),
    Implementation("network_sriov.create", create_sriov),
    Implementation("network_sriov.destroy", existing_sriov),
    Implementation("network_sriov.get_remaining_capacity", existing_sriov),
)
