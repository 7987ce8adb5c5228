"""A change without a daemon keeps the host reachable, takes nobody's address, and tells the neighbours."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.net import (
    bring,
    cache,
    change,
    connections,
    history,
    host,
    journal,
    lacp,
    reachable,
    reconfigure,
)
from hostagent.net.devices import Address, Device, Kernel, Lease, Link, Route, Wanted, WantedRoute
from hostagent.net.former import cleared
from hostagent.net.management import Wire
from hostagent.net.operation import Operation, Plan, Step
from hostagent.net.probe import Answer, ProbeError
from hostagent.net.records import Bond, Network, Pif, Records
from tests.pure.test_net_reconfigure import UUID, Machine, records

OTHER = "52:54:00:aa:aa:aa"
GATEWAY, PEER = "192.0.2.1", "192.0.2.50"


class Segment:
    """The wire: who answers there, who has addresses, and what was announced."""

    def __init__(self, machine):
        self.machine = machine
        self.answering = {GATEWAY, PEER}
        self.held = {}
        self.announced = []
        self.asked = []
        self.sessions = []
        self.master = ""

    def ask(self, probe, seconds):
        self.asked.append(probe.target)
        return Answer(probe, probe.target in self.answering)

    def holder(self, device, address, seconds):
        if device not in self.machine.kernel.look().by_name():
            raise ProbeError("no such device", hint="")
        self.asked.append(f"who has {address}")
        return self.held.get(address, "")

    def announce(self, device, addresses):
        self.announced.append((device, tuple(addresses)))

    def wire(self):
        return Wire(self.ask, self.holder, self.announce, lambda: self.sessions, lambda: self.master)


class Careful(Machine):
    def __init__(self, folder):
        super().__init__(folder)
        self.segment = Segment(self)
        self.remarks = []

    def host(self, *_):
        return super().host()._replace(wire=self.segment.wire(), remarks=lambda: self.remarks)


@pytest.fixture
def machine(tmp_path):
    cache.write(tmp_path, records())
    return Careful(tmp_path)


def readdressed(**changed):
    return records(**{"ip": "192.0.2.77", **changed})


# reachable before, reachable after


def test_first_bring_up_has_nothing_to_lose_and_arms_no_timer(machine):
    assert machine.up()["outcome"] == "changed"
    assert machine.armed == []


def test_a_change_of_management_is_guarded_and_kept_when_its_gateway_answers(machine):
    machine.up()

    result = machine.up(which=readdressed())

    assert (result["outcome"], result["error"]) == ("changed", None)
    assert machine.armed == [2 * reachable.SETTLE_S + change.SPARE_S, "disarmed"]
    assert [one.text for one in machine.kernel.look().addresses] == ["192.0.2.77"]
    assert journal.pending(machine.folder) is None


def test_a_gateway_that_is_lost_undoes_the_change(machine):
    machine.up()
    before = machine.kernel.look()

    result = machine.up(which=readdressed(gateway="192.0.2.254"))

    assert result["outcome"] == "rolled-back"
    assert (
        "the gateway 192.0.2.254 answered before the change, and not within 30 s" in result["error"]["found"]
    )
    assert machine.kernel.look() == before
    assert machine.armed == [2 * reachable.SETTLE_S + change.SPARE_S, "disarmed"]
    assert machine.segment.announced[-1] == ("xenbr0", ("192.0.2.10",))
    entry = history.read(machine.folder, most=1)[0]
    assert entry.outcome == "rolled-back"
    assert sum(step.milliseconds for step in entry.steps) > 0
    assert journal.pending(machine.folder) is None


def test_what_did_not_answer_before_is_not_asked_for_after(machine):
    machine.segment.answering.clear()
    machine.up()

    assert machine.up(which=readdressed(gateway="192.0.2.254"))["outcome"] == "changed"
    assert machine.armed == []


def test_a_gateway_that_is_given_up_is_not_missed(machine):
    machine.up()

    assert machine.up(which=readdressed(gateway=""))["outcome"] == "changed"


@pytest.mark.parametrize("netmask", ["255.255.255.0", "255.255.255.255"])
@pytest.mark.parametrize("sessions", [[], [("192.0.2.10", PEER)]])
def test_another_subnet_without_a_gateway_leaves_nothing_to_ask_and_is_undone(machine, sessions, netmask):
    machine.up()
    machine.segment.sessions = sessions
    before = machine.kernel.look()

    result = machine.up(which=readdressed(ip="203.0.113.9", netmask=netmask, gateway=""))

    assert result["outcome"] == "rolled-back"
    assert "nothing can be asked on xenbr0" in result["error"]["found"]
    assert GATEWAY in result["error"]["found"]
    assert machine.kernel.look() == before


def test_a_change_that_is_to_be_confirmed_may_leave_nothing_to_ask(machine):
    machine.up()

    result = machine.up(which=readdressed(ip="203.0.113.9", gateway=""), confirm=True)

    assert result["outcome"] == "waiting"


def test_an_interface_that_loses_all_its_addresses_is_undone(machine):
    machine.up()
    before = machine.kernel.look()

    result = machine.up(which=readdressed(ip_mode="None", ip="", netmask="", gateway=""))

    assert result["outcome"] == "rolled-back"
    assert machine.kernel.look() == before


def test_a_gateway_that_is_given_up_and_does_not_answer_any_more_is_lost(machine):
    machine.up()
    ask = machine.segment.ask

    def silent_after(probe, seconds):
        if "192.0.2.77" in {one.text for one in machine.kernel.look().addresses}:
            machine.segment.answering.clear()
        return ask(probe, seconds)

    machine.segment.ask = silent_after

    assert machine.up(which=readdressed(gateway=""))["outcome"] == "rolled-back"


def test_of_the_neighbours_that_talk_with_us_one_must_answer(machine):
    machine.up()
    machine.segment.sessions = [
        ("192.0.2.10", PEER),
        ("192.0.2.10", "203.0.113.7"),
        ("127.0.0.1", "127.0.0.1"),
    ]
    ask = machine.segment.ask

    def lost_after(probe, seconds):
        if "192.0.2.77" in {one.text for one in machine.kernel.look().addresses}:
            machine.segment.answering.discard(PEER)
        return ask(probe, seconds)

    machine.segment.ask = lost_after

    result = machine.up(which=readdressed())

    assert result["outcome"] == "rolled-back"
    assert f"the neighbour {PEER}" in result["error"]["found"]
    assert "203.0.113.7" not in machine.segment.asked


def test_the_coordinator_must_answer(machine):
    machine.up()
    machine.segment.master = "198.51.100.1"
    answers = iter([True])
    ask = machine.segment.ask
    machine.segment.ask = lambda probe, seconds: (
        Answer(probe, next(answers, False)) if probe.kind == "tcp" else ask(probe, seconds)
    )

    result = machine.up(which=readdressed())

    assert result["outcome"] == "rolled-back"
    assert "the pool's coordinator 198.51.100.1" in result["error"]["found"]


def test_an_undo_that_waits_for_the_lock_finds_a_committed_change(machine):
    """The timer was faster than its being stopped."""
    machine.up()
    opened = machine.host()

    def late():
        from hostagent.net.guard import GuardError

        raise GuardError("the confirmation came too late", hint="")

    found = cache.Found(cache.Cached(readdressed(), 7))
    result = bring.bring(bring.Request("up", UUID), found, opened._replace(disarm=late))

    assert result["outcome"] == "changed"
    after = machine.kernel.look()
    assert bring.undo(machine.host())["outcome"] == "nothing"
    assert machine.kernel.look() == after


def test_a_vlan_beside_management_asks_nobody(machine):
    machine.up()
    machine.segment.asked.clear()

    bring.bring(bring.Request("up", bridge="xapi5"), cache.read(machine.folder), machine.host())

    assert machine.segment.asked == []
    assert machine.armed == []


def test_sessions_through_the_gateway_need_a_default_route_afterwards(machine):
    machine.up()
    machine.segment.sessions = [("192.0.2.10", "203.0.113.7")]
    before = machine.kernel.look()

    result = machine.up(which=readdressed(gateway=""))

    assert result["outcome"] == "rolled-back"
    assert f"connections come through {GATEWAY}" in result["error"]["found"]
    assert machine.kernel.look() == before


def test_sessions_through_the_gateway_are_kept_by_another_one_or_given_up_by_who_confirms(machine):
    machine.up()
    machine.segment.sessions = [("192.0.2.10", "203.0.113.7")]
    machine.segment.answering.add("192.0.2.254")

    assert machine.up(which=readdressed(gateway="192.0.2.254"))["outcome"] == "changed"
    machine.segment.sessions = [("192.0.2.77", "203.0.113.7")]
    assert machine.up(which=readdressed(gateway=""), confirm=True)["outcome"] == "waiting"


def dual(*flags):
    """A bridge with both families; the addresses of IPv6 have these flags."""
    six = (Address(2, f"2001:db8::{number}", 64, each) for number, each in enumerate(flags, start=1))
    routes = (Route(2, "default4", GATEWAY), Route(2, "default6", "fe80::1"))
    link = Link(2, "xenbr0", "bridge", "52:54:00:00:00:01", 1500, 0, 0, 1, 0, carrier=True, operstate=6)
    return Kernel(
        {2: link}, (Address(2, "192.0.2.10", 24), Address(2, "fe80::2", 64, 0x80, 253), *six), routes
    )


def again(baseline, wanted, *looks, answering=(GATEWAY, "fe80::1")):
    """The seconds that it took."""
    left, passed = list(looks), [0.0]
    wire = Wire(lambda probe, _: Answer(probe, probe.target in answering), lambda *_: "", lambda *_: None)
    reachable.await_again(baseline, wanted, "xenbr0", wire,
                          look=lambda: left.pop(0) if len(left) > 1 else left[0],
                          wait=passed.append, clock=lambda: sum(passed))  # fmt: skip
    return sum(passed)


def test_sessions_of_each_family_need_a_default_route_of_that_family():
    kernel, peers = dual(0x80), [("192.0.2.10", "203.0.113.7"), ("2001:db8::1", "2001:db8:9::7")]
    wire = Wire(lambda probe, _: Answer(probe, answered=True), lambda *_: "", lambda *_: None, lambda: peers)
    baseline = reachable.before(kernel, "xenbr0", wire)
    assert baseline.through == (4, 6)

    with pytest.raises(reachable.LostError, match=GATEWAY):
        again(baseline, Wanted(), kernel._replace(routes=kernel.routes[1:]))


def test_an_ipv6_address_that_is_being_checked_is_waited_for():
    baseline = reachable.Baseline(((6, "fe80::1"),))
    wanted = Wanted(devices=(Device("xenbr0", "bridge", ipv6="autoconf", ipv6_gateway=True),))

    assert again(baseline, wanted, dual(0xC0), dual(0xC0), dual(0x80)) == 2 * reachable.POLL_S
    assert again(baseline, wanted, dual(0x80)) == 0
    assert again(baseline, wanted, dual(0xC0)) == reachable.SETTLE_S  # what answers is not undone for it


def test_an_advertised_gateway_that_goes_to_another_interface_is_not_missed():
    baseline = reachable.Baseline(((4, GATEWAY), (6, "fe80::1")))
    device = Device("xenbr0", "bridge", ipv6="autoconf", ipv6_gateway=False)
    kernel = dual(0x80)._replace(routes=(Route(2, "default4", GATEWAY),))
    routes = (WantedRoute("xenbr0", "default4", GATEWAY),)

    assert again(baseline, Wanted(devices=(device,), routes=routes), kernel) == 0
    with pytest.raises(reachable.LostError, match="fe80::1"):
        again(baseline, Wanted(devices=(device._replace(ipv6_gateway=True),), routes=routes), kernel)


CARD = Link(3, "eth0", "", "52:54:00:00:00:01", 1500, 2, 0, 1, 0, carrier=True, operstate=6)


@pytest.mark.parametrize(
    ("wanted", "device", "args", "seconds"),
    [
        (Wanted(), "xenbr0", {"up": True}, reachable.SETTLE_S),
        (Wanted(), "eth0", {"mtu": 9000}, reachable.SETTLE_S),
        (Wanted(), "eth0", {"up": False}, reachable.LONG_SETTLE_S),
        (Wanted(), "eth0", {"master": 7}, reachable.LONG_SETTLE_S),
        (
            Wanted(leases=(Lease("xenbr0", 4, gateway=True, dns=True),)),
            "xenbr0",
            {"mtu": 9000},
            reachable.LONG_SETTLE_S,
        ),
        (
            Wanted(devices=(Device("bond0", "bond", settings={"mode": 4}),)),
            "bond0",
            {},
            reachable.LONG_SETTLE_S,
        ),
    ],
)
def test_what_takes_a_link_down_or_asks_a_server_has_longer(wanted, device, args, seconds):
    kernel = dual(0x80)._replace(links={**dual().links, 3: CARD})
    plan = Plan((Step(Operation("link-set", device, 2, args), ()),))

    assert reachable.settle_s(wanted, plan, kernel) == seconds


def test_the_client_of_the_daemon_waits_for_a_change_that_settles_slowly_and_is_undone():
    assert reconfigure.ANSWER_SPARE_S >= 2 * reachable.LONG_SETTLE_S + change.SPARE_S


# addresses


def test_an_address_of_another_host_stops_a_change_before_anything_is_touched(machine):
    machine.up()
    machine.segment.held["192.0.2.77"] = OTHER
    done = machine.kernel.done

    with pytest.raises(reachable.ConflictError, match=f"another host, {OTHER}, has 192.0.2.77") as caught:
        machine.up(which=readdressed())

    assert caught.value.code == "PIF_CONFIGURATION_ERROR"
    assert machine.kernel.done == done


def test_where_it_cannot_be_asked_before_it_is_asked_after_and_undone(machine):
    before = set(machine.kernel.look().by_name())
    machine.segment.held["192.0.2.10"] = OTHER

    result = machine.up()

    assert result["outcome"] == "rolled-back"
    assert OTHER in result["error"]["found"]
    assert set(machine.kernel.look().by_name()) == before


def test_at_boot_the_address_is_taken_and_the_other_host_told(machine):
    machine.segment.held["192.0.2.10"] = OTHER

    result = machine.up(boot=True)

    assert (result["outcome"], result["told"]) == ("degraded", [f"another host, {OTHER}, has 192.0.2.10"])
    assert [one.text for one in machine.kernel.look().addresses] == ["192.0.2.10"]


def test_each_new_address_is_asked_for_once_and_old_ones_never(machine):
    machine.up()
    assert machine.segment.asked.count("who has 192.0.2.10") == 1
    machine.segment.asked.clear()

    machine.up(which=readdressed())

    assert [one for one in machine.segment.asked if one.startswith("who")] == ["who has 192.0.2.77"]


def test_what_was_changed_is_announced_and_what_was_not_is_not(machine):
    machine.up()
    assert machine.segment.announced == [("xenbr0", ("192.0.2.10",))]

    machine.up()

    assert len(machine.segment.announced) == 1


def test_an_announcement_that_fails_is_told(machine):
    def fail(device, addresses):
        raise ProbeError("no carrier", hint="")

    machine.segment.announce = fail

    result = machine.up()

    assert (result["outcome"], result["told"]) == ("degraded", ["192.0.2.10 not announced: no carrier"])


# a move


def two():
    """Management on eth0, and eth1 in the same subnet."""
    given = records()
    other = Pif("new", "uuid-new", "eth1", "n1", mac="52:54:00:00:00:02", physical=True, ip_mode="Static",
                ip="192.0.2.20", netmask="255.255.255.0", gateway=GATEWAY)  # fmt: skip
    networks = {**given.networks, "n1": Network("n1", "uuid-n1", "two", "xenbr1")}
    return given._replace(pifs={**given.pifs, "new": other}, networks=networks)


def moved(machine, **request):
    machine.kernel.nic("eth1", 3)
    machine.kernel.links[3].mac = machine.kernel.links[3].permanent_mac = "52:54:00:00:00:02"
    cache.write(machine.folder, two())
    machine.up()
    asked = bring.Request("up", "new", management=True, **request)
    result = bring.bring(asked, cache.read(machine.folder), machine.host())
    kernel = machine.kernel.look()
    return result, {(kernel.links[one.device].name, one.text) for one in kernel.addresses}


def test_a_move_within_a_subnet_clears_the_former_address(machine):
    result, addresses = moved(machine)

    assert addresses == {("xenbr1", "192.0.2.20")}
    assert any("loses 192.0.2.10 (hint: --keep-old" in told for told in result["told"])
    assert result["outcome"] == "changed"


def test_keep_old_keeps_it(machine):
    result, addresses = moved(machine, keep_old=True)

    assert addresses == {("xenbr0", "192.0.2.10"), ("xenbr1", "192.0.2.20")}
    assert not any("--keep-old" in told for told in result["told"])


def test_another_subnet_keeps_its_address():
    given = two()
    nic = given.pifs["nic"]._replace(currently_attached=True, ipv6_mode="Static", ipv6=("2001:db8::1/64",))
    given = given._replace(pifs={**given.pifs, "nic": nic})
    elsewhere = given.pifs["new"]._replace(ip="198.51.100.1", ipv6_mode="Static", ipv6=("2001:db8::2/32",))

    now, changed, told = cleared(given, elsewhere)

    assert changed == ("nic",)
    assert (now.pifs["nic"].ip, now.pifs["nic"].ipv6) == ("192.0.2.10", ())
    assert "loses 2001:db8::1/64 (" in told[0]


# what the host as a whole says


def test_a_packet_filter_on_bridges_is_less_and_still_verified(machine, tmp_path):
    machine.remarks = ["guests' frames pass dom0's packet filter"]

    result = machine.up()

    assert (result["outcome"], result["told"]) == ("degraded", machine.remarks)
    assert cache.read_verified(machine.folder) is not None


def test_the_settings_of_the_packet_filter_are_read(tmp_path):
    assert host.filtered(tmp_path) == []
    folder = tmp_path / "proc/sys/net/bridge"
    folder.mkdir(parents=True)
    for name, value in zip(host.FILTERS, "101", strict=True):
        (folder / name).write_text(f"{value}\n")

    assert [told.split(" is 1")[0].rpartition(".")[2] for told in host.filtered(tmp_path)] == [
        "bridge-nf-call-iptables",
        "bridge-nf-call-arptables",
    ]


@pytest.mark.parametrize(
    ("content", "address"),
    [("slave:192.0.2.5\n", "192.0.2.5"), ("master\n", ""), ("slave:nobody\n", ""), (None, "")],
)
def test_the_coordinator_is_that_of_the_pool_role(tmp_path, content, address):
    if content is not None:
        (tmp_path / "etc/hostagent").mkdir(parents=True)
        (tmp_path / host.POOL).write_text(content)

    assert host.coordinator(tmp_path) == address


TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0A0200C0:0016 320200C0:D431 01 00000000:00000000 02:00000000 00000000     0        0 1 2
   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 3 1
"""
MAPPED6 = "0000000000000000FFFF00000A0200C0:0016 0000000000000000FFFF0000320200C0:D431 01"


