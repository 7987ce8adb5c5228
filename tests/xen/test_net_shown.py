"""What graph and explain show of things that others bring: a guest's interface, a host with the same address."""

from __future__ import annotations

import re

import pytest
from nested_xen import wire

from tests.xen import guests
from tests.xen.net_look import await_that, look
from tests.xen.net_operator import DONE, PREFIX, STATIC, clean, opened, run
from tests.xen.net_segment import holder

pytestmark = [pytest.mark.destructive, pytest.mark.timeout(1800)]

STORAGE = 1
ADDRESS = STATIC.format(11)
GUEST = "shown"


@pytest.fixture
def net(xen_host):
    clean(xen_host)
    with opened(xen_host) as made:
        yield made
    clean(xen_host)


def agent(host, *words):
    answer = run(host, "hostagent", *words, "--json")
    assert answer.code == DONE, answer.said
    return answer.value


def guest_on(bridge):
    """Shell lines that start a PV guest whose only interface is on a bridge."""
    with_interface = guests.xl_guest(GUEST).replace("vcpus=1", f"vcpus=1\nvif=['bridge={bridge}']")
    return f"modprobe xen-netback\n{with_interface}"


@pytest.mark.full
def test_the_graph_goes_down_to_the_interface_of_a_running_guest(net):
    nic = net.nic(STORAGE)
    net.static(nic.pif, ADDRESS)
    net.api.PIF.plug(nic.pif)
    net.host.exec(guests.PREPARE)
    net.host.exec(guest_on(nic.bridge), timeout_s=300)
    try:
        domid = net.host.exec(f"xl domid {GUEST}").stdout.strip()
        vif = f"vif{domid}.0"
        await_that(lambda: look(net.host).ports.get(vif) == nic.bridge, "the guest's interface is a port")
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
    finally:
        net.host.exec(f"xl destroy {GUEST}", check=False)
    await_that(lambda: vif not in look(net.host).links, "the guest's interface is gone")
    assert vif not in {node["name"] for node in agent(net.host, "net", "graph")["nodes"]}


@pytest.mark.full
def test_explain_names_the_host_that_has_the_same_address(net):
    nic = net.nic(STORAGE)
    net.static(nic.pif, ADDRESS)
    net.api.PIF.plug(nic.pif)

    def reasons():
        found = agent(net.host, "pif", "explain", nic.uuid)["reasons"]
        return [(each["found"], " ".join(each["evidence"]), each["command"]) for each in found]

    assert not [found for found, *_ in reasons() if "another host has" in found]
    with wire.join(net.host.lab, "storage") as port, holder(port, ADDRESS):
        # somebody was given the address after this host had it
        command = f"arping -D -I {nic.bridge} {ADDRESS}"
        reason = (f"another host has {ADDRESS}", f"{port.mac} answers for it", command)
        await_that(lambda: reason in reasons(), "the other host is named")
        assert ADDRESS in run(net.host, "hostagent", "pif", "explain", nic.uuid).out
        assert look(net.host).addresses(nic.bridge) == {f"{ADDRESS}/{PREFIX}"}
    assert not [found for found, *_ in reasons() if "another host has" in found]
