"""Where the database lives: `db.conf`, the newest good file of several, and the copies that follow the preferred one.

The format is xapi's (startup-and-pool-join.md 2.4): blocks that begin with `[path]`, `key:value` lines, the last block
is the preferred one. That one is written in every transaction; the others get whole copies, stamped with the
generation they hold. At start the newest generation wins. A file that is damaged is set aside, never emptied; one that
cannot be read now (full disk, I/O error) is no damaged one.
"""

from __future__ import annotations

import contextlib
import gzip
import logging
import os
import re
import shutil
import sqlite3
import tempfile
import time
import weakref
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hostagent.db.database import integrity, is_damage, lock, open_database, open_locked
from hostagent.db.errors import DatabaseError, NewerSchemaError
from hostagent.db.local import corrupt_name
from hostagent.db.schema import MIGRATIONS
from hostagent.errors import OperatorError
from hostagent.files import HINTS, read_bounded, sync_directory

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from hostagent.db.database import Database

log = logging.getLogger(__name__)

CONF_LIMIT_BYTES = 1 << 16
HEADER = re.compile(r"\[(/.+)\]\s*")
SIDE_FILES = ("-wal", "-shm", "-journal")
"""What SQLite keeps beside a file. Beside another file of that name it would be taken for that one's."""
GZIP = b"\x1f\x8b"
TABLES = {"objects", "tombstones", "meta"}
JUMP = 1_000_000
"""What is added to the generation when it is not known how far clients have come: nobody makes as many changes
between the last copy and a disaster.
"""


class DbConfError(OperatorError):
    """`db.conf` cannot be understood."""


@dataclass(frozen=True, slots=True)
class Connection:
    """One block of `db.conf`. `period_s` and `cycles` cap how often a copy is written when `limited`; `others` are keys
    that mean nothing to us and are kept.
    """

    path: Path
    limited: bool = False
    period_s: int = 21600
    cycles: int = 10
    compress: bool = False
    remote: bool = False
    others: Mapping[str, str] = field(default_factory=dict)


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


def parse(text: str, *, source: str = "db.conf") -> list[Connection]:
    """The connections, in the order of the file. Raises DbConfError: no block, a path twice or not absolute, a value
    that is not of its key, two databases said to be the pool's own (`is_on_remote_storage`).
    """
    found: list[Connection] = []
    block: tuple[str, dict[str, str]] | None = None
    for number, line in enumerate((*text.splitlines(), ""), start=1):
        header = HEADER.fullmatch(line.strip())
        if block is None:
            block = (header[1], {}) if header else None
            continue
        if header or not line.strip():
            found.append(_connection(*block, source))
            block = (header[1], {}) if header else None
            continue
        key, colon, value = line.partition(":")
        if not colon:
            raise DbConfError(
                f"{source}, line {number}: '{line[:60]}' is not key:value", hint="mend that line"
            )
        block[1][key.strip().lower()] = value.strip().lower()
    paths = [connection.path for connection in found]
    if not found or len(set(paths)) != len(paths):
        raise DbConfError(
            f"{source} names {'no database' if not found else 'a database twice'}",
            hint="give each its block: [/path], then key:value lines, then an empty line; or remove the file",
        )
    if sum(connection.remote for connection in found) > 1:
        raise DbConfError(
            f"{source}: more than one database has is_on_remote_storage:true",
            hint="only one can be the pool's",
        )
    return found


def _connection(path: str, values: dict[str, str], source: str) -> Connection:
    def flag(key: str) -> bool:
        if values.get(key, "false") not in ("true", "false"):
            raise DbConfError(f"{source}: {key} of [{path}] is '{values[key]}'", hint="true or false")
        return values.get(key) == "true"

    def number(key: str, default: int) -> int:
        if not re.fullmatch(r"\d{1,9}", values.get(key, "0"), re.ASCII):
            raise DbConfError(f"{source}: {key} of [{path}] is '{values[key]}'", hint="a whole number")
        return int(values.get(key, default))

    mode = values.get("mode", "no_limit")
    if mode not in ("no_limit", "write_limit"):
        raise DbConfError(f"{source}: mode of [{path}] is '{mode}'", hint="no_limit or write_limit")
    known = {"mode", "write_limit_period", "write_limit_write_cycles", "compress", "is_on_remote_storage"}
    return Connection(
        path=Path(path),
        limited=mode == "write_limit",
        period_s=number("write_limit_period", 21600),
        cycles=number("write_limit_write_cycles", 10),
        compress=flag("compress"),
        remote=flag("is_on_remote_storage"),
        others={key: value for key, value in values.items() if key not in known},
    )


def read_conf(path: Path, default: Path) -> list[Connection]:
    """The connections of `db.conf`, or the one default where there is no such file. Raises DbConfError, FileError."""
    if not path.exists():
        return [Connection(default)]
    text = read_bounded(path, limit_bytes=CONF_LIMIT_BYTES).decode(errors="replace")
    return parse(text, source=str(path))


def look(connection: Connection) -> Candidate:
    """What is at a connection, without changing anything there.

    Raises NewerSchemaError; DatabaseError when it cannot be read now, which says nothing about what is in it.
    """
    path = connection.path
    try:
        head = _head(path)
        if head is None:
            return Candidate(connection, None)
        if not head:
            return Candidate(connection, None, "it is empty: it was cut off")
        with contextlib.closing(_readable(path)) as source:
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