@pytest.mark.skipif(sys.byteorder != "little", reason="the table is of a little-endian machine")
def test_open_connections_are_read_and_listening_ones_passed_over(tmp_path):
    assert connections.parse(TABLE) == [("192.0.2.10", PEER)]
    assert connections.parse(f"head\n 0: {MAPPED6}\n") == [("192.0.2.10", PEER)]
    folder = tmp_path / "proc/net"
    folder.mkdir(parents=True)
    (folder / "tcp").write_text(TABLE)
    assert connections.talking(tmp_path) == (("192.0.2.10", PEER),)


@given(
    st.text(max_size=200) | st.text("0123456789ABCDEF: \n", max_size=200).map(lambda text: "h\n0: " + text)
)
def test_any_text_is_read_as_connections_or_none(text):
    assert all(own and other for own, other in connections.parse(text))


def test_a_router_that_is_asked_by_its_link_local_address_is_asked_from_ours(machine):
    machine.up()
    index = machine.kernel.look().by_name()["xenbr0"].ifindex
    machine.kernel.addresses.append(Address(index, "fe80::10", 64, scope=253))
    machine.kernel.addresses.append(Address(index, "2001:db8::10", 64))
    machine.kernel.routes.append(Route(index, "default6", "fe80::1", 9))
    sources = []

    def ask(probe, seconds):
        sources.append((probe.target, probe.source))
        return Answer(probe, answered=True)

    wire = machine.segment.wire()._replace(ask=ask)

    found = reachable.before(machine.kernel.look(), "xenbr0", wire)

    assert found.gateways == ((4, GATEWAY), (6, "fe80::1"))
    assert ("fe80::1", "fe80::10") in sources


