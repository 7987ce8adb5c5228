# mypy: disable-error-code="union-attr,attr-defined,arg-type,index,operator"
# each test knows which outcome it has
"""The steps that bring the database up to date with a fabricated host: plan, effect, repetition."""

from __future__ import annotations

import dataclasses

import pytest

from hostagent.db import local
from hostagent.errors import BugError, OperatorError
from hostagent.startup import steps_db, steps_dbsync, steps_jobs
from hostagent.startup.role import supporter_of
from hostagent.startup.state import HostState
from hostagent.startup.step import Change, Changed, Skipped, Unchanged
from hostagent.startup.steps_pool import RANDOM_UUID
from tests.pure.host_samples import HOST_UUID
from tests.pure.host_samples import facts as sample
from tests.pure.startup_database import DBSYNC, FIRST, rows
from tests.pure.startup_tree import context_of, files_below

# --- dbsync ---


@pytest.mark.parametrize("order", range(len(DBSYNC)))
def test_each_item_does_what_its_plan_said_and_then_nothing(started, order):
    for run, _ in DBSYNC[:order]:
        run(started)
    run, plan = DBSYNC[order]
    before = rows(started)
    planned = plan(started)
    assert rows(started) == before

    outcome = run(started)

    assert getattr(outcome, "changes", ()) == planned
    assert plan(started) == ()
    assert isinstance(run(started), Unchanged)


def test_after_all_items_the_host_is_found(synced):
    with synced.host.database.read() as view:
        assert steps_dbsync.find_localhost(synced).note == view.by_uuid("host", HOST_UUID)


def test_a_host_without_a_record_is_not_found(started):
    with pytest.raises(BugError):
        steps_dbsync.find_localhost(started)


def test_a_held_step_has_written_its_rows(paths, host):
    held: list[str] = []
    context = context_of(paths, host, held=held)
    steps_db.start_database(context)
    steps_dbsync.make_root_user(context)
    steps_dbsync.make_root_user(context)

    assert held == ["database-opened", "rows-written", "rows-written"]


def test_an_operator_skips_an_item(synced):
    with synced.host.database.write() as w:
        w.add_to_map("pool", w.the_only("pool"), "other_config", "sync_create_host_cpu", "nosync")
        w.destroy("host_cpu", w.refs("host_cpu")[0])

    assert steps_dbsync.plan_processors(synced) == ()
    assert isinstance(steps_dbsync.record_processors(synced), Skipped)
    assert isinstance(steps_dbsync.refresh_info(synced), Unchanged)


def test_a_task_that_a_client_has_begun_meanwhile_goes_on(context):
    """Calls work from S22 on, and S28.m6 comes later."""
    steps_db.start_database(context)
    with context.host.database.write() as w:
        task = w.create("task", {"status": "pending"})

    assert steps_dbsync.plan_old_tasks(context) == ()
    assert isinstance(steps_dbsync.cancel_old_tasks(context), Unchanged)

    assert rows(context)["task"][task]["status"] == "pending"


def test_a_start_of_the_agent_is_what_an_update_asked_for(synced):
    synced.host.on_system_boot = False
    with synced.host.database.write() as w:
        w.set("host", w.refs("host")[0], "pending_guidances", ["restart_toolstack", "reboot_host"])

    planned = steps_dbsync.plan_info(synced)
    assert steps_dbsync.refresh_info(synced).changes == planned

    assert [record["pending_guidances"] for record in rows(synced)["host"].values()] == [["reboot_host"]]


def with_memory(context, boot_free_mib):
    context.host.facts = sample(
        memory=dataclasses.replace(sample().memory, boot_free=boot_free_mib << 20, estimate=True)
    )


def test_what_was_free_at_boot_is_looked_at_once_per_boot(synced, paths):
    """And not once per database: what the record says may be of an earlier boot, whose start was cut off."""
    exact = sample().memory.boot_free
    assert paths.boot_memory.read_text() == f"{exact}\n"

    with_memory(synced, 1000)  # guests run by now
    assert steps_dbsync.plan_memory(synced) == ()
    assert isinstance(steps_dbsync.record_memory(synced), Unchanged)

    paths.boot_memory.unlink()  # another boot
    planned = steps_dbsync.plan_memory(synced)
    assert steps_dbsync.record_memory(synced).changes == planned
    assert Change(f"host {HOST_UUID}.boot_free_mem", str(exact), str(1000 << 20)) in planned
    assert Change(str(paths.boot_memory), None, str(1000 << 20)) in planned

    with synced.host.database.write() as w:
        w.set("host", w.refs("host")[0], "boot_free_mem", 0)  # another database
    with_memory(synced, 900)
    steps_dbsync.record_memory(synced)
    (record,) = rows(synced)["host"].values()
    assert record["boot_free_mem"] == 1000 << 20
    assert record["memory_overhead"] == sample().memory.total - (1000 << 20) + (72 << 20)


