"""The management interface is never lost: taken over, moved, moved wrongly, and stopped in the middle of it.

Every test ends with a new ssh connection to the address the host had, and nobody has touched the host in between.
"""

from __future__ import annotations

import contextlib
import ssl

import pytest
from nested_xen import faults, machine, network
from nested_xen.machine import GATEWAY
from nested_xen.rotation import rotating

from tests.xen.agent import WAIT, power_on, start
from tests.xen.net_look import assert_bridge, assert_vlan, await_that, bonding, console, look
from tests.xen.net_moves import (
    BACK_S,
    MANAGEMENT,
    SECOND,
    adopt,
    assert_reachable,
    assert_whole,
    begin_and_hold,
    bonding_both,
    kill,
    management_of,
    places_of,
    reachable,
    second_cable,
    unplugged_second_cable,
)
from tests.xen.net_operator import DONE, UNDONE, await_start, opened, reconfigure, refusal, run

pytestmark = [pytest.mark.destructive, pytest.mark.timeout(2400)]

NETMASK = str(machine.SUBNET.netmask)
NOBODYS = "203.0.113.9"
WRONG_TAG = 999
PLACES = 16
"""The places of a move are spread over so many cases; no move may have more."""
CONFIRM_S = 30


@pytest.fixture
def host(xen_host):
    """A host whose management interface is hostagent's."""
    adopt(xen_host)
    return xen_host


@pytest.fixture
def two_cables(host):
    """A host with two NICs on the management segment; what bonds them goes after the test."""
    second_cable(host)
    yield host
    assert_reachable(host)
    with opened(host) as net:
        for bond in net.api.Bond.get_all():
            net.api.Bond.destroy(bond)
        for ref, record in net.api.network.get_all_records().items():
            if record["name_label"].startswith(("management bond", "a bond")) and not record["PIFs"]:
                net.api.network.destroy(ref)
    unplugged_second_cable(host)
    assert management_of(look(host), host) == "xenbr0"


def management_pif(net):
    (ref,) = [ref for ref, record in net.api.PIF.get_all_records().items() if record["management"]]
    return ref


def as_before(host, before):
    """The management network is what it was, by the kernel's own indexes."""
    assert_whole(host)
    seen, bridge = look(host), management_of(before, host)
    assert management_of(seen, host) == bridge
    assert seen.uplinks(bridge) == before.uplinks(bridge)
    assert seen.addresses(bridge) == before.addresses(bridge)
    assert seen.routes4 == before.routes4


def at_the_console(host, *words):
    """A command typed at the console, whose end nobody waits for on the network; its unit is `typed`."""
    console(host, f"systemd-run --quiet --unit typed --property=RemainAfterExit=no {' '.join(words)}")
    over = f"{WAIT}\nis_over() {{ ! systemctl is-active -q typed; }}\nuntil_true {BACK_S} is_over"
    console(host, over, deadline_s=BACK_S + 60)
    return console(host, "journalctl -u typed -o cat; systemctl reset-failed typed 2>/dev/null", check=False)


# taking over, and giving back


@pytest.mark.full
def test_a_host_configured_by_networkd_is_taken_over_from_its_own_ssh_session_and_given_back(xen_host):
    await_start(xen_host)
    before = look(xen_host)
    address = f"{xen_host.machine.address}/{machine.SUBNET.prefixlen}"
    (nic,) = [name for name in before.addressed if address in before.addresses(name)]
    plan = run(xen_host, "hostagent", "net", "adopt", "--dry-run")
    assert plan.code == DONE, plan.said
    assert "xenbr0" in plan.out
    assert look(xen_host).addressed == before.addressed

    adopt(xen_host)
    seen = look(xen_host)
    assert management_of(seen, xen_host) == "xenbr0"
    assert_bridge(seen, "xenbr0", {nic}, mac=xen_host.machine.nics[MANAGEMENT].mac)
    assert xen_host.exec(f"networkctl status {nic} --no-pager --lines 0").stdout.count("unmanaged") >= 1
    with opened(xen_host) as net:
        record = net.record(management_pif(net))
        assert (record["IP"], record["gateway"]) == (xen_host.machine.address, str(GATEWAY))
        assert record["ip_configuration_mode"] == "Static"
        assert net.attached(management_pif(net))

    back = run(xen_host, "hostagent", "net", "release", "--yes")
    assert back.code == DONE, back.said
    assert_reachable(xen_host)
    seen = look(xen_host)
    assert address in seen.addresses(nic)
    assert "xenbr0" not in seen.links
    assert seen.gateways(nic) == [str(GATEWAY)]


