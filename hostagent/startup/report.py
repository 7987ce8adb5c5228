"""The report of a start-up: what each step did, in how many seconds; durable while it grows.

The file STATE/startup-report.json is replaced at every start and end of a step, so that after `kill -9` or a
power cut it still shows the step that was running. Earlier boots are STATE/startup-report.1.json (the one
before) and so on; a step run by hand has a file of its own and never overwrites the boot's.
"""

from __future__ import annotations

import enum
import json
import logging
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

from hostagent import __version__
from hostagent.errors import HostagentError, InvalidValueError, OperatorError
from hostagent.files import HINTS, FileError, read_bounded, write_atomic
from hostagent.startup.step import Change

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from hostagent.config import Paths
    from hostagent.errors import ErrorRecord

log = logging.getLogger(__name__)

FORMAT = 1
KEEP = 10
"""Earlier boots that are kept."""
LIMIT_BYTES = 16 << 20
DISK_DEADLINE_S = 10.0
"""How long the end of a sequence waits for a slow disk."""


class Status(enum.Enum):
    """Where a step is, or how it ended."""

    RUNNING = "running"
    CHANGED = "changed"
    UNCHANGED = "unchanged"
    SKIPPED = "skipped"
    FAILED = "failed"
    BLOCKED = "blocked"
    RESTART = "restart"
    PLANNED = "planned"
    """A dry run: `changes` is what the step would change."""
    INTERRUPTED = "interrupted"
    """The process ended while the step ran (found when the report is read, or asked to stop)."""


class Ending(enum.Enum):
    """How a sequence ended."""

    COMPLETE = "complete"
    HALTED = "halted"
    EMERGENCY = "emergency"
    RESTART = "restart"
    STOPPED = "stopped"
    """Asked to stop (SIGTERM) before it was through."""
    INTERRUPTED = "interrupted"
    """The process ended without saying so: killed, or the host lost power."""


class BootResult(enum.Enum):
    """What start-up came to. Not the exit status of the daemon's process."""

    CLEAN = "clean"
    DEGRADED = "degraded"
    """Through to the end, but a step failed, was blocked or warned."""
    STOPPED = "stopped"
    """Not through to the end."""


REPORT_EXIT = {BootResult.CLEAN: 0, BootResult.DEGRADED: 2, BootResult.STOPPED: 1}
"""Exit codes of `hostagent startup report`."""


class Kind(enum.Enum):
    BOOT = "boot"
    MANUAL = "manual"


@dataclass(frozen=True, slots=True)
class StepRecord:
    """What one step did. `offset_s` counts from the start of the sequence; `seconds` stands when it ended."""

    name: str
    ref: str
    role: str
    policy: str
    timeout_s: float
    background: bool
    status: Status
    offset_s: float
    seconds: float = 0.0
    note: str = ""
    progress: str = ""
    warnings: tuple[str, ...] = ()
    changes: tuple[Change, ...] = ()
    error: ErrorRecord | None = None
    blocked_by: tuple[str, ...] = ()

    @property
    def troubled(self) -> bool:
        """Whether somebody should look at it."""
        return bool(self.warnings) or self.status in (Status.FAILED, Status.BLOCKED, Status.INTERRUPTED)


@dataclass(frozen=True, slots=True)
class Report:
    """A sequence as far as it got. `exit_code` is what the process should end with; None: go on serving.

    `blockers` are reasons why the host must stay disabled, in words for people.
    """

    kind: Kind
    agent: str
    boot_id: str
    pid: int
    pid_start_ticks: int
    started_at: float
    ending: Ending | None = None
    exit_code: int | None = None
    seconds: float = 0.0
    steps: tuple[StepRecord, ...] = field(default=())
    blockers: tuple[str, ...] = ()

    @property
    def result(self) -> BootResult | None:
        """None while the sequence is running."""
        if self.ending is None:
            return None
        if self.ending is not Ending.COMPLETE:
            return BootResult.STOPPED
        return BootResult.DEGRADED if any(step.troubled for step in self.steps) else BootResult.CLEAN

    @property
    def running(self) -> tuple[StepRecord, ...]:
        return tuple(step for step in self.steps if step.status is Status.RUNNING)

    @property
    def stopped_by(self) -> StepRecord | None:
        """The step that ended the sequence, if one did."""
        return self.steps[-1] if self.steps and self.result is BootResult.STOPPED else None


