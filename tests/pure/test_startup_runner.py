# mypy: disable-error-code="union-attr,attr-defined,arg-type,index,misc,func-returns-value"
"""The runner: order, outcomes, needs, roles, deadlines, background, policies, stop, what observers see."""

from __future__ import annotations

import errno
import os
import threading

import pytest

from hostagent.errors import BusyError, InvalidValueError, OperatorError
from hostagent.files import FileError
from hostagent.startup.report import BootResult, Ending, Kind, Status, as_json, from_json
from hostagent.startup.role import COORDINATOR, supporter_of
from hostagent.startup.runner import closure, find, run_one, run_sequence
from hostagent.startup.state import HostState
from hostagent.startup.step import Change, Changed, EmergencyError, Policy, Restart, Role, Skipped, Unchanged
from tests.pure.startup_tree import Watcher, a_step, context_of, fails, put, returns

BROKEN = OperatorError("the disk is full", hint="free some space")
CHANGE = Change("/etc/x", None, "1")


def run(paths, *steps, host=None, settings=None, **options):
    config = context_of(paths, **(settings or {})).config
    return run_sequence(steps, config, host or HostState(), **options)


def let_go(release):
    """Let the abandoned thread end before the test does."""
    release.set()
    for thread in threading.enumerate():
        if thread.name.startswith("step ") and thread.ident is not None:
            thread.join(5)


def statuses(report):
    return {step.name: step.status.value for step in report.steps}


def test_steps_run_in_the_order_of_the_table(paths):
    seen = []
    steps = [a_step(name, lambda _, name=name: seen.append(name) or Unchanged()) for name in "cab"]

    report = run(paths, *steps)

    assert seen == ["c", "a", "b"]
    assert [step.name for step in report.steps] == ["c", "a", "b"]


def test_every_outcome_is_recorded_as_it_is(paths):
    report = run(
        paths,
        a_step("a", returns(Changed((CHANGE,), "made"))),
        a_step("b", returns(Unchanged("as it was"))),
        a_step("c", returns(Skipped("not here"))),
        a_step("d", fails(BROKEN)),
    )

    assert statuses(report) == {"a": "changed", "b": "unchanged", "c": "skipped", "d": "failed"}
    assert report.steps[0].changes == (CHANGE,)
    assert [step.note for step in report.steps[:3]] == ["made", "as it was", "not here"]
    assert report.steps[3].error == {
        "code": "INTERNAL_ERROR",
        "params": ["the disk is full"],
        "found": "the disk is full",
        "hint": "free some space",
    }


def test_a_sequence_without_trouble_is_clean(paths):
    report = run(paths, a_step("a"), a_step("b", returns(Skipped("no"))))

    assert (report.ending, report.result, report.exit_code) == (Ending.COMPLETE, BootResult.CLEAN, None)


@pytest.mark.parametrize("policy", [Policy.DEGRADE, Policy.BEST_EFFORT])
def test_a_failure_that_does_not_stop_leaves_a_degraded_boot(paths, policy):
    report = run(paths, a_step("a", fails(BROKEN), policy=policy), a_step("b"))

    assert statuses(report) == {"a": "failed", "b": "unchanged"}
    assert (report.result, report.exit_code) == (BootResult.DEGRADED, None)


def test_a_warning_leaves_a_degraded_boot(paths):
    assert run(paths, a_step("a", returns(Unchanged(warnings=("look",))))).result is BootResult.DEGRADED


@pytest.mark.parametrize("code", [1, 2])
def test_halt_stops_with_the_exit_code_of_its_row(paths, code):
    report = run(paths, a_step("a", fails(BROKEN), policy=Policy.HALT, halt_exit=code), a_step("b"))

    assert statuses(report) == {"a": "failed"}
    assert (report.ending, report.result, report.exit_code) == (Ending.HALTED, BootResult.STOPPED, code)


def test_emergency_stops_and_keeps_the_error(paths):
    host = HostState()

    report = run(paths, a_step("a", fails(BROKEN), policy=Policy.EMERGENCY), a_step("b"), host=host)

    assert (report.ending, report.exit_code) == (Ending.EMERGENCY, 123)
    assert host.emergency is BROKEN


def test_an_emergency_error_outranks_the_policy_of_the_row(paths):
    error = EmergencyError("HOST_BROKEN", "role is broken", hint="write another")
    host = HostState()

    report = run(paths, a_step("a", fails(error), policy=Policy.HALT), host=host)

    assert (report.ending, report.exit_code, report.steps[0].policy) == (Ending.EMERGENCY, 123, "emergency")
    assert host.emergency.code == "HOST_BROKEN"