def test_https_listens_on_the_management_address_with_the_hosts_certificate(host):
    assert start(host).report["ending"] == "complete"
    answers = network.call_inside(
        host.lab, lambda: ssl.get_server_certificate((host.machine.address, 443), timeout=60)
    )
    assert answers.split()[2] in host.exec("cat /etc/hostagent/tls/server.pem").stdout
    listening = host.exec("ss -Hltn sport = 443").stdout
    assert f"{host.machine.address}:443" in listening


@pytest.mark.full
def test_it_comes_up_at_a_cold_boot_with_no_agent_and_no_database(host):
    host.exec("systemctl disable hostagent; mv /var/lib/hostagent/state.db /root/; sync")
    host.power_off()
    host.boot()  # over the network that hostagent-network.service raised
    assert management_of(look(host), host) == "xenbr0"
    assert host.exec("systemctl is-active hostagent", check=False).stdout != "active\n"
    assert host.exec("systemctl show hostagent-network -p Result --value").stdout == "success\n"
    host.exec("mv /root/state.db /var/lib/hostagent/; systemctl enable hostagent")
    assert start(host).report["ending"] == "complete"


@pytest.mark.full
def test_stopping_killing_and_starting_the_agent_does_not_touch_it(host):
    before = look(host)
    host.exec("systemctl stop hostagent")
    as_before(host, before)
    start(host)
    faults.kill_daemon(host, "hostagent.service")
    as_before(host, before)
    start(host)
    assert {n: row["ifindex"] for n, row in look(host).links.items() if n in before.made()} == {
        name: before.links[name]["ifindex"] for name in before.made()
    }


@pytest.mark.full
def test_an_operator_brings_it_back_with_no_agent_from_the_cached_copy(host):
    before = look(host)
    host.exec("systemctl stop hostagent")
    try:
        console(host, "ip link delete xenbr0")
        assert not reachable(host, timeout_s=10)
        done = console(
            host, "interface-reconfigure --force xenbr0 --management up; echo exit $?", check=False
        )
        assert "exit 0" in done
        assert_reachable(host)
        seen = look(host)
        assert seen.addresses("xenbr0") == before.addresses("xenbr0")
        assert seen.gateways() == before.gateways()
    finally:
        start(host)


@pytest.mark.full
def test_an_emergency_reset_goes_back_to_what_was_verified_without_a_reboot(host):
    boot = host.exec("cat /proc/sys/kernel/random/boot_id").stdout
    host.exec("systemctl stop hostagent")
    try:
        console(host, "ip address flush dev xenbr0; ip link set xenbr0 down; ip link set enp0s2 nomaster")
        said = console(host, "hostagent net emergency-reset; echo exit $?", check=False)
        assert "exit 0" in said
        assert_reachable(host)
        assert host.exec("cat /proc/sys/kernel/random/boot_id").stdout == boot
    finally:
        start(host)
    assert_whole(host)


# good moves


