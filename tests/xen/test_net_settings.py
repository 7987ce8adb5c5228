"""What an operator sets in records of the network reaches the host, and what comes to be otherwise is mended: judged by
ip, ethtool, ss and frames, not by us.
"""

from __future__ import annotations

import re
import shlex

import pytest
from nested_xen import install, machine, services, wire

from tests.xen.agent import start
from tests.xen.net_look import assert_bridge, assert_vlan, await_that, bonding, console, look
from tests.xen.net_moves import MANAGEMENT, adopt, assert_reachable, assert_whole
from tests.xen.net_operator import DONE, PREFIX, STATIC, checked, opened, refusal
from tests.xen.net_segment import PREFIX6, ping, ping_from_servers, router6
from tests.xen.net_shapes import ADDRESS, BOND_A, BOND_B, STORAGE, TAG, TESTER, addressed, says, up
from tests.xen.nics import nic_name

pytestmark = [pytest.mark.destructive, pytest.mark.timeout(1800)]

GATEWAY, SERVER = STATIC.format(1), STATIC.format(2)
SUBNETS = {"storage": "198.51.100.", "bond-a": "203.0.113."}
STAYS = MANAGED = True
"""Parameters of PIF.set_disallow_unplug and PIF.introduce."""
CLEAN_BRIDGES = """\
from hostagent.cli.db import own
from hostagent.config import Paths, load
from hostagent.startup import network
from hostagent.startup.state import HostState
from hostagent.startup.steps_networks import clean_bridges
from hostagent.xen import inventory

config, _ = load(Paths())
with own(config.paths) as database:
    state = HostState(inventory=inventory.read(config.paths.inventory), database=database)
    print(*clean_bridges(network.control_of(config, state), network.look(config)))
"""
"""The periodic job of S42, once; it comes every 90 minutes by itself."""


@pytest.fixture
def ours(clean_host):
    """A host whose management interface is hostagent's."""
    adopt(clean_host)
    return clean_host


# XenAPI calls


@pytest.mark.full
def test_a_pif_is_forgotten_and_introduced_and_stays_plugged_where_it_is_to(net):
    nic = addressed(net)
    net.api.PIF.plug(nic.pif)
    net.api.PIF.set_disallow_unplug(nic.pif, STAYS)
    assert refusal(net.api.PIF.unplug, nic.pif) == ["PIF_DOES_NOT_ALLOW_UNPLUG", nic.pif]
    assert refusal(net.api.PIF.forget, nic.pif)[0] == "PIF_DOES_NOT_ALLOW_UNPLUG"
    assert_bridge(look(net.host), nic.bridge, {nic.name}, mac=nic.mac)
    net.api.PIF.set_disallow_unplug(nic.pif, not STAYS)

    net.api.PIF.forget(nic.pif)
    seen = look(net.host)
    assert nic.bridge not in seen.links
    assert seen.master(nic.name) == ""
    assert nic.mac not in {record["MAC"] for record in net.api.PIF.get_all_records().values()}
    wrong = refusal(net.api.PIF.introduce, net.me, "02:00:00:00:0f:ff", nic.name, MANAGED)
    assert wrong[0] == "COULD_NOT_FIND_NETWORK_INTERFACE_WITH_SPECIFIED_DEVICE_NAME_AND_MAC_ADDRESS"
    net.api.PIF.introduce(net.me, nic.mac, nic.name, MANAGED)
    again = net.nic(STORAGE)
    assert again.name == nic.name
    assert (
        refusal(net.api.PIF.introduce, net.me, nic.mac, nic.name, MANAGED)[0] == "DUPLICATE_PIF_DEVICE_NAME"
    )
    net.static(again.pif, ADDRESS)
    net.api.PIF.plug(again.pif)
    with wire.join(net.host.lab, "storage") as port:
        ping(port, ADDRESS, sender=TESTER)


@pytest.mark.full
def test_a_vlan_by_the_pool_a_purpose_and_the_refusal_outside_of_emergency(net):
    nic = net.nic(STORAGE)
    network = net.network("by the pool")
    (pif,) = net.api.pool.create_VLAN_from_PIF(nic.pif, network, str(TAG))
    assert_vlan(look(net.host), nic.name, TAG, net.bridge(pif))
    assert net.attached(pif)
    net.api.network.add_purpose(network, "nbd")
    assert net.api.network.get_purpose(network) == ["nbd"]
    refused = refusal(net.api.network.add_purpose, nic.network, "insecure_nbd")
    assert refused == ["NETWORK_INCOMPATIBLE_PURPOSES", "insecure_nbd", "nbd"]
    net.api.network.remove_purpose(network, "nbd")
    assert net.api.network.get_purpose(network) == []
    before = look(net.host)
    refused = refusal(net.api.host.local_management_reconfigure, nic.bridge)
    assert refused == ["NOT_IN_EMERGENCY_MODE"]
    assert look(net.host).addressed == before.addressed


