"""What the kernel says of this host's PIFs, and writing it into their records: pure, but for the transaction.

`currently_attached` is the verified chain (networking.md 7.8). Addresses of static PIFs are configuration and stay;
those of DHCP and autoconfiguration follow the kernel (startup-and-pool-join.md 5.2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.db.datatype import stamp
from hostagent.dbsync.change import Change, put
from hostagent.named import NamedTuple
from hostagent.net import early, owners
from hostagent.net.attached import as_now, attached
from hostagent.net.chains import bond_of, lower_of, members
from hostagent.net.devices import SCOPE_LINK, UP
from hostagent.net.ladder import netmask_of
from hostagent.netctl.fields import text

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Mapping

    from hostagent.db.transaction import Transaction
    from hostagent.net.devices import Kernel, Link
    from hostagent.net.records import Pif, Records

LACP = "lacp"
MII_UP = 0
"""BOND_LINK_UP: the bond uses this member."""
SNOOPING = {0: "disabled", 1: "enabled"}
"""PIF.igmp_snooping_status, of the setting of the PIF's bridge."""


class Speed(NamedTuple):
    """Of a NIC's link: Mb/s, 0 when not known; full duplex."""

    speed: int = 0
    duplex: bool = False


class Observed(NamedTuple):
    """Values of fields, by class and reference."""

    pifs: Mapping[str, Mapping[str, object]]
    metrics: Mapping[str, Mapping[str, object]]
    """By the reference of a PIF whose PIF_metrics it is."""
    bonds: Mapping[str, Mapping[str, object]]
    address: str
    """Of the management interface, in its family; empty while it has none."""


def observe(
    records: Records,
    kernel: Kernel,
    *,
    family: str = "IPv4",
    speed: Callable[[str], Speed] = lambda _: Speed(),
    servers: Callable[[str], str | None] = lambda _: None,
) -> Observed:
    """What the records of this host are to say. `speed` of a NIC's link by its name; `servers`, the name servers of the
    DHCP lease of a bridge, or None to leave what is recorded."""
    links = kernel.by_name()
    up = attached(records, kernel)
    now = as_now(records, kernel)
    gateways = {number: owners.gateway_owner(now, up, number).ref for number in (4, 6)}
    resolver = owners.dns_owner(now, up).ref
    addresses = _by_device(kernel)
    management = early.management(records)
    pifs: dict[str, dict[str, object]] = {}
    metrics = {}
    for ref, pif in records.pifs.items():
        network = records.networks.get(pif.network)
        bridge = links.get(network.bridge) if network else None
        values: dict[str, object] = {
            "currently_attached": ref in up,
            "management": management is not None and ref == management.ref,
            "igmp_snooping_status": "unknown",
        }
        if ref in up and bridge is not None:
            values["MTU"] = bridge.mtu
            values["igmp_snooping_status"] = SNOOPING.get(
                bridge.settings.get("mcast_snooping", -1), "unknown"
            )
            values |= _addresses(pif, bridge, addresses.get(bridge.ifindex, ()), kernel, gateways)
            if ref == resolver and "DHCP" in (pif.ip_mode, pif.ipv6_mode):
                told = servers(bridge.name)
                if told is not None:
                    values["DNS"] = told
        elif ref not in up:
            values |= _no_addresses(pif)
        if ref != resolver and owners.dns_is_told(pif):
            values["DNS"] = ""
        pifs[ref] = values
        if not lower_of(records, pif):  # those of a VLAN are those of what it lies on
            metrics[ref] = _link(records, pif, links, speed)
    bonds = {
        ref: {"links_up": _links_up(records, records.pifs[bond.master], links)}
        for ref, bond in records.bonds.items()
    }
    return Observed(pifs, metrics, bonds, management_address(kernel, records.bridge, family))


def management_address(kernel: Kernel, device: str, family: str) -> str:
    """The first address of that family on the device that others can reach; not one that is yet being checked."""
    link = kernel.by_name().get(device)
    wants6 = family == "IPv6"
    return next(
        (
            address.text
            for address in kernel.addresses
            if link is not None and address.device == link.ifindex and (":" in address.text) == wants6
            if address.scope < SCOPE_LINK and not address.text.startswith(("127.", "fe80:"))
            if address.usable
        ),
        "",
    )


def awaits_address(kernel: Kernel, device: str) -> bool:
    """Whether the device has an IPv6 address that the kernel is checking: it can be listened on in a second or two."""
    link = kernel.by_name().get(device)
    return link is not None and any(
        one.device == link.ifindex and one.scope < SCOPE_LINK and one.checking for one in kernel.addresses
    )


def default_device(kernel: Kernel) -> str:
    """The device with the default route of the lowest metric, IPv4 before IPv6, that has an address; empty for none."""
    found = sorted(
        (route.destination, route.metric, kernel.links[route.device].name)
        for route in kernel.routes
        if route.destination in ("default4", "default6") and route.device in kernel.links
    )
    for destination, _, name in found:
        if management_address(kernel, name, "IPv6" if destination == "default6" else "IPv4"):
            return name
    return ""