@pytest.mark.full
def test_it_moves_into_a_bond_and_out_of_it_and_keeps_its_address(two_cables):
    host = two_cables
    with opened(host) as net:
        one, two = net.nic(MANAGEMENT), net.nic(SECOND)
        bond, master = net.bond([one.pif, two.pif], "active-backup")
        bridge, device = net.bridge(master), net.record(master)["device"]
        assert management_pif(net) == master
    assert_whole(host)
    seen = look(host)
    assert management_of(seen, host) == bridge
    assert_bridge(seen, bridge, {device}, mac=one.mac)
    assert bonding(host, device)[1].keys() == {one.name, two.name}
    with faults.no_carrier(host, MANAGEMENT):
        assert_reachable(host)
    with opened(host) as net:
        net.api.Bond.destroy(bond)
        assert management_pif(net) == one.pif
    assert_whole(host)


@pytest.mark.full
def test_it_moves_to_another_nic_when_that_reaches_the_gateway(two_cables):
    host = two_cables
    other = str(machine.SUBNET[110 + host.machine.index])
    with opened(host) as net:
        first, second = net.nic(MANAGEMENT), net.nic(SECOND)
        net.api.PIF.reconfigure_ip(second.pif, "Static", other, NETMASK, str(GATEWAY), "")
        net.api.host.management_reconfigure(second.pif)
        assert management_pif(net) == second.pif
    try:
        seen = look(host)
        assert f"{other}/{machine.SUBNET.prefixlen}" in seen.addresses(second.bridge)
        assert seen.gateways() == [str(GATEWAY)]
        assert seen.gateways(second.bridge) == [str(GATEWAY)]
    finally:
        with opened(host) as net:
            net.api.host.management_reconfigure(first.pif)
            net.no_address(second.pif)
    assert_whole(host)


# wrong moves: each is undone by itself


def test_a_wrong_address_is_undone(host):
    before = look(host)
    with opened(host) as net:
        uuid = net.api.PIF.get_uuid(management_pif(net))
    said = at_the_console(
        host,
        f"hostagent-xe pif-reconfigure-ip uuid={uuid} mode=static IP={NOBODYS} netmask=255.255.255.0",
        "gateway=203.0.113.1",
    )
    as_before(host, before)
    assert "203.0.113.1" in said  # what was tried and did not answer is named
    with opened(host) as net:
        assert net.record(management_pif(net))["IP"] == host.machine.address


@pytest.mark.full
def test_a_wrong_vlan_is_undone(host):
    before = look(host)
    with opened(host) as net:
        vlan = net.vlan(net.nic(MANAGEMENT).pif, WRONG_TAG)
        net.api.PIF.reconfigure_ip(vlan, "Static", str(machine.SUBNET[77]), NETMASK, str(GATEWAY), "")
        uuid = net.api.PIF.get_uuid(vlan)
        untagged = net.api.PIF.get_VLAN_master_of(vlan)
        assert_vlan(look(host), net.nic(MANAGEMENT).name, WRONG_TAG, net.bridge(vlan))
        net.api.PIF.unplug(vlan)
    at_the_console(host, f"hostagent-xe host-management-reconfigure pif-uuid={uuid}")
    as_before(host, before)
    with opened(host) as net:
        assert management_pif(net) == net.nic(MANAGEMENT).pif
        net.api.VLAN.destroy(untagged)


@pytest.mark.full
def test_a_wrong_gateway_is_undone(host):
    before = look(host)
    with opened(host) as net:
        uuid = net.api.PIF.get_uuid(management_pif(net))
    wrong = str(machine.SUBNET[250])
    at_the_console(
        host,
        f"hostagent-xe pif-reconfigure-ip uuid={uuid} mode=static IP={host.machine.address}",
        f"netmask={NETMASK} gateway={wrong}",
    )
    as_before(host, before)
    assert wrong not in str(look(host).routes4)


