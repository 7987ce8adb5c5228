"""The failure catalogue of networking.md 5: each row that a lab can produce, with what is detected, printed and done.

A test's name begins with its row. Rows with a test elsewhere, and those that no lab produces, are in
docs/network-failures.md.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from nested_xen import faults, network, services, wire
from nested_xen.frames import Ethernet, EtherType, Lacpdu, LacpEnd

from tests.xen.agent import power_on, start
from tests.xen.net_look import assert_bridge, assert_vlan, await_that, bonding, look
from tests.xen.net_moves import adopt, assert_reachable, assert_whole
from tests.xen.net_operator import (
    DEGRADED,
    DONE,
    FAILED,
    PREFIX,
    STATIC,
    USAGE,
    checked,
    clean,
    opened,
    reconfigure,
    refusal,
    run,
)
from tests.xen.net_segment import (
    IN_USE,
    PARTNER,
    PREFIX6,
    SERVER6,
    Background,
    holder,
    is_announcement,
    is_dhcp_request,
    lacp_partner,
    ping,
    router6,
)

if TYPE_CHECKING:
    import threading

pytestmark = [pytest.mark.destructive, pytest.mark.timeout(1800)]

STORAGE, BOND_A, BOND_B = 1, 2, 3
ADDRESS, TESTER = STATIC.format(11), STATIC.format(200)
TAG = 5
JUMBO = 9000
ANOTHER_SWITCH = "02:00:00:00:00:bb"
LACP_S = 240
DHCP_S = 25
DEAD_ADDRESS = STATIC.format(1)


@pytest.fixture
def clean_host(xen_host):
    clean(xen_host)
    yield xen_host
    clean(xen_host)


@pytest.fixture
def net(clean_host):
    with opened(clean_host) as made:
        yield made


def explained(net, pif):
    """What `hostagent pif explain` finds: its sentences with their evidence, and the commands it offers."""
    answer = run(net.host, "hostagent", "pif", "explain", net.api.PIF.get_uuid(pif), "--json")
    assert answer.code == DONE, answer.said
    return [(each["found"], " ".join(each["evidence"]), each["command"]) for each in answer.value["reasons"]]


def says(net, pif, *words):
    """Does one reason hold all of the words?"""
    return any(all(word in " ".join(reason) for word in words) for reason in explained(net, pif))


def up(net, pif, *options):
    return reconfigure(net.host, "--pif-uuid", net.api.PIF.get_uuid(pif), *options, "up")


def pair(net):
    return net.nic(BOND_A), net.nic(BOND_B)


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
def test_row_9_a_bond_property_that_cannot_be_had_is_told(net):
    one, two = pair(net)
    _, master = net.bond([one.pif, two.pif], "lacp")
    net.api.PIF.add_to_other_config(master, "bond-hashing-algorithm", "nonsense")
    done = up(net, master)
    assert done.code == DEGRADED, done.said
    assert "hashing-algorithm" in done.said
    own, _ = bonding(net.host, net.record(master)["device"])
    assert own["Transmit Hash Policy"].startswith("layer3+4")


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


def test_row_12_a_bond_of_two_pifs_with_addresses_is_refused(net):
    one, two = pair(net)
    net.static(one.pif, ADDRESS)
    net.static(two.pif, "203.0.113.11")
    assert refusal(net.bond, [one.pif, two.pif], "active-backup")[0] == "PIF_BOND_MORE_THAN_ONE_IP"
    assert net.api.Bond.get_all() == []


@pytest.mark.full
def test_rows_13_and_41_a_bond_takes_both_families_of_its_primary_and_announces_them(net):
    one, two = pair(net)
    net.static(one.pif, ADDRESS)
    net.api.PIF.reconfigure_ipv6(one.pif, "Static", f"{PREFIX6}11/64", "", "")
    net.api.PIF.plug(one.pif)
    with wire.join(net.host.lab, "bond-a") as port:
        bond, master = net.bond([one.pif, two.pif], "active-backup")
        port.capture(lambda frame: is_announcement(frame, ADDRESS), deadline_s=120)
    seen, bridge = look(net.host), net.bridge(master)
    assert seen.addresses(bridge) == {f"{ADDRESS}/{PREFIX}"}
    assert seen.addresses(bridge, "inet6") == {f"{PREFIX6}11/64"}
    assert net.record(master)["IPv6"] == [f"{PREFIX6}11/64"]
    net.api.Bond.destroy(bond)
    assert look(net.host).addresses(one.bridge, "inet6") == {f"{PREFIX6}11/64"}


# MTU and tags


@pytest.mark.full
def test_row_17_a_vlan_with_a_larger_mtu_than_what_it_lies_on_is_shown_as_a_chain(net):
    nic = net.nic(STORAGE)
    vlan = net.vlan(nic.pif, TAG)
    net.api.PIF.unplug(vlan)
    net.api.PIF.plug(nic.pif)
    net.api.network.set_MTU(net.record(vlan)["network"], str(JUMBO))
    done = up(net, vlan)
    assert done.code in (FAILED, DEGRADED), done.said
    assert "1500" in done.said
    assert str(JUMBO) in done.said
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
            assert done.code in (DONE, DEGRADED), done.said
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
        said = refusal(net.vlan, nic.pif, TAG)
        assert said == ["VLAN_IN_USE", nic.name, str(TAG)]
        seen = look(net.host)
        assert seen.settings("fcoe0")["id"] == TAG
        assert seen.master("fcoe0") == ""
    finally:
        net.host.exec("ip link delete fcoe0")


@pytest.mark.full
def test_row_22_a_tag_that_is_there_already_is_refused_with_its_pif(net):
    nic = net.nic(STORAGE)
    net.vlan(nic.pif, TAG)
    assert refusal(net.vlan, nic.pif, TAG) == ["PIF_VLAN_EXISTS", nic.pif]
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


# NICs and scans


@pytest.mark.full
def test_row_33_scans_at_the_same_time_make_one_pif_of_a_nic(net):
    nic = net.nic(STORAGE)
    net.api.PIF.forget(nic.pif)

    uuid = net.api.host.get_uuid(net.me)
    with ThreadPoolExecutor(8) as scans:
        done = scans.map(lambda _: run(net.host, "hostagent-xe", "pif-scan", f"host-uuid={uuid}"), range(8))
        assert [one.code for one in done] == [DONE] * 8
    assert net.nic(STORAGE).bridge == nic.bridge  # `nic` finds exactly one


@pytest.mark.full
def test_row_63_a_nic_gets_one_pif_however_often_it_is_introduced(net):
    nic = net.nic(STORAGE)
    said = refusal(net.api.PIF.introduce, net.me, nic.mac, nic.name, True)  # noqa: FBT003 - as the call has it
    assert said[0] == "DUPLICATE_PIF_DEVICE_NAME"
    assert net.nic(STORAGE).pif == nic.pif


@pytest.mark.full
def test_row_56_plugs_at_the_same_time_all_succeed(net):
    nic = net.nic(STORAGE)
    vlans = [net.vlan(nic.pif, tag) for tag in range(10, 26)]
    for pif in vlans:
        net.api.PIF.unplug(pif)
    uuids = [net.api.PIF.get_uuid(pif) for pif in vlans]
    with ThreadPoolExecutor(8) as plugs:
        done = list(plugs.map(lambda uuid: reconfigure(net.host, "--pif-uuid", uuid, "up"), uuids))
    assert [one.code for one in done] == [DONE] * len(uuids), [one.said for one in done]
    seen = look(net.host)
    for tag, pif in enumerate(vlans, 10):
        assert_vlan(seen, nic.name, tag, net.bridge(pif))


@pytest.mark.full
def test_row_57_a_nic_without_a_cable_comes_up_with_less_and_the_nic_is_named(net):
    nic = net.nic(STORAGE)
    net.static(nic.pif, ADDRESS)
    net.host.exec(f"ip link set {nic.name} up")
    with faults.no_carrier(net.host, STORAGE):
        done = up(net, nic.pif)
        assert done.code == DEGRADED, done.said
        assert f"no carrier on {nic.name}" in done.said
        assert says(net, nic.pif, f"no carrier on {nic.name}", "ethtool")
        metrics = net.record(nic.pif)["metrics"]
        await_that(lambda: not net.api.PIF_metrics.get_carrier(metrics), "the record says no carrier")
    await_that(lambda: net.api.PIF_metrics.get_carrier(metrics), "the record says carrier")
    with wire.join(net.host.lab, "storage") as port:
        ping(port, ADDRESS, sender=TESTER)


# addresses


@pytest.mark.full
def test_row_34_a_dhcp_client_that_was_killed_comes_back(net):
    nic = net.nic(STORAGE)
    with services.dhcp(net.host.lab, "storage"):
        net.api.PIF.reconfigure_ip(nic.pif, "DHCP", "", "", "", "")
        net.api.PIF.plug(nic.pif)
        await_that(lambda: look(net.host).addresses(nic.bridge), "an address by DHCP")
        held = look(net.host).addresses(nic.bridge)
        unit = f"hostagent-dhcp-{nic.bridge}.service"
        faults.kill_daemon(net.host, unit)
        done = up(net, nic.pif)
        assert done.code == DONE, done.said
        await_that(
            lambda: net.host.exec(f"systemctl is-active {unit}", check=False).stdout == "active\n", "a client"
        )
        await_that(lambda: look(net.host).addresses(nic.bridge) == held, "the same address")


@pytest.mark.full
def test_row_35_a_dhcp_client_of_somebody_else_is_named_and_lives(net):
    nic = net.nic(STORAGE)
    with services.dhcp(net.host.lab, "storage"):
        net.host.exec(
            f"systemd-run --quiet --unit others dhcpcd -4 -B --nohook resolv.conf --noipv4ll {nic.name}"
        )
        pid = net.host.exec("systemctl show others -p MainPID --value").stdout.strip()
        try:
            await_that(lambda: look(net.host).addresses(nic.name), "the other client has its address")
            net.api.PIF.reconfigure_ip(nic.pif, "DHCP", "", "", "", "")
            done = up(net, nic.pif)
            assert done.code in (FAILED, DEGRADED), done.said
            assert "dhcpcd" in done.said or pid in done.said
            assert net.host.exec(f"kill -0 {pid}", check=False).code == 0
        finally:
            net.host.exec(f"systemctl stop others; ip address flush dev {nic.name}")


@pytest.mark.full
def test_row_36_without_a_dhcp_server_the_plug_ends_and_the_client_goes_on_trying(net):
    nic = net.nic(STORAGE)
    net.api.PIF.reconfigure_ip(nic.pif, "DHCP", "", "", "", "")
    done = up(net, nic.pif, f"--timeout={DHCP_S}")
    assert done.code == DEGRADED, done.said
    assert re.search(rf"no DHCP answer on {nic.bridge} after \d+ s", done.said)
    assert net.attached(nic.pif)
    assert says(net, nic.pif, "no DHCP address", "discovers")
    other = net.nic(BOND_A)
    assert up(net, other.pif).code == DONE  # nobody waits for it
    with services.dhcp(net.host.lab, "storage") as server:
        await_that(lambda: look(net.host).addresses(nic.bridge), "an address by DHCP", deadline_s=240)
        [lease] = server.leases()
        assert look(net.host).addresses(nic.bridge) == {f"{lease.address}/{PREFIX}"}


@pytest.mark.full
def test_rows_2_and_37_two_pifs_in_one_subnet_are_both_named(net):
    one, two = pair(net)
    net.static(one.pif, ADDRESS)
    net.api.PIF.plug(one.pif)
    net.static(two.pif, STATIC.format(12))
    done = up(net, two.pif)
    assert done.code == DEGRADED, done.said
    assert ADDRESS in done.said
    assert STATIC.format(12) in done.said
    assert look(net.host).gateways(two.bridge) == []


@pytest.mark.full
def test_row_39_bringing_up_what_is_up_sends_no_event_and_breaks_no_mount(net):
    nic = net.nic(STORAGE)
    net.static(nic.pif, ADDRESS)
    net.api.PIF.plug(nic.pif)
    with services.nfs(net.host.lab, "storage") as server:
        net.host.exec(
            f"mkdir -p /mnt/nfs && mount -t nfs -o vers=4.2,hard,timeo=50 {server.source()} /mnt/nfs;"
            " systemd-run --quiet --unit monitor sh -c 'exec ip monitor link address route >/run/monitor.txt'"
        )
        try:
            for _ in range(5):
                assert up(net, nic.pif).code == DONE
                net.api.PIF.plug(nic.pif)
                net.host.exec("echo still here >/mnt/nfs/file && sync -f /mnt/nfs")
            assert net.host.exec("cat /run/monitor.txt").stdout == ""
            assert (server.export / "file").read_text() == "still here\n"
        finally:
            net.host.exec("systemctl stop monitor; umount -l /mnt/nfs")


def test_row_40_an_address_that_another_host_has_is_refused_with_its_mac(net):
    nic = net.nic(STORAGE)
    net.api.PIF.plug(nic.pif)
    with wire.join(net.host.lab, "storage") as port, holder(port, ADDRESS):
        said = refusal(net.static, nic.pif, ADDRESS)
        assert said[0] == "PIF_CONFIGURATION_ERROR"
        assert port.mac in " ".join(said)
        assert look(net.host).addresses(nic.bridge) == set()
    net.static(nic.pif, ADDRESS)
    assert look(net.host).addresses(nic.bridge) == {f"{ADDRESS}/{PREFIX}"}


@pytest.mark.full
def test_row_40_an_ipv6_address_that_another_host_has_is_told(net):
    nic = net.nic(STORAGE)
    net.api.PIF.plug(nic.pif)
    with router6(net.host.lab, "storage", leases=False):
        said = refusal(net.api.PIF.reconfigure_ipv6, nic.pif, "Static", f"{SERVER6}/64", "", "")
        assert said[0] == "PIF_CONFIGURATION_ERROR"
        assert SERVER6 in " ".join(said)
        assert look(net.host).addresses(nic.bridge, "inet6") == set()


@pytest.mark.full
def test_row_42_a_resolver_that_works_is_not_emptied(net):
    nic = net.nic(STORAGE)
    net.api.PIF.add_to_other_config(nic.pif, "peerdns", "true")
    net.static(nic.pif, ADDRESS, dns=f"{DEAD_ADDRESS},{STATIC.format(2)}")
    net.api.PIF.plug(nic.pif)
    servers = f"nameserver {DEAD_ADDRESS}\nnameserver {STATIC.format(2)}\n"
    assert net.host.exec("grep ^nameserver /etc/resolv.conf").stdout == servers
    net.api.PIF.reconfigure_ipv6(nic.pif, "Static", f"{PREFIX6}11/64", "", "")
    net.static(nic.pif, ADDRESS, dns="")
    assert net.host.exec("grep ^nameserver /etc/resolv.conf").stdout == servers


@pytest.mark.full
def test_row_43_mode_none_asks_no_server(net):
    nic = net.nic(STORAGE)
    with services.dhcp(net.host.lab, "storage") as server, wire.join(net.host.lab, "storage") as port:
        assert up(net, nic.pif).code == DONE
        port.expect_none(lambda frame: is_dhcp_request(frame, nic.mac), during_s=15)
        assert server.leases() == []
    assert look(net.host).addresses(nic.bridge) == set()
    words = ("--force", nic.bridge, "rewrite", f"--device={nic.name}", f"--mac={nic.mac}", "--mode=none")
    assert reconfigure(net.host, *words).code == USAGE


@pytest.mark.full
def test_row_44_a_typing_error_in_a_static_route_is_refused_with_its_place(net):
    ref = net.nic(STORAGE).network
    routes = f"10.20.0.0/16/{DEAD_ADDRESS},10.30.0.0/33/{DEAD_ADDRESS}"
    said = " ".join(refusal(net.api.network.add_to_other_config, ref, "static-routes", routes))
    assert "static-routes" in said
    assert "element 2" in said
    assert "static-routes" not in net.api.network.get_other_config(ref)


def test_row_46_a_nic_that_networkd_configures_is_refused_with_the_line_that_frees_it(net):
    nic = net.nic(STORAGE)
    file = "/etc/systemd/network/10-others.network"
    net.host.exec(
        f"printf '[Match]\\nName={nic.name}\\n[Network]\\nAddress={ADDRESS}/24\\n' >{file}; networkctl reload"
    )
    try:
        await_that(lambda: look(net.host).addresses(nic.name), "networkd has configured the NIC")
        done = up(net, nic.pif)
        assert done.code == FAILED, done.said
        assert "systemd-networkd" in done.said
        assert nic.name in done.said
        seen = look(net.host)
        assert seen.addresses(nic.name) == {f"{ADDRESS}/24"}
        assert seen.master(nic.name) == ""
    finally:
        net.host.exec(f"rm {file}; networkctl reload; ip address flush dev {nic.name}")


@pytest.mark.full
def test_row_49_a_packet_filter_on_bridges_is_told(net):
    nic = net.nic(STORAGE)
    net.host.exec("modprobe br_netfilter; sysctl -qw net.bridge.bridge-nf-call-iptables=1")
    try:
        done = up(net, nic.pif)
        assert done.code == DEGRADED, done.said
        assert "bridge-nf-call-iptables" in done.said
    finally:
        net.host.exec("sysctl -qw net.bridge.bridge-nf-call-iptables=0; modprobe -r br_netfilter")


# the agent's own view, files, the kernel


@pytest.mark.full
def test_row_60_after_a_flood_of_events_nothing_has_vanished(net):
    nic = net.nic(STORAGE)
    net.static(nic.pif, ADDRESS)
    net.api.PIF.plug(nic.pif)
    churn = """
