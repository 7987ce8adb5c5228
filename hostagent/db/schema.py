"""The tables of the database file, and the steps from older ones.

`objects` has one row an object: its stored public fields as one JSON text, its internal fields as another. What
follows from a relation (`host.PIFs`) is in `links` and put together when a record is read. `mtime` and `ctime` are
generations: numbers that only grow, one for each transaction. `tombstones` remember what was destroyed.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from hostagent.db.errors import NewerSchemaError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    from hostagent.db.model import Model

TABLES = """
CREATE TABLE {db}.objects(
    ref TEXT PRIMARY KEY, cls TEXT NOT NULL, uuid TEXT UNIQUE, name TEXT,
    ctime INTEGER NOT NULL, mtime INTEGER NOT NULL, record TEXT NOT NULL, internal TEXT NOT NULL);
CREATE INDEX {db}.objects_by_class ON objects(cls, name);
CREATE INDEX {db}.objects_by_change ON objects(mtime);
CREATE TABLE {db}.links(
    relation TEXT NOT NULL, near TEXT NOT NULL, far TEXT NOT NULL,
    PRIMARY KEY(relation, far, near)) WITHOUT ROWID;
CREATE INDEX {db}.links_by_near ON links(near);
CREATE TABLE {db}.tombstones(ref TEXT PRIMARY KEY, cls TEXT NOT NULL, ctime INTEGER NOT NULL, mtime INTEGER NOT NULL);
CREATE INDEX {db}.tombstones_by_change ON tombstones(mtime);
CREATE TABLE {db}.counts(cls TEXT PRIMARY KEY, objects INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE {db}.meta(key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
"""


def _first(connection: sqlite3.Connection, db: str) -> None:
    for statement in TABLES.format(db=db).split(";"):
        connection.execute(statement)


MIGRATIONS: tuple[Callable[[sqlite3.Connection, str], None], ...] = (_first,)
"""The n-th makes version n+1 of a file (SQLite's user_version) out of version n."""


def upgrade(connection: sqlite3.Connection, db: str) -> None:
    """Bring the attached database `db` to the newest version, in one transaction.

    Raises NewerSchemaError, before anything is touched, when the file is of a version that we do not know.
    """
    (version,) = connection.execute(f"PRAGMA {db}.user_version").fetchone()
    if version > len(MIGRATIONS):
        raise NewerSchemaError(
            f"the database is of version {version}, and this hostagent knows versions up to {len(MIGRATIONS)}",
            hint="install the hostagent that wrote it, or restore a backup that this one wrote: `hostagent db restore`",
        )
    if version == len(MIGRATIONS):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for migrate in MIGRATIONS[version:]:
            migrate(connection, db)
        connection.execute(f"PRAGMA {db}.user_version = {len(MIGRATIONS)}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def fill_missing_fields(connection: sqlite3.Connection, db: str, model: Model) -> int:
    """Give every object the fields that the data model has and its row has not, with their defaults; fields that the
    model does not know are kept. The number of rows that changed. Runs inside the caller's transaction.
    """
    changed = 0
    for ref, name, record, internal in connection.execute(
        f"SELECT ref, cls, record, internal FROM {db}.objects"
    ).fetchall():
        cls = model.classes.get(name)
        if cls is None:
            continue
        public, private = json.loads(record), json.loads(internal)
        missing = [
            field
            for field in cls.fields.values()
            if cls.stored(field.name) and field.name not in (private if field.internal else public)
        ]
        for field in missing:
            (private if field.internal else public)[field.name] = field.fill
        if missing:
            changed += 1
            connection.execute(
                f"UPDATE {db}.objects SET record=?, internal=? WHERE ref=?",
                (as_text(public), as_text(private), ref),
            )
    return changed


def as_text(value: object) -> str:
    """JSON as rows hold it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
