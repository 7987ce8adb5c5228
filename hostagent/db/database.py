"""The database of a pool: SQLite in WAL mode, one process, one connection that writes, readers that never wait.

Sessions and tasks live in a second file that need not survive a power cut. A generation is taken for each transaction
and never again, also after a crash: the main file names a ceiling that is raised before it is reached.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import sqlite3
import threading
from importlib import resources
from typing import TYPE_CHECKING, TypeVar

from hostagent.db import model as datamodel
from hostagent.db import schema
from hostagent.db.errors import DamagedError, DatabaseError, InUseError
from hostagent.db.transaction import Transaction
from hostagent.db.view import MAIN, VOLATILE, View
from hostagent.errors import BusyError
from hostagent.files import HINTS

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path

    from hostagent.db.model import Model

log = logging.getLogger(__name__)
T = TypeVar("T")

GENERATIONS_AHEAD = 1000
"""How far the ceiling in the file is above the generation in use."""
TOMBSTONES = 20_000
"""How many deletions are remembered; a client that is further behind gets EVENTS_LOST."""
READERS = 8
"""Idle connections that are kept for readers."""
BUSY_MS = 5000
FILE_MODE = 0o600


class Database:
    """An open database. Its methods may be called from any thread."""

    def __init__(self, path: Path, volatile: Path, lock: int) -> None:
        self.path = path
        self.model: Model = datamodel.load()
        self._volatile = volatile
        self._lock = lock
        self._turn = threading.Lock()
        self._owner: int | None = None
        self._idle: list[sqlite3.Connection] = []
        self._readers = 0
        self._reading = threading.Condition()
        self._given_up = False
        self._listeners: list[Callable[[int], None]] = []
        self._writer = self._connect()
        self._make_private()
        self._ceiling = 0
        self._generation = 0
        self._start()

    # use

    @property
    def generation(self) -> int:
        """That of the newest change that readers see."""
        return self._generation

    @contextlib.contextmanager
    def read(self) -> Iterator[View]:
        """One snapshot; it waits for no writer. Raises DatabaseError."""
        self._reader_comes()
        try:
            try:
                connection = self._idle.pop()
            except IndexError:  # asking first would race with other readers
                connection = self._connect(reader=True)
            yield from self._snapshot(connection)
        finally:
            self._reader_goes()

    def _snapshot(self, connection: sqlite3.Connection) -> Iterator[View]:
        try:
            generation = self._generation  # before the snapshot: it holds at least this
            connection.execute("BEGIN")
            yield View(connection, self.model, generation)
        except sqlite3.Error as error:
            raise _failure(self.path, error) from error
        finally:
            if connection.in_transaction:
                connection.execute("COMMIT")
            if len(self._idle) < READERS:
                self._idle.append(connection)
            else:
                connection.close()

    @contextlib.contextmanager
    def write(self) -> Iterator[Transaction]:
        """One transaction: durable and visible when the block ends, undone when it raises.

        Raises DatabaseError when it cannot be made durable (disk full); nothing has changed then. A thread cannot have
        two at once.
        """
        if self._owner == threading.get_ident():
            raise RuntimeError("this thread is in a transaction: hand that on")
        with self._turn:
            self._refuse_given_up()
            self._owner = threading.get_ident()
            try:
                transaction = yield from self._transact()
            finally:
                self._owner = None
            if transaction.dirty:
                self._generation = transaction.generation
        if transaction.dirty:
            for listener in self._listeners:
                listener(transaction.generation)

    def listen(self, listener: Callable[[int], None]) -> None:
        """Call `listener` with the generation after each change, from the thread that made it; it must not block."""
        self._listeners.append(listener)

    def close(self) -> None:
        """Close the file; what was committed is in it. A second time is no error."""
        with self._turn:
            for connection in (*self._idle, self._writer):
                connection.close()
            self._idle.clear()
            lock, self._lock = self._lock, -1
            if lock >= 0:
                os.close(lock)

    def give_up(self, replace: Callable[[], T], *, wait_s: float) -> T:
        """Let `replace` put another file in this one's place, and return what it returns. From then on nobody reads or
        writes here: DatabaseError, until the process ends and gives the lock back. When `replace` raises, all goes on.

        Raises BusyError when somebody still reads after `wait_s`.
        """
        with self._turn:
            with self._reading:
                self._refuse_given_up()
                self._given_up = True
                if not self._reading.wait_for(lambda: self._readers == 0, wait_s):
                    self._given_up = False
                    raise BusyError(
                        f"{self.path} is still being read",
                        hint="try again",
                        params=("Database", str(self.path)),
                    )
            for connection in (*self._idle, self._writer):
                connection.close()  # the last one moves what is beside the file into it
            self._idle.clear()
            try:
                return replace()
            except BaseException:
                self._writer = self._connect()
                self._given_up = False
                raise

    def check(self) -> list[str]:
        """What SQLite finds wrong with the file; empty when it is sound. Others read and write meanwhile."""
        with self._long_reader() as reader:
            try:
                return integrity(reader)
            except sqlite3.Error as error:
                raise _failure(self.path, error) from error

    def backup(self, target: Path) -> None:
        """A sound copy of the main file, made while others read and write. The caller syncs and renames it."""
        with contextlib.closing(sqlite3.connect(target)) as copy, self._long_reader() as reader:
            reader.backup(copy)

    # inside

    @contextlib.contextmanager
    def _long_reader(self) -> Iterator[sqlite3.Connection]:
        """A connection of its own, for what goes over the whole file."""
        self._reader_comes()
        try:
            with contextlib.closing(self._connect(reader=True)) as connection:
                yield connection
        finally:
            self._reader_goes()

    def _reader_comes(self) -> None:
        with self._reading:
            self._refuse_given_up()
            self._readers += 1

    def _reader_goes(self) -> None:
        with self._reading:
            self._readers -= 1
            self._reading.notify_all()

    def _refuse_given_up(self) -> None:
        if self._given_up:
            raise DatabaseError(
                f"{self.path} has been replaced", hint="hostagent starts anew with it in a moment: try again"
            )

    def _transact(self) -> Generator[Transaction, None, Transaction]:
        writer = self._writer
        try:
            generation = self._generation + 1
            writer.execute("BEGIN IMMEDIATE")
            if generation > self._ceiling:
                self._raise_ceiling(generation)
            transaction = Transaction(writer, self.model, generation)
            yield transaction
            if transaction.dirty:
                writer.execute("COMMIT")
            else:
                writer.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise _failure(self.path, error) from error
        finally:
            if writer.in_transaction:
                writer.execute("ROLLBACK")
        return transaction

    def _raise_ceiling(self, generation: int) -> None:
        """In a transaction of its own: a change of volatile objects alone would not make it durable."""
        self._put_meta("ceiling", generation + GENERATIONS_AHEAD)
        self._writer.execute("COMMIT")
        self._ceiling = generation + GENERATIONS_AHEAD
        self._writer.execute("BEGIN IMMEDIATE")
        self._forget_old_deletions()

    def _connect(self, *, reader: bool = False) -> sqlite3.Connection:
        try:
            connection = sqlite3.connect(
                self.path, isolation_level=None, check_same_thread=False, timeout=BUSY_MS / 1000
            )
            connection.execute(f"ATTACH ? AS {VOLATILE}", (str(self._volatile),))
            connection.execute(f"PRAGMA {MAIN}.synchronous=FULL")
            connection.execute(f"PRAGMA {VOLATILE}.synchronous=OFF")
            if reader:
                connection.execute("PRAGMA query_only=ON")
                connection.execute("PRAGMA wal_autocheckpoint=0")
        except sqlite3.Error as error:
            raise _failure(self.path, error) from error
        return connection

    def _make_private(self) -> None:
        """There are secrets in it. What SQLite keeps beside a file gets the file's own mode."""
        try:
            for path in (self.path, self._volatile):
                path.chmod(FILE_MODE)
        except OSError as error:
            raise DatabaseError(
                f"{self.path} could not be made private: {error.strerror}",
                hint=HINTS.get(error.errno or 0, f"ls -l {self.path.parent}"),
            ) from error

    def _start(self) -> None:
        """Tables, generation, fields that are new in the model; sessions and tasks of an earlier run end."""
        writer = self._writer
        try:
            for db in (MAIN, VOLATILE):
                writer.execute(f"PRAGMA {db}.journal_mode=WAL")
                schema.upgrade(writer, db)
            known = self._meta("model")
            self._ceiling = int(self._meta("ceiling") or 0)
            self._generation = self._ceiling
            with self.write() as transaction:
                self._end_volatile(transaction)
                if known != model_hash():
                    transaction.dirty = True
                    changed = schema.fill_missing_fields(writer, MAIN, self.model)
                    if known is not None:
                        log.info("the data model is another one: %d objects got new fields", changed)
                    self._put_meta("model", model_hash())
                self._reset_passing_fields(transaction)
        except sqlite3.Error as error:
            raise _failure(self.path, error) from error

    def _end_volatile(self, transaction: Transaction) -> None:
        """Objects that an earlier run left get tombstones. If their file is gone too (reboot), what clients know of
        them cannot be told from what they do not: whoever comes with an older generation must start anew.
        """
        left = self._writer.execute(f"SELECT cls, ref FROM {VOLATILE}.objects").fetchall()
        for cls, ref in left:
            transaction.destroy(cls, ref)
        fresh = self._writer.execute(f"SELECT value FROM {VOLATILE}.meta WHERE key='run'").fetchone() is None
        if fresh:
            self._put_meta("floor", transaction.generation)
            self._writer.execute(f"INSERT INTO {VOLATILE}.meta VALUES ('run', 1)")
            transaction.dirty = True

    def _reset_passing_fields(self, transaction: Transaction) -> None:
        """Fields that the model does not keep over a restart start from their defaults."""
        for cls in self.model.classes.values():
            passing = {
                field.name: field.fill
                for field in cls.fields.values()
                if not field.persist and cls.persistent and cls.stored(field.name)
            }
            if passing and cls.in_database:
                for ref in transaction.refs(cls.name):
                    transaction.update(cls.name, ref, passing)

    def _forget_old_deletions(self) -> None:
        for db in (MAIN, VOLATILE):
            oldest = self._writer.execute(
                f"SELECT mtime FROM {db}.tombstones ORDER BY mtime DESC LIMIT 1 OFFSET {TOMBSTONES}"
            ).fetchone()
            if oldest:
                self._writer.execute(f"DELETE FROM {db}.tombstones WHERE mtime<=?", oldest)
                self._put_meta("floor", max(oldest[0], int(self._meta("floor") or 0)))

    def _meta(self, key: str) -> str | int | None:
        found = self._writer.execute("SELECT value FROM main.meta WHERE key=?", (key,)).fetchone()
        return found[0] if found else None

    def _put_meta(self, key: str, value: str | int) -> None:
        self._writer.execute("INSERT OR REPLACE INTO main.meta VALUES (?, ?)", (key, value))


