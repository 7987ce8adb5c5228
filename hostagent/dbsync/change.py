"""Writing to the database so that the report can tell exactly what was changed, in words an operator can follow.

Objects are named by what is the same on every run (the uuid of a host, the number of a processor), so that a plan says
the same as the run that follows it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from hostagent.db.datatype import NULL_REF
from hostagent.named import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hostagent.db.datatype import Value
    from hostagent.db.transaction import Transaction
    from hostagent.db.view import View

MADE, GONE = "(made)", "(destroyed)"
BY_UUID = ("host", "VM")
"""Their uuids are given (inventory); those of other objects are random."""


class Change(NamedTuple):
    """One exact change: the object or its field, the old value (None: absent) and the new one."""

    what: str
    old: str | None
    new: str | None


def put(transaction: Transaction, cls: str, ref: str, values: Mapping[str, object]) -> list[Change]:
    """Give fields their values; what that changed. A map counts key by key. Raises what `Transaction.update` raises."""
    before = transaction.record(cls, ref, internal=True)
    if not transaction.update(cls, ref, values):
        return []
    after = transaction.record(cls, ref, internal=True)
    name = name_of(transaction, cls, ref)
    changes: list[Change] = []
    for field in values:
        old, new = before[field], after[field]
        if isinstance(old, dict) and isinstance(new, dict):
            changes += [
                Change(f"{name}.{field}:{key}", _shown(transaction, old, key), _shown(transaction, new, key))
                for key in {**old, **new}
                if old.get(key) != new.get(key)
            ]
        elif old != new:
            changes.append(Change(f"{name}.{field}", shown(transaction, old), shown(transaction, new)))
    return changes


def put_keys(
    transaction: Transaction, cls: str, ref: str, field: str, values: Mapping[str, str]
) -> list[Change]:
    """Give keys of a map their values; the other keys stay."""
    present = transaction.get(cls, ref, field)
    kept = present if isinstance(present, dict) else {}
    return put(transaction, cls, ref, {field: {**kept, **values}})


def make(transaction: Transaction, cls: str, values: Mapping[str, object]) -> tuple[str, Change]:
    """Make an object; its reference and the change."""
    ref = transaction.create(cls, values)
    return ref, Change(name_of(transaction, cls, ref), None, MADE)


def destroy(transaction: Transaction, cls: str, ref: str) -> Change:
    """Destroy an object; the change."""
    name = name_of(transaction, cls, ref)
    transaction.destroy(cls, ref)
    return Change(name, MADE, GONE)


def name_of(view: View, cls: str, ref: str) -> str:
    """What reports call an object."""
    record = view.record(cls, ref, internal=True)
    if cls in BY_UUID:
        return f"{cls} {record['uuid']}"
    for field in ("number", "short_name", "name_label", "name"):
        if (word := record.get(field)) not in (None, ""):
            return f"{cls} {word}"
    return cls


def shown(view: View, value: Value) -> str:
    """A value as reports show it; a reference as the object it leads to."""
    if isinstance(value, str):
        if value == NULL_REF:
            return "(none)"
        cls = view.class_of(value) if value.startswith("OpaqueRef:") else None
        return name_of(view, cls, value) if cls else value
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ", ".join(shown(view, item) for item in value)
    return json.dumps(value, ensure_ascii=False)


def _shown(view: View, values: dict[str, Value], key: str) -> str | None:
    return shown(view, values[key]) if key in values else None
