"""Records of a host's network for tests: a host put together in a few words, and any host that there could be."""

from __future__ import annotations

from typing import Any, NamedTuple

from hypothesis import strategies as st

from hostagent.net.devices import GROUP, Kernel, Link
from hostagent.net.records import Bond, Network, Pif, Records, Vlan

STATIC: dict[str, Any] = {
    "ip_mode": "Static",
    "ip": "10.1.0.2",
    "netmask": "255.255.255.0",
    "gateway": "10.1.0.1",
    "dns": "10.1.0.1",
}
DHCP: dict[str, Any] = {"ip_mode": "DHCP"}


class Host:
    """PIFs, networks, bonds and VLANs as they are added; references are the device's names, a VLAN's `eth0.5`."""

    def __init__(self) -> None:
        self.pifs: dict[str, Pif] = {}
        self.networks: dict[str, Network] = {}
        self.bonds: dict[str, Bond] = {}
        self.vlans: dict[str, Vlan] = {}

    def network(self, bridge: str, **fields: Any) -> str:
        """A network; its reference is `net-` and its bridge."""
        ref = f"net-{bridge or len(self.networks)}"
        self.networks[ref] = Network(ref, f"uuid-{ref}", "a network", bridge, **fields)
        return ref

    def _pif(self, ref: str, device: str, bridge: str, network: dict[str, Any] | None, **fields: Any) -> str:
        on = self.network(bridge, **(network or {}))
        self.pifs[ref] = Pif(ref, f"uuid-{ref}", device, on, **fields)
        return ref

    def nic(
        self, device: str, *, network: dict[str, Any] | None = None, bridge: str | None = None, **fields: Any
    ) -> str:
        """A NIC's PIF, its bridge xenbrN, its MAC 02:00:00:00:00:NN."""
        count = sum(pif.physical for pif in self.pifs.values())
        fields = {"mac": f"02:00:00:00:00:{count:02x}", "physical": True, **fields}
        return self._pif(device, device, f"xenbr{count}" if bridge is None else bridge, network, **fields)

    def bond(
        self,
        device: str,
        slaves: tuple[str, ...],
        *,
        mode: str = "active-backup",
        bond_properties: dict[str, str] | None = None,
        bridge: str = "xapi0",
        network: dict[str, Any] | None = None,
        **fields: Any,
    ) -> str:
        """A bond's master PIF, with the MAC of the first member."""
        ref = f"bond-{device}"
        self.bonds[ref] = Bond(ref, f"uuid-{ref}", device, slaves, slaves[0], mode, bond_properties or {})
        for slave in slaves:
            self.pifs[slave] = self.pifs[slave]._replace(bond_slave_of=ref)
        mac = self.pifs[slaves[0]].mac
        return self._pif(device, device, bridge, network, bond_master_of=(ref,), **{"mac": mac, **fields})

    def vlan(
        self,
        lower: str,
        tag: int,
        *,
        bridge: str | None = None,
        network: dict[str, Any] | None = None,
        **fields: Any,
    ) -> str:
        """A VLAN's upper PIF on a NIC or bond."""
        ref = f"{lower}.{tag}"
        record = f"vlan-{ref}"
        self.vlans[record] = Vlan(record, f"uuid-{record}", lower, ref, tag)
        below = self.pifs[lower]
        self.pifs[lower] = below._replace(vlan_slave_of=(*below.vlan_slave_of, record))
        bridge = f"xapi{100 + len(self.vlans)}" if bridge is None else bridge
        fields = {"mac": "fe:ff:ff:ff:ff:ff", "vlan": tag, "vlan_master_of": record, **fields}
        return self._pif(ref, below.device, bridge, network, **fields)

    def change(self, ref: str, **fields: Any) -> None:
        self.pifs[ref] = self.pifs[ref]._replace(**fields)

    def records(self, bridge: str = "") -> Records:
        return Records("uuid-host", self.pifs, self.networks, self.bonds, self.vlans, bridge)


class Change(NamedTuple):
    """Records and a change that somebody asks for."""

    records: Records
    up: tuple[str, ...]
    down: tuple[str, ...]
    becoming_management: str


def kernel_of(*links: Link, **fields: Any) -> Kernel:
    return Kernel({link.ifindex: link for link in links}, **fields)


def link(index: int, name: str, kind: str = "", **fields: Any) -> Link:
    """A link that is up; what is not a NIC is ours."""
    mac = fields.pop("mac", "")
    given = {"mtu": 1500, "master": 0, "lower": 0, "flags": 1, "group": GROUP if kind else 0, "carrier": True}
    return Link(
        index, name, kind, mac, operstate=6, **{**given, "permanent_mac": "" if kind else mac, **fields}
    )


