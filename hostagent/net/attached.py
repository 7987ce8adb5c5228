"""Which PIFs are up, from what the kernel has: the whole chain from the NIC to the bridge, not the bridge alone.

A bridge without its uplink is there and serves nobody (networking.md 5, row 55).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.net.devices import GROUP, SCOPE_LINK, UP

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hostagent.net.devices import Kernel, Link
    from hostagent.net.records import Pif, Records

STATIC, NONE = "Static", "None"
DISABLED = "disable_ipv6"


def attached(records: Records, kernel: Kernel) -> frozenset[str]:
    """PIFs, by reference, whose chain is there and up; no member of a bond, for that has no state of its own."""
    links = kernel.by_name()
    vlans = {(link.lower, link.vlan_id): link for link in kernel.links.values() if link.kind == "vlan"}
    addressed = frozenset(one.device for one in kernel.addresses if one.scope < SCOPE_LINK)
    told = [link for link in kernel.links.values() if DISABLED in link.ipv6]
    # where it is on for nothing at all, the host has it switched off: then it says nothing of a device
    tells = any(not link.ipv6[DISABLED] for link in told)
    off = frozenset(link.ifindex for link in told if link.ipv6[DISABLED] and tells)
    return frozenset(
        ref for ref, pif in records.pifs.items() if _is_up(records, pif, links, vlans, addressed, off)
    )


def works(records: Records, pif: Pif, kernel: Kernel) -> bool:
    """Whether its chain is up, with carrier, and it has an address if it is to have one."""
    if pif.ref not in attached(records, kernel):
        return False
    bridge = kernel.by_name().get(records.networks[pif.network].bridge)
    if bridge is None or not bridge.carrier:
        return False
    wants = pif.ip_mode != NONE or pif.ipv6_mode != NONE
    return not wants or any(
        address.device == bridge.ifindex and address.scope < SCOPE_LINK for address in kernel.addresses
    )


def as_now(records: Records, kernel: Kernel) -> Records:
    """The records with `currently_attached` as the kernel has it."""
    up = attached(records, kernel)
    changed = {
        ref: pif._replace(currently_attached=ref in up)
        for ref, pif in records.pifs.items()
        if pif.currently_attached != (ref in up)
    }
    return records._replace(pifs={**records.pifs, **changed}) if changed else records


def torn(records: Records, kernel: Kernel) -> frozenset[str]:
    """PIFs, by reference, that are not up though a bridge of ours is there for them: without their device in it."""
    links = kernel.by_name()
    vlans = {(link.lower, link.vlan_id): link for link in kernel.links.values() if link.kind == "vlan"}
    up = attached(records, kernel)
    found = set()
    for ref, pif in records.pifs.items():
        network = records.networks.get(pif.network)
        bridge = links.get(network.bridge) if network is not None and network.managed else None
        if bridge is None or bridge.group != GROUP or ref in up or pif.bond_slave_of:
            continue
        device = device_of(pif, links, vlans)
        if device is None or device.master != bridge.ifindex:
            found.add(ref)
    return frozenset(found)


def device_of(pif: Pif, links: Mapping[str, Link], vlans: Mapping[tuple[int, int], Link]) -> Link | None:
    """The device that carries a PIF's frames: NIC, bond, or the VLAN device on one of them."""
    lower = links.get(pif.device)
    if lower is None or pif.vlan < 0:
        return lower
    return vlans.get((lower.ifindex, pif.vlan))


def _is_up(
    records: Records,
    pif: Pif,
    links: Mapping[str, Link],
    vlans: Mapping[tuple[int, int], Link],
    addressed: frozenset[int],
    off: frozenset[int],
) -> bool:
    if pif.bond_slave_of:
        return False
    network = records.networks.get(pif.network)
    if network is None:
        return False
    bridge = links.get(network.bridge)
    if not network.managed:
        return bridge is not None
    device = device_of(pif, links, vlans)
    if device is None or not device.flags & UP:
        return False
    if network.bridge and not (bridge and bridge.flags & UP and device.master == bridge.ifindex):
        return False
    return not _only_carries(pif, bridge or device, device, addressed, off, vlans, records)


def _only_carries(
    pif: Pif,
    top: Link,
    device: Link,
    addressed: frozenset[int],
    off: frozenset[int],
    vlans: Mapping[tuple[int, int], Link],
    records: Records,
) -> bool:
    """Whether the chain is there for the VLANs on it alone: a PIF that nobody says to be up and that has no address,
    where one would be there at once (a fixed one) or IPv6 is off, as on what only carries (`stack.CARRYING`)."""
    if pif.currently_attached or top.ifindex in addressed:
        return False
    if STATIC not in (pif.ip_mode, pif.ipv6_mode) and top.ifindex not in off:
        return False
    tags = (records.vlans[ref].tag for ref in pif.vlan_slave_of if ref in records.vlans)
    return any((device.ifindex, tag) in vlans for tag in tags)
