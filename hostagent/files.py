"""Files that must be whole: read with a bound, replace in one step, never half-written after a crash.

A writer's temporary file has one fixed name beside its target and is locked while a writer lives. So what a
killed writer leaves is taken over by the next one, and two writers of the same file take turns.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from hostagent.errors import BusyError, OperatorError

if TYPE_CHECKING:
    from collections.abc import Iterable

LOCK_TIMEOUT_S = 5.0  # a writer holds the lock for one small write and two fsyncs
LOCK_POLL_S = 0.02  # flock has no deadline of its own

HINTS = {
    errno.ENOENT: "create it, or restore it from a backup",
    errno.EACCES: "run as root, and look at the modes of the file and its directories",
    errno.EPERM: "look at `lsattr` of the file and its directory: it may be immutable",
    errno.EROFS: "the file system is read-only: `dmesg` tells why; `mount -o remount,rw` once that is mended",
    errno.ENOSPC: "the disk is full: `df -h` and `df -i` show which; free some space and try again",
    errno.EDQUOT: "the quota is used up: free some space and try again",
    errno.EIO: "the disk reports errors: see `dmesg`",
    errno.ENOTDIR: "a file stands where a directory is needed: move it away",
    errno.EISDIR: "a directory stands where a file is needed: move it away",
}


class FileError(OperatorError):
    """A file could not be read or written; `errno` tells why (0: it is not a plain file, or too large)."""

    def __init__(self, found: str, *, hint: str, number: int) -> None:
        super().__init__(found, hint=hint)
        self.errno = number


def read_bounded(path: Path, *, limit_bytes: int) -> bytes:
    """The whole of a plain file of at most `limit_bytes`; never blocks on a pipe or device in its place.

    Raises FileError: missing, unreadable, not a plain file, too large.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise FileError(f"{path} is not a plain file", hint="move it away", number=0)
            data = file.read(limit_bytes + 1)
    except OSError as error:
        raise _failure("read", path, error) from error
    if len(data) > limit_bytes:
        raise FileError(
            f"{path} is larger than {limit_bytes} bytes",
            hint="look at it: this is not what we wrote",
            number=0,
        )
    return data


def write_atomic(path: Path, data: bytes | str, *, mode: int = 0o644) -> None:
    """Make `path` hold `data` with these permissions, now and after a power loss, or leave it as it was.

    A symbolic link stays and what it points to is replaced. The new file is never readable by more than
    `mode` allows, not even while it is written. After a failure no temporary file is left.

    Raises FileError (full or read-only disk, …); BusyError when another writer holds the file for 5 s.
    """
    write_pieces(path, (data.encode() if isinstance(data, str) else data,), mode=mode)


def write_pieces(path: Path, pieces: Iterable[bytes], *, mode: int = 0o644) -> None:
    """As `write_atomic`, for what comes piece by piece; when the pieces break off, `path` stays as it was."""
    target = Path(os.path.realpath(path))
    temporary = temporary_name(target)
    try:
        descriptor = _lock_temporary(temporary)
        try:
            for piece in pieces:
                _append(descriptor, piece)
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
            temporary.rename(target)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        finally:
            os.close(descriptor)
        sync_directory(target.parent)
    except OSError as error:
        raise _failure("written", path, error) from error


def temporary_name(target: Path) -> Path:
    """Where a writer of `target` prepares the new content: the same directory, so that rename is one step."""
    return target.with_name(f".{target.name}.new")


def _lock_temporary(temporary: Path) -> int:
    """The descriptor of the temporary file, locked, empty, and readable by its owner only."""
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(temporary, flags, 0o600)
        try:
            if _try_lock(descriptor, temporary):
                os.fchmod(descriptor, 0o600)
                os.ftruncate(descriptor, 0)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        if time.monotonic() > deadline:
            raise BusyError(
                f"another process has been writing {temporary} for {LOCK_TIMEOUT_S:g} s",
                hint=f"`fuser -v {temporary}` names it",
                params=("File", str(temporary)),
            )
        time.sleep(LOCK_POLL_S)


def _try_lock(descriptor: int, temporary: Path) -> bool:
    """Whether the lock is ours and the name still means this file (its last holder may have renamed it)."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(descriptor), temporary.lstat())
    except (BlockingIOError, FileNotFoundError):
        return False


def _append(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _failure(done: str, path: Path, error: OSError) -> FileError:
    number = error.errno or 0
    found = f"{path} could not be {done}: {error.strerror}"
    return FileError(found, hint=HINTS.get(number, "try it by hand"), number=number)
