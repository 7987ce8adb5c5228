"""What an undo took back, and what the emergency reset goes over, is noted until somebody plugs it."""

from __future__ import annotations

import pytest

from hostagent.net import bring, cache, climb, journal, ladder, reset, taken_back
from hostagent.net.devices import Address
from hostagent.net.model import want
from hostagent.net.plan import plan
from hostagent.net.unfinished import unfinished
from tests.pure.net_machine import UUID, Machine, records


@pytest.fixture
def machine(tmp_path):
    cache.write(tmp_path / "net", records())
    return Machine(tmp_path / "net")


def host(machine):
    return machine.host()._replace(run=machine.folder.parent / "run")


def up(machine, **request):
    found = cache.read(machine.folder)
    return bring.bring(bring.Request("up", **({"pif": UUID} | request)), found, host(machine))


def noted(machine):
    return taken_back.noted(host(machine).run)


def waiting_vlan(machine):
    assert up(machine)["outcome"] == "changed"
    assert up(machine, pif="uuid-vlan", confirm=True)["outcome"] == "waiting"


def test_what_an_undo_takes_back_is_noted_before_its_first_step(machine, monkeypatch):
    waiting_vlan(machine)
    assert noted(machine) == {}
    seen = []
    execute = machine.kernel.execute

    def watched(operations):
        seen.append(noted(machine))
        execute(operations)

    monkeypatch.setattr(machine.kernel, "execute", watched)

    assert bring.undo(host(machine))["outcome"] == "undone"

    assert [list(one) for one in seen[:1]] == [["upper"]]
    assert "was undone" in noted(machine)["upper"]


def test_what_a_change_undoes_first_is_noted_too(machine):
    waiting_vlan(machine)

    with journal.Lock(machine.folder, "a test", wait_s=1.0):
        unfinished(host(machine))

    assert list(noted(machine)) == ["upper"]


def test_who_plugs_it_ends_it_and_a_boot_does_not(machine):
    waiting_vlan(machine)
    bring.undo(host(machine))

    up(machine, pif="uuid-vlan", boot=True)
    up(machine)
    assert list(noted(machine)) == ["upper"]
    up(machine, pif="uuid-vlan")

    assert noted(machine) == {}


def test_what_comes_along_is_plugged_with_it(machine):
    up(machine)
    taken_back.restoring(host(machine), records(), records().pifs["nic"], records())

    up(machine, pif="uuid-vlan")

    assert noted(machine) == {}


def test_a_repair_of_what_was_taken_back_meanwhile_is_refused(machine):
    taken_back.restoring(host(machine), records(), records().pifs["nic"], records())
    wanted = want(records(), ["nic"])

    with pytest.raises(taken_back.TakenBackError, match="earlier generation"):
        taken_back.refuse(host(machine), ["nic"], wanted)
    taken_back.plugged(host(machine), ["nic"], wanted)
    taken_back.refuse(host(machine), ["nic"], wanted)


def test_the_reset_notes_what_the_newest_records_have_on_its_devices_before_it_begins(machine, monkeypatch):
    newest = records()
    other = newest.pifs["nic"]._replace(ref="other", uuid="uuid-other", management=False)
    far = newest.pifs["nic"]._replace(ref="far", uuid="uuid-far", device="eth1", network="n1")
    newest = newest._replace(pifs={"other": other, "upper": newest.pifs["upper"], "far": far})
    cache.write(machine.folder, newest)
    begun = []
    attempt = climb.attempt

    def watched(*given):
        begun.append(set(noted(machine)))
        return attempt(*given)

    monkeypatch.setattr(climb, "attempt", watched)

    reset.reset(cache.Found(cache.Cached(records(), 3)), host(machine), list)

    assert begun == [{"nic", "other", "far"}]
    assert set(noted(machine)) == {"nic", "other", "far"}


def test_a_boot_that_goes_back_to_the_verified_generation_notes_it(machine):
    no_lease = records(ip_mode="DHCP", ip="", netmask="", gateway="", dns="")

    climbed = climb.climb(
        lambda: ladder.Situation(no_lease, records(), (), (), None),
        host(machine),
        tried={(ladder.RETRY, "", -1)},
    )

    assert climbed.rung is not None
    assert climbed.rung.number == ladder.RESTORE
    assert list(noted(machine)) == ["nic"]


@pytest.mark.parametrize("content", ["", "[1]", "{", "7"])
def test_a_note_that_cannot_be_read_is_none(machine, content):
    file = host(machine).run / taken_back.FILE
    file.parent.mkdir(parents=True)
    file.write_text(content)
    assert noted(machine) == {}


def test_an_undo_goes_on_where_it_cannot_be_noted(machine):
    waiting_vlan(machine)
    (machine.folder.parent / "run").write_text("no folder")

    result = bring.undo(host(machine))

    assert result["outcome"] == "undone"
    assert any("repaired" in told for told in result["told"])


def test_an_undo_of_before_this_boot_takes_back_no_pif(machine):
    planned = plan(want(records(), ["nic"]), machine.kernel.look())
    journal.begin(machine.folder, planned, boot="another", digest="", what="up")
    machine.kernel.addresses.append(Address(2, "192.0.2.99", 24))

    bring.undo(host(machine))

    assert noted(machine) == {}
