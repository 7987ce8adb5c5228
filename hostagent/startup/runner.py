"""Runs the steps of a table: the only place that catches, times and records.

Each step runs in a thread of its own, so that one that hangs can be given up at its deadline: it is recorded
as failed, the sequence goes on as the row's policy says, and whatever the abandoned thread still returns is
logged and ignored. Observers are told of every start and end, one at a time, in order.
"""

from __future__ import annotations

import contextlib
import contextvars
import errno
import logging
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, assert_never

from hostagent.errors import BugError, BusyError, HostagentError, InvalidValueError, KernelError
from hostagent.files import FileError
from hostagent.log import fields
from hostagent.startup.hold import Holder
from hostagent.startup.report import Ending, Kind, Report, Status, StepRecord, interrupted, new_report
from hostagent.startup.state import learn
from hostagent.startup.step import (
    Change,
    Changed,
    Context,
    EmergencyError,
    Outcome,
    Policy,
    Restart,
    Role,
    Skipped,
    Step,
    Unchanged,
)
from hostagent.startup.turn import turn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hostagent.config import Config, Paths
    from hostagent.startup.role import PoolRole
    from hostagent.startup.state import HostState

log = logging.getLogger(__name__)

RESTART_EXIT = 123
"""The process asks to be started again (reference 1.3)."""
LOOK_FOR_STOP_S = 0.1
"""How often a running step is looked at for a stop request, a hold or its deadline; its end is seen at once.
"""
HALT_EXIT = 2
"""A halt whose cause may pass: systemd tries again."""
PASSING = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EIO,
    errno.ENOMEM,
    errno.EMFILE,
    errno.ENFILE,
    errno.EINTR,
    errno.EAGAIN,
)
"""Why a file may refuse now and not later; it says nothing about what is in the file."""


class StepTimeoutError(KernelError):
    """A step did not end by its deadline and was given up."""


class Observer(Protocol):
    """Is told what the runner does, from the thread it happens in, never twice at once; must not raise."""

    def step_started(self, record: StepRecord, report: Report) -> None: ...

    def step_progressed(self, record: StepRecord, report: Report) -> None:
        """A running step said what it is doing (`record.progress`)."""

    def step_finished(self, record: StepRecord, report: Report) -> None: ...

    def sequence_finished(self, report: Report) -> None: ...


def run_sequence(
    steps: Sequence[Step],
    config: Config,
    host: HostState,
    *,
    observers: Sequence[Observer] = (),
    kind: Kind = Kind.BOOT,
    dry_run: bool = False,
    stop: threading.Event | None = None,
) -> Report:
    """Run the steps in order and return the report; blocks until the last one ended or a policy ended it.

    While another sequence is at work on this host, waits for its end.

    `report.ending` says why it ended, `report.exit_code` what the process should end with (None: go on
    serving; in emergency mode 123, after the restart delay). Background steps may still run then; observers
    hear of their end. Setting `stop` ends the sequence within about 0.1 s, giving up the running step.
    """
    stop = stop or threading.Event()
    sequence = _Sequence(steps, config, host, observers, kind, stop, dry_run=dry_run)
    if dry_run:
        return sequence.run()
    make_directories(config.paths)
    with turn(config.paths.run, wait=stop):
        return sequence.run()


def make_directories(paths: Paths) -> None:
    """Make our three directories where they are missing; a step that cannot write there then says why."""
    for directory, mode in ((paths.etc, 0o755), (paths.state, 0o700), (paths.run, 0o700)):
        try:
            directory.mkdir(mode=mode, parents=True, exist_ok=True)
        except OSError as error:
            log.warning("%s could not be made: %s", directory, error.strerror)


def run_one(
    name: str,
    steps: Sequence[Step],
    config: Config,
    host: HostState,
    *,
    aliases: Mapping[str, str],
    with_needs: bool = False,
    dry_run: bool = False,
    observers: Sequence[Observer] = (),
) -> Report:
    """Run one step of the table by name, after the steps it needs if asked for. What the steps before it would have
    found out is read from the host, changing nothing.

    Raises InvalidValueError: no such step; BusyError: another sequence is at work (a dry run does not mind).
    """
    step = find(name, steps, aliases)
    wanted = closure(step, steps) if with_needs else {step.name}
    chosen = [row for row in steps if row.name in wanted]
    sequence = _Sequence(chosen, config, host, observers, Kind.MANUAL, threading.Event(), dry_run=dry_run)
    if not dry_run:
        make_directories(config.paths)
    with contextlib.nullcontext() if dry_run else turn(config.paths.run, wait=None):
        learn(config, host)
        return sequence.run()


