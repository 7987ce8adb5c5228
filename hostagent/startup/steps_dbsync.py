"""The steps of S28 that need neither networks nor storage, one per item, and the licence (S9, S30).

Each is a row of its own, so that one that fails does not stop the others. An operator skips one of a host's items with
`Pool.other_config:KEY=nosync` (startup-and-pool-join.md S28).
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

from hostagent.db import local
from hostagent.dbsync import dom0, pool
from hostagent.dbsync import host as own
from hostagent.files import FileError, read_bounded, write_atomic
from hostagent.startup.state import unknown
from hostagent.startup.step import Change, Changed, Context, Outcome, Skipped, Unchanged
from hostagent.startup.steps_db import (
    database_of,
    facts_of,
    now,
    plan_rows,
    to_plan_on,
    without_records,
    write_rows,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from hostagent.db.transaction import Transaction
    from hostagent.db.view import View
    from hostagent.dbsync.change import Change as RowChange

NOSYNC = "nosync"
CREATE_LOCALHOST = "sync_create_localhost"
REFRESH_INFO = "sync_refresh_localhost_info"
RECORD_MEMORY = "sync_record_host_memory_properties"
CREATE_CPUS = "sync_create_host_cpu"
CREATE_DOM0 = "sync_create_domain_zero"
BOOT_MEMORY_LIMIT_BYTES = 64


def _skipped(view: View, key: str) -> bool:
    configs = (record["other_config"] for _, record in view.records("pool"))
    return any(isinstance(config, dict) and config.get(key) == NOSYNC for config in configs)


def _run(context: Context, work: Callable[[Transaction], list[RowChange]], key: str = "") -> Outcome:
    if key and not without_records(context):
        with database_of(context).read() as view:
            if _skipped(view, key):
                return Skipped(f"the pool's other_config has {key}={NOSYNC}")
    return write_rows(context, work)


def _plan(
    context: Context, work: Callable[[Transaction], list[RowChange]], key: str = ""
) -> tuple[Change, ...]:
    def unless_skipped(transaction: Transaction) -> list[RowChange]:
        return [] if key and _skipped(transaction, key) else work(transaction)

    return plan_rows(context, unless_skipped)


# S9, S30


def _licence(context: Context) -> Callable[[Transaction], list[RowChange]]:
    facts, moment = facts_of(context), now()
    return lambda transaction: [
        *own.licensed(transaction, facts),
        *pool.licence_alert(transaction, facts, moment),
    ]


def write_licence(context: Context) -> Outcome:
    """S9. The host has the free edition; a message when a licence forbids the pool that there is (S28 s6, S30)."""
    return _run(context, _licence(context))


def plan_licence(context: Context) -> tuple[Change, ...]:
    return _plan(context, _licence(context))


# S28, this host


def _metrics(context: Context) -> Callable[[Transaction], list[RowChange]]:
    facts, moment = facts_of(context), now()
    return lambda transaction: own.metrics_exist(transaction, facts, moment)


def make_host_metrics(context: Context) -> Outcome:
    """S28.m9. Every host has its measurements."""
    return _run(context, _metrics(context))


def plan_host_metrics(context: Context) -> tuple[Change, ...]:
    return _plan(context, _metrics(context))


def _localhost(context: Context) -> Callable[[Transaction], list[RowChange]]:
    facts, moment = facts_of(context), now()
    return lambda transaction: own.record_exists(transaction, facts, moment)


def make_localhost(context: Context) -> Outcome:
    """S28.s1. This host has a record."""
    return _run(context, _localhost(context), CREATE_LOCALHOST)


def plan_localhost(context: Context) -> tuple[Change, ...]:
    return _plan(context, _localhost(context), CREATE_LOCALHOST)


def find_localhost(context: Context) -> Outcome:
    """S28.s2. The record of this host is there. Raises BugError when it is not."""
    if skipped := without_records(context):
        return skipped
    with database_of(context).read() as view:
        return Unchanged(own.localhost(view, facts_of(context)))


def _info(context: Context) -> Callable[[Transaction], list[RowChange]]:
    facts, certificate = facts_of(context), context.host.certificate
    on_system_boot = context.host.on_system_boot

    def work(transaction: Transaction) -> list[RowChange]:
        served = own.certificate(transaction, facts, certificate) if certificate else []
        done = own.guidance_done(transaction, facts, on_system_boot=on_system_boot)
        return [*own.info(transaction, facts), *served, *done]

    return work


def refresh_info(context: Context) -> Outcome:
    """S28.s4. Versions, capabilities, names, start times, the certificate that is served, and what an update asked for
    that this start has done. Warns of what could not be found out.
    """
    outcome = _run(context, _info(context), REFRESH_INFO)
    if isinstance(outcome, Changed | Unchanged):
        return dataclasses.replace(outcome, warnings=facts_of(context).warnings)
    return outcome


def plan_info(context: Context) -> tuple[Change, ...]:
    return _plan(context, _info(context), REFRESH_INFO)


def _memory(context: Context) -> Callable[[Transaction], list[RowChange]]:
    from hostagent.hostinfo.facts import as_at_boot

    facts, moment = facts_of(context), now()
    if boot_free := _seen_at_boot(context):
        facts = dataclasses.replace(facts, memory=as_at_boot(facts.memory, boot_free))
    return lambda transaction: own.memory(transaction, facts, moment)


def _seen_at_boot(context: Context) -> int | None:
    """What was free when it was first looked at in this boot, in bytes; None when it has not been."""
    try:
        text = read_bounded(context.config.paths.boot_memory, limit_bytes=BOOT_MEMORY_LIMIT_BYTES)
    except FileError:
        return None
    return int(text) if re.fullmatch(rb"[1-9]\d{0,17}\n?", text) else None


def _seen_first(context: Context) -> tuple[Change, ...]:
    """The figure to keep for the rest of this boot."""
    found = facts_of(context).memory.boot_free
    if not found or _seen_at_boot(context) or without_records(context):
        return ()
    return (Change(str(context.config.paths.boot_memory), None, str(found)),)


def record_memory(context: Context) -> Outcome:
    """S28.s5. The machine's memory, what was free at boot, what Xen keeps. What was free at boot is looked at once per
    boot (RUN/boot_time_memory), whatever the record says: it may be that of an earlier boot.

    Raises FileError.
    """
    outcome = _run(context, _memory(context), RECORD_MEMORY)
    if isinstance(outcome, Skipped) or not (seen := _seen_first(context)):
        return outcome
    write_atomic(context.config.paths.boot_memory, f"{seen[0].new}\n", mode=0o644)
    context.hold("figure-kept")
    rows = outcome.changes if isinstance(outcome, Changed) else ()
    return Changed((*rows, *seen))


def plan_memory(context: Context) -> tuple[Change, ...]:
    rows, seen = _plan(context, _memory(context), RECORD_MEMORY), _seen_first(context)
    if not seen:
        return rows
    with to_plan_on(context).read() as view:
        return rows if _skipped(view, RECORD_MEMORY) else (*rows, *seen)


def _processors(context: Context) -> Callable[[Transaction], list[RowChange]]:
    facts = facts_of(context)
    return lambda transaction: own.processors(transaction, facts)


def record_processors(context: Context) -> Outcome:
    """S28.s7. The processors."""
    return _run(context, _processors(context), CREATE_CPUS)


def plan_processors(context: Context) -> tuple[Change, ...]:
    return _plan(context, _processors(context), CREATE_CPUS)


def _dom0(context: Context) -> Callable[[Transaction], list[RowChange]]:
    facts, moment = facts_of(context), now()
    return lambda transaction: dom0.record_exists(transaction, facts, moment)


def record_dom0(context: Context) -> Outcome:
    """S28.s8. The control domain."""
    return _run(context, _dom0(context), CREATE_DOM0)


def plan_dom0(context: Context) -> tuple[Change, ...]:
    return _plan(context, _dom0(context), CREATE_DOM0)


# S28, the pool


def make_root_user(context: Context) -> Outcome:
    """S28.m1. The user root."""
    return _run(context, pool.root_user)


def plan_root_user(context: Context) -> tuple[Change, ...]:
    return _plan(context, pool.root_user)


def _pool(context: Context) -> Callable[[Transaction], list[RowChange]]:
    facts = facts_of(context)
    return lambda transaction: pool.record_exists(transaction, facts)


def record_pool(context: Context) -> Outcome:
    """S28.m2. The pool, whose coordinator this host is."""
    return _run(context, _pool(context))


def plan_pool(context: Context) -> tuple[Change, ...]:
    return _plan(context, _pool(context))


def _address(context: Context) -> Callable[[Transaction], list[RowChange]]:
    facts = facts_of(context)
    return lambda transaction: own.address(transaction, facts)


def record_address(context: Context) -> Outcome:
    """S28.m3. The coordinator's address."""
    return _run(context, _address(context))


