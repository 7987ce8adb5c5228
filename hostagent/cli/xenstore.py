"""`hostagent xen xenstore`: look into xenstore, change it, follow it, and see whether it is healthy."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hostagent.cli import output
from hostagent.cli.parser import command, group

if TYPE_CHECKING:
    import argparse

    from hostagent.cli.parser import Parser, Subparsers
    from hostagent.xen.xenstore import Xenstore
    from hostagent.xen.xenstored import LinkReport

SHOWN_CHARACTERS = 80  # of a value in a table; --json and `read` show all of it

UNHEALTHY_EXIT = 1


def add_parser(subparsers: Subparsers) -> None:
    """Add `xenstore` and its commands below `hostagent xen`."""
    below = group(
        subparsers,
        "xenstore",
        summary="look into xenstore, change it, follow it, check its health",
        description="""\
Xenstore is the small tree of settings that Xen's tools, dom0's kernel and the guests share: who runs
(/local/domain/ID), which disks and network cards they have (device, backend), how much memory they should use
(memory/target, in KiB). A path without a leading / is relative to dom0's own tree, /local/domain/0.

Unlike xenstore-ls and xl, these commands never hang when xenstored is dead: they fail within --deadline.""",
        examples="""
            hostagent xen xenstore status                    is it alive, and dom0's kernel connected to it?
            hostagent xen xenstore ls -r /local/domain/0     all about dom0
            hostagent xen xenstore watch @releaseDomain      domains that end
        """,
    )
    _add_ls(below)
    _add_read(below)
    _add_write(below)
    _add_rm(below)
    _add_watch(below)
    _add_status(below)


def _add_ls(below: Subparsers) -> None:
    parser = command(
        below,
        "ls",
        ls,
        summary="nodes below a path, with their values",
        description="Shows the children of a path with their values, long and unprintable ones shortened.",
        examples="""
            hostagent xen xenstore ls /local/domain              which domains have a tree
            hostagent xen xenstore ls -r /local/domain/0/backend  every device dom0 serves
            hostagent xen xenstore ls -p /tool                    who may read and write
        """,
    )
    parser.add_argument("path", nargs="?", default="/", help="where to start (default: /)")
    parser.add_argument(
        "-r", "--recursive", action="store_true", help="everything below, not only the children"
    )
    parser.add_argument(
        "-p",
        "--permissions",
        action="store_true",
        help="show permissions: first the owner with what all others may, then single domains "
        "(n none, r read, w write, b both)",
    )
    _add_connection(parser)


def _add_read(below: Subparsers) -> None:
    parser = command(
        below,
        "read",
        read,
        summary="values of single nodes",
        description="""\
Prints the value of a node as it is; of several nodes, a table. Exit code 1 when one does not exist.""",
        examples="""
            hostagent xen xenstore read /local/domain/0/name
            hostagent xen xenstore read name memory/target --json
        """,
    )
    parser.add_argument("paths", nargs="+", metavar="PATH")
    _add_connection(parser)


def _add_write(below: Subparsers) -> None:
    parser = command(
        below,
        "write",
        write,
        summary="set the value of a node, making it if needed",
        description="""\
Sets a value. Missing parents are made, and a new node inherits its parent's permissions. Guests and dom0's
kernel act on many nodes at once: see what would change with --dry-run.""",
        examples="""
            hostagent xen xenstore write /tool/example/note hello --dry-run
            printf 'a\\nb' | hostagent xen xenstore write /tool/example/note -
        """,
    )
    parser.add_argument("path")
    parser.add_argument("value", help="the value, at most about 2000 bytes; - reads it from standard input")
    parser.add_argument(
        "--dry-run", action="store_true", help="show the old and the new value, change nothing"
    )
    _add_connection(parser)


def _add_rm(below: Subparsers) -> None:
    parser = command(
        below,
        "rm",
        rm,
        summary="remove a node",
        description="Removes a node; with --recursive all below it too. One that does not exist is no error.",
        examples="""
            hostagent xen xenstore rm -r /tool/example --dry-run     see what would go
        """,
    )
    parser.add_argument("path")
    parser.add_argument("-r", "--recursive", action="store_true", help="also when it has nodes below it")
    parser.add_argument("--dry-run", action="store_true", help="show what would be removed, change nothing")
    _add_connection(parser)


def _add_watch(below: Subparsers) -> None:
    parser = command(
        below,
        "watch",
        watch,
        summary="follow changes as they happen",
        description="""\
