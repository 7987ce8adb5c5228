"""What an operator sees of the network and types at it, on a host: judged by ip, ethtool, ss and frames, not by us.

Shapes of networks are in test_net_topologies.py, failures in test_net_failures.py, moves of the management interface in
test_net_management.py.
"""

from __future__ import annotations

import re
import shlex
from xml.etree import ElementTree as ET

import pytest
from nested_xen import faults, install, machine, services, wire

from tests.xen.agent import WAIT, start
from tests.xen.net_look import assert_bridge, assert_vlan, await_that, bonding, console, look
from tests.xen.net_moves import MANAGEMENT, adopt, assert_reachable, assert_whole, begin_and_hold
from tests.xen.net_operator import (
    DONE,
    PREFIX,
    STATIC,
    UNDONE,
    USAGE,
    checked,
    clean,
    opened,
    reconfigure,
    refusal,
    run,
)
from tests.xen.net_segment import PREFIX6, ping, ping_from_servers, router6
from tests.xen.nics import nic_name

pytestmark = [pytest.mark.destructive, pytest.mark.timeout(1800)]

STORAGE, BOND_A, BOND_B = 1, 2, 3
ADDRESS, TESTER = STATIC.format(11), STATIC.format(200)
GATEWAY, SERVER = STATIC.format(1), STATIC.format(2)
SECOND = "203.0.113.11"
TAG = 5
SVG = "{http://www.w3.org/2000/svg}"
STATE = "/var/lib/hostagent"
STAYS = MANAGED = True
"""Parameters of PIF.set_disallow_unplug and PIF.introduce."""
AWAY = "/root/away"
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
def clean_host(xen_host):
    clean(xen_host)
    yield xen_host
    clean(xen_host)


@pytest.fixture
def net(clean_host):
    with opened(clean_host) as made:
        yield made


@pytest.fixture
def ours(clean_host):
    """A host whose management interface is hostagent's."""
    adopt(clean_host)
    return clean_host


def agent(host, *words):
    """A command of ours that must succeed; its JSON."""
    answer = run(host, "hostagent", *words, "--json")
    assert answer.code == DONE, answer.said
    return answer.value


def uuid_of(net, pif):
    return net.api.PIF.get_uuid(pif)


def up(net, pif, *options):
    return reconfigure(net.host, "--pif-uuid", uuid_of(net, pif), *options, "up")


def configured(net):
    """A NIC with an address and a VLAN with one on it, both up: the NIC, and the VLAN's PIF."""
    nic = net.nic(STORAGE)
    net.static(nic.pif, ADDRESS)
    vlan = net.vlan(nic.pif, TAG)
    net.static(vlan, SECOND)
    net.api.PIF.plug(nic.pif)
    net.api.PIF.plug(vlan)
    return nic, vlan


def reasons(net, pif):
    """What `hostagent pif explain` finds: sentence, evidence and command of each reason, as one text."""
    found = agent(net.host, "pif", "explain", uuid_of(net, pif))["reasons"]
    return [" ".join((each["found"], *each["evidence"], each["command"])) for each in found]


def has_reason(net, pif, *words):
    return any(all(word in reason for word in words) for reason in reasons(net, pif))


def in_cache(host, address):
    """Wait until the cached copy has what was just set."""
    there = f"grep -qF {address} {STATE}/net/cache.json"
    await_that(lambda: host.exec(there, check=False).code == 0, "the cached copy has the address")


# what is shown


@pytest.mark.oldest
def test_the_graph_has_every_device_that_the_kernel_has_of_ours(net):
    nic, vlan = configured(net)
    _, master = net.bond([net.nic(BOND_A).pif, net.nic(BOND_B).pif], "active-backup")
    net.api.PIF.plug(master)
    drawn = agent(net.host, "net", "graph")
    seen = look(net.host)
    device = assert_vlan(seen, nic.name, TAG, net.bridge(vlan))
    assert {node["name"] for node in drawn["nodes"]} >= seen.made() | {nic.name}
    edges = {tuple(edge) for edge in drawn["edges"]}
    links = [(name, seen.master(name)) for name in seen.made() | {nic.name} if seen.master(name)]
    assert edges >= {*links, (nic.name, device)}

    tree = run(net.host, "hostagent", "net", "graph")
    assert tree.code == DONE, tree.said
    assert all(re.search(rf"(?<![\w.]){re.escape(name)}(?![\w.])", tree.out) for name in seen.made())
    assert ADDRESS in tree.out

    agent(net.host, "net", "graph", "-o", "/root/net.svg")
    picture = ET.fromstring(net.host.exec("cat /root/net.svg").stdout)  # noqa: S314 - of the host under test
    assert picture.tag == f"{SVG}svg"
    written = [str(title.text) for title in picture.iter(f"{SVG}title")]
    assert all(any(text.startswith(name) for text in written) for name in seen.made())


