"""Addresses, routes, MTUs and internal networks on the bridges of a host (networking.md 3): up, down, changed in place.

What the host then has is read with ip, bridge and /proc; what it does, from frames on the segment.
"""

from __future__ import annotations

import ipaddress
import re

import pytest
from nested_xen import faults, services

from tests.xen.net_look import assert_vlan, await_that, look
from tests.xen.net_operator import NETMASK, PREFIX, STATIC, opened, xe
from tests.xen.net_segment import (
    PREFIX6,
    is_announcement,
    is_dhcp_request,
    is_probe,
    is_router_advertisement,
    nobody_has,
    ping,
    ping_from_servers,
    router6,
)
from tests.xen.net_shapes import (
    ADDRESS,
    ANOTHER,
    JUMBO,
    JUMBO_PING,
    STORAGE,
    TAG,
    TESTER,
    addressed,
    pair,
    port_on,
    up_in_words,
)

pytestmark = [pytest.mark.destructive, pytest.mark.timeout(1800)]


# internal networks


@pytest.mark.full
def test_an_internal_network_has_a_bridge_and_no_way_out(net):
    ref = net.network("internal")
    bridge = net.api.network.get_bridge(ref)
    assert bridge not in look(net.host).links
    net.api.network.attach(ref, net.me)
    seen = look(net.host)
    assert seen.kind(bridge) == "bridge"
    assert seen.is_up(bridge)
    assert seen.uplinks(bridge) == set()
    assert seen.addresses(bridge) == seen.addresses(bridge, "inet6") == set()
    net.api.network.destroy(ref)
    assert bridge not in look(net.host).links


@pytest.mark.full
def test_the_network_of_guest_installers_has_its_address_when_it_is_first_attached(net):
    (ref,) = [
        ref
        for ref, record in net.api.network.get_all_records().items()
        if record["other_config"].get("is_guest_installer_network") == "true"
    ]
    net.api.network.attach(ref, net.me)
    seen = look(net.host)
    assert seen.uplinks("xenapi") == set()
    assert seen.addresses("xenapi") == {"169.254.0.1/16"}
    net.host.exec("ip link delete xenapi")  # no call takes it away


@pytest.mark.full
def test_a_guest_on_the_hosts_internal_network_gets_an_address_while_its_bridge_is_there(net):
    (ref,) = [
        ref
        for ref, record in net.api.network.get_all_records().items()
        if record["other_config"].get("is_host_internal_management_network") == "true"
    ]
    unit = "hostagent-leases-xenapi.service"
    pid = f"systemctl show {unit} -p MainPID --value"
    net.api.network.attach(ref, net.me)
    first = net.host.exec(pid).stdout.strip()
    assert first not in ("", "0")
    net.api.network.attach(ref, net.me)
    assert net.host.exec(pid).stdout.strip() == first

    net.host.exec(
        "ip netns add guest; ip link add guest0 type veth peer name eth0 netns guest;"
        " ip link set guest0 master xenapi up; ip -n guest link set eth0 up"
    )
    try:
        mac = net.host.exec("ip -n guest -br link show eth0").stdout.split()[2]
        asked = "ip netns exec guest busybox udhcpc -f -q -n -t 10 -i eth0 -s /bin/true 2>&1"
        told = net.host.exec(asked).stdout
        leased = re.search(r"lease of (169\.254\.\d+\.\d+) obtained", told)
        assert leased, told
        given = net.host.exec("cat /var/lib/hostagent/net/served/xenapi.leases").stdout
        assert f" {mac} {leased[1]} " in given
        listening = net.host.exec("ss -Hlun 'sport = :67'").stdout.splitlines()
        assert [line for line in listening if "%xenapi:67" in line]
        assert not [line for line in listening if "%" not in line]
    finally:
        net.host.exec("ip netns delete guest", check=False)

    net.host.exec("ip link delete xenapi")
    net.api.network.attach(ref, net.me)  # at once: what is still heard of the former bridge ends nothing
    net.host.exec("udevadm settle; sleep 3")
    again = net.host.exec(pid).stdout.strip()
    assert again not in ("", "0", first)

    net.host.exec("ip link delete xenapi")
    await_that(
        lambda: net.host.exec(f"systemctl is-active {unit}", check=False).code != 0,
        "the server ends with its bridge",
    )
    assert net.host.exec("pgrep -f [s]erved/xenapi", check=False).stdout == ""


# addresses


