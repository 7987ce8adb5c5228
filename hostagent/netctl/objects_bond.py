"""Making and unmaking the objects of a bond: what its members had goes to the bond, and back (networking.md 3.9).

That are the addresses of both families, the management interface, `disallow_unplug`, VLANs, tunnels, the cluster's
interface, and the guests' interfaces on the networks of the members.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hostagent.named import NamedTuple
from hostagent.netctl import objects_pif, objects_vlan
from hostagent.netctl.fields import flag, number, text, texts
from hostagent.netctl.from_database import device_order
from hostagent.netctl.objects_vifs import move_vifs
from hostagent.netctl.refusals_bond import has_address

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hostagent.db.transaction import Transaction
    from hostagent.db.view import View
    from hostagent.netctl.control import References

BOND_DEVICE = re.compile(r"bond(\d{1,9})", re.ASCII)


class Moved(NamedTuple):
    """What follows for the host: PIFs to bring up, PIFs to take down, guests' interfaces that change their network."""

    bond: str
    up: tuple[str, ...]
    down: tuple[str, ...]
    vifs: Mapping[str, str]
    management: str = ""
    """The PIF that is the management interface after the move, when another one was before."""


def create(
    transaction: Transaction,
    references: References,
    network: str,
    members: Sequence[str],
    *,
    mac: str,
    mode: str,
    properties: Mapping[str, str],
) -> Moved:
    """Make a bond of members of one host. `mac` is empty to take and follow that of the primary member."""
    primary = primary_of(transaction, members)
    had_management = any(flag(transaction, "PIF", pif, "management") for pif in members)
    up_before = objects_pif.attached(transaction, tuple(members))
    master = _make_master(transaction, references, network, primary, mac)
    bond = references.create(
        transaction,
        "Bond",
        {
            "master": master,
            "primary_slave": primary,
            "mode": mode,
            "properties": dict(properties),
            "auto_update_mac": not mac,
        },
    )
    objects_pif.move_addresses(transaction, primary, master)
    vifs: dict[str, str] = {}
    vlans: list[str] = []
    for member in (primary, *(pif for pif in members if pif != primary)):
        vlans += texts(transaction, "PIF", member, "VLAN_slave_of")
    keeps, dissolved = _move_vlans(transaction, vlans, master, vifs)
    for member in members:
        _move_marks(transaction, member, master)
        old = text(transaction, "PIF", member, "network")
        vifs |= move_vifs(transaction, old, network, text(transaction, "PIF", master, "host"))
        transaction.update("PIF", member, {"bond_slave_of": bond, "currently_attached": False})
    up = (master, *objects_pif.attached(transaction, keeps))
    return Moved(
        bond,
        up=_management_first(transaction, up),
        down=(*up_before, *dissolved),
        vifs=vifs,
        management=master if had_management else "",
    )


def destroy(transaction: Transaction, bond: str) -> Moved:
    """Unmake a bond; its primary member gets everything back, the others come up as NICs."""
    master = text(transaction, "Bond", bond, "master")
    members = sorted(
        texts(transaction, "Bond", bond, "slaves"),
        key=lambda pif: device_order(text(transaction, "PIF", pif, "device")),
    )
    primary = text(transaction, "Bond", bond, "primary_slave")
    if primary not in members:
        primary = next(iter(members), "")
    had_management = flag(transaction, "PIF", master, "management")
    was_up = flag(transaction, "PIF", master, "currently_attached")
    vifs: dict[str, str] = {}
    keeps: tuple[str, ...] = ()
    dissolved: tuple[str, ...] = ()
    if primary:
        objects_pif.move_addresses(transaction, master, primary)
        vlans = texts(transaction, "PIF", master, "VLAN_slave_of")
        keeps, dissolved = _move_vlans(transaction, vlans, primary, vifs)
        _move_marks(transaction, master, primary)
        old, new = (text(transaction, "PIF", pif, "network") for pif in (master, primary))
        vifs |= move_vifs(transaction, old, new, text(transaction, "PIF", master, "host"))
    for member in members:
        transaction.set("PIF", member, "bond_slave_of", "")
    transaction.destroy("Bond", bond)
    objects_pif.forget(transaction, master)
    others = tuple(pif for pif in members if pif != primary)
    up = (primary, *objects_pif.attached(transaction, keeps), *others) if was_up and primary else ()
    return Moved(
        bond,
        up=_management_first(transaction, up),
        down=(master, *dissolved) if was_up else (),
        vifs=vifs,
        management=primary if had_management else "",
    )