def test_a_bond_whose_mode_does_not_fit_the_switch_is_undone(two_cables):
    """LACP where nobody answers it: as a new bond, and as a new mode of one that works."""
    host = two_cables
    before = look(host)
    with opened(host) as net:
        members = ",".join(net.api.PIF.get_uuid(net.nic(n).pif) for n in (MANAGEMENT, SECOND))
        uuid = net.api.network.get_uuid(net.network("a bond, refused"))
    command = f"hostagent-xe bond-create network-uuid={uuid} pif-uuids={members} mode=lacp"
    said = at_the_console(host, command)
    as_before(host, before)
    assert "LACP" in said
    with opened(host) as net:
        assert net.api.Bond.get_all() == []


@pytest.mark.full
def test_a_working_bond_is_not_changed_to_a_mode_that_does_not_fit_the_switch(two_cables):
    host = two_cables
    with opened(host) as net:
        bond, _ = net.bond([net.nic(MANAGEMENT).pif, net.nic(SECOND).pif], "active-backup")
        uuid = net.api.Bond.get_uuid(bond)
        assert refusal(net.api.Bond.set_mode, bond, "balance-slb")[0] == "VALUE_NOT_SUPPORTED"
    before = look(host)
    at_the_console(host, f"hostagent-xe bond-set-mode uuid={uuid} mode=lacp")
    as_before(host, before)
    device = next(name for name in before.made() if before.kind(name) == "bond")
    assert bonding(host, device)[0]["Bonding Mode"] == "fault-tolerance (active-backup)"


@pytest.mark.full
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
    finally:
        start(host)
        with opened(host) as net:
            net.api.network.set_MTU(net.api.PIF.get_network(management_pif(net)), "1500")


@pytest.mark.full
def test_a_change_that_is_confirmed_stays(host):
    with opened(host) as net:
        pif = management_pif(net)
        uuid, ref = net.api.PIF.get_uuid(pif), net.api.PIF.get_network(pif)
        net.api.network.set_MTU(ref, "1400")
    done = reconfigure(host, "--pif-uuid", uuid, "--management", "--confirm", f"--timeout={CONFIRM_S}", "up")
    assert done.value["outcome"] == "waiting", done.said
    assert run(host, "hostagent", "net", "confirm").code == DONE
    host.exec(f"sleep {CONFIRM_S + 5}")
    assert look(host).links["xenbr0"]["mtu"] == 1400
    with opened(host) as net:
        net.api.network.set_MTU(ref, "1500")
        net.api.PIF.plug(pif)
    assert_whole(host)


@pytest.mark.full
def test_a_step_that_the_kernel_refuses_is_told_and_everything_before_it_is_undone(host):
    """A device in the way of one that is to be made, put there between plan and execution."""
    before = look(host)
    with opened(host) as net:
        vlan = net.vlan(net.nic(SECOND).pif, 6)
        net.api.PIF.unplug(vlan)
        uuid, bridge = net.api.PIF.get_uuid(vlan), net.bridge(vlan)
        owner = net.api.PIF.get_VLAN_master_of(vlan)
    assert begin_and_hold(host, f"interface-reconfigure --json --pif-uuid {uuid} up", "begun")
    console(host, f"ip link add {bridge} type bridge; rm /run/hostagent/hold")
    over = f"{WAIT}\nis_over() {{ ! systemctl is-active -q network-move; }}\nuntil_true 120 is_over"
    console(host, over)
    status = console(host, "journalctl -u network-move -o cat | grep -c EEXIST", check=False)
    try:
        assert int(status.split()[-1]) >= 1
        seen = look(host)
        assert seen.made() == before.made()
        again = reconfigure(host, "--pif-uuid", uuid, "up")
        assert again.code in (1, UNDONE), again.said
        assert bridge in again.said
    finally:
        console(host, f"ip link delete {bridge}", check=False)
        with opened(host) as net:
            net.api.VLAN.destroy(owner)
    assert_whole(host)


# stopped in the middle


def place(places, number):
    assert len(places) <= PLACES, f"{len(places)} places: raise PLACES"
    at = number * len(places) // PLACES
    if number and at == (number - 1) * len(places) // PLACES:
        pytest.skip(f"this move has {len(places)} places, and case {number - 1} was at {places[at]}")
    return places[at]


