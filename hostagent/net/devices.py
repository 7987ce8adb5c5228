"""Devices, addresses and routes, wanted (`Wanted`) and as the kernel has them (`Kernel`), in one vocabulary.

Texts of addresses are in the kernel's own form (`inet_ntop`), MAC addresses in lower case. Indexes are the kernel's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.named import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

GROUP = 171
"""Interface group of the devices that we made (`ip link show group 171`): what others made is not touched."""
LEAVING = 171_000
"""Group of the VLANs that the next message deletes together."""
PROTOCOL = 171
"""Protocol number of the routes that we made (`ip route show proto 171`). Addresses need no mark: those on our bridges
are ours (iproute2 6.1 cannot show an address's protocol)."""
GUESTS_PORTS = ("vif", "tap")
"""What the names of guests' ports of a bridge begin with."""
INDEX_FIRST, INDEX_LAST = 0x10000000, 0x1FFFFFFF
"""Indexes of devices that we make: known before they exist, so that a plan is written as a whole."""


UP = 1
"""IFF_UP, of a link's flags (include/uapi/linux/if.h)."""
SCOPE_LINK = 253
"""RT_SCOPE_LINK: what has less reaches beyond its link; addresses of that scope the kernel gives by itself."""
OPTIMISTIC, DADFAILED, TENTATIVE = 0x04, 0x08, 0x40
"""IFA_F_…, include/uapi/linux/if_addr.h; of IPv6 addresses alone."""


class Link(NamedTuple):
    """A device of the kernel."""

    ifindex: int
    name: str
    kind: str
    """bridge, bond, vlan, veth, …; empty for a real one."""
    mac: str
    mtu: int
    master: int
    lower: int
    """IFLA_LINK: the device that a VLAN lies on."""
    flags: int
    group: int
    carrier: bool
    operstate: int
    permanent_mac: str = ""
    parent: str = ""
    """Where a real one is plugged in, e.g. a PCI address."""
    altnames: tuple[str, ...] = ()
    min_mtu: int = 0
    max_mtu: int = 0
    vlan_id: int = -1
    vlan_protocol: int = 0
    settings: Mapping[str, int] = {}
    """Of a bridge or bond, by the names of BRIDGE_SETTINGS and BOND_SETTINGS (`netlink_names.py`)."""
    port: Mapping[str, int] = {}
    """Of a port of a bond: state, mii_status, link_failure_count, ad_aggregator_id, ad_actor_state and
    ad_partner_state."""
    partner: str = ""
    """Of a bond in mode 802.3ad: MAC of the system at the other end."""
    ipv6: Mapping[str, int] = {}
    """Settings below net/ipv6/conf, by the names of IPV6_SETTINGS (`netlink_names.py`); empty without IPv6."""


class Address(NamedTuple):
    device: int
    text: str
    prefix: int
    flags: int = 0x80
    """IFA_F_PERMANENT unless it has a lifetime."""
    scope: int = 0
    valid_s: int = 0xFFFFFFFF
    set_cs: int = 0
    """When it was last set, in hundredths of a second since the host's start: a lease that is renewed sets it anew."""

    @property
    def checking(self) -> bool:
        """Whether the kernel asks yet whether another host has it (duplicate detection, RFC 4862 5.4): it can be
        listened on in a second or two."""
        return bool(self.flags & TENTATIVE) and not self.flags & (OPTIMISTIC | DADFAILED)

    @property
    def usable(self) -> bool:
        """Whether it can be listened on and sent from."""
        return not self.checking and not self.flags & DADFAILED


class Route(NamedTuple):
    """A route of the main table. `destination` is `address/prefix`, or `default4`, `default6`."""

    device: int
    destination: str
    gateway: str
    protocol: int = PROTOCOL
    metric: int = 0


class Kernel(NamedTuple):
    """One look at the kernel."""

    links: Mapping[int, Link]
    addresses: tuple[Address, ...] = ()
    routes: tuple[Route, ...] = ()

    def by_name(self) -> dict[str, Link]:
        return {link.name: link for link in self.links.values()}


class Device(NamedTuple):
    """A device as it is wanted; None and empty mean: as it is."""

    name: str
    kind: str
    """physical, bond, vlan or bridge."""
    mac: str = ""
    mtu: int = 0
    master: str = ""
    """The bond or bridge it is a port of."""
    lower: str = ""
    vlan_id: int = -1
    altname: str = ""
    settings: Mapping[str, int] = {}
    primary: str = ""
    """Of a bond: the member that carries whenever it can. In the kernel's settings it is an index."""
    link: Mapping[str, int | str] = {}
    """Of a real one: speed (Mb/s), duplex, autoneg, advertise (ethtool's names)."""
    features: Mapping[str, bool] = {}
    """Of any: rx, tx, sg, tso, gso, gro, lro."""
    ipv6: str = "off"
    """off; or of a bridge: link-local (mode None), static, dhcp, autoconf."""
    ipv6_gateway: bool = False
    """With dhcp and autoconf: whether routers that advertise themselves become the default route (the owner of the
    IPv6 gateway, networking.md 1.4)."""
    serves: tuple[str, ...] = ()
    """References of the PIFs or networks that it is for: who is named when it fails."""


class WantedAddress(NamedTuple):
    device: str
    text: str
    prefix: int


class WantedRoute(NamedTuple):
    device: str
    destination: str
    gateway: str
    metric: int = 0


class Lease(NamedTuple):
    """A device that is to have its address from a DHCP server."""

    device: str
    family: int
    """4 or 6."""
    gateway: bool
    """Whether its routers become the default route (the owner of the gateway, networking.md 1.4)."""
    dns: bool
    hostname: str = ""


class Dns(NamedTuple):
    servers: tuple[str, ...]
    search: tuple[str, ...] = ()


class Wanted(NamedTuple):
    """What is to be. `devices` from the bottom up: each after what it lies on and before its ports are given to it.

    `scope` are the devices that this is complete about: addresses, routes and ports that a device of the scope has and
    that are not named here go. `gone` are devices that must not be there.
    """

    devices: tuple[Device, ...] = ()
    addresses: tuple[WantedAddress, ...] = ()
    routes: tuple[WantedRoute, ...] = ()
    leases: tuple[Lease, ...] = ()
    dns: Dns | None = None
    gone: tuple[str, ...] = ()
    dns_bridge: str = ""
    """That of the PIF that owns the resolver, where `dns` is given."""