def write(transaction: Transaction, seen: Observed, now: dt.datetime) -> list[Change]:
    """Write what differs; what that changed. Objects that are gone meanwhile are passed over."""
    changes: list[Change] = []
    for ref, values in seen.pifs.items():
        if transaction.exists("PIF", ref):
            changes += _named(transaction, ref, put(transaction, "PIF", ref, values))
    for ref, values in seen.metrics.items():
        if not transaction.exists("PIF", ref):
            continue
        metrics = text(transaction, "PIF", ref, "metrics")
        if metrics and transaction.exists("PIF_metrics", metrics):
            present = transaction.record("PIF_metrics", metrics)
            if any(present[field] != value for field, value in values.items()):
                done = put(transaction, "PIF_metrics", metrics, {**values, "last_updated": stamp(now)})
                kept = [change for change in done if not change.what.endswith(".last_updated")]
                changes += _named(transaction, ref, kept)
    for ref, values in seen.bonds.items():
        if transaction.exists("Bond", ref):
            changes += put(transaction, "Bond", ref, values)
    return changes


def _named(transaction: Transaction, pif: str, changes: list[Change]) -> list[Change]:
    """The changes, each with the name of the PIF's device: a PIF has no name of its own."""
    record = transaction.record("PIF", pif)
    tag = record["VLAN"]
    device = f"{record['device']}{f' tag {tag}' if isinstance(tag, int) and tag >= 0 else ''}"
    return [
        change._replace(what=f"{change.what.partition('.')[0]} {device}.{change.what.partition('.')[2]}")
        for change in changes
    ]


def _by_device(kernel: Kernel) -> dict[int, list[tuple[str, int]]]:
    found: dict[int, list[tuple[str, int]]] = {}
    for address in kernel.addresses:
        if address.scope < SCOPE_LINK:
            found.setdefault(address.device, []).append((address.text, address.prefix))
    return found


def _addresses(
    pif: Pif,
    bridge: Link,
    has: list[tuple[str, int]] | tuple[()],
    kernel: Kernel,
    gateways: Mapping[int, str],
) -> dict[str, object]:
    values: dict[str, object] = {}
    if pif.ip_mode == "DHCP":
        four = [(text_, prefix) for text_, prefix in has if ":" not in text_]
        values["IP"] = four[0][0] if four else ""
        values["netmask"] = netmask_of(four[0][1]) if four else ""
        values["gateway"] = (
            _gateway(kernel, bridge, "default4") if four and gateways[4] in ("", pif.ref) else ""
        )
    if pif.ipv6_mode in ("DHCP", "Autoconf"):
        six = [f"{text_}/{prefix}" for text_, prefix in has if ":" in text_]
        values["IPv6"] = six
        values["ipv6_gateway"] = (
            _gateway(kernel, bridge, "default6") if six and gateways[6] in ("", pif.ref) else ""
        )
    return values


def _no_addresses(pif: Pif) -> dict[str, object]:
    values: dict[str, object] = {}
    if pif.ip_mode == "DHCP":
        values |= {"IP": "", "netmask": "", "gateway": ""}
    if pif.ipv6_mode in ("DHCP", "Autoconf"):
        values |= {"IPv6": [], "ipv6_gateway": ""}
    return values


def _gateway(kernel: Kernel, bridge: Link, destination: str) -> str:
    found = [
        (route.metric, route.gateway)
        for route in kernel.routes
        if route.device == bridge.ifindex and route.destination == destination
    ]
    return min(found)[1] if found else ""


def _link(
    records: Records, pif: Pif, links: Mapping[str, Link], speed: Callable[[str], Speed]
) -> dict[str, object]:
    """Of a bond: whether any member has carrier, the speed that its mode adds up to."""
    parts = members(records, pif) or [pif]
    live = [part.device for part in parts if part.device in links and _has_carrier(links[part.device])]
    speeds = [speed(name) for name in live]
    bond = bond_of(records, pif)
    numbers = [one.speed for one in speeds]
    total = sum(numbers) if bond is not None and bond.mode == LACP else max(numbers, default=0)
    return {
        "carrier": bool(live),
        "speed": total,
        "duplex": bool(speeds) and all(one.duplex for one in speeds),
    }


def _has_carrier(link: Link) -> bool:
    return link.carrier and bool(link.flags & UP)


def _links_up(records: Records, master: Pif, links: Mapping[str, Link]) -> int:
    bond = links.get(master.device)
    if bond is None:
        return 0
    return sum(
        _has_carrier(link) and link.port.get("mii_status", MII_UP) == MII_UP
        for part in members(records, master)
        if (link := links.get(part.device)) is not None and link.master == bond.ifindex
    )
