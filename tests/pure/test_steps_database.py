# mypy: disable-error-code="union-attr,attr-defined,arg-type,index,operator"
# each test knows which outcome it has
"""The steps about certificate, database and HA on a fabricated host: plan, effect, repetition."""

from __future__ import annotations

import contextlib
import ssl

import pytest

from hostagent.api import certificate
from hostagent.db import local
from hostagent.db.copies import Copies
from hostagent.db.database import open_database
from hostagent.db.dbconf import DbConfError
from hostagent.db.errors import DatabaseError, InUseError
from hostagent.errors import OperatorError
from hostagent.startup import steps_db, steps_jobs
from hostagent.startup.role import supporter_of
from hostagent.startup.step import Change, EmergencyError, Unchanged
from tests.pure.host_samples import DOM0_UUID, HOST_UUID
from tests.pure.startup_database import DBSYNC, FIRST, ROLES
from tests.pure.startup_tree import Hooks, context_of, files_below, put

# --- certificate ---


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
