"""What graph and explain show of things that others bring: a guest's interface, a host with the same address."""

from __future__ import annotations

import contextlib
import re

import pytest

from tests.xen import guests
from tests.xen.net_look import await_that, look
from tests.xen.net_operator import DONE, PREFIX, clean, opened, run
from tests.xen.net_segment import holder
from tests.xen.net_shapes import ADDRESS, JUMBO, addressed, agent, explained, port_on, says, up

pytestmark = [pytest.mark.destructive, pytest.mark.timeout(1800)]

GUEST = "shown"


@pytest.fixture
def net(xen_host):
    clean(xen_host)
    with opened(xen_host) as made:
        yield made
    clean(xen_host)


def plugged(net):
    nic = addressed(net)
    net.api.PIF.plug(nic.pif)
    return nic


@contextlib.contextmanager
def guest_on(net, bridge):
    """A running PV guest whose only interface is on a bridge; gives the name of that interface in dom0."""
    config = guests.xl_guest(GUEST).replace("vcpus=1", f"vcpus=1\nvif=['bridge={bridge}']")
    net.host.exec(guests.PREPARE)
    net.host.exec(f"modprobe xen-netback\n{config}", timeout_s=300)
    try:
        vif = f"vif{net.host.exec(f'xl domid {GUEST}').stdout.strip()}.0"
        await_that(lambda: look(net.host).ports.get(vif) == bridge, "the guest's interface is a port")
        yield vif
    finally:
        net.host.exec(f"xl destroy {GUEST}", check=False)
    await_that(lambda: vif not in look(net.host).links, "the guest's interface is gone")


@pytest.mark.full
def test_the_graph_goes_down_to_the_interface_of_a_running_guest(net):
    nic = plugged(net)
    with guest_on(net, nic.bridge) as vif:
        drawn = agent(net.host, "net", "graph")
        assert [nic.name, nic.bridge] in drawn["edges"]
        assert [nic.bridge, vif] in drawn["edges"]
        (node,) = [node for node in drawn["nodes"] if node["name"] == vif]
        assert (node["column"], node["state"]) == ("vif", "up")
        lines = run(net.host, "hostagent", "net", "graph").out.splitlines()
        places = [next(n for n, line in enumerate(lines) if re.search(rf"(^|[\s─]){re.escape(name)}\s", line))
                  for name in (nic.name, nic.bridge, vif)]  # fmt: skip
        assert places == sorted(places)
        agent(net.host, "net", "graph", "-o", "/root/net.svg")
        assert f"<title>{vif}, " in net.host.exec("cat /root/net.svg").stdout
    assert vif not in {node["name"] for node in agent(net.host, "net", "graph")["nodes"]}


@pytest.mark.full
def test_row_18_guests_that_keep_their_mtu_are_named_and_the_bridge_keeps_its_own(net):
    nic = plugged(net)
    with guest_on(net, nic.bridge) as vif:

        def mtus():
            return [look(net.host).links[name]["mtu"] for name in (nic.name, nic.bridge, vif)]

        named = f"guests on {nic.bridge} have another MTU than its {JUMBO}"
        net.api.network.set_MTU(nic.network, str(JUMBO))
        assert up(net, nic.pif).code == DONE
        assert mtus() == [JUMBO, JUMBO, 1500]
        assert says(net, nic.pif, named, f"{vif} 1500")
        net.host.exec(f"ip link set {vif} mtu {JUMBO}")
        assert mtus() == [JUMBO, JUMBO, JUMBO]
        assert not says(net, nic.pif, named)


@pytest.mark.full
def test_explain_names_the_host_that_has_the_same_address(net):
    nic = plugged(net)
    assert not says(net, nic.pif, "another host has")
    with port_on(net, "storage") as port, holder(port, ADDRESS):
        # somebody was given the address after this host had it
        command = f"arping -D -I {nic.bridge} {ADDRESS}"
        reason = (f"another host has {ADDRESS}", f"{port.mac} answers for it", command)
        await_that(lambda: reason in explained(net, nic.pif), "the other host is named")
        assert ADDRESS in run(net.host, "hostagent", "pif", "explain", nic.uuid).out
        assert look(net.host).addresses(nic.bridge) == {f"{ADDRESS}/{PREFIX}"}
    assert not says(net, nic.pif, "another host has")
