"""Putting another database in the place of the one there is: from an XML dump, or from a copy that SQLite reads.

Everything is checked first, in a fresh file beside. The former file stays beside under a name that is told, and the
new one takes its place in one step. Its generation is above every one that clients may have seen, so that what they
remember is told to be lost (xenapi.md 5.3).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hostagent.db import collect, xmldump
from hostagent.db.connections import JUMP, look
from hostagent.db.copies import GZIP, SIDE_FILES, put, telling
from hostagent.db.database import GENERATIONS_AHEAD, integrity, lock, open_database
from hostagent.db.dbconf import Connection
from hostagent.db.errors import DatabaseError
from hostagent.db.local import dated_name
from hostagent.errors import OperatorError
from hostagent.files import HINTS, sync_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from hostagent.db.database import Database

SQLITE = b"SQLite format 3\0"
READERS_WAIT_S = 10.0
"""For those who still read the database that is about to be replaced."""
SQLITE_INTEGER_MAX = (1 << 63) - 1


class NotRestorableError(OperatorError):
    """A file that holds no database of a pool, or nothing that this host could start with."""


@dataclass(slots=True)
class Prepared:
    """A database that is ready to take its place at `target`, in the file `path`.

    `unknown` names what our data model does not have and was left out, `dangling` are references that lead nowhere and
    will be mended at the start, `counts` the objects of each class that has any.
    """

    path: Path
    target: Path
    kind: str
    generation: int
    counts: dict[str, int] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    dangling: list[str] = field(default_factory=list)
    hosts: list[str] = field(default_factory=list)

    def record(self) -> dict[str, object]:
        """What was found, as JSON has it."""
        return {
            "kind": self.kind,
            "generation": self.generation,
            "objects": sum(self.counts.values()),
            "counts": self.counts,
            "unknown": self.unknown,
            "dangling": self.dangling,
            "hosts": self.hosts,
        }

    def discard(self) -> None:
        """Remove the file that was made."""
        _remove(self.path)


def restore(
    source: Path,
    connections: Sequence[Connection],
    *,
    database: Database | None = None,
    dry_run: bool = False,
    dump_only: bool = False,
    ready: Callable[[], None] = lambda: None,
) -> dict[str, object]:
    """Put what is in `source` in the place of the preferred connection's database; what was found (`Prepared.record`),
    and `former`, the name under which the replaced one is kept.

    `database` is the one that this process has open, which is given up; without it no process may have it open.
    `dump_only` takes no SQLite file: a hostile one is more than we want to open. `ready` is called when all is checked,
    just before. Raises what `prepare` and `swap` raise; BusyError.
    """
    taken = lock(connections[-1].path) if database is None else -1
    try:
        in_use = database.generation if database else 0
        prepared = prepare(source, connections, in_use=in_use, dump_only=dump_only)
        record: dict[str, object] = {**prepared.record(), "path": str(prepared.target), "former": None}
        if dry_run:
            prepared.discard()
            return record
        try:
            ready()
            if database is None:
                former = swap(prepared)
            else:
                former = database.give_up(lambda: swap(prepared), wait_s=READERS_WAIT_S)
        except BaseException:
            prepared.discard()
            raise
    finally:
        if taken >= 0:
            os.close(taken)
    return {**record, "former": str(former) if former else None}


def prepare(
    source: Path, connections: Sequence[Connection], *, in_use: int = 0, dump_only: bool = False
) -> Prepared:
    """Make a database of `source` beside the preferred connection, and check all of it.

    `in_use` is the generation of the database that is open now. Raises DumpError, NotRestorableError,
    NewerSchemaError, DatabaseError, NotUniqueError; nothing is left then.
    """
    target = connections[-1].path
    fresh = target.with_name(f".{target.name}.restore")
    volatile = fresh.with_name(f"{fresh.name}.volatile")
    known = [in_use, *(highest(connection) for connection in connections)]
    _remove(fresh)
    _remove(volatile)
    try:
        with telling(fresh):
            kind, unknown = _fill(source, fresh, volatile, dump_only=dump_only)
            found = _checked(source, fresh, volatile, Prepared(fresh, target, kind, 0, unknown=unknown))
            unsure = target.exists() and not known[-1] and not in_use
            found.generation = max(*known, highest(Connection(fresh))) + (JUMP if unsure else 1)
            _stamp(fresh, found.generation)
    except BaseException:
        _remove(fresh)
        raise
    finally:
        _remove(volatile)
    return found


def highest(connection: Connection) -> int:
    """The highest generation that the file of a connection may have handed out; 0 when it cannot be read."""
    with contextlib.suppress(DatabaseError):
        found = look(connection)
        return max(found.generation or 0, found.ceiling)
    return _of_newer(connection.path)


def _of_newer(path: Path) -> int:
    """The same of a file that a newer hostagent wrote, as far as we understand it."""
    try:
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as reader:
            (newest,) = reader.execute("SELECT coalesce(max(mtime), 0) FROM objects").fetchone()
            ceiling = reader.execute("SELECT value FROM meta WHERE key='ceiling'").fetchone()
    except sqlite3.Error:
        return 0
    return max(int(newest), int(ceiling[0]) if ceiling else 0)


def swap(prepared: Prepared) -> Path | None:
    """Put the prepared database in its place, durably, and return the name under which the former one is kept; None if
    there was none. Nobody may have either open. Raises DatabaseError; the former database is in its place then.
    """
    target = prepared.target
    former = dated_name(target, "former")
    with telling(target):
        _settle(target, former)
        if target.exists():
            os.link(target, former)
        sync_directory(target.parent)
        try:
            prepared.path.rename(target)
        except OSError:
            former.unlink(missing_ok=True)  # a second name of the one that stays
            raise
        sync_directory(target.parent)
    return former if former.exists() else None


def _settle(path: Path, former: Path) -> None:
    """Have everything in the one file: what SQLite keeps beside it must not meet the new one. Of a damaged file that is
    kept under the former one's name.
    """
    if path.exists():
        with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(path)) as last:
            last.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for suffix in SIDE_FILES:
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(former.with_name(former.name + suffix))


def _fill(source: Path, fresh: Path, volatile: Path, *, dump_only: bool) -> tuple[str, list[str]]:
    """Put what is in `source` into a new file; its kind, and what was left out."""
    head = _head(source)
    if not dump_only and (head == SQLITE or head.startswith(GZIP)):
        _copy(Connection(source), fresh)
        return "backup", []
    with source.open("rb") as file:
        return "dump", _load(file, fresh, volatile)


def _head(source: Path) -> bytes:
    """The first bytes. Raises NotRestorableError: no file, or one that cannot be read."""
    try:
        if not source.is_file():
            raise NotRestorableError(
                f"there is no file {source}", hint="name the file that holds the database"
            )
        with source.open("rb") as file:
            return file.read(len(SQLITE))
    except OSError as error:
        raise NotRestorableError(
            f"{source} could not be read: {error.strerror}",
            hint=HINTS.get(error.errno or 0, f"ls -l {source}"),
        ) from error


def _copy(source: Connection, fresh: Path) -> None:
    found = look(source)
    if found.generation is None:
        raise NotRestorableError(
            f"{source.path} is no sound database of hostagent: {found.trouble or 'it is empty'}",
            hint="take a file that `hostagent db backup` or `hostagent db dump` wrote",
        )
    put(source, fresh)


def _load(file: BinaryIO, fresh: Path, volatile: Path) -> list[str]:
    database = open_database(fresh, volatile)
    try:
        dump = xmldump.read(file, database.model)
        with database.write() as transaction:
            xmldump.load(dump, transaction, database.model)
    finally:
        database.close()
        _lock_file(fresh).unlink(missing_ok=True)
    return sorted(dump.unknown)


def _checked(source: Path, fresh: Path, volatile: Path, found: Prepared) -> Prepared:
    """What the new database holds. Raises NotRestorableError: damaged, or not one pool with at least one host."""
    database = open_database(fresh, volatile)
    try:
        troubles = database.check()
        with database.read() as view:
            found.counts = {name: count for name, count in view.counts().items() if count}
            found.dangling = [str(finding) for finding in collect.check(view, database.model)]
            found.hosts = [str(record["uuid"]) for _, record in view.records("host")]
    finally:
        database.close()
        _lock_file(fresh).unlink(missing_ok=True)
    pools = found.counts.get("pool", 0)
    if troubles or pools != 1 or not found.hosts:
        raise NotRestorableError(
            f"{source}: {troubles[0]}"
            if troubles
            else f"{source} has {pools} pools and {len(found.hosts)} hosts",
            hint="a pool's database has one pool and its hosts: take another dump or backup",
        )
    return found


def _stamp(fresh: Path, generation: int) -> None:
    """Make this the newest database there is, in which everything has just changed, as one synced file."""
    if generation > SQLITE_INTEGER_MAX - JUMP:
        raise NotRestorableError(
            f"its generation {generation} leaves no room", hint="take another dump or backup"
        )
    with contextlib.closing(sqlite3.connect(fresh)) as writer:
        writer.execute("PRAGMA journal_mode=DELETE")
        with writer:
            writer.execute("UPDATE objects SET ctime=min(ctime, ?), mtime=?", (generation, generation))
            writer.execute("DELETE FROM tombstones")
            for key, value in (("floor", generation), ("ceiling", generation + GENERATIONS_AHEAD)):
                writer.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))
        troubles = integrity(writer)
    if troubles:
        raise DatabaseError(f"{fresh} is damaged: {troubles[0]}", hint="check the disk: dmesg")
    fresh.chmod(0o600)
    with fresh.open("rb") as file:
        os.fsync(file.fileno())


def _lock_file(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


def _remove(path: Path) -> None:
    for name in (path, *(path.with_name(path.name + suffix) for suffix in SIDE_FILES), _lock_file(path)):
        name.unlink(missing_ok=True)
