"""The control domain's VM record and its measurements (S28 s8). It gets no console: nothing serves dom0's display."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from hostagent.db.datatype import stamp
from hostagent.db.errors import UuidInvalidError
from hostagent.dbsync.change import Change, make, put
from hostagent.dbsync.host import MEMORY_STEP, localhost
from hostagent.hostinfo import records

if TYPE_CHECKING:
    from hostagent.db.transaction import Transaction
    from hostagent.db.view import View
    from hostagent.hostinfo.facts import Facts

SIZES = (
    "memory_target",
    "memory_static_max",
    "memory_dynamic_max",
    "memory_dynamic_min",
    "memory_static_min",
)


def find(view: View, facts: Facts) -> str | None:
    """The reference of this host's dom0, None while it has no record."""
    try:
        return view.by_uuid("VM", facts.dom0_uuid)
    except UuidInvalidError:
        return None


def record_exists(transaction: Transaction, facts: Facts, now: dt.datetime) -> list[Change]:
    """s8. dom0 runs on this host, has its memory and processors, and the host names it."""
    host = localhost(transaction, facts)
    place = {"resident_on": host, "affinity": host}
    ref = find(transaction, facts)
    if ref is None:
        ref, made = make(transaction, "VM", {**records.first_dom0(facts), **place})
        changes = [made]
    else:
        changes = put(transaction, "VM", ref, {**_fields(transaction, ref, facts), **place})
    changes += _metrics(transaction, ref, facts, now)
    return [*changes, *put(transaction, "host", host, {"control_domain": ref})]


def _fields(view: View, ref: str, facts: Facts) -> dict[str, object]:
    fields = records.dom0(facts)
    if not facts.memory.dom0:  # better the last known sizes than none
        fields = {name: value for name, value in fields.items() if name not in SIZES}
    elif isinstance(least := view.get("VM", ref, "memory_static_min"), int):
        fields["memory_static_min"] = least if 0 < least <= facts.memory.dom0 else facts.memory.dom0
    return fields


def _metrics(transaction: Transaction, ref: str, facts: Facts, now: dt.datetime) -> list[Change]:
    started = stamp(dt.datetime.fromtimestamp(facts.system.boot_time, dt.UTC))
    values = records.dom0_metrics(facts, started)
    metrics = str(transaction.get("VM", ref, "metrics"))
    if not transaction.exists("VM_metrics", metrics):
        metrics, made = make(
            transaction, "VM_metrics", {**values, "install_time": stamp(now), "last_updated": stamp(now)}
        )
        return [made, *put(transaction, "VM", ref, {"metrics": metrics})]
    changes = put(transaction, "VM_metrics", metrics, values)
    if changes:
        transaction.set("VM_metrics", metrics, "last_updated", stamp(now))
    return changes


def actual_memory(transaction: Transaction, vm: str, actual: int, now: dt.datetime) -> list[Change]:
    """S38. Bytes that a domain has, written when they moved by MEMORY_STEP."""
    metrics = str(transaction.get("VM", vm, "metrics"))
    if not transaction.exists("VM_metrics", metrics):
        return []
    before = transaction.get("VM_metrics", metrics, "memory_actual")
    if isinstance(before, int) and abs(before - actual) < MEMORY_STEP:
        return []
    return put(transaction, "VM_metrics", metrics, {"memory_actual": actual, "last_updated": stamp(now)})
