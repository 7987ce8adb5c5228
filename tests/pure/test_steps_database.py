# mypy: disable-error-code="union-attr,attr-defined,arg-type,index,operator"
# each test knows which outcome it has
"""The steps about certificate, database, dbsync items and jobs on a fabricated host: plan, effect, repetition."""

from __future__ import annotations

import contextlib
import dataclasses
import ssl
import threading
from types import SimpleNamespace

import pytest

from hostagent.api import certificate, roles
from hostagent.db import local, model
from hostagent.db.copies import Copies
from hostagent.db.database import open_database
from hostagent.db.dbconf import DbConfError
from hostagent.db.errors import DatabaseError, InUseError
from hostagent.errors import BugError, OperatorError
from hostagent.hostinfo import address
from hostagent.startup import steps_db, steps_dbsync, steps_jobs
from hostagent.startup.role import COORDINATOR, supporter_of
from hostagent.startup.state import HostState
from hostagent.startup.step import Change, Changed, EmergencyError, Skipped, Unchanged
from hostagent.startup.steps_pool import RANDOM_UUID
from hostagent.xen import hypercall, inventory
from tests.pure.host_samples import DOM0_UUID, HOST_UUID, MIB
from tests.pure.host_samples import facts as sample
from tests.pure.startup_tree import Hooks, context_of, files_below, make_paths, put

DBSYNC = (
    (steps_dbsync.make_host_metrics, steps_dbsync.plan_host_metrics),
    (steps_dbsync.make_localhost, steps_dbsync.plan_localhost),
    (steps_dbsync.refresh_info, steps_dbsync.plan_info),
    (steps_dbsync.record_memory, steps_dbsync.plan_memory),
    (steps_dbsync.record_processors, steps_dbsync.plan_processors),
    (steps_dbsync.record_dom0, steps_dbsync.plan_dom0),
    (steps_dbsync.make_root_user, steps_dbsync.plan_root_user),
    (steps_dbsync.record_pool, steps_dbsync.plan_pool),
    (steps_dbsync.record_address, steps_dbsync.plan_address),
    (steps_dbsync.clean_halted_vms, steps_dbsync.plan_halted_vms),
    (steps_dbsync.cancel_old_tasks, steps_dbsync.plan_old_tasks),
    (steps_dbsync.write_licence, steps_dbsync.plan_licence),
)
FIRST = "(made)"
ROLES = tuple(Change(f"role {role.label}", None, FIRST) for role in roles.DESCRIPTIONS)


@pytest.fixture
def paths(tmp_path):
    made = make_paths(tmp_path)
    put(made.root / "proc/sys/kernel/hostname", "h1\n")
    made.inventory.write_text(inventory.new(installation_uuid=HOST_UUID, control_domain_uuid=DOM0_UUID))
    return made


@pytest.fixture
def host(paths):
    found = HostState(facts=sample(), role=COORDINATOR, on_system_boot=True)
    found.inventory = inventory.read(paths.inventory)
    found.local = local.open_store(paths.local_database)
    yield found
    if found.scheduler:
        found.scheduler.stop()
    for database in (found.database, found.scratch):
        if database:
            database.close()


@pytest.fixture
def context(paths, host):
    return context_of(paths, host)


@pytest.fixture
def started(context):
    """A context with an open, empty database."""
    steps_db.start_database(context)
    return context


@pytest.fixture
def synced(started):
    for run, _ in DBSYNC:
        run(started)
    return started


def rows(context):
    """Everything in the database but generations."""
    with context.host.database.read() as view:
        known = (cls.name for cls in model.load().classes.values() if cls.in_database)
        return {name: dict(view.records(name, internal=True)) for name in known}


# --- certificate ---


@pytest.fixture
def one_key(monkeypatch):
    monkeypatch.setattr(address, "look", lambda: {"xenbr0": [(2, "192.0.2.10")]})


