"""`hostagent status`: is the host up? What the daemon answers, or why there is no daemon to answer."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, cast

from hostagent.cli.parser import command

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from hostagent.cli.parser import Subparsers
    from hostagent.config import Paths

UP_EXIT = 0
TROUBLE_EXIT = 2
NOT_RUNNING_EXIT = 3  # LSB: program is not running
WATCH_EVERY_S = 1.0
CLEAR_SCREEN = "\x1b[H\x1b[J"  # ECMA-48: cursor home, erase to the end

Record = dict[str, object]


def add_parser(subparsers: Subparsers) -> None:
    parser = command(
        subparsers,
        "status",
        show,
        summary="is the host up? if not: what failed, and what to type",
        description="""\
Shows what the daemon is doing: starting (and at which step), ready, in emergency mode (and why), or stopping;
how start-up ended, versions, memory. Without a daemon it shows why there is none.

exit codes:
  0  running, start-up clean or still under way
  2  running, but start-up was degraded, the host is in emergency mode, or xenstored was restarted
  3  not running""",
        examples="""
            hostagent status
            hostagent status --watch                     follow a start-up until it is over
            hostagent status --json | jq .boot_result    clean, degraded, stopped or null
        """,
    )
    parser.add_argument(
        "--watch", action="store_true", help="show it again each second until start-up is over"
    )


def show(args: argparse.Namespace) -> int:
    from hostagent.config import Paths

    paths = Paths.from_arguments(args)
    while True:
        record = look(paths)
        if args.watch and sys.stdout.isatty() and not args.json:
            print(CLEAR_SCREEN, end="")
        _print(args, record)
        over = record["boot_result"] is not None or record["state"] not in ("starting", "ready")
        if not args.watch or over:
            return exit_code(record)
        time.sleep(WATCH_EVERY_S)


def look(paths: Paths) -> Record:
    """The daemon's own status, or a record with `state` "not running" and the reason.

    Raises NoPermissionError and NoAnswerError as the client does.
    """
    from hostagent.api.client import NotRunningError, call
    from hostagent.api.local_socket import socket_path
    from hostagent.cli import absence

    try:
        return cast("Record", call(socket_path(paths), "hostagent.status"))
    except NotRunningError:
        return absence.record(absence.unit_facts(), absence.last_report(paths))


def exit_code(record: Mapping[str, object]) -> int:
    if record["state"] == "not running":
        return NOT_RUNNING_EXIT
    if record["state"] == "emergency" or record["boot_result"] in ("degraded", "stopped"):
        return TROUBLE_EXIT
    if record.get("xenstored"):
        return TROUBLE_EXIT
    return UP_EXIT


def _print(args: argparse.Namespace, record: Record) -> None:
    from hostagent.cli.output import emit

    if args.json:
        emit(args, record)
        return
    emit(args, readable(record))
    for step in cast("list[Record]", record["troubled_steps"]):
        print(f"\n{trouble(step)}")


def readable(record: Mapping[str, object]) -> Record:
    """The record as people read it, without lines that would say nothing."""
    from hostagent.cli.output import duration, size

    error = cast("Record | None", record["error"]) if record["state"] != "starting" else None
    running = cast("list[Record]", record.get("running_steps", []))
    startup_s = record.get("startup_s")
    xenstored = cast("Record | None", record.get("xenstored"))
    database = cast("Record | None", record.get("database"))
    lines = {
        "state": record["state"],
        "why": record.get("why"),
        "step": "; ".join(_step(step) for step in running),
        "start-up": _joined(record["boot_result"], f"in {duration(startup_s)}" if startup_s else None),
        "must stay disabled": "; ".join(cast("list[str]", record.get("blockers", []))),
        "up for": duration(record.get("uptime_s")),
        "pid": record.get("pid"),
        "memory": size(record.get("rss_bytes")),
        "versions": ", ".join(
            f"{name} {version}"
            for name, version in cast("Record", record.get("versions", {})).items()
            if version
        ),
        "API": ", ".join(
            f"{name} {where}" for name, where in cast("Record", record.get("listeners", {})).items()
        ),
        "database": f"{database['path']}, generation {database['generation']}" if database else None,
        "xenstored": f"{xenstored['link']}: {xenstored['seen']}\n  hint: {xenstored['hint']}"
        if xenstored
        else None,
        "error": f"{error['found']} ({error['code']})" if error else None,
        "hint": record.get("hint") or (error["hint"] if error else None),
        "restart in": duration(record.get("restart_in_s")),
    }
    return {name: line for name, line in lines.items() if line not in (None, "")}


def _step(step: Record) -> str:
    from hostagent.cli.output import duration

    doing = f" ({step['doing']})" if step["doing"] else ""
    return f"{_joined(step['ref'], step['name'])}{doing} for {duration(step['for_s'])}"


def trouble(step: Record) -> str:
    """What is wrong with a step, one thing to a line, and what to do."""
    error = cast("Record | None", step["error"])
    lines = [error["found"]] if error else []
    lines += cast("list[object]", step["warnings"])
    if blocked_by := cast("list[str]", step["blocked_by"]):
        lines.append(f"needs {', '.join(blocked_by)}")
    if error:
        lines.append(f"hint: {error['hint']}")
    return "\n  ".join((f"{_joined(step['ref'], step['name'])}: {step['status']}", *map(str, lines)))


def _joined(*words: object) -> str:
    return " ".join(str(word) for word in words if word)
