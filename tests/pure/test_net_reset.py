"""The way back by hand: the generation that worked, then the ladder on the NICs that the operator named."""

from __future__ import annotations

import os
import time

import pytest

from hostagent import hold
from hostagent.net import cache, climb, dhcp_lease, ladder, reset
from hostagent.net.cards import cards_of
from hostagent.net.devices import Address
from hostagent.net.dhcp_lease import Leased
from hostagent.net.sniff import Sniffed, SniffError
from tests.pure.net_machine import MAC, Machine, records
from tests.pure.startup_network import nic_files

CARDS = (ladder.Seen("eth0", MAC, carrier=True),)


@pytest.fixture
def machine(tmp_path):
    cache.write(tmp_path, records())
    return Machine(tmp_path)


def run(machine, known=None, **options):
    found = cache.Found(cache.Cached(known or records(), 3))
    return reset.reset(found, machine.host(), lambda: CARDS, **options)


def test_what_works_at_once_is_all(machine):
    result = run(machine)

    assert (result["outcome"], result["told"]) == ("changed", [])
    assert [one.text for one in machine.kernel.look().addresses] == ["192.0.2.10"]


def no_lease():
    return records(ip_mode="DHCP", ip="", netmask="", gateway="", dns="")


def test_without_a_named_nic_it_ends_with_the_console_message(machine):
    result = run(machine, no_lease())

    assert result["outcome"] == "failed"
    assert any("no DHCP answer on xenbr0" in told for told in result["told"])
    assert "  eth0 52:54:00:00:00:01: carrier, not listed for emergencies" in result["told"]
    assert not any("rung 3" in told or "rung 4" in told for told in result["told"])


def test_a_named_nic_is_tried_alone_and_is_no_generation_to_go_back_to(machine):
    """Management is on a VLAN whose switch port went away; untagged, a server answers."""
    known = no_lease()
    nic = known.pifs["nic"]._replace(management=False, ip_mode="None")
    upper = known.pifs["upper"]._replace(management=True, ip_mode="DHCP")
    known = known._replace(pifs={"nic": nic, "upper": upper}, bridge="xapi5")
    waited = machine.wait

    def answer(seconds):
        waited(seconds)
        link = machine.kernel.look().by_name().get("xenbr0")
        if machine.now > 70 and link is not None and not machine.kernel.addresses:
            machine.kernel.addresses.append(Address(link.ifindex, "192.0.2.99", 24))

    machine.wait = answer

    result = run(machine, known, listed=("eth0",))

    assert result["outcome"] == "degraded", result["told"]
    assert any(told.startswith("rung 4 of the ladder: DHCP on eth0, untagged") for told in result["told"])
    verified = cache.read_verified(machine.folder)
    assert verified is None or verified.records != known


# hold points of a change


def test_a_change_is_held_at_its_points(tmp_path, monkeypatch):
    order, seen = tmp_path / "hold", []
    order.write_text("net:applied\n")
    order.chmod(0o600)

    def pause(_):
        seen.append((tmp_path / "held").read_text())
        order.unlink()

    monkeypatch.setattr(time, "sleep", pause)

    hold.hold(tmp_path, "net:begun", owner=os.getuid())
    assert seen == []
    hold.hold(tmp_path, "net:applied", owner=os.getuid())

    assert seen == [f"net:applied {os.getpid()}\n"]
    assert not (tmp_path / "held").exists()


# the ladder as a whole


def answering(machine, device, text, *, scope=0):
    """A server, or the kernel, gives an address to a bridge as soon as it is there."""
    waited = machine.wait

    def wait(seconds):
        waited(seconds)
        link = machine.kernel.look().by_name().get(device)
        if link is not None and not any(one.device == link.ifindex for one in machine.kernel.addresses):
            machine.kernel.addresses.append(Address(link.ifindex, text, 64 if scope else 24, scope=scope))

    machine.wait = wait


def test_the_address_of_the_last_lease_is_tried_where_no_server_answers(machine):
    folder = machine.folder / "net"
    machine.folder = folder
    lease = Leased(4, "BOUND", ("192.0.2.88/24",), ("192.0.2.1",))
    dhcp_lease.keep_last("xenbr0", lease, folder.parent)

    result = run(machine, no_lease(), listed=("eth0",))

    assert any(told.startswith("rung 3 of the ladder: 192.0.2.88 on eth0 alone") for told in result["told"])
    assert [one.text for one in machine.kernel.look().addresses] == ["192.0.2.88"]


def test_rungs_that_repeat_leave_time_for_the_others(machine):
    situation = ladder.Situation(no_lease(), None, CARDS, ("eth0",))
    began = []

    def held(records, pif):
        began.append(machine.now)
        return ""

    climbed = climb.climb(lambda: situation, machine.host(), held=held, until=60.0)

    assert [rung.number for rung, _ in climbed.failed] == [ladder.RETRY, ladder.DHCP]
    assert began[1] - began[0] <= climb.SOON_S + 1
    machine.now, alone = 0.0, situation._replace(listed=())
    climb.climb(lambda: alone, machine.host())
    assert machine.now >= ladder.TIMEOUTS_S[ladder.RETRY]


def test_at_the_end_listed_nics_can_be_reached_by_a_link_local_address(machine):
    answering(machine, "xenbr0", "fe80::1", scope=253)

    result = run(machine, no_lease(), listed=("eth0",))

    assert result["outcome"] == "failed"
    assert "  reachable from the same segment: fe80::1 on xenbr0" in result["told"]
    assert "xenbr0" in machine.kernel.look().by_name()


def test_a_listed_nic_that_nobody_has_set_up_is_set_up_first(machine):
    machine.kernel.nic("eth1", 3)

    def cards():
        link = machine.kernel.look().links[3]
        return (*CARDS, ladder.Seen("eth1", link.mac, carrier=bool(link.flags)))

    climbed = climb.climb(lambda: ladder.Situation(no_lease(), None, cards(), ("eth1",)), machine.host())

    assert [(rung.number, rung.card) for rung, _ in climbed.failed] == [
        (ladder.RETRY, ""),
        (ladder.DHCP, "eth1"),
    ]


def test_tags_are_heard_once_on_each_listed_nic_with_carrier(tmp_path):
    nic_files(tmp_path, "eth0", 2)
    nic_files(tmp_path, "eth1", 3)
    asked = []

    def sniff(names, seconds):
        asked.append(tuple(names))
        return {name: Sniffed(vlans={0: 9, 5: 1, 7: 4}) for name in names}

    cards = cards_of(tmp_path, ("eth1", "eth9"), sniff)

    assert [(card.name, card.tags) for card in cards()] == [("eth0", ()), ("eth1", (7, 5))]
    assert cards() == cards()
    assert asked[0] == ("eth1",)
    assert not any(asked[1:])


def test_a_nic_that_cannot_be_listened_on_has_no_tags(tmp_path):
    nic_files(tmp_path, "eth0", 2)

    def sniff(names, seconds):
        raise SniffError("down", hint="", device="eth0", number=100)

    assert [card.tags for card in cards_of(tmp_path, ("eth0",), sniff)()] == [()]
