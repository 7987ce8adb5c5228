"""A change without a daemon keeps the host reachable, takes nobody's address, and tells the neighbours."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.net import bring, cache, change, connections, history, host, journal, reachable
from hostagent.net.devices import Address, Route
from hostagent.net.former import cleared
from hostagent.net.management import Wire
from hostagent.net.probe import Answer, ProbeError
from hostagent.net.records import Network, Pif
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
    assert machine.armed == [change.UNDO_S, "disarmed"]
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
    assert machine.armed == [change.UNDO_S, "disarmed"]
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
