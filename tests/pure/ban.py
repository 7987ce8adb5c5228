"""The pure layer's ban: no test starts a process, opens a network socket, reads the real /sys or /proc,
sleeps or writes outside the temporary directory; it fails at that very call. The exception is no Exception,
so that no `except Exception` of ours swallows it.

Python's audit hooks see these calls whichever module makes them. Two things are allowed: AF_UNIX sockets in
the temporary directory, and whatever a module does while it is imported.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from typing import Any

PROCESS_EVENTS = {
    "os.exec",
    "os.fork",
    "os.forkpty",
    "os.posix_spawn",
    "os.spawn",
    "os.system",
    "pty.spawn",
    "subprocess.Popen",
}
WRITE_EVENTS = {
    # event -> how many of its leading arguments are paths
    "os.chmod": 1,
    "os.chown": 1,
    "os.link": 2,
    "os.mkdir": 1,
    "os.remove": 1,
    "os.rename": 2,
    "os.rmdir": 1,
    "os.truncate": 1,
    "os.utime": 1,
    "shutil.rmtree": 1,
}
WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
HARMLESS = {"/dev/null", "/dev/urandom"}
HOST_TREES = ("/sys", "/proc", "/dev", "/run/xen", "/var/run/xen")
TEMPORARY = os.path.realpath(tempfile.gettempdir())

armed = {"now": False}


class ForbiddenEffectError(BaseException):
    """A pure test touched the machine."""


def _under(path: str, *trees: str) -> bool:
    return any(path == tree or path.startswith(f"{tree}/") for tree in trees)


def _absolute(path: Any) -> str | None:
    """The absolute path, or None for a file descriptor or something that is no path."""
    if not isinstance(path, (str, bytes, os.PathLike)):
        return None
    text = os.path.abspath(os.fsdecode(path))  # noqa: PTH100 - Path would audit again
    return text if _under(text, *HOST_TREES) else os.path.realpath(text)


def _importing() -> bool:
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


def _forbidden(event: str, args: tuple[Any, ...]) -> str | None:
    """What is wrong with a call, or None."""
    if event in PROCESS_EVENTS:
        return f"starts a process ({event}{args[:2]})"
    if event == "socket.__new__" and args[1] not in (socket.AF_UNIX, -1):
        return f"opens a network socket of family {args[1]}"
    if event in ("socket.connect", "socket.bind"):
        path = _absolute(args[1]) if isinstance(args[1], (str, bytes)) else None
        if path is None or not _under(path, TEMPORARY):
            return f"uses a socket outside the temporary directory: {args[1]!r}"
    if event == "open":
        path = _absolute(args[0])
        if path is None or path in HARMLESS:
            return None
        if isinstance(args[2], int) and args[2] & WRITE_FLAGS and not _under(path, TEMPORARY):
            return f"writes {path}"
        if _under(path, *HOST_TREES):
            return f"reads {path}"
    if event in ("os.listdir", "os.scandir"):
        path = _absolute(args[0])
        if path is not None and _under(path, *HOST_TREES):
            return f"lists {path}"
    for name in args[: WRITE_EVENTS.get(event, 0)]:
        path = _absolute(name)
        if path is not None and os.path.isabs(os.fsdecode(name)) and not _under(path, TEMPORARY):  # noqa: PTH117
            return f"changes {path} ({event})"
    return None


def _watch(event: str, args: tuple[Any, ...]) -> None:
    if not armed["now"]:
        return
    what = _forbidden(event, args)
    if what is not None and not _importing():
        raise ForbiddenEffectError(f"a pure test {what}; it belongs into tests/xen, or needs a fake")


def no_sleep(seconds: float) -> None:
    """Stands in for time.sleep, which is no audit event before Python 3.13."""
    if seconds > 0:
        raise ForbiddenEffectError(
            f"a pure test sleeps {seconds} s; wait for an event, or give the code a clock"
        )


sys.addaudithook(_watch)
