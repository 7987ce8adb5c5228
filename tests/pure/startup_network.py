"""A network for the steps: a kernel with the rules of a real one, in the place of netlink, and files below a root."""

from __future__ import annotations

import threading

from hostagent.errors import KernelError
from hostagent.net import apply, bring, cache, leases_server
from hostagent.net.devices import Address, Route
from hostagent.net.management import Wire
from hostagent.net.probe import Answer
from hostagent.net.resolv_conf import render
from hostagent.net.verify import Around
from tests.pure.net_kernel import FakeKernel
from tests.pure.startup_tree import put

BOOT = "boot-1"


class Silence:
    """A follower that hears what a test puts into `events`."""

    def __init__(self):
        self.events = []
        self.closed = False
        self._heard = threading.Event()

    def tell(self, *events):
        self.events.append(list(events))
        self._heard.set()

    def lose(self):
        self.events.append(None)

    def wait(self, timeout_s):
        return self._heard.wait(timeout_s)

    def read(self):
        self._heard.clear()
        return self.events.pop(0) if self.events else []

    def close(self):
        self.closed = True


class FakeHost:
    """A host's kernel and files behind the tools of a plan. `fails`: names of devices that no operation works on."""

    def __init__(self, kernel=None):
        self.kernel = kernel or FakeKernel()
        self.sysctls = {}
        self.leases = []
        self.resolver = ""
        self.fails = set()
        self.answers = True
        self.asked = []
        self.held = {}
        self.asked_for = []
        self.announced = []
        self.armed = 0
        self.disarmed = 0
        self.waits = False
        self.stood_down = 0
        self.now = 0.0
        self.owned = {}
        self.done = []
        self.served = {}
        self.no_server = False

    def look(self):
        return self.kernel.look()

    def execute(self, operations):
        self.done += operations
        for operation in operations:
            if operation.device in self.fails and not operation.verb.endswith("-del"):
                raise Refused(operation.device)
        self.kernel.execute(operations)

    def around(self, wanted, _kernel):
        return Around(
            sysctls=dict(self.sysctls),
            link={device.name: device.link for device in wanted.devices},
            features={device.name: device.features for device in wanted.devices},
            leases=tuple(self.leases),
            resolver=self.resolver if wanted.dns is None or wanted.dns.servers else render(wanted.dns),
        )

    def wait(self, seconds):
        self.now += seconds

    def arm(self, _seconds):
        self.armed += 1

    def disarm(self):
        self.disarmed += 1

    def stand_down(self):
        self.stood_down += 1

    def hand_out(self, bridge, network):
        wanted = None if network is None else leases_server.served(network)
        if wanted is None:
            self.served.pop(bridge, None)
        elif self.no_server:
            raise leases_server.LeasesError(
                "`dnsmasq` was not found", hint=f"apt-get install {leases_server.PACKAGE}"
            )
        else:
            self.served[bridge] = wanted

    def resolve(self, text, _bridge):
        self.resolver = text

    def open(self, state, hold=lambda _: None, run=None):
        tools = apply.Tools(
            self,
            self.sysctls.__setitem__,
            lambda *_: None,
            self.leases.append,
            self.leases.remove,
            self.resolve,
            hold,
        )
        return bring.Host(
            state / cache.FOLDER,
            tools,
            BOOT,
            self.around,
            self.arm,
            self.disarm,
            wait=self.wait,
            clock=lambda: self.now,
            by="hostagent",
            soft=[],
            waiting=lambda: self.waits,
            stand_down=self.stand_down,
            run=run,
            hand_out=self.hand_out,
            wire=Wire(lambda probe, _: self.ask(probe), self._holder, self._announce),
        )

    def _holder(self, device, address, _seconds):
        self.asked_for.append((device, address))
        return self.held.get(address, "")

    def _announce(self, device, addresses):
        self.announced.append((device, tuple(addresses)))

    def ask(self, probe):
        self.asked.append(probe)
        return Answer(probe, self.answers)

    def address(self, name, text, prefix=24, *, gateway=""):
        """As another program gives it to a device."""
        index = self.look().by_name()[name].ifindex
        self.kernel.addresses.append(Address(index, text, prefix))
        if gateway:
            self.kernel.routes.append(
                Route(index, "default6" if ":" in text else "default4", gateway, protocol=3)
            )


class Refused(KernelError):
    def __init__(self, device):
        super().__init__(f"{device}: no", hint="none")
        self.position, self.errno, self.executed = 0, 5, ()


def nic_files(root, name, number):
    """What /sys says of a NIC."""
    device = root / f"sys/devices/pci0000:00/0000:00:{number:02x}.0"
    here = root / "sys/class/net" / name
    put(device / "vendor", "0x1af4\n")
    put(device / "device", "0x1000\n")
    put(here / "type", "1\n")
    put(here / "address", f"52:54:00:00:00:{number:02x}\n")
    put(here / "addr_assign_type", "0\n")
    put(here / "mtu", "1500\n")
    put(here / "carrier", "1\n")
    put(here / "speed", "10000\n")
    put(here / "duplex", "full\n")
    (here / "device").symlink_to(device)
