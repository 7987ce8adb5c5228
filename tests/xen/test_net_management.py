"""The management interface is never lost: taken over, moved, and stopped in the middle of it.

Every test ends with a new ssh connection to the address the host had, and nobody has touched the host in between.
Moves that are wrong are in test_net_undone.py.
"""

from __future__ import annotations

import contextlib
import ssl

import pytest
from nested_xen import faults, machine, network, wire
from nested_xen.machine import GATEWAY
from nested_xen.rotation import rotating

from tests.xen.agent import WAIT, power_on, start
from tests.xen.net_look import assert_bridge, assert_vlan, bonding, console, look, look_from_console
from tests.xen.net_moves import (
    MANAGEMENT,
    SECOND,
    adopt,
    as_before,
    assert_reachable,
    assert_whole,
    at_the_console,
    begin_and_hold,
    bonding_both,
    kill,
    management_of,
    management_pif,
    on_one_segment,
    places_of,
    reachable,
)
from tests.xen.net_operator import DEGRADED, DONE, PREFIX, await_start, opened, run
from tests.xen.net_segment import holder, who_has
from tests.xen.nics import nic_name

pytestmark = [pytest.mark.destructive, pytest.mark.timeout(2400)]

NETMASK = str(machine.SUBNET.netmask)
TAG = 5
TAGGED, TAGGED_GATEWAY, TAGGED_NEIGHBOUR = "203.0.113.20", "203.0.113.1", "203.0.113.30"
PLACES = 16
"""The places of a move are spread over so many cases; no move may have more."""


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


@pytest.mark.full
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
    nic = nic_name(host, MANAGEMENT)
    host.exec("systemctl stop hostagent")
    try:
        console(host, f"ip address flush dev xenbr0; ip link set xenbr0 down; ip link set {nic} nomaster")
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
        net.api.pool.management_reconfigure(second.network)
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


@pytest.mark.full
def test_row_14_management_on_a_vlan_of_a_nic_goes_onto_the_bond_with_it_and_back(two_cables):
    host = two_cables
    with wire.join(host.lab, "management", "gateway") as station, holder(station, TAGGED_GATEWAY):
        with opened(host) as net:
            first, second = net.nic(MANAGEMENT), net.nic(SECOND)
            upper = net.vlan(first.pif, TAG)
            net.static(upper, TAGGED, gateway=TAGGED_GATEWAY)
            net.api.host.management_reconfigure(upper)
            bridge = net.bridge(upper)
        try:
            seen = look(host)
            assert_vlan(seen, first.name, TAG, bridge)
            assert seen.gateways() == [TAGGED_GATEWAY]
            with opened(host) as net:
                bond, master = net.bond([first.pif, second.pif], "active-backup")
                device = net.record(master)["device"]
            on_management_vlan(host, device, bridge)
            with opened(host) as net:
                net.api.Bond.destroy(bond)
            on_management_vlan(host, first.name, bridge)
        finally:
            with opened(host) as net:
                net.api.host.management_reconfigure(net.nic(MANAGEMENT).pif)
                (vlan,) = net.api.VLAN.get_all()
                net.api.VLAN.destroy(vlan)
    assert_whole(host)


def on_management_vlan(host, device, bridge):
    """Management is the VLAN on this device, whose gateway is asked under the tag; both answer there."""
    seen = look(host)
    assert_vlan(seen, device, TAG, bridge)
    assert seen.addresses(bridge) == {f"{TAGGED}/{PREFIX}"}
    assert seen.gateways() == [TAGGED_GATEWAY]
    with opened(host) as net:
        record = net.record(management_pif(net))
        assert (record["VLAN"], record["device"], record["IP"]) == (str(TAG), device, TAGGED)
    with wire.join(host.lab, "management", "neighbour") as port:
        assert who_has(port, TAGGED, sender=TAGGED_NEIGHBOUR, tag=TAG) == seen.links[bridge]["address"]