Prints a line for each change at or below the paths, with the value the node has then. Each path is printed
once at first. `resync` means that changes may have been missed, because xenstored was restarted or events
came too fast. Ends with Ctrl-C, or after --count or --seconds.""",
        examples="""
            hostagent xen xenstore watch /local/domain/0/memory
            hostagent xen xenstore watch @introduceDomain @releaseDomain   domains that come and go
            hostagent xen xenstore watch /tool --seconds 10 --json         one JSON object per line
        """,
    )
    parser.add_argument("paths", nargs="+", metavar="PATH")
    parser.add_argument("--count", type=int, help="end after this many lines")
    parser.add_argument("--seconds", type=float, help="end after this time without a change")
    _add_connection(parser)


def _add_status(below: Subparsers) -> None:
    parser = command(
        below,
        "status",
        status,
        summary="is xenstored alive, and is dom0's kernel still connected to it?",
        description="""\
A xenstored that was restarted answers again, but dom0's kernel never hears from it any more: memory targets
and new disks are ignored until the host is rebooted. This shows the evidence.

link:
  connected   all is well
  restarted   xenstored was restarted: plan a reboot; guests run on meanwhile
  suspect     the evidence contradicts itself: try --probe
  dead        nobody answers

exit codes: 0 connected, 1 anything else""",
        examples="""
            hostagent xen xenstore status
            hostagent xen xenstore status --probe     ask dom0's kernel itself
        """,
    )
    parser.add_argument(
        "--probe",
        action="store_true",
        help="move dom0's memory target by 4 KiB and back, and see who follows",
    )
    _add_connection(parser)


def _add_connection(parser: Parser) -> None:
    options = parser.add_argument_group("connection")
    way = options.add_mutually_exclusive_group()
    way.add_argument(
        "--socket", type=Path, metavar="PATH", help="xenstored's socket (default: the usual one)"
    )
    way.add_argument(
        "--device", type=Path, metavar="PATH", help="go through the kernel, e.g. /dev/xen/xenbus"
    )
    options.add_argument(
        "--deadline", type=float, default=5.0, metavar="SECONDS", help="how long to wait for an answer (5)"
    )


def ls(args: argparse.Namespace) -> int:
    with _connect(args) as store:
        tree = store.tree(args.path, max_depth=64 if args.recursive else 1)
        if tree is None:
            raise _missing(args.path)
        rows = []
        for node in tree.nodes[1:]:
            row: dict[str, object] = {"path": node.path, **_value(node.value)}
            if args.permissions:
                row["permissions"] = _permissions(store, node.path)
            rows.append(row)
    shown = [output.Column("path"), output.Column("value", show=_short)]
    if args.permissions:
        shown.append(output.Column("permissions"))
    output.emit(args, rows, columns=shown, empty=f"{args.path} has no nodes below it")
    if args.recursive and tree.truncated:
        print(f"only the first {len(rows)} nodes are shown", file=sys.stderr)
    return 0


def read(args: argparse.Namespace) -> int:
    with _connect(args) as store:
        values = store.read_many(args.paths)
    rows = [{"path": path, "exists": value is not None, **_value(value)} for path, value in values.items()]
    if len(rows) == 1 and not args.json:
        value = values[args.paths[0]]
        if value is None:
            raise _missing(args.paths[0])
        sys.stdout.buffer.write(value + b"\n")
    else:
        output.emit(args, rows, columns=["path", "exists", output.Column("value", show=_short)])
    return 0 if all(row["exists"] for row in rows) else 1


def write(args: argparse.Namespace) -> int:
    value = sys.stdin.buffer.read() if args.value == "-" else os.fsencode(args.value)
    with _connect(args) as store:
        old = store.read(args.path)
        if not args.dry_run and old != value:
            store.write(args.path, value)
    _emit_change(args, [(args.path, old, value)])
    return 0


def rm(args: argparse.Namespace) -> int:
    from hostagent.errors import CallerError

    with _connect(args) as store:
        tree = store.tree(args.path)
        nodes = tree.nodes if tree else ()
        if len(nodes) > 1 and not args.recursive:
            raise CallerError(
                f"{args.path} has {len(nodes) - 1} nodes below it", hint="--recursive removes them too"
            )
        if nodes and not args.dry_run:
            store.remove(args.path)
    _emit_change(args, [(node.path, node.value, None) for node in nodes])
    return 0


def watch(args: argparse.Namespace) -> int:
    from hostagent.xen.xenstore_watch import Changed

    left = args.count
    with _connect(args) as store, store.watch(*args.paths) as watched:
        while left is None or left > 0:
            event = watched.wait(args.seconds or 3600.0)
            if event is None:
                if args.seconds:
                    return 0
                continue
            record: dict[str, object] = {"event": "resync", "path": None, "value": None}
            if isinstance(event, Changed):
                special = event.path.startswith("@")
                record = {"event": "changed", "path": event.path}
                record |= _value(None if special else store.read(event.path))
            else:
                record["value"] = event.reason.value
            _print_event(args, record)
            left = None if left is None else left - 1
    return 0


def status(args: argparse.Namespace) -> int:
    from hostagent.config import Paths
    from hostagent.xen.xenstore import XenstoreDeadline, XenstoreUnavailable
    from hostagent.xen.xenstored import Link, detect_restart

    paths = Paths.from_arguments(args)
    transport = None
    try:
        with _connect(args) as store:
            transport = store.transport
            report = detect_restart(store, root=paths.root, run_dir=paths.run, probe=args.probe)
    except (XenstoreUnavailable, XenstoreDeadline):
        report = detect_restart(None, root=paths.root, run_dir=paths.run)
    _emit_status(args, report, transport)
    return 0 if report.link is Link.CONNECTED else UNHEALTHY_EXIT


def _emit_status(args: argparse.Namespace, report: LinkReport, transport: str | None) -> None:
    daemon = report.daemon
    record: dict[str, object] = {
        "link": report.link.value,
        "daemon": daemon.variant.value if daemon else None,
        "pid": daemon.pid if daemon else None,
        "started_s_after_boot": daemon.started_ticks / 100 if daemon else None,
        "transport": transport,
        "hint": report.hint,
    }
    if args.json:
        output.emit(args, {**record, "evidence": report.evidence})
        return
    output.emit(args, {key: value for key, value in record.items() if value not in (None, "")})
    print()
    output.emit(args, report.evidence)


def _emit_change(args: argparse.Namespace, changes: list[tuple[str, bytes | None, bytes | None]]) -> None:
    """The rows (path, old, new) of a write or removal; says so when nothing was done."""
    rows = [
        {"path": path, "old": _text(old), "new": _text(new), "changed": old != new}
        for path, old, new in changes
    ]
    if args.json:
        output.emit(args, {"dry_run": args.dry_run, "changes": rows})
        return
    changed = [row for row in rows if row["changed"]]
    output.emit(
        args,
        changed,
        columns=["path", output.Column("old", show=_short), output.Column("new", show=_short)],
        empty="unchanged",
    )
    if args.dry_run and changed:
        print("nothing was changed (--dry-run)")


def _print_event(args: argparse.Namespace, record: dict[str, object]) -> None:
    if args.json:
        print(json.dumps(record), flush=True)
        return
    path = record["path"] or ""
    value = f" = {_short(record['value'])}" if record["value"] is not None else ""
    print(f"{record['event']} {path}{value}", flush=True)


def _connect(args: argparse.Namespace) -> Xenstore:
    from hostagent.xen.xenstore import Xenstore

    return Xenstore.connect(socket=args.socket, device=args.device, deadline_s=args.deadline)


def _permissions(store: Xenstore, path: str) -> list[str]:
    from hostagent.xen.xenstore import XenstoreMissing

    try:
        return store.permissions(path)
    except XenstoreMissing:
        return []


def _missing(path: str) -> Exception:
    from hostagent.xen.xenstore import XenstoreMissing

    return XenstoreMissing(f"{path} does not exist", hint="`hostagent xen xenstore ls` shows what there is")


def _value(value: bytes | None) -> dict[str, object]:
    """A value for JSON: as text, and exactly, in hex."""
    return {"value": _text(value), "value_hex": None if value is None else value.hex()}


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "backslashreplace")


def _short(value: object) -> str:
    """A value on one line, shortened; quoted when empty or with what a terminal should not get."""
    if value is None:
        return "-"
    words = str(value)
    shown = words if words.isprintable() and words.strip() == words and words else repr(words)
    return (
        shown if len(shown) <= SHOWN_CHARACTERS else f"{shown[:SHOWN_CHARACTERS]}… ({len(words)} characters)"
    )
