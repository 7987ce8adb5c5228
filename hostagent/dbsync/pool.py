"""What the coordinator does for the whole pool: its record, root, halted VMs, tasks of an earlier run, HA, licence
(S22, S30, S34; S28 m1, m2, m5, m6).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.db import model
from hostagent.db.datatype import NULL_REF, stamp
from hostagent.dbsync.change import Change, make, put
from hostagent.dbsync.dom0 import find as find_dom0
from hostagent.dbsync.host import localhost
from hostagent.hostinfo import licence, records

if TYPE_CHECKING:
    import datetime as dt

    from hostagent.db.datatype import Value
    from hostagent.db.transaction import Transaction
    from hostagent.db.view import View
    from hostagent.hostinfo.facts import Facts

UNFINISHED = ("pending", "cancelling")
OF_HALTED: dict[str, dict[str, object]] = {
    "VM": {
        "resident_on": NULL_REF,
        "scheduled_to_be_resident_on": NULL_REF,
        "domid": records.NO_DOMAIN,
        "requires_reboot": False,
    },
    "VBD": {"currently_attached": False, "reserved": False, "current_operations": {}},
    "VIF": {"currently_attached": False, "reserved": False, "current_operations": {}},
    "VGPU": {"currently_attached": False, "resident_on": NULL_REF},
    "VUSB": {"currently_attached": False, "current_operations": {}},
}
"""Class → what its objects have while their VM is halted."""
NO_POOLING = "LICENSE_DOES_NOT_SUPPORT_POOLING"
NO_POOLING_PRIORITY = 2


def hosts_disabled(transaction: Transaction) -> list[Change]:
    """S22. No host takes guests until its start-up has come to its end."""
    return [
        change
        for ref in transaction.refs("host")
        for change in put(transaction, "host", ref, {"enabled": False})
    ]


def root_user(transaction: Transaction) -> list[Change]:
    """m1. The user root."""
    if transaction.where("user", short_name=records.ROOT_USER["short_name"]):
        return []
    return [make(transaction, "user", records.ROOT_USER)[1]]


def record_exists(transaction: Transaction, facts: Facts) -> list[Change]:
    """m2. There is a pool, this host is its coordinator, and it knows the processors of all its hosts."""
    host = localhost(transaction, facts)
    changes: list[Change] = []
    if not transaction.refs("pool"):
        changes.append(
            make(transaction, "pool", {**records.first_pool(licence.features()), "master": host})[1]
        )
    pool = transaction.refs("pool")[0]
    processors = [
        {key: str(value) for key, value in record["cpu_info"].items()}
        for ref, record in sorted(transaction.records("host"), key=lambda found: found[0] != host)
        if isinstance(record["cpu_info"], dict) and record["cpu_info"]
    ]
    values: dict[str, object] = {"master": host, "cpu_info": records.pool_cpu_info(processors)}
    return [*changes, *put(transaction, "pool", pool, values)]


def halted_vms(transaction: Transaction) -> list[Change]:
    """m5. What a VM has only while it runs is cleared for those that do not; nothing is reserved for anybody."""
    changes: list[Change] = []
    halted = set()
    for ref, record in list(transaction.records("VM")):
        if record["power_state"] == "Halted":
            halted.add(ref)
            changes += _differing(transaction, "VM", ref, record, OF_HALTED["VM"])
    for cls in ("VBD", "VIF", "VGPU", "VUSB"):
        for ref, record in list(transaction.records(cls, internal=True)):
            if record["VM"] in halted:
                changes += _differing(transaction, cls, ref, record, OF_HALTED[cls])
    for cls, field in (("VGPU", "scheduled_to_be_resident_on"), ("PCI", "scheduled_to_be_attached_to")):
        for ref, record in list(transaction.records(cls, internal=True)):
            changes += _differing(transaction, cls, ref, record, {field: NULL_REF})
    return changes


def _differing(
    transaction: Transaction, cls: str, ref: str, record: dict[str, Value], values: dict[str, object]
) -> list[Change]:
    """`put`, at no cost for an object that has all of it: there may be ten thousand."""
    if all(record[name] == value for name, value in values.items()):
        return []
    return put(transaction, cls, ref, values)


def old_tasks(transaction: Transaction, now: dt.datetime, *, opened_at: int | None = None) -> list[Change]:
    """m6. Nobody works on the tasks of an earlier run: they are cancelled, and no object is in their hands. What was
    made after generation `opened_at` is of this run: clients can begin tasks before start-up comes to this.
    """
    changes: list[Change] = []
    cancelled = set()
    for ref, record, made, _ in list(transaction.dated_records("task")):
        if record["status"] in UNFINISHED and (opened_at is None or made <= opened_at):
            cancelled.add(ref)
            changes += put(transaction, "task", ref, {"status": "cancelled", "finished": stamp(now)})
    return [*changes, *_released(transaction, cancelled)] if cancelled else []


def _released(transaction: Transaction, tasks: set[str]) -> list[Change]:
    changes: list[Change] = []
    classes = (cls.name for cls in model.load().classes.values() if cls.in_database)
    for cls in (name for name in classes if "current_operations" in model.load().cls(name).fields):
        for ref, record in list(transaction.records(cls)):
            operations = record["current_operations"]
            if isinstance(operations, dict) and tasks & operations.keys():
                kept = {task: doing for task, doing in operations.items() if task not in tasks}
                changes += put(transaction, cls, ref, {"current_operations": kept})
    return changes


def licence_alert(transaction: Transaction, facts: Facts, now: dt.datetime) -> list[Change]:
    """S30. A message to the operator, once, when the licence forbids a pool of more than one host and there is one."""
    pools = list(transaction.records("pool"))
    if not pools or len(transaction.refs("host")) < 2:
        return []
    restrictions = pools[0][1]["restrictions"]
    if not isinstance(restrictions, dict) or not licence.forbids_pooling(
        {key: str(value) for key, value in restrictions.items()}
    ):
        return []
    about: dict[str, object] = {
        "name": NO_POOLING,
        "cls": "Host",
        "obj_uuid": facts.host_uuid,
        "priority": NO_POOLING_PRIORITY,
    }
    if transaction.where("message", name=NO_POOLING, obj_uuid=facts.host_uuid):
        return []
    return [make(transaction, "message", {**about, "timestamp": stamp(now), "body": ""})[1]]


def ha_enabled(view: View) -> bool:
    """Whether the pool's record says that HA is on."""
    return any(record["ha_enabled"] is True for _, record in view.records("pool"))


def ha_off(transaction: Transaction) -> list[Change]:
    """S34. The pool's record says that HA is off."""
    return [
        change
        for ref in transaction.refs("pool")
        for change in put(transaction, "pool", ref, {"ha_enabled": False})
    ]


def dom0_runs(transaction: Transaction, facts: Facts) -> list[Change]:
    """S34. dom0 runs: who reads this database runs in it."""
    ref = find_dom0(transaction, facts)
    return [] if ref is None else put(transaction, "VM", ref, {"power_state": "Running"})
