"""`hostagent db`: is the database sound, and copies of it made and brought back.

The daemon does the work when it has the database open; when no daemon runs, the command takes the database for itself.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

from hostagent.cli.parser import command, group
from hostagent.errors import BusyError, CallerError, HostagentError, OperatorError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator

    from hostagent.cli.parser import Subparsers
    from hostagent.config import Paths
    from hostagent.db.database import Database

SOUND_EXIT = 0
TROUBLE_EXIT = 2
ANSWER_S = 3600.0
"""For the daemon to work through a large database on a slow disk."""
IN_MEMORY_BYTES = 32 << 20
BOOTING = "HOST_STILL_BOOTING"

Record = dict[str, object]


def add_parser(subparsers: Subparsers) -> None:
    commands = group(
        subparsers,
        "db",
        summary="the database: check it, copy it, bring a copy back",
        description="""\
The database holds the pool: its hosts, networks, storage and VMs. A running daemon does what these commands ask; when
none runs, they take the database for themselves.""",
        examples="""
            hostagent db check                      is it sound?
            hostagent db backup /root/pool.db       a copy, made while others work
            hostagent db dump /root/pool.xml        as XML, which xapi reads too
            hostagent db restore /root/pool.xml --dry-run
        """,
    )
    _add_check(commands)
    _add_copies(commands)
    _add_restore(commands)


def _add_check(commands: Subparsers) -> None:
    parser = command(
        commands,
        "check",
        check,
        summary="is the file sound, and does every reference lead somewhere?",
        description="""\
Lets SQLite check the file, and looks for references that lead nowhere. The daemon mends those by itself every 30 s, so
what is found is rarely more than some seconds old; --repair mends it now.

exit codes:
  0  sound, or mended
  2  damaged, or references lead nowhere""",
        examples="""
            hostagent db check
            hostagent db check --repair --dry-run      what would be mended
            hostagent db check --json | jq .findings
        """,
    )
    parser.add_argument("--repair", action="store_true", help="mend references that lead nowhere")
    parser.add_argument("--dry-run", action="store_true", help="with --repair: show it, and change nothing")


def _add_copies(commands: Subparsers) -> None:
    dump = command(
        commands,
        "dump",
        dump_xml,
        summary="the database as XML, in the format of xapi",
        description="""\
Writes the database in the XML format that xapi's `xe pool-dump-database` has. Secrets are in it: the file is readable
for root only. A file is replaced whole or not at all.""",
        examples="""
            hostagent db dump /root/pool.xml
            hostagent db dump | gzip > pool.xml.gz
        """,
    )
    dump.add_argument("file", metavar="FILE", nargs="?", default="-", help="- or nothing: standard output")
    copy = command(
        commands,
        "backup",
        backup,
        summary="a copy of the database file, made while others work",
        description="""\
Writes a checked copy of the database as one SQLite file, readable for root only, while others go on to work. It keeps
everything, also what the XML format has no place for.""",
        examples="""
            hostagent db backup /root/pool.db
        """,
    )
    copy.add_argument("file", metavar="FILE", help="replaced in one step when it is there")


def _add_restore(commands: Subparsers) -> None:
    parser = command(
        commands,
        "restore",
        restore,
        summary="put a dump or backup in the place of the database",
        description="""\
