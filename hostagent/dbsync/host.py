"""This host's own records: host, host_metrics, host_cpu, its certificate and licence (S9; S28 s1, s2, s4, s5, s7, m3,
m9).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.db.datatype import NULL_REF, stamp
from hostagent.db.errors import UuidInvalidError
from hostagent.dbsync.change import Change, destroy, make, put, put_keys
from hostagent.errors import BugError
from hostagent.hostinfo import licence, records

if TYPE_CHECKING:
    import datetime as dt

    from hostagent.api.certificate import Certificate
    from hostagent.db.transaction import Transaction
    from hostagent.db.view import View
    from hostagent.hostinfo.facts import Facts

MEMORY_STEP = 1 << 20
"""Measurements of memory are written when they moved by this many bytes: each write is a durable one."""


GUIDANCES = ("pending_guidances", "pending_guidances_recommended", "pending_guidances_full")
"""What updates ask for: before the host takes guests, soon, and at all."""


def find(view: View, facts: Facts) -> str | None:
    """The reference of this host, None while it has no record."""
    try:
        return view.by_uuid("host", facts.host_uuid)
    except UuidInvalidError:
        return None


def localhost(view: View, facts: Facts) -> str:
    """s2. The reference of this host. Raises BugError while it has no record."""
    found = find(view, facts)
    if found is None:
        raise BugError(
            f"the database has no host {facts.host_uuid}",
            hint="the start-up step that makes it has failed; its error says why",
        )
    return found


def metrics_exist(transaction: Transaction, facts: Facts, now: dt.datetime) -> list[Change]:
    """m9. Every host has its measurements, and this one is alive."""
    changes: list[Change] = []
    for ref, record in list(transaction.records("host")):
        ours = record["uuid"] == facts.host_uuid
        metrics = str(record["metrics"])
        if not transaction.exists("host_metrics", metrics):
            made, change = make(
                transaction, "host_metrics", {"live": ours, "memory_total": 0, "last_updated": stamp(now)}
            )
            changes += [change, *put(transaction, "host", ref, {"metrics": made})]
        elif ours:
            changes += _measure(transaction, metrics, {"live": True}, now)
    return changes


def record_exists(transaction: Transaction, facts: Facts, now: dt.datetime) -> list[Change]:
    """s1. This host has a record; one that has just joined its own database is not enabled yet."""
    if find(transaction, facts) is not None:
        return []
    measured = {**records.host_metrics(facts), "last_updated": stamp(now)}
    metrics, made_metrics = make(transaction, "host_metrics", measured)
    _, made = make(transaction, "host", {**records.first_host(facts), "metrics": metrics})
    return [made_metrics, made]


def info(transaction: Transaction, facts: Facts) -> list[Change]:
    """s4. Versions, name, what Xen can do, when the machine and the agent started."""
    ref = localhost(transaction, facts)
    changes = put(transaction, "host", ref, records.host(facts))
    return [*changes, *put_keys(transaction, "host", ref, "other_config", records.host_times(facts))]


def memory(transaction: Transaction, facts: Facts, now: dt.datetime) -> list[Change]:
    """s5. The machine's memory, what was free at boot and what Xen keeps; nothing for what is not known."""
    ref = localhost(transaction, facts)
    found = facts.memory
    of_boot = {"boot_free_mem": found.boot_free, "memory_overhead": found.overhead} if found.boot_free else {}
    measured: dict[str, object] = {"memory_total": found.total} if found.total else {}
    return [
        *put(transaction, "host", ref, of_boot),
        *_measure(transaction, str(transaction.get("host", ref, "metrics")), measured, now),
        *free_memory(transaction, ref, found.free, now),
    ]


def free_memory(transaction: Transaction, host: str, free: int, now: dt.datetime) -> list[Change]:
    """s5 and S38. Bytes that Xen has free, written when they moved by MEMORY_STEP."""
    metrics = str(transaction.get("host", host, "metrics"))
    before = transaction.get("host_metrics", metrics, "memory_free")
    if isinstance(before, int) and (abs(before - free) < MEMORY_STEP or free == 0):
        return []
    return _measure(transaction, metrics, {"memory_free": free}, now)