@pytest.mark.full
@pytest.mark.parametrize("keep_old", [False, True])
def test_row_2_the_old_interface_has_no_address_in_the_subnet_after_a_move_unless_it_is_to(
    two_cables, keep_old
):
    host = two_cables
    other, prefix = str(machine.SUBNET[110 + host.machine.index]), machine.SUBNET.prefixlen
    own = f"{host.machine.address}/{prefix}"
    with opened(host) as net:
        first, second = net.nic(MANAGEMENT), net.nic(SECOND)
        was = net.record(first.pif)
        net.api.PIF.reconfigure_ip(second.pif, "Static", other, NETMASK, str(GATEWAY), "")
    words = ("interface-reconfigure", "--no-syslog", "--pif-uuid", second.uuid, "--management")
    code, said = at_the_console(host, *words, *["--keep-old"] * keep_old, "up")
    try:
        seen = look_from_console(host)
        assert seen.addresses(second.bridge) == {f"{other}/{prefix}"}
        assert seen.gateways() == seen.gateways(second.bridge) == [str(GATEWAY)]
        assert seen.addresses("xenbr0") == ({own} if keep_old else set())
        assert host.machine.address in said
        if keep_old:
            assert code == DEGRADED, said
            assert "are in the same subnet" in said
        else:
            assert code == DONE, said
            assert f"was the management interface in the same subnet and loses {host.machine.address}" in said
            assert "--keep-old" in said
    finally:
        if not keep_old:
            back = (
                f"IP={host.machine.address}",
                f"netmask={NETMASK}",
                f"gateway={GATEWAY}",
                f"DNS={was['DNS']}",
            )
            at_the_console(
                host, "hostagent-xe", "pif-reconfigure-ip", f"uuid={first.uuid}", "mode=static", *back
            )
        at_the_console(host, "hostagent-xe", "host-management-reconfigure", f"pif-uuid={first.uuid}")
        with opened(host) as net:
            net.no_address(second.pif)
    assert_whole(host)


# stopped in the middle


class Places:
    """The places at which a move can be stopped, found by the first case that asks, and those that were tried."""

    def __init__(self):
        self.known = []
        self.tried = set()

    def find(self, host, order):
        if not self.known:
            self.known = places_of(host, order)
            assert len(self.known) <= PLACES, f"{len(self.known)} places: raise PLACES"
            assert_whole(host)

    def skip_if_tried(self, number, how):
        """Before the host is touched: the cases are more than the places."""
        if self.known and (self._at(number), how) in self.tried:
            pytest.skip(f"this move has {len(self.known)} places, and {self._at(number)} was tried")

    def take(self, number, how):
        self.tried.add((self._at(number), how))
        return self._at(number)

    def _at(self, number):
        return self.known[number * len(self.known) // PLACES]


@pytest.fixture(scope="module")
def places_into():
    return Places()


@pytest.fixture(scope="module")
def places_back():
    return Places()


@pytest.fixture
def move(request, places_into, number):
    """The longest move, and the place where this case stops it."""
    how = request.function.__name__
    places_into.skip_if_tried(number, how)
    host = request.getfixturevalue("two_cables")
    with opened(host) as net:
        order = bonding_both(net)
    places_into.find(host, order)
    return order, places_into.take(number, how)


@pytest.mark.parametrize("number", rotating(range(PLACES), count=1))
def test_killed_in_the_middle_of_a_move_the_host_is_reachable_again(move, two_cables):
    order, point = move
    assert begin_and_hold(two_cables, order, point), f"{point} was not reached"
    kill(two_cables)
    assert_whole(two_cables)


@pytest.mark.full
@pytest.mark.parametrize("number", range(PLACES))
def test_the_power_goes_in_the_middle_of_a_move_and_the_host_is_reachable_again(move, two_cables):
    order, point = move
    assert begin_and_hold(two_cables, order, point), f"{point} was not reached"
    cut(two_cables)


@pytest.mark.full
def test_killed_when_all_is_applied_but_not_committed_the_move_is_undone(two_cables):
    with opened(two_cables) as net:
        order = bonding_both(net)
    assert begin_and_hold(two_cables, order, "applied")
    kill(two_cables)
    assert_whole(two_cables)
    assert management_of(look(two_cables), two_cables) == "xenbr0"


@pytest.mark.full
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
def test_stopped_in_the_middle_of_the_way_back_from_a_bond(request, places_back, number, how):
    places_back.skip_if_tried(number, how)
    two_cables = request.getfixturevalue("two_cables")
    with opened(two_cables) as net:
        bond, _ = net.bond([net.nic(MANAGEMENT).pif, net.nic(SECOND).pif], "active-backup")
        order = f"hostagent-xe bond-destroy uuid={net.api.Bond.get_uuid(bond)}"
    places_back.find(two_cables, order)
    assert begin_and_hold(two_cables, order, places_back.take(number, how))
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