class ReportError(OperatorError):
    """There is no such report, or its file cannot be read."""


def new_report(kind: Kind, *, root: Path) -> Report:
    """An empty report of this process, now."""
    pid = os.getpid()
    return Report(
        kind=kind,
        agent=__version__,
        boot_id=read_boot_id(root),
        pid=pid,
        pid_start_ticks=_start_ticks(root, pid) or 0,
        started_at=time.time(),
    )


def read_boot_id(root: Path) -> str:
    """The kernel's id of this boot (random(4)); empty where there is none."""
    try:
        return (root / "proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


class Recorder:
    """Observer that keeps the report in two places.

    RUN holds it as it is at this moment: memory, written at once, there after `kill -9`. STATE is a disk, where
    each write takes as long as the disk does: a thread of its own keeps the newest state there, so that start-up
    does not wait for it, and only the end of the sequence does. A place that refuses is told once; start-up goes on.
    """

    def __init__(self, paths: Paths, kind: Kind = Kind.BOOT) -> None:
        self._kind = kind
        self._present = present_path(paths, kind)
        self._path = disk_path(paths, kind)
        self._told: set[Path] = set()
        self._changed = threading.Condition()
        self._newest: Report | None = None
        self._text = ""
        self._written: Report | None = None
        self._writer: threading.Thread | None = None

    def step_started(self, record: StepRecord, report: Report) -> None:
        self._record(report)

    def step_progressed(self, record: StepRecord, report: Report) -> None:
        """Into RUN only: what a step is doing is not worth a disk's time."""
        self._write(self._present, json.dumps(as_json(report)))

    def step_finished(self, record: StepRecord, report: Report) -> None:
        self._record(report)

    def sequence_finished(self, report: Report) -> None:
        self._record(report)
        with self._changed:
            self._changed.wait_for(lambda: self._written is self._newest, timeout=DISK_DEADLINE_S)

    def _record(self, report: Report) -> None:
        text = json.dumps(as_json(report))
        self._write(self._present, text)
        with self._changed:
            self._newest = report
            self._text = text
            self._changed.notify_all()
            if self._writer is None:
                self._writer = threading.Thread(target=self._follow, name="report", daemon=True)
                self._writer.start()

    def _follow(self) -> None:
        """Write the newest report to the disk until the sequence and its background steps are over."""
        if self._kind is Kind.BOOT and self._newest is not None:
            self._rotate(self._newest)
        while self._written is None or self._written.ending is None or self._written.running:
            with self._changed:
                self._changed.wait_for(lambda: self._written is not self._newest)
                report, text = self._newest, self._text
            self._write(self._path, text)
            with self._changed:
                self._written = report
                self._changed.notify_all()

    def _rotate(self, report: Report) -> None:
        try:
            if not in_a_loop(self._path, report):
                rotate(self._path)
        except OSError as error:
            log.warning("earlier start-up reports cannot be kept: %s", error)

    def _write(self, path: Path, text: str) -> None:
        try:
            write_atomic(path, text, mode=0o644)
        except (OSError, HostagentError) as error:
            if path not in self._told:
                log.warning("the start-up report cannot be kept: %s", error)
            self._told.add(path)


def present_path(paths: Paths, kind: Kind) -> Path:
    """Where the report of the present boot of the host is, as it is at this moment."""
    return paths.run / disk_path(paths, kind).name


def disk_path(paths: Paths, kind: Kind) -> Path:
    """Where the report survives a reboot."""
    return paths.report if kind is Kind.BOOT else paths.report.with_name("startup-run.json")


def rotate(path: Path) -> None:
    """Make room for a new report: the present one becomes number 1, and so on up to KEEP.

    Killed between two renames it leaves a gap, which the next rotation and every reader pass over.
    """
    if not path.exists():
        return
    for number in range(KEEP - 1, 0, -1):
        older = numbered(path, number)
        if older.exists():
            older.replace(numbered(path, number + 1))
    path.replace(numbered(path, 1))


def in_a_loop(path: Path, report: Report) -> bool:
    """Whether the last two starts, both of the boot of this new `report`, halted at the same step: the later of the two
    tells nothing more and gives way, so that a loop does not push out the reports of the boots before it.
    """
    try:
        last, former = (_parse(numbered(path, number)) for number in (0, 1))
    except ReportError:
        return False
    return (
        report.boot_id == last.boot_id == former.boot_id
        and last.ending is former.ending is Ending.HALTED
        and [step.name for step in last.steps[-1:]] == [step.name for step in former.steps[-1:]]
    )


def numbered(path: Path, number: int) -> Path:
    return path if number == 0 else path.with_name(f"{path.stem}.{number}{path.suffix}")


def load(paths: Paths, *, boot: int = 0) -> Report:
    """The report of the last boot, or of the one `boot` starts before it.

    A report without an ending whose process is gone is returned as interrupted. Raises ReportError, also
    where only root may look.
    """
    if boot < 0:
        raise InvalidValueError("boot", str(boot), "boots are counted from 0, the last one", hint="--boot 1")
    present = _present(paths, Kind.BOOT)
    if present is not None and boot == 0:
        return present
    disk = [path for number in range(KEEP + 1) if _is_there(path := numbered(paths.report, number))]
    if present is None:
        return _read(_chosen(disk, boot, paths), paths.root)
    earlier = [path for path in disk if not _same(path, present, paths.root)]
    return _read(_chosen(earlier, boot - 1, paths), paths.root)


def _is_there(path: Path) -> bool:
    """Whether the file is there. Where we may not look `Path.exists` says no, or raises, by Python version."""
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    except OSError as error:
        hint = HINTS.get(error.errno or 0, "try it by hand")
        raise ReportError(f"{path} could not be read: {error.strerror}", hint=hint) from error
    return True


def _chosen(files: Sequence[Path], number: int, paths: Paths) -> Path:
    if number >= len(files):
        raise ReportError(
            f"there is no start-up report of that boot in {paths.state}",
            hint="the daemon writes one at each start: `systemctl status hostagent`; --boot 0 is the last one",
        )
    return files[number]


def _present(paths: Paths, kind: Kind) -> Report | None:
    """The report in RUN, unless there is none or the disk has a later one (RUN kept from another boot)."""
    try:
        report = _read(present_path(paths, kind), paths.root)
    except ReportError:
        return None
    return report if report.boot_id == read_boot_id(paths.root) else None


def _same(path: Path, report: Report, root: Path) -> bool:
    """Whether a file is of the same sequence as this report."""
    try:
        other = _read(path, root)
    except ReportError:
        return False
    return (other.boot_id, other.pid, other.started_at) == (report.boot_id, report.pid, report.started_at)


def load_manual(paths: Paths) -> Report:
    """What the last `startup run` did. Raises ReportError."""
    return _present(paths, Kind.MANUAL) or _read(disk_path(paths, Kind.MANUAL), paths.root)


def _read(path: Path, root: Path) -> Report:
    report = _parse(path)
    return report if report.ending or is_alive(report, root) else interrupted(report)


def _parse(path: Path) -> Report:
    """The report as its file has it. Raises ReportError."""
    try:
        return from_json(json.loads(read_bounded(path, limit_bytes=LIMIT_BYTES)))
    except FileError as error:
        raise ReportError(error.found, hint=error.hint) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise ReportError(
            f"{path} is not a start-up report", hint="the next start writes a new one"
        ) from error


def is_alive(report: Report, root: Path) -> bool:
    """Whether the process that writes this report is still there (same pid, same start, same boot)."""
    return report.boot_id == read_boot_id(root) and _start_ticks(root, report.pid) == report.pid_start_ticks


def interrupted(report: Report, ending: Ending = Ending.INTERRUPTED) -> Report:
    """The report of a process that ended in the middle."""
    steps = tuple(
        replace(step, status=Status.INTERRUPTED) if step.status is Status.RUNNING else step
        for step in report.steps
    )
    return replace(report, ending=ending, steps=steps)


def blame(report: Report) -> tuple[StepRecord, ...]:
    """Steps that did something, slowest first."""
    tried = (step for step in report.steps if step.status not in (Status.SKIPPED, Status.BLOCKED))
    return tuple(sorted(tried, key=lambda step: step.seconds, reverse=True))


def as_json(report: Report) -> dict[str, object]:
    """The report as the file and `--json` have it."""
    result = report.result
    return {
        "format": FORMAT,
        "kind": report.kind.value,
        "agent": report.agent,
        "boot_id": report.boot_id,
        "pid": report.pid,
        "pid_start_ticks": report.pid_start_ticks,
        "started_at": report.started_at,
        "seconds": report.seconds,
        "ending": report.ending.value if report.ending else None,
        "result": result.value if result else None,
        "exit_code": report.exit_code,
        "blockers": list(report.blockers),
        "steps": [step_json(step) for step in report.steps],
    }


def step_json(step: StepRecord) -> dict[str, object]:
    return {
        "name": step.name,
        "ref": step.ref,
        "role": step.role,
        "policy": step.policy,
        "timeout_s": step.timeout_s,
        "background": step.background,
        "status": step.status.value,
        "offset_s": step.offset_s,
        "seconds": step.seconds,
        "note": step.note,
        "progress": step.progress,
        "warnings": list(step.warnings),
        "changes": [{"what": one.what, "old": one.old, "new": one.new} for one in step.changes],
        "error": step.error,
        "blocked_by": list(step.blocked_by),
    }


def from_json(document: object) -> Report:
    """Raises ValueError, KeyError, TypeError, AttributeError or OverflowError for anything `as_json` does not write.

    Reports of earlier versions have no blockers.
    """
    if not isinstance(document, Mapping) or document["format"] != FORMAT:
        raise ValueError("not a report of this format")
    ending, exit_code = document["ending"], document["exit_code"]
    return Report(
        kind=Kind(document["kind"]),
        agent=str(document["agent"]),
        boot_id=str(document["boot_id"]),
        pid=int(document["pid"]),
        pid_start_ticks=int(document["pid_start_ticks"]),
        started_at=float(document["started_at"]),
        seconds=float(document["seconds"]),
        ending=None if ending is None else Ending(ending),
        exit_code=None if exit_code is None else int(exit_code),
        steps=tuple(_step(item) for item in document["steps"]),
        blockers=tuple(str(text) for text in document.get("blockers", [])),
    )


def _step(item: Mapping[str, object]) -> StepRecord:
    error = cast("ErrorRecord | None", item["error"])
    if error is not None:
        error = {
            "code": str(error["code"]),
            "params": [str(param) for param in error["params"]],
            "found": str(error["found"]),
            "hint": str(error["hint"]),
        }
    return StepRecord(
        name=str(item["name"]),
        ref=str(item["ref"]),
        role=str(item["role"]),
        policy=str(item["policy"]),
        timeout_s=float(cast("float", item["timeout_s"])),
        background=bool(item["background"]),
        status=Status(item["status"]),
        offset_s=float(cast("float", item["offset_s"])),
        seconds=float(cast("float", item["seconds"])),
        note=str(item["note"]),
        progress=str(item["progress"]),
        warnings=tuple(str(text) for text in cast("list[object]", item["warnings"])),
        changes=tuple(_change(one) for one in cast("list[Mapping[str, object]]", item["changes"])),
        error=error,
        blocked_by=tuple(str(name) for name in cast("list[object]", item["blocked_by"])),
    )


def _change(item: Mapping[str, object]) -> Change:
    old, new = (None if item[key] is None else str(item[key]) for key in ("old", "new"))
    return Change(str(item["what"]), old, new)


def _start_ticks(root: Path, pid: int) -> int | None:
    """When a process started, in clock ticks since boot (proc_pid_stat(5), field 22); None if it is gone."""
    try:
        stat = (root / "proc" / str(pid) / "stat").read_text(errors="replace")
        return int(stat.rpartition(")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return None