def test_lists_and_status_say_what_ip_says(net):
    nic, vlan = configured(net)
    rows = {row["uuid"]: row for row in agent(net.host, "pif", "list")}
    seen = look(net.host)
    assert rows.keys() == {record["uuid"] for record in net.api.PIF.get_all_records().values()}
    for row in rows.values():
        assert row["attached"] == (row["bridge"] in seen.links), row
    mine = rows[nic.uuid]
    assert (mine["device"], mine["bridge"], mine["mac"]) == (
        nic.name,
        nic.bridge,
        seen.links[nic.name]["address"],
    )
    assert mine["carrier"] is ("NO-CARRIER" not in seen.links[nic.name]["flags"])
    assert rows[uuid_of(net, vlan)]["device"] == f"{nic.name}.{TAG}"

    for pif, device, bridge in (
        (nic.pif, nic.name, nic.bridge),
        (vlan, f"{nic.name}.{TAG}", net.bridge(vlan)),
    ):
        shown = agent(net.host, "pif", "show", device)
        assert shown["uuid"] == uuid_of(net, pif)
        assert set(shown["addresses"]) >= seen.addresses(bridge) != set()
        assert shown["mtu"] == seen.links[bridge]["mtu"]
        assert shown["bridge"] == bridge

    told = agent(net.host, "net", "status")
    assert (told["pifs"], told["attached"]) == (len(rows), sum(row["attached"] for row in rows.values()))
    assert told["waits_for_confirmation"] is None
    assert "changed" in told["last_change"]


@pytest.mark.full
def test_what_was_done_is_in_the_history_with_the_time_of_each_operation_and_a_second_run_is_not(net):
    nic = net.nic(STORAGE)
    net.static(nic.pif, ADDRESS)
    done = up(net, nic.pif)
    assert done.code == DONE, done.said
    port = [one for one in done.value["operations"] if "master" in one["args"]]
    assert {(one["device"], one["args"]["master"]) for one in port} == {(nic.name, nic.bridge)}

    newest = agent(net.host, "net", "history", "1")
    operations = [(one["verb"], one["device"]) for one in done.value["operations"]]
    assert [(step["verb"], step["device"]) for step in newest["steps"]] == operations
    assert (newest["outcome"], newest["total"]) == ("changed", len(operations))
    assert all(step["milliseconds"] > 0 for step in newest["steps"])
    text = run(net.host, "hostagent", "net", "history", "1").out
    assert len(re.findall(r"^ +\d+\.\d\d ms ", text, re.MULTILINE)) == len(operations)
    assert newest["what"] in agent(net.host, "net", "status")["last_change"]

    again = up(net, nic.pif)
    assert (again.code, again.value["outcome"], again.value["operations"]) == (DONE, "unchanged", [])
    assert agent(net.host, "net", "history", "1") == newest


@pytest.mark.full
def test_explain_names_the_cable_that_is_out_and_the_vlan_device_that_is_gone_and_its_command_helps(net):
    nic, vlan = configured(net)
    with faults.no_carrier(net.host, STORAGE):
        assert has_reason(net, nic.pif, f"no carrier on {nic.name}", "NO-CARRIER", f"ethtool {nic.name}")
        assert has_reason(net, vlan, f"no carrier on {nic.name}")
    assert not has_reason(net, nic.pif, "no carrier")

    device = assert_vlan(look(net.host), nic.name, TAG, net.bridge(vlan))
    net.host.exec(f"ip link delete {device}")
    await_that(lambda: not net.attached(vlan), "the record says that it is down")
    plug = f"hostagent pif plug {uuid_of(net, vlan)}"
    assert has_reason(net, vlan, "was not brought up, or was taken down", "has no device", plug)
    net.host.exec(plug)
    assert_vlan(look(net.host), nic.name, TAG, net.bridge(vlan))


# interface-reconfigure


@pytest.mark.full
def test_its_looks_and_wrong_words_change_nothing(net):
    nic = net.nic(STORAGE)
    net.static(nic.pif, ADDRESS)
    in_cache(net.host, ADDRESS)
    before, cached = look(net.host), net.host.exec(f"sha256sum <{STATE}/net/cache.json").stdout
    uuid = ("--pif-uuid", nic.uuid)
    for words in (
        (),
        ("up",),
        (*uuid, "sideways"),
        (*uuid, "up", "down"),
        (*uuid, "--no-such-option", "up"),
        (*uuid, "--force", nic.bridge, "up"),
        (*uuid, "--timeout=never", "up"),
        (*uuid, "--plan", "--check", "up"),
        (*uuid, "--keep-old", "up"),
        ("--session", "OpaqueRef:none", "up"),
        ("--force", nic.bridge, "rewrite", f"--device={nic.name}"),
    ):
        answer = reconfigure(net.host, *words)
        assert answer.code == USAGE, (words, answer.said)
        assert "hint:" in answer.error
    explained = reconfigure(net.host, *uuid, "--explain")
    assert explained.code == DONE, explained.said
    assert explained.value["outcome"] == "explained"
    assert any("pif plug" in one["command"] for one in explained.value["reasons"])
    planned = up(net, nic.pif, "--plan")
    assert (planned.code, planned.value["outcome"]) == (DONE, "planned"), planned.said
    assert planned.value["operations"]

    elsewhere = ("--root-prefix", "/root/elsewhere", "--force", nic.bridge, "rewrite")
    written = reconfigure(net.host, *elsewhere, f"--device={nic.name}", f"--mac={nic.mac}", "--mode=dhcp")
    assert written.code == DONE, written.said
    assert nic.mac in net.host.exec(f"cat /root/elsewhere{STATE}/net/cache.json").stdout
    assert net.host.exec(f"sha256sum <{STATE}/net/cache.json").stdout == cached
    assert look(net.host) == before