# gateway, name servers, routes


def servers(host):
    return host.exec("grep ^nameserver /etc/resolv.conf", check=False).stdout.split()[1::2]


@pytest.mark.full
def test_gateway_and_name_servers_move_to_the_pif_that_asks_for_them_and_back(ours):
    with opened(ours) as net:
        owners_move(net)
    assert_whole(ours)


def owners_move(net):
    nic, before, resolved = net.nic(STORAGE), look(net.host), servers(net.host)
    management = net.nic(MANAGEMENT).bridge
    net.static(nic.pif, ADDRESS, gateway=GATEWAY, dns=SERVER)
    net.api.PIF.plug(nic.pif)
    seen = look(net.host)
    assert seen.gateways() == before.gateways()
    assert seen.gateways(nic.bridge) == []
    assert servers(net.host) == resolved

    with services.dhcp(
        net.host.lab, "storage"
    ):  # somebody answers for the gateway: the segment's server has it
        net.api.PIF.add_to_other_config(nic.pif, "defaultroute", "true")
        net.api.PIF.add_to_other_config(nic.pif, "peerdns", "true")
        done = up(net, nic.pif)
        assert done.code == DONE, done.said
        seen = look(net.host)
        assert seen.gateways() == seen.gateways(nic.bridge) == [GATEWAY]
        assert servers(net.host) == [SERVER]
        assert says(net, nic.pif, "owns the IPv4 default route", "defaultroute=true")
        assert says(net, net.nic(MANAGEMENT).pif, "not the IPv4 gateway")

        for key in ("defaultroute", "peerdns"):
            net.api.PIF.remove_from_other_config(nic.pif, key)
        done = up(net, nic.pif)
        assert done.code == DONE, done.said
    seen = look(net.host)
    assert seen.gateways() == seen.gateways(management) == before.gateways()
    assert servers(net.host) == (resolved or [SERVER])  # a list that works is not replaced by none


def serving(net, segment, server):
    """A DHCP server whose clients renew every 20 s and are given this name server; each segment has its own subnet."""
    subnet = SUBNETS[segment]
    return services.dhcp(
        net.host.lab,
        segment,
        address=f"{subnet}1/{PREFIX}",
        pool=(f"{subnet}100", f"{subnet}199"),
        options=["option:T1,20", "option:T2,60", f"option:dns-server,{server}"],
    )


@pytest.mark.full
def test_name_servers_of_leases_follow_the_pif_that_owns_dns_and_each_renewal(ours):
    with opened(ours) as net:
        leased_servers(net)
    assert_whole(ours)


def leased_servers(net):
    one, two = net.nic(STORAGE), net.nic(BOND_A)

    def has(first, second, host):
        def as_wanted():
            records = [net.record(nic.pif)["DNS"] for nic in (one, two)]
            return (*records, servers(net.host)) == (first, second, [host])

        return as_wanted

    with serving(net, "storage", "192.0.2.53") as server:
        with serving(net, "bond-a", "192.0.2.54"):
            net.api.PIF.add_to_other_config(one.pif, "peerdns", "true")
            for nic in (one, two):
                net.api.PIF.reconfigure_ip(nic.pif, "DHCP", "", "", "", "")
                net.api.PIF.plug(nic.pif)
            await_that(has("192.0.2.53", "", "192.0.2.53"), "the name server of the first")
            [lease] = server.leases()
            assert lease.hostname == net.host.exec("hostname -s").stdout.strip()
            before = await_that(lambda: look(net.host).addresses(two.bridge), "an address by DHCP")

            net.api.PIF.remove_from_other_config(one.pif, "peerdns")
            net.api.PIF.add_to_other_config(two.pif, "peerdns", "true")
            done = up(net, two.pif)
            assert done.code == DONE, done.said
            await_that(has("", "192.0.2.54", "192.0.2.54"), "the name server of the second")
        with serving(net, "bond-a", "192.0.2.55"):
            await_that(has("", "192.0.2.55", "192.0.2.55"), "that of a renewal", deadline_s=120)
        assert look(net.host).addresses(two.bridge) == before


@pytest.mark.full
def test_static_routes_go_over_a_network_whose_address_comes_by_dhcp(net):
    nic = net.nic(STORAGE)
    route = ("10.20.0.0/16", SERVER)
    net.api.network.add_to_other_config(nic.network, "static-routes", "/".join(route))
    try:
        with services.dhcp(net.host.lab, "storage"):
            net.api.PIF.reconfigure_ip(nic.pif, "DHCP", "", "", "", "")
            net.api.PIF.plug(nic.pif)
            await_that(lambda: look(net.host).addresses(nic.bridge), "an address by DHCP")
            await_that(lambda: route in look(net.host).routes(nic.bridge), "the route over it")
    finally:
        net.api.network.remove_from_other_config(nic.network, "static-routes")
    net.no_address(nic.pif)
    assert look(net.host).routes(nic.bridge) == set()


