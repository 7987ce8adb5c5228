"""A change of the management interface that cuts the host off, or that nobody confirms, is undone by itself.

Every test ends with a new ssh connection to the address the host had, and nobody has touched the host in between. That
something was done and undone is read in the history: of a host that nobody changed the rest would be true too.
"""

from __future__ import annotations

import re

import pytest
from nested_xen import machine, wire
from nested_xen.machine import GATEWAY

from tests.xen.agent import start
from tests.xen.net_look import assert_vlan, await_that, bonding, look
from tests.xen.net_moves import (
    BACK_S,
    MANAGEMENT,
    SECOND,
    adopt,
    as_before,
    assert_whole,
    at_the_console,
    management_pif,
    on_one_segment,
)
from tests.xen.net_operator import DONE, FAILED, opened, reconfigure, refusal, run
from tests.xen.net_segment import PARTNER, lacp_partner
from tests.xen.net_shapes import agent

pytestmark = [pytest.mark.full, pytest.mark.destructive, pytest.mark.timeout(2400)]

NETMASK = str(machine.SUBNET.netmask)
NOBODYS, NOBODYS_GATEWAY = "203.0.113.9", "203.0.113.1"
WRONG_TAG = 999
ANOTHER_SWITCH = "02:00:00:00:00:bb"
CONFIRM_S = 30
NOT_AGAIN = "answered before the change, and not within"
TIMER = "systemctl is-active hostagent-net-undo.timer"


@pytest.fixture
def host(xen_host):
    """A host whose management interface is hostagent's."""
    adopt(xen_host)
    return xen_host


@pytest.fixture
def two_cables(host):
    """A host with two NICs on the management segment; what bonds them goes after the test."""
    with on_one_segment(host):
        yield host


def newest(host):
    """When the last change began, by the history."""
    return max((entry["at_s"] for entry in agent(host, "net", "history")), default=0.0)


def undone_since(host, when):
    """What the history tells of the changes that failed since then and were undone."""
    entries = agent(host, "net", "history")
    return [
        " ".join(entry["told"])
        for entry in entries
        if entry["at_s"] > when and entry["outcome"] == "rolled-back"
    ]


# wrong moves: each is undone by itself


def test_a_wrong_address_is_undone(host):
    before = look(host)
    with opened(host) as net:
        uuid = net.api.PIF.get_uuid(management_pif(net))
    last = newest(host)
    code, said = at_the_console(
        host,
        f"hostagent-xe pif-reconfigure-ip uuid={uuid} mode=static IP={NOBODYS} netmask=255.255.255.0",
        f"gateway={NOBODYS_GATEWAY}",
    )
    as_before(host, before)
    assert code == FAILED, said
    # what was tried and did not answer is named
    assert f"the gateway {NOBODYS_GATEWAY}" in said
    [told] = undone_since(host, last)
    assert f"the gateway {NOBODYS_GATEWAY}" in told
    assert NOT_AGAIN in told
    with opened(host) as net:
        assert net.record(management_pif(net))["IP"] == host.machine.address


def test_a_wrong_vlan_is_undone(host):
    before = look(host)
    with opened(host) as net:
        vlan = net.vlan(net.nic(MANAGEMENT).pif, WRONG_TAG)
        net.api.PIF.reconfigure_ip(vlan, "Static", str(machine.SUBNET[77]), NETMASK, str(GATEWAY), "")
        uuid = net.api.PIF.get_uuid(vlan)
        untagged = net.api.PIF.get_VLAN_master_of(vlan)
        assert_vlan(look(host), net.nic(MANAGEMENT).name, WRONG_TAG, net.bridge(vlan))
        net.api.PIF.unplug(vlan)
        bridge = net.bridge(vlan)
    last = newest(host)
    code, said = at_the_console(host, f"hostagent-xe host-management-reconfigure pif-uuid={uuid}")
    as_before(host, before)
    assert code == FAILED, said
    [told] = undone_since(host, last)
    assert f"the gateway {GATEWAY}" in told
    assert NOT_AGAIN in told
    assert f"after it on {bridge}" in told
    assert bridge not in look(host).links
    with opened(host) as net:
        assert management_pif(net) == net.nic(MANAGEMENT).pif
        net.api.VLAN.destroy(untagged)


def test_a_wrong_gateway_is_undone(host):
    before = look(host)
    with opened(host) as net:
        uuid = net.api.PIF.get_uuid(management_pif(net))
    wrong = str(machine.SUBNET[250])
    last = newest(host)
    code, said = at_the_console(
        host,
        f"hostagent-xe pif-reconfigure-ip uuid={uuid} mode=static IP={host.machine.address}",
        f"netmask={NETMASK} gateway={wrong}",
    )
    as_before(host, before)
    assert code == FAILED, said
    [told] = undone_since(host, last)
    assert f"the gateway {wrong}" in told
    assert NOT_AGAIN in told
    assert wrong not in str(look(host).routes4)


