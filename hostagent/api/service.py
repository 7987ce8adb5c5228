"""What API calls act on: the daemon as they see it."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hostagent import __version__
from hostagent.api.local_socket import socket_path

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hostagent.config import Paths
    from hostagent.lifecycle import Lifecycle
    from hostagent.startup.report import Report, StepRecord


@dataclass(frozen=True, slots=True)
class Service:
    """`started` is in Unix seconds. `restart` ends the daemon so that systemd starts it again, once the call that asked
    for it is answered; its parameter says why. `serving` tells the listeners and the database (`XenApi.serving`).
    """

    paths: Paths
    lifecycle: Lifecycle
    started: float
    set_log_level: Callable[[str], None]
    restart: Callable[[str], None]
    serving: Callable[[], dict[str, object]] = dict

    def status(self) -> dict[str, object]:
        """What `hostagent status` shows: moments in Unix seconds, durations in seconds, sizes in bytes."""
        state, now = self.lifecycle.state, time.time()
        report = state.report
        result = report.result if report else None
        return {
            "state": state.phase.value,
            "boot_result": result.value if result else None,
            "startup_s": report.seconds if report and report.ending else None,
            "running_steps": [_running(step, report, now) for step in report.running] if report else [],
            "troubled_steps": [_troubled(step) for step in report.steps if step.troubled] if report else [],
            "blockers": list(report.blockers) if report else [],
            "error": state.blocking,
            "xenstored": None if state.xenstored is None else dict(state.xenstored),
            "restart_in_s": None if state.restart_at is None else max(0.0, state.restart_at - now),
            "pid": os.getpid(),
            "uptime_s": now - self.started,
            "rss_bytes": rss_bytes(self.paths.root),
            "versions": {
                "hostagent": __version__,
                "python": platform.python_version(),
                "xen": xen_version(self.paths.root),
                "kernel": platform.release(),
            },
            "socket": str(socket_path(self.paths)),
            **self.serving(),
        }


def _running(step: StepRecord, report: Report, now: float) -> dict[str, object]:
    since = report.started_at + step.offset_s
    return {"name": step.name, "ref": step.ref, "since": since, "for_s": now - since, "doing": step.progress}


def _troubled(step: StepRecord) -> dict[str, object]:
    return {
        "name": step.name,
        "ref": step.ref,
        "status": step.status.value,
        "error": step.error,
        "warnings": list(step.warnings),
        "blocked_by": list(step.blocked_by),
    }


def rss_bytes(root: Path) -> int | None:
    """Resident memory of this process, None if /proc does not tell. Source: proc(5), statm field 2."""
    try:
        pages = (root / "proc/self/statm").read_text().split()[1]
    except (OSError, IndexError):
        return None
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def xen_version(root: Path) -> str | None:
    """Version of the running hypervisor, None without Xen. Source: the kernel's sysfs-hypervisor-xen."""
    directory = root / "sys/hypervisor/version"
    try:
        major, minor, extra = ((directory / name).read_text().strip() for name in ("major", "minor", "extra"))
    except OSError:
        return None
    return f"{major}.{minor}{extra}"