def test_restart_asks_for_a_new_process(paths):
    report = run(paths, a_step("a", returns(Restart("the role changed"))), a_step("b"))

    assert statuses(report) == {"a": "restart"}
    assert (report.ending, report.exit_code) == (Ending.RESTART, 123)


@pytest.mark.parametrize(
    "error",
    [
        BusyError("somebody writes it", hint="try again"),
        ZeroDivisionError("a defect"),
        FileError("no space left", hint="df", number=errno.ENOSPC),
        FileError("read-only", hint="mount", number=errno.EROFS),
    ],
)
def test_a_halt_whose_cause_may_pass_is_never_final(paths, error):
    report = run(paths, a_step("a", fails(error), policy=Policy.HALT, halt_exit=1))

    assert report.exit_code == 2


def test_a_halt_at_a_deadline_is_never_final(paths):
    release = threading.Event()
    step = a_step("a", lambda _: release.wait(), policy=Policy.HALT, halt_exit=1, timeout_s=0.05)

    report = run(paths, step)
    let_go(release)

    assert report.exit_code == 2


def test_a_halt_at_an_unreadable_file_is_final(paths):
    error = FileError("no such file", hint="restore it", number=errno.ENOENT)

    assert run(paths, a_step("a", fails(error), policy=Policy.HALT, halt_exit=1)).exit_code == 1


def test_what_failed_with_degrade_keeps_the_host_disabled_and_best_effort_does_not(paths):
    host = HostState()

    report = run(
        paths,
        a_step("a", fails(BROKEN), policy=Policy.DEGRADE),
        a_step("b", needs=("a",), policy=Policy.DEGRADE),
        a_step("c", fails(BROKEN), policy=Policy.BEST_EFFORT),
        a_step("d", lambda context: context.host.blockers.append("d found it") or Unchanged()),
        host=host,
    )

    assert report.blockers == ("a: the disk is full", "b: needs a", "d found it")
    assert from_json(as_json(report)).blockers == report.blockers


def test_a_step_knows_its_deadline_with_the_time_xenstored_is_given(paths):
    seen = []
    steps = [
        a_step(name, lambda context: seen.append(context.timeout_s) or Unchanged(), awaits_xenstored=waits)
        for name, waits in (("plain", False), ("waiting", True), ("set", True))
    ]

    report = run(paths, *steps, settings={"xenstore_wait_s": 300.0, "timeouts_s": {"set": 7.0}})

    assert seen == [5.0, 305.0, 7.0]
    assert [step.timeout_s for step in report.steps] == seen


def test_two_sequences_exclude_each_other(paths):
    refused = []

    def by_hand(_):
        with pytest.raises(BusyError, match=f"as pid {os.getpid()}") as caught:
            run_named(paths, "c")
        refused.append(caught.value.hint)
        run_named(paths, "c", dry_run=True)
        return Unchanged()

    report = run(paths, a_step("a", by_hand))

    assert report.result is BootResult.CLEAN
    assert len(refused) == 1
    assert run_named(paths, "c").result is BootResult.CLEAN


def test_the_daemons_sequence_waits_for_a_run_by_hand(paths, caplog):
    order, daemons = [], []

    def start_daemon(_):
        daemon = threading.Thread(target=run, args=(paths, a_step("d", lambda _: order.append("daemon"))))
        daemons.append(daemon)
        daemon.start()
        daemon.join(0.2)
        order.append("by hand")
        return Unchanged()

    run_one("a", (a_step("a", start_daemon),), context_of(paths).config, HostState(), aliases={})
    daemons[0].join(5)

    assert order == ["by hand", "daemon"]
    assert "runs a start-up step by hand" in caplog.text


def test_a_stop_request_ends_the_wait_for_the_turn(paths):
    stop = threading.Event()

    def by_hand(_):
        stop.set()
        assert run(paths, a_step("d"), stop=stop).ending is Ending.STOPPED
        return Unchanged()

    report = run_one("a", (a_step("a", by_hand),), context_of(paths).config, HostState(), aliases={})

    assert report.result is BootResult.CLEAN


def test_a_step_run_by_hand_sees_what_was_written_until_its_turn(paths):
    put(paths.role, "master")
    step = a_step("a", role=Role.COORDINATOR)

    report = run_one("a", (step,), context_of(paths).config, HostState(), aliases={})

    assert statuses(report) == {"a": "unchanged"}