@pytest.mark.parametrize("text", ["", "0", "many", "-5", "1" * 30])
def test_garbage_in_the_figure_of_this_boot_is_written_anew(synced, paths, text):
    paths.boot_memory.write_text(text)

    steps_dbsync.record_memory(synced)

    assert paths.boot_memory.read_text() == f"{sample().memory.boot_free}\n"


def test_the_memory_is_not_recorded_where_an_operator_skips_it(synced, paths):
    with synced.host.database.write() as w:
        w.add_to_map("pool", w.the_only("pool"), "other_config", steps_dbsync.RECORD_MEMORY, "nosync")
    paths.boot_memory.unlink()

    assert steps_dbsync.plan_memory(synced) == ()
    assert isinstance(steps_dbsync.record_memory(synced), Skipped)
    assert not paths.boot_memory.exists()


def test_what_could_not_be_found_out_is_a_warning_of_one_step(synced):
    synced.host.facts = sample(warnings=("no binding",))

    assert steps_dbsync.refresh_info(synced).warnings == ("no binding",)
    assert steps_dbsync.record_memory(synced).warnings == ()


def test_the_served_certificate_gets_its_record(started, one_key):
    steps_db.prepare_tls(started)
    steps_dbsync.make_localhost(started)
    steps_dbsync.refresh_info(started)

    (record,) = rows(started)["Certificate"].values()
    assert record["fingerprint_sha256"] == started.host.certificate.sha256


def test_without_a_database_a_step_names_the_one_that_opens_it(context):
    for run, plan in DBSYNC:
        with pytest.raises(OperatorError, match="database is not known"):
            run(context)
        with pytest.raises(OperatorError, match="database is not known"):
            plan(context)


def test_without_an_inventory_nothing_is_guessed(started):
    started.host.facts = started.host.inventory = None

    with pytest.raises(OperatorError, match="inventory is not known"):
        steps_dbsync.make_localhost(started)


# --- enabled ---


def is_enabled(context):
    (record,) = rows(context)["host"].values()
    return record["enabled"]


def test_a_host_that_nothing_forbids_takes_guests(synced):
    planned = steps_dbsync.plan_enable_host(synced)
    assert not is_enabled(synced)

    outcome = steps_dbsync.enable_host(synced)

    assert outcome.changes == planned == (Change(f"host {HOST_UUID}.enabled", "false", "true"),)
    assert is_enabled(synced)
    assert steps_dbsync.enable_host(synced) == Unchanged()


def a_blocker(context):
    context.host.blockers.append("xl is missing")


def disabled_for_good(context):
    context.host.local.put(local.HOST_AUTO_ENABLE, value=False)


def disabled_for_now(context):
    context.host.local.put(local.HOST_DISABLED_UNTIL_REBOOT, value=True)


def update_waits(context):
    with context.host.database.write() as w:
        w.set("host", w.by_uuid("host", HOST_UUID), "pending_guidances", ["reboot_host"])


@pytest.mark.parametrize(
    ("forbid", "told"),
    [
        (a_blocker, "xl is missing"),
        (disabled_for_good, "host_auto_enable"),
        (disabled_for_now, "until the next reboot"),
        (update_waits, "pending_guidances"),
    ],
)
def test_what_forbids_guests_is_told(synced, forbid, told):
    forbid(synced)
    assert steps_dbsync.plan_enable_host(synced) == ()

    outcome = steps_dbsync.enable_host(synced)

    assert not is_enabled(synced)
    assert told in outcome.note
    assert outcome.warnings == ()


def test_a_step_that_is_planned_alone_sees_the_database_as_it_is(paths, host, synced):
    before = files_below(paths.etc)
    alone = HostState(facts=sample(agent_start=1), inventory=host.inventory)

    planned = steps_dbsync.plan_info(context_of(paths, alone, dry_run=True))

    assert planned == (Change(f"host {HOST_UUID}.other_config:agent_start_time", "1795280460", "1"),)
    assert files_below(paths.etc) == before
    alone.scratch.close()


def test_a_plan_before_the_first_inventory_shows_no_uuid(paths, host):
    paths.inventory.unlink()
    context = context_of(paths, host, dry_run=True)

    planned = steps_dbsync.plan_localhost(context)

    assert Change(f"host {RANDOM_UUID}", None, FIRST) in planned
    assert HOST_UUID not in repr(planned)


def test_the_records_of_a_supporter_are_elsewhere(context):
    context.host.role = supporter_of("192.0.2.1")
    others = (
        (steps_db.sync_ha_state, steps_db.plan_ha_state),
        (steps_dbsync.enable_host, steps_dbsync.plan_enable_host),
    )

    for run, plan in (*DBSYNC, *others):
        assert isinstance(run(context), Skipped)
        assert plan(context) == ()
    assert isinstance(steps_dbsync.find_localhost(context), Skipped)
    assert isinstance(steps_jobs.start_measurements(context), Skipped)
    assert not context.config.paths.database.exists()


def test_every_outcome_of_a_change_is_a_change_of_the_report(started):
    outcome = steps_dbsync.make_root_user(started)

    assert outcome == Changed((Change("user root", None, FIRST),))