Checks a dump (XML, also of xapi) or a backup, and puts it in the place of the database. The former database is kept
beside it, under the name that is told; to go back, restore that file. A running daemon does this and starts anew at
once (exit code 123), which ends all sessions. Clients that follow events start from the beginning.""",
        examples="""
            hostagent db restore /root/pool.xml --dry-run     what is in it; nothing is changed
            hostagent db restore /root/pool.db
        """,
    )
    parser.add_argument(
        "file", metavar="FILE", help="what `hostagent db dump` or `backup` wrote, or a dump of xapi"
    )
    parser.add_argument("--dry-run", action="store_true", help="check the file, and change nothing")


def check(args: argparse.Namespace) -> int:
    from hostagent.config import Paths
    from hostagent.db.errors import DamagedError
    from hostagent.db.health import examine

    if args.dry_run and not args.repair:
        raise CallerError("--dry-run goes with --repair", hint="`hostagent db check` alone changes nothing")
    paths = Paths.from_arguments(args)
    how = "look" if not args.repair else "plan" if args.dry_run else "repair"
    record = _ask(paths, "hostagent.db_check", how)
    if record is None:
        try:
            with own(paths) as database:
                record = examine(database, repair=args.repair, dry_run=args.dry_run)
        except DamagedError as error:
            record = {"damage": [error.found], "findings": [], "repaired": False}
    _print_check(args, record)
    trouble = record["damage"] or (record["findings"] and not record["repaired"])
    return TROUBLE_EXIT if trouble else SOUND_EXIT


def _print_check(args: argparse.Namespace, record: Record) -> None:
    from hostagent.cli import output

    if args.json:
        output.emit(args, record)
        return
    damage, findings = cast("list[str]", record["damage"]), cast("list[Record]", record["findings"])
    what = "mended" if record["repaired"] else "would be mended" if args.repair else "to be mended"
    output.emit(
        args,
        {
            "database": record.get("path"),
            "generation": record.get("generation"),
            "file": "damaged" if damage else "sound",
            "references": "not looked at" if damage else f"{len(findings)} {what}" if findings else "sound",
        },
    )
    if findings:
        print()
        output.emit(
            args, findings, columns=("class", "ref", "field", output.Column("target", "leads to"), "remedy")
        )
    for line in damage:
        print(f"\n{line}")
    if damage:
        print(
            "hint: systemctl restart hostagent sets the file aside and takes the newest good copy that db.conf names;"
        )
        print("      `hostagent db restore FILE` brings a backup back")
    elif findings and not args.repair:
        print("\nhint: hostagent db check --repair")


def dump_xml(args: argparse.Namespace) -> int:
    from hostagent.config import Paths
    from hostagent.files import write_pieces

    paths = Paths.from_arguments(args)
    target = Path(args.file)
    with _dump(paths) as pieces:
        if args.file == "-":
            _print_whole(pieces)
            return 0
        write_pieces(target, pieces, mode=0o600)
    _tell_copy(args, {"file": str(target), "bytes": target.stat().st_size})
    return 0


def _print_whole(pieces: Iterable[bytes]) -> None:
    """All or nothing, as slowly as the reader likes: the daemon does not wait for one that pauses."""
    import shutil
    import tempfile

    with tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES) as whole:
        whole.writelines(pieces)
        whole.seek(0)
        shutil.copyfileobj(whole, sys.stdout.buffer)


@contextlib.contextmanager
def _dump(paths: Paths) -> Iterator[Iterable[bytes]]:
    """The dump, piece by piece, from the daemon or the file."""
    from hostagent.api.client import download
    from hostagent.api.local_socket import socket_path
    from hostagent.db import xmldump

    if _ask(paths, "hostagent.db_status") is not None:
        yield download(socket_path(paths), "/pool/xmldbdump")
    else:
        with own(paths) as database, database.read() as view:
            yield xmldump.pieces(view, database.model)


def backup(args: argparse.Namespace) -> int:
    from hostagent.config import Paths
    from hostagent.db.copies import write_copy

    paths = Paths.from_arguments(args)
    target = Path(args.file).absolute()
    record = _ask(paths, "hostagent.db_backup", str(target))
    if record is None:
        with own(paths) as database:
            write_copy(database, target)
            record = {"path": str(database.path), "generation": database.generation, "file": str(target)}
    _tell_copy(args, {**record, "bytes": target.stat().st_size})
    return 0


def _tell_copy(args: argparse.Namespace, record: Record) -> None:
    from hostagent.cli import output

    if args.json:
        output.emit(args, record)
    else:
        generation = f", generation {record['generation']}" if "generation" in record else ""
        print(f"written: {record['file']}, {output.size(record['bytes'])}{generation}")


def restore(args: argparse.Namespace) -> int:
    from hostagent.config import Paths
    from hostagent.db.dbconf import read_conf
    from hostagent.db.restore import restore

    paths = Paths.from_arguments(args)
    source = Path(args.file).absolute()
    record = _ask(
        paths, "hostagent.db_restore", str(source), "plan" if args.dry_run else "restore", alone=True
    )
    if record is None:
        record = restore(source, read_conf(paths.db_conf, paths.database), dry_run=args.dry_run)
    _print_restore(args, record)
    return 0


def _print_restore(args: argparse.Namespace, record: Record) -> None:
    from hostagent.cli import output

    if args.json:
        output.emit(args, record)
        return
    unknown, dangling = cast("list[str]", record["unknown"]), cast("list[str]", record["dangling"])
    counts = cast("dict[str, int]", record["counts"])
    output.emit(
        args,
        {
            "database": record["path"],
            "holds": ", ".join(f"{count} {name}" for name, count in sorted(counts.items())),
            "hosts": record["hosts"],
            "generation": record["generation"],
            "left out": ", ".join(unknown) or "nothing",
            "references": f"{len(dangling)} lead nowhere and go at the start" if dangling else "sound",
            "former database": record["former"],
        },
    )
    if args.dry_run:
        print("\nit can be restored; nothing was changed")
    elif record.get("restarting"):
        print("\nchanged: the database was replaced; the daemon ends now and systemd starts it again")
        print("hint: hostagent status --watch")
    else:
        print("\nchanged: the database was replaced\nhint: systemctl start hostagent")


def _ask(paths: Paths, method: str, *params: object, alone: bool = False) -> Record | None:
    """What the daemon answers; None when the command has to do it itself: no daemon runs, or it is in emergency mode
    without a database. With `alone` only when none runs.

    Raises ToldError with what the daemon said, NoPermissionError, NoAnswerError.
    """
    from hostagent.api.client import NotRunningError, call
    from hostagent.api.local_socket import socket_path

    socket = socket_path(paths)
    try:
        answer = cast("Record", call(socket, method, *params, timeout_s=ANSWER_S))
        failure = cast("Record | None", answer.get("error"))
        if failure is None:
            return answer
        if failure["code"] != BOOTING:
            raise ToldError(failure)
        state = cast("Record", call(socket, "hostagent.status"))["state"]
    except NotRunningError:
        return None
    if state == "emergency" and not alone:
        return None
    raise BusyError(
        f"the daemon runs and cannot do this: it is {state}",
        hint="`hostagent status --watch` follows it; systemctl stop hostagent, and this works without it",
        params=("Database", str(paths.database)),
    )


@contextlib.contextmanager
def own(paths: Paths) -> Iterator[Database]:
    """The database, for this command alone. Opening a file that is damaged or cut off would change it, so that it is
    looked at before.

    Raises DamagedError, DatabaseError, DbConfError, FileError; NoDatabaseError.
    """
    from hostagent.db.connections import look
    from hostagent.db.database import open_database
    from hostagent.db.dbconf import read_conf
    from hostagent.db.errors import DamagedError

    found = look(read_conf(paths.db_conf, paths.database)[-1])
    path = found.connection.path
    if found.trouble:
        raise DamagedError(
            f"{path}: {found.trouble}",
            hint="it is set aside at the next start, and the newest good copy used",
        )
    if found.generation is None or found.packed:
        raise NoDatabaseError(
            f"there is no database {path}: the next start of hostagent makes it",
            hint="systemctl start hostagent",
        )
    paths.run.mkdir(mode=0o700, parents=True, exist_ok=True)
    database = open_database(path, paths.volatile_database)
    try:
        yield database
    finally:
        database.close()


class NoDatabaseError(OperatorError):
    """hostagent has never run here."""


class ToldError(HostagentError):
    """What went wrong in the daemon, in its words."""

    def __init__(self, told: Record) -> None:
        params = tuple(str(param) for param in cast("list[object]", told["params"]))
        super().__init__(str(told["found"]), hint=str(told["hint"]), params=params)
        self.code = str(told["code"])
