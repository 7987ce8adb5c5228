"""Where the database lives: `db.conf`, the newest good file of several, and the copies that follow the preferred one.

The format is xapi's (startup-and-pool-join.md 2.4): blocks that begin with `[path]`, `key:value` lines, the last block
is the preferred one. That one is written in every transaction; the others get whole copies, stamped with the
generation they hold. At start the newest generation wins. A file that is damaged is set aside, never emptied.
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
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hostagent.db.database import integrity, lock, open_database, open_locked
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
SIDE_FILES = ("-wal", "-shm")


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
    a file that is there is not usable.
    """

    connection: Connection
    generation: int | None
    trouble: str = ""


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
    """What is at a connection, without changing anything there. Raises NewerSchemaError."""
    path = connection.path
    if not path.exists() or path.stat().st_size == 0:
        return Candidate(connection, None)
    try:
        with contextlib.closing(_readable(connection)) as source:
            troubles = integrity(source)
            (version,) = source.execute("PRAGMA user_version").fetchone()
            if troubles:
                return Candidate(connection, None, troubles[0])
            if version > len(MIGRATIONS):
                raise NewerSchemaError(
                    f"{path} is of version {version}, and this hostagent knows versions up to {len(MIGRATIONS)}",
                    hint="install the hostagent that wrote it, or take the block out of db.conf",
                )
            found = source.execute("SELECT value FROM meta WHERE key='ceiling'").fetchone()
            newest = source.execute("SELECT max(mtime) FROM objects").fetchone()
    except (sqlite3.Error, OSError, EOFError) as error:
        return Candidate(connection, None, str(error))
    if found is None:
        return Candidate(connection, None, "it holds no database of ours")
    return Candidate(connection, int(newest[0] or 0))


def _readable(connection: Connection) -> sqlite3.Connection:
    """The file, or what is compressed in it, for reading."""
    if not connection.compress:
        return sqlite3.connect(f"{connection.path.as_uri()}?mode=ro", uri=True)
    memory = sqlite3.connect(":memory:")
    try:
        with gzip.open(connection.path) as packed:
            memory.deserialize(packed.read())
    except BaseException:
        memory.close()
        raise
    return memory


@dataclass(frozen=True, slots=True)
class Opened:
    """An open database and how it came to be: what was found, which file was taken, what was set aside."""

    database: Database
    candidates: tuple[Candidate, ...]
    taken: Path | None
    set_aside: tuple[Path, ...]


def open_newest(connections: Sequence[Connection], volatile: Path) -> Opened:
    """Open the preferred database with the newest contents that any connection has.

    A damaged file is renamed beside itself. Raises InUseError, NewerSchemaError and DatabaseError; nothing is changed
    when another process has the database, or a newer hostagent wrote one of the files.
    """
    preferred = connections[-1]
    taken = lock(preferred.path)
    try:
        candidates = tuple(look(connection) for connection in connections)
        best = newest(connections, candidates)
        aside = tuple(_set_aside(found.connection.path) for found in candidates if found.trouble)
        if best and best.connection is not preferred:
            if preferred.path.exists():
                aside = (*aside, _set_aside(preferred.path))
            put(best.connection, preferred.path)
    except BaseException:
        os.close(taken)
        raise
    for candidate in candidates:
        if candidate.trouble:
            log.warning("%s is damaged (%s) and set aside", candidate.connection.path, candidate.trouble)
    database = open_locked(preferred.path, volatile, taken)
    return Opened(database, candidates, best.connection.path if best else None, aside)


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


def _set_aside(path: Path) -> Path:
    """Rename a file, and what SQLite keeps beside it, to a free name that tells when."""
    name = corrupt_name(path)
    try:
        path.rename(name)
        for suffix in SIDE_FILES:
            with contextlib.suppress(FileNotFoundError):
                path.with_name(path.name + suffix).rename(name.with_name(name.name + suffix))
    except OSError as error:
        raise DatabaseError(
            f"{path} could not be set aside: {error.strerror}",
            hint=HINTS.get(error.errno or 0, f"mv {path} {name}"),
        ) from error
    return name


def put(source: Connection, target: Path) -> None:
    """A durable copy of the database at `source`, as `target`."""
    temporary = target.with_name(f".{target.name}.new")
    with _telling(target):
        _make_private(temporary)
        with (
            contextlib.closing(_readable(source)) as reader,
            contextlib.closing(sqlite3.connect(temporary)) as copy,
        ):
            reader.backup(copy)
        _sync(temporary)
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
        temporary.rename(target)
        sync_directory(target.parent)


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
