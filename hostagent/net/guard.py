"""The undo timer of a change of the management network: a transient systemd timer that outlives us.

It is armed before the change and stopped by the confirmation. When nobody confirms (also because we were killed, or
the change cut the host off), systemd runs the undo command. A reboot does not need it: the journal undoes then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.errors import BusyError, OperatorError
from hostagent.named import NamedTuple
from hostagent.run import CommandError, run

if TYPE_CHECKING:
    from collections.abc import Sequence

UNIT = "hostagent-net-undo"
TIMER, SERVICE = f"{UNIT}.timer", f"{UNIT}.service"
COMMAND_TIMEOUT_S = 10.0
LONGEST_S = 24 * 3600
FAILED_EXIT = 1
"""Of the undo command: it was done in part, or cannot be done."""
BUSY_EXIT = 75
"""Of the undo command: somebody else has the lock, and nothing was touched (EX_TEMPFAIL of sysexits.h)."""


class GuardError(OperatorError):
    """There is no working undo timer; the change must not begin, or was already undone."""

    code = "PIF_CONFIGURATION_ERROR"


class Guard(NamedTuple):
    """`armed`: the timer runs and ends in `remaining_s`. `undoing`: it has ended and the undo command runs."""

    armed: bool
    undoing: bool
    remaining_s: float


def arm_argv(command: Sequence[str], seconds: int) -> list[str]:
    """The command that arms the timer. The undo is its own unit too, so that nothing of ours ends it half-way."""
    return [
        "systemd-run",
        "--quiet",
        "--collect",
        f"--unit={UNIT}",
        "--description=Undo of an unconfirmed network change (hostagent)",
        f"--on-active={seconds}",
        "--timer-property=AccuracySec=100ms",  # by default a timer may be a minute late
        "--service-type=oneshot",
        "--property=Restart=on-failure",  # an undo is repeatable: one that was killed, or found the lock taken
        # not one that failed: each try takes the NIC out of its bridge and down, and what failed will fail again
        f"--property=RestartPreventExitStatus={FAILED_EXIT}",
        "--property=RestartSec=2",
        # not given up while somebody else has the lock, which takes a minute each time
        "--property=StartLimitIntervalSec=3600",
        "--property=StartLimitBurst=100",
        "--",
        *command,
    ]


def arm(command: Sequence[str], seconds: int) -> None:
    """Have `command` (absolute path first) run in `seconds`, unless `confirm` comes before.

    Raises BusyError when a timer is armed already: another change waits for its confirmation. GuardError when systemd
    does not arm it: then the change must not begin.
    """
    if not 1 <= seconds <= LONGEST_S:
        raise GuardError(f"an undo after {seconds} s makes no sense", hint=f"give 1 to {LONGEST_S} seconds")
    now = state()
    if now.armed or now.undoing:
        what = "is being undone" if now.undoing else f"is to be confirmed within {now.remaining_s:.0f} s"
        raise BusyError(
            f"an earlier network change {what}",
            hint="`hostagent net confirm`, or wait until it is undone",
            params=("host", "network"),
        )
    try:
        run(arm_argv(command, seconds), timeout_s=COMMAND_TIMEOUT_S, package="systemd")
    except CommandError as error:
        raise GuardError(f"the undo timer could not be armed: {error.found}", hint=error.hint) from error
    if not state().armed:
        raise GuardError("systemd took the undo timer but does not run it", hint=f"systemctl status {TIMER}")


def confirm() -> float:
    """Keep the change: stop the timer. Returns the seconds that were left.

    Raises GuardError when there is none to stop: it has ended, and the change was undone.
    """
    now = state()
    if not now.armed:
        what = "the change is being undone now" if now.undoing else "no change waits for a confirmation"
        raise GuardError(what, hint="`hostagent net history` tells what became of it")
    try:
        run(["systemctl", "stop", TIMER], timeout_s=COMMAND_TIMEOUT_S, package="systemd")
    except CommandError as error:
        raise GuardError(f"the undo timer could not be stopped: {error.found}", hint=error.hint) from error
    if state().undoing:  # it ended between the look and the stop
        raise GuardError("the confirmation came too late: the change is being undone", hint="make it again")
    return now.remaining_s


def stand_down() -> None:
    """Stop the timer, and an undo that waits for the lock: for who has the lock, and has resolved what they were for.

    That there is neither is fine. Raises GuardError where one of them goes on.
    """
    argv = ["systemctl", "stop", TIMER, SERVICE]
    try:
        now = state()
        if now.armed or now.undoing:
            run(argv, timeout_s=COMMAND_TIMEOUT_S, package="systemd", check=False)
            now = state()
    except CommandError as error:
        raise GuardError(f"the undo timer could not be stopped: {error.found}", hint=error.hint) from error
    if now.armed or now.undoing:
        raise GuardError(
            "the undo timer goes on after it was stopped", hint=f"systemctl status {TIMER} {SERVICE}"
        )


def state() -> Guard:
    """How the timer stands."""
    argv = ["systemctl", "show", "--property=Id,ActiveState,SubState,NextElapseUSecMonotonic", TIMER, SERVICE]
    shown = run(argv, timeout_s=COMMAND_TIMEOUT_S, package="systemd").stdout
    return parse(shown, _uptime_s())


def parse(shown: str, uptime_s: float) -> Guard:
    """From what `systemctl show` says of both units. `uptime_s`: seconds since boot on CLOCK_MONOTONIC."""
    units: dict[str, dict[str, str]] = {}
    for block in shown.split("\n\n"):
        properties = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        units[properties.get("Id", "")] = properties
    timer, service = units.get(TIMER, {}), units.get(SERVICE, {})
    undoing = service.get("ActiveState") in ("active", "activating")
    armed = timer.get("ActiveState") == "active" and timer.get("SubState") == "waiting"
    due_s = seconds_of(timer.get("NextElapseUSecMonotonic", "")) if armed else None
    return Guard(armed, undoing, max(0.0, due_s - uptime_s) if due_s is not None else 0.0)


UNITS_S = {
    "y": 31557600.0, "month": 2629800.0, "w": 604800.0, "d": 86400.0, "h": 3600.0, "min": 60.0, "s": 1.0,
    "ms": 1e-3, "us": 1e-6,
}  # fmt: skip


def seconds_of(text: str) -> float | None:
    """A span of time as systemd shows it (`1h 2min 3.5s`), in seconds; None for `infinity` and what is none."""
    total = 0.0
    words = text.split()
    for word in words:
        number = word.rstrip("abcdefghijklmnopqrstuvwxyz")
        try:
            total += float(number) * UNITS_S[word[len(number) :]]
        except (ValueError, KeyError):
            return None
    return total if words else None


def _uptime_s() -> float:
    import time

    return time.clock_gettime(time.CLOCK_MONOTONIC)