def plan_address(context: Context) -> tuple[Change, ...]:
    return _plan(context, _address(context))


def clean_halted_vms(context: Context) -> Outcome:
    """S28.m5. Halted VMs hold nothing."""
    return _run(context, pool.halted_vms)


def plan_halted_vms(context: Context) -> tuple[Change, ...]:
    return _plan(context, pool.halted_vms)


def _tasks(context: Context) -> Callable[[Transaction], list[RowChange]]:
    moment, opened_at = now(), context.host.opened_at
    return lambda transaction: pool.old_tasks(transaction, moment, opened_at=opened_at)


def cancel_old_tasks(context: Context) -> Outcome:
    """S28.m6. Tasks of an earlier run are cancelled."""
    return _run(context, _tasks(context))


def plan_old_tasks(context: Context) -> tuple[Change, ...]:
    return _plan(context, _tasks(context))


# the end


def enable_host(context: Context) -> Outcome:
    """5.5. The last word of start-up about the host: it takes guests, unless something forbids that
    (startup-and-pool-join.md 5.5). Every start begins with it disabled (S22).
    """
    if skipped := without_records(context):
        return skipped
    reasons = _forbidding(context)
    if reasons:
        return Unchanged(f"the host stays disabled: {'; '.join(reasons)}")
    return _run(context, lambda transaction: own.enabled(transaction, facts_of(context)))


def plan_enable_host(context: Context) -> tuple[Change, ...]:
    """What `enable_host` would change."""

    def unless_forbidden(transaction: Transaction) -> list[RowChange]:
        return [] if _forbidding(context, transaction) else own.enabled(transaction, facts_of(context))

    return _plan(context, unless_forbidden)


def _forbidding(context: Context, view: View | None = None) -> tuple[str, ...]:
    """Why the host must stay disabled; none when it may take guests."""
    store = context.host.local
    if store is None:
        raise unknown("the local database", "open-local-database")
    reasons = list(context.host.blockers)
    if not store.get(local.HOST_AUTO_ENABLE):
        reasons.append("an operator disabled it for good (host_auto_enable is false)")
    if store.get(local.HOST_DISABLED_UNTIL_REBOOT):
        reasons.append("an operator disabled it until the next reboot")
    if view is None:
        with database_of(context).read() as snapshot:
            pending = own.guidance_pending(snapshot, facts_of(context))
    else:
        pending = own.guidance_pending(view, facts_of(context))
    if pending:
        reasons.append("an update asks for something first (pending_guidances)")
    return tuple(reasons)