def find(name: str, steps: Sequence[Step], aliases: Mapping[str, str]) -> Step:
    """The step of this name, former name or S-number. Raises InvalidValueError."""
    wanted = aliases.get(name, name)
    for step in steps:
        if step.name == wanted or step.ref == wanted:
            return step
    raise InvalidValueError(
        "step", name, f"there is no step {name!r}", hint="`hostagent startup list` shows their names"
    )


def closure(step: Step, steps: Sequence[Step]) -> set[str]:
    """The names of a step and of everything it needs, directly or not."""
    by_name = {row.name: row for row in steps}
    found: set[str] = set()
    waiting = [step.name]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += by_name[name].needs
    return found


class _Sequence:
    def __init__(
        self,
        steps: Sequence[Step],
        config: Config,
        host: HostState,
        observers: Sequence[Observer],
        kind: Kind,
        stop: threading.Event,
        *,
        dry_run: bool,
    ) -> None:
        self._steps = steps
        self._config = config
        self._host = host
        self._observers = observers
        self._stop = stop
        self._dry_run = dry_run
        self._report = new_report(kind, root=config.paths.root)
        self._origin = time.monotonic()
        self._lock = threading.RLock()
        self._background: dict[str, threading.Thread] = {}
        self._halt_exit = HALT_EXIT

    def run(self) -> Report:
        for step in self._steps:
            if self._stop.is_set():
                return self._end(Ending.STOPPED, 0)
            self._await_needs(step)
            record = self._take(step)
            if record.status is Status.INTERRUPTED:
                return self._end(Ending.STOPPED, 0)
            if record.status is Status.RESTART:
                return self._end(Ending.RESTART, RESTART_EXIT)
            if record.status is Status.FAILED and not step.background:
                policy = Policy(record.policy)
                if policy is Policy.HALT:
                    return self._end(Ending.HALTED, self._halt_exit)
                if policy is Policy.EMERGENCY:
                    return self._end(Ending.EMERGENCY, RESTART_EXIT)
        return self._end(Ending.COMPLETE, None)

    def _take(self, step: Step) -> StepRecord:
        if step.role is not Role.ANY and self._host.role is None:
            return self._finish(replace(self._new(step), status=Status.BLOCKED, note="the role is not known"))
        if reason := _role_mismatch(step.role, self._host.role):
            return self._finish(replace(self._new(step), status=Status.SKIPPED, note=reason))
        if blockers := self._blockers(step):
            return self._finish(replace(self._new(step), status=Status.BLOCKED, blocked_by=blockers))
        started = self._start(self._new(step))
        if not step.background or self._dry_run:
            return self._attempt(step, started)
        thread = threading.Thread(target=self._attempt, args=(step, started), name=step.name, daemon=True)
        self._background[step.name] = thread
        thread.start()
        return started

    def _await_needs(self, step: Step) -> None:
        """A step that needs a background step waits for its end, which its own deadline bounds."""
        for name in step.needs:
            if name in self._background:
                self._background[name].join()

    def _blockers(self, step: Step) -> tuple[str, ...]:
        bad = {
            record.name for record in self._report.steps if record.status in (Status.FAILED, Status.BLOCKED)
        }
        return tuple(name for name in step.needs if name in bad)

    def _attempt(self, step: Step, started: StepRecord) -> StepRecord:
        """Run one step to its end, its deadline or the stop request, and record which it was."""
        holder = Holder(self._config.paths.run, step.name)
        attempt = _Attempt(step, self._context(step, holder, started.timeout_s))
        attempt.start()
        begun = time.monotonic()
        while not attempt.done.wait(LOOK_FOR_STOP_S):
            if self._stop.is_set():
                attempt.give_up()
                break
            if time.monotonic() - begun - holder.seconds > started.timeout_s:
                attempt.give_up()
                break
        seconds = time.monotonic() - begun
        return self._finish(self._ended(attempt, started, seconds))

    def _ended(self, attempt: _Attempt, started: StepRecord, seconds: float) -> StepRecord:
        record = replace(self._latest(started), seconds=seconds)
        if attempt.given_up:
            if self._stop.is_set():
                return replace(record, status=Status.INTERRUPTED, note="asked to stop")
            return self._failed(record, attempt.step, _timeout(record))
        if attempt.error is not None:
            return self._failed(record, attempt.step, attempt.error)
        match attempt.outcome:
            case Changed(changes, note, warnings):
                status = Status.PLANNED if self._dry_run else Status.CHANGED
                return replace(record, status=status, changes=changes, note=note, warnings=warnings)
            case Unchanged(note, warnings):
                return replace(record, status=Status.UNCHANGED, note=note, warnings=warnings)
            case Skipped(reason):
                return replace(record, status=Status.SKIPPED, note=reason)
            case Restart(reason):
                return replace(record, status=Status.RESTART, note=reason)
            case None:
                bug = BugError(f"step {record.name} ended without an outcome", hint="report this")
                return self._failed(record, attempt.step, bug)
            case _:
                assert_never(attempt.outcome)

    def _failed(self, record: StepRecord, step: Step, error: HostagentError) -> StepRecord:
        policy = Policy.EMERGENCY if isinstance(error, EmergencyError) else step.policy
        if policy is Policy.EMERGENCY and not step.background:
            self._host.emergency = error
        if policy is Policy.HALT and not step.background:
            self._halt_exit = HALT_EXIT if _may_pass(error) else step.halt_exit
        return replace(record, status=Status.FAILED, policy=policy.value, error=error.record())

    def _context(self, step: Step, holder: Holder, timeout_s: float) -> Context:
        def hold(point: str) -> None:
            if point not in step.hold_points:
                raise BugError(f"step {step.name} has no hold point {point!r}", hint="name it in the table")
            holder.hold(point)

        def progress(text: str) -> None:
            with self._lock:
                record = self._latest_named(step.name)
                if record.status is not Status.RUNNING or record.progress == text:
                    return
                record = replace(record, progress=text)
                self._put(record)
                for observer in self._observers:
                    observer.step_progressed(record, self._report)

        return Context(self._config, self._host, hold, progress, timeout_s, dry_run=self._dry_run)

    def _new(self, step: Step) -> StepRecord:
        return StepRecord(
            name=step.name,
            ref=step.ref,
            role=step.role.value,
            policy=step.policy.value,
            timeout_s=self._timeout_s(step),
            background=step.background,
            status=Status.RUNNING,
            offset_s=time.monotonic() - self._origin,
        )

    def _timeout_s(self, step: Step) -> float:
        """What the settings say; else the table's, and the time xenstored is given on top of it."""
        wait_s = self._config.xenstore_wait_s if step.awaits_xenstored else 0.0
        return self._config.timeouts_s.get(step.name, step.timeout_s + wait_s)

    def _start(self, record: StepRecord) -> StepRecord:
        with self._lock:
            self._put(record)
            for observer in self._observers:
                observer.step_started(record, self._report)
        return record

    def _finish(self, record: StepRecord) -> StepRecord:
        if self._report.kind is Kind.BOOT:
            _log_end(record)
        with self._lock:
            if record.policy == Policy.DEGRADE.value and (reason := _reason(record)):
                self._host.blockers.append(reason)
            self._put(record)
            for observer in self._observers:
                observer.step_finished(record, self._report)
        return record

    def _put(self, record: StepRecord) -> None:
        """Replace the record of this step, or append it."""
        names = [old.name for old in self._report.steps]
        steps = list(self._report.steps)
        if record.name in names:
            steps[names.index(record.name)] = record
        else:
            steps.append(record)
        self._report = replace(
            self._report,
            steps=tuple(steps),
            blockers=tuple(dict.fromkeys(self._host.blockers)),
            seconds=time.monotonic() - self._origin,
        )

    def _latest(self, record: StepRecord) -> StepRecord:
        with self._lock:
            return self._latest_named(record.name)

    def _latest_named(self, name: str) -> StepRecord:
        return next(record for record in self._report.steps if record.name == name)

    def _end(self, ending: Ending, exit_code: int | None) -> Report:
        with self._lock:
            ended = replace(self._report, ending=ending, exit_code=exit_code)
            if ending is not Ending.COMPLETE:
                ended = interrupted(ended, ending)
            self._report = replace(ended, seconds=time.monotonic() - self._origin)
            for observer in self._observers:
                observer.sequence_finished(self._report)
            return self._report


