"""Operations that make again what a look at the kernel showed: an address, a route, a device with its settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hostagent.net.bonds import LACP
from hostagent.net.devices import UP
from hostagent.net.operation import Operation
from hostagent.net.sysctl import ipv6_files
from hostagent.net.verify import FOREVER, NO_PREFIX_ROUTE, family_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hostagent.net.devices import Address, Link, Route

PERMANENT = 0x80  # IFA_F_PERMANENT
WITH_PRIMARY = (1, 5, 6)  # active-backup, balance-tlb, balance-alb


def address_add(link: Link, address: Address) -> Operation:
    """With its prefix route by the kernel, also where a daemon had made that one by itself (IFA_F_NOPREFIXROUTE): an
    IPv4 address that goes takes it along, and who made it need not be there to make it again.
    """
    args: dict[str, Any] = {"text": address.text, "prefix": address.prefix}
    flags = address.flags if family_of(address.text) == 6 else address.flags & ~NO_PREFIX_ROUTE
    if flags != PERMANENT:
        args["flags"] = flags
    if address.valid_s != FOREVER:
        args["valid_s"] = address.valid_s
    return Operation("address-add", link.name, link.ifindex, args)


def route_add(link: Link, route: Route) -> Operation:
    return Operation("route-add", link.name, link.ifindex, {
        "destination": route.destination,
        "gateway": route.gateway,
        "protocol": route.protocol,
        "metric": route.metric,
    })  # fmt: skip


def made_again(
    link: Link, sysctls: Mapping[str, str], master: list[Operation], *on_it: list[Operation]
) -> list[Operation]:
    """A bridge, bond or VLAN that was deleted: with its IPv6 mode as `sysctls` have it, then what its `master` gets
    back, then up with what was on it.
    """
    args: dict[str, Any] = {"kind": link.kind, "mac": link.mac, "mtu": link.mtu, "group": link.group}
    if link.kind == "vlan":
        args |= {"lower": link.lower, "vlan_id": link.vlan_id}
    if link.settings:
        args["settings"] = creatable(link.settings) if link.kind == "bond" else dict(link.settings)
    if link.master:
        args["master"] = link.master
    # undone from a journal it may be there still, with what the undo of later steps did to it
    still = {name: args[name] for name in ("mac", "mtu", "master", "group") if args.get(name)}
    again = [Operation("link-add", link.name, link.ifindex, args)]
    again.append(Operation("link-set", link.name, link.ifindex, still))
    again += [Operation("link-set", link.name, link.ifindex, {"altname": each}) for each in link.altnames]
    for path, _ in ipv6_files(link.name, "autoconf"):
        if path in sysctls:
            value = {"path": path, "value": sysctls[path]}
            again.append(Operation("sysctl", link.name, link.ifindex, value))
    again += master
    if link.flags & UP:
        again.append(Operation("link-set", link.name, link.ifindex, {"up": True}))
    return again + [operation for each in on_it for operation in each]


ARP_MODES = (0, 1, 2, 3)
ONLY_IN = {
    "packets_per_slave": (0,),
    "tlb_dynamic_lb": (5, 6),
    "lacp_active": (LACP,),
    **dict.fromkeys(
        ("arp_interval", "arp_validate", "arp_ip_target", "ns_ip6_target", "missed_max"), ARP_MODES
    ),
}
"""The modes of a bond in which the kernel takes these at all (EACCES in others), also with the value it shows."""


def creatable(settings: Mapping[str, int]) -> dict[str, int]:
    """The settings of a bond as the kernel shows them, without those it refuses in that mode or without members."""
    mode = settings.get("mode", 0)
    timed = settings.get("miimon", 0)
    return {
        name: value
        for name, value in settings.items()
        if (mode == LACP or not name.startswith("ad_"))
        and (mode in WITH_PRIMARY or not name.startswith("primary"))
        and (timed or name not in ("updelay", "downdelay", "peer_notif_delay"))
        and not (name == "primary" and not value)
        and name != "active_slave"
        and mode in ONLY_IN.get(name, (mode,))
    }