@pytest.fixture
def move(two_cables):
    """The longest move, and all the places where it can be stopped."""
    with opened(two_cables) as net:
        order = bonding_both(net)
    places = places_of(two_cables, order)
    assert_whole(two_cables)
    return order, places


@pytest.mark.parametrize("number", rotating(range(PLACES), count=1))
def test_killed_in_the_middle_of_a_move_the_host_is_reachable_again(two_cables, move, number):
    order, places = move
    point = place(places, number)
    assert begin_and_hold(two_cables, order, point), f"{point} of {places} was not reached"
    kill(two_cables)
    assert_whole(two_cables)


@pytest.mark.full
@pytest.mark.parametrize("number", range(PLACES))
def test_the_power_goes_in_the_middle_of_a_move_and_the_host_is_reachable_again(two_cables, move, number):
    order, places = move
    point = place(places, number)
    assert begin_and_hold(two_cables, order, point), f"{point} of {places} was not reached"
    cut(two_cables)


@pytest.mark.full
@pytest.mark.oldest
def test_killed_when_all_is_applied_but_not_committed_the_move_is_undone(two_cables):
    with opened(two_cables) as net:
        order = bonding_both(net)
    assert begin_and_hold(two_cables, order, "applied")
    kill(two_cables)
    assert_whole(two_cables)
    assert management_of(look(two_cables), two_cables) == "xenbr0"


@pytest.mark.oldest
def test_the_power_goes_when_all_is_applied_but_not_committed(two_cables):
    with opened(two_cables) as net:
        order = bonding_both(net)
    assert begin_and_hold(two_cables, order, "applied")
    cut(two_cables)
    assert management_of(look(two_cables), two_cables) == "xenbr0"


@pytest.mark.full
@pytest.mark.parametrize("how", ["killed", "power cut"])
def test_stopped_in_the_middle_of_an_undo_it_is_undone_all_the_same(two_cables, how):
    """Undoing is repeatable: the second one ends what the first had begun."""
    with opened(two_cables) as net:
        order = bonding_both(net)
    assert begin_and_hold(two_cables, order, "applied")
    console(
        two_cables,
        f"""
{WAIT}
pid=$(cut -d' ' -f2 /run/hostagent/held)
rm -f /run/hostagent/held; echo net:undoing >/run/hostagent/hold
kill -9 $pid
until_true 240 is_held || exit 1
""",
        deadline_s=300,
    )
    if how == "killed":
        kill(two_cables)
        assert_whole(two_cables)
    else:
        cut(two_cables)


@pytest.mark.full
@pytest.mark.parametrize("number", range(PLACES))
@pytest.mark.parametrize("how", ["killed", "power cut"])
def test_stopped_in_the_middle_of_the_way_back_from_a_bond(two_cables, number, how):
    with opened(two_cables) as net:
        bond, _ = net.bond([net.nic(MANAGEMENT).pif, net.nic(SECOND).pif], "active-backup")
        order = f"hostagent-xe bond-destroy uuid={net.api.Bond.get_uuid(bond)}"
    places = places_of(two_cables, order)
    assert_whole(two_cables)
    assert begin_and_hold(two_cables, order, place(places, number))
    if how == "killed":
        kill(two_cables)
        assert_whole(two_cables)
    else:
        cut(two_cables)


def cut(host):
    """The power goes and comes back. `boot` itself waits for ssh, and nobody helps."""
    host.power_off()
    host.boot()
    assert power_on(host).report["ending"] == "complete"
    assert_whole(host)


@pytest.mark.full
def test_a_segment_that_is_down_for_a_while_does_not_make_the_host_change_anything(host):
    before = look(host)
    with contextlib.ExitStack() as stack:
        stack.enter_context(faults.cut(host, "management"))
        console(host, "sleep 30")
    as_before(host, before)