def _head(path: Path) -> bytes | None:
    """The first bytes of a file, None when there is no file. What they are tells whether it is compressed, also after
    somebody changed that in db.conf.
    """
    try:
        with path.open("rb") as file:
            return file.read(len(GZIP))
    except FileNotFoundError:
        return None


def _readable(path: Path) -> sqlite3.Connection:
    """The file, or what is compressed in it, for reading."""
    if _head(path) != GZIP:
        return sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
    memory = sqlite3.connect(":memory:")
    try:
        with gzip.open(path) as packed:
            memory.deserialize(packed.read())
    except BaseException:
        memory.close()
        raise
    return memory


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
        name = _set_aside(path)
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
        elif not preferred.path.exists() and _beside(preferred.path):
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


def _beside(path: Path) -> list[Path]:
    """What SQLite keeps beside a file, as far as it is there."""
    return [
        side
        for side in (path.with_name(path.name + suffix) for suffix in SIDE_FILES)
        if os.path.lexists(side)
    ]


def _set_aside(path: Path) -> Path:
    """Rename a file, and what SQLite keeps beside it, to a free name that tells when."""
    name = corrupt_name(path)
    try:
        with contextlib.suppress(FileNotFoundError):
            path.rename(name)
        for side in _beside(path):
            side.rename(name.with_name(name.name + side.name.removeprefix(path.name)))
    except OSError as error:
        raise DatabaseError(
            f"{path} could not be set aside: {error.strerror}",
            hint=HINTS.get(error.errno or 0, f"mv {path} {name}"),
        ) from error
    return name


def put(source: Connection, target: Path, *, above: int | None = None) -> None:
    """A durable copy of the database at `source`, as `target`. With `above` its next generation is above that one, and
    nobody is told changes from before.
    """
    temporary = target.with_name(f".{target.name}.new")
    with _telling(target):
        _make_private(temporary)
        with (
            contextlib.closing(_readable(source.path)) as reader,
            contextlib.closing(sqlite3.connect(temporary)) as copy,
        ):
            reader.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")
            if above is not None:
                with copy:
                    for key in ("ceiling", "floor"):
                        copy.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, above))
        _sync(temporary)
        _take_place(temporary, target)


def _take_place(temporary: Path, target: Path) -> None:
    """Rename, durably. What SQLite keeps beside the former file would be read into the new one: it goes, but into the
    former file, which is a good copy until the rename.
    """
    if sides := _beside(target):
        with contextlib.suppress(sqlite3.Error):
            if target.exists():
                with contextlib.closing(sqlite3.connect(target)) as former:
                    former.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        for side in sides:
            side.unlink(missing_ok=True)
        sync_directory(target.parent)
    temporary.rename(target)
    sync_directory(target.parent)


class Copies:
    """The connections besides the preferred one, and when each was last written."""

    def __init__(self, database: Database, connections: Sequence[Connection]) -> None:
        self._database = database
        self._written: dict[Path, list[float]] = {connection.path: [] for connection in connections}
        self._generation: dict[Path, int] = {}
        self._connections = tuple(connections)

    def due(self, now: float | None = None) -> list[Connection]:
        """Which copies are behind and may be written now (`write_limit`)."""
        when = time.monotonic() if now is None else now
        return [
            connection
            for connection in self._connections
            if self._generation.get(connection.path) != self._database.generation
            and (
                not connection.limited
                or sum(when - written < connection.period_s for written in self._written[connection.path])
                < connection.cycles
            )
        ]

    def write(self, connection: Connection, now: float | None = None) -> None:
        """Bring one copy up to date, whole or not at all. Raises DatabaseError."""
        when = time.monotonic() if now is None else now
        generation = self._database.generation
        write_copy(self._database, connection.path, compress=connection.compress)
        self._generation[connection.path] = generation
        recent = [
            written for written in self._written[connection.path] if when - written < connection.period_s
        ]
        self._written[connection.path] = [*recent, when]


def write_copy(database: Database, target: Path, *, compress: bool = False) -> None:
    """A checked, durable copy of the database; `target` is replaced in one step.

    Raises DatabaseError, also when `target` is the database itself.
    """
    if target.exists() and target.samefile(database.path):
        raise DatabaseError(f"{target} is the database itself", hint="name another file for the copy")
    temporary = target.with_name(f".{target.name}.new")
    with _telling(target):
        _make_private(temporary)
        database.backup(temporary)
        with contextlib.closing(sqlite3.connect(temporary)) as copy:
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, readable also where it is
            troubles = integrity(copy)
        if troubles:
            raise DatabaseError(
                f"the copy for {target} is damaged: {troubles[0]}", hint="check the disk: dmesg"
            )
        if compress:
            packed = temporary.with_name(f"{temporary.name}.gz")
            _make_private(packed)
            with temporary.open("rb") as plain, gzip.open(packed, "wb", compresslevel=6) as out:
                shutil.copyfileobj(plain, out)
            packed.rename(temporary)
        _sync(temporary)
        _take_place(temporary, target)


def _make_private(path: Path) -> None:
    """A new empty file that only its owner can read, also while it is written."""
    path.unlink(missing_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _telling(target: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        number = error.errno if isinstance(error, OSError) else 0
        raise DatabaseError(
            f"{target} could not be written: {error}",
            hint=HINTS.get(number or 0, "look at the disk: df -h, dmesg"),
        ) from error
