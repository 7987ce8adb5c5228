"""Steps that start what goes on while the daemon runs: the scheduler and its jobs, and who is told of changes."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from hostagent.db.errors import DatabaseError
from hostagent.dbsync import dom0
from hostagent.dbsync import host as own
from hostagent.startup.step import Context, Outcome, Skipped, Unchanged
from hostagent.startup.steps_db import database_of, facts_of, now, without_records

if TYPE_CHECKING:
    from hostagent.db.copies import Copies
    from hostagent.db.database import Database
    from hostagent.dbsync.change import Change as RowChange
    from hostagent.hostinfo.facts import Facts

log = logging.getLogger(__name__)

COLLECT_PERIOD_S = 30.0
COPY_PERIOD_S = 300.0
MEASURE_PERIOD_S = 5.0


def start_scheduler(context: Context) -> Outcome:
    """S25. Start the thread for periodic jobs. Its first: forget sessions and tasks that nobody uses any more; keep the
    other databases of db.conf up to date.
    """
    from hostagent.api import retention
    from hostagent.db.copies import Copies
    from hostagent.scheduler import Scheduler

    host = context.host
    if host.hooks is None:
        return Skipped("only the daemon has periodic jobs")
    core = host.hooks.api.core
    core.sessions.idle_s = context.config.session_idle_s
    host.scheduler = host.scheduler or Scheduler()
    host.scheduler.every("forget", retention.PERIOD_S, lambda: retention.forget(core, now()))
    if host.database is not None and len(host.connections) > 1:
        copies = Copies(host.database, host.connections[:-1])
        host.scheduler.every("copy the database", COPY_PERIOD_S, lambda: write_copies(copies), first_s=0)
    host.scheduler.start()
    return Unchanged(f"jobs: {', '.join(host.scheduler.names)}")


def write_copies(copies: Copies) -> None:
    """Bring every copy up to date that is behind. Raises DatabaseError of the first one that failed, after all."""
    failed: DatabaseError | None = None
    for connection in copies.due():
        try:
            copies.write(connection)
        except DatabaseError as error:
            failed = failed or error
    if failed:
        raise failed


def start_collection(context: Context) -> Outcome:
    """S29. Look for references that lead nowhere every 30 s, and mend them."""
    if context.host.scheduler is None:
        return Skipped("only the daemon has periodic jobs")
    database = database_of(context)
    context.host.scheduler.every("collect", COLLECT_PERIOD_S, Collector(database).run)
    return Unchanged(f"every {COLLECT_PERIOD_S:g} s")


class Collector:
    """Mends the database where something has changed since it last looked."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._looked_at = -1

    def run(self) -> int:
        """How much was mended. Looking holds up no writer."""
        from hostagent.db.collect import check, collect

        if self._database.generation == self._looked_at:
            return 0
        with self._database.read() as view:
            findings = check(view, self._database.model)
            looked_at = view.generation
        if findings:
            with self._database.write() as transaction:
                findings = collect(transaction, self._database.model)
            for finding in findings:
                log.info("collected: %s", finding)
        self._looked_at = looked_at
        return len(findings)


def start_change_notifier(context: Context) -> Outcome:
    """S36. From here on every change of the database is told to those who wait for events; who comes with the token of
    an earlier generation hears of what came after that.
    """
    if context.host.hooks is None:
        return Skipped("only the daemon has clients who wait for events")
    database = database_of(context)
    context.host.hooks.api.start_events()
    return Unchanged(f"from generation {database.generation}")


def start_measurements(context: Context) -> Outcome:
    """S38. Every 5 s look at Xen's memory, and write what moved."""
    host = context.host
    if skipped := without_records(context):
        return skipped
    if host.scheduler is None:
        return Skipped("only the daemon has periodic jobs")
    database, facts = database_of(context), facts_of(context)
    if facts.xen is None or facts.xen.binding is None:
        return Skipped("the hypervisor cannot be asked")
    host.scheduler.every("measure memory", MEASURE_PERIOD_S, lambda: measure(database, facts))
    return Unchanged(f"every {MEASURE_PERIOD_S:g} s")


def measure(database: Database, facts: Facts) -> int:
    """Write the memory that is free now, and dom0's; how many fields that changed.

    Raises BindingError, RefusedError, DatabaseError.
    """
    from hostagent.hostinfo.facts import KIB
    from hostagent.xen import hypercall

    machine, control = hypercall.host(), hypercall.domain(0)
    with database.write() as transaction:
        host, vm = own.find(transaction, facts), dom0.find(transaction, facts)
        changes: list[RowChange] = []
        if host is not None:
            changes += own.free_memory(transaction, host, (machine.free_kib + machine.scrub_kib) * KIB, now())
        if vm is not None:
            changes += dom0.actual_memory(transaction, vm, control.mem_kib * KIB, now())
    return len(changes)
