"""Every shape of network that bridges make (networking.md 3): up, down, changed in place, and after a cold boot.

What the host then has is read with ip, bridge and /proc; what it does, from frames on the segment. Addresses and MTUs
are in test_net_addresses.py.
"""

from __future__ import annotations

import threading

import pytest
from nested_xen import faults, wire
from nested_xen.frames import EtherType

from tests.xen.agent import power_on
from tests.xen.net_look import assert_bridge, assert_vlan, await_that, bonding, look
from tests.xen.net_operator import DONE, PREFIX, STATIC, checked, opened, reconfigure, refusal, xe
from tests.xen.net_segment import PARTNER, PREFIX6, Background, has_tag, lacp_partner, nobody_has, ping
from tests.xen.net_shapes import (
    ADDRESS,
    BOND_A,
    BOND_B,
    JUMBO,
    JUMBO_PING,
    LACP_S,
    STORAGE,
    TAG,
    TESTER,
    addressed,
    pair,
    port_on,
)

pytestmark = [pytest.mark.shares_host, pytest.mark.destructive, pytest.mark.timeout(1800)]

LACP = {"hashing_algorithm": "src_mac", "lacp-time": "fast", "lacp-aggregation-key": "7"}


def assert_nothing_to_do(net, pif):
    """A second `up` changes nothing: neither by its own words nor by an index of the kernel."""
    before = look(net.host)
    again = reconfigure(net.host, "--pif-uuid", net.api.PIF.get_uuid(pif), "up")
    assert (again.code, again.value["operations"]) == (DONE, []), again.said
    assert look(net.host).links.keys() == before.links.keys()
    assert {n: row["ifindex"] for n, row in look(net.host).links.items()} == {
        n: row["ifindex"] for n, row in before.links.items()
    }
    assert checked(net.host).value["outcome"] == "right"


# plain PIFs and VLANs


@pytest.mark.oldest
def test_a_plain_pif_and_a_vlan_on_it_come_up_answer_on_the_wire_and_go(net):
    nic = net.nic(STORAGE)
    assert nic.bridge == f"xenbr{STORAGE}"
    net.static(nic.pif, ADDRESS)
    vlan = net.vlan(nic.pif, TAG)
    net.static(vlan, "203.0.113.11")
    bridge = net.bridge(vlan)
    with port_on(net, "storage") as port:
        xe(net.host, "pif-plug", f"uuid={nic.uuid}")
        xe(net.host, "pif-plug", f"uuid={net.api.PIF.get_uuid(vlan)}")
        ping(port, ADDRESS, sender=TESTER)
        answer = ping(port, "203.0.113.11", sender="203.0.113.200", tag=TAG)
        assert has_tag(answer, TAG)
        # with the tag of no network; Linux answers for any address of the host on all that it has
        nobody_has(port, "203.0.113.11", sender="203.0.113.200", tag=TAG + 1)
    seen = look(net.host)
    assert_bridge(seen, nic.bridge, {nic.name}, mac=nic.mac)
    assert seen.addresses(nic.bridge) == {f"{ADDRESS}/{PREFIX}"}
    device = assert_vlan(seen, nic.name, TAG, bridge)
    assert_bridge(seen, bridge, {device}, mac=nic.mac)
    assert seen.addresses(bridge) == {f"203.0.113.11/{PREFIX}"}
    assert net.attached(nic.pif)
    assert net.attached(vlan)
    record = net.record(nic.pif)
    assert (record["MTU"], record["igmp_snooping_status"]) == ("1500", "disabled")
    assert_nothing_to_do(net, vlan)

    xe(net.host, "pif-unplug", f"uuid={net.api.PIF.get_uuid(vlan)}")
    seen = look(net.host)
    assert not {device, bridge} & seen.links.keys()
    assert_bridge(seen, nic.bridge, {nic.name}, mac=nic.mac)
    xe(net.host, "pif-unplug", f"uuid={nic.uuid}")
    seen = look(net.host)
    assert nic.bridge not in seen.links
    assert seen.master(nic.name) == ""
    assert seen.addresses(nic.name) == set()
    assert (net.attached(nic.pif), net.attached(vlan)) == (False, False)


