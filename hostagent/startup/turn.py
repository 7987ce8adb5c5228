"""One sequence at a time: the daemon's start-up and `hostagent startup run` take turns on RUN/sequence.lock.

Both run the same steps on the same files and keys, and either would undo what the other just found or wrote. The lock
is held until the sequence ends; a step that was given up, or runs in the background, is not waited for.
"""

from __future__ import annotations

import contextlib
import logging
import os
from typing import TYPE_CHECKING

from hostagent import pidlock
from hostagent.errors import BusyError, OperatorError

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator
    from pathlib import Path

log = logging.getLogger(__name__)

TRY_AGAIN_S = 0.1
"""While waiting for the turn: flock can wait, but then not for a stop request too."""


@contextlib.contextmanager
def turn(run: Path, *, wait: threading.Event | None) -> Iterator[None]:
    """Have the only sequence of this host meanwhile.

    `wait`: wait for the turn until this is set (the caller looks, and then does nothing); None: do not wait.
    Raises BusyError naming the pid that has it, OperatorError when the lock file cannot be used.
    """
    path = run / "sequence.lock"
    try:
        file = _take(path, wait)
    except pidlock.HeldError as error:
        raise BusyError(
            f"another start-up sequence is at work on this host, as pid {error.pid}",
            hint="`hostagent status --watch` follows the daemon's; try again when it is over",
            params=("host", "start-up sequence"),
        ) from error
    except OSError as error:
        raise OperatorError(
            f"{path}: {error.strerror or error}", hint=f"is {run} writable, and not full? df {run}"
        ) from error
    try:
        yield
    finally:
        if file is not None:
            os.close(file)


def _take(path: Path, wait: threading.Event | None) -> int | None:
    told = ""
    while True:
        try:
            return pidlock.take(path)
        except pidlock.HeldError as error:
            if wait is None:
                raise
            if error.pid != told:
                log.warning("waiting: pid %s runs a start-up step by hand", error.pid)
                told = error.pid
            if wait.wait(TRY_AGAIN_S):
                return None