def processors(transaction: Transaction, facts: Facts) -> list[Change]:
    """s7. host.cpu_info, and one host_cpu for each logical processor; a row keeps its reference."""
    ref = localhost(transaction, facts)
    changes = put(transaction, "host", ref, {"cpu_info": records.cpu_info(facts)})
    wanted = dict(enumerate(records.host_cpus(facts)))
    for row, record in list(transaction.records("host_cpu")):
        if record["host"] != ref:
            continue
        values = wanted.pop(record["number"], None) if isinstance(record["number"], int) else None
        if values is None:  # not there any more, or a second one of that number
            changes.append(destroy(transaction, "host_cpu", row))
        else:
            changes += put(transaction, "host_cpu", row, values)
    for values in wanted.values():
        changes.append(make(transaction, "host_cpu", {**values, "host": ref})[1])
    return changes


def address(transaction: Transaction, facts: Facts) -> list[Change]:
    """m3. The address of the management interface, empty while there is none."""
    return put(transaction, "host", localhost(transaction, facts), {"address": facts.address})


def licensed(transaction: Transaction, facts: Facts) -> list[Change]:
    """S9. The free edition, with nothing restricted; the pool's restrictions follow from all hosts."""
    changes = put(transaction, "host", localhost(transaction, facts), licence.of_host())
    params = [record["license_params"] for _, record in transaction.records("host")]
    restrictions = licence.of_pool(
        [{key: str(value) for key, value in one.items()} for one in params if isinstance(one, dict)]
    )
    for pool in transaction.refs("pool"):
        changes += put(transaction, "pool", pool, {"restrictions": restrictions})
    return changes


def certificate(transaction: Transaction, facts: Facts, own: Certificate) -> list[Change]:
    """The host has one Certificate record of type `host`: that of the certificate it serves now."""
    ref = localhost(transaction, facts)
    values = {
        "name": "",
        "type": "host",
        "host": ref,
        "not_before": stamp(own.not_before),
        "not_after": stamp(own.not_after),
        "fingerprint": own.sha256,
        "fingerprint_sha256": own.sha256,
        "fingerprint_sha1": own.sha1,
    }
    present = transaction.where("Certificate", host=ref, type="host")
    changes = [destroy(transaction, "Certificate", surplus) for surplus in present[1:]]
    if present:
        return [*changes, *put(transaction, "Certificate", present[0], values)]
    return [*changes, make(transaction, "Certificate", values)[1]]


def guidance_done(transaction: Transaction, facts: Facts, *, on_system_boot: bool) -> list[Change]:
    """With s4. What an update asked for and this start has done is asked for no longer: a start of the agent, and a
    reboot where this is the first start after one.
    """
    ref = localhost(transaction, facts)
    done = ("restart_toolstack", "reboot_host") if on_system_boot else ("restart_toolstack",)
    left: dict[str, object] = {}
    for field in GUIDANCES:
        asked = transaction.get("host", ref, field)
        left[field] = [one for one in asked if one not in done] if isinstance(asked, list) else asked
    return put(transaction, "host", ref, left)


def guidance_pending(view: View, facts: Facts) -> bool:
    """Whether an update asks for something to be done before the host may take guests."""
    return bool(view.get("host", localhost(view, facts), "pending_guidances"))


def enabled(transaction: Transaction, facts: Facts) -> list[Change]:
    """The host takes guests (startup-and-pool-join.md 5.5; the caller has made sure that it may)."""
    return put(transaction, "host", localhost(transaction, facts), {"enabled": True})


def _measure(
    transaction: Transaction, metrics: str, values: dict[str, object], now: dt.datetime
) -> list[Change]:
    """Put measurements; their time moves only when one of them does. Nothing for a host whose record is lost."""
    if metrics == NULL_REF or not transaction.exists("host_metrics", metrics):
        return []
    changes = put(transaction, "host_metrics", metrics, values)
    if changes:
        transaction.set("host_metrics", metrics, "last_updated", stamp(now))
    return changes
