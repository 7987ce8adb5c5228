"""The journal of a network change: what undoes it, on the disk before the first step; and the lock of all changes.

One JSON file holds the whole plan, so that undoing needs no database. Its state is `begun` (steps may have happened),
`applied` (all have; who made it has the lock until it is over), `waiting` (its maker is done, and an operator is to
confirm it before a timer ends), `undo-failed` (its undo had troubles; the next change is planned from what there is and
replaces it), `committed` or `undone`. One that is not over is undone at the next start: the kernel's part only within
the same boot, what lies in files always (of a card that is taken over or given back see `later_boot.py`). One that is
over keeps no steps.

A journal that cannot be understood is set aside: it must not keep the host from its network for ever.

Behind the JSON, in lines of their own, stands how many steps may have begun. Such a line is on the disk before the
first of them is done, so that undoing does not touch what was never changed. Steps whose undo only deletes what they
made need no line: there is nothing to disturb.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hostagent.errors import BusyError, HostagentError, OperatorError
from hostagent.files import FileError, read_bounded, sync_directory, write_atomic
from hostagent.named import NamedTuple
from hostagent.net.operation import Operation, Plan, Step

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BEGUN, APPLIED, WAITING, UNDO_FAILED = "begun", "applied", "waiting", "undo-failed"
COMMITTED, UNDONE = "committed", "undone"
OVER = (COMMITTED, UNDONE)
NAME, LOCK = "journal", "lock"
DAMAGED = "journal.damaged"
OTHER_VERSION = "journal.version-{}"
LIMIT_BYTES = 64 << 20  # 4000 VLAN networks make 10 MB
HOLDER_LIMIT_BYTES = 200
POLL_S = 0.05  # flock has no deadline of its own
VERSION = 1
BOOT_ID = "proc/sys/kernel/random/boot_id"


class JournalError(OperatorError):
    """The journal is there and cannot be understood. `aside` is the name it should have then."""

    aside = DAMAGED


class _VersionError(ValueError):
    def __init__(self, version: object) -> None:
        super().__init__(f"another version ({version!r:.20})")
        self.aside = OTHER_VERSION.format(version) if type(version) is int and version >= 0 else DAMAGED


class Journal(NamedTuple):
    state: str
    boot_id: str
    digest: str
    """Of the records that the plan leads to: the caller compares it with what the database says."""
    what: str
    """What was asked for, in words."""
    begun_s: float
    """When, in seconds since 1970."""
    steps: tuple[Step, ...]
    """All of them; of one that is read in the state `begun`, those that may have begun."""


def boot_id(root: Path = Path("/")) -> str:
    return read_bounded(root / BOOT_ID, limit_bytes=128).decode("ascii", "replace").strip()


def begin(folder: Path, plan: Plan, *, boot: str, digest: str, what: str) -> Journal:
    """Write the journal of a plan that is about to be carried out; it is on the disk when this returns.

    Raises FileError, JournalError; BusyError where another change is neither committed nor undone: that comes first.
    """
    unfinished = pending(folder)
    if unfinished is not None and unfinished.state != UNDO_FAILED:
        raise BusyError(
            f"the network change before ({unfinished.what}) is {unfinished.state} and not committed",
            hint="keep it with `hostagent net confirm`, or end it with `hostagent net undo`",
            params=("network", unfinished.what),
        )
    journal = Journal(BEGUN, boot, digest, what, time.time(), plan.steps)
    _write(folder, journal)
    return journal


def mark(folder: Path, journal: Journal, state: str) -> Journal:
    """Write the journal's next state. Raises FileError: then it is in the state before."""
    journal = journal._replace(state=state, steps=() if state in OVER else journal.steps)
    _write(folder, journal)
    return journal


def commit(folder: Path, journal: Journal) -> None:
    """The change stays: nobody is to undo it. Where the disk does not take the mark, the journal goes, which needs no
    room. Raises FileError where neither can be: then the change is in the state before.
    """
    try:
        mark(folder, journal, COMMITTED)
    except HostagentError as error:
        path = folder / NAME
        try:
            path.unlink(missing_ok=True)
            sync_directory(folder)
        except OSError as failed:
            raise FileError(
                f"{error.found}; and {path} could not be removed: {failed.strerror}",
                hint="look at the disk: `df -h`, `mount`, dmesg",
                number=failed.errno or 0,
            ) from error


def progress(folder: Path, count: int) -> None:
    """Make durable that the first `count` steps may begin from now on. Raises FileError."""
    path = folder / NAME
    try:
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        try:
            os.write(file, f"{count}\n".encode())
            os.fdatasync(file)
        finally:
            os.close(file)
    except OSError as error:
        raise FileError(
            f"{path} could not be continued: {error.strerror}",
            hint="look at the disk: `df -h`, `mount`",
            number=error.errno or 0,
        ) from error


def reach(steps: Sequence[Step], count: int) -> int:
    """How many steps may have begun when the last line says `count`: those behind it that need no line, too."""
    while count < len(steps) and all(operation.verb == "link-del" for operation in steps[count].undo):
        count += 1
    return count