class _Attempt:
    """One run of a step in a thread of its own."""

    def __init__(self, step: Step, context: Context) -> None:
        self.step = step
        self.done = threading.Event()
        self.given_up = False
        self.outcome: Outcome | None = None
        self.error: HostagentError | None = None
        self._context = context
        self._lock = threading.Lock()

    def start(self) -> None:
        context = contextvars.copy_context()
        threading.Thread(
            target=context.run, args=(self._work,), name=f"step {self.step.name}", daemon=True
        ).start()

    def give_up(self) -> None:
        """Stop waiting for it. If it ended in this very moment its outcome counts."""
        with self._lock:
            self.given_up = not self.done.is_set()

    def _work(self) -> None:
        outcome: Outcome | None = None
        error: HostagentError | None = None
        with fields(step=self.step.name):
            try:
                outcome = _perform(self.step, self._context)
            except HostagentError as failure:
                error = failure
            except Exception as failure:
                log.exception("step %s raised what it should not", self.step.name)
                text = f"{type(failure).__name__}: {failure}"
                error = BugError(
                    text, hint="a defect of hostagent: the log has the traceback; please report it"
                )
            finally:
                with self._lock:
                    if self.given_up:
                        log.warning(
                            "ended after it was given up; its result (%s) is ignored", error or outcome
                        )
                    self.outcome, self.error = outcome, error
                    self.done.set()