nic_names = st.sampled_from(("eth{}", "ens{}", "enp129s0f1np{}", "enx0200000000{:02}"))
mtus = st.sampled_from((1500, 1500, 1500, 9000, 1280, 0, -1))
KEYS = (
    "automatic bond-miimon bond-mode bond-updelay defaultroute domain ethtool-advertise ethtool-autoneg ethtool-gro "
    "ethtool-speed ip_begin mtu peerdns static-routes"
).split()
VALUES = "true false on off 9000 100 7 lacp example.org 0x10 nonsense 10.9.0.0/16/10.0.0.77".split()
other_configs = st.dictionaries(
    st.sampled_from(KEYS), st.sampled_from((*VALUES, "", "fd09::/32/fe80::1,10.9.0.0/33/1.1.1.1")), max_size=3
)


@st.composite
def ip_layers(draw: st.DrawFn) -> dict[str, Any]:
    """The IP fields of a PIF; mostly right."""
    host = draw(st.integers(0, 255))
    net = draw(st.integers(0, 3))
    return {
        "ip_mode": draw(st.sampled_from(("None", "None", "DHCP", "Static", "Static"))),
        "ip": draw(st.sampled_from((f"10.0.{net}.{host}", f"10.0.{net}.{host}", "", "300.1.1.1"))),
        "netmask": draw(
            st.sampled_from(("255.255.255.0", "255.255.0.0", "255.255.255.255", "255.0.255.0", ""))
        ),
        "gateway": draw(st.sampled_from((f"10.0.{net}.1", "", "10.9.9.9", "x"))),
        "dns": draw(st.sampled_from(("", "10.0.0.1", "10.0.0.1, 10.0.0.1,fd00::1", "one"))),
        "ipv6_mode": draw(st.sampled_from(("None", "None", "DHCP", "Static", "Autoconf"))),
        "ipv6": draw(
            st.sampled_from(
                ((), (f"fd00:{net}::{host:x}/64",), ("fd00::5/64", "fd00:0::5/64"), ("fd00::/200",))
            )
        ),
        "ipv6_gateway": draw(st.sampled_from(("", "fe80::1", f"fd00:{net}::1", "10.0.0.1"))),
        "primary_address_type": draw(st.sampled_from(("IPv4", "IPv4", "IPv6"))),
        "properties": draw(st.sampled_from(({}, {"gro": "on"}, {"gro": "off"}))),
        "other_config": draw(other_configs),
        "currently_attached": draw(st.booleans()),
        "management": draw(st.integers(0, 5)) == 0,
    }


@st.composite
def changes(draw: st.DrawFn) -> Change:
    """Any host of up to six NICs, bonds of some of them, VLANs on any of these, and any PIFs to take up and down."""
    host = Host()
    pattern = draw(nic_names)

    def network() -> dict[str, Any]:
        return {
            "mtu": draw(mtus),
            "other_config": draw(other_configs),
            "managed": draw(st.integers(0, 9)) > 0,
        }

    nics = [
        host.nic(
            pattern.format(count), network=network(), **draw(ip_layers()), managed=draw(st.integers(0, 9)) > 0
        )
        for count in range(draw(st.integers(1, 6)))
    ]
    free = list(nics)
    for count in range(draw(st.integers(0, 2))):
        if slaves := tuple(free[: draw(st.integers(1, 3))]):
            free = free[len(slaves) :]
            mode = draw(st.sampled_from(("active-backup", "active-backup", "lacp", "balance-slb")))
            properties = draw(st.sampled_from(({}, {"hashing_algorithm": "src_mac"}, {"lacp-time": "fast"})))
            where: dict[str, Any] = {"bridge": f"xapi{count}", "network": network()}
            host.bond(
                f"bond{count}", slaves, mode=mode, bond_properties=properties, **where, **draw(ip_layers())
            )
    lowers = list(host.pifs)
    for lower in draw(st.lists(st.sampled_from(lowers), max_size=6)):
        tag = draw(st.integers(0, 4094))
        if f"{lower}.{tag}" not in host.pifs:
            host.vlan(lower, tag, network=network(), **draw(ip_layers()))
    refs = st.lists(st.sampled_from(list(host.pifs)), max_size=5, unique=True).map(tuple)
    becoming = draw(st.sampled_from(("", *host.pifs)))
    return Change(host.records(draw(st.sampled_from(("", "xenbr0")))), draw(refs), draw(refs), becoming)
