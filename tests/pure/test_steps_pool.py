# mypy: disable-error-code="union-attr,attr-defined,arg-type"
# each test knows which outcome it has; modules are reached through the one that uses them
"""The steps of identity and process on a fabricated host: what each changes, as planned, and that repeating is idle."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest

from hostagent.db import local
from hostagent.errors import KernelError, OperatorError
from hostagent.files import FileError, write_atomic
from hostagent.startup import role, steps_pool, steps_xen
from hostagent.startup.role import COORDINATOR, RoleError, supporter_of
from hostagent.startup.secret import SecretError
from hostagent.startup.state import HostState, begin, learn
from hostagent.startup.step import Change, EmergencyError, Skipped, Unchanged
from hostagent.xen import inventory
from hostagent.xen.inventory import InventoryError
from tests.pure.startup_host import ours, planned_then_done
from tests.pure.startup_tree import BOOT_ID, Hooks, context_of, put

SECRET = "0123456789abcdef" * 3


# --- settings, log, command line ---


def test_the_command_line_is_recorded(paths):
    context = context_of(paths, HostState(arguments=("run", "--set", "a b")))

    assert steps_pool.parse_command_line(context).note == "arguments: run --set 'a b'"


def test_the_settings_files_are_told(paths):
    paths.settings.write_text('[log]\nlevel = "debug"')
    config, host = begin(paths)

    assert (
        str(paths.settings)
        in steps_pool.read_configuration(replace(context_of(paths, host), config=config)).note
    )


def test_wrong_settings_fail_the_step_that_reads_them(paths):
    paths.settings.write_text("x = 1")
    config, host = begin(paths)

    with pytest.raises(OperatorError, match="line 1: x"):
        steps_pool.read_configuration(replace(context_of(paths, host), config=config))


def test_a_deadline_for_a_step_that_does_not_exist_is_refused_with_its_line(paths):
    paths.settings.write_text("[timeouts]\nset-dom0-memory = 5\nset-dom1-memory = 5")
    config, host = begin(paths)

    with pytest.raises(OperatorError, match=r"line 3: timeouts\.set-dom1-memory"):
        steps_pool.read_configuration(replace(context_of(paths, host), config=config))


# --- role ---


def test_a_host_that_never_started_becomes_its_own_coordinator(paths):
    context = context_of(paths)

    planned_then_done(context, steps_pool.plan_role, steps_pool.announce_start)

    assert paths.role.read_text() == "master\n"
    assert context.host.role == COORDINATOR


def test_a_host_that_lost_its_role_file_is_not_guessed_at(paths):
    started_before(paths)

    with pytest.raises(RoleError, match="is gone"):
        steps_pool.announce_start(context_of(paths))

    assert not paths.role.exists()


def started_before(paths):
    """What the first complete start left in the local database."""
    local.open_store(paths.local_database).put(local.IDENTITY_MADE, value=True)


def test_a_lost_inventory_does_not_make_another_host_of_this_one(paths):
    started_before(paths)

    with pytest.raises(InventoryError, match="is gone, though") as caught:
        steps_pool.read_inventory(context_of(paths))

    assert "backup" in caught.value.hint
    assert str(paths.local_database) in caught.value.hint
    assert not paths.inventory.exists()


def test_a_lost_secret_is_not_replaced(paths):
    started_before(paths)
    context = with_role(paths)

    with pytest.raises(SecretError, match="is gone, though") as caught:
        steps_pool.read_pool_secret(context)

    assert str(paths.local_database) in caught.value.hint
    assert not paths.pool_secret.exists()


def test_a_damaged_local_database_counts_as_a_host_that_has_started(paths):
    paths.local_database.write_text("{")

    with pytest.raises(InventoryError, match="is gone, though"):
        steps_pool.read_inventory(context_of(paths))

    paths.inventory.write_text(inventory.new())
    context = booted(paths)
    steps_pool.open_local_database(context)
    with pytest.raises(SecretError, match="is gone, though"):
        steps_pool.read_pool_secret(context)


IDENTITY = (
    steps_pool.announce_start,
    steps_pool.read_inventory,
    steps_pool.open_local_database,
    steps_pool.read_pool_secret,
)


class CutOff(BaseException):
    """The host loses power."""


@pytest.mark.parametrize("stop_at", range(1, 9))
def test_a_first_start_cut_off_after_any_write_is_completed_by_the_next(paths, monkeypatch, stop_at):
    """The power goes after the n-th durable write of the first start; each write is there or not, never half."""
    writes = []

    def cut_after(path, *args, **options):
        write_atomic(path, *args, **options)
        writes.append(path)
        if len(writes) == stop_at:
            raise CutOff

    for module in (steps_pool, local, role):
        monkeypatch.setattr(module, "write_atomic", cut_after)
    first = context_of(paths)
    try:
        for step in IDENTITY:
            step(first)
    except CutOff:
        assert len(writes) == stop_at
    kept = {path: path.read_text() for path in (paths.inventory, paths.pool_secret) if path.exists()}

    second = context_of(paths)
    for step in IDENTITY:
        step(second)

    assert {path: path.read_text() for path in kept} == kept
    assert second.host.local.get(local.IDENTITY_MADE) is True
    again = context_of(paths)
    assert all(isinstance(step(again), Unchanged) for step in IDENTITY)


def test_without_its_local_database_a_host_makes_what_is_missing_anew(paths):
    first, second = context_of(paths), context_of(paths)
    for step in IDENTITY:
        step(first)
    for path in (paths.inventory, paths.pool_secret, paths.role, paths.local_database):
        path.unlink()

    for step in IDENTITY:
        step(second)

    assert second.host.inventory != first.host.inventory


def test_the_plans_of_a_first_start_follow_from_one_another(paths, xenstore):
    host = HostState()
    context = context_of(paths, host, dry_run=True)
    learn(context.config, host)
    plans = (
        steps_pool.plan_role,
        steps_pool.plan_inventory,
        steps_pool.plan_local_database,
        steps_pool.plan_pool_secret,
        steps_xen.plan_xenstore_keys,
    )

    planned = [change for plan in plans for change in plan(context)]

    assert ours(paths) == {}
    assert Change(f"{paths.local_database}#identity_made", None, "true") in planned
    assert Change("/local/domain/0/vm", None, f"/vm/{steps_pool.RANDOM_UUID}") in planned
    assert host.inventory.control_domain_uuid not in str(planned)


def test_a_broken_role_leads_to_emergency_mode(paths):
    paths.role.write_text("broken")

    with pytest.raises(EmergencyError) as caught:
        steps_pool.announce_start(context_of(paths))

    assert caught.value.code == "HOST_BROKEN"


def test_an_unknown_role_is_left_as_it_is(paths):
    paths.role.write_text("chief")

    with pytest.raises(RoleError, match="'chief'"):
        steps_pool.announce_start(context_of(paths))

    assert paths.role.read_text() == "chief"


def test_the_first_start_of_a_boot_is_told_apart_from_a_restart(paths):
    paths.role.write_text("master")
    first, again, other = context_of(paths), context_of(paths), context_of(paths)

    steps_pool.announce_start(first)
    steps_pool.open_local_database(first)
    steps_pool.announce_start(again)
    put(paths.root / "proc/sys/kernel/random/boot_id", "another\n")
    steps_pool.announce_start(other)

    assert [context.host.on_system_boot for context in (first, again, other)] == [True, False, True]


# --- inventory ---


def test_a_first_inventory_is_made_with_random_uuids(paths):
    context = context_of(paths)

    outcome = planned_then_done(context, steps_pool.plan_inventory, steps_pool.read_inventory)

    found = inventory.read(paths.inventory)
    assert found == context.host.inventory
    assert found.installation_uuid != found.control_domain_uuid
    assert found.installation_uuid in outcome.note
    assert {change.what.rpartition("#")[2] for change in outcome.changes} == set(found.values)


def test_a_damaged_inventory_is_left_as_it_is(paths):
    paths.inventory.write_text("garbage")

    with pytest.raises(InventoryError):
        steps_pool.read_inventory(context_of(paths))

    assert paths.inventory.read_text() == "garbage"


# --- local database ---


def booted(paths, content=None):
    paths.role.write_text("master")
    if content is not None:
        paths.local_database.write_text(content)
    context = context_of(paths)
    steps_pool.announce_start(context)
    return context


def done_as_planned(context, plan, run):
    changes = plan(context)
    outcome = run(context)
    assert outcome.changes == changes
    context.host.on_system_boot = False
    assert isinstance(run(context), Unchanged)
    return outcome


def test_a_first_local_database_says_that_ha_is_not_armed(paths):
    context = booted(paths)

    done_as_planned(context, steps_pool.plan_local_database, steps_pool.open_local_database)

    assert json.loads(paths.local_database.read_text()) == {"ha.armed": False}
    assert (paths.run / "boot-id").read_text() == f"{BOOT_ID}\n"


def test_at_boot_the_flags_of_one_boot_are_forgotten_and_others_kept(paths):
    context = booted(
        paths,
        '{"ha.armed": true, "master_scripts": true, "host_disabled_until_reboot": true, "ha_peers": "x"}',
    )

    outcome = done_as_planned(context, steps_pool.plan_local_database, steps_pool.open_local_database)

    assert json.loads(paths.local_database.read_text()) == {
        "ha.armed": True,
        "master_scripts": False,
        "host_disabled_until_reboot": False,
        "ha_peers": "x",
    }
    assert Change(f"{paths.local_database}#master_scripts", "true", "false") in outcome.changes


def test_at_a_restart_the_flags_stay(paths):
    context = booted(paths, '{"ha.armed": false, "master_scripts": true}')
    context.host.on_system_boot = False

    assert isinstance(steps_pool.open_local_database(context), Unchanged)
    assert context.host.local.get(local.MASTER_SCRIPTS) is True


def test_a_damaged_local_database_is_kept_and_told(paths):
    context = booted(paths, "{")

    outcome = done_as_planned(context, steps_pool.plan_local_database, steps_pool.open_local_database)

    (kept,) = paths.state.glob("local.json.corrupt-*")
    assert kept.read_text() == "{"
    assert str(kept) in outcome.warnings[0]


def test_boot_counts_as_handled_only_when_the_flags_are_written(paths, monkeypatch):
    context = booted(paths, '{"master_scripts": true}')

    def refuse(*_, **__):
        raise FileError("the disk is full", hint="", number=28)

    monkeypatch.setattr(local, "write_atomic", refuse)
    with pytest.raises(FileError):
        steps_pool.open_local_database(context)

    assert not (paths.run / "boot-id").exists()


# --- secret ---


def with_role(paths, role=COORDINATOR):
    host = HostState(role=role)
    host.local = local.open_store(paths.local_database)
    return context_of(paths, host)


def test_a_coordinator_without_a_secret_makes_one_that_only_root_can_read(paths):
    context = with_role(paths)

    outcome = planned_then_done(context, steps_pool.plan_pool_secret, steps_pool.read_pool_secret)

    assert paths.pool_secret.stat().st_mode & 0o777 == 0o600
    assert paths.pool_secret.read_text() == context.host.secrets.current.reveal()
    assert paths.pool_secret.read_text() not in repr(outcome)


def test_a_supporter_without_a_secret_does_not_make_one(paths):
    with pytest.raises(SecretError, match=r"supporter of 192\.0\.2\.1"):
        steps_pool.read_pool_secret(with_role(paths, supporter_of("192.0.2.1")))

    assert not paths.pool_secret.exists()


def test_the_mode_of_a_secret_is_mended_and_the_secret_kept(paths):
    paths.pool_secret.write_text(SECRET)
    paths.pool_secret.chmod(0o644)

    outcome = planned_then_done(with_role(paths), steps_pool.plan_pool_secret, steps_pool.read_pool_secret)

    assert outcome.changes == (Change(f"{paths.pool_secret} mode", "0644", "0600"),)
    assert paths.pool_secret.read_text() == SECRET


@pytest.mark.parametrize("content", ["", "short", "G" * 50])
def test_what_is_no_secret_is_left_as_it_is(paths, content):
    paths.pool_secret.write_text(content)

    with pytest.raises(SecretError):
        steps_pool.read_pool_secret(with_role(paths))

    assert paths.pool_secret.read_text() == content


def test_a_secret_that_belongs_to_somebody_else_is_written_anew(paths, monkeypatch):
    paths.pool_secret.write_text(SECRET)
    paths.pool_secret.chmod(0o600)
    owner = os.geteuid()
    monkeypatch.setattr(steps_pool.os, "geteuid", lambda: owner + 1)

    outcome = steps_pool.read_pool_secret(with_role(paths))

    assert outcome.changes == (Change(f"{paths.pool_secret} owner", str(owner), str(owner + 1)),)
    assert paths.pool_secret.read_text() == SECRET


def test_half_a_rotation_stops_before_anything_is_written(paths):
    put(paths.state / "ptoken.old", SECRET)

    with pytest.raises(SecretError, match="half-way"):
        steps_pool.read_pool_secret(with_role(paths))

    assert not paths.pool_secret.exists()


# --- process ---


def test_signal_handlers_are_seen_in_proc(paths):
    hooks = Hooks()

    outcome = steps_pool.set_signal_handlers(context_of(paths, HostState(hooks=hooks)))

    assert outcome == Unchanged("SIGTERM, SIGINT, SIGHUP")
    assert hooks.told == []


def test_a_handler_that_the_kernel_does_not_know_is_missed(paths):
    put(paths.root / "proc/self/status", "SigCgt:\t0000000000004002\n")

    with pytest.raises(KernelError, match="SIGHUP"):
        steps_pool.set_signal_handlers(context_of(paths, HostState(hooks=Hooks())))


@pytest.mark.parametrize("step", ["set_up_logging", "set_signal_handlers", "notify_ready"])
def test_what_only_the_daemon_can_do_is_skipped_outside_of_it(paths, step):
    assert isinstance(getattr(steps_pool, step)(context_of(paths)), Skipped)


@pytest.mark.parametrize(("listener", "note"), [(True, "told systemd READY=1"), (False, "nobody asked")])
def test_readiness_is_told_to_systemd(paths, listener, note):
    hooks = Hooks(listener=listener)

    outcome = steps_pool.notify_ready(context_of(paths, HostState(hooks=hooks)))

    assert note in outcome.note
    assert hooks.told == ["ready"]


def test_the_end_of_start_up_leaves_its_file(paths):
    hooks = Hooks()

    planned_then_done(
        context_of(paths, HostState(hooks=hooks)), steps_pool.plan_complete, steps_pool.notify_complete
    )

    assert paths.init_complete.read_text() == f"{BOOT_ID}\n"
    assert hooks.told == ["start-up complete"] * 2


def test_the_file_of_another_boot_is_replaced(paths):
    paths.init_complete.write_text("another\n")

    outcome = steps_pool.notify_complete(context_of(paths))

    assert outcome.changes == (Change(str(paths.init_complete), "another", BOOT_ID),)


def test_randomness_that_is_ready_is_not_waited_for(paths):
    assert steps_pool.check_random_generator(context_of(paths)) == Unchanged("ready")


def test_randomness_that_is_not_ready_is_waited_for_and_the_wait_told(paths, monkeypatch):
    asked = []

    def getrandom(size, flags=0):
        asked.append(flags)
        if flags:
            raise BlockingIOError
        return b"x" * size

    monkeypatch.setattr(steps_pool.os, "getrandom", getrandom)

    assert steps_pool.check_random_generator(context_of(paths)).note == "ready after 0.0 s"
    assert asked == [os.GRND_NONBLOCK, 0]
