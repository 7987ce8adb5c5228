"""Why no daemon answers: from what systemd and the last start-up report say."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hostagent.config import Paths

UNIT = "hostagent.service"
PROPERTIES = "LoadState,ActiveState,SubState,Result,ExecMainCode,ExecMainStatus,NRestarts"

Record = dict[str, object]


def record(unit: Mapping[str, str], report: Record | None) -> Record:
    """The status record of a daemon that is not there: the reason, and what to type."""
    steps = cast("list[Record]", report["steps"]) if report else []
    troubled = [
        step for step in steps if step["status"] in ("failed", "blocked", "interrupted") or step["warnings"]
    ]
    why, hint = reason(unit)
    error = stopping_error(report)
    return {
        "state": "not running",
        "why": why,
        "hint": error["hint"] if error else hint,
        "boot_result": report["result"] if report else None,
        "error": error,
        "troubled_steps": troubled,
        "unit": dict(unit),
    }


def unit_facts() -> dict[str, str]:
    """What systemd knows of the unit, property → value; empty without systemd."""
    from hostagent.run import CommandError, run

    try:
        shown = run(["systemctl", "show", UNIT, f"--property={PROPERTIES}"], timeout_s=10, package="systemd")
    except CommandError:
        return {}
    pairs = (line.partition("=") for line in shown.stdout.splitlines())
    return {name: value for name, _, value in pairs}


def last_report(paths: Paths) -> Record | None:
    """The report of the last start-up, as JSON has it; None if there is none that can be read."""
    from hostagent.startup.report import ReportError, as_json, load

    try:
        return as_json(load(paths))
    except ReportError:
        return None


def stopping_error(report: Record | None) -> Record | None:
    """The error of the step that ended the last start-up, if one did."""
    if report is None or report["result"] != "stopped" or not report["steps"]:
        return None
    return cast("Record | None", cast("list[Record]", report["steps"])[-1]["error"])


def reason(unit: Mapping[str, str]) -> tuple[str, str]:
    """Why the daemon is not there, and what to type."""
    state, result = unit.get("ActiveState"), unit.get("Result")
    if unit.get("LoadState") != "loaded":
        return f"{UNIT} is not installed", "install it, or `hostagent run` in a terminal"
    if state in ("activating", "deactivating", "reloading"):
        return f"systemd has it {state} ({unit.get('SubState')})", f"journalctl -fu {UNIT}"
    if state == "active":
        return "systemd says it runs, yet nobody listens on its socket", f"systemctl restart {UNIT}"
    if result == "start-limit-hit":
        return (
            "it failed too often in a row: systemd gave up",
            f"systemctl reset-failed {UNIT}; systemctl start {UNIT}",
        )
    if state == "failed":
        return f"the daemon ended: {ending(unit)}", f"journalctl -u {UNIT}; then systemctl start {UNIT}"
    return "it was stopped, or never started", f"systemctl start {UNIT}"


def ending(unit: Mapping[str, str]) -> str:
    """How the main process ended. ExecMainCode is si_code of waitid(2): 1 exited, 2 killed, 3 dumped core."""
    status, result = unit.get("ExecMainStatus", "?"), unit.get("Result", "")
    how = f"exit code {status}" if unit.get("ExecMainCode") == "1" else f"signal {status}"
    return how if result in ("exit-code", "signal", "core-dump", "success", "") else f"{result}, {how}"
