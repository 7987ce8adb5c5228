"""A bring-up names each operation once, and after it there is nothing left to do: with all that is known around."""

from __future__ import annotations

from collections import Counter

import pytest

from hostagent.net.attached import as_now
from hostagent.net.model import want
from hostagent.net.plan import plan
from hostagent.net.resolv_conf import render
from hostagent.net.verify import Around, differences
from tests.pure.net_kernel import FakeKernel
from tests.pure.net_records import DHCP, STATIC, Host

NEW = {f"net/ipv6/conf/default/{name}": "1" for name in ("accept_ra", "autoconf", "accept_ra_defrtr")}
MODES = {
    "none": {},
    "static": STATIC,
    "dhcp": DHCP,
    "autoconf": {"ipv6_mode": "Autoconf"},
    "static6": {"ipv6_mode": "Static", "ipv6": ("2001:db8::7/64",), "ipv6_gateway": "2001:db8::1"},
}


class Machine:
    """A kernel with NICs, and what netlink does not tell of it: settings, offloads, DHCP clients, resolv.conf."""

    def __init__(self, records):
        self.records = records
        self.kernel = FakeKernel()
        self.sysctls = {**NEW, "net/ipv6/conf/default/disable_ipv6": "0"}
        self.features = {}
        self.leases = []
        self.resolver = ""
        for pif in records.pifs.values():
            if pif.physical:
                index = len(self.kernel.links) + 2
                self.kernel.nic(pif.device, index)
                self.kernel.links[index].mac = self.kernel.links[index].permanent_mac = pif.mac
                self._appears(pif.device)

    def _appears(self, name):
        for path, value in list(self.sysctls.items()):
            if "/default/" in path:
                self.sysctls[path.replace("/default/", f"/{name}/")] = value
        self.features[name] = {"gro": True, "lro": True}

    def planned(self, ref):
        """What is wanted with this PIF up, and the plan for it."""
        kernel = self.kernel.look()
        told = {index: link._replace(ipv6=self._ipv6(link.name)) for index, link in kernel.links.items()}
        kernel = kernel._replace(links=told)
        links = kernel.by_name()
        wanted = want(as_now(self.records, kernel), (ref,), links=links)
        around = Around(
            sysctls=self.sysctls,
            features={name: known for name, known in self.features.items() if name in links},
            leases=tuple(self.leases),
            resolver=self.resolver if wanted.dns is None or wanted.dns.servers else render(wanted.dns),
        )
        return plan(wanted, kernel, around), differences(wanted, kernel, around)

    def _ipv6(self, name):
        off = self.sysctls.get(f"net/ipv6/conf/{name}/disable_ipv6")
        return {} if off is None else {"disable_ipv6": int(off)}

    def do(self, step):
        operation = step.do
        match operation.verb:
            case "sysctl":
                assert operation.args["path"] in self.sysctls, "the device is not there yet"
                self.sysctls[operation.args["path"]] = operation.args["value"]
            case "ethtool":
                self.features[operation.device] |= operation.args["features"]
            case "lease-start":
                self.leases.append(self._lease(operation))
            case "dns":
                self.resolver = operation.args["after"]
            case _:
                self.kernel.execute([operation])
                if operation.verb == "link-add":
                    self._appears(operation.device)

    def _lease(self, operation):
        from hostagent.net.devices import Lease

        return Lease(operation.device, **operation.args)


def a_host(mode, offloads):
    made = Host()
    made.nic("eth0", **MODES[mode])
    made.nic("eth1")
    made.nic("eth2")
    made.vlan("eth0", 5, **(MODES[mode] if mode == "autoconf" else {}))
    made.bond("bond0", ("eth1", "eth2"), properties={"gro": offloads})
    made.vlan("bond0", 7)
    return made.records("xenbr0")


@pytest.mark.parametrize("offloads", ["on", "off"])
@pytest.mark.parametrize(
    ("mode", "refs"),
    [
        *((mode, ("eth0", "eth0.5", "bond0", "bond0.7")) for mode in MODES),
        *((mode, ("bond0.7", "bond0", "eth0.5", "eth0")) for mode in ("none", "static", "static6")),
    ],
)
def test_each_operation_is_listed_once_and_a_second_plan_is_empty(mode, offloads, refs):
    machine = Machine(a_host(mode, offloads))
    for ref in refs:
        planned, _ = machine.planned(ref)
        listed = Counter((step.do.verb, step.do.device, repr(dict(step.do.args))) for step in planned.steps)
        assert max(listed.values(), default=1) == 1
        for step in planned.steps:
            machine.do(step)
        second, differing = machine.planned(ref)
        assert (second.steps, differing) == ((), ())


def test_settings_of_a_bridge_that_is_there_are_mended_once_for_a_vlan_on_its_nic():
    machine = Machine(a_host("none", "on"))
    for ref in ("eth0", "eth0.5"):
        for step in machine.planned(ref)[0].steps:
            machine.do(step)
    path = "net/ipv6/conf/eth0/disable_ipv6"
    machine.sysctls[path] = "0"
    again = [step.do.args for step in machine.planned("eth0.5")[0].steps]
    assert again == [{"path": path, "value": "1"}]
