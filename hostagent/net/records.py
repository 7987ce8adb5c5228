"""What the database says of this host's network, as the pure model reads it: PIFs, networks, bonds, VLANs.

The same shapes come from the database and from the cache that the host boots from. They are named tuples, here and in
the other modules on the way of `interface-reconfigure`: importing `dataclasses` costs as much as all of them.
Field names are the data model's, in our spelling; references are opaque texts, the null reference is "".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.named import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping


class Pif(NamedTuple):
    """A PIF of this host (networking.md 1.1)."""

    ref: str
    uuid: str
    device: str
    """Kernel name; of a VLAN PIF, the name of what it lies on."""
    network: str
    mac: str = ""
    vlan: int = -1
    physical: bool = False
    managed: bool = True
    management: bool = False
    currently_attached: bool = False
    disallow_unplug: bool = False
    ip_mode: str = "None"
    """None, DHCP or Static."""
    ip: str = ""
    netmask: str = ""
    gateway: str = ""
    dns: str = ""
    ipv6_mode: str = "None"
    """None, DHCP, Static or Autoconf."""
    ipv6: tuple[str, ...] = ()
    """`address/prefix` each."""
    ipv6_gateway: str = ""
    primary_address_type: str = "IPv4"
    bond_slave_of: str = ""
    bond_master_of: tuple[str, ...] = ()
    vlan_master_of: str = ""
    vlan_slave_of: tuple[str, ...] = ()
    properties: Mapping[str, str] = {}
    other_config: Mapping[str, str] = {}


class Network(NamedTuple):
    """A network that a PIF of this host is on, or an internal one (networking.md 1.2)."""

    ref: str
    uuid: str
    name_label: str
    bridge: str
    mtu: int = 1500
    managed: bool = True
    other_config: Mapping[str, str] = {}


class Bond(NamedTuple):
    ref: str
    uuid: str
    master: str
    slaves: tuple[str, ...]
    primary_slave: str = ""
    mode: str = "balance-slb"
    """balance-slb, active-backup or lacp."""
    properties: Mapping[str, str] = {}
    auto_update_mac: bool = True


class Vlan(NamedTuple):
    ref: str
    uuid: str
    tagged: str
    """The lower PIF, on whose device frames carry the tag."""
    untagged: str
    """The upper PIF, which is on the network."""
    tag: int


class Records(NamedTuple):
    """All of it, by reference. `bridge` is that of the management interface, as the inventory has it."""

    host_uuid: str
    pifs: Mapping[str, Pif]
    networks: Mapping[str, Network]
    bonds: Mapping[str, Bond]
    vlans: Mapping[str, Vlan]
    bridge: str = ""
    pool_other_config: Mapping[str, str] = {}