@pytest.mark.full
@pytest.mark.parametrize("tag", [1, 2, 4094])
def test_a_vlan_comes_up_alone_and_takes_what_only_it_needs_with_it(net, tag):
    nic = net.nic(STORAGE)
    vlan = net.vlan(nic.pif, tag)
    net.static(vlan, ADDRESS)
    done = reconfigure(net.host, "--pif-uuid", net.api.PIF.get_uuid(vlan), "up")
    assert done.code == DONE, done.said
    seen = look(net.host)
    device = assert_vlan(seen, nic.name, tag, net.bridge(vlan))
    assert seen.is_up(nic.name)
    with port_on(net, "storage") as port:
        assert has_tag(ping(port, ADDRESS, sender=TESTER, tag=tag), tag)

    done = reconfigure(net.host, "--pif-uuid", net.api.PIF.get_uuid(vlan), "down")
    assert done.code == DONE, done.said
    seen = look(net.host)
    assert not {device, net.bridge(vlan), nic.bridge} & seen.links.keys()


@pytest.mark.full
def test_what_a_host_sends_into_a_vlan_carries_its_tag(net):
    vlan = net.vlan(net.nic(STORAGE).pif, TAG)
    net.static(vlan, ADDRESS)
    net.api.PIF.plug(vlan)
    with port_on(net, "storage") as port:
        net.host.exec(f"ping -c 1 -W 1 -b {STATIC.format(255)}", check=False)
        [frame] = port.capture(lambda frame: frame.type == EtherType.IPV4, deadline_s=60)
        assert has_tag(frame, TAG)
        assert frame.source == net.nic(STORAGE).mac


@pytest.mark.full
def test_a_hundred_vlans_come_and_go_and_the_pif_below_them_is_not_touched(net):
    nic = addressed(net)
    net.api.PIF.plug(nic.pif)
    before = look(net.host)
    vlans = {tag: net.vlan(nic.pif, tag) for tag in range(100, 200)}
    for pif in vlans.values():
        net.api.PIF.plug(pif)
    seen = look(net.host)
    for tag, pif in vlans.items():
        assert_vlan(seen, nic.name, tag, net.bridge(pif))
    for name in (nic.name, nic.bridge):
        assert seen.links[name]["ifindex"] == before.links[name]["ifindex"]
    with port_on(net, "storage") as port:
        ping(port, ADDRESS, sender=TESTER)
    for pif in vlans.values():
        net.api.PIF.unplug(pif)
    assert look(net.host).links.keys() == before.links.keys()


# bonds


def test_a_bond_and_a_vlan_on_it_carry_on_when_the_active_link_goes(net, two_cables):
    one, two = pair(net)
    net.static(one.pif, ADDRESS)
    net.api.PIF.plug(one.pif)
    net.api.PIF.plug(two.pif)
    bond, master = net.bond([one.pif, two.pif], "active-backup")
    vlan = net.vlan(master, TAG)
    net.static(vlan, "203.0.113.11")
    net.api.PIF.plug(vlan)

    seen = look(net.host)
    device, bridge = net.record(master)["device"], net.bridge(master)
    assert not {one.bridge, two.bridge} & seen.links.keys()
    assert_bridge(seen, bridge, {device}, mac=one.mac)
    assert seen.addresses(bridge) == {f"{ADDRESS}/{PREFIX}"}
    assert (seen.master(one.name), seen.master(two.name)) == (device, device)
    assert_bridge(seen, net.bridge(vlan), {assert_vlan(seen, device, TAG, net.bridge(vlan))}, mac=one.mac)
    own, members = bonding(net.host, device)
    assert own["Bonding Mode"] == "fault-tolerance (active-backup)"
    assert own["MII Polling Interval (ms)"] == "100"
    assert (own["Up Delay (ms)"], own["Down Delay (ms)"]) == ("31000", "200")
    assert members.keys() == {one.name, two.name}
    assert net.record(one.pif)["ip_configuration_mode"] == "None"
    assert net.record(master)["IP"] == ADDRESS
    assert (net.attached(one.pif), net.attached(master)) == (False, True)

    active = own["Currently Active Slave"]
    number = BOND_A if active == one.name else BOND_B
    with port_on(net, "bond-a") as port:
        stop, answered = threading.Event(), []

        def traffic(over):
            while not over.is_set() and not stop.is_set():
                answered.append(ping(port, ADDRESS, sender=TESTER))

        with Background(traffic):
            await_that(lambda: answered, "traffic")
            with faults.no_carrier(net.host, number):
                await_that(
                    lambda: bonding(net.host, device)[0]["Currently Active Slave"] not in (active, "None"),
                    "the other link is active",
                )
                after = len(answered)
                await_that(lambda: len(answered) > after + 1, "traffic over the other link")
            stop.set()
        assert has_tag(ping(port, "203.0.113.11", sender="203.0.113.200", tag=TAG), TAG)
    await_that(
        lambda: int(bonding(net.host, device)[1][active]["Link Failure Count"]) >= 1, "the failure is counted"
    )

    net.api.VLAN.destroy(net.record(vlan)["VLAN_master_of"])
    xe(net.host, "bond-destroy", f"uuid={net.api.Bond.get_uuid(bond)}")
    seen = look(net.host)
    assert not {device, bridge} & seen.links.keys()
    assert net.record(one.pif)["IP"] == ADDRESS
    assert_bridge(seen, one.bridge, {one.name}, mac=one.mac)
    assert seen.addresses(one.bridge) == {f"{ADDRESS}/{PREFIX}"}
    assert seen.links[two.name]["address"] == two.mac  # not the one that it had as a member


