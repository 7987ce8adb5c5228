"""The messages that follow from the data model: get_all, get_record, getters, setters, add_to_, create and their like.

A setter that only stores a value is generated for fields that have no effect on the host. A field that has one
(`EFFECTS`) needs code that applies it; until there is some, its setter is not built.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from hostagent.api import where
from hostagent.api.rendered import Rendered
from hostagent.db.datatype import Kind
from hostagent.db.transaction import Transaction

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hostagent.db.database import Database
    from hostagent.db.datatype import Value
    from hostagent.db.model import ClassModel, Message

Run = Callable[..., object]

EFFECTS: dict[str, frozenset[str]] = {
    "host": frozenset(("address", "display", "guest_VCPUs_params", "hostname", "logging")),
    "network": frozenset(("MTU",)),
    "pool": frozenset(
        (
            "ha_allow_overcommit",
            "is_psr_pending",
            "limit_console_sessions",
            "vm_console_idle_timeout",
            "wlb_enabled",
        )
    ),
    "tunnel": frozenset(("protocol", "status")),
    "VM": frozenset(("VCPUs_params", "is_a_template", "xenstore_data")),
    "VBD": frozenset(("qos_algorithm_params", "qos_algorithm_type", "type", "unpluggable", "userdevice")),
    "VDI": frozenset(("sm_config", "xenstore_data")),
    "VIF": frozenset(("qos_algorithm_params", "qos_algorithm_type")),
    "SR": frozenset(("sm_config",)),
    "VGPU": frozenset(("extra_args",)),
    "VMSS": frozenset(("enabled",)),
    "VMPP": frozenset(("backup_type", "is_policy_enabled")),
}
"""Settable fields whose value reaches beyond the database."""

CHECKED = {("PIF", "other_config"): "check_pif", ("network", "other_config"): "check_network"}
"""Maps of which some keys change the network: what refuses their values (`net.keys`) before they are stored, instead of
the next plug (networking.md 1.6)."""

PLAIN_CLASSES = frozenset(("secret", "user", "VM_appliance", "VM_group"))
"""Classes whose objects are nothing but their record: made and destroyed here."""

GETTERS_LISTED = frozenset(("message",))
"""Classes for which the data model lists as written by hand what is generated for the others."""


def implement(message: Message, cls: ClassModel, database: Database) -> Run | None:
    """What a generated message does, taking its parameters already checked; None when it is not generated, or not
    built.
    """
    if not (message.generated or cls.name in GETTERS_LISTED) or not cls.in_database:
        return None
    return _of_class(message.name, cls, database) or _of_field(message.name, cls, database)


def _of_class(name: str, cls: ClassModel, database: Database) -> Run | None:
    def get_all() -> list[str]:
        with database.read() as view:
            return view.refs(cls.name)

    def get_all_records() -> Rendered:
        with database.read() as view:
            return Rendered(_object(view.records_text(cls.name)))

    def get_all_where(expr: str) -> list[str]:
        wanted = where.test(expr, cls)
        with database.read() as view:
            return [ref for ref, record in view.records(cls.name, internal=True) if wanted(record)]

    def get_all_records_where(expr: str) -> Rendered:
        wanted = where.test(expr, cls)
        with database.read() as view:
            found = {ref for ref, record in view.records(cls.name, internal=True) if wanted(record)}
            return Rendered(_object(item for item in view.records_text(cls.name) if item[0] in found))

    def get_record(ref: str) -> Rendered:
        with database.read() as view:
            return Rendered(view.record_text(cls.name, ref))

    def get_by_uuid(uuid: str) -> str:
        with database.read() as view:
            return view.by_uuid(cls.name, uuid)

    def get_by_name_label(label: str) -> list[str]:
        with database.read() as view:
            return view.by_name(cls.name, label)

    def create(values: dict[str, Value]) -> str:
        with database.write() as transaction:
            return transaction.create(cls.name, constructor_values(cls, values))

    def destroy(ref: str) -> str:
        with database.write() as transaction:
            transaction.destroy(cls.name, ref)
        return ""

    found: dict[str, Run] = {
        "get_all": get_all,
        "get_all_records": get_all_records,
        "get_all_where": get_all_where,
        "get_all_records_where": get_all_records_where,
        "get_record": get_record,
        "get_by_uuid": get_by_uuid,
        "get_by_name_label": get_by_name_label,
    }
    if cls.name in PLAIN_CLASSES:
        found |= {"create": create, "destroy": destroy}
    return found.get(name)


def constructor_values(cls: ClassModel, values: dict[str, Value]) -> dict[str, Value]:
    """What a constructor takes of a record that a client sends: its own fields; what the server sets is ignored, as
    clients send back whole records.
    """
    return {
        name: value
        for name, value in values.items()
        if name in cls.fields and cls.fields[name].qualifier != "DynamicRO" and cls.stored(name)
    }


def _of_field(name: str, cls: ClassModel, database: Database) -> Run | None:
    for prefix, make in MAKERS.items():
        field = cls.fields.get(name.removeprefix(prefix)) if name.startswith(prefix) else None
        if field is None or field.internal:
            continue
        if prefix != "get_" and field.name in EFFECTS.get(cls.name, ()):
            return None
        if prefix in ("add_to_", "remove_from_") and field.type.kind is not Kind.MAP:
            continue
        if prefix in ("add_", "remove_") and field.type.kind is not Kind.SET:
            continue
        return make(cls.name, field.name, database)
    return None


def _getter(cls: str, field: str, database: Database) -> Run:
    def get(ref: str) -> Value:
        with database.read() as view:
            return view.get(cls, ref, field)

    return get


def _check(cls: str, field: str, before: Value, after: Value) -> None:
    """Only what changed: a value that stands there from before does not keep others from being set."""
    from hostagent.net import keys

    if isinstance(before, dict) and isinstance(after, dict):
        changed = {key: str(value) for key, value in after.items() if before.get(key) != value}
        getattr(keys, CHECKED[cls, field])(changed)


def _writer(change: Callable[..., object]) -> Callable[[str, str, Database], Run]:
    """The makers of messages that change one field, by the method of Transaction that they call."""

    def make(cls: str, field: str, database: Database) -> Run:
        def write(ref: str, *given: Value) -> str:
            with database.write() as transaction:
                before = transaction.get(cls, ref, field) if (cls, field) in CHECKED else None
                change(transaction, cls, ref, field, *given)
                if before is not None:
                    _check(cls, field, before, transaction.get(cls, ref, field))
            return ""

        return write

    return make


MAKERS: dict[str, Callable[[str, str, Database], Run]] = {
    "get_": _getter,
    "set_": _writer(Transaction.set),
    "add_to_": _writer(Transaction.add_to_map),
    "remove_from_": _writer(Transaction.remove_from_map),
    "add_": _writer(Transaction.add_to_set),
    "remove_": _writer(Transaction.remove_from_set),
}


def _object(items: Iterator[tuple[str, str]]) -> str:
    """References and record texts as one JSON object. References need no escapes: we made them, or `fit` did."""
    return "{" + ",".join(f"{_quoted(ref)}:{text}" for ref, text in items) + "}"


def _quoted(ref: str) -> str:
    if '"' in ref or "\\" in ref or not ref.isprintable():
        import json

        return json.dumps(ref)
    return f'"{ref}"'
