"""What the database says of one host's network, in the shape that the network drivers take it in."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from hostagent.db.datatype import NULL_REF
from hostagent.net.records import Bond, Network, Pif, Records, Vlan

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hostagent.db.datatype import Value
    from hostagent.db.view import View

    Record = Mapping[str, Value]

DIGITS = re.compile(r"(\d+)")


def records_of(view: View, host: str, bridge: str) -> Records:
    """The PIFs of `host` with their bonds and VLANs, the networks they are on, and those that no PIF is on.

    `bridge` is that of the management interface, as the inventory has it; empty while there is none. The same objects
    always give the same records, in the same order. Raises HandleInvalidError without the host.
    """
    pifs = {ref: _pif(ref, record) for ref, record in view.records("PIF") if record["host"] == host}
    vlans = {
        ref: _vlan(ref, record) for ref, record in view.records("VLAN") if record["untagged_PIF"] in pifs
    }
    attached = {pif.network for pif in pifs.values()}
    networks = {
        ref: _network(ref, record)
        for ref, record in view.records("network")
        if ref in attached or not record["PIFs"]
    }
    return _records(view, host, bridge, pifs, networks, vlans)


def records_after(view: View, was: Records, since: int, host: str, bridge: str) -> Records:
    """The same, when `was` is what `records_of` gave at generation `since`: only what has changed is read."""
    changed: dict[str, Record] = {
        change.ref: json.loads(change.record)
        for change in view.changes(since, ("PIF", "VLAN", "network"))
        if change.record is not None
    }
    pifs = {}
    for ref in view.refs("PIF"):
        if ref not in changed:
            if ref in was.pifs:
                pifs[ref] = was.pifs[ref]
        elif changed[ref]["host"] == host:
            pifs[ref] = _pif(ref, changed[ref])
    vlans = {}
    for ref in view.refs("VLAN"):
        vlan = _vlan(ref, changed[ref]) if ref in changed else was.vlans.get(ref)
        if vlan is not None and vlan.untagged in pifs:
            vlans[ref] = vlan
    attached = {pif.network for pif in pifs.values()}
    networks = {}
    for ref in view.refs("network"):
        if ref not in changed:
            if ref in was.networks:
                networks[ref] = was.networks[ref]
        elif ref in attached or not changed[ref]["PIFs"]:
            networks[ref] = _network(ref, changed[ref])
    return _records(view, host, bridge, pifs, networks, vlans)


def _records(
    view: View,
    host: str,
    bridge: str,
    pifs: dict[str, Pif],
    networks: dict[str, Network],
    vlans: dict[str, Vlan],
) -> Records:
    """With the bonds, which are few, and whose members' order follows from the PIFs."""
    bonds = {
        ref: _bond(ref, record, pifs) for ref, record in view.records("Bond") if record["master"] in pifs
    }
    pool = view.the_only("pool")
    return Records(
        host_uuid=str(view.get("host", host, "uuid")),
        pifs=pifs,
        networks=networks,
        bonds=bonds,
        vlans=vlans,
        bridge=bridge,
        pool_other_config={} if pool == NULL_REF else _pairs(view.get("pool", pool, "other_config")),
    )


def device_order(name: str) -> tuple[tuple[int, str], ...]:
    """Sorts eth10 after eth9."""
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in DIGITS.split(name) if part)


def _pif(ref: str, record: Record) -> Pif:
    return Pif(
        ref=ref,
        uuid=str(record["uuid"]),
        device=str(record["device"]),
        network=_ref(record["network"]),
        mac=str(record["MAC"]).lower(),
        vlan=_number(record["VLAN"]),
        physical=record["physical"] is True,
        managed=record["managed"] is True,
        management=record["management"] is True,
        currently_attached=record["currently_attached"] is True,
        disallow_unplug=record["disallow_unplug"] is True,
        ip_mode=str(record["ip_configuration_mode"]),
        ip=str(record["IP"]),
        netmask=str(record["netmask"]),
        gateway=str(record["gateway"]),
        dns=str(record["DNS"]),
        ipv6_mode=str(record["ipv6_configuration_mode"]),
        ipv6=_texts(record["IPv6"]),
        ipv6_gateway=str(record["ipv6_gateway"]),
        primary_address_type=str(record["primary_address_type"]),
        bond_slave_of=_ref(record["bond_slave_of"]),
        bond_master_of=_texts(record["bond_master_of"]),
        vlan_master_of=_ref(record["VLAN_master_of"]),
        vlan_slave_of=_texts(record["VLAN_slave_of"]),
        properties=_pairs(record["properties"]),
        other_config=_pairs(record["other_config"]),
    )


def _network(ref: str, record: Record) -> Network:
    return Network(
        ref=ref,
        uuid=str(record["uuid"]),
        name_label=str(record["name_label"]),
        bridge=str(record["bridge"]),
        mtu=_number(record["MTU"]),
        managed=record["managed"] is True,
        other_config=_pairs(record["other_config"]),
    )


def _bond(ref: str, record: Record, pifs: Mapping[str, Pif]) -> Bond:
    primary = _ref(record["primary_slave"])
    slaves = sorted(
        (slave for slave in _texts(record["slaves"]) if slave in pifs),
        key=lambda slave: (slave != primary, device_order(pifs[slave].device)),
    )
    return Bond(
        ref=ref,
        uuid=str(record["uuid"]),
        master=str(record["master"]),
        slaves=tuple(slaves),
        primary_slave=primary,
        mode=str(record["mode"]),
        properties=_pairs(record["properties"]),
        auto_update_mac=record["auto_update_mac"] is True,
    )


def _vlan(ref: str, record: Record) -> Vlan:
    return Vlan(
        ref=ref,
        uuid=str(record["uuid"]),
        tagged=_ref(record["tagged_PIF"]),
        untagged=_ref(record["untagged_PIF"]),
        tag=_number(record["tag"]),
    )


def _ref(value: Value) -> str:
    return "" if value == NULL_REF else str(value)


def _number(value: Value) -> int:
    return value if isinstance(value, int) else -1


def _texts(value: Value) -> tuple[str, ...]:
    return tuple(str(item) for item in value) if isinstance(value, list) else ()


def _pairs(value: Value) -> dict[str, str]:
    return {key: str(item) for key, item in value.items()} if isinstance(value, dict) else {}
