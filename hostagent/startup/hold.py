"""Hold points: a fault test stops a step at a named place, to kill or cut the host exactly there.

The file RUN/hold names the place as `<step>:<point>`. It counts only when root owns it and nobody else can
write it; without it a hold point costs one `stat`. While held, RUN/held tells the same words and the pid, so
that the test knows it was really reached; removing RUN/hold lets the step go on.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.05
GROUP_OR_WORLD_WRITE = stat.S_IWGRP | stat.S_IWOTH


class Holder:
    """The hold points of one step. `seconds` is how long it has been held: its deadline does not run
    meanwhile.
    """

    def __init__(self, run: Path, step: str, *, owner: int = 0) -> None:
        self._order = run / "hold"
        self._held = run / "held"
        self._step = step
        self._owner = owner
        self._seconds = 0.0
        self._since: float | None = None
        self._lock = threading.Lock()

    @property
    def seconds(self) -> float:
        with self._lock:
            return self._seconds + (0.0 if self._since is None else time.monotonic() - self._since)

    def hold(self, point: str) -> None:
        place = f"{self._step}:{point}"
        if not self._ordered(place):
            return
        log.warning("held at %s because %s says so", place, self._order)
        with self._lock:
            self._since = time.monotonic()
        self._held.write_text(f"{place} {os.getpid()}\n")
        while self._ordered(place):
            time.sleep(LOOK_EVERY_S)
        with contextlib.suppress(FileNotFoundError):
            self._held.unlink()
        with self._lock:
            self._seconds += time.monotonic() - (self._since or time.monotonic())
            self._since = None

    def _ordered(self, place: str) -> bool:
        try:
            found = self._order.lstat()
            if (
                found.st_uid != self._owner
                or found.st_mode & GROUP_OR_WORLD_WRITE
                or not stat.S_ISREG(found.st_mode)
            ):
                return False
            return self._order.read_text(errors="replace").strip() == place
        except OSError:
            return False