@pytest.mark.full
def test_dhcp_gives_an_address_that_outlives_the_agent_and_static_replaces_it(clean_host):
    host = clean_host
    router = ["option:router,198.51.100.1"]
    with services.dhcp(host.lab, "storage", lease_s=600, options=router) as server, opened(host) as net:
        nic = net.nic(STORAGE)
        with port_on(net, "storage") as port:
            net.api.PIF.reconfigure_ip(nic.pif, "DHCP", "", "", "", "")
            xe(host, "pif-plug", f"uuid={nic.uuid}")
            port.capture(lambda frame: is_dhcp_request(frame, nic.mac), deadline_s=120)
            await_that(lambda: look(host).addresses(nic.bridge), "an address by DHCP")
            [lease] = server.leases()
            assert lease.mac == nic.mac
            assert look(host).addresses(nic.bridge) == {f"{lease.address}/{PREFIX}"}
            await_that(lambda: net.record(nic.pif)["IP"] == lease.address, "the record has the address")
            assert net.record(nic.pif)["netmask"] == NETMASK
            ping(port, lease.address, sender=TESTER)

    client = f"systemctl show hostagent-dhcp-{nic.bridge} -p MainPID --value"
    pid = host.exec(client).stdout
    faults.kill_daemon(host, "hostagent.service")
    assert host.exec(client).stdout == pid != "0\n"
    assert look(host).addresses(nic.bridge) == {f"{lease.address}/{PREFIX}"}
    alive = "hostagent status --json >/dev/null"
    await_that(lambda: host.exec(alive, check=False).code == 0, "the agent is back", deadline_s=240)

    with opened(host) as net:
        net.static(nic.pif, lease.address)
    seen = look(host)
    assert seen.addresses(nic.bridge) == {f"{lease.address}/{PREFIX}"}
    # the same address, now without the end of its lease
    assert "dynamic" not in seen.address(nic.bridge, lease.address)
    assert seen.address(nic.bridge, lease.address)["valid_life_time"] == 0xFFFFFFFF
    assert host.exec(f"systemctl is-active hostagent-dhcp-{nic.bridge}", check=False).code != 0


@pytest.mark.full
def test_an_address_changes_in_place_is_probed_first_and_announced(net):
    nic = addressed(net)
    net.api.PIF.plug(nic.pif)
    before, downs = look(net.host), f"cat /sys/class/net/{nic.name}/carrier_down_count"
    was_down = net.host.exec(downs).stdout
    with port_on(net, "storage") as port:
        net.static(nic.pif, ANOTHER)
        port.capture(lambda frame: is_probe(frame, ANOTHER), deadline_s=60)
        port.capture(lambda frame: is_announcement(frame, ANOTHER), deadline_s=60)
        ping(port, ANOTHER, sender=TESTER)
        nobody_has(port, ADDRESS, sender=TESTER)
    after = look(net.host)
    assert after.addresses(nic.bridge) == {f"{ANOTHER}/{PREFIX}"}
    for name in (nic.name, nic.bridge):
        assert after.links[name]["ifindex"] == before.links[name]["ifindex"]
    assert net.host.exec(downs).stdout == was_down
    net.no_address(nic.pif)
    assert look(net.host).addresses(nic.bridge) == set()


@pytest.mark.full
def test_static_routes_are_ours_and_go_when_their_key_goes(net):
    nic = addressed(net)
    net.api.PIF.plug(nic.pif)
    routes = f"10.20.0.0/16/{STATIC.format(1)},10.30.0.0/24/{STATIC.format(2)}"
    net.api.network.add_to_other_config(nic.network, "static-routes", routes)
    try:
        net.api.PIF.plug(nic.pif)
        assert look(net.host).routes(nic.bridge) == {
            ("10.20.0.0/16", STATIC.format(1)),
            ("10.30.0.0/24", STATIC.format(2)),
        }
    finally:
        net.api.network.remove_from_other_config(nic.network, "static-routes")
    net.api.PIF.plug(nic.pif)
    assert look(net.host).routes(nic.bridge) == set()

    net.api.network.add_to_other_config(nic.network, "static-routes", routes)
    try:
        net.api.PIF.plug(nic.pif)
        assert len(look(net.host).routes(nic.bridge)) == 2
    finally:
        net.api.network.remove_from_other_config(nic.network, "static-routes")
    assert "removed: 2 routes" in up_in_words(net, nic.pif)
    assert look(net.host).routes(nic.bridge) == set()


