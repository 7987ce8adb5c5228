"""Periodic jobs of the daemon, one after the other in a thread of their own.

A job's period counts from its end. What a job raises is logged and ends only that round of it: it runs again.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hostagent.errors import HostagentError

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

IDLE_S = 10.0
"""How long the thread sleeps at most, as clocks may jump."""


@dataclass(order=True, slots=True)
class _Job:
    due: float
    number: int
    name: str = field(compare=False)
    period_s: float = field(compare=False)
    work: Callable[[], object] = field(compare=False)


class Scheduler:
    """Jobs by name. Its methods may be called from any thread, also from a job."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._jobs: list[_Job] = []
        self._running: _Job | None = None
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._stopped = False
        self._thread: threading.Thread | None = None
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="job")

    def every(
        self, name: str, period_s: float, work: Callable[[], object], *, first_s: float | None = None
    ) -> None:
        """Run `work` after `first_s` (by default one period) and then `period_s` after each end of it. A job of that
        name that is there already is replaced.
        """
        due = self._clock() + (period_s if first_s is None else first_s)
        with self._changed:
            self._jobs = [job for job in self._jobs if job.name != name]
            heapq.heapify(self._jobs)
            heapq.heappush(self._jobs, _Job(due, next(self._numbers), name, period_s, work))
            self._changed.notify()

    @property
    def names(self) -> tuple[str, ...]:
        """The jobs: the one at work, then those that wait for their turn, the next one first."""
        with self._changed:
            running = [self._running] if self._running else []
            return tuple(dict.fromkeys(job.name for job in (*running, *sorted(self._jobs))))

    def run_due(self) -> float:
        """Run what is due now; seconds until the next one is."""
        while True:
            with self._changed:
                if self._stopped or not self._jobs:
                    return IDLE_S
                wait = self._jobs[0].due - self._clock()
                if wait > 0:
                    return min(wait, IDLE_S)
                job = self._running = heapq.heappop(self._jobs)
            self._run(job)
            with self._changed:
                self._running = None
                if all(other.name != job.name for other in self._jobs):
                    job.due = self._clock() + job.period_s
                    heapq.heappush(self._jobs, job)

    def start(self) -> None:
        """Begin to run jobs; a second time is no error."""
        with self._changed:
            if self._thread is None and not self._stopped:
                self._thread = threading.Thread(target=self._loop, name="scheduler", daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """Run no job any more; one that is at work is waited for."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        self._worker.shutdown(wait=True)

    def _loop(self) -> None:
        while True:
            wait = self.run_due()
            with self._changed:
                if self._stopped:
                    return
                if not self._jobs or self._jobs[0].due > self._clock():
                    self._changed.wait(wait)

    def _run(self, job: _Job) -> None:
        """In the worker, whose future holds whatever the job raises: this thread goes on."""
        error = self._worker.submit(job.work).exception()
        if isinstance(error, HostagentError):
            log.warning("%s: %s; %s", job.name, error.found, error.hint)
        elif error is not None:
            log.error("%s ended with a defect", job.name, exc_info=error)