def open_database(path: Path, volatile: Path) -> Database:
    """Open the database, made if it is not there; the process has it alone until it is closed.

    Raises DamagedError, NewerSchemaError, InUseError, DatabaseError (disk full or not writable).
    """
    return open_locked(path, volatile, lock(path))


def open_locked(path: Path, volatile: Path, taken: int) -> Database:
    """As `open_database`, for who has the lock already; it goes with the database, also when that cannot be opened."""
    try:
        return Database(path, volatile, taken)
    except BaseException:
        os.close(taken)
        raise


def lock(path: Path) -> int:
    """Take the database for this process; closing the descriptor gives it back, and the end of the process does.

    Raises InUseError, DatabaseError.
    """
    name = path.with_name(f".{path.name}.lock")
    try:
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise DatabaseError(
            f"{name} could not be opened: {error.strerror}",
            hint=HINTS.get(error.errno or 0, f"ls -l {name.parent}"),
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise InUseError(
            f"another process has {path} open", hint=f"is a daemon running? `fuser -v {path}` names it"
        ) from error
    return descriptor


def integrity(connection: sqlite3.Connection) -> list[str]:
    """What SQLite finds wrong, one line each; empty when the file is sound.

    Raises sqlite3.Error when it cannot be read now.
    """
    try:
        lines = [str(line) for (line,) in connection.execute("PRAGMA main.integrity_check(20)")]
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        return [str(error)]
    return [] if lines == ["ok"] else lines


def is_damage(error: sqlite3.Error) -> bool:
    """Whether this tells of what is in the file, and not of a disk that is full, read-only or does not answer."""
    name = getattr(error, "sqlite_errorname", "") or ""
    return name == "SQLITE_ERROR" or name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_FORMAT"))


def model_hash() -> str:
    """Which data model this is."""
    return hashlib.sha256(resources.files("hostagent.db").joinpath(datamodel.FILE).read_bytes()).hexdigest()[
        :16
    ]


def _failure(path: Path, error: sqlite3.Error) -> DatabaseError:
    code = getattr(error, "sqlite_errorname", "") or ""
    found = f"{path}: {error}"
    if code.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return DamagedError(found, hint="it is set aside at the next start, and the newest good copy used")
    if code.startswith("SQLITE_FULL"):
        return DatabaseError(found, hint="the disk is full: `df -h` shows which; nothing was changed")
    if code.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_IOERR")):
        return DatabaseError(found, hint="look at the file system: `dmesg`, `findmnt`, `ls -l`")
    return DatabaseError(found, hint="journalctl -u hostagent has more; report this if it stays")
