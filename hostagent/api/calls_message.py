"""Calls of the class message: alerts for people, kept in the database, the oldest going when there are too many."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from hostagent.api.dispatch import Implementation
from hostagent.api.fault import CallError
from hostagent.api.rendered import Rendered
from hostagent.api.sessions import stamp_now
from hostagent.db.datatype import UnfitError, moment
from hostagent.db.errors import UuidInvalidError

if TYPE_CHECKING:
    from collections.abc import Callable

    from hostagent.api.core import Call
    from hostagent.db.datatype import Value
    from hostagent.db.transaction import Transaction

KEPT = 10_000
OBJECT_CLASSES = {"Host": "host", "Pool": "pool"}
"""Where the enumeration of a message's class differs from the name of the class."""
BODY_LIMIT = 65536


def write(
    transaction: Transaction,
    name: str,
    priority: int,
    cls: str,
    obj_uuid: str,
    body: str,
    timestamp: str = "",
) -> str:
    """A new message; its reference. Priority 1 is the worst, 5 information."""
    ref = transaction.create(
        "message",
        {
            "name": name,
            "priority": priority,
            "cls": cls,
            "obj_uuid": obj_uuid,
            "body": body,
            "timestamp": timestamp or stamp_now(),
        },
    )
    refs = transaction.refs("message")
    for old in refs[: max(0, len(refs) - KEPT)]:
        transaction.destroy("message", old)
    return ref


def create(call: Call, name: str, priority: int, cls: str, obj_uuid: str, body: str) -> str:
    if not 1 <= priority <= 5:
        raise CallError("INVALID_VALUE", "priority", str(priority))
    if not name or len(body) > BODY_LIMIT:
        raise CallError("INVALID_VALUE", "body" if name else "name", name or f"{len(body)} characters")
    with call.core.db.write() as transaction:
        try:
            transaction.by_uuid(OBJECT_CLASSES.get(cls, cls), obj_uuid)
        except UuidInvalidError as error:
            raise CallError(error.code, cls, obj_uuid) from error
        return write(transaction, name, priority, cls, obj_uuid, body)


def destroy(call: Call, ref: str) -> str:
    with call.core.db.write() as transaction:
        transaction.destroy("message", ref)
    return ""


def destroy_many(call: Call, refs: list[str]) -> str:
    """All of them, or none when one is not there."""
    with call.core.db.write() as transaction:
        for ref in refs:
            transaction.destroy("message", ref)
    return ""


def destroy_all(call: Call, filters: dict[str, str]) -> str:
    """Those that fit the filters `before`, `after` (moments) and `priority`."""
    unknown = set(filters) - {"before", "after", "priority"}
    if unknown:
        raise CallError("INVALID_VALUE", "filters", ", ".join(sorted(unknown)))
    try:
        before, after = (moment(filters[name]) if name in filters else "" for name in ("before", "after"))
    except UnfitError as error:
        raise CallError("INVALID_VALUE", "filters", f"wants {error}") from error

    def wanted(record: dict[str, Value]) -> bool:
        when = str(record["timestamp"])
        return (
            (not before or when < before)
            and (not after or when > after)
            and ("priority" not in filters or str(record["priority"]) == filters["priority"])
        )

    with call.core.db.write() as transaction:
        for ref, record in list(transaction.records("message")):
            if wanted(record):
                transaction.destroy("message", ref)
    return ""


def _found(call: Call, wanted: Callable[[dict[str, Value]], bool]) -> Rendered:
    """As text already, made in this thread: there may be thousands, and all clients ask for them."""
    with call.core.db.read() as view:
        found = {ref: record for ref, record in view.records("message") if wanted(record)}
    return Rendered(json.dumps(found, separators=(",", ":")))


def get(call: Call, cls: str, obj_uuid: str, since: str) -> Rendered:
    return _found(
        call,
        lambda record: (
            (record["cls"], record["obj_uuid"]) == (cls, obj_uuid) and str(record["timestamp"]) > since
        ),
    )


def get_since(call: Call, since: str) -> Rendered:
    return _found(call, lambda record: str(record["timestamp"]) > since)


CALLS = (
    Implementation("message.create", create),
    Implementation("message.destroy", destroy),
    Implementation("message.destroy_many", destroy_many),
    Implementation("message.destroy_all", destroy_all),
    Implementation("message.get", get),
    Implementation("message.get_since", get_since),
)
