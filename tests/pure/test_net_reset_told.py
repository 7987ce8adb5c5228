"""What an emergency reset says where it cannot help: wrong names of NICs, no NIC named, nothing that can be tried."""

from __future__ import annotations

import pytest

from hostagent.files import FileError
from hostagent.net import bring, cache, journal, ladder
from hostagent.net.devices import Address
from hostagent.net.ladder import Situation
from tests.pure.net_machine import Machine, records
from tests.pure.test_net_reset import CARDS, no_lease, run


@pytest.fixture
def machine(tmp_path):
    cache.write(tmp_path, records())
    return Machine(tmp_path)


def test_a_named_nic_that_is_not_there_is_told_with_those_that_are(machine):
    result = run(machine, no_lease(), listed=("nope", "nope"))

    assert result["outcome"] == "failed"
    assert [told for told in result["told"] if "nope" in told] == ["  there is no NIC nope; there are: eth0"]


def test_it_is_told_too_where_another_nic_has_helped(machine):
    """Nobody answers the first try; then a server does."""
    waited = machine.wait

    def later(seconds):
        waited(seconds)
        link = machine.kernel.look().by_name().get("xenbr0")
        if machine.now > 70 and link is not None and not machine.kernel.addresses:
            machine.kernel.addresses.append(Address(link.ifindex, "192.0.2.99", 24))

    machine.wait = later

    result = run(machine, no_lease(), listed=("nope", "eth0"))

    assert result["outcome"] == "degraded", result["told"]
    assert "there is no NIC nope; there are: eth0" in result["told"]


def test_without_a_named_nic_both_ways_to_name_one_are_told():
    said = ladder.console_message([], Situation(records(), None, CARDS))

    assert "hostagent net emergency-reset --nic NIC" in said
    assert "net.emergency-nics" in said
    assert "there is no NIC" not in said


def test_a_lock_that_cannot_be_opened_ends_it_before_anything_is_tried(machine, monkeypatch):
    (machine.folder / journal.LOCK).mkdir()
    monkeypatch.setattr(bring, "bring", lambda *_: pytest.fail("it was tried"))

    with pytest.raises(FileError, match="could not be opened") as failure:
        run(machine)
    assert "root" in failure.value.hint


def test_a_journal_that_cannot_be_resolved_does_not_keep_the_host_down(machine, monkeypatch):
    def broken(*_, **__):
        raise FileError("the journal could not be renamed", hint="df -h", number=28)

    monkeypatch.setattr("hostagent.net.reset.unfinished", broken)

    result = run(machine)

    assert result["outcome"] == "changed"
    assert "the journal could not be renamed" in result["told"][0]