@pytest.mark.full
def test_a_bond_with_lacp_finds_its_partner_and_has_all_its_properties(net):
    one, two = pair(net)
    ports = [wire.join(net.host.lab, segment, segment) for segment in ("bond-a", "bond-b")]
    try:
        with lacp_partner(ports):
            _, master = net.bond([one.pif, two.pif], "lacp", **LACP)
            device = net.record(master)["device"]
            await_that(
                lambda: bonding(net.host, device)[0].get("Partner Mac Address") == PARTNER,
                "LACP has found its partner",
                deadline_s=LACP_S,
            )
            await_that(
                lambda: "Number of ports: 2" in net.host.exec(f"cat /proc/net/bonding/{device}").stdout,
                "both links are in one aggregator",
                deadline_s=LACP_S,
            )
    finally:
        for port in ports:
            port.close()
    own, _ = bonding(net.host, device)
    assert own["Bonding Mode"] == "IEEE 802.3ad Dynamic link aggregation"
    assert own["Transmit Hash Policy"].startswith("vlan+srcmac")
    assert own["LACP rate"] == "fast"
    settings = look(net.host).settings(device)
    assert (settings["mode"], settings["ad_user_port_key"]) == ("802.3ad", 7)


@pytest.mark.full
def test_a_bond_changes_in_place_what_the_kernel_lets_it(net):
    one, two = pair(net)
    bond, master = net.bond([one.pif, two.pif], "active-backup")
    device = net.record(master)["device"]
    vlan = net.vlan(master, TAG)
    net.api.PIF.plug(vlan)
    before = look(net.host)

    net.api.PIF.add_to_other_config(master, "bond-updelay", "500")
    net.api.PIF.add_to_other_config(master, "bond-miimon", "50")
    net.api.PIF.plug(master)
    own, _ = bonding(net.host, device)
    assert (own["Up Delay (ms)"], own["MII Polling Interval (ms)"]) == ("500", "50")
    net.api.Bond.set_mode(bond, "lacp")
    net.api.Bond.set_property(bond, "lacp-time", "fast")
    own, members = bonding(net.host, device)
    assert own["Bonding Mode"] == "IEEE 802.3ad Dynamic link aggregation"
    assert own["LACP rate"] == "fast"
    assert members.keys() == {one.name, two.name}

    after = look(net.host)
    assert {n: row["ifindex"] for n, row in after.links.items()} == {
        n: row["ifindex"] for n, row in before.links.items()
    }
    assert_vlan(after, device, TAG, net.bridge(vlan))


