"""What an operator sees of the network and types at it, on a host: judged by ip, ethtool, ss and frames, not by us.

Shapes of networks are in test_net_topologies.py, failures in test_net_failures.py, moves of the management interface in
test_net_management.py, what is set in records in test_net_settings.py.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest
from nested_xen import faults, wire

from tests.xen.agent import WAIT, start
from tests.xen.net_look import assert_bridge, assert_vlan, await_that, console, look
from tests.xen.net_moves import begin_and_hold
from tests.xen.net_operator import DONE, PREFIX, UNDONE, USAGE, opened, reconfigure, run
from tests.xen.net_segment import ping
from tests.xen.net_shapes import (
    ADDRESS,
    BOND_A,
    BOND_B,
    STORAGE,
    TAG,
    TESTER,
    addressed,
    agent,
    says,
    up,
    uuid_of,
)

pytestmark = [pytest.mark.shares_host, pytest.mark.destructive, pytest.mark.timeout(1800)]

SECOND = "203.0.113.11"
SVG = "{http://www.w3.org/2000/svg}"
STATE = "/var/lib/hostagent"
AWAY = "/root/away"


def configured(net):
    """A NIC with an address and a VLAN with one on it, both up: the NIC, and the VLAN's PIF."""
    nic = addressed(net)
    vlan = net.vlan(nic.pif, TAG)
    net.static(vlan, SECOND)
    net.api.PIF.plug(nic.pif)
    net.api.PIF.plug(vlan)
    return nic, vlan


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


@pytest.mark.full
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
    nic = addressed(net)
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
        assert says(net, nic.pif, f"no carrier on {nic.name}", "NO-CARRIER", f"ethtool {nic.name}")
        assert says(net, vlan, f"no carrier on {nic.name}")
    assert not says(net, nic.pif, "no carrier")

    device = assert_vlan(look(net.host), nic.name, TAG, net.bridge(vlan))
    net.host.exec(f"ip link delete {device}")
    await_that(lambda: not net.attached(vlan), "the record says that it is down")
    plug = f"hostagent pif plug {uuid_of(net, vlan)}"
    assert says(net, vlan, "was not brought up, or was taken down", "has no device", plug)
    net.host.exec(plug)
    assert_vlan(look(net.host), nic.name, TAG, net.bridge(vlan))


# interface-reconfigure


@pytest.mark.full
def test_its_looks_and_wrong_words_change_nothing(net):
    nic = addressed(net)
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


@pytest.mark.full
def test_without_daemon_and_database_everything_works_from_the_cached_copy(clean_host):
    host = clean_host
    with opened(host) as net:
        nic = addressed(net)
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
