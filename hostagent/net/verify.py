"""What of the wanted devices, addresses, routes and settings is not so: the check after a plan, and the drift check.

The judgement of what is stale (an address, a route, a port) is here, so that `plan` removes exactly what this reports.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.named import NamedTuple
from hostagent.net.devices import (
    GROUP,
    GUESTS_PORTS,
    PROTOCOL,
    SCOPE_LINK,
    UP,
    Address,
    Device,
    Kernel,
    Lease,
    Link,
    Route,
    Wanted,
)
from hostagent.net.inet import contains
from hostagent.net.resolv_conf import is_other, render
from hostagent.net.sysctl import Ipv6, ipv6_files

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

FOREVER = 0xFFFFFFFF
BY_KERNEL, BY_ADVERTISEMENT = 2, 9
"""Protocols of the routes that come with an address, and of those from router advertisements."""
NO_PREFIX_ROUTE = 0x200
"""IFA_F_NOPREFIXROUTE: of a DHCP client's address, whose route to its subnet is the client's own. It stays on an IPv4
address that is given another lifetime, which then has no such route when the client's goes."""
MANAGED_BY_KERNEL = 0x100
"""IFA_F_MANAGETEMPADDR: of an address that the kernel has made of a router's advertisement."""
DHCP_PREFIX6 = 128
OWN_KINDS = ("bridge", "bond", "vlan")
UPLINK_KINDS = ("", "bond", "vlan")
LINK_LOCAL = ("fe8", "fe9", "fea", "feb")
METRIC6 = 1024
"""What the kernel makes of metric 0 in an IPv6 route."""


class Around(NamedTuple):
    """What a look at the kernel's devices does not hold. What is missing in it is taken as wrong, and written."""

    sysctls: Mapping[str, str] = {}
    """By path below /proc/sys. `net/ipv6/conf/default/…` is what new devices begin with."""
    link: Mapping[str, Mapping[str, int | str]] = {}
    """By device: what each wanted link setting is (`ethtool.seen`)."""
    features: Mapping[str, Mapping[str, bool]] = {}
    leases: tuple[Lease, ...] = ()
    """Of the DHCP clients of ours that run."""
    resolver: str = ""
    """Content of resolv.conf."""
    resolver_left: tuple[tuple[str, str, str], ...] = ()
    """Bridges of which systemd-resolved has name servers that are to be the host's no more: these, and those that are
    to be in their place, in the form of resolv.conf (`resolver.left`)."""
    ipv6: Ipv6 = Ipv6()
    """What the host as a whole says about IPv6 (`sysctl.ipv6_of_host`)."""
    link_back: Mapping[str, Mapping[str, int | str]] = {}
    """By device: the link settings that bring back what there is now (`ethtool.restoring`)."""


class Difference(NamedTuple):
    device: str
    what: str
    """device, kind, lower, vlan_id, up, mac, mtu, master, group, altname, port, address, route, lease, dns, or the name
    of a setting."""
    wanted: str
    found: str
    serves: tuple[str, ...] = ()


def is_uplink(link: Link) -> bool:
    """Whether a port of a bridge leads out of the host: a NIC, bond or VLAN, and no guest's."""
    return link.kind in UPLINK_KINDS and not link.name.startswith(GUESTS_PORTS)


def family_of(text: str) -> int:
    return 6 if ":" in text or text == "default6" else 4


def metric_of(destination: str, metric: int) -> int:
    """The metric as the kernel shows it."""
    return metric or (METRIC6 if family_of(destination) == 6 else 0)