@pytest.mark.full
def test_ipv6_is_static_or_configures_itself_from_advertisements_or_is_off(net):
    nic = net.nic(STORAGE)
    net.api.PIF.reconfigure_ipv6(nic.pif, "Static", f"{PREFIX6}11/64", "", "")
    net.api.PIF.plug(nic.pif)
    with router6(net.host.lab, "storage", leases=False), port_on(net, "storage") as port:
        ping_from_servers(net.host.lab, "storage", f"{PREFIX6}11")
        # a static one takes no other address from the router; the first was taken in when the second comes
        port.capture(is_router_advertisement, deadline_s=120, count=2)
        assert look(net.host).addresses(nic.bridge, "inet6") == {f"{PREFIX6}11/64"}

        net.api.PIF.reconfigure_ipv6(nic.pif, "Autoconf", "", "", "")
        await_that(lambda: look(net.host).addresses(nic.bridge, "inet6"), "an address by autoconfiguration")
        [own] = look(net.host).addresses(nic.bridge, "inet6")
        assert ipaddress.ip_interface(own).network == ipaddress.ip_network(f"{PREFIX6}/64")
        assert own != f"{PREFIX6}11/64"
        ping_from_servers(net.host.lab, "storage", own.partition("/")[0])
        await_that(lambda: net.record(nic.pif)["IPv6"] == [own], "the record has the address")

        net.api.PIF.reconfigure_ipv6(nic.pif, "None", "", "", "")
        assert look(net.host).addresses(nic.bridge, "inet6") == set()
    assert net.host.exec(f"cat /proc/sys/net/ipv6/conf/{nic.name}/disable_ipv6").stdout == "1\n"


@pytest.mark.full
def test_ipv6_comes_from_a_dhcp_server(net):
    nic = net.nic(STORAGE)
    with router6(net.host.lab, "storage", leases=True) as leases:
        net.api.PIF.reconfigure_ipv6(nic.pif, "DHCP", "", "", "")
        net.api.PIF.plug(nic.pif)
        await_that(lambda: look(net.host).addresses(nic.bridge, "inet6"), "an address by DHCPv6")
        [own] = look(net.host).addresses(nic.bridge, "inet6")
        address = own.partition("/")[0]
        assert address in leases.read_text()
        ping_from_servers(net.host.lab, "storage", address)


# MTU


@pytest.mark.full
def test_jumbo_frames_pass_a_chain_whose_mtu_grows_from_the_bottom(net):
    nic = addressed(net)
    vlan = net.vlan(nic.pif, TAG)
    net.static(vlan, "203.0.113.11")
    net.api.PIF.plug(nic.pif)
    net.api.PIF.plug(vlan)
    for ref in (nic.network, net.record(vlan)["network"]):
        net.api.network.set_MTU(ref, str(JUMBO))
    net.api.PIF.plug(nic.pif)
    net.api.PIF.plug(vlan)
    seen = look(net.host)
    device = assert_vlan(seen, nic.name, TAG, net.bridge(vlan))
    chain = (nic.name, nic.bridge, device, net.bridge(vlan))
    assert {name: seen.links[name]["mtu"] for name in chain} == dict.fromkeys(chain, JUMBO)
    assert (net.record(nic.pif)["MTU"], net.record(vlan)["MTU"]) == (str(JUMBO), str(JUMBO))
    with port_on(net, "storage") as port:
        ping(port, ADDRESS, sender=TESTER, size=JUMBO_PING)
        # the tag comes on top of the wire's 9000 bytes: a segment's own devices carry so much less below it
        ping(port, "203.0.113.11", sender="203.0.113.200", tag=TAG, size=JUMBO_PING - 4)

    net.api.network.set_MTU(nic.network, "1500")
    net.api.network.set_MTU(net.record(vlan)["network"], "1500")
    net.api.PIF.plug(vlan)
    net.api.PIF.plug(nic.pif)
    seen = look(net.host)
    assert {name: seen.links[name]["mtu"] for name in chain} == dict.fromkeys(chain, 1500)


@pytest.mark.full
def test_jumbo_frames_pass_a_bond_and_a_vlan_on_it(net, two_cables):
    one, two = pair(net)
    _, master = net.bond([one.pif, two.pif], "active-backup", mtu=JUMBO)
    net.static(master, ADDRESS)
    vlan = net.vlan(master, TAG, mtu=JUMBO)
    net.static(vlan, "203.0.113.11")
    net.api.PIF.plug(vlan)
    seen = look(net.host)
    device = net.record(master)["device"]
    chain = {one.name, two.name, device, net.bridge(master), net.bridge(vlan)}
    chain.add(assert_vlan(seen, device, TAG, net.bridge(vlan)))
    assert {seen.links[name]["mtu"] for name in chain} == {JUMBO}
    with port_on(net, "bond-a") as port:
        ping(port, ADDRESS, sender=TESTER, size=JUMBO_PING)
        ping(port, "203.0.113.11", sender="203.0.113.200", tag=TAG, size=JUMBO_PING - 4)
