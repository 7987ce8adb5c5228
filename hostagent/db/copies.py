"""Copies of the database: made whole and durably, put in the place of a file, followed by the other connections.

What SQLite keeps beside a file goes where the file goes: beside another one it would be taken for that one's.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import shutil
import sqlite3
import time
from typing import TYPE_CHECKING

from hostagent.db.database import integrity
from hostagent.db.errors import DatabaseError
from hostagent.db.local import corrupt_name
from hostagent.files import HINTS, sync_directory

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from hostagent.db.database import Database
    from hostagent.db.dbconf import Connection

SIDE_FILES = ("-wal", "-shm", "-journal")
GZIP = b"\x1f\x8b"


def put(source: Connection, target: Path, *, above: int | None = None) -> None:
    """A durable copy of the database at `source`, as `target`. With `above` its next generation is above that one, and
    nobody is told changes from before.
    """
    with telling(target), _making(target.with_name(f".{target.name}.new")) as temporary:
        with (
            contextlib.closing(readable(source.path)) as reader,
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
    if sides := beside(target):
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
    with telling(target), _making(target.with_name(f".{target.name}.new")) as temporary:
        database.backup(temporary)
        with contextlib.closing(sqlite3.connect(temporary)) as copy:
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, readable also where it is
            troubles = integrity(copy)
        if troubles:
            raise DatabaseError(
                f"the copy for {target} is damaged: {troubles[0]}", hint="check the disk: dmesg"
            )
        if compress:
            with _making(temporary.with_name(f"{temporary.name}.gz")) as packed:
                with temporary.open("rb") as plain, gzip.open(packed, "wb", compresslevel=6) as out:
                    shutil.copyfileobj(plain, out)
                packed.rename(temporary)
        _sync(temporary)
        _take_place(temporary, target)


def set_aside(path: Path) -> Path:
    """Rename a file, and what SQLite keeps beside it, to a free name that tells when."""
    name = corrupt_name(path)
    try:
        with contextlib.suppress(FileNotFoundError):
            path.rename(name)
        for side in beside(path):
            side.rename(name.with_name(name.name + side.name.removeprefix(path.name)))
    except OSError as error:
        raise DatabaseError(
            f"{path} could not be set aside: {error.strerror}",
            hint=HINTS.get(error.errno or 0, f"mv {path} {name}"),
        ) from error
    return name


def beside(path: Path) -> list[Path]:
    """What SQLite keeps beside a file, as far as it is there."""
    return [
        side
        for side in (path.with_name(path.name + suffix) for suffix in SIDE_FILES)
        if os.path.lexists(side)
    ]


def first_bytes(path: Path) -> bytes | None:
    """The first bytes of a file, None when there is no file. What they are tells whether it is compressed, also after
    somebody changed that in db.conf.
    """
    try:
        with path.open("rb") as file:
            return file.read(len(GZIP))
    except FileNotFoundError:
        return None


def readable(path: Path) -> sqlite3.Connection:
    """The file, or what is compressed in it, for reading."""
    if first_bytes(path) != GZIP:
        return sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
    memory = sqlite3.connect(":memory:")
    try:
        with gzip.open(path) as packed:
            memory.deserialize(packed.read())
    except BaseException:
        memory.close()
        raise
    return memory


@contextlib.contextmanager
def _making(path: Path) -> Iterator[Path]:
    """A new empty file that only its owner can read, also while it is written. Unless it is renamed it goes again: half
    a copy must not keep a disk full.
    """
    _remove(path)
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    try:
        yield path
    finally:
        _remove(path)


def _remove(path: Path) -> None:
    for file in (path, *beside(path)):
        file.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def telling(target: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        number = error.errno if isinstance(error, OSError) else 0
        raise DatabaseError(
            f"{target} could not be written: {error}",
            hint=HINTS.get(number or 0, "look at the disk: df -h, dmesg"),
        ) from error
