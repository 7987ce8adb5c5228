"""A host with NICs in a real database, calls through the dispatcher, and a network that only remembers."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest

from hostagent.api.core import Core, Peer
from hostagent.api.dispatch import Dispatcher
from hostagent.api.fault import CallError
from hostagent.api.rendered import Rendered
from hostagent.api.roles import Role
from hostagent.api.tasks import Tasks
from hostagent.api.xenapi_calls import IMPLEMENTED
from hostagent.db.database import open_database
from hostagent.net.nics_types import Nic
from hostagent.netctl.control import Control

NICS = tuple(Nic(number, f"eth{number}", f"02:00:00:00:00:0{number}") for number in range(5))
STATIC = {
    "ip_configuration_mode": "Static",
    "IP": "192.0.2.7",
    "netmask": "255.255.255.0",
    "gateway": "192.0.2.1",
}


async def nobody(_user, _password):
    return None


class FakeNetwork:
    """`said` is what it was told, in order; `fail` an error for each change whose name is a key of it."""

    def __init__(self):
        self.said = []
        self.fail = {}
        self.kept = []
        self.undone = []
        self.bridge, self.family = "xenbr0", "IPv4"
        self.bridges = {"xenbr0"}
        self.addressed = {("xenbr0", "IPv4")}
        self.foreign = {}
        self.modes_refused = {}
        self.found = list(NICS)
        self.mtus = {}
        self.meanwhile = lambda: None

    @contextlib.contextmanager
    def _change(self, name, **facts):
        self.said.append((name, facts))
        if name in self.fail:
            raise self.fail[name]
        self.meanwhile()
        try:
            yield self.mtus
        except BaseException:
            self.undone.append(name)
            raise
        self.kept.append(name)

    def bring_up(self, records, refs, *, was, down=(), becoming_management="", moved=None, asked=True):
        return self._change(
            "bring_up",
            records=records,
            refs=tuple(refs),
            was=was,
            down=tuple(down),
            management=becoming_management,
            moved=dict(moved or {}),
            asked=asked,
        )

    def take_down(self, records, refs, *, after=None):
        return self._change("take_down", records=records, refs=tuple(refs), after=after)

    def attach(self, records, network, *, was=None):
        return self._change("attach", records=records, network=network, was=was)

    def detach(self, records, network, *, after=None):
        return self._change("detach", records=records, network=network, after=after)

    @contextlib.contextmanager
    def listen(self, bridge, address_type):
        with self._change("listen", bridge=bridge, family=address_type):
            before = self.bridge, self.family
            self.bridge, self.family = bridge, address_type
            try:
                yield {}
            except BaseException:
                self.bridge, self.family = before
                raise

    def management_bridge(self):
        return self.bridge

    def management_address_type(self):
        return self.family

    def has_bridge(self, name):
        return name in self.bridges

    def has_address(self, device, family):
        return (device, family) in self.addressed

    def foreign_vlans(self):
        return self.foreign

    def mode_refused(self, mode):
        return self.modes_refused.get(mode, "")

    def nics(self):
        return self.found

    def names(self):
        return [name for name, _ in self.said]

    def last(self):
        return self.said[-1][1]


class Site:
    """A pool of one host, `host`, with a PIF for each of `NICS`: eth0 is the management interface. `w` writes."""

    def __init__(self, directory):
        self.db = open_database(directory / "state.db", directory / "volatile.db")
        self.db._writer.execute("PRAGMA main.synchronous=OFF")  # thousands of small changes, and no power cut
        self.net = FakeNetwork()
        self.control = Control(self.db, "host-uuid", self.net)
        self.core = Core(
            nobody,
            list,
            host_uuid="host-uuid",
            database=self.db,
            tasks=Tasks(self.db),
            network=self.control,
        )
        self.dispatcher = Dispatcher(self.core, IMPLEMENTED)
        with self.db.write() as w:
            self.host = w.create(
                "host", {"metrics": w.create("host_metrics", {"live": True}), "uuid": "host-uuid"}
            )
            self.pool = w.create("pool", {"master": self.host})
            self.nets = [
                w.create("network", {"name_label": f"n{n}", "bridge": f"xenbr{n}"}) for n in range(5)
            ]
            self.pifs = [
                w.create(
                    "PIF",
                    {
                        "device": nic.name,
                        "host": self.host,
                        "network": network,
                        "MAC": nic.mac,
                        "MTU": 1500,
                        "VLAN": -1,
                        "physical": True,
                        "currently_attached": False,
                        "metrics": w.create("PIF_metrics", {}),
                        "properties": {"gro": "on"},
                    },
                )
                for nic, network in zip(NICS, self.nets, strict=True)
            ]
            w.update("PIF", self.pifs[0], {**STATIC, "management": True, "currently_attached": True})
            self.free = w.create("network", {"name_label": "free", "bridge": "xapi0"})
        session = self.core.sessions.log_in("root", Role.ROOT, pool=True, database=self.db, host=self.host)
        self.session = session.ref

    def make(self, cls, **values):
        with self.db.write() as w:
            return w.create(cls, values)

    def set(self, cls, ref, **values):
        with self.db.write() as w:
            w.update(cls, ref, values)

    def record(self, cls, ref):
        with self.db.read() as view:
            return view.record(cls, ref)

    def refs(self, cls):
        with self.db.read() as view:
            return view.refs(cls)

    def everything(self):
        with self.db.read() as view:
            return {
                cls: dict(view.records(cls))
                for cls in (
                    "PIF",
                    "network",
                    "Bond",
                    "VLAN",
                    "VIF",
                    "PIF_metrics",
                    "tunnel",
                    "Cluster_host",
                    "pool",
                )
            }

    def other_host(self):
        """Another host, and a PIF of it on a network."""
        host = self.make("host", metrics=self.make("host_metrics", live=True))
        network = self.make("network", name_label="far", bridge="xenbr9")
        return host, self.make("PIF", device="eth0", host=host, network=network, VLAN=-1, physical=True)

    def guest(self, network, *, resident=True, **vif):
        """A guest's interface."""
        where = {"resident_on": self.host, "power_state": "Running"} if resident else {}
        vm = self.make("VM", name_label="guest", **where)
        return self.make("VIF", VM=vm, network=network, **{"currently_attached": resident, **vif})

    def vlan(self, tagged, tag, network=None, **pif):
        """A VLAN as VLAN.create makes it: the object, its upper PIF, its network."""
        network = network or self.make("network", name_label=f"v{tag}", bridge=f"xapi{tag}")
        lower = self.record("PIF", tagged)
        values = {"device": lower["device"], "host": lower["host"], "MAC": "fe:ff:ff:ff:ff:ff", "VLAN": tag}
        values |= {"network": network, "metrics": lower["metrics"], "currently_attached": False, **pif}
        untagged = self.make("PIF", **values)
        vlan = self.make("VLAN", tagged_PIF=tagged, untagged_PIF=untagged, tag=tag)
        self.set("PIF", untagged, VLAN_master_of=vlan)
        return vlan, untagged, network

    def bond(self, *members, network=None, **values):
        """A bond as Bond.create makes it: the object, and its PIF."""
        network = network or self.make("network", name_label="b", bridge="xapi77")
        first = self.record("PIF", members[0])
        master = self.make(
            "PIF",
            device="bond0",
            host=self.host,
            network=network,
            MAC=first["MAC"],
            MTU=1500,
            VLAN=-1,
            metrics=self.make("PIF_metrics"),
            currently_attached=False,
        )
        bond = self.make(
            "Bond", master=master, primary_slave=members[0], **{"mode": "active-backup", **values}
        )
        for member in members:
            self.set("PIF", member, bond_slave_of=bond)
        return bond, master

    def call(self, name, *params):
        async def one():
            value = (await self.dispatcher.call(name, [self.session, *params], Peer(trusted=True))).value
            return json.loads(value.text) if isinstance(value, Rendered) else value

        return asyncio.run(one())

    def fails(self, name, *params):
        """The error of a call, which leaves the database as it was."""
        before = self.everything()
        with pytest.raises(CallError) as caught:
            self.call(name, *params)
        assert self.everything() == before
        return [caught.value.code, *caught.value.params]


@contextlib.contextmanager
def opened(directory):
    """A site whose database is closed at the end."""
    site = Site(directory)
    try:
        yield site
    finally:
        site.db.close()