def test_a_device_that_is_not_there_has_no_baseline(machine):
    assert not reachable.before(machine.kernel.look(), "xenbr9", machine.segment.wire())


# LACP below management

SWITCH = "52:54:00:bb:bb:bb"


def bonded(mode):
    """eth0 and eth1 as a bond, which is management."""
    nics = [
        Pif(
            name,
            f"uuid-{name}",
            name,
            "n0",
            mac=f"52:54:00:00:00:0{number}",
            physical=True,
            bond_slave_of="bond",
        )
        for number, name in enumerate(("eth0", "eth1"), start=1)
    ]
    master = Pif("master", UUID, "bond0", "nb", mac=nics[0].mac, management=True, ip_mode="Static", ip="192.0.2.10",
                 netmask="255.255.255.0", gateway=GATEWAY, dns="192.0.2.2", bond_master_of=("bond",))  # fmt: skip
    networks = {ref: Network(ref, ref, ref, bridge) for ref, bridge in (("n0", "xenbr0"), ("nb", "xapi0"))}
    bond = Bond("bond", "bond", "master", ("eth0", "eth1"), primary_slave="eth0", mode=mode)
    pifs = {pif.ref: pif for pif in (*nics, master)}
    return Records("host-1", pifs, networks, {"bond": bond}, {}, "xapi0")


