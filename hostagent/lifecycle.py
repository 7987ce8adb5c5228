"""What the daemon is doing right now, as one value that any thread may read.

The start-up thread and the main loop change it, the API and `hostagent status` show it. The error in
`blocking` is what xapi calls the emergency error (startup-and-pool-join.md 1.4): while it stands, only
emergency calls are answered.
"""

from __future__ import annotations

import enum
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hostagent.errors import CallerError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hostagent.errors import ErrorRecord
    from hostagent.startup.report import Report


class HostStillBootingError(CallerError):
    """A call came before the start-up sequence reached S40."""

    code = "HOST_STILL_BOOTING"

    def __init__(self) -> None:
        super().__init__(
            "the start-up sequence still runs", hint="`hostagent status --watch` follows it", params=()
        )


class Phase(enum.Enum):
    """Where the daemon is in its life."""

    STARTING = "starting"
    READY = "ready"
    EMERGENCY = "emergency"
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True)
class State:
    """Phase; the error that blocks calls; the report of start-up as far as it got.

    `restart_at` (Unix seconds) is when a daemon in emergency mode asks to be started again. `xenstored` tells
    what is wrong with xenstored (link, seen, hint), None while nothing is.
    """

    phase: Phase
    blocking: ErrorRecord | None
    report: Report | None = None
    restart_at: float | None = None
    xenstored: Mapping[str, str] | None = None


class Lifecycle:
    """Holder of the State. Every change is one method; the allowed order of phases is kept here.

    Once stopping, always stopping; emergency mode ends only with the process.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._state = State(Phase.STARTING, HostStillBootingError().record())

    @property
    def state(self) -> State:
        return self._state

    def reported(self, report: Report) -> None:
        with self._lock:
            self._state = replace(self._state, report=report)

    def became_ready(self) -> bool:
        """Open the API to all calls. False: it was open before, or the daemon is past opening it."""
        with self._lock:
            if self._state.phase is not Phase.STARTING:
                return False
            self._state = replace(self._state, phase=Phase.READY, blocking=None)
            return True

    def entered_emergency(self, error: ErrorRecord, restart_at: float) -> None:
        with self._lock:
            if self._state.phase is not Phase.STOPPING:
                self._state = replace(
                    self._state, phase=Phase.EMERGENCY, blocking=error, restart_at=restart_at
                )

    def saw_xenstored(self, trouble: Mapping[str, str] | None) -> bool:
        """Whether that is news."""
        with self._lock:
            news = trouble != self._state.xenstored
            self._state = replace(self._state, xenstored=trouble)
            return news

    def stopping(self) -> None:
        with self._lock:
            self._state = replace(self._state, phase=Phase.STOPPING)
