# mypy: disable-error-code="union-attr,arg-type"
# each test knows which object it has
"""Hosts on which changes of objects are carried out in tests: a kernel with three NICs, files, and what is there."""

from __future__ import annotations

from hostagent.errors import KernelError
from hostagent.net.nics_types import Nic
from hostagent.netctl.plug import Network, Site
from tests.pure.net_records import STATIC, Host
from tests.pure.startup_network import FakeHost


class Refused(Exception):
    """What a database might raise."""


class Files:
    """Inventory and listeners."""

    def __init__(self):
        self.management = "xenbr0", "IPv4"
        self.served = []
        self.fails = False
        self.former = ""
        self.full = False

    def set(self, bridge, family, former):
        self.management = bridge, family
        self.former = former
        if self.full and not former:
            raise KernelError("no space left", hint="")

    def serve(self, bridge, family):
        self.served.append((bridge, family))
        if self.fails and len(self.served) == 1:
            raise KernelError("port 443 is taken", hint="")


def three_nics():
    found = FakeHost()
    for number in range(3):
        found.kernel.nic(f"eth{number}", number + 2, up=True)
        found.kernel.links[number + 2].permanent_mac = f"02:00:00:00:00:0{number}"
        found.kernel.links[number + 2].mac = f"02:00:00:00:00:0{number}"
    return found


def a_network(host, files, folder):
    return Network(
        Site(
            open=lambda _: host.open(folder),
            owners=lambda name: host.owned.get(name, ()),
            management=lambda: files.management,
            set_management=files.set,
            serve=files.serve,
            nics=lambda: (Nic(0, "eth0", "02:00:00:00:00:00"),),
            has_bridge=lambda name: name in host.look().by_name(),
            ask=host.ask,
        )
    )


def a_host(**management):
    """eth0 is management; eth1 has VLAN 5; eth2."""
    made = Host()
    made.nic("eth0", **{"management": True, **STATIC, **management})
    made.nic("eth1")
    made.nic("eth2")
    made.vlan("eth1", 5)
    return made


def a_host_without_vlan():
    made = Host()
    made.nic("eth0", management=True, **STATIC)
    made.nic("eth1")
    made.nic("eth2")
    return made


def state(host):
    """What the kernel has, without the indexes of what was made and made anew."""
    kernel = host.look()
    names = {index: link.name for index, link in kernel.links.items()}
    return (
        {
            link.name: (names.get(link.master), link.mtu, link.kind, link.flags)
            for link in kernel.links.values()
        },
        sorted((names[one.device], one.text) for one in kernel.addresses),
        sorted((names[one.device], one.destination, one.gateway) for one in kernel.routes),
    )


def raised(net, records, *refs):
    with net.bring_up(records, refs, was=records):
        pass


def bonded(**values):
    made = a_host(ip_mode="None", ip="", netmask="", gateway="", dns="", management=False)
    made.bond("bond0", ("eth0", "eth2"), management=True, **{**STATIC, **values})
    return made.records("xapi0")
