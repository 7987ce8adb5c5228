"""A small network for tests: a bond of two NICs with management, VLAN 5 on the bond, a NIC of its own, a guest."""

from __future__ import annotations

from hostagent.net.devices import GROUP, Address, Kernel, Link, Route
from hostagent.net.records import Bond, Network, Pif, Records, Vlan

MACS = [f"52:54:00:00:00:0{n}" for n in range(4)]


def records(**master):
    pifs = [
        Pif("nic0", "uuid-nic0", "eth0", "n0", mac=MACS[0], physical=True, bond_slave_of="bond"),
        Pif("nic1", "uuid-nic1", "eth1", "n1", mac=MACS[1], physical=True, bond_slave_of="bond"),
        Pif("nic2", "uuid-nic2", "eth2", "n2", mac=MACS[2], physical=True, ip_mode="DHCP"),
        Pif("master", "uuid-master", "bond0", "nb", mac=MACS[0], management=True, ip_mode="Static", ip="192.0.2.10",
            netmask="255.255.255.0", gateway="192.0.2.1", dns="192.0.2.2", bond_master_of=("bond",),
            vlan_slave_of=("vlan",)),
        Pif("upper", "uuid-upper", "bond0", "nv", vlan=5, vlan_master_of="vlan"),
    ]  # fmt: skip
    by_ref = {pif.ref: pif for pif in pifs}
    by_ref["master"] = by_ref["master"]._replace(**master)
    bridges = {"n0": "xenbr0", "n1": "xenbr1", "n2": "xenbr2", "nb": "xapi1", "nv": "xapi5"}
    networks = {ref: Network(ref, f"uuid-{ref}", f"net {ref}", bridge) for ref, bridge in bridges.items()}
    bond = Bond("bond", "uuid-bond", "master", ("nic0", "nic1"), primary_slave="nic0", mode="lacp")
    return Records("host-1", by_ref, networks, {"bond": bond}, {"vlan": Vlan("vlan", "uuid-v", "master", "upper", 5)},
                   "xapi1")  # fmt: skip


def link(index, name, kind="", **values):
    ours = GROUP if kind in ("bridge", "bond", "vlan") else 0
    made = Link(index, name, kind, MACS[0], 1500, 0, 0, 1, ours, carrier=True, operstate=6)
    return made._replace(**values)


def kernel(**changed):
    """All of it up except eth2, which nobody brought up. `changed`: name → values of that link, None: not there."""
    links = [
        link(2, "eth0", master=10, permanent_mac=MACS[0], max_mtu=9000, port=port(1)),
        link(3, "eth1", master=10, permanent_mac=MACS[1], max_mtu=9000, port=port(1)),
        link(4, "eth2", mac=MACS[2], permanent_mac=MACS[2], max_mtu=9000, flags=0, carrier=False),
        link(10, "bond0", "bond", master=11, settings={"mode": 4}, partner="52:54:00:aa:aa:aa"),
        link(11, "xapi1", "bridge"),
        link(12, "bond0.5", "vlan", lower=10, master=13, vlan_id=5),
        link(13, "xapi5", "bridge"),
        link(20, "vif1.0", "vif", master=13),
    ]
    there = {
        one.ifindex: one._replace(**(changed.get(one.name) or {}))
        for one in links
        if changed.get(one.name, {}) is not None
    }
    return Kernel(there, (Address(11, "192.0.2.10", 24),), (Route(11, "default4", "192.0.2.1"),))


def port(aggregator, partner=0x3D):
    return {"ad_aggregator_id": aggregator, "ad_partner_state": partner, "link_failure_count": 0}
