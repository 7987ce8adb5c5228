"""Reading objects, from one snapshot of the database.

Records are handed out as Python values (`record`) or as the JSON text in which they are stored (`record_text`), which
costs no parsing. Fields that follow from a relation are computed here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hostagent.db.datatype import NULL_REF
from hostagent.db.errors import HandleInvalidError, NoSuchFieldError, UuidInvalidError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator

    from hostagent.db.datatype import Value
    from hostagent.db.model import ClassModel, Field, Model, Relation

MAIN, VOLATILE = "main", "volatile"
"""What is kept over a restart, and what is not (sessions, tasks)."""


@dataclass(frozen=True, slots=True)
class Change:
    """An object that was made, changed or destroyed. `record` is its JSON text, None once it is destroyed."""

    cls: str
    ref: str
    ctime: int
    mtime: int
    record: str | None


class View:
    """One snapshot. `generation` is that of the newest change in it."""

    def __init__(self, connection: sqlite3.Connection, model: Model, generation: int) -> None:
        self._connection = connection
        self._model = model
        self.generation = generation

    # objects

    def refs(self, cls: str) -> list[str]:
        """The references of all objects of a class, oldest first."""
        db = self._db(cls)
        rows = self._connection.execute(
            f"SELECT ref FROM {db}.objects WHERE cls=? ORDER BY ctime, rowid", (cls,)
        )
        return [ref for (ref,) in rows]

    def exists(self, cls: str, ref: str) -> bool:
        db = self._db(cls)
        found = self._connection.execute(
            f"SELECT 1 FROM {db}.objects WHERE ref=? AND cls=?", (ref, cls)
        ).fetchone()
        return found is not None

    def class_of(self, ref: str) -> str | None:
        """The class of the object with that reference, None if there is none."""
        for db in (MAIN, VOLATILE):
            found = self._connection.execute(f"SELECT cls FROM {db}.objects WHERE ref=?", (ref,)).fetchone()
            if found:
                return str(found[0])
        return None

    def by_uuid(self, cls: str, uuid: str) -> str:
        """Raises UuidInvalidError."""
        db = self._db(cls)
        found = self._connection.execute(
            f"SELECT ref FROM {db}.objects WHERE uuid=? AND cls=?", (uuid, cls)
        ).fetchone()
        if found is None:
            raise UuidInvalidError(cls, uuid)
        return str(found[0])

    def by_name(self, cls: str, name: str) -> list[str]:
        """References of the objects with that name_label, oldest first."""
        db = self._db(cls)
        rows = self._connection.execute(
            f"SELECT ref FROM {db}.objects WHERE cls=? AND name=? ORDER BY ctime, rowid", (cls, name)
        )
        return [ref for (ref,) in rows]

    def where(self, cls: str, **values: Value) -> list[str]:
        """References of the objects whose fields have these values, oldest first."""
        for field in values:
            self.field_of(cls, field)
        rows = self.records(cls, internal=True)
        return [ref for ref, record in rows if all(record[field] == value for field, value in values.items())]

    def the_only(self, cls: str) -> str:
        """The object of a class that has one (pool), or the null reference while there is none."""
        refs = self.refs(cls)
        return refs[0] if len(refs) == 1 else NULL_REF

    def counts(self) -> dict[str, int]:
        """How many objects each class has that is a table to clients."""
        found = {name: 0 for name, cls in self._model.classes.items() if cls.counted}
        for db in (MAIN, VOLATILE):
            rows = self._connection.execute(f"SELECT cls, objects FROM {db}.counts")
            found.update((cls, count) for cls, count in rows if cls in found)
        return found

    # records

    def record(self, cls: str, ref: str, *, internal: bool = False) -> dict[str, Value]:
        """The record of an object; with its internal fields where asked for. Raises HandleInvalidError."""
        record, private = self._row(cls, ref)
        fields: dict[str, Value] = json.loads(record)
        fields.update(self._computed(self._model.cls(cls), ref, internal=internal))
        if internal:
            fields.update(json.loads(private))
        return fields

    def record_text(self, cls: str, ref: str) -> str:
        """The record of an object as JSON text, without internal fields. Raises HandleInvalidError."""
        record, _ = self._row(cls, ref)
        computed = self._computed(self._model.cls(cls), ref)
        return _joined(record, json.dumps(computed, separators=(",", ":")) if computed else "{}")

    def records(self, cls: str, *, internal: bool = False) -> Iterator[tuple[str, dict[str, Value]]]:
        """Reference and record of every object of a class, oldest first."""
        found = self._model.cls(cls)
        links, names = self._links(found, internal=internal), tuple(_empty(found, internal=internal))
        for ref, record, private in self._rows(cls):
            fields: dict[str, Value] = json.loads(record)
            fields.update({name: [] for name in names})
            fields.update(links.get(ref, {}))
            if internal:
                fields.update(json.loads(private))
            yield ref, fields

    def records_text(self, cls: str) -> Iterator[tuple[str, str]]:
        """Reference and record, as JSON text, of every object of a class, oldest first."""
        found = self._model.cls(cls)
        links, empty = self._links(found), _empty(found)
        nothing = json.dumps(empty, separators=(",", ":"))
        for ref, record, _ in self._rows(cls):
            own = links.get(ref)
            yield ref, _joined(record, json.dumps(empty | own, separators=(",", ":")) if own else nothing)

    def dated_records(self, cls: str) -> Iterator[tuple[str, dict[str, Value], int, int]]:
        """Reference, whole record, and the generations of making and last change, of every object of a class."""
        db = self._db(cls)
        dates = {
            ref: (ctime, mtime)
            for ref, ctime, mtime in self._connection.execute(
                f"SELECT ref, ctime, mtime FROM {db}.objects WHERE cls=?", (cls,)
            )
        }
        for ref, record in self.records(cls, internal=True):
            yield ref, record, *dates[ref]

    def get(self, cls: str, ref: str, field: str) -> Value:
        """One field of an object. Raises HandleInvalidError."""
        facts = self.field_of(cls, field)
        found = self._model.cls(cls)
        if not found.stored(field):
            if not self.exists(cls, ref):
                raise HandleInvalidError(cls, ref)
            relation, side, other = _side(found, field)
            return self._linked(self._db(cls), relation, side, other, ref)
        column = "internal" if facts.internal else "record"
        row = self._connection.execute(
            f"SELECT {column} -> ? FROM {self._db(cls)}.objects WHERE ref=? AND cls=?",
            (f'$."{field}"', ref, cls),
        ).fetchone()
        if row is None:
            raise HandleInvalidError(cls, ref)
        value: Value = json.loads(row[0])
        return value

    # changes

    def changes(self, since: int, classes: Iterable[str]) -> list[Change]:
        """What has changed after generation `since` in these classes, each object once with what became of it.

        An object that was made and destroyed meanwhile is left out.
        """
        found: list[Change] = []
        wanted = frozenset(classes)
        for db in (MAIN, VOLATILE):
            rows = self._connection.execute(
                f"SELECT cls, ref, ctime, mtime FROM {db}.objects WHERE mtime>? AND mtime<=? ORDER BY mtime, rowid",
                (since, self.generation),
            ).fetchall()
            found += [
                Change(cls, ref, ctime, mtime, self.record_text(cls, ref))
                for cls, ref, ctime, mtime in rows
                if cls in wanted
            ]
            gone = self._connection.execute(
                f"SELECT cls, ref, ctime, mtime FROM {db}.tombstones WHERE mtime>? AND mtime<=? AND ctime<=?"
                " ORDER BY mtime, rowid",
                (since, self.generation, since),
            )
            found += [
                Change(cls, ref, ctime, mtime, None) for cls, ref, ctime, mtime in gone if cls in wanted
            ]
        return found

    def changed(self, since: int, cls: str | None = None, ref: str | None = None) -> bool:
        """Has anything changed after generation `since`: at all, in a class, or to one object?"""
        condition, values = "mtime>? AND mtime<=?", [since, self.generation]
        more = [("cls", cls), ("ref", ref)]
        condition += "".join(f" AND {column}=?" for column, value in more if value is not None)
        given = (*values, *(value for _, value in more if value is not None))
        for db in (MAIN, VOLATILE):
            for table in ("objects", "tombstones"):
                query = f"SELECT 1 FROM {db}.{table} WHERE {condition} LIMIT 1"
                if self._connection.execute(query, given).fetchone():
                    return True
        return False

    def floor(self) -> int:
        """The oldest generation from which changes are complete: deletions before it are forgotten."""
        found = self._connection.execute("SELECT value FROM main.meta WHERE key='floor'").fetchone()
        return int(found[0]) if found else 0

    # inside

    def field_of(self, cls: str, field: str) -> Field:
        """The model's facts of a field. Raises NoSuchFieldError."""
        found = self._model.classes.get(cls)
        if found is None or not found.in_database or field not in found.fields:
            raise NoSuchFieldError(f"the database has no {cls}.{field}", hint="report this")
        return found.fields[field]

    def _db(self, cls: str) -> str:
        found = self._model.classes.get(cls)
        if found is None or not found.in_database:
            raise NoSuchFieldError(f"the database has no class {cls}", hint="report this")
        return MAIN if found.persistent else VOLATILE

    def _row(self, cls: str, ref: str) -> tuple[str, str]:
        db = self._db(cls)
        found = self._connection.execute(
            f"SELECT record, internal FROM {db}.objects WHERE ref=? AND cls=?", (ref, cls)
        ).fetchone()
        if found is None:
            raise HandleInvalidError(cls, ref)
        return str(found[0]), str(found[1])

    def _rows(self, cls: str) -> Iterator[tuple[str, str, str]]:
        db = self._db(cls)
        yield from self._connection.execute(
            f"SELECT ref, record, internal FROM {db}.objects WHERE cls=? ORDER BY ctime, rowid", (cls,)
        ).fetchall()

    def _linked(self, db: str, relation: str, side: str, other: str, ref: str) -> list[Value]:
        rows = self._connection.execute(
            f"SELECT {other} FROM {db}.links WHERE {side}=? AND relation=? ORDER BY {other}", (ref, relation)
        )
        return [found for (found,) in rows]

    def _computed(self, cls: ClassModel, ref: str, *, internal: bool = False) -> dict[str, Value]:
        """The fields of one object that follow from relations."""
        fields: dict[str, Value] = {}
        db = self._db(cls.name)
        for name in _empty(cls, internal=internal):
            relation, side, other = _side(cls, name)
            fields[name] = self._linked(db, relation, side, other, ref)
        return fields

    def _links(self, cls: ClassModel, *, internal: bool = False) -> dict[str, dict[str, list[Value]]]:
        """The same for all objects of a class at once; those without any link are left out."""
        found: dict[str, dict[str, list[Value]]] = {}
        db = self._db(cls.name)
        for name in _empty(cls, internal=internal):
            relation, side, other = _side(cls, name)
            for ref, linked in self._connection.execute(
                f"SELECT {side}, {other} FROM {db}.links WHERE relation=? ORDER BY {other}", (relation,)
            ):
                found.setdefault(ref, {}).setdefault(name, []).append(linked)
        return found


def link_name(relation: Relation) -> str:
    """How `links` names a relation: the field on the side that is written."""
    return f"{relation.near.cls}.{relation.near.field}"


def _side(cls: ClassModel, field: str) -> tuple[str, str, str]:
    """Where to look for a computed field: name of the relation, the column with us, the column with the others."""
    if field in cls.far:
        return link_name(cls.far[field]), "far", "near"
    return link_name(cls.near[field]), "near", "far"


def _empty(cls: ClassModel, *, internal: bool = False) -> dict[str, list[Value]]:
    """The computed fields of a class as they are while nothing is linked."""
    return {
        name: []
        for name, field in cls.fields.items()
        if not cls.stored(name) and (internal or not field.internal)
    }


def _joined(first: str, second: str) -> str:
    """Two JSON objects as one. Neither may have a key of the other."""
    if second == "{}":
        return first
    return second if first == "{}" else f"{first[:-1]},{second[1:]}"
