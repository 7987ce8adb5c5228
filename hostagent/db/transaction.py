"""Changing objects: what one transaction does to rows, links, generations, tombstones and counts.

Every value is checked against the data model, and every reference must lead to an object of its class. A change of a
reference also touches the objects at its old and new end, because fields of theirs follow from it. A write that
changes nothing leaves no trace.
"""

from __future__ import annotations

import json
import secrets
import uuid
from typing import TYPE_CHECKING

from hostagent.db.datatype import NULL_REF, Kind, UnfitError, fit, key_text
from hostagent.db.errors import (
    FieldTypeError,
    HandleInvalidError,
    MapDuplicateKeyError,
    NoSuchFieldError,
    NotUniqueError,
)
from hostagent.db.schema import as_text
from hostagent.db.view import View, link_name

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Mapping

    from hostagent.db.datatype import DataType, Value
    from hostagent.db.model import ClassModel, Field, Model, Relation

REF_PREFIX = "OpaqueRef:"


class Transaction(View):
    """All changes of one call; they become durable and visible together, or not at all.

    `generation` is the one that all of them get. `dirty` tells whether there are any.
    """

    def __init__(self, connection: sqlite3.Connection, model: Model, generation: int) -> None:
        super().__init__(connection, model, generation)
        self.dirty = False

    def create(
        self, cls: str, values: Mapping[str, object], *, ref: str | None = None, secret: bool = False
    ) -> str:
        """Make an object and return its reference. Fields that are not named get their defaults, `uuid` a random one.

        `secret` makes a reference that cannot be guessed (sessions). Raises FieldTypeError, HandleInvalidError,
        NotUniqueError, NoSuchFieldError.
        """
        found = self._model.cls(cls)
        ref = ref or REF_PREFIX + (secrets.token_urlsafe(32) if secret else str(uuid.uuid4()))
        public: dict[str, Value] = {}
        private: dict[str, Value] = {}
        for name in values:
            self._storable(cls, name)
        for field in found.fields.values():
            if found.stored(field.name):
                value = self._fitted(field, values[field.name]) if field.name in values else field.fill
                (private if field.internal else public)[field.name] = value
        if "uuid" in found.fields:
            public["uuid"] = public["uuid"] or str(uuid.uuid4())
        self._check_unique(cls, ref, str(public.get("uuid", "")))
        for field in found.fields.values():
            if field.name in values:
                self._check_refs(
                    field.type, (private if field.internal else public)[field.name], itself=(cls, ref)
                )
        self._insert(found, ref, public, private, self.generation, self.generation)
        self._touch_far_ends(found, ref, {**public, **private})
        return ref

    def set(self, cls: str, ref: str, field: str, value: object) -> bool:
        """Give a field a value; whether that changed anything. Raises HandleInvalidError, FieldTypeError."""
        return self.update(cls, ref, {field: value})

    def update(self, cls: str, ref: str, values: Mapping[str, object]) -> bool:
        """Give several fields of an object their values; whether that changed anything.

        Raises HandleInvalidError, FieldTypeError, NotUniqueError, NoSuchFieldError.
        """
        found = self._model.cls(cls)
        record, internal = self._row(cls, ref)
        public, private = json.loads(record), json.loads(internal)
        changed = False
        for name, given in values.items():
            facts = self._storable(cls, name)
            value = self._fitted(facts, given)
            fields = private if facts.internal else public
            if fields.get(name) == value and type(fields.get(name)) is type(value):
                continue
            self._check_refs(facts.type, value, itself=(cls, ref), before=fields.get(name))
            if name == "uuid":
                self._check_unique(cls, None, str(value))
            if name in found.near:
                self._relink(found.near[name], ref, str(fields[name]), str(value))
            fields[name] = value
            changed = True
        if changed:
            db = self._db(cls)
            self._connection.execute(
                f"UPDATE {db}.objects SET record=?, internal=?, uuid=?, name=?, mtime=? WHERE ref=?",
                (
                    as_text(public),
                    as_text(private),
                    public.get("uuid"),
                    public.get("name_label"),
                    self.generation,
                    ref,
                ),
            )
            self.dirty = True
        return changed

    def add_to_map(self, cls: str, ref: str, field: str, key: object, value: object) -> bool:
        """Add a key to a map; nothing happens when it is there with that value. Raises MapDuplicateKeyError when it has
        another, HandleInvalidError, FieldTypeError.
        """
        facts, present = self._map(cls, ref, field)
        kept = self._key(facts, key)
        fitting = self._fitted_item(facts, value)
        if kept in present:
            if present[kept] != fitting:
                raise MapDuplicateKeyError(cls, field, ref, kept)
            return False
        return self.set(cls, ref, field, {**present, kept: fitting})

    def remove_from_map(self, cls: str, ref: str, field: str, key: object) -> bool:
        """Take a key out of a map; a missing one is no error. Raises HandleInvalidError, FieldTypeError."""
        facts, present = self._map(cls, ref, field)
        kept = self._key(facts, key)
        return self.set(cls, ref, field, {name: value for name, value in present.items() if name != kept})

    def add_to_set(self, cls: str, ref: str, field: str, value: object) -> bool:
        """Add to a set, or link two objects where the set follows from a relation. Raises HandleInvalidError,
        FieldTypeError.
        """
        facts, present = self._set(cls, ref, field)
        fitting = self._fitted_item(facts, value)
        if fitting in present:
            return False
        found = self._model.cls(cls)
        if field in found.near and found.near[field].many:
            self._check_refs(facts.type.of(), fitting, itself=(cls, ref))
            self._link(found.near[field], ref, str(fitting))
            self._touch(cls, ref)
            return True
        return self.set(cls, ref, field, [*present, fitting])

    def remove_from_set(self, cls: str, ref: str, field: str, value: object) -> bool:
        """The reverse of `add_to_set`; what is not in the set is no error."""
        facts, present = self._set(cls, ref, field)
        fitting = self._fitted_item(facts, value)
        if fitting not in present:
            return False
        found = self._model.cls(cls)
        if field in found.near and found.near[field].many:
            self._unlink(found.near[field], ref, str(fitting))
            self._touch(cls, ref)
            return True
        return self.set(cls, ref, field, [item for item in present if item != fitting])

    def destroy(self, cls: str, ref: str) -> None:
        """Destroy an object. References to it stay as they are until `collect` or their owner changes them.

        Raises HandleInvalidError.
        """
        found = self._model.cls(cls)
        record, internal = self._row(cls, ref)
        self._touch_far_ends(found, ref, {**json.loads(record), **json.loads(internal)})
        db = self._db(cls)
        for relation in found.near.values():
            if relation.many:
                for far in self._linked(db, link_name(relation), "near", "far", ref):
                    self._touch(relation.far.cls, str(far))
        self._connection.execute(f"DELETE FROM {db}.links WHERE near=?", (ref,))
        for relation in (relation for relation in found.far.values() if relation.many):
            for near in self._linked(db, link_name(relation), "far", "near", ref):
                self._touch(relation.near.cls, str(near))
            self._connection.execute(
                f"DELETE FROM {db}.links WHERE relation=? AND far=?", (link_name(relation), ref)
            )
        self._connection.execute(
            f"INSERT OR REPLACE INTO {db}.tombstones SELECT ref, cls, ctime, ? FROM {db}.objects WHERE ref=?",
            (self.generation, ref),
        )
        self._connection.execute(f"DELETE FROM {db}.objects WHERE ref=?", (ref,))
        self._connection.execute(f"UPDATE {db}.counts SET objects=objects-1 WHERE cls=?", (cls,))
        self.dirty = True

    def touch(self, cls: str, ref: str) -> None:
        """Make an object count as changed (event.inject). Raises HandleInvalidError."""
        if not self.exists(cls, ref):
            raise HandleInvalidError(cls, ref)
        self._touch(cls, ref)

    def put_row(
        self,
        cls: str,
        ref: str,
        values: Mapping[str, Value],
        internal: Mapping[str, Value],
        *,
        ctime: int,
        mtime: int,
    ) -> None:
        """Put a row as it is (import of a dump): nothing is checked but uniqueness. Raises NotUniqueError."""
        found = self._model.cls(cls)
        self._check_unique(cls, ref, str(values.get("uuid", "")))
        self._insert(found, ref, values, internal, ctime, mtime)

    def link_many(self, relation: Relation, near: str, far: str) -> None:
        """Put one pair of a relation of many to many as it is (import of a dump)."""
        self._link(relation, near, far, touch=False)

    # inside

    def _insert(
        self,
        cls: ClassModel,
        ref: str,
        public: Mapping[str, Value],
        private: Mapping[str, Value],
        ctime: int,
        mtime: int,
    ) -> None:
        db = self._db(cls.name)
        self._connection.execute(
            f"INSERT INTO {db}.objects VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                ref,
                cls.name,
                public.get("uuid"),
                public.get("name_label"),
                ctime,
                mtime,
                as_text(public),
                as_text(private),
            ),
        )
        self._connection.execute(
            f"INSERT INTO {db}.counts VALUES (?, 1) ON CONFLICT(cls) DO UPDATE SET objects=objects+1",
            (cls.name,),
        )
        self._connection.execute(f"DELETE FROM {db}.tombstones WHERE ref=?", (ref,))
        for name, relation in cls.near.items():
            value = {**public, **private}.get(name)
            if not relation.many and value not in (NULL_REF, None):
                self._link(relation, ref, str(value), touch=False)
        self.dirty = True

    def _touch_far_ends(self, cls: ClassModel, ref: str, values: Mapping[str, Value]) -> None:
        for name, relation in cls.near.items():
            if not relation.many and values[name] not in (NULL_REF, ref):
                self._touch(relation.far.cls, str(values[name]))

    def _relink(self, relation: Relation, near: str, old: str, new: str) -> None:
        if old != NULL_REF:
            self._unlink(relation, near, old)
        if new != NULL_REF:
            self._link(relation, near, new)

    def _link(self, relation: Relation, near: str, far: str, *, touch: bool = True) -> None:
        db = self._db(relation.near.cls)
        self._connection.execute(
            f"INSERT OR IGNORE INTO {db}.links VALUES (?, ?, ?)", (link_name(relation), near, far)
        )
        if touch:
            self._touch(relation.far.cls, far)

    def _unlink(self, relation: Relation, near: str, far: str) -> None:
        db = self._db(relation.near.cls)
        self._connection.execute(
            f"DELETE FROM {db}.links WHERE relation=? AND near=? AND far=?", (link_name(relation), near, far)
        )
        self._touch(relation.far.cls, far)

    def _touch(self, cls: str, ref: str) -> None:
        db = self._db(cls)
        self._connection.execute(
            f"UPDATE {db}.objects SET mtime=? WHERE ref=? AND cls=?", (self.generation, ref, cls)
        )
        self.dirty = True

    def _storable(self, cls: str, name: str) -> Field:
        facts = self.field_of(cls, name)
        if not self._model.cls(cls).stored(name):
            raise NoSuchFieldError(
                f"{cls}.{name} follows from a relation and is never written", hint="report this"
            )
        return facts

    def _fitted(self, field: Field, value: object) -> Value:
        try:
            return fit(field.type, value, self._model.enums)
        except UnfitError as error:
            raise FieldTypeError(field.name, str(error)) from error

    def _fitted_item(self, field: Field, value: object) -> Value:
        try:
            return fit(field.type.of(), value, self._model.enums)
        except UnfitError as error:
            raise FieldTypeError(field.name, f"members that are {error}") from error

    def _key(self, field: Field, key: object) -> str:
        try:
            kept = key_text(field.type.key, key, self._model.enums) if field.type.key else ""
        except UnfitError as error:
            raise FieldTypeError(field.name, f"keys that are {error}") from error
        if not kept:
            raise FieldTypeError(field.name, "keys that are not empty")
        return kept

    def _map(self, cls: str, ref: str, field: str) -> tuple[Field, dict[str, Value]]:
        facts, value = self._storable(cls, field), self.get(cls, ref, field)
        if not isinstance(value, dict):
            raise NoSuchFieldError(f"{cls}.{field} is not a map", hint="report this")
        return facts, value

    def _set(self, cls: str, ref: str, field: str) -> tuple[Field, list[Value]]:
        facts, value = self.field_of(cls, field), self.get(cls, ref, field)
        if not isinstance(value, list) or field in self._model.cls(cls).far:
            raise NoSuchFieldError(f"{cls}.{field} is not a set that is written", hint="report this")
        return facts, value

    def _check_unique(self, cls: str, ref: str | None, identity: str) -> None:
        if ref is not None and self.class_of(ref) is not None:
            raise NotUniqueError(cls, "ref", ref)
        if identity:
            for db in ("main", "volatile"):
                if self._connection.execute(
                    f"SELECT 1 FROM {db}.objects WHERE uuid=?", (identity,)
                ).fetchone():
                    raise NotUniqueError(cls, "uuid", identity)

    def _check_refs(
        self, kind: DataType, value: Value, *, itself: tuple[str, str], before: Value = NULL_REF
    ) -> None:
        """Every reference in a value leads to an object of its class, or is null, or was in it `before`: what was lost
        since is left to `collect`, and is not the caller's fault. Raises HandleInvalidError.
        """
        known = {itself, *refs_in(kind, before)}
        for cls, ref in refs_in(kind, value):
            if ref != NULL_REF and (cls, ref) not in known and not self.exists(cls, ref):
                raise HandleInvalidError(cls, ref)


def refs_in(kind: DataType, value: Value) -> Iterator[tuple[str, str]]:
    """Class and reference of every reference in a value."""
    if kind.kind is Kind.REF:
        yield kind.name, str(value)
    elif kind.kind is Kind.SET and isinstance(value, list):
        for item in value:
            yield from refs_in(kind.of(), item)
    elif kind.kind is Kind.MAP and isinstance(value, dict) and kind.key is not None:
        for key, item in value.items():
            yield from refs_in(kind.key, key)
            yield from refs_in(kind.of(), item)
