"""The failure catalogue of networking.md 5: bonds, MTU and tags, with what is detected, printed and done.

A test's name begins with its row. Rows with a test elsewhere, and those that no lab produces, are in
docs/network-failures.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from nested_xen import faults, install, network, services, wire
from nested_xen.frames import Ethernet, EtherType, Lacpdu, LacpEnd

from tests.xen.agent import start
from tests.xen.net_look import assert_bridge, assert_vlan, await_that, bonding, look
from tests.xen.net_operator import DEGRADED, DONE, FAILED, PREFIX, checked, opened, refusal
from tests.xen.net_segment import (
    IN_USE,
    PARTNER,
    PREFIX6,
    Background,
    is_announcement,
    is_announcement6,
    lacp_partner,
)
from tests.xen.net_shapes import (
    ADDRESS,
    BOND_A,
    BOND_B,
    DEAD_ADDRESS,
    JUMBO,
    LACP_S,
    STORAGE,
    TAG,
    addressed,
    await_logged,
    now_on,
    pair,
    says,
    up,
)

if TYPE_CHECKING:
    import threading

pytestmark = [pytest.mark.destructive, pytest.mark.timeout(1800)]

ANOTHER_SWITCH = "02:00:00:00:00:bb"
TIMES = 3
"""So often an address is announced (RFC 5227 asks for two)."""
TOO_LARGE = 16000
"""An MTU that a network can have and an e1000e cannot."""


def speaking(ports, systems):
    """Switches that send LACPDUs by themselves, as an active one does."""

    def send(over: threading.Event) -> None:
        while not over.wait(0.5):
            for number, port in enumerate(ports):
                mine = LacpEnd(systems[number % len(systems)], 7, number + 1, IN_USE)
                port.send(Lacpdu(mine, LacpEnd("00:00:00:00:00:00", 0, 0, mine.state)).frame(port.mac))

    return Background(send)


def tagged_traffic(port, tags):
    def send(over: threading.Event) -> None:
        while not over.wait(0.2):
            for tag in tags:
                port.send(Ethernet("ff:ff:ff:ff:ff:ff", port.mac, EtherType.LOCAL, b"somebody", (tag,)))

    return Background(send)


# bonds and LACP


@pytest.mark.full
def test_row_3_a_switch_that_speaks_lacp_to_a_nic_without_a_bond_is_named(net):
    nic = net.nic(BOND_A)
    net.static(nic.pif, ADDRESS)
    net.api.PIF.plug(nic.pif)
    with wire.join(net.host.lab, "bond-a") as port, speaking([port], [PARTNER]):
        assert says(net, nic.pif, "LACP", nic.name, PARTNER, "bond-create")


@pytest.mark.full
def test_rows_4_and_6_a_bond_with_lacp_and_no_partner_works_with_less_and_says_so(net):
    one, two = pair(net)
    _, master = net.bond([one.pif, two.pif], "lacp")
    net.static(master, ADDRESS)
    assert net.attached(master)
    assert says(net, master, "no LACP partner", net.record(master)["device"])
    done = up(net, master)
    assert done.code == DEGRADED, done.said
    assert all(f"no LACP partner on {nic.name} " in done.said for nic in (one, two)), done.said
    assert "00:00:00:00:00:00" in bonding(net.host, net.record(master)["device"])[0]["Partner Mac Address"]


@pytest.mark.full
def test_row_5_members_on_two_switches_are_both_listed(net):
    one, two = pair(net)
    ports = [wire.join(net.host.lab, segment, segment) for segment in ("bond-a", "bond-b")]
    try:
        with lacp_partner(ports, systems=(PARTNER, ANOTHER_SWITCH)):
            _, master = net.bond([one.pif, two.pif], "lacp", **{"lacp-time": "fast"})
            device = net.record(master)["device"]
            await_that(
                lambda: bonding(net.host, device)[0].get("Partner Mac Address") in (PARTNER, ANOTHER_SWITCH),
                "LACP has found a partner",
                deadline_s=LACP_S,
            )
            await_that(lambda: says(net, master, "different switches", one.name, two.name), "both are listed")
    finally:
        for port in ports:
            port.close()


@pytest.mark.full
def test_row_7_a_link_that_waits_for_its_updelay_is_pending_and_not_failed(net):
    one, two = pair(net)
    _, master = net.bond([one.pif, two.pif], "active-backup")
    device = net.record(master)["device"]
    with faults.no_carrier(net.host, BOND_B):
        await_that(lambda: bonding(net.host, device)[1][two.name]["MII Status"] == "down", "the link is down")
    assert bonding(net.host, device)[1][two.name]["MII Status"] == "going back"
    assert says(net, master, two.name, "again in")
    await_that(lambda: bonding(net.host, device)[1][two.name]["MII Status"] == "up", "the link is up again")


@pytest.mark.full
def test_row_9_a_bond_property_that_cannot_be_had_is_refused_and_one_that_is_not_had_is_told(net):
    one, two = pair(net)
    _, master = net.bond([one.pif, two.pif], "lacp")
    said = refusal(net.api.PIF.add_to_other_config, master, "bond-hashing-algorithm", "nonsense")
    assert said == ["INVALID_VALUE", "other_config:bond-hashing-algorithm", "nonsense"]
    device = net.record(master)["device"]
    assert bonding(net.host, device)[0]["Transmit Hash Policy"].startswith("layer3+4")
    net.host.exec(f"echo layer2 > /sys/class/net/{device}/bonding/xmit_hash_policy")
    [found] = checked(net.host).value["differences"]
    assert (found["device"], found["what"]) == (device, "xmit_hash_policy")
    assert (found["found"], found["wanted"]) == ("0", "1")  # as linux/if_bonding.h has them
    assert up(net, master).code == DEGRADED  # nobody speaks LACP
    assert bonding(net.host, device)[0]["Transmit Hash Policy"].startswith("layer3+4")


@pytest.mark.full
def test_row_11_members_of_different_speed_are_shown_before_they_are_bonded(net):
    one, two = pair(net)
    net.host.exec(f"ethtool -s {two.name} speed 100 duplex full")
    try:
        said = " ".join(refusal(net.bond, [one.pif, two.pif], "lacp"))
        assert one.name in said
        assert two.name in said
        assert "100" in said
        assert not [name for name in look(net.host).links if name.startswith("bond")]
    finally:
        net.host.exec(f"ethtool -s {two.name} speed 1000 duplex full")


@pytest.mark.full
def test_row_12_a_bond_of_two_pifs_with_addresses_is_refused(net):
    one, two = pair(net)
    net.static(one.pif, ADDRESS)
    net.static(two.pif, "203.0.113.11")
    since = now_on(net)
    assert refusal(net.bond, [one.pif, two.pif], "active-backup")[0] == "PIF_BOND_MORE_THAN_ONE_IP"
    await_logged(net, since, "Bond.create", f"{one.name} ({ADDRESS})", f"{two.name} (203.0.113.11)")
    assert net.api.Bond.get_all() == []


@pytest.mark.full
def test_rows_13_and_41_a_bond_takes_both_families_of_its_primary_and_announces_them(net):
    one, two = pair(net)
    net.static(one.pif, ADDRESS)
    net.api.PIF.reconfigure_ipv6(one.pif, "Static", f"{PREFIX6}11/64", "", "")
    net.api.PIF.plug(one.pif)
    with wire.join(net.host.lab, "bond-a") as port, wire.join(net.host.lab, "bond-a", "test6") as port6:
        bond, master = net.bond([one.pif, two.pif], "active-backup")
        told = port.capture(lambda frame: is_announcement(frame, ADDRESS), deadline_s=120, count=TIMES)
        told += port6.capture(
            lambda frame: is_announcement6(frame, f"{PREFIX6}11"), deadline_s=120, count=TIMES
        )
        assert {frame.source for frame in told} == {one.mac}
    seen, bridge = look(net.host), net.bridge(master)
    assert seen.addresses(bridge) == {f"{ADDRESS}/{PREFIX}"}
    assert seen.addresses(bridge, "inet6") == {f"{PREFIX6}11/64"}
    assert net.record(master)["IPv6"] == [f"{PREFIX6}11/64"]
    net.api.Bond.destroy(bond)
    assert look(net.host).addresses(one.bridge, "inet6") == {f"{PREFIX6}11/64"}


# MTU and tags


@pytest.mark.full
def test_row_16_an_mtu_that_a_driver_does_not_take_is_refused_with_its_limit(odd_host):
    host = odd_host(e1000e={STORAGE})
    install.install(host)
    start(host)
    with opened(host) as net:
        nic = addressed(net)
        net.api.PIF.plug(nic.pif)
        before = look(host)
        limit = before.links[nic.name]["max_mtu"]
        assert JUMBO <= limit < TOO_LARGE
        net.api.network.set_MTU(nic.network, str(TOO_LARGE))
        done = up(net, nic.pif)
        assert done.code == FAILED, done.said
        assert f"is to have MTU {TOO_LARGE}, and {nic.name} takes at most {limit}" in done.said
        assert f"lower the network's MTU to {limit}" in done.said
        seen = look(host)
        assert_bridge(seen, nic.bridge, {nic.name}, mac=nic.mac)
        assert seen.addressed == before.addressed
        net.api.network.set_MTU(nic.network, str(JUMBO))
        assert up(net, nic.pif).code == DONE
        assert_bridge(look(host), nic.bridge, {nic.name}, mac=nic.mac, mtu=JUMBO)


@pytest.mark.full
def test_row_17_a_vlan_with_a_larger_mtu_than_what_it_lies_on_is_shown_as_a_chain(net):
    nic = net.nic(STORAGE)
    vlan = net.vlan(nic.pif, TAG)
    net.api.PIF.unplug(vlan)
    net.api.PIF.plug(nic.pif)
    net.api.network.set_MTU(net.record(vlan)["network"], str(JUMBO))
    done = up(net, vlan)
    assert done.code == FAILED, done.said
    assert f"is to have MTU {JUMBO}, and {nic.name}, on which it lies, has 1500" in done.said
    seen = look(net.host)
    assert seen.links[nic.name]["mtu"] == 1500
    assert all(link["mtu"] <= 1500 for name, link in seen.links.items() if seen.kind(name) == "vlan")


@pytest.mark.full
def test_row_19_a_path_that_carries_less_than_the_mtu_is_told(net):
    nic = net.nic(STORAGE)
    outer = "v-storage"
    with services.dhcp(net.host.lab, "storage", address=f"{DEAD_ADDRESS}/24"):
        network.batch(net.host.lab, [f"link set {outer} mtu 1500"])
        try:
            net.api.network.set_MTU(nic.network, str(JUMBO))
            net.api.PIF.add_to_other_config(nic.pif, "defaultroute", "true")
            net.static(nic.pif, ADDRESS, gateway=DEAD_ADDRESS)
            done = up(net, nic.pif)
            assert done.code == DEGRADED, done.said
            assert f"the way to the gateway {DEAD_ADDRESS} carries 1500 bytes, and the MTU of" in done.said
            assert look(net.host).links[nic.bridge]["mtu"] == JUMBO
            assert says(net, nic.pif, DEAD_ADDRESS, "1500")
        finally:
            network.batch(net.host.lab, [f"link set {outer} mtu {network.MTU}"])


@pytest.mark.full
def test_row_20_tags_on_the_wire_explain_why_nobody_answers(net):
    nic = net.nic(STORAGE)
    net.api.PIF.add_to_other_config(nic.pif, "defaultroute", "true")
    net.static(nic.pif, ADDRESS, gateway=DEAD_ADDRESS)
    net.api.PIF.plug(nic.pif)
    with wire.join(net.host.lab, "storage") as port, tagged_traffic(port, (10, 20)):
        assert says(net, nic.pif, "10, 20", "untagged")


@pytest.mark.full
def test_row_21_a_tag_that_another_program_has_is_refused_and_its_device_left_alone(net):
    nic = net.nic(STORAGE)
    net.host.exec(f"ip link add fcoe0 link {nic.name} type vlan id {TAG}")
    try:
        since = now_on(net)
        said = refusal(net.vlan, nic.pif, TAG)
        assert said == ["VLAN_IN_USE", nic.name, str(TAG)]
        await_logged(net, since, "VLAN.create", "fcoe0")
        seen = look(net.host)
        assert seen.settings("fcoe0")["id"] == TAG
        assert seen.master("fcoe0") == ""
    finally:
        net.host.exec("ip link delete fcoe0")
    # the same when the other program was faster than a VLAN that there is already
    vlan = net.vlan(nic.pif, TAG)
    net.api.PIF.unplug(vlan)
    net.host.exec(f"ip link add fcoe0 link {nic.name} type vlan id {TAG}")
    try:
        done = up(net, vlan)
        assert done.code == FAILED, done.said
        assert f"tag {TAG} on {nic.name} is taken by fcoe0, which is not ours" in done.said
        assert look(net.host).master("fcoe0") == ""
    finally:
        net.host.exec("ip link delete fcoe0")


@pytest.mark.full
def test_row_22_a_tag_that_is_there_already_is_refused_with_its_pif(net):
    nic = net.nic(STORAGE)
    vlan = net.vlan(nic.pif, TAG)
    since = now_on(net)
    assert refusal(net.vlan, nic.pif, TAG) == ["PIF_VLAN_EXISTS", nic.pif]
    used = net.record(vlan)["network"]
    label, uuid = net.api.network.get_name_label(used), net.api.network.get_uuid(used)
    await_logged(net, since, "VLAN.create", f"carries VLAN {TAG} already, for network '{label}'", uuid)
    assert len(net.api.VLAN.get_all()) == 1


@pytest.mark.full
def test_rows_23_and_55_a_chain_that_somebody_broke_is_seen_told_and_mended(net):
    nic = net.nic(STORAGE)
    vlan = net.vlan(nic.pif, TAG)
    net.static(nic.pif, ADDRESS)
    net.api.PIF.plug(nic.pif)
    device = assert_vlan(look(net.host), nic.name, TAG, net.bridge(vlan))

    net.host.exec(f"ip link set {nic.name} nomaster; ip link delete {device}")
    await_that(lambda: not net.attached(vlan), "the record says that the VLAN is not attached")
    await_that(lambda: not net.attached(nic.pif), "the record says that the PIF is not attached")
    assert says(net, nic.pif, f"{nic.name} is not a port of {nic.bridge}", "hostagent pif plug")
    assert says(net, vlan, "has no device")

    net.api.PIF.plug(nic.pif)
    net.api.PIF.plug(vlan)
    seen = look(net.host)
    assert_bridge(seen, nic.bridge, {nic.name}, mac=nic.mac)
    assert_vlan(seen, nic.name, TAG, net.bridge(vlan))
    assert (net.attached(nic.pif), net.attached(vlan)) == (True, True)


@pytest.mark.full
def test_row_18_the_mtu_of_a_live_chain_changes_in_place(net):
    nic = addressed(net)
    net.api.PIF.plug(nic.pif)
    before = look(net.host)
    net.api.network.set_MTU(nic.network, str(JUMBO))
    assert checked(net.host).code == DEGRADED
    assert says(net, nic.pif, "MTU 1500", str(JUMBO))
    assert up(net, nic.pif).code == DONE
    seen = look(net.host)
    assert (seen.links[nic.name]["mtu"], seen.links[nic.bridge]["mtu"]) == (JUMBO, JUMBO)
    assert seen.links[nic.bridge]["ifindex"] == before.links[nic.bridge]["ifindex"]
