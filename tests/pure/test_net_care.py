"""A change without a daemon keeps the host reachable."""

from __future__ import annotations

import pytest

from hostagent.net import bring, cache, change, history, journal, reachable, reconfigure
from hostagent.net.devices import Address, Device, Kernel, Lease, Link, Route, Wanted, WantedRoute
from hostagent.net.management import Wire
from hostagent.net.operation import Operation, Plan, Step
from hostagent.net.probe import Answer
from tests.pure.net_care import GATEWAY, PEER, Careful, readdressed
from tests.pure.net_machine import UUID, records


@pytest.fixture
def machine(tmp_path):
    cache.write(tmp_path, records())
    return Careful(tmp_path)


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
