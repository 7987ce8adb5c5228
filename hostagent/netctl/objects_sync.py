"""Network records that a start brings up to date: NICs, what bonds and VLANs lack, the internal network (S28, S46)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.db.datatype import NULL_REF
from hostagent.dbsync.change import MADE, Change, put
from hostagent.net import keys
from hostagent.netctl import objects_nics, objects_pif
from hostagent.netctl.control import References
from hostagent.netctl.fields import flag, pairs, text, texts
from hostagent.netctl.from_database import device_order

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping, Sequence

    from hostagent.db.datatype import Value
    from hostagent.db.transaction import Transaction
    from hostagent.db.view import View
    from hostagent.net.nics_types import Nic

    Record = Mapping[str, Value]

INTERNAL: dict[str, object] = {
    "name_label": "Host internal management network",
    "name_description": "Guests and this host, and nobody else",
    "bridge": "xenapi",
    "MTU": 1500,
    "managed": True,
}
INTERNAL_KEYS = {
    "is_host_internal_management_network": "true",
    "is_guest_installer_network": "true",
    "ip_begin": "169.254.0.1",
    "ip_end": "169.254.255.254",
    "netmask": "255.255.0.0",
}
SHOWN = ("device", "MAC", "capabilities", "management")


def scan(
    transaction: Transaction, host: str, nics: Sequence[Nic], bridge: str, now: dt.datetime
) -> list[Change]:
    """PIF.scan as a step: every NIC has its PIF; what that changed. `bridge` is that of the management interface."""
    before = _pifs(transaction, host)
    networks = set(transaction.refs("network"))
    objects_nics.scan(transaction, References(), host, nics, now)
    objects_pif.flag_management(transaction, host, bridge)
    changes = [
        Change(f"network {text(transaction, 'network', ref, 'name_label')}", None, MADE)
        for ref in transaction.refs("network")
        if ref not in networks
    ]
    for ref, record in _pifs(transaction, host).items():
        name = pif_name(record)
        if ref not in before:
            changes.append(Change(name, None, MADE))
            continue
        changes += [
            Change(f"{name}.{field}", _shown(before[ref][field]), _shown(record[field]))
            for field in SHOWN
            if before[ref][field] != record[field]
        ]
    return changes


def mend(transaction: Transaction, host: str) -> tuple[list[Change], list[str]]:
    """s12, the part that needs no coordinator: bonds and VLANs of this host are whole. What that changed, and what
    only a person can mend.

    A bond's members are not attached themselves, and one of them is its primary; a VLAN's PIF has the device and the
    measurements of what it lies on.
    """
    changes: list[Change] = []
    warnings: list[str] = []
    for ref, bond in list(transaction.records("Bond")):
        master = str(bond["master"])
        if not transaction.exists("PIF", master) or text(transaction, "PIF", master, "host") != host:
            continue
        changes += _mend_bond(transaction, ref, master, warnings)
    for vlan in list(transaction.refs("VLAN")):
        changes += _mend_vlan(transaction, vlan, host, warnings)
    return changes, warnings


def _mend_bond(transaction: Transaction, bond: str, master: str, warnings: list[str]) -> list[Change]:
    name = text(transaction, "PIF", master, "device")
    members = texts(transaction, "Bond", bond, "slaves")
    if not members:
        warnings.append(f"{name} has no member: destroy it (Bond.destroy), or make it anew")
        return []
    changes = []
    if text(transaction, "Bond", bond, "primary_slave") not in members:
        first = min(members, key=lambda pif: device_order(text(transaction, "PIF", pif, "device")))
        put(transaction, "Bond", bond, {"primary_slave": first})
        device = text(transaction, "PIF", first, "device")
        changes.append(Change(f"Bond {name}.primary_slave", "(gone)", f"PIF {device}"))
    for member in members:
        record = transaction.record("PIF", member)
        if transaction.set("PIF", member, "currently_attached", False):  # noqa: FBT003 - a field's value
            changes.append(Change(f"{pif_name(record)}.currently_attached", "true", "false"))
    return changes


def _mend_vlan(transaction: Transaction, vlan: str, host: str, warnings: list[str]) -> list[Change]:
    lower, upper = (text(transaction, "VLAN", vlan, field) for field in ("tagged_PIF", "untagged_PIF"))
    there = [ref for ref in (lower, upper) if ref and transaction.exists("PIF", ref)]
    if not any(text(transaction, "PIF", ref, "host") == host for ref in there):
        return []
    if len(there) < 2:
        missing = "lies on a PIF that is gone" if lower not in there else "has no PIF of its own"
        warnings.append(
            f"VLAN {text(transaction, 'VLAN', vlan, 'uuid')} {missing}: destroy it (VLAN.destroy)"
        )
        return []
    below, record = transaction.record("PIF", lower), transaction.record("PIF", upper)
    wanted = {"device": below["device"], "metrics": below["metrics"], "VLAN_master_of": vlan}
    changed = [field for field, value in wanted.items() if record[field] != value]
    transaction.update("PIF", upper, wanted)
    name = pif_name({**record, "device": below["device"]})
    return [Change(f"{name}.{field}", "(stale)", f"as of {below['device']}") for field in changed]


def recreate_vlans(transaction: Transaction) -> list[Change]:
    """m8. A PIF with a tag has its VLAN object, on the NIC or bond of that name on its host."""
    records = dict(transaction.records("PIF"))
    roots = {
        (record["host"], record["device"]): ref
        for ref, record in records.items()
        if record["VLAN"] == -1 and (record["physical"] is True or record["bond_master_of"])
    }
    changes = []
    for ref, record in records.items():
        tag = record["VLAN"]
        root = roots.get((record["host"], record["device"]))
        if not isinstance(tag, int) or tag < 0 or root is None or record["tunnel_access_PIF_of"]:
            continue
        vlan = str(record["VLAN_master_of"])
        if vlan != NULL_REF and transaction.exists("VLAN", vlan):
            continue
        made = transaction.create("VLAN", {"tagged_PIF": root, "untagged_PIF": ref, "tag": tag})
        transaction.set("PIF", ref, "VLAN_master_of", made)
        changes.append(Change(f"VLAN {tag} on {record['device']}", None, MADE))
    return changes


def internal_network(transaction: Transaction) -> list[Change]:
    """S46. The network between this host and its guests: one, with its bridge `xenapi` and its range of addresses.

    What an operator has added to it stays, also another range.
    """
    keyed = [
        ref
        for ref in transaction.refs("network")
        if pairs(transaction, "network", ref, "other_config").get("is_host_internal_management_network")
        == "true"
    ]
    found = keyed or transaction.where("network", bridge=str(INTERNAL["bridge"]))
    if not found:
        transaction.create("network", {**INTERNAL, "other_config": dict(INTERNAL_KEYS)})
        return [Change(f"network {INTERNAL['name_label']}", None, MADE)]
    ref = found[0]
    has = pairs(transaction, "network", ref, "other_config")
    lacking = dict(INTERNAL_KEYS)
    if not has.keys().isdisjoint(("ip_begin", "netmask")):
        del lacking["ip_end"]  # another range ends elsewhere: with its subnet, unless it says so
    values = {"bridge": INTERNAL["bridge"], "other_config": {**lacking, **has}}
    return put(transaction, "network", ref, values)


def idle_bridges(view: View, host: str, bridges: Sequence[str]) -> list[str]:
    """Of these bridges of ours in the kernel, those that nobody needs: of no PIF of this host, of no guest's interface
    that is attached, not marked to persist."""
    needed = set()
    for ref, record in view.records("network"):
        of_pif = any(
            text(view, "PIF", pif, "host") == host
            for pif in texts(view, "network", ref, "PIFs")
            if view.exists("PIF", pif)
        )
        of_guest = any(
            flag(view, "VIF", vif, "currently_attached")
            for vif in texts(view, "network", ref, "VIFs")
            if view.exists("VIF", vif)
        )
        if of_pif or of_guest or keys.of_network(pairs(view, "network", ref, "other_config")).persist:
            needed.add(str(record["bridge"]))
    return [bridge for bridge in bridges if bridge not in needed]


def pif_name(record: Record) -> str:
    """What reports call a PIF, which has no name."""
    tag = record["VLAN"]
    return f"PIF {record['device']}{f' tag {tag}' if isinstance(tag, int) and tag >= 0 else ''}"


def _pifs(view: View, host: str) -> dict[str, dict[str, Value]]:
    return {ref: record for ref, record in view.records("PIF") if record["host"] == host}


def _shown(value: Value) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
