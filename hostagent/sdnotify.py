"""What the daemon tells systemd, sd_notify(3); without NOTIFY_SOCKET nothing is told."""

from __future__ import annotations

import os
import time

from hostagent.errors import OperatorError


class Notifier:
    """Speaks to systemd if it listens. Raises OperatorError when Debian's python3-systemd is missing."""

    def __init__(self) -> None:
        self.listening = bool(os.environ.get("NOTIFY_SOCKET"))
        if self.listening:
            try:
                from systemd import daemon
            except ImportError as error:
                raise OperatorError(
                    "systemd waits for our notification, and the module `systemd` is missing",
                    hint="apt-get install python3-systemd",
                ) from error
            self._send = daemon.notify

    def ready(self, status: str) -> bool:
        return self._tell("READY=1", f"STATUS={status}")

    def status(self, text: str) -> bool:
        return self._tell(f"STATUS={text}")

    def extend_start(self, seconds: float) -> bool:
        """Ask for `seconds` more, from now, before the start counts as failed."""
        return self._tell(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")

    def reloading(self) -> bool:
        return self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, status: str) -> bool:
        return self._tell("STOPPING=1", f"STATUS={status}")

    def alive(self) -> bool:
        return self._tell("WATCHDOG=1")

    def watchdog_off(self) -> bool:
        return self._tell("WATCHDOG_USEC=0")

    def _tell(self, *assignments: str) -> bool:
        return self.listening and bool(self._send("\n".join(line.replace("\n", " ") for line in assignments)))


def watchdog_interval_s() -> float | None:
    """How often systemd should hear WATCHDOG=1: half its limit (sd_watchdog_enabled(3)); None: never."""
    limit, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID")
    if not limit.isdigit() or int(limit) == 0 or pid not in (None, str(os.getpid())):
        return None
    return int(limit) / 2_000_000
