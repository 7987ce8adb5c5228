"""The undo timer: how it is armed, confirmed and seen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.errors import BusyError
from hostagent.net import guard
from hostagent.net.guard import Guard, GuardError
from hostagent.net.reconfigure import DONE, FAILED
from hostagent.run import CommandError, Finished

UNDO = ["/opt/hostagent/current/bin/hostagent", "net", "undo"]


def shown(timer="inactive", sub="dead", due="infinity", service="inactive"):
    return (
        f"Id={guard.TIMER}\nActiveState={timer}\nSubState={sub}\nNextElapseUSecMonotonic={due}\n"
        f"\nId={guard.SERVICE}\nActiveState={service}\nSubState=dead\n"
    )


class Systemd:
    def __init__(self):
        self.ran = []
        self.now = shown()
        self.late = False
        self.refuses = False

    def run(self, argv, *, timeout_s, package=None, check=True):
        del timeout_s, package, check
        self.ran.append(list(argv))
        match argv[:2]:
            case ["systemd-run", _]:
                if self.refuses:
                    raise CommandError(argv, "failed with exit code 1: no", hint="try it")
                self.now = shown("active", "waiting", "2min 5s")
            case ["systemctl", "stop"]:
                if self.late and guard.SERVICE in argv:
                    return Finished(tuple(argv), 1, "", "", 0.0)
                self.now = shown(service="activating") if self.late else shown()
        return Finished(tuple(argv), 0, self.now if argv[1] == "show" else "", "", 0.0)


@pytest.fixture
def systemd(monkeypatch):
    made = Systemd()
    monkeypatch.setattr(guard, "run", made.run)
    monkeypatch.setattr(guard, "_uptime_s", lambda: 100.0)
    return made


def test_the_timer_is_a_unit_of_its_own_and_the_undo_is_not_given_up(systemd):
    guard.arm(UNDO, 60)

    (argv,) = [argv for argv in systemd.ran if argv[0] == "systemd-run"]
    assert "--unit=hostagent-net-undo" in argv
    assert "--on-active=60" in argv
    assert "--timer-property=AccuracySec=100ms" in argv
    assert "--property=Restart=on-failure" in argv
    assert argv[argv.index("--") + 1 :] == UNDO


def test_an_undo_that_failed_is_not_done_again_and_one_that_waits_for_the_lock_is_not_given_up(systemd):
    guard.arm(UNDO, 60)

    (argv,) = [argv for argv in systemd.ran if argv[0] == "systemd-run"]
    given = dict(word.removeprefix("--property=").split("=", 1) for word in argv if "--property=" in word)
    lock_wait_s = 60
    assert given["RestartPreventExitStatus"] == str(FAILED)
    assert guard.BUSY_EXIT not in (DONE, FAILED)
    assert int(given["StartLimitBurst"]) * lock_wait_s > int(given["StartLimitIntervalSec"])
    assert int(given["StartLimitBurst"]) * int(given["RestartSec"]) < int(given["StartLimitIntervalSec"])


@pytest.mark.parametrize("now", [shown("active", "waiting", "2min"), shown(service="activating")])
def test_timer_and_undo_stand_down_for_who_has_done_their_work(systemd, now):
    systemd.now = now

    guard.stand_down()

    assert ["systemctl", "stop", guard.TIMER, guard.SERVICE] in systemd.ran
    assert guard.state() == Guard(armed=False, undoing=False, remaining_s=0.0)


def test_where_there_is_no_timer_nothing_is_stopped(systemd):
    guard.stand_down()

    assert not [argv for argv in systemd.ran if argv[1] == "stop"]


def test_a_timer_that_goes_on_is_told(systemd):
    systemd.now, systemd.late = shown("active", "waiting", "2min"), True

    with pytest.raises(GuardError, match="goes on"):
        guard.stand_down()


def test_what_remains_is_told(systemd):
    guard.arm(UNDO, 60)

    assert guard.state() == Guard(armed=True, undoing=False, remaining_s=25.0)


def test_a_second_change_waits_for_the_first(systemd):
    guard.arm(UNDO, 60)

    with pytest.raises(BusyError, match="to be confirmed within 25 s"):
        guard.arm(UNDO, 60)


def test_no_change_begins_while_another_is_undone(systemd):
    systemd.now = shown(service="activating")

    with pytest.raises(BusyError, match="is being undone"):
        guard.arm(UNDO, 60)


def test_a_timer_that_cannot_be_armed_is_an_error(systemd):
    systemd.refuses = True

    with pytest.raises(GuardError, match="could not be armed"):
        guard.arm(UNDO, 60)


@pytest.mark.parametrize("seconds", [0, -1, guard.LONGEST_S + 1])
def test_senseless_times_are_refused_before_anything_is_started(systemd, seconds):
    with pytest.raises(GuardError, match="makes no sense"):
        guard.arm(UNDO, seconds)

    assert systemd.ran == []


def test_a_timer_that_does_not_run_afterwards_is_an_error(systemd, monkeypatch):
    monkeypatch.setattr(guard, "state", lambda: Guard(armed=False, undoing=False, remaining_s=0))

    with pytest.raises(GuardError, match="does not run it"):
        guard.arm(UNDO, 60)


def test_confirming_stops_the_timer(systemd):
    guard.arm(UNDO, 60)

    assert guard.confirm() == 25.0
    assert ["systemctl", "stop", guard.TIMER] in systemd.ran
    assert guard.state() == Guard(armed=False, undoing=False, remaining_s=0.0)


def test_confirming_nothing_is_an_error(systemd):
    with pytest.raises(GuardError, match="no change waits"):
        guard.confirm()


def test_a_confirmation_that_comes_too_late_says_so(systemd):
    guard.arm(UNDO, 60)
    systemd.late = True

    with pytest.raises(GuardError, match="too late"):
        guard.confirm()


def test_an_undo_at_work_cannot_be_confirmed_away(systemd):
    systemd.now = shown(service="activating")

    with pytest.raises(GuardError, match="being undone now"):
        guard.confirm()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1h 2min 3.5s", 3723.5),
        ("44min 12.345678s", 2652.345678),
        ("1w 2d", 777600.0),
        ("500ms", 0.5),
        ("20us", 2e-5),
        ("infinity", None),
        ("", None),
        ("n/a", None),
        ("5 parsecs", None),
    ],
)
def test_a_span_of_time_is_read(text, seconds):
    assert guard.seconds_of(text) == (seconds if seconds is None else pytest.approx(seconds))


@given(st.text(), st.floats(0, 1e9))
def test_no_answer_breaks_the_reader(text, uptime_s):
    found = guard.parse(text, uptime_s)

    assert found.remaining_s == 0 or found.armed


def test_a_timer_past_its_time_has_nothing_left():
    assert guard.parse(shown("active", "waiting", "5s"), 6.0) == Guard(
        armed=True, undoing=False, remaining_s=0.0
    )
