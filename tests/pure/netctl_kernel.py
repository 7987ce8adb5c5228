# mypy: disable-error-code="union-attr,arg-type,index"
# each test knows which object it has
"""A kernel and the records of its host, as those who compare them want both, for tests."""

from __future__ import annotations

from hostagent.net.devices import Kernel
from tests.pure.net_records import Host, link


def a_kernel(*, carrier=True, addresses=(), routes=()):
    """eth0 in xenbr0; eth1 and eth2 in bond0, in xapi0; VLAN 5 on bond0, in xapi101."""
    return Kernel(
        {
            one.ifindex: one
            for one in (
                link(2, "eth0", mac="02:00:00:00:00:00", master=10, carrier=carrier),
                link(3, "eth1", mac="02:00:00:00:00:01", master=11),
                link(4, "eth2", mac="02:00:00:00:00:02", master=11, carrier=carrier),
                link(10, "xenbr0", "bridge", carrier=carrier),
                link(11, "bond0", "bond", master=12),
                link(12, "xapi0", "bridge", mtu=9000),
                link(13, "bond0.5", "vlan", master=14, lower=11, vlan_id=5),
                link(14, "xapi101", "bridge"),
            )
        },
        tuple(addresses),
        tuple(routes),
    )


def a_host(**management):
    made = Host()
    made.nic("eth0", **{"management": True, **management})
    made.nic("eth1")
    made.nic("eth2")
    made.bond("bond0", ("eth1", "eth2"), mode="lacp")
    made.vlan("bond0", 5)
    return made.records("xenbr0")
