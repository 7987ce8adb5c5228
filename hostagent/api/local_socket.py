"""The daemon's place under RUN: one instance at a time, one socket that only root can reach."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from typing import TYPE_CHECKING

from hostagent import pidlock
from hostagent.errors import BusyError, OperatorError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hostagent.config import Paths

BACKLOG = 1024
"""As many as may be connected: of a Unix socket the kernel takes no more than these before we do, and clients that come
at once beyond it (the 129th with xapi's 128) are told to try again, which few can.
"""


class SecondInstanceError(BusyError):
    """Another daemon holds the lock of this RUN directory."""


class RunDirectoryError(OperatorError):
    """RUN or what is in it is not as it must be, or cannot be made so."""


def socket_path(paths: Paths) -> Path:
    return paths.run / "api.sock"


@contextlib.contextmanager
def only_instance(paths: Paths) -> Iterator[None]:
    """Hold the lock of this RUN directory; made with mode 0700 if absent.

    The lock goes with the process, however it ends; the file stays and holds the pid for people.

    Raises SecondInstanceError with the pid that holds it, RunDirectoryError when RUN cannot be used.
    """
    _make_private(paths.run)
    path = paths.run / "hostagent.lock"
    try:
        file = pidlock.take(path)
    except pidlock.HeldError as error:
        raise SecondInstanceError(
            f"hostagent already runs here, as pid {error.pid}",
            hint="`hostagent status` asks it; `systemctl restart hostagent` starts it anew",
        ) from error
    except OSError as error:
        raise _unusable(path, error) from error
    try:
        yield
    finally:
        os.close(file)


@contextlib.contextmanager
def listening_socket(path: Path) -> Iterator[socket.socket]:
    """A listening Unix socket with mode 0600 from its first moment; gone again at the end.

    Call it under `only_instance`: a socket that is there already is then stale and is removed. Anything
    else there is left alone.

    Raises RunDirectoryError.
    """
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        listener.bind(str(path))
        listener.listen(BACKLOG)
        made = path.lstat().st_ino
    except OSError as error:
        listener.close()
        raise _unusable(path, error) from error
    finally:
        os.umask(mask)
    try:
        yield listener
    finally:
        listener.close()
        with contextlib.suppress(OSError):
            if path.lstat().st_ino == made:
                path.unlink()


def _make_private(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = directory.stat()
        if found.st_uid != os.geteuid():
            raise RunDirectoryError(
                f"{directory} belongs to uid {found.st_uid}", hint=f"chown root: {directory}; who made it?"
            )
        if stat.S_IMODE(found.st_mode) != 0o700:
            directory.chmod(0o700)
    except OSError as error:
        raise _unusable(directory, error) from error


def _remove_stale(path: Path) -> None:
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise RunDirectoryError(
                f"{path} is there and is not a socket", hint=f"look what it is, then: mv {path} {path}.old"
            )
        path.unlink()
    except FileNotFoundError:
        return
    except OSError as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, error: OSError) -> RunDirectoryError:
    return RunDirectoryError(
        f"{path}: {error.strerror or error}",
        hint=f"is {path.parent} writable, and not full? df {path.parent}",
    )