def primary_of(view: View, members: Sequence[str]) -> str:
    """The member that is the management interface, else the first with an address, else the first."""
    first = next((pif for pif in members if has_address(view, pif)), members[0])
    return next((pif for pif in members if flag(view, "PIF", pif, "management")), first)


def free_device(view: View, host: str) -> str:
    """`bondN` with the smallest number that this host does not use."""
    taken = {
        int(found[1])
        for _, record in view.records("PIF")
        if record["host"] == host and (found := BOND_DEVICE.fullmatch(str(record["device"])))
    }
    return f"bond{next(free for free in range(len(taken) + 1) if free not in taken)}"


def _make_master(
    transaction: Transaction, references: References, network: str, primary: str, mac: str
) -> str:
    first = transaction.record("PIF", primary)
    metrics = references.create(transaction, "PIF_metrics", {"duplex": False})
    return references.create(
        transaction,
        "PIF",
        {
            "device": free_device(transaction, str(first["host"])),
            "network": network,
            "host": first["host"],
            "MAC": mac.lower() or first["MAC"],
            "MTU": -1,
            "VLAN": -1,
            "metrics": metrics,
            "currently_attached": False,
            "properties": first["properties"],
        },
    )


def _move_vlans(
    transaction: Transaction, vlans: Sequence[str], lower: str, vifs: dict[str, str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Put VLANs on `lower`, of each tag one: that with the management interface or an address stays, and guests of the
    others move to its network. Returns the PIFs that stay, and those that were attached and are gone.
    """
    by_tag: dict[int, list[str]] = {}
    for vlan in vlans:
        by_tag.setdefault(number(transaction, "VLAN", vlan, "tag"), []).append(vlan)
    keeps: list[str] = []
    dissolved: list[str] = []
    host = text(transaction, "PIF", lower, "host")
    for tag in sorted(by_tag):
        kept, *others = sorted(by_tag[tag], key=lambda vlan: _rank(transaction, vlan))
        objects_vlan.move(transaction, kept, lower)
        upper = text(transaction, "VLAN", kept, "untagged_PIF")
        keeps.append(upper)
        for other in others:
            gone = text(transaction, "VLAN", other, "untagged_PIF")
            _move_marks(transaction, gone, upper)
            old, new = (text(transaction, "PIF", pif, "network") for pif in (gone, upper))
            vifs |= move_vifs(transaction, old, new, host)
            if flag(transaction, "PIF", gone, "currently_attached"):
                dissolved.append(gone)
                transaction.update("PIF", upper, {"currently_attached": True})
            objects_vlan.destroy(transaction, other)
    return tuple(keeps), tuple(dissolved)


def _rank(view: View, vlan: str) -> tuple[bool, bool]:
    """Sorts the VLAN that must stay before others of its tag; the order of members decides otherwise."""
    upper = text(view, "VLAN", vlan, "untagged_PIF")
    return not flag(view, "PIF", upper, "management"), not has_address(view, upper)


def _move_marks(transaction: Transaction, old: str, new: str) -> None:
    """What leads to a PIF, or is marked on it, goes to another one."""
    for mark in ("management", "disallow_unplug"):
        if flag(transaction, "PIF", old, mark):
            transaction.update("PIF", old, {mark: False})
            transaction.update("PIF", new, {mark: True})
    for tunnel in texts(transaction, "PIF", old, "tunnel_transport_PIF_of"):
        transaction.set("tunnel", tunnel, "transport_PIF", new)
    for ref in transaction.where("Cluster_host", PIF=old):
        transaction.set("Cluster_host", ref, "PIF", new)


def _management_first(view: View, pifs: tuple[str, ...]) -> tuple[str, ...]:
    """A management interface on a VLAN comes before what it lies on is changed further (CA-237543)."""
    return tuple(sorted(pifs, key=lambda pif: not flag(view, "PIF", pif, "management")))