def test_what_the_kernel_refuses_is_rolled_back_with_exit_3_and_is_in_the_history(net):
    """A device in the way of one that is to be made, put there between plan and execution."""
    nic, vlan = configured(net)
    net.api.PIF.unplug(vlan)
    bridge, before = net.bridge(vlan), look(net.host)
    assert begin_and_hold(net.host, f"interface-reconfigure --pif-uuid {uuid_of(net, vlan)} up", "begun")
    over = "is_over() { ! systemctl is-active -q network-move; }\nuntil_true 120 is_over"
    try:
        console(net.host, f"{WAIT}\nip link add {bridge} type bridge; rm /run/hostagent/hold\n{over}")
        code = net.host.exec("systemctl show network-move -p ExecMainStatus --value").stdout.strip()
        assert int(code) == UNDONE
        seen = look(net.host)
        assert seen.links.keys() == before.links.keys() | {bridge}
        assert bridge not in seen.made()
        assert_bridge(seen, nic.bridge, {nic.name}, mac=nic.mac)
        newest = agent(net.host, "net", "history", "1")
        assert newest["outcome"] == "rolled-back"
        assert "EEXIST" in " ".join(newest["told"])
    finally:
        console(net.host, f"rm -f /run/hostagent/hold; ip link delete {bridge}", check=False)
        net.host.exec("systemctl reset-failed network-move", check=False)
    assert up(net, vlan).code == DONE


@pytest.mark.oldest
def test_without_daemon_and_database_everything_works_from_the_cached_copy(clean_host):
    host = clean_host
    with opened(host) as net:
        nic = net.nic(STORAGE)
        net.static(nic.pif, ADDRESS)
        in_cache(host, ADDRESS)
    host.exec(f"systemctl stop hostagent; mkdir -p {AWAY}; mv {STATE}/state.db* {AWAY}/")
    try:
        done = reconfigure(host, "--pif-uuid", nic.uuid, "up")
        assert (done.code, done.value["outcome"]) == (DONE, "changed"), done.said
        assert done.value["source"].startswith("cache generation")
        assert "no daemon runs" in done.value["told"]
        seen = look(host)
        assert_bridge(seen, nic.bridge, {nic.name}, mac=nic.mac)
        assert seen.addresses(nic.bridge) == {f"{ADDRESS}/{PREFIX}"}
        with wire.join(host.lab, "storage") as port:
            ping(port, ADDRESS, sender=TESTER)
        assert next(row for row in agent(host, "pif", "list") if row["uuid"] == nic.uuid)["attached"]
        assert ADDRESS in run(host, "hostagent", "net", "graph").out
        assert run(host, "hostagent", "pif", "unplug", nic.uuid).code == DONE
        assert nic.bridge not in look(host).links
        assert run(host, "hostagent", "pif", "plug", nic.name).code == DONE
        assert_bridge(look(host), nic.bridge, {nic.name}, mac=nic.mac)
        assert host.exec(f"ls {STATE}/state.db", check=False).code != 0
    finally:
        host.exec(f"mv {AWAY}/state.db* {STATE}/")
        began = start(host)
    assert began.report["ending"] == "complete", began.troubles
    with opened(host) as net:
        assert net.attached(nic.pif)


# XenAPI calls


@pytest.mark.full
def test_a_pif_is_forgotten_and_introduced_and_stays_plugged_where_it_is_to(net):
    nic = net.nic(STORAGE)
    net.static(nic.pif, ADDRESS)
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
        assert has_reason(net, nic.pif, "owns the IPv4 default route", "defaultroute=true")
        assert has_reason(net, net.nic(MANAGEMENT).pif, "not the IPv4 gateway")

        for key in ("defaultroute", "peerdns"):
            net.api.PIF.remove_from_other_config(nic.pif, key)
        done = up(net, nic.pif)
        assert done.code == DONE, done.said
    seen = look(net.host)
    assert seen.gateways() == seen.gateways(management) == before.gateways()
    assert servers(net.host) == (resolved or [SERVER])  # a list that works is not replaced by none


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
    nic = net.nic(STORAGE)
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
        nic = net.nic(STORAGE)
        net.static(nic.pif, ADDRESS)
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