def test_a_first_start_makes_what_tls_needs(context, one_key):
    before = files_below(context.config.paths.etc)
    planned = steps_db.plan_tls(context)
    assert files_below(context.config.paths.etc) == before

    outcome = steps_db.prepare_tls(context)

    paths = context.config.paths
    assert outcome.changes == planned
    assert [change.what for change in planned] == [str(paths.server_key), str(paths.server_certificate)]
    assert "PRIVATE" not in repr(outcome)
    assert context.host.certificate.names == ("h1", "localhost", "127.0.0.1", "::1", "192.0.2.10")
    assert steps_db.plan_tls(context) == ()
    assert isinstance(steps_db.prepare_tls(context), Unchanged)
    assert isinstance(certificate.server_context(paths.server_certificate, paths.server_key), ssl.SSLContext)


def test_a_damaged_certificate_and_an_open_key_are_told_before_and_after(context, one_key):
    paths = context.config.paths
    steps_db.prepare_tls(context)
    paths.server_key.chmod(0o640)
    (mode,) = steps_db.plan_tls(context)
    assert (mode.old, mode.new) == ("0640", "0600")
    assert steps_db.prepare_tls(context).changes == (mode,)
    paths.server_certificate.write_text("x")
    planned = steps_db.plan_tls(context)

    outcome = steps_db.prepare_tls(context)

    assert outcome.changes == planned
    assert [change.new for change in planned] == ["(set aside)", "(set aside)", "(secret)", FIRST]
    assert "new certificate was made" in outcome.warnings[0]


# --- engine ---


def test_a_first_start_makes_the_database(context):
    paths = context.config.paths
    before = files_below(paths.etc, paths.state)
    planned = steps_db.plan_start_database(context)
    assert files_below(paths.etc, paths.state) == before

    outcome = steps_db.start_database(context)

    assert outcome.changes == planned == (Change(str(paths.database), None, FIRST), *ROLES)
    assert context.host.database.path == paths.database
    assert steps_db.plan_start_database(context) == ()
    assert isinstance(steps_db.start_database(context), Unchanged)


def test_opening_mends_and_disables(paths, host, synced):
    with host.database.write() as w:
        ref = w.by_uuid("host", HOST_UUID)
        w.set("host", ref, "enabled", value=True)
        w.destroy("VM", w.by_uuid("VM", DOM0_UUID))
    host.database.close()
    host.database = None
    planned = steps_db.plan_start_database(synced)
    assert host.scratch is None

    outcome = steps_db.start_database(synced)

    assert outcome.changes == planned
    assert Change(f"host {HOST_UUID}.enabled", "true", "false") in planned
    assert any(change.what.endswith("control_domain") and change.new == "forget it" for change in planned)
    assert any(change.what.startswith("VM_metrics") and change.new == "destroy it" for change in planned)


def test_a_damaged_database_is_set_aside_and_told(context):
    paths = context.config.paths
    paths.database.write_bytes(b"no database at all" * 100)
    planned = steps_db.plan_start_database(context)

    outcome = steps_db.start_database(context)

    assert outcome.changes == planned
    assert planned == (
        Change(str(paths.database), "(damaged)", "(set aside)"),
        Change(str(paths.database), None, FIRST),
        *ROLES,
    )
    assert str(paths.database) in outcome.warnings[0]
    assert len(list(paths.state.glob("state.db.corrupt-*"))) == 1


def test_a_newer_copy_is_taken(paths, host, synced):
    other = paths.state / "other.db"
    put(paths.db_conf, f"[{other}]\n\n[{paths.database}]\n")
    host.connections = ()
    steps_db.read_db_conf(synced)
    steps_jobs.write_copies(Copies(host.database, host.connections[:-1]))
    host.database.close()
    host.database = None
    for path in paths.state.glob("state.db*"):
        path.unlink()

    planned = steps_db.plan_start_database(synced)
    outcome = steps_db.start_database(synced)

    assert outcome.changes == planned
    assert planned[0].what == str(paths.database)
    assert str(other) in planned[0].new
    with host.database.read() as view:
        assert view.by_uuid("host", HOST_UUID)


def test_a_database_that_another_process_has_is_not_opened(context):
    paths = context.config.paths
    with contextlib.closing(open_database(paths.database, paths.run / "other.db")):
        with pytest.raises(DatabaseError, match="another process"):
            steps_db.start_database(context)
    assert context.host.database is None


