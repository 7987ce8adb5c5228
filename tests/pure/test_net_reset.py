"""The way back by hand: the generation that worked, then the ladder on the NICs that the operator named."""

from __future__ import annotations

import os
import time

import pytest

from hostagent import hold
from hostagent.errors import CallerError
from hostagent.net import cache, ladder, reset
from hostagent.net.devices import Address
from tests.pure.test_net_reconfigure import MAC, Machine, records

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


def test_without_a_management_interface_there_is_nothing_to_bring_back(machine):
    with pytest.raises(CallerError):
        run(machine, records()._replace(bridge="xenbr9"))


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