@pytest.mark.full
def test_a_pif_has_only_an_ipv6_address(net):
    nic = net.nic(STORAGE)
    net.api.PIF.reconfigure_ipv6(nic.pif, "Static", f"{PREFIX6}11/64", "", "")
    net.api.PIF.set_primary_address_type(nic.pif, "IPv6")
    try:
        net.api.PIF.plug(nic.pif)
        seen = look(net.host)
        assert_bridge(seen, nic.bridge, {nic.name}, mac=nic.mac)
        assert (seen.addresses(nic.bridge), seen.addresses(nic.bridge, "inet6")) == (
            set(),
            {f"{PREFIX6}11/64"},
        )
        with router6(net.host.lab, "storage", leases=False):
            ping_from_servers(net.host.lab, "storage", f"{PREFIX6}11")
        assert net.record(nic.pif)["primary_address_type"] == "IPv6"
        assert checked(net.host).value["outcome"] == "right"
    finally:
        net.api.PIF.set_primary_address_type(nic.pif, "IPv4")


# what comes to be otherwise


@pytest.mark.full
@pytest.mark.parametrize("whose", ["PIF", "pool"])
def test_drift_is_repaired_where_the_pif_or_the_pool_says_so(net, whose):
    # a NIC for each: a PIF is repaired three times in ten minutes, no more
    nic = net.nic(STORAGE if whose == "PIF" else BOND_A)
    net.static(nic.pif, ADDRESS)
    net.api.PIF.plug(nic.pif)
    (pool,) = net.api.pool.get_all()
    call, ref = (net.api.PIF, nic.pif) if whose == "PIF" else (net.api.pool, pool)
    call.add_to_other_config(ref, "repair-drift", "true")
    try:
        net.host.exec(
            f"ip address flush dev {nic.bridge} scope global; ip address add 10.9.9.9/24 dev {nic.bridge}"
        )
        wanted = {f"{ADDRESS}/{PREFIX}"}
        await_that(lambda: look(net.host).addresses(nic.bridge) == wanted, "the address is as it was")
        net.host.exec(f"ip link delete {nic.bridge}")
        await_that(lambda: nic.bridge in look(net.host).links, "the bridge is there again")
        await_that(lambda: checked(net.host).value["outcome"] == "right", "all is as wanted")
        assert_bridge(look(net.host), nic.bridge, {nic.name}, mac=nic.mac)
    finally:
        call.remove_from_other_config(ref, "repair-drift")


@pytest.mark.full
def test_bridges_that_nobody_needs_go_and_others_stay(clean_host):
    host = clean_host
    with opened(host) as net:
        nic = addressed(net)
        net.api.PIF.plug(nic.pif)
        ref = net.network("left over")
        kept = net.network("kept", persist="true")
        bridges = [net.api.network.get_bridge(one) for one in (ref, kept)]
        for one in (ref, kept):
            net.api.network.attach(one, net.me)
    host.exec("ip link add foreign0 type bridge; systemctl stop hostagent")
    try:
        said = host.exec(f"/opt/hostagent/current/bin/python -I -B -c {shlex.quote(CLEAN_BRIDGES)}").stdout
    finally:
        start(host)
    seen = look(host)
    host.exec("ip link delete foreign0")
    assert bridges[0] in said.split()
    assert not {bridges[1], nic.bridge, "foreign0"} & set(said.split())
    assert bridges[0] not in seen.links
    assert {bridges[1], nic.bridge, "foreign0"} <= seen.links.keys()
    assert_bridge(seen, nic.bridge, {nic.name}, mac=nic.mac)


# the management interface


@pytest.mark.full
def test_management_is_disabled_and_comes_back_from_the_console(ours):
    host, listening = ours, "ss -Hltn sport = 443"
    assert host.machine.address in host.exec(listening).stdout
    with opened(host) as net:
        uuid = net.nic(MANAGEMENT).uuid
        net.api.host.management_disable()
        assert [one for one in net.api.PIF.get_all_records().values() if one["management"]] == []
        assert refusal(net.api.host.get_management_interface, net.me) == ["HOST_HAS_NO_MANAGEMENT_IP"]
    assert host.exec(listening).stdout == ""
    assert_reachable(host)  # addresses stay

    console(host, "ip link delete xenbr0")
    assert "exit 0" in console(host, "hostagent net emergency-reset; echo exit $?", check=False)
    assert_reachable(host)
    words = f"interface-reconfigure --pif-uuid {uuid} --management up; echo exit $?"
    assert "exit 0" in console(host, words, check=False)
    assert_whole(host)
    with opened(host) as net:
        assert net.record(net.nic(MANAGEMENT).pif)["management"] is True
    assert host.machine.address in host.exec(listening).stdout