def test_db_conf_is_read_and_told(context):
    paths = context.config.paths

    assert steps_db.read_db_conf(context).note == str(paths.database)
    put(paths.db_conf, "[/a/b]\n\n[/c/d]\n")
    assert steps_db.read_db_conf(context).note == "/c/d, /a/b"
    put(paths.db_conf, "mode\n")
    with pytest.raises(DbConfError):
        steps_db.read_db_conf(context)


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


# --- dry runs ---


def test_a_dry_run_plans_the_whole_first_start_on_a_copy(paths, host):
    context = context_of(paths, host, dry_run=True)
    before = files_below(paths.etc, paths.state)

    planned = [steps_db.plan_start_database(context), *(plan(context) for _, plan in DBSYNC)]
    planned.append(steps_db.plan_ha_state(context))

    assert files_below(paths.etc, paths.state) == before
    assert host.database is None
    real = context_of(paths, host)
    host.scratch.close()
    host.scratch = None
    done = [steps_db.start_database(real), *(run(real) for run, _ in DBSYNC), steps_db.sync_ha_state(real)]
    assert [getattr(outcome, "changes", ()) for outcome in done] == planned


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


# --- HA ---


def test_ha_is_off_unless_it_was_armed(context):
    assert isinstance(steps_db.check_ha_armed(context), Unchanged)

    context.host.local.put(local.HA_ARMED, value=True)
    with pytest.raises(EmergencyError) as caught:
        steps_db.check_ha_armed(context)
    assert caught.value.code == "HA_HEARTBEAT_DAEMON_STARTUP_FAILED"
    assert caught.value.params == ()


@pytest.mark.parametrize(
    ("armed", "enabled", "after"),
    [
        (False, False, (False, False)),
        (True, True, (True, True)),
        (True, False, (False, False)),
        (False, True, (False, False)),
    ],
)
def test_a_coordinator_and_its_pool_agree_on_ha(synced, armed, enabled, after):
    database, store = synced.host.database, synced.host.local
    store.put(local.HA_ARMED, value=armed)
    with database.write() as w:
        w.set("pool", w.the_only("pool"), "ha_enabled", value=enabled)
    planned = steps_db.plan_ha_state(synced)
    assert store.get(local.HA_ARMED) is armed

    outcome = steps_db.sync_ha_state(synced)

    assert getattr(outcome, "changes", ()) == planned
    assert bool(planned) is (armed != enabled)
    with database.read() as view:
        assert (store.get(local.HA_ARMED), view.get("pool", view.the_only("pool"), "ha_enabled")) == after


def test_a_supporter_that_is_not_armed_goes_into_emergency_mode(synced):
    synced.host.role = supporter_of("192.0.2.1")
    with synced.host.database.write() as w:
        w.set("pool", w.the_only("pool"), "ha_enabled", value=True)

    with pytest.raises(EmergencyError) as caught:
        steps_db.sync_ha_state(synced)
    assert caught.value.code == "HA_POOL_IS_ENABLED_BUT_HOST_IS_DISABLED"


def test_without_the_local_database_ha_is_not_guessed(synced):
    synced.host.local = None

    for step in (steps_db.check_ha_armed, steps_db.sync_ha_state):
        with pytest.raises(OperatorError, match="local database"):
            step(synced)


# --- jobs ---


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


def test_the_daemon_hands_the_database_to_the_api_after_the_first_pass(context):
    context.host.hooks = Hooks()

    steps_db.start_database(context)

    with context.host.database.read() as view:
        assert view.refs("role")
    assert context.host.hooks.api.told == [(context.host.database.generation, HOST_UUID)]


def test_a_step_by_hand_is_told_who_has_the_database(context):
    paths = context.config.paths
    with contextlib.closing(open_database(paths.database, paths.run / "other.db")):
        with pytest.raises(InUseError, match="the daemon has the database while it runs") as caught:
            steps_db.start_database(context)
        assert caught.value.hint.startswith("ask it")
        context.host.hooks = Hooks()
        with pytest.raises(InUseError) as caught:
            steps_db.start_database(context)
    assert "daemon has" not in caught.value.found
    assert context.host.hooks.api.told == []


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


def test_every_outcome_of_a_change_is_a_change_of_the_report(started):
    outcome = steps_dbsync.make_root_user(started)

    assert outcome == Changed((Change("user root", None, FIRST),))