def test_observers_hear_what_a_step_is_doing_once_each(paths):
    watcher = Watcher()

    def work(context):
        for text in ("one", "one", "two"):
            context.progress(text)
        return Unchanged()

    run(paths, a_step("a", work), observers=(watcher,))

    assert watcher.events == ["start a", "a: one", "a: two", "unchanged a", "end complete"]


def test_an_error_nobody_expected_is_a_bug_with_its_type(paths):
    report = run(paths, a_step("a", fails(ZeroDivisionError("division by zero"))), a_step("b"))

    assert statuses(report) == {"a": "failed", "b": "unchanged"}
    assert report.steps[0].error["found"] == "ZeroDivisionError: division by zero"
    assert "report" in report.steps[0].error["hint"]


def test_a_step_that_needs_a_failed_one_is_blocked_and_blocks_in_turn(paths):
    ran = []
    report = run(
        paths,
        a_step("a", fails(BROKEN)),
        a_step("b", lambda _: ran.append("b"), needs=("a",)),
        a_step("c", lambda _: ran.append("c"), needs=("b",)),
        a_step("d"),
    )

    assert statuses(report) == {"a": "failed", "b": "blocked", "c": "blocked", "d": "unchanged"}
    assert [step.blocked_by for step in report.steps[1:3]] == [("a",), ("b",)]
    assert ran == []


def test_a_step_that_needs_a_skipped_one_runs(paths):
    report = run(paths, a_step("a", returns(Skipped("no"))), a_step("b", needs=("a",)))

    assert statuses(report)["b"] == "unchanged"


@pytest.mark.parametrize(
    ("wanted", "found", "status"),
    [
        (Role.ANY, None, "unchanged"),
        (Role.ANY, supporter_of("192.0.2.1"), "unchanged"),
        (Role.COORDINATOR, COORDINATOR, "unchanged"),
        (Role.COORDINATOR, supporter_of("192.0.2.1"), "skipped"),
        (Role.COORDINATOR, None, "blocked"),
        (Role.SUPPORTER, supporter_of("192.0.2.1"), "unchanged"),
        (Role.SUPPORTER, COORDINATOR, "skipped"),
        (Role.SUPPORTER, None, "blocked"),
    ],
)
def test_a_step_runs_only_on_its_role(paths, wanted, found, status):
    assert statuses(run(paths, a_step("a", role=wanted), host=HostState(role=found)))["a"] == status


def test_a_step_past_its_deadline_is_given_up_and_the_rest_goes_on(paths):
    release = threading.Event()
    report = run(paths, a_step("a", lambda _: release.wait() and Unchanged(), timeout_s=0.05), a_step("b"))
    let_go(release)

    assert statuses(report) == {"a": "failed", "b": "unchanged"}
    assert "did not end within 0.05 s" in report.steps[0].error["found"]
    assert "timeouts" in report.steps[0].error["hint"]
    assert report.steps[0].seconds >= 0.05


def test_a_deadline_in_the_settings_counts_instead_of_the_tables(paths):
    release = threading.Event()
    step = a_step("a", lambda _: release.wait() and Unchanged(), timeout_s=600)

    report = run(paths, step, settings={"timeouts_s": {"a": 0.05}})
    let_go(release)

    assert statuses(report) == {"a": "failed"}
    assert report.steps[0].timeout_s == 0.05


def test_what_a_given_up_step_was_doing_is_told(paths):
    release = threading.Event()

    def hang(context):
        context.progress("waiting for the moon")
        release.wait()

    report = run(paths, a_step("a", hang, timeout_s=0.05))
    let_go(release)

    assert "while: waiting for the moon" in report.steps[0].error["found"]


def test_what_a_given_up_step_returns_later_is_logged_and_changes_nothing(paths, caplog):
    release = threading.Event()
    watcher = Watcher()
    report = run(
        paths,
        a_step("a", lambda _: release.wait() and Unchanged("late"), timeout_s=0.05),
        observers=(watcher,),
    )
    let_go(release)

    assert statuses(report) == {"a": "failed"}
    assert watcher.events == ["start a", "failed a", "end complete"]
    assert report.blockers == ()
    assert "ended after it was given up; its result (Unchanged(note='late'" in caplog.text