class Layer3:
    """Addresses and routes as wanted, by device, and the judgement of those that the kernel has."""

    def __init__(self, wanted: Wanted) -> None:
        self.devices = {device.name: device for device in wanted.devices}
        self.addresses = {(address.device, address.text, address.prefix) for address in wanted.addresses}
        self.routes = {
            (r.device, r.destination, r.gateway, metric_of(r.destination, r.metric)) for r in wanted.routes
        }
        self.leases = {(lease.device, lease.family): lease for lease in wanted.leases}

    def serves(self, name: str) -> tuple[str, ...]:
        return self.devices[name].serves if name in self.devices else ()

    @staticmethod
    def is_it(route: Route, destination: str, gateway: str, metric: int) -> bool:
        """Whether a route of the kernel is this one, and ours."""
        have = (route.destination, route.gateway, metric_of(destination, route.metric), route.protocol)
        return have == (destination, gateway, metric, PROTOCOL)

    def by_others(self, name: str, family: int) -> bool:
        """Whether a DHCP client or router advertisements give this device addresses and routes: those of a client are
        of protocol dhcp, with a lifetime or without (the last lease), in IPv6 /128."""
        by_router = family == 6 and self.devices[name].ipv6 in ("dhcp", "autoconf")
        return by_router or (name, family) in self.leases

    def address_is_stale(self, name: str, address: Address) -> bool:
        if address.scope >= SCOPE_LINK or (name, address.text, address.prefix) in self.addresses:
            return False
        return not self.by_others(name, family_of(address.text)) or self._of_nobody(name, address)

    def _of_nobody(self, name: str, address: Address) -> bool:
        """Whether it is an address for ever that neither a router nor DHCPv6 gives: a static one of before."""
        if ":" not in address.text or address.valid_s != FOREVER or address.flags & MANAGED_BY_KERNEL:
            return False
        return self.devices[name].ipv6 == "autoconf" or address.prefix != DHCP_PREFIX6

    def is_right(self, address: Address | None) -> bool:
        """Whether an address that is wanted for ever is so."""
        return address is not None and address.valid_s == FOREVER and not address.flags & NO_PREFIX_ROUTE

    def route_is_stale(self, name: str, route: Route) -> bool:
        if route.protocol == BY_KERNEL:
            return False
        key = (name, route.destination, route.gateway, metric_of(route.destination, route.metric))
        if route.protocol == PROTOCOL:
            return key not in self.routes
        if key in self.routes:
            return False
        return not self.by_others(name, family_of(route.destination)) or self._not_its_gateway(name, route)

    def _not_its_gateway(self, name: str, route: Route) -> bool:
        """Whether it is the default route of a client, or of routers, on a device that has not the gateway any more."""
        if route.destination == "default4":
            lease = self.leases.get((name, 4))
            return lease is not None and not lease.gateway
        return route.destination == "default6" and not self.devices[name].ipv6_gateway

    def can_be(self, name: str, gateway: str, near: Sequence[tuple[str, int]]) -> bool:
        """Whether a wanted route can be now: over a gateway that a DHCP client or a router gives the way to, only
        when it is in one of the subnets `near`, those that the device has."""
        if not self.by_others(name, family_of(gateway)) or not gateway or gateway.startswith(LINK_LOCAL):
            return True
        return any(contains(text, prefix, gateway) for text, prefix in near)


def differences(wanted: Wanted, kernel: Kernel, around: Around | None = None) -> tuple[Difference, ...]:
    """Everything that is not as wanted, devices in their order; () when all is right.

    Without `around`, only what the kernel's devices, addresses and routes show is compared.
    """
    found: list[Difference] = []
    by_name = kernel.by_name()
    indexes = {name: link.ifindex for name, link in by_name.items()}
    names = {index: link.name for index, link in kernel.links.items()}
    devices = {device.name: device for device in wanted.devices}
    for device in wanted.devices:
        link = by_name.get(device.name)
        if link is None:
            found.append(Difference(device.name, "device", device.kind, "missing", device.serves))
        else:
            _compare(found, device, link, indexes, devices)
    _ports(found, devices, kernel, names)
    for name in wanted.gone:
        link = by_name.get(name)
        if link is not None and link.kind in OWN_KINDS:
            found.append(Difference(name, "device", "none", link.kind))
    _addresses_and_routes(found, wanted, kernel, names)
    if around is not None:
        _around(found, wanted, around, by_name)
    return tuple(found)