@pytest.mark.full
def test_a_foreign_bridge_with_our_name_keeps_its_address_at_the_first_start(take_hosts):
    """Nobody's files name it: it was made by hand, and the management interface is on it."""
    (host,) = take_hosts(1, "bare")
    nic, address = nic_name(host, MANAGEMENT), f"{host.machine.address}/{machine.SUBNET.prefixlen}"
    before = look(host)
    (gateway,) = before.gateways(nic)
    made = f"""
systemctl mask --now systemd-networkd.service systemd-networkd.socket
ip link add xenbr0 type bridge forward_delay 0
ip link set xenbr0 address {host.machine.nics[MANAGEMENT].mac} up
ip address flush dev {nic} scope global
ip link set {nic} master xenbr0
ip address add {address} dev xenbr0
ip route replace default via {gateway} dev xenbr0
"""
    console(host, made)
    assert_reachable(host)
    before = look(host)
    install.install(host)
    assert_reachable(host)
    began = start(host)
    assert_reachable(host)
    seen = look(host)
    assert seen.links["xenbr0"]["ifindex"] == before.links["xenbr0"]["ifindex"]
    assert seen.addresses("xenbr0") == before.addresses("xenbr0") == {address}
    assert seen.gateways("xenbr0") == [gateway]
    assert seen.uplinks("xenbr0") == {nic}
    assert "xenbr0" not in seen.made()
    assert began.report["ending"] == "complete"
    host.exec("systemctl restart hostagent-network", check=False)
    assert_reachable(host)
    assert look(host).addresses("xenbr0") == {address}


# settings of NICs


@pytest.mark.full
def test_ethtool_keys_reach_a_nic_that_has_such_settings(odd_host):
    host = odd_host(e1000e={STORAGE})
    install.install(host)
    start(host)
    with opened(host) as net:
        nic = net.nic(STORAGE)
        features = {"tso": "tcp-segmentation-offload", "gso": "generic-segmentation-offload",
                    "gro": "generic-receive-offload"}  # fmt: skip
        net.static(nic.pif, ADDRESS)
        assert {had(host, nic.name, name) for name in features.values()} == {"on"}
        for key in features:
            net.api.PIF.add_to_other_config(nic.pif, f"ethtool-{key}", "off")
        net.api.PIF.add_to_other_config(nic.pif, "ethtool-advertise", "0x020")  # 1000baseT/Full alone
        done = up(net, nic.pif)
        assert done.code == DONE, done.said
        assert {had(host, nic.name, name) for name in features.values()} == {"off"}
        link = host.exec(f"ethtool {nic.name}").stdout
        assert re.search(r"Advertised link modes: +1000baseT/Full *\n", link), link
        assert "Link detected: yes" in link
        with wire.join(host.lab, "storage") as port:
            ping(port, ADDRESS, sender=TESTER)
        assert up(net, nic.pif).value["operations"] == []
        net.api.PIF.remove_from_other_config(nic.pif, "ethtool-gro")
        net.api.PIF.add_to_other_config(nic.pif, "ethtool-gro", "on")
        assert up(net, nic.pif).code == DONE
        assert had(host, nic.name, features["gro"]) == "on"


def had(host, nic, feature):
    """What ethtool says of a feature: on or off."""
    found = re.search(rf"^{feature}: (\w+)", host.exec(f"ethtool -k {nic}").stdout, re.MULTILINE)
    return found[1] if found else ""


@pytest.mark.full
def test_keys_of_a_bond_in_other_config_reach_the_kernel(net):
    one, two = net.nic(BOND_A), net.nic(BOND_B)
    _, master = net.bond([one.pif, two.pif], "active-backup")
    for key, value in (("updelay", "700"), ("downdelay", "400"), ("miimon", "50"), ("primary", two.name)):
        net.api.PIF.add_to_other_config(master, f"bond-{key}", value)
    assert up(net, master).code == DONE
    own, _ = bonding(net.host, net.record(master)["device"])
    assert (own["Up Delay (ms)"], own["Down Delay (ms)"]) == ("700", "400")
    assert own["MII Polling Interval (ms)"] == "50"
    assert own["Primary Slave"].split()[0] == two.name
    await_that(
        lambda: bonding(net.host, net.record(master)["device"])[0]["Currently Active Slave"] == two.name,
        "the primary member is the active one",
    )
