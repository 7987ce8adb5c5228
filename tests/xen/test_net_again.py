"""Shapes of network (networking.md 3) that are taken down and brought up again, or changed where they are: bonds, VLANs
on them, internal networks, and bridges that others make. That they come up at all is in test_net_topologies.py.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from nested_xen import wire
from nested_xen.frames import arp_request

from tests.xen.net_look import assert_bridge, assert_vlan, await_that, bonding, look
from tests.xen.net_operator import DONE, PREFIX, reconfigure, refusal
from tests.xen.net_segment import PARTNER, arp_of, has_tag, lacp_partner, nobody_has, ping
from tests.xen.net_shapes import ADDRESS, JUMBO, LACP_S, STORAGE, TAG, TESTER, pair, port_on, up, uuid_of

pytestmark = [pytest.mark.shares_host, pytest.mark.destructive, pytest.mark.timeout(1800), pytest.mark.full]

TAGGED, TAGGED_TESTER = "203.0.113.11", "203.0.113.200"
SEGMENTS = ("bond-a", "bond-b")
INTERNAL, THEIRS = "xenapi", "br-theirs"
THEIR_MAC = "02:00:00:00:00:31"
OWN_ADDRESS = "169.254.0.1/16"


def bonded(net, mode, **properties):
    """A bond with an address and a VLAN on it with one of its own, both up: the members, master and VLAN, and the name
    of the bond's device."""
    members = pair(net)
    _, master = net.bond([nic.pif for nic in members], mode, **properties)
    net.static(master, ADDRESS)
    vlan = net.vlan(master, TAG)
    net.static(vlan, TAGGED)
    net.api.PIF.plug(vlan)
    return members, master, vlan, net.record(master)["device"]


def assert_bonded(net, members, master, device):
    """The bond is whole, with its bridge and address."""
    seen = look(net.host)
    assert_bridge(seen, net.bridge(master), {device}, mac=members[0].mac)
    assert seen.addresses(net.bridge(master)) == {f"{ADDRESS}/{PREFIX}"}
    assert bonding(net.host, device)[1].keys() == {nic.name for nic in members}
    assert net.attached(master)


def assert_vlan_on(net, members, vlan, device):
    seen = look(net.host)
    assert_bridge(
        seen, net.bridge(vlan), {assert_vlan(seen, device, TAG, net.bridge(vlan))}, mac=members[0].mac
    )
    assert seen.addresses(net.bridge(vlan)) == {f"{TAGGED}/{PREFIX}"}
    assert net.attached(vlan)


def assert_no_vlan(net, vlan, device):
    seen = look(net.host)
    assert net.bridge(vlan) not in seen.links
    assert [
        name for name, link in seen.links.items() if seen.kind(name) == "vlan" and link["link"] == device
    ] == []
    assert net.attached(vlan) is False


def assert_no_bond(net, members, master, device):
    """Nothing of the bond is left, and its members are as they were alone."""
    seen = look(net.host)
    assert not {device, net.bridge(master)} & seen.links.keys()
    for nic in members:
        assert seen.master(nic.name) == ""
        assert seen.links[nic.name]["address"] == nic.mac
        assert seen.addresses(nic.name) == set()
    assert net.attached(master) is False


def down(net, pif):
    done = reconfigure(net.host, "--pif-uuid", uuid_of(net, pif), "down")
    assert done.code == DONE, done.said


def test_a_bond_and_a_vlan_on_it_go_down_and_come_up_again(net, two_cables):
    members, master, vlan, device = bonded(net, "active-backup")
    before = look(net.host).links
    net.api.PIF.unplug(vlan)
    assert_no_vlan(net, vlan, device)
    assert_bonded(net, members, master, device)
    seen = look(net.host).links
    for name in (device, net.bridge(master)):
        assert seen[name]["ifindex"] == before[name]["ifindex"]
    with port_on(net, "bond-a") as port:
        ping(port, ADDRESS, sender=TESTER)
        nobody_has(port, TAGGED, sender=TAGGED_TESTER, tag=TAG)
    net.api.PIF.unplug(master)
    assert_no_bond(net, members, master, device)
    with port_on(net, "bond-a") as port:
        nobody_has(port, ADDRESS, sender=TESTER)

    # the VLAN alone takes the bond with it, up and down
    assert up(net, vlan).code == DONE
    assert_vlan_on(net, members, vlan, device)
    assert bonding(net.host, device)[1].keys() == {nic.name for nic in members}
    with port_on(net, "bond-a") as port:
        assert has_tag(ping(port, TAGGED, sender=TAGGED_TESTER, tag=TAG), TAG)
    down(net, vlan)
    assert_no_vlan(net, vlan, device)
    assert_no_bond(net, members, master, device)

    # the bond below a VLAN goes without it
    for pif in (master, vlan):
        assert up(net, pif).code == DONE
    assert_bonded(net, members, master, device)
    assert_vlan_on(net, members, vlan, device)
    down(net, master)
    assert look(net.host).addresses(net.bridge(master)) == set()
    assert_vlan_on(net, members, vlan, device)
    net.api.PIF.plug(master)
    assert_bonded(net, members, master, device)
    with port_on(net, "bond-a") as port:
        ping(port, ADDRESS, sender=TESTER)
        assert has_tag(ping(port, TAGGED, sender=TAGGED_TESTER, tag=TAG), TAG)


def answer_with_tag(ports):
    """Ask for the VLAN's address on each link, until an answer with the tag comes over any of them."""

    def asked():
        question = replace(arp_request(ports[0].mac, TAGGED_TESTER, TAGGED), vlans=(TAG,))
        for port in ports:
            port.send(question)
        return [
            frame
            for port in ports
            for frame in port.frames(deadline_s=1)
            if (answer := arp_of(frame)) is not None and (answer.operation, answer.sender) == (2, TAGGED)
        ]

    for port in ports:
        port.drain()  # answers to earlier questions
    frames = await_that(asked, "an answer over the bond")
    assert all(has_tag(frame, TAG) for frame in frames)
    return frames[0].source