@pytest.fixture
def cabled(machine):
    """A machine with a second NIC, whose switch answers LACP after `answers` waits, in these groups."""
    machine.kernel.nic("eth1", 3)
    machine.kernel.links[3].mac = machine.kernel.links[3].permanent_mac = "52:54:00:00:00:02"
    machine.answers, machine.groups = 3, (1, 1)
    wait = machine.wait

    def negotiate(seconds):
        wait(seconds)
        machine.answers -= 1
        for link in machine.kernel.links.values():
            if link.kind == "bond" and machine.answers <= 0:
                link.partner = SWITCH
            if link.master and machine.kernel.links[link.master].kind == "bond":
                link.port = {"ad_aggregator_id": machine.groups[link.ifindex - 2]}

    machine.wait = negotiate
    return machine


@pytest.mark.parametrize(
    ("answers", "groups", "told"),
    [
        (3, (1, 1), ""),
        (10**6, (1, 1), "no LACP partner on bond0"),
        (
            3,
            (1, 2),
            "different LACP groups, and only one of them carries traffic (aggregator 1: eth0; aggregator 2",
        ),
    ],
)
def test_management_on_an_lacp_bond_is_kept_with_a_partner_only(cabled, answers, groups, told):
    cabled.up(which=bonded("active-backup"))
    before = cabled.kernel.look().by_name()["bond0"].settings["mode"]
    cabled.answers, cabled.groups = answers, groups

    result = cabled.up(which=bonded("lacp"))

    assert result["outcome"] == ("rolled-back" if told else "changed")
    assert told in (result["error"]["found"] if result["error"] else "")
    assert (cabled.kernel.look().by_name()["bond0"].settings["mode"] == before) is bool(told)


def test_at_boot_an_lacp_bond_without_partner_is_better_than_nothing(cabled):
    cabled.answers = 10**6

    assert cabled.up(which=bonded("lacp"), boot=True)["outcome"] == "changed"


def test_a_bond_that_has_no_partner_as_before_does_not_stop_a_change(cabled):
    cabled.answers = 10**6
    cabled.up(which=bonded("lacp"), boot=True)
    given = bonded("lacp")
    pifs = {**given.pifs, "master": given.pifs["master"]._replace(ip="192.0.2.77")}

    assert cabled.up(which=given._replace(pifs=pifs))["outcome"] == "changed"


def test_a_management_interface_without_bond_has_no_lacp():
    assert lacp.management_bond(records()) == ""
    assert lacp.management_bond(records()._replace(pifs={})) == ""
    assert lacp.management_bond(bonded("lacp")) == "bond0"
