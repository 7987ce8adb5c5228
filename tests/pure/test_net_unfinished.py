"""What a killed process leaves is resolved by whoever comes next: nothing blocks for ever, nothing is said to be undone
that is not."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from hostagent.errors import BusyError, HostagentError, KernelError
from hostagent.files import FileError
from hostagent.net import bring, cache, history, journal, reset
from hostagent.net.attached import attached
from hostagent.net.guard import GuardError
from hostagent.net.model import want
from hostagent.net.operation import Operation, Plan, Step
from hostagent.net.plan import plan
from hostagent.net.reconfigure import DONE, FAILED, exit_of
from hostagent.net.unfinished import unfinished
from tests.pure.net_care import Segment, readdressed
from tests.pure.net_kernel import RefusedError
from tests.pure.net_machine import UUID, Machine, records


@pytest.fixture
def machine(tmp_path):
    cache.write(tmp_path, records())
    return Machine(tmp_path)


def left_over(machine, *, state=journal.APPLIED, boot="boot-1", spoilt=False):
    """A process brought the VLAN up, and died. `spoilt`: something of it can never be undone."""
    planned = plan(want(records(), ["upper"]), machine.kernel.look())
    if spoilt:
        never = Operation("link-set", "eth0", 2, {"mtu": 100000})
        planned = Plan((*planned.steps, Step(Operation("link-set", "eth0", 2, {"mtu": 1500}), (never,))))
    left = journal.begin(machine.folder, planned, boot=boot, digest="", what="up the VLAN")
    machine.kernel.execute([step.do for step in planned.steps if step.do.verb.startswith("link")])
    journal.progress(machine.folder, len(planned.steps))
    if state != journal.BEGUN:
        journal.mark(machine.folder, left, state)


def there(machine):
    return "xapi5" in machine.kernel.look().by_name()


def pending(machine):
    return journal.pending(machine.folder)


# --- whose maker died when all of it was done ---


def test_the_next_change_undoes_it(machine):
    left_over(machine)

    result = machine.up()

    assert result["told"] == ["undid what was left unfinished: up the VLAN"]
    assert not there(machine)
    assert attached(records(), machine.kernel.look()) == {"nic"}
    assert machine.armed == ["stood down"]
    assert pending(machine) is None


def test_a_confirmation_keeps_it_though_no_timer_runs(machine):
    left_over(machine)

    def none():
        raise GuardError("no change waits for a confirmation", hint="")

    result = bring.confirm(machine.host()._replace(disarm=none))

    assert result["outcome"] == "confirmed"
    assert there(machine)
    assert pending(machine) is None


def test_an_undo_undoes_it_and_stops_the_timer(machine):
    left_over(machine)

    assert bring.undo(machine.host())["outcome"] == "undone"

    assert not there(machine)
    assert machine.armed == ["disarmed"]
    assert pending(machine) is None


def test_one_that_is_not_whole_cannot_be_confirmed_and_says_so(machine):
    left_over(machine, state=journal.BEGUN)

    result = bring.confirm(machine.host())

    assert result["outcome"] == "nothing"
    assert result["error"] is not None
    assert "up the VLAN is begun" in result["error"]["found"]


# --- that waits for an operator ---


@pytest.mark.parametrize("waits", [True, False])
def test_one_that_waits_is_left_alone_while_its_timer_runs(machine, waits):
    left_over(machine, state=journal.WAITING)
    machine.waits = waits

    told = unfinished(machine.host())

    assert bool(told) is not waits
    assert there(machine) is waits


def test_it_waits_where_systemd_cannot_be_asked(machine):
    left_over(machine, state=journal.WAITING)

    def broken():
        raise HostagentError("systemctl does not answer", hint="")

    assert unfinished(machine.host()._replace(waiting=broken)) == ""
    assert there(machine)


def test_the_way_back_by_hand_waits_for_nobody(machine):
    left_over(machine, state=journal.WAITING)
    machine.waits = True

    result = reset.reset(cache.read(machine.folder), machine.host(), tuple)

    assert result["outcome"] == "changed"
    assert not there(machine)
    assert attached(records(), machine.kernel.look()) == {"nic"}


# --- an undo that fails ---


def test_an_undo_that_has_troubles_does_not_end_well_and_is_tried_again(machine):
    left_over(machine, spoilt=True)

    result = bring.undo(machine.host())

    assert result["outcome"] == "undo-failed"
    assert exit_of(result) == FAILED
    assert "mtu" in result["told"][0]
    assert machine.armed == []
    assert not there(machine)
    left = pending(machine)
    assert left is not None
    assert left.state == journal.UNDO_FAILED
    bring.undo(machine.host())
    assert [entry.outcome for entry in history.read(machine.folder)] == ["undo-failed"]


@pytest.mark.parametrize("again", ["up", "reset"])
def test_an_undo_that_can_never_be_done_blocks_nothing(machine, again):
    left_over(machine, spoilt=True)
    bring.undo(machine.host())

    if again == "up":
        result = machine.up()
    else:
        result = reset.reset(cache.read(machine.folder), machine.host(), tuple)

    assert result["told"][0].startswith("UNDOING WHAT WAS LEFT UNFINISHED HAS FAILED IN PART: up the VLAN")
    assert attached(records(), machine.kernel.look()) == {"nic"}
    assert set(machine.armed) == {"stood down"}
    assert pending(machine) is None


def test_an_undo_that_failed_is_told_and_not_done_again_by_the_next_change(machine):
    left_over(machine, spoilt=True)
    bring.undo(machine.host())
    done = []
    execute = machine.kernel.execute

    def watching(operations):
        done.extend(operations)
        execute(operations)

    host = machine.host()
    netlink = SimpleNamespace(look=machine.kernel.look, execute=watching)

    told = unfinished(host._replace(tools=host.tools._replace(netlink=netlink)))

    assert told.startswith("UNDOING WHAT WAS LEFT UNFINISHED HAS FAILED IN PART: up the VLAN")
    assert done == []


def test_an_undo_that_failed_is_tried_at_the_next_boot(machine):
    left_over(machine, spoilt=True, boot="boot-0", state=journal.UNDO_FAILED)

    assert unfinished(machine.host()).startswith("undid what was left unfinished")
    assert pending(machine) is None


# --- a journal that cannot be read ---


def damage(machine, content=b"\0" * 40):
    (machine.folder / journal.NAME).write_bytes(content)


def test_it_is_set_aside_and_the_change_is_made(machine):
    damage(machine)

    result = machine.up()

    assert result["told"][0].startswith("THE JOURNAL OF THE LAST NETWORK CHANGE WAS LOST")
    assert "there is no verified generation" in result["told"][0]
    assert attached(records(), machine.kernel.look()) == {"nic"}
    assert (machine.folder / "journal.damaged").read_bytes() == b"\0" * 40


def test_the_network_is_compared_with_the_last_verified_generation(machine):
    machine.up()
    assert cache.read_verified(machine.folder) is not None
    damage(machine)
    assert "is as generation" in unfinished(machine.host())
    damage(machine)
    machine.kernel.addresses.clear()

    told = unfinished(machine.host())

    assert "it differs from generation" in told
    assert "xenbr0: address" in told


def test_an_undo_of_what_nobody_can_read_is_no_success(machine):
    damage(machine)

    result = bring.undo(machine.host())

    assert (result["outcome"], exit_of(result)) == ("undo-failed", FAILED)
    assert exit_of(bring.undo(machine.host())) == DONE


def test_the_way_back_by_hand_does_not_need_the_journal(machine):
    damage(machine, b'{"version":2,"state":"begun"}\n')

    assert reset.reset(cache.read(machine.folder), machine.host(), tuple)["outcome"] == "changed"
    assert (machine.folder / "journal.version-2").exists()


# --- a change of the management interface that cannot be looked at ---


class Watched(Machine):
    """With a network around it."""

    def __init__(self, folder):
        super().__init__(folder)
        self.segment = Segment(self)

    def host(self, *_):
        return super().host()._replace(wire=self.segment.wire())


@pytest.fixture
def watched(tmp_path):
    cache.write(tmp_path, records())
    made = Watched(tmp_path)
    made.up()
    made.armed.clear()
    return made


def readdress(watched, **host):
    found = cache.Found(cache.Cached(readdressed(), 7))
    return bring.bring(bring.Request("up", UUID), found, watched.host()._replace(**host))


def test_what_cannot_be_checked_is_undone_and_then_the_timer_is_stopped(watched):
    before, looks = watched.kernel.look(), []

    def around(*_):
        looks.append(1)
        if len(looks) > 1:
            raise KernelError("systemctl show: no answer within 20 s", hint="")

    result = readdress(watched, around=around)

    assert result["outcome"] == "rolled-back"
    assert "could not be checked" in result["error"]["found"]
    assert watched.kernel.look() == before
    assert watched.armed == [bring_undo_s(), "disarmed"]
    assert pending(watched) is None


def test_the_timer_goes_on_where_the_undo_had_troubles(watched):
    looks = []
    execute = watched.kernel.execute

    def around(*_):
        looks.append(1)
        if len(looks) > 1:
            watched.kernel.execute = broken
            raise KernelError("no look", hint="")

    def broken(operations):
        if any(operation.verb == "address-add" for operation in operations):
            raise RefusedError(0, 16, (), "busy")
        execute(operations)

    result = readdress(watched, around=around)

    assert result["outcome"] == "rolled-back"
    assert "undoing it failed in part" in result["error"]["found"]
    assert exit_of(result) == FAILED
    assert watched.armed == [bring_undo_s()]
    watched.kernel.execute = execute
    assert bring.undo(watched.host())["outcome"] == "undone"
    assert [one.text for one in watched.kernel.addresses] == ["192.0.2.10"]


def test_what_cannot_be_marked_is_undone(watched, monkeypatch):
    before = watched.kernel.look()
    mark = journal.mark

    def full(folder, left, state):
        if state == journal.APPLIED:
            raise FileError("no space left on device", hint="df -h", number=28)
        return mark(folder, left, state)

    monkeypatch.setattr(journal, "mark", full)

    result = readdress(watched)

    assert result["outcome"] == "rolled-back"
    assert watched.kernel.look() == before


def test_a_timer_of_a_change_that_is_over_gives_way(watched):
    """Its maker was killed between the journal's last mark and the stopping of the timer."""
    asked = []

    def arm(seconds):
        asked.append(seconds)
        if len(asked) == 1:
            raise BusyError(
                "an earlier network change is to be confirmed", hint="", params=("host", "network")
            )

    result = readdress(watched, arm=arm)

    assert result["outcome"] == "changed"
    assert len(asked) == 2
    assert watched.armed == ["stood down", "disarmed"]


def bring_undo_s():
    from hostagent.net.change import SPARE_S
    from hostagent.net.reachable import SETTLE_S

    return 2 * SETTLE_S + SPARE_S