def _compare(
    found: list[Difference], device: Device, link: Link, indexes: dict[str, int], devices: dict[str, Device]
) -> None:
    def differs(what: str, wanted: object, is_: object) -> None:
        found.append(Difference(device.name, what, str(wanted), str(is_), device.serves))

    if device.kind != "physical":
        if link.kind != device.kind:
            differs("kind", device.kind, link.kind)
            return
        if link.group != GROUP:
            differs("group", GROUP, link.group)
        if device.kind == "vlan":
            if link.lower != indexes.get(device.lower):
                differs("lower", device.lower, _named(link.lower, indexes))
            if link.vlan_id != device.vlan_id:
                differs("vlan_id", device.vlan_id, link.vlan_id)
    if not link.flags & UP:
        differs("up", "up", "down")
    if device.mac and link.mac != device.mac and not is_member(device, devices):
        differs("mac", device.mac, link.mac)
    if device.mtu and link.mtu != device.mtu:
        differs("mtu", device.mtu, link.mtu)
    if device.master and link.master != indexes.get(device.master):
        differs("master", device.master, _named(link.master, indexes))
    if device.altname and device.altname not in link.altnames:
        differs("altname", device.altname, " ".join(link.altnames))
    for name, value in settings_of(device, indexes).items():
        if link.settings.get(name) != value:
            differs(name, value, link.settings.get(name, "unknown"))


def settings_of(device: Device, indexes: Mapping[str, int]) -> Mapping[str, int]:
    """The settings as the kernel has them, where the primary member is an index; an absent one is left out."""
    if device.primary not in indexes:
        return device.settings
    return {**device.settings, "primary": indexes[device.primary]}


def _named(index: int, indexes: dict[str, int]) -> str:
    return next((name for name, other in indexes.items() if other == index), "none")


def is_left_over(link: Link, lower: Device, devices: Mapping[str, Device]) -> bool:
    """Whether a VLAN is ours, unwanted, and lies on a member of a bond, which carries VLANs only as a bond."""
    return link.group == GROUP and link.name not in devices and is_member(lower, devices)


def is_member(device: Device, devices: Mapping[str, Device]) -> bool:
    """Whether it is to be a member of a bond, which gives it its MAC address."""
    master = devices.get(device.master)
    return master is not None and master.kind == "bond"


def is_stray_bond(link: Link, *, used: bool) -> bool:
    """Whether it is the bond that loading the module makes (max_bonds): nobody's, empty and down. `used`: it has a
    member, a VLAN or an address."""
    return (
        link.kind == "bond" and link.group != GROUP and not link.flags & UP and not link.master and not used
    )


def _ports(
    found: list[Difference], devices: dict[str, Device], kernel: Kernel, names: dict[int, str]
) -> None:
    """Uplinks in our bridges and members of our bonds that are not named (networking.md 3.3 step 6); VLANs of ours that
    a change left on what became a member."""
    for link in kernel.links.values():
        lower = devices.get(names.get(link.lower, "")) if link.kind == "vlan" else None
        if lower is not None and is_left_over(link, lower, devices):
            found.append(Difference(lower.name, "vlan", "none", link.name, lower.serves))
        if link.master:
            master = devices.get(names.get(link.master, ""))
            if master is not None:
                device = devices.get(link.name)
                if (device is None or not device.master) and (master.kind == "bond" or is_uplink(link)):
                    found.append(Difference(master.name, "port", "none", link.name, master.serves))


