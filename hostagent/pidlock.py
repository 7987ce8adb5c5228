"""A lock that goes with its process, however that ends; the lock file tells people the pid that holds it."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

PID_LIMIT_BYTES = 20


class HeldError(Exception):
    """Another process holds the lock; `pid` as the file tells it, else `unknown`."""

    def __init__(self, pid: str) -> None:
        super().__init__(pid)
        self.pid = pid


def take(path: Path) -> int:
    """Take the lock without waiting; closing the returned descriptor gives it back. The file stays.

    Raises HeldError; OSError when the file cannot be used.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(file, 0)
        os.write(file, f"{os.getpid()}\n".encode())
    except BlockingIOError as error:
        pid = os.read(file, PID_LIMIT_BYTES).decode(errors="replace").strip() or "unknown"
        os.close(file)
        raise HeldError(pid) from error
    except BaseException:
        os.close(file)
        raise
    return file