def test_a_background_step_does_not_hold_up_the_next(paths):
    release, ended = threading.Event(), threading.Event()

    class Ended(Watcher):
        def step_finished(self, record, report):
            super().step_finished(record, report)
            if record.name == "a":
                ended.set()

    watcher = Ended()
    slow = a_step("a", lambda _: release.wait() and Unchanged("at last"), background=True)

    report = run(paths, slow, a_step("b"), observers=(watcher,))
    let_go(release)

    assert statuses(report) == {"a": "running", "b": "unchanged"}
    assert report.ending is Ending.COMPLETE
    assert ended.wait(5)
    assert watcher.events == ["start a", "start b", "unchanged b", "end complete", "unchanged a"]
    assert watcher.reports[-1].steps[0].note == "at last"
    assert watcher.reports[-1].ending is Ending.COMPLETE


def test_a_step_that_needs_a_background_step_waits_for_its_end(paths):
    begun = threading.Event()

    def slow(_):
        begun.wait(0.05)
        raise BROKEN

    report = run(paths, a_step("a", slow, background=True), a_step("b", needs=("a",)))

    assert statuses(report) == {"a": "failed", "b": "blocked"}


def test_a_failed_background_step_never_ends_the_sequence(paths):
    report = run(
        paths,
        a_step("a", fails(BROKEN), background=True, policy=Policy.DEGRADE),
        a_step("b", needs=("a",)),
        a_step("c"),
    )

    assert report.ending is Ending.COMPLETE
    assert report.result is BootResult.DEGRADED


def test_a_stop_request_gives_up_the_running_step(paths):
    stop, release = threading.Event(), threading.Event()

    def hang(_):
        stop.set()
        release.wait()

    report = run(paths, a_step("a", hang), a_step("b"), stop=stop)
    let_go(release)

    assert statuses(report) == {"a": "interrupted"}
    assert (report.ending, report.exit_code) == (Ending.STOPPED, 0)


def test_a_stop_request_between_steps_starts_no_further_one(paths):
    stop = threading.Event()

    report = run(paths, a_step("a", lambda _: stop.set() or Unchanged()), a_step("b"), stop=stop)

    assert statuses(report) == {"a": "unchanged"}
    assert report.ending is Ending.STOPPED


def test_the_running_step_is_visible_while_it_runs(paths):
    watcher = Watcher()

    run(paths, a_step("a"), a_step("b", fails(BROKEN)), observers=(watcher,))

    assert watcher.events == ["start a", "unchanged a", "start b", "failed b", "end complete"]
    assert [step.name for step in watcher.reports[2].running] == ["b"]


def test_log_messages_of_a_step_carry_its_name(paths):
    from hostagent import log

    seen = []
    run(paths, a_step("a", lambda _: seen.append(log._context()) or Unchanged()))

    assert seen == ["step=a "]


def test_a_hold_point_that_the_row_does_not_name_is_a_bug(paths):
    report = run(paths, a_step("a", lambda context: context.hold("elsewhere")))

    assert "no hold point 'elsewhere'" in report.steps[0].error["found"]


def test_a_dry_run_asks_the_plan_and_changes_nothing(paths):
    ran = []
    step = a_step("a", lambda _: ran.append("a") or Unchanged(), plan=lambda _: (CHANGE,))

    report = run(paths, step, a_step("b"), dry_run=True, kind=Kind.MANUAL)

    assert statuses(report) == {"a": "planned", "b": "unchanged"}
    assert report.steps[0].changes == (CHANGE,)
    assert ran == []


TABLE = (a_step("a"), a_step("b", needs=("a",)), a_step("c"), a_step("d", needs=("b",)))


def run_named(paths, name, **options):
    return run_one(name, TABLE, context_of(paths).config, HostState(), aliases={"old": "c"}, **options)


def test_one_step_runs_alone(paths):
    assert list(statuses(run_named(paths, "d"))) == ["d"]


def test_one_step_runs_with_everything_it_needs(paths):
    report = run_named(paths, "d", with_needs=True)

    assert list(statuses(report)) == ["a", "b", "d"]
    assert report.kind is Kind.MANUAL


@pytest.mark.parametrize("name", ["c", "C", "old"])
def test_a_step_is_found_by_name_number_and_former_name(name):
    assert find(name, TABLE, {"old": "c"}).name == "c"


def test_an_unknown_step_is_refused_with_a_hint():
    with pytest.raises(InvalidValueError, match="no step 'x'") as caught:
        find("x", TABLE, {})

    assert "startup list" in caught.value.hint


def test_the_closure_of_a_step_is_everything_it_needs():
    assert closure(TABLE[3], TABLE) == {"a", "b", "d"}


def test_a_step_without_an_outcome_is_a_bug(paths):
    report = run(paths, a_step("a", lambda _: None))

    assert report.steps[0].status is Status.FAILED
    assert "without an outcome" in report.steps[0].error["found"]
