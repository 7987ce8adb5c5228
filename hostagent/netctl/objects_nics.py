"""PIF.scan and PIF.introduce: NICs become PIFs, measurements and networks (networking.md 1.5, 1.9)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hostagent.db.datatype import stamp
from hostagent.netctl.fields import text, texts
from hostagent.netctl.objects_network import free_bridge

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Sequence

    from hostagent.db.transaction import Transaction
    from hostagent.db.view import View
    from hostagent.net.nics_types import Nic
    from hostagent.netctl.control import References

POSITION = re.compile(r"xenbr(\d{1,6})", re.ASCII)


def scan(
    transaction: Transaction,
    references: References,
    host: str,
    nics: Sequence[Nic],
    now: dt.datetime,
) -> list[str]:
    """Refresh the PIFs of known NICs and make those of new ones; returns the new ones. PIFs whose NIC is gone stay.

    Of new ones, those that the host's policy leaves to others are not managed, those it pins disallow unplug.
    """
    known = match(transaction, host, nics)
    for pif, nic in known.items():
        _refresh(transaction, pif, nic, now)
    found = set(known.values())
    return [
        introduce(
            transaction,
            references,
            host,
            nic,
            now,
            managed=not nic.unmanaged,
            disallow_unplug=nic.pinned,
        )
        for nic in nics
        if nic.present and nic not in found
    ]


def match(view: View, host: str, nics: Sequence[Nic]) -> dict[str, Nic]:
    """Which NIC each physical PIF is: that at the position its bridge is named after, for PIFs without such a bridge
    that with its MAC address, else that with its name.
    """
    pifs = [(ref, record) for ref, record in view.records("PIF") if record["host"] == host]
    free = {nic.position: nic for nic in nics}
    found: dict[str, Nic] = {}
    left = []
    for ref, record in pifs:
        if record["physical"] is not True:
            continue
        bridge = POSITION.fullmatch(text(view, "network", str(record["network"]), "bridge"))
        nic = free.pop(int(bridge[1]), None) if bridge else None
        if nic is None:
            left.append((ref, str(record["MAC"]).lower(), str(record["device"])))
        else:
            found[ref] = nic
    by_mac = {nic.mac.lower(): nic.position for nic in free.values()}
    by_name = {nic.name: nic.position for nic in free.values()}
    for ref, mac, _ in left:
        if by_mac.get(mac) in free:
            found[ref] = free.pop(by_mac[mac])
    for ref, _, name in left:
        if ref not in found and by_name.get(name) in free:
            found[ref] = free.pop(by_name[name])
    return found


def introduce(
    transaction: Transaction,
    references: References,
    host: str,
    nic: Nic,
    now: dt.datetime,
    *,
    managed: bool = True,
    disallow_unplug: bool = False,
) -> str:
    """The PIF of a new NIC, unplugged and without addresses, on the network of its position."""
    metrics = references.create(transaction, "PIF_metrics", measurements(nic, now))
    return references.create(
        transaction,
        "PIF",
        {
            "device": nic.name,
            "network": _network(transaction, references, host, nic, managed=managed),
            "host": host,
            "MAC": nic.mac.lower(),
            "MTU": nic.mtu,
            "VLAN": -1,
            "metrics": metrics,
            "physical": True,
            "currently_attached": False,
            "disallow_unplug": disallow_unplug,
            "managed": managed,
            "properties": {"gro": "on"},
            "capabilities": list(nic.capabilities),
        },
    )


def measurements(nic: Nic, now: dt.datetime) -> dict[str, object]:
    """The fields of PIF_metrics."""
    return {
        "carrier": nic.carrier and nic.present,
        "vendor_id": nic.vendor_id,
        "vendor_name": nic.vendor_name,
        "device_id": nic.device_id,
        "device_name": nic.device_name,
        "speed": nic.speed,
        "duplex": nic.duplex,
        "pci_bus_path": nic.pci_path,
        "last_updated": stamp(now),
    }


def _network(transaction: Transaction, references: References, host: str, nic: Nic, *, managed: bool) -> str:
    """That with the bridge of the NIC's position, unless it is taken on this host; else a new one, then with a bridge
    of another name: no two networks share one.
    """
    bridge = f"xenbr{nic.position}" if managed else ""
    for ref, record in transaction.records("network") if bridge else ():
        if record["bridge"] != bridge:
            continue
        pifs = texts(transaction, "network", ref, "PIFs")
        if all(text(transaction, "PIF", pif, "host") != host for pif in pifs):
            return ref
        bridge = free_bridge(transaction)
    return references.create(
        transaction,
        "network",
        {
            "name_label": f"Pool-wide network {nic.position}",
            "bridge": bridge,
            "managed": managed,
            "other_config": {},
        },
    )


def _refresh(transaction: Transaction, pif: str, nic: Nic, now: dt.datetime) -> None:
    """A NIC that is gone changes nothing but its link: what it was is what is looked for."""
    metrics = text(transaction, "PIF", pif, "metrics")
    if metrics and transaction.exists("PIF_metrics", metrics):
        found = measurements(nic, now) if nic.present else {"carrier": False}
        present = transaction.record("PIF_metrics", metrics)
        if any(present[field] != value for field, value in found.items() if field != "last_updated"):
            transaction.update("PIF_metrics", metrics, {**found, "last_updated": stamp(now)})
    if not nic.present:
        return
    transaction.update(
        "PIF",
        pif,
        {"device": nic.name, "MAC": nic.mac.lower(), "capabilities": list(nic.capabilities)},
    )
    for vlan in texts(transaction, "PIF", pif, "VLAN_slave_of"):
        transaction.set("PIF", text(transaction, "VLAN", vlan, "untagged_PIF"), "device", nic.name)