def test_a_bond_with_lacp_and_a_vlan_on_it_go_down_and_come_up_again_and_its_frames_have_the_tag(net):
    switch = [wire.join(net.host.lab, segment, f"lacp-{segment}") for segment in SEGMENTS]
    stations = [wire.join(net.host.lab, segment, f"on-{segment}") for segment in SEGMENTS]

    def both_carry():
        await_that(
            lambda: "Number of ports: 2" in net.host.exec(f"cat /proc/net/bonding/{device}").stdout,
            "both links carry traffic",
            deadline_s=LACP_S,
        )
        assert bonding(net.host, device)[0]["Partner Mac Address"] == PARTNER

    try:
        with lacp_partner(switch):
            members, master, vlan, device = bonded(net, "lacp", **{"lacp-time": "fast"})
            both_carry()
            assert answer_with_tag(stations) == members[0].mac
            net.api.PIF.unplug(vlan)
            assert_no_vlan(net, vlan, device)
            assert_bonded(net, members, master, device)
            down(net, master)
            assert_no_bond(net, members, master, device)

            net.api.PIF.plug(master)
            net.api.PIF.plug(vlan)
            both_carry()
            assert_bonded(net, members, master, device)
            assert_vlan_on(net, members, vlan, device)
            own, _ = bonding(net.host, device)
            assert (own["Bonding Mode"], own["LACP rate"]) == (
                "IEEE 802.3ad Dynamic link aggregation",
                "fast",
            )
            assert answer_with_tag(stations) == members[0].mac
    finally:
        for port in (*switch, *stations):
            port.close()


# networks without a NIC


def as_it_stands(seen, bridge):
    """What would be otherwise of a bridge that somebody touched."""
    link = seen.links[bridge]
    kept = {key: link[key] for key in ("ifindex", "mtu", "address", "flags", "group")}
    settings = {key: seen.settings(bridge)[key] for key in ("stp_state", "forward_delay", "mcast_snooping")}
    return kept, settings, seen.addresses(bridge), seen.uplinks(bridge)


def test_an_internal_network_changes_where_it_is_when_it_is_attached_anew(net):
    ref = net.network("internal")
    bridge = net.api.network.get_bridge(ref)
    net.api.network.attach(ref, net.me)
    before = look(net.host)
    assert before.links[bridge]["mtu"] == 1500
    net.api.network.attach(ref, net.me)
    assert as_it_stands(look(net.host), bridge) == as_it_stands(before, bridge)
    net.host.exec(f"ip link set {bridge} type bridge forward_delay 1500")
    net.api.network.set_MTU(ref, str(JUMBO))
    net.api.network.attach(ref, net.me)
    seen = look(net.host)
    assert_bridge(seen, bridge, set(), mac=before.links[bridge]["address"], mtu=JUMBO)
    assert seen.links[bridge]["ifindex"] == before.links[bridge]["ifindex"]
    net.api.network.destroy(ref)
    assert bridge not in look(net.host).links


def test_the_host_internal_network_gets_its_address_back_where_it_is(net):
    (ref,) = [
        ref for ref, record in net.api.network.get_all_records().items() if record["bridge"] == INTERNAL
    ]
    try:
        net.api.network.attach(ref, net.me)
        before = look(net.host)
        assert before.addresses(INTERNAL) == {OWN_ADDRESS}
        net.host.exec(f"ip address flush dev {INTERNAL} scope global; ip link set {INTERNAL} down")
        assert look(net.host).addresses(INTERNAL) == set()
        net.api.network.attach(ref, net.me)
        seen = look(net.host)
        assert seen.addresses(INTERNAL) == {OWN_ADDRESS}
        assert seen.is_up(INTERNAL)
        assert seen.links[INTERNAL]["ifindex"] == before.links[INTERNAL]["ifindex"]
        assert refusal(net.api.network.destroy, ref) == ["CANNOT_DESTROY_SYSTEM_NETWORK", ref]
        assert INTERNAL in look(net.host).links
    finally:
        net.host.exec(f"ip link delete {INTERNAL}")  # no call takes it away


def test_of_a_network_that_others_look_after_the_bridge_is_only_looked_for(net):
    ref = net.api.network.create(
        {
            "name_label": "of others",
            "name_description": "",
            "MTU": str(JUMBO),
            "other_config": {"made-by": "test"},
            "bridge": THEIRS,
            "managed": False,
            "tags": [],
        }
    )
    assert refusal(net.api.network.attach, ref, net.me) == ["BRIDGE_NOT_AVAILABLE", THEIRS]
    assert THEIRS not in look(net.host).links

    nic = net.nic(STORAGE)
    # an address that is given is left alone by udev
    net.host.exec(
        f"ip link add {THEIRS} address {THEIR_MAC} type bridge stp_state 1 && ip link set {THEIRS} up"
        f" && ip address add {ADDRESS}/{PREFIX} dev {THEIRS}"
    )
    try:
        before = as_it_stands(look(net.host), THEIRS)
        net.api.network.attach(ref, net.me)
        assert refusal(net.api.VLAN.create, nic.pif, str(TAG), ref) == ["NETWORK_UNMANAGED", ref]
        assert as_it_stands(look(net.host), THEIRS) == before
        assert THEIRS not in look(net.host).made()
        net.api.network.destroy(ref)
        assert as_it_stands(look(net.host), THEIRS) == before
    finally:
        net.host.exec(f"ip link delete {THEIRS}")