def pending(folder: Path) -> Journal | None:
    """The journal of a change that is neither committed nor undone, or None. Raises FileError, JournalError.

    Of one that is over nothing else is looked at: whoever wrote it, there is nothing to undo.
    """
    path = folder / NAME
    try:
        text = read_bounded(path, limit_bytes=LIMIT_BYTES)
    except FileError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise
    try:
        first, *lines = text.split(b"\n")
        value = json.loads(first)
        if isinstance(value, dict) and value.get("state") in OVER:
            return None
        journal = _decode(value)
        if journal.state == BEGUN:
            # the last one has no end when the power went while it was written: then nothing of it had begun
            count = int(lines[-2]) if len(lines) > 1 else 0
            journal = journal._replace(steps=journal.steps[: reach(journal.steps, count)])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        broken = JournalError(
            f"{path} is not a journal of ours: {error}",
            hint="the next change sets it aside; `hostagent net check` tells whether the network is as it is to be",
        )
        broken.aside = getattr(error, "aside", DAMAGED)
        raise broken from error
    return journal


def usable(folder: Path) -> tuple[Journal | None, str]:
    """As `pending`; one that cannot be read or understood is renamed, and told with its new name. For who has the lock.

    Raises FileError where it cannot even be renamed.
    """
    try:
        return pending(folder), ""
    except (JournalError, FileError) as error:
        path, aside = folder / NAME, folder / getattr(error, "aside", DAMAGED)
        try:
            path.replace(aside)
        except OSError as failed:
            raise FileError(
                f"{error.found}; and it could not be renamed: {failed.strerror}",
                hint="look at the disk: `df -h`, `mount`, dmesg",
                number=failed.errno or 0,
            ) from error
        return None, (
            f"THE JOURNAL OF THE LAST NETWORK CHANGE WAS LOST: {error.found}; it is now {aside}."
            " What that change did was not undone"
        )


def _write(folder: Path, journal: Journal) -> None:
    value = {
        "version": VERSION,
        **journal._asdict(),
        "steps": [[step.do, step.undo, step.serves] for step in journal.steps],
    }
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    write_atomic(folder / NAME, json.dumps(value, separators=(",", ":")) + "\n", mode=0o600)


def _decode(value: Any) -> Journal:
    if not isinstance(value, dict) or value.get("version") != VERSION:
        raise _VersionError(value.get("version") if isinstance(value, dict) else None)
    texts: list[str] = [value[name] for name in ("state", "boot_id", "digest", "what")]
    if not all(isinstance(text, str) for text in texts) or texts[0] not in (
        BEGUN,
        APPLIED,
        WAITING,
        UNDO_FAILED,
    ):
        raise ValueError("state, boot_id, digest or what is missing")
    steps = tuple(
        Step(_operation(do), tuple(_operation(one) for one in undo), tuple(map(str, serves)))
        for do, undo, serves in value["steps"]
    )
    state, boot, digest, what = texts
    return Journal(state, boot, digest, what, float(value["begun_s"]), steps)


def _operation(value: Any) -> Operation:
    verb, device, index, args = value
    if not (isinstance(verb, str) and isinstance(device, str) and isinstance(args, dict)):
        raise TypeError("an operation has a verb, a device, an index and arguments")
    return Operation(verb, device, int(index), args)


class Lock:
    """That only one change of the network goes on in this host, whichever process makes it; a context manager.

    `name` says who we are to those who wait. Waits at most `wait_s`. Raises BusyError, with the holder's name and pid.
    """

    def __init__(
        self, folder: Path, name: str, *, wait_s: float, sleep: Callable[[float], None] | None = None
    ) -> None:
        self._path = folder / LOCK
        self._name = name
        self._wait_s = wait_s
        self._sleep = sleep
        self._file = -1

    def __enter__(self) -> Lock:
        try:
            self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._file = os.open(self._path, flags, 0o600)
        except OSError as error:
            raise FileError(
                f"{self._path} could not be opened: {error.strerror}",
                hint="run as root, and look at the disk: `df -h`, `mount`",
                number=error.errno or 0,
            ) from error
        try:
            self._take()
        except BaseException:
            os.close(self._file)
            raise
        return self

    def _take(self) -> None:
        deadline = time.monotonic() + self._wait_s
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise self._busy() from None
                (self._sleep or time.sleep)(POLL_S)
            else:
                os.ftruncate(self._file, 0)
                os.pwrite(self._file, f"{self._name} (pid {os.getpid()})\n".encode(), 0)
                return

    def _busy(self) -> BusyError:
        holder = os.pread(self._file, HOLDER_LIMIT_BYTES, 0).decode(errors="replace").strip() or "unknown"
        return BusyError(
            f"the network is being changed by {holder}, for longer than {self._wait_s:g} s",
            hint=f"wait for it; `fuser -v {self._path}` tells whether it lives",
            params=("network", holder),
        )

    def __exit__(self, *exc: object) -> None:
        os.ftruncate(self._file, 0)
        os.close(self._file)
