"""A host for `interface-reconfigure` in tests: records of a NIC with a VLAN on it, a kernel, and no daemon."""

from __future__ import annotations

from hostagent.net import apply, ask, bring, cache
from hostagent.net.devices import Kernel, Link
from hostagent.net.records import Network, Pif, Records, Vlan
from tests.pure.net_kernel import FakeKernel

MAC = "52:54:00:00:00:01"
UUID = "11111111-0000-0000-0000-000000000001"


def records(**changed):
    """A NIC with a static address on xenbr0, which is management, and VLAN 5 on it."""
    nic = Pif("nic", UUID, "eth0", "n0", mac=MAC, physical=True, management=True, ip_mode="Static",
              ip="192.0.2.10", netmask="255.255.255.0", gateway="192.0.2.1", dns="192.0.2.2",
              vlan_slave_of=("vlan",))  # fmt: skip
    upper = Pif("upper", "uuid-vlan", "eth0", "n5", vlan=5, vlan_master_of="vlan")
    networks = {
        "n0": Network("n0", "uuid-n0", "LAN", "xenbr0"),
        "n5": Network("n5", "uuid-n5", "five", "xapi5"),
    }
    vlan = Vlan("vlan", "uuid-v", "nic", "upper", 5)
    pifs = {"nic": nic._replace(**changed), "upper": upper}
    return Records("host-1", pifs, networks, {}, {"vlan": vlan}, "xenbr0")


def nic_link(*, carrier=True):
    return Link(2, "eth0", "", MAC, 1500, 0, 0, 0, 0, carrier, 6, permanent_mac=MAC, max_mtu=9000)


class Machine:
    """A kernel that keeps state, a clock that waiting moves, and what was asked of the guard."""

    def __init__(self, folder, *, carrier=True):
        self.folder = folder
        self.kernel = FakeKernel(Kernel({2: nic_link(carrier=carrier)}))
        self.now = 0.0
        self.armed = []
        self.waits = False
        self.soft = []
        self.lease = lambda lease: None

    def wait(self, seconds):
        self.now += seconds

    def host(self, *_):
        return bring.Host(
            folder=self.folder,
            tools=apply.Tools(
                netlink=self.kernel,
                sysctl=lambda path, value: None,
                ethtool=lambda device, args: None,
                lease_start=lambda lease: self.lease(lease),
                lease_stop=lambda lease: None,
                resolver=lambda *_: None,
            ),
            boot="boot-1",
            around=lambda wanted, kernel: None,
            arm=self.armed.append,
            disarm=lambda: self.armed.append("disarmed"),
            waiting=lambda: self.waits,
            stand_down=lambda: self.armed.append("stood down"),
            wait=self.wait,
            clock=lambda: self.now,
            soft=self.soft,
        )

    def up(self, *, which=None, **request):
        cached = cache.read(self.folder) if which is None else cache.Found(cache.Cached(which, 7))
        return bring.bring(bring.Request("up", UUID, **request), cached, self.host())


def no_daemon(*_, **__):
    raise ask.NotThereError("nobody listens", hint="")