def _perform(step: Step, context: Context) -> Outcome:
    if not context.dry_run:
        context.hold("before")
        return step.run(context)
    changes: tuple[Change, ...] = step.plan(context) if step.plan else ()
    return Changed(changes) if changes else Unchanged("would change nothing")


def _role_mismatch(wanted: Role, found: PoolRole | None) -> str | None:
    """Why a step of this role does not run here, None if it does."""
    match wanted:
        case Role.ANY:
            fits = True
        case Role.COORDINATOR:
            fits = found is not None and found.is_coordinator
        case Role.SUPPORTER:
            fits = found is not None and not found.is_coordinator
        case _:
            assert_never(wanted)
    return None if fits or found is None else f"this host is {found.word}; the step is for a {wanted.value}"


def _may_pass(error: HostagentError) -> bool:
    """Whether the same start may succeed later with nobody mending anything."""
    if isinstance(error, FileError):
        return error.errno in PASSING
    return isinstance(error, StepTimeoutError | BusyError | BugError)


def _reason(record: StepRecord) -> str | None:
    """Why a host must stay disabled after this step, which checks or makes what guests rely on."""
    if record.status is Status.FAILED and record.error is not None:
        return f"{record.name}: {record.error['found']}"
    if record.status is Status.BLOCKED:
        return f"{record.name}: {record.note or 'needs ' + ', '.join(record.blocked_by)}"
    return None


def _timeout(record: StepRecord) -> StepTimeoutError:
    where = f" while: {record.progress}" if record.progress else ""
    return StepTimeoutError(
        f"did not end within {record.timeout_s:g} s{where}; it was given up and may still be at work",
        hint=f"try `hostagent startup run {record.name}`; "
        f"[timeouts] {record.name} = SECONDS in hostagent.toml gives it longer",
    )


def _log_end(record: StepRecord) -> None:
    with fields(step=record.name):
        if record.error is not None:
            level = logging.ERROR if record.policy in ("halt", "emergency") else logging.WARNING
            log.log(
                level,
                "failed in %.3f s (%s): %s; hint: %s",
                record.seconds,
                record.policy,
                record.error["found"],
                record.error["hint"],
            )
            return
        told = record.note or ", ".join(record.blocked_by)
        for change in record.changes:
            log.info("%s: %s -> %s", change.what, change.old, change.new)
        log.info("%s in %.3f s%s", record.status.value, record.seconds, f": {told}" if told else "")
        for warning in record.warnings:
            log.warning("%s", warning)
