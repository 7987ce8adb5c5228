# mypy: disable-error-code="union-attr,arg-type,index"
# each test knows which object it has
"""A host with a database and a network, followed by a keeper; and what that told others."""

from __future__ import annotations

from hostagent.net import bring, taken_back
from hostagent.netctl.control import Control
from hostagent.netctl.observed import Speed
from hostagent.netctl.plug import Network, Site
from hostagent.netctl.reconfigure import reconfigure
from hostagent.netctl.status import Eyes, Keeper
from tests.pure.net_kernel import FakeKernel
from tests.pure.startup_network import FakeHost, Silence


class World:
    """A host with a database, NICs eth0 to eth4 of it in the kernel, and what the keeper told others."""

    def __init__(self, site, state):
        self.site = site
        self.state, self.run = state, state / "run"
        self.host = FakeHost(FakeKernel())
        self.leases = {}
        self.kept_leases, self.resolved, self.served, self.cached = [], [], [], []
        self.follower = Silence()
        self.looks = 0
        self.now = 0.0
        self.management = "xenbr0", "IPv4"
        for number in range(5):
            self.host.kernel.nic(f"eth{number}", number + 2, up=True)
            made = self.host.kernel.links[number + 2]
            made.permanent_mac = made.mac = f"02:00:00:00:00:0{number}"
        self.network = Network(
            Site(
                open=lambda _: self.host.open(state, run=self.run),
                owners=lambda _: (),
                management=lambda: self.management,
                set_management=lambda *_: None,
                serve=lambda *_: None,
                nics=lambda: (),
                has_bridge=lambda _: False,
                ask=self.host.ask,
            )
        )
        self.control = Control(site.db, "host-uuid", self.network)

    def look(self):
        self.looks += 1
        return self.host.look()

    def keeper(self, **settings):
        made = Keeper(
            self.control,
            Eyes(
                follow=lambda: self.follower,
                look=self.look,
                speed=lambda _: Speed(1000, duplex=True),
                leased=lambda bridge, family: self.leases.get((bridge, family)),
                keep_lease=lambda bridge, lease: self.kept_leases.append((bridge, lease)),
                resolve=lambda dns, bridge: self.resolved.append((dns, bridge)),
                serve=lambda bridge, family: self.served.append((bridge, family)),
                carry_out=self.host.execute,
                keep=self.cached.append,
                taken_back=lambda: taken_back.noted(self.run),
                **settings,
            ),
            clock=lambda: self.now,
        )
        self.follower.lose()
        made.refresh(self.follower)
        return made

    def raised(self, *numbers):
        with self.site.db.read() as view:
            records = self.control.records(view)
        with self.network.bring_up(records, [self.site.pifs[n] for n in numbers], was=records):
            pass

    def plug(self, number, **more):
        return reconfigure(
            self.control, self.network, bring.Request(bring.UP, self.site.pifs[number], **more)
        )

    def undo(self):
        return bring.undo(self.host.open(self.state, run=self.run))

    def pif(self, number):
        return self.site.record("PIF", self.site.pifs[number])

    def again(self, keeper):
        """A round after something happened that needs a look."""
        self.follower.lose()
        return keeper.refresh(self.follower)