@pytest.mark.full
def test_going_from_a_bond_to_its_members_and_back_moves_the_vlans_with_it(net):
    one, two = pair(net)
    vlan = net.vlan(one.pif, TAG)
    net.static(vlan, ADDRESS)
    net.api.PIF.plug(vlan)
    bond, master = net.bond([one.pif, two.pif], "active-backup")
    device = net.record(master)["device"]
    (moved,) = net.api.PIF.get_VLAN_slave_of(master)
    upper = net.api.VLAN.get_untagged_PIF(moved)
    seen = look(net.host)
    assert_vlan(seen, device, TAG, net.bridge(upper))
    assert seen.addresses(net.bridge(upper)) == {f"{ADDRESS}/{PREFIX}"}
    net.api.Bond.destroy(bond)
    seen = look(net.host)
    assert_vlan(seen, one.name, TAG, net.bridge(upper))
    assert seen.addresses(net.bridge(upper)) == {f"{ADDRESS}/{PREFIX}"}
    with port_on(net, "bond-a") as port:
        ping(port, ADDRESS, sender=TESTER, tag=TAG)


# after a cold boot


@pytest.mark.full
def test_all_of_it_is_there_again_after_a_cold_boot(take_hosts):
    (host,) = take_hosts(1, "installed")
    with opened(host) as net:
        nic, (one, two) = net.nic(STORAGE), pair(net)
        net.static(nic.pif, ADDRESS)
        net.api.network.set_MTU(nic.network, str(JUMBO))
        net.api.PIF.plug(nic.pif)
        tagged = net.vlan(nic.pif, TAG, mtu=JUMBO)
        net.static(tagged, "203.0.113.11")
        net.api.PIF.plug(tagged)
        bare = net.vlan(nic.pif, TAG + 1)
        _, master = net.bond([one.pif, two.pif], "active-backup")
        on_bond = net.vlan(master, TAG)
        net.api.PIF.reconfigure_ipv6(on_bond, "Static", f"{PREFIX6}11/64", "", "")
        net.api.PIF.plug(on_bond)
        bridges = {pif: net.bridge(pif) for pif in (tagged, bare, master, on_bond)}
        bond = net.record(master)["device"]
        before = look(host)

    host.power_off()
    host.boot()
    assert power_on(host).report["ending"] == "complete"

    seen = look(host)
    assert_bridge(seen, nic.bridge, {nic.name}, mac=nic.mac, mtu=JUMBO)
    device = assert_vlan(seen, nic.name, TAG, bridges[tagged])
    assert_bridge(seen, bridges[tagged], {device}, mac=nic.mac, mtu=JUMBO)
    assert_bridge(seen, bridges[master], {bond}, mac=one.mac)
    assert_bridge(seen, bridges[on_bond], {assert_vlan(seen, bond, TAG, bridges[on_bond])}, mac=one.mac)
    assert seen.addresses(bridges[on_bond], "inet6") == {f"{PREFIX6}11/64"}
    assert bridges[bare] not in seen.links  # without an address it waits for a guest (networking.md 3.10)
    for bridge in (nic.bridge, bridges[tagged]):
        assert seen.addresses(bridge) == before.addresses(bridge)
    assert bonding(host, bond)[0]["Bonding Mode"] == "fault-tolerance (active-backup)"
    with wire.join(host.lab, "storage") as port:
        ping(port, ADDRESS, sender=TESTER, size=JUMBO_PING)
        ping(port, "203.0.113.11", sender="203.0.113.200", tag=TAG)
    with opened(host) as net:
        assert [net.attached(pif) for pif in (nic.pif, tagged, master, on_bond)] == [True] * 4
        assert net.attached(bare) is False


# what callers are told


@pytest.mark.full
def test_a_mode_that_the_kernel_does_not_have_is_refused_with_the_reason(net):
    one, two = pair(net)
    said = refusal(net.bond, [one.pif, two.pif], "balance-slb")
    assert said[:3] == ["VALUE_NOT_SUPPORTED", "mode", "balance-slb"]
    assert net.api.Bond.get_all() == []
    assert not [name for name in look(net.host).links if name.startswith("bond")]


@pytest.mark.full
def test_a_plan_says_what_is_done_and_does_nothing(net):
    nic = addressed(net)
    before = look(net.host)
    planned = reconfigure(net.host, "--pif-uuid", nic.uuid, "--plan", "up")
    assert planned.code == DONE, planned.said
    assert look(net.host) == before
    done = reconfigure(net.host, "--pif-uuid", nic.uuid, "up")

    def named(answer):
        return [(one["verb"], one["device"]) for one in answer.value["operations"]]

    assert named(done) == named(planned)
    assert done.value["operations"]
    assert all(one["milliseconds"] is not None for one in done.value["operations"])
