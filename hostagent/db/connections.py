"""The newest good database of those that db.conf names.

The preferred one is written in every transaction; the others get whole copies (`copies`), stamped with the generation
they hold. At start the newest generation wins. A file that is damaged is set aside, never emptied; one that cannot be
read now (full disk, I/O error) is no damaged one.
"""

from __future__ import annotations

import contextlib
import gzip
import logging
import os
import shutil
import sqlite3
import tempfile
import weakref
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hostagent.db.copies import GZIP, beside, first_bytes, put, readable, set_aside
from hostagent.db.database import integrity, is_damage, lock, open_database, open_locked
from hostagent.db.errors import DatabaseError, NewerSchemaError
from hostagent.db.schema import MIGRATIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hostagent.db.database import Database
    from hostagent.db.dbconf import Connection

log = logging.getLogger(__name__)

TABLES = {"objects", "tombstones", "meta"}
JUMP = 1_000_000
"""What is added to the generation when it is not known how far clients have come: nobody makes as many changes
between the last copy and a disaster.
"""


@dataclass(frozen=True, slots=True)
class Candidate:
    """What was found at one connection at start. `generation` is None when there is nothing usable; `trouble` says why
    a file that is there is not usable. Up to `ceiling` its owner may have handed out generations. `packed`: it is
    compressed, whatever db.conf says.
    """

    connection: Connection
    generation: int | None
    trouble: str = ""
    ceiling: int = 0
    packed: bool = False


def look(connection: Connection) -> Candidate:
    """What is at a connection, without changing anything there.

    Raises NewerSchemaError; DatabaseError when it cannot be read now, which says nothing about what is in it.
    """
    path = connection.path
    try:
        head = first_bytes(path)
        if head is None:
            return Candidate(connection, None)
        if not head:
            return Candidate(connection, None, "it is empty: it was cut off")
        with contextlib.closing(readable(path)) as source:
            return replace(_contents(connection, source), packed=head == GZIP)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        return Candidate(connection, None, str(error))
    except (sqlite3.Error, OSError) as error:
        if isinstance(error, sqlite3.Error) and is_damage(error):
            return Candidate(connection, None, str(error))
        raise DatabaseError(
            f"{path} cannot be read now: {error}", hint="it is left as it is; look at the disk: dmesg, df -h"
        ) from error


def _contents(connection: Connection, source: sqlite3.Connection) -> Candidate:
    tables = {name for (name,) in source.execute("SELECT name FROM sqlite_master WHERE type='table'")}
    if not tables:  # the start that made the file was cut off
        return Candidate(connection, None)
    if troubles := integrity(source):
        return Candidate(connection, None, troubles[0])
    (version,) = source.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        raise NewerSchemaError(
            f"{connection.path} is of version {version}, and this hostagent knows versions up to {len(MIGRATIONS)}",
            hint="install the hostagent that wrote it, or take the block out of db.conf",
        )
    if not tables >= TABLES:
        return Candidate(connection, None, "it holds no database of ours")
    # the last change may have destroyed something: only its tombstone tells
    (newest,) = source.execute(
        "SELECT max(mtime) FROM (SELECT mtime FROM objects UNION ALL SELECT mtime FROM tombstones)"
    ).fetchone()
    ceiling = source.execute("SELECT value FROM meta WHERE key='ceiling'").fetchone()
    return Candidate(connection, int(newest or 0), ceiling=int(ceiling[0]) if ceiling else 0)


def look_at_all(connections: Sequence[Connection]) -> tuple[Candidate, ...]:
    """What is at each connection. A copy that cannot be read now counts as not there, unless nothing else is.

    Raises NewerSchemaError; DatabaseError when what there is cannot be read.
    """
    found: list[Candidate] = []
    unread: DatabaseError | None = None
    for connection in connections:
        try:
            found.append(look(connection))
        except NewerSchemaError:
            raise
        except DatabaseError as error:
            if connection is connections[-1]:
                raise
            log.warning("%s", error.found)
            unread = error
            found.append(Candidate(connection, None))
    if unread and all(candidate.generation is None for candidate in found):
        raise unread
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Opened:
    """An open database and how it came to be: what was found, which file was taken, what was set aside, and what an
    operator should hear about that.
    """

    database: Database
    candidates: tuple[Candidate, ...]
    taken: Path | None
    set_aside: tuple[Path, ...]
    warnings: tuple[str, ...] = ()


def open_newest(connections: Sequence[Connection], volatile: Path) -> Opened:
    """Open the preferred database with the newest contents that any connection has.

    A damaged file is renamed beside itself. Where the contents are not those of the preferred file, its clients may be
    further than they: the generation jumps, and what clients remember is lost to them (EVENTS_LOST).

    Raises InUseError, NewerSchemaError and DatabaseError; nothing is changed when another process has the database, a
    newer hostagent wrote one of the files, or the preferred one cannot be read now.
    """
    preferred = connections[-1]
    taken = lock(preferred.path)
    aside: list[Path] = []
    warnings: list[str] = []

    def put_away(path: Path, why: str) -> None:
        name = set_aside(path)
        aside.append(name)
        warnings.append(f"{path} {why}; it is kept as {name}")
        log.warning("%s", warnings[-1])

    try:
        candidates = look_at_all(connections)
        best = newest(connections, candidates)
        for found in candidates:
            if found.trouble:
                put_away(found.connection.path, f"was damaged ({found.trouble})")
        if best and to_be_replaced(connections, best):
            if best.connection is not preferred and preferred.path.exists():
                put_away(preferred.path, f"was older than {best.connection.path}")
            highest = max(max(found.generation or 0, found.ceiling) for found in candidates)
            put(best.connection, preferred.path, above=highest + JUMP)
        elif not preferred.path.exists() and beside(preferred.path):
            put_away(preferred.path, "was gone, but not what SQLite keeps beside it")
    except BaseException:
        os.close(taken)
        raise
    database = open_locked(preferred.path, volatile, taken)
    return Opened(database, candidates, best.connection.path if best else None, tuple(aside), tuple(warnings))


def to_be_replaced(connections: Sequence[Connection], best: Candidate) -> bool:
    """Whether the preferred file gets other contents than it has: a newer copy's, or its own, unpacked."""
    return best.connection is not connections[-1] or best.packed


def open_scratch(connections: Sequence[Connection], candidates: Sequence[Candidate]) -> Database:
    """A copy of the database that `open_newest` would open, in a temporary directory that goes with it: what a dry run
    changes, to see what a real run would. Raises DatabaseError.
    """
    directory = Path(tempfile.mkdtemp(prefix="hostagent-"))
    try:
        source = newest(connections, candidates)
        if source:
            put(source.connection, directory / "state.db")
        database = open_database(directory / "state.db", directory / "volatile.db")
    except BaseException:
        shutil.rmtree(directory)
        raise
    weakref.finalize(database, shutil.rmtree, directory, ignore_errors=True)
    return database


def newest(connections: Sequence[Connection], candidates: Sequence[Candidate]) -> Candidate | None:
    """Which of them is to be used: the newest contents, the preferred connection before an equal one."""
    usable = [candidate for candidate in candidates if candidate.generation is not None]
    return max(
        usable, key=lambda found: (found.generation, found.connection is connections[-1]), default=None
    )
