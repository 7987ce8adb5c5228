# mypy: disable-error-code="union-attr,attr-defined,arg-type,index,operator"
# each test knows which outcome it has
"""The steps that start the daemon's jobs, and the jobs, on a fabricated host."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from hostagent.db.copies import Copies
from hostagent.db.errors import DatabaseError
from hostagent.startup import steps_db, steps_jobs
from hostagent.startup.state import HostState
from hostagent.startup.step import Skipped, Unchanged
from hostagent.xen import hypercall
from tests.pure.host_samples import DOM0_UUID, MIB
from tests.pure.host_samples import facts as sample
from tests.pure.startup_database import rows
from tests.pure.startup_tree import Hooks, context_of, put


def test_only_the_daemon_has_jobs(synced):
    for step in (steps_jobs.start_scheduler, steps_jobs.start_collection, steps_jobs.start_measurements):
        assert isinstance(step(synced), Skipped)


def test_the_daemons_jobs_are_there(synced):
    synced.host.hooks = Hooks()
    steps_jobs.start_scheduler(synced)
    steps_jobs.start_collection(synced)
    steps_jobs.start_measurements(synced)

    assert set(synced.host.scheduler.names) == {"forget", "collect", "measure memory"}


def test_how_long_an_idle_session_lives_is_a_setting(paths):
    context = context_of(paths, HostState(hooks=Hooks()), session_idle_s=5)
    steps_jobs.start_scheduler(context)
    context.host.scheduler.stop()

    assert context.host.hooks.api.core.sessions.idle_s == 5


def test_other_databases_are_kept_up_to_date(paths, host, synced):
    copy, lost = paths.state / "copy.db", paths.state / "none/lost.db"
    put(paths.db_conf, f"[{lost}]\n\n[{copy}]\n\n[{paths.database}]\n")
    steps_db.read_db_conf(synced)
    copies = Copies(host.database, host.connections[:-1])

    with pytest.raises(DatabaseError, match="lost"):
        steps_jobs.write_copies(copies)

    assert [connection.path for connection in copies.due()] == [lost]
    assert copy.exists()


def test_a_daemon_with_other_databases_copies_at_once(paths, host, synced, monkeypatch):
    copy, copied, write = paths.state / "copy.db", threading.Event(), steps_jobs.write_copies

    def noted(copies):
        write(copies)
        copied.set()

    monkeypatch.setattr(steps_jobs, "write_copies", noted)
    put(paths.db_conf, f"[{copy}]\n\n[{paths.database}]\n")
    steps_db.read_db_conf(synced)
    host.hooks = Hooks()

    assert "copy the database" in steps_jobs.start_scheduler(synced).note

    assert copied.wait(30)
    assert copy.exists()


def test_the_collector_looks_only_where_something_changed(synced, monkeypatch):
    database = synced.host.database
    collector = steps_jobs.Collector(database)
    assert collector.run() == 0
    with database.write() as w:
        w.destroy("VM", w.by_uuid("VM", DOM0_UUID))

    assert collector.run() == 2
    assert rows(synced)["VM_metrics"] == {}
    assert collector.run() == 0
    monkeypatch.setattr("hostagent.db.collect.check", None)
    assert collector.run() == 0


def test_changes_are_told_to_clients_of_the_daemon(started):
    assert isinstance(steps_jobs.start_change_notifier(started), Skipped)

    started.host.hooks = Hooks()
    assert isinstance(steps_jobs.start_change_notifier(started), Unchanged)

    assert started.host.hooks.api.told == ["events"]


def test_moved_memory_is_measured(synced, monkeypatch):
    machine = SimpleNamespace(free_kib=800 * 1024, scrub_kib=1024)
    monkeypatch.setattr(hypercall, "host", lambda: machine)
    monkeypatch.setattr(hypercall, "domain", lambda _: SimpleNamespace(mem_kib=1024 * 1024))

    assert steps_jobs.measure(synced.host.database, sample()) > 0
    assert steps_jobs.measure(synced.host.database, sample()) == 0
    found = rows(synced)
    assert [row["memory_free"] for row in found["host_metrics"].values()] == [801 * MIB]
    assert [row["memory_actual"] for row in found["VM_metrics"].values()] == [1024 * MIB]


def test_a_host_whose_hypervisor_cannot_be_asked_measures_nothing(synced):
    synced.host.hooks = Hooks()
    steps_jobs.start_scheduler(synced)
    synced.host.facts = sample(xen=None)

    assert isinstance(steps_jobs.start_measurements(synced), Skipped)
