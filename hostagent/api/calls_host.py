"""Calls of the classes host, pool, role and secret that need nothing but the database and the clock."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from hostagent.api.dispatch import Implementation
from hostagent.api.fault import CallError
from hostagent.api.roles import DESCRIPTIONS, needed, ref_of
from hostagent.api.sessions import stamp_now

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hostagent.api.core import Call
    from hostagent.api.roles import Role
    from hostagent.db.datatype import Value


def is_in_emergency_mode(call: Call) -> bool:
    """Not while the host boots: its calls are held up then, but nobody need mend it."""
    return call.core.emergency()


def list_methods(call: Call) -> list[str]:
    """The names of the data model, those not built included: host.list_methods tells what the API is."""
    model = call.core.db.model
    return sorted(message.wire_name for cls in model.classes.values() for message in cls.messages.values())


def _check(call: Call, cls: str, ref: str) -> None:
    """Raises HandleInvalidError."""
    with call.core.db.read() as view:
        view.get(cls, ref, "uuid")


def get_servertime(call: Call, host: str) -> str:
    _check(call, "host", host)
    return stamp_now()


def get_server_localtime(call: Call, host: str) -> str:
    """The host's own time of day; it carries no zone (xenapi.md 1.2 reads that as UTC)."""
    _check(call, "host", host)
    return time.strftime("%Y%m%dT%H:%M:%SZ", time.localtime())


def has_extension(call: Call, host: str, _name: str) -> bool:
    _check(call, "host", host)
    return False


def pool_has_extension(call: Call, pool: str, _name: str) -> bool:
    _check(call, "pool", pool)
    return False


def sync_database(_call: Call) -> str:
    """Every change was durable when it was answered."""
    return ""


def introduce_secret(call: Call, uuid: str, value: str, other_config: dict[str, Value]) -> str:
    with call.core.db.write() as transaction:
        return transaction.create("secret", {"uuid": uuid, "value": value, "other_config": other_config})


def _role(ref: str) -> Role:
    found = next((role for role in DESCRIPTIONS if ref_of(role) == ref), None)
    if found is None:
        raise CallError("HANDLE_INVALID", "role", ref)
    return found


def _names(call: Call, role: Role) -> Iterable[str]:
    model = call.core.db.model
    return sorted(
        message.wire_name.lower()
        for cls in model.classes.values()
        for message in cls.messages.values()
        if message.session and needed(message.min_role) <= role
    )


def get_permissions_name_label(call: Call, ref: str) -> list[str]:
    return list(_names(call, _role(ref)))


def get_by_permission_name_label(call: Call, label: str) -> list[str]:
    return [ref_of(role) for role in DESCRIPTIONS if label.lower() in set(_names(call, role))]


CALLS = (
    Implementation("host.is_in_emergency_mode", is_in_emergency_mode, quick=True, emergency=True),
    Implementation("host.list_methods", list_methods, quick=True),
    Implementation("host.get_servertime", get_servertime, quick=True),
    Implementation("host.get_server_localtime", get_server_localtime, quick=True),
    Implementation("host.has_extension", has_extension, quick=True),
    Implementation("pool.has_extension", pool_has_extension, quick=True),
    Implementation("pool.sync_database", sync_database, quick=True),
    Implementation("secret.introduce", introduce_secret),
    Implementation("role.get_permissions_name_label", get_permissions_name_label, quick=True),
    Implementation("role.get_by_permission_name_label", get_by_permission_name_label, quick=True),
)
