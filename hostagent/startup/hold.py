"""Hold points of start-up steps (`hostagent/hold.py`), and how long a step was held: its deadline does not run then."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from hostagent import hold

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)


class Holder:
    """The hold points of one step. `seconds` is how long it has been held."""

    def __init__(self, run: Path, step: str, *, owner: int = 0) -> None:
        self._run = run
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
        if not hold.ordered(self._run, place, owner=self._owner):
            return
        log.warning("held at %s because %s says so", place, self._run / "hold")
        with self._lock:
            self._since = time.monotonic()
        hold.hold(self._run, place, owner=self._owner)
        with self._lock:
            self._seconds += time.monotonic() - (self._since or time.monotonic())
            self._since = None