def test_a_bond_whose_mode_does_not_fit_the_switch_is_undone(two_cables):
    """LACP where nobody answers it."""
    host = two_cables
    before = look(host)
    with opened(host) as net:
        members = ",".join(net.api.PIF.get_uuid(net.nic(n).pif) for n in (MANAGEMENT, SECOND))
        uuid = net.api.network.get_uuid(net.network("a bond, refused"))
    last = newest(host)
    code, said = at_the_console(
        host, f"hostagent-xe bond-create network-uuid={uuid} pif-uuids={members} mode=lacp"
    )
    as_before(host, before)
    assert code == FAILED, said
    assert "LACP" in said
    [told] = undone_since(host, last)
    assert "LACP" in told
    with opened(host) as net:
        assert net.api.Bond.get_all() == []


def test_row_5_a_management_bond_whose_members_go_to_two_switches_is_undone(host):
    before = look(host)
    with opened(host) as net:
        nics = [net.nic(number) for number in (MANAGEMENT, SECOND)]
        ref = net.network("a bond, of two switches")
        uuid = net.api.network.get_uuid(ref)
    last = newest(host)
    segments = [machine.DEFAULT_SEGMENTS[number] for number in (MANAGEMENT, SECOND)]
    ports = [wire.join(host.lab, segment, f"lacp-{segment}") for segment in segments]
    try:
        with lacp_partner(ports, systems=(PARTNER, ANOTHER_SWITCH)):
            code, said = at_the_console(
                host,
                f"hostagent-xe bond-create network-uuid={uuid} pif-uuids={','.join(nic.uuid for nic in nics)}",
                "mode=lacp properties:lacp-time=fast",
            )
    finally:
        for port in ports:
            port.close()
    as_before(host, before)
    assert code == FAILED, said
    [told] = undone_since(host, last)
    for words in (said, told):
        assert "are in different LACP groups, and only one of them carries traffic" in words
        assert all(re.search(rf"aggregator \d+: {nic.name}\b", words) for nic in nics), words
    with opened(host) as net:
        assert net.api.Bond.get_all() == []
        net.api.network.destroy(ref)


def test_a_working_bond_is_not_changed_to_a_mode_that_does_not_fit_the_switch(two_cables):
    host = two_cables
    with opened(host) as net:
        bond, _ = net.bond([net.nic(MANAGEMENT).pif, net.nic(SECOND).pif], "active-backup")
        uuid = net.api.Bond.get_uuid(bond)
        assert refusal(net.api.Bond.set_mode, bond, "balance-slb")[0] == "VALUE_NOT_SUPPORTED"
    before, last = look(host), newest(host)
    code, said = at_the_console(host, f"hostagent-xe bond-set-mode uuid={uuid} mode=lacp")
    as_before(host, before)
    assert code == FAILED, said
    [told] = undone_since(host, last)
    assert "LACP" in told
    device = next(name for name in before.made() if before.kind(name) == "bond")
    assert bonding(host, device)[0]["Bonding Mode"] == "fault-tolerance (active-backup)"


def test_a_change_that_nobody_confirms_is_undone_also_with_the_agent_dead(host):
    before = look(host)
    with opened(host) as net:
        uuid = net.api.PIF.get_uuid(management_pif(net))
        net.api.network.set_MTU(net.api.PIF.get_network(management_pif(net)), "1400")
    try:
        done = reconfigure(
            host, "--pif-uuid", uuid, "--management", "--confirm", f"--timeout={CONFIRM_S}", "up"
        )
        assert (done.code, done.value["outcome"]) == (DONE, "waiting"), done.said
        assert look(host).links["xenbr0"]["mtu"] == 1400
        host.exec("systemctl kill -s KILL hostagent; systemctl stop hostagent")
        await_that(
            lambda: look(host).links["xenbr0"]["mtu"] == 1500, "the change is undone", deadline_s=BACK_S
        )
        as_before(host, before)
        late = run(host, "hostagent", "net", "confirm", "--json")
        assert (late.code, late.value["outcome"]) == (FAILED, "nothing"), late.said
        assert "no change waits for confirmation" in late.value["error"]["found"]
        assert "was undone at" in late.value["error"]["found"]
        assert agent(host, "net", "history", "1")["outcome"] == "undone"
    finally:
        start(host)
        with opened(host) as net:
            net.api.network.set_MTU(net.api.PIF.get_network(management_pif(net)), "1500")
            net.api.PIF.plug(management_pif(net))  # the start has brought it up as the database had it


def test_a_change_that_is_confirmed_stays(host):
    with opened(host) as net:
        pif = management_pif(net)
        uuid, ref = net.api.PIF.get_uuid(pif), net.api.PIF.get_network(pif)
        net.api.network.set_MTU(ref, "1400")
    done = reconfigure(host, "--pif-uuid", uuid, "--management", "--confirm", f"--timeout={CONFIRM_S}", "up")
    assert done.value["outcome"] == "waiting", done.said
    assert host.exec(TIMER).stdout == "active\n"
    assert run(host, "hostagent", "net", "confirm").code == DONE
    # nothing is left that could undo it
    assert host.exec(TIMER, check=False).stdout != "active\n"
    assert agent(host, "net", "history", "1")["outcome"] == "confirmed"
    assert look(host).links["xenbr0"]["mtu"] == 1400
    with opened(host) as net:
        net.api.network.set_MTU(ref, "1500")
        net.api.PIF.plug(pif)
    assert_whole(host)