pid=$(systemctl show hostagent -p MainPID --value); kill -STOP $pid
for round in $(seq 20); do
    for n in $(seq 500); do echo "link add flood$n type dummy"; done | ip -batch -
    for n in $(seq 500); do echo "link delete flood$n"; done | ip -batch -
done
kill -CONT $pid
"""
    net.host.exec(churn, timeout_s=900)
    assert net.attached(nic.pif)
    # it still hears what comes after the flood
    net.host.exec(f"ip link set {nic.name} nomaster")
    await_that(lambda: not net.attached(nic.pif), "a later event is heard")
    assert checked(net.host).code == DEGRADED


@pytest.mark.full
def test_row_61_a_change_is_there_after_a_power_cut_right_behind_it(take_hosts):
    (host,) = take_hosts(1, "installed")
    with opened(host) as net:
        nic = net.nic(STORAGE)
        net.static(nic.pif, ADDRESS)
        net.api.PIF.plug(nic.pif)
        net.static(nic.pif, STATIC.format(12))
    host.power_off()
    host.boot()
    power_on(host)
    assert look(host).addresses(nic.bridge) == {f"{STATIC.format(12)}/{PREFIX}"}
    clean(host)


@pytest.mark.full
def test_row_61_a_damaged_cache_is_set_aside_and_the_verified_one_used(xen_host):
    adopt(xen_host)
    xen_host.exec(
        "systemctl stop hostagent; cd /var/lib/hostagent/net;"
        " test -s cache-verified.json; head -c 300 /dev/urandom >cache.json"
    )
    done = reconfigure(xen_host, "--force", "xenbr0", "--management", "up")
    assert done.code == DONE, done.said
    assert "generation" in done.said
    assert xen_host.exec("ls /var/lib/hostagent/net").stdout.count(".damaged") == 1
    start(xen_host)
    assert_whole(xen_host)


@pytest.mark.full
def test_row_62_a_stale_management_entry_is_told_and_nothing_is_cut(xen_host):
    adopt(xen_host)
    began = start(
        xen_host,
        before="sed -i \"s/^MANAGEMENT_INTERFACE=.*/MANAGEMENT_INTERFACE='xenbr9'/\" /etc/hostagent/inventory",
    )
    assert_reachable(xen_host)
    assert "xenbr9" in str(began.report)
    assert "xenbr0" in str(began.troubles)
    with opened(xen_host) as net:
        net.api.host.management_reconfigure(net.nic(0).pif)
    assert_whole(xen_host)


@pytest.mark.full
def test_row_68_a_missing_kernel_module_is_named(net):
    one, two = pair(net)
    block = "/etc/modprobe.d/no-bonding.conf"
    net.host.exec(f"modprobe -r bonding; echo 'install bonding /bin/false' >{block}")
    try:
        said = " ".join(refusal(net.bond, [one.pif, two.pif], "active-backup"))
        assert "bonding" in said
        assert net.api.Bond.get_all() == []
    finally:
        net.host.exec(f"rm {block}; modprobe bonding; ip link delete bond0 2>/dev/null; :")


@pytest.mark.full
def test_row_18_the_mtu_of_a_live_chain_changes_in_place(net):
    nic = net.nic(STORAGE)
    net.static(nic.pif, ADDRESS)
    net.api.PIF.plug(nic.pif)
    before = look(net.host)
    net.api.network.set_MTU(nic.network, str(JUMBO))
    assert checked(net.host).code == DEGRADED
    assert says(net, nic.pif, "MTU 1500", str(JUMBO))
    assert up(net, nic.pif).code == DONE
    seen = look(net.host)
    assert (seen.links[nic.name]["mtu"], seen.links[nic.bridge]["mtu"]) == (JUMBO, JUMBO)
    assert seen.links[nic.bridge]["ifindex"] == before.links[nic.bridge]["ifindex"]


@pytest.mark.full
def test_drift_is_found_and_reported(net):
    nic = net.nic(STORAGE)
    net.static(nic.pif, ADDRESS)
    net.api.PIF.plug(nic.pif)
    assert checked(net.host).code == DONE
    net.host.exec(
        f"ip link set {nic.bridge} type bridge forward_delay 1500; ip address add 10.9.9.9/24 dev {nic.bridge}"
    )
    found = checked(net.host)
    assert found.code == DEGRADED
    assert {(one["device"], one["what"]) for one in found.value["differences"]} >= {
        (nic.bridge, "forward_delay"),
        (nic.bridge, "address"),
    }
    assert up(net, nic.pif).code == DONE
    assert checked(net.host).code == DONE
    assert look(net.host).addresses(nic.bridge) == {f"{ADDRESS}/{PREFIX}"}
