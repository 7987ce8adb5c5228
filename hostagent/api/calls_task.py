"""Calls of the class task that are not generated (xenapi.md 4.3): a task is changed by its maker, and by operators."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.api.dispatch import Implementation
from hostagent.api.fault import CallError
from hostagent.api.roles import Role
from hostagent.api.sessions import stamp_now
from hostagent.api.tasks import FINISHED

if TYPE_CHECKING:
    from hostagent.api.core import Call
    from hostagent.api.tasks import Tasks
    from hostagent.db.datatype import Value


def _tasks(call: Call) -> Tasks:
    if call.core.tasks is None:
        raise CallError("HOST_STILL_BOOTING")
    return call.core.tasks


def _check_owner(call: Call, what: str, ref: str) -> None:
    """Raises CallError RBAC_PERMISSION_DENIED, HandleInvalidError."""
    session = call.caller
    with call.core.db.read() as view:
        owner = view.get("task", ref, "session")
    if session.role < Role.POOL_OPERATOR and owner != session.ref:
        raise CallError("RBAC_PERMISSION_DENIED", f"task.{what}/any", "the task is of another session")


def create(call: Call, label: str, description: str) -> str:
    """A task whose maker finishes it itself."""
    with call.core.db.write() as transaction:
        return transaction.create(
            "task",
            {
                "name_label": label,
                "name_description": description,
                "created": stamp_now(),
                "status": "pending",
                "type": "<none/>",
                "session": call.caller.ref,
                "resident_on": call.core.this_host(),
                "allowed_operations": ["cancel", "destroy"],
            },
        )


def destroy(call: Call, ref: str) -> str:
    _check_owner(call, "destroy", ref)
    _tasks(call).destroy(ref)
    return ""


def cancel(call: Call, ref: str) -> str:
    _check_owner(call, "cancel", ref)
    _tasks(call).cancel(ref)
    return ""


def _set(call: Call, field: str, ref: str, values: dict[str, Value]) -> str:
    _check_owner(call, f"set_{field}", ref)
    with call.core.db.write() as transaction:
        transaction.update("task", ref, values)
    return ""


def set_status(call: Call, ref: str, value: str) -> str:
    return _set(
        call, "status", ref, {"status": value, **({"finished": stamp_now()} if value in FINISHED else {})}
    )


def set_progress(call: Call, ref: str, value: float) -> str:
    return _set(call, "progress", ref, {"progress": min(1.0, max(0.0, value))})


def set_result(call: Call, ref: str, value: str) -> str:
    return _set(call, "result", ref, {"result": value})


def set_error_info(call: Call, ref: str, value: list[Value]) -> str:
    return _set(call, "error_info", ref, {"error_info": value})


def set_other_config(call: Call, ref: str, value: dict[str, Value]) -> str:
    return _set(call, "other_config", ref, {"other_config": value})


def add_to_other_config(call: Call, ref: str, key: str, value: str) -> str:
    _check_owner(call, "add_to_other_config", ref)
    with call.core.db.write() as transaction:
        transaction.add_to_map("task", ref, "other_config", key, value)
    return ""


def remove_from_other_config(call: Call, ref: str, key: str) -> str:
    _check_owner(call, "remove_from_other_config", ref)
    with call.core.db.write() as transaction:
        transaction.remove_from_map("task", ref, "other_config", key)
    return ""


CALLS = (
    Implementation("task.create", create),
    Implementation("task.destroy", destroy),
    Implementation("task.cancel", cancel),
    Implementation("task.set_status", set_status),
    Implementation("task.set_progress", set_progress),
    Implementation("task.set_result", set_result),
    Implementation("task.set_error_info", set_error_info),
    Implementation("task.set_other_config", set_other_config),
    Implementation("task.add_to_other_config", add_to_other_config),
    Implementation("task.remove_from_other_config", remove_from_other_config),
)