def _addresses_and_routes(
    found: list[Difference], wanted: Wanted, kernel: Kernel, names: dict[int, str]
) -> None:
    layer3 = Layer3(wanted)
    devices = layer3.devices
    held: dict[tuple[str, str, int], Address] = {}
    for address in kernel.addresses:
        name = names.get(address.device, "")
        if name in devices:
            held[name, address.text, address.prefix] = address
            if layer3.address_is_stale(name, address):
                text = f"{address.text}/{address.prefix}"
                found.append(Difference(name, "address", "none", text, devices[name].serves))
    for need in wanted.addresses:
        have = held.get(need)
        if not layer3.is_right(have):
            is_ = "none" if have is None else f"only for {have.valid_s} s"
            if have is not None and have.valid_s == FOREVER:
                is_ = "without the route to its subnet"
            serves = devices[need.device].serves if need.device in devices else ()
            found.append(Difference(need.device, "address", f"{need.text}/{need.prefix}", is_, serves))
    ours = set()
    for route in kernel.routes:
        name = names.get(route.device, "")
        if name in devices:
            if layer3.route_is_stale(name, route):
                found.append(Difference(name, "route", "none", _told(route), devices[name].serves))
            elif route.protocol == PROTOCOL:
                ours.add((name, route.destination, route.gateway, route.metric))
    missing = sorted(layer3.routes - ours)
    lacking = {device for device, *_ in missing}
    indexes = {name: index for index, name in names.items() if name in lacking}
    near = subnets(kernel.addresses, kernel.routes, set(indexes.values()))
    for device, destination, gateway, metric in missing:
        if not layer3.can_be(device, gateway, near.get(indexes.get(device, 0), ())):
            continue
        serves = devices[device].serves if device in devices else ()
        told = _told(Route(0, destination, gateway, metric=metric))
        found.append(Difference(device, "route", told, "none", serves))


def subnets(
    addresses: Iterable[Address], routes: Iterable[Route], of: Collection[int]
) -> dict[int, list[tuple[str, int]]]:
    """The subnets that lie at these devices (indexes), by their addresses and by routes without a gateway."""
    found: dict[int, list[tuple[str, int]]] = {}
    if not of:
        return found
    for address in addresses:
        if address.device in of:
            found.setdefault(address.device, []).append((address.text, address.prefix))
    for route in routes:
        if route.device in of and not route.gateway and "/" in route.destination:
            text, _, prefix = route.destination.partition("/")
            found.setdefault(route.device, []).append((text, int(prefix)))
    return found


def _told(route: Route) -> str:
    via = f" via {route.gateway}" if route.gateway else ""
    return f"{route.destination}{via}" + (f" metric {route.metric}" if route.metric else "")


def _around(found: list[Difference], wanted: Wanted, around: Around, by_name: Mapping[str, Link]) -> None:
    scope = {*wanted.gone}
    for device in wanted.devices:
        scope.add(device.name)
        if device.name not in by_name:
            continue
        files = ipv6_files(device.name, device.ipv6, around.ipv6, gateway=device.ipv6_gateway)
        pairs = [(path, value, around.sysctls.get(path)) for path, value in files]
        modes, features = around.link.get(device.name, {}), around.features.get(device.name, {})
        pairs += [(name, str(value), _text(modes.get(name))) for name, value in device.link.items()]
        pairs += [(name, str(value), _text(features.get(name))) for name, value in device.features.items()]
        for what, value, is_ in pairs:
            if value != is_:
                found.append(Difference(device.name, what, value, is_ or "unknown", device.serves))
    for lease in wanted.leases:
        if lease not in around.leases:
            found.append(Difference(lease.device, "lease", f"IPv{lease.family}", "no DHCP client"))
    for lease in around.leases:
        if lease.device in scope and lease not in wanted.leases:
            found.append(Difference(lease.device, "lease", "none", f"a DHCP client for IPv{lease.family}"))
    if wanted.dns is not None and is_other(around.resolver, wanted.dns):
        found.append(Difference("", "dns", render(wanted.dns, around.resolver), around.resolver))


def _text(value: object) -> str | None:
    return None if value is None else str(value)
