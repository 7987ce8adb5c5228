# mypy: disable-error-code="union-attr,attr-defined,arg-type"
# each test knows which outcome it has; modules are reached through the one that uses them
"""Each step on a fabricated host: what it changes, that its plan says the same, that repeating it is idle."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest

from hostagent.api.local_socket import listening_socket, socket_path
from hostagent.db import local
from hostagent.errors import HostagentError, KernelError, OperatorError
from hostagent.files import FileError, write_atomic
from hostagent.run import CommandError, Finished
from hostagent.startup import checks, role, steps_pool, steps_scripts, steps_xen
from hostagent.startup.role import COORDINATOR, RoleError, supporter_of
from hostagent.startup.secret import SecretError
from hostagent.startup.state import HostState, begin, learn
from hostagent.startup.step import Change, Changed, EmergencyError, Skipped, Unchanged
from hostagent.startup.table import STEPS
from hostagent.xen import balloon, hypercall, inventory, xenstored
from hostagent.xen.inventory import InventoryError
from tests.pure import host_samples as samples
from tests.pure.startup_tree import BOOT_ID, FakeXenstore, Hooks, context_of, files_below, make_paths, put

UUID = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"
SECRET = "0123456789abcdef" * 3


@pytest.fixture
def paths(tmp_path):
    return make_paths(tmp_path)


@pytest.fixture
def inventory_file(paths):
    paths.inventory.write_text(inventory.new(control_domain_uuid=UUID))
    return paths.inventory


def ours(paths):
    return files_below(paths.etc, paths.state, paths.run)


def planned_then_done(context, plan, run):
    """Plan, run, run again: a plan changes nothing, a run does what it said, the second run nothing."""
    paths = context.config.paths
    before = ours(paths)
    changes = plan(context)
    assert ours(paths) == before
    outcome = run(context)
    assert isinstance(outcome, Changed)
    assert outcome.changes == changes
    assert plan(context) == ()
    assert isinstance(run(context), Unchanged)
    return outcome


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


# --- Xen ---


def with_inventory(paths, **state):
    host = HostState(**state)
    learn(context_of(paths).config, host)
    return context_of(paths, host)


def a_domain(handle, *, mem_kib=1024, maxmem_kib=2048):
    flags = dict.fromkeys(("running", "paused", "blocked", "shutdown", "crashed", "dying", "hvm"), False)
    return hypercall.DomainInfo(
        domid=0,
        handle=handle,
        online_vcpus=2,
        mem_kib=mem_kib,
        maxmem_kib=maxmem_kib,
        cpu_time_ns=0,
        shutdown_reason=None,
        **flags,
    )


def dom0_with_handle(monkeypatch, handle):
    monkeypatch.setattr(hypercall, "domain", lambda _: a_domain(handle))


@pytest.mark.parametrize("handle", [steps_xen.NO_HANDLE, UUID])
def test_a_dom0_without_handle_or_with_ours_is_fine(paths, inventory_file, monkeypatch, handle):
    dom0_with_handle(monkeypatch, handle)

    assert isinstance(steps_xen.check_control_domain(with_inventory(paths)), Unchanged)


def test_another_handle_of_dom0_is_a_failure_that_shows_both(paths, inventory_file, monkeypatch):
    other = "ffffffff-0000-4000-8000-000000000000"
    dom0_with_handle(monkeypatch, other)

    with pytest.raises(steps_xen.IdentityError, match=f"{other}.*{UUID}") as caught:
        steps_xen.check_control_domain(with_inventory(paths))

    assert "cloned image" in caught.value.hint


@pytest.fixture
def xenstore(monkeypatch):
    store = FakeXenstore({"/local/domain/0/name": "Domain-0", "/local/domain/0/domid": "0"})
    monkeypatch.setattr(steps_xen, "connect_xenstore", lambda _: store)
    return store


def test_missing_keys_of_dom0_are_written_and_others_left(paths, inventory_file, xenstore):
    before = dict(xenstore.nodes)

    outcome = planned_then_done(
        with_inventory(paths), steps_xen.plan_xenstore_keys, steps_xen.write_xenstore_keys
    )

    written = {path: value.decode() for path, value in xenstore.nodes.items() if path not in before}
    assert written == {change.what: change.new for change in outcome.changes}
    assert written["/local/domain/0/vm"] == f"/vm/{UUID}"
    assert before.items() <= xenstore.nodes.items()


def test_a_key_with_another_value_is_a_warning(paths, inventory_file, xenstore):
    xenstore.write("/local/domain/0/vm", b"/vm/other")

    outcome = steps_xen.write_xenstore_keys(with_inventory(paths))

    assert "'/vm/other'" in outcome.warnings[0]
    assert xenstore.read("/local/domain/0/vm") == b"/vm/other"


@pytest.mark.parametrize("step", ["check_control_domain", "write_xenstore_keys", "plan_xenstore_keys"])
def test_without_an_inventory_the_step_says_which_step_is_missing(paths, step):
    with pytest.raises(OperatorError) as caught:
        getattr(steps_xen, step)(context_of(paths))

    assert "read-inventory" in caught.value.hint


# --- checks ---


@pytest.fixture
def healthy(paths, xenstore, monkeypatch):
    """A dom0 on which every check is content; modprobe loads into its /sys."""
    root = paths.root
    xenstore.write("/local/domain/0/control/feature-poweroff", b"1")
    put(root / "usr/lib/xen-4.20/bin/xl", "")
    put(root / "usr/libexec/xen-qemu-system-i386", "")
    put(root / "run/xenconsoled.pid", "11\n")
    put(root / "proc/11/comm", "xenconsoled\n")
    put(root / "run/qemu-dom0.pid", "12")
    put(root / "proc/12/comm", "qemu-system-i38\n")
    host = hypercall.HostInfo(1, 1, 0, 2, 1, 1, 2, 1, 1, "", "4.20", "", "", "", (), (), "dom0_mem=1G,max:1G")
    monkeypatch.setattr(hypercall, "host", lambda: host)

    def modprobe(argv, *, timeout_s, package=None):
        (root / "sys/module" / argv[1].replace("-", "_")).mkdir()
        return Finished(tuple(argv), 0, "", "", 0.0)

    monkeypatch.setattr(checks, "run", modprobe)
    return root


def test_a_healthy_host_has_no_complaints_and_gets_its_modules(paths, healthy):
    context = context_of(paths)

    outcome = planned_then_done(context, steps_xen.plan_startup_checks, steps_xen.run_startup_checks)

    assert outcome.warnings == ()
    assert context.host.blockers == []
    assert {path.name for path in (healthy / "sys/module").iterdir()} == {
        "bridge", "bonding", "8021q", "xen_netback", "xen_blkback"
    }  # fmt: skip


def break_hypervisor(root, xenstore):
    (root / "proc/xen/capabilities").write_text("")


def break_domid(root, xenstore):
    del xenstore.nodes["/local/domain/0/domid"]


@pytest.mark.parametrize(
    ("break_it", "found"), [(break_hypervisor, "not dom0"), (break_domid, "knows no dom0")]
)
def test_a_fatal_finding_stops_start_up_and_tells_the_others_too(paths, healthy, xenstore, break_it, found):
    break_it(healthy, xenstore)
    (healthy / "run/xenconsoled.pid").unlink()

    with pytest.raises(checks.CheckError, match=found) as caught:
        steps_xen.run_startup_checks(context_of(paths))

    assert "xenconsoled is not running" in caught.value.found


def restart_xenstored(root, xenstore):
    del xenstore.nodes["/local/domain/0/control/feature-poweroff"]


def remove_xl(root, xenstore):
    (root / "usr/lib/xen-4.20/bin/xl").unlink()


@pytest.mark.parametrize(
    ("break_it", "hint"), [(restart_xenstored, "reboot"), (remove_xl, "apt-get install xen-utils-4.20")]
)
def test_some_findings_keep_the_host_disabled(paths, healthy, xenstore, break_it, hint):
    break_it(healthy, xenstore)
    context = context_of(paths)

    outcome = steps_xen.run_startup_checks(context)

    assert len(context.host.blockers) == 1
    assert hint in outcome.warnings[0]


def test_a_node_that_somebody_removed_is_a_warning_and_blocks_nothing(paths, healthy, xenstore):
    context = context_of(paths)
    xenstored.remember(xenstore, root=paths.root, run_dir=paths.run)
    del xenstore.nodes[xenstored.MARK]

    outcome = steps_xen.run_startup_checks(context)

    assert context.host.blockers == []
    assert "not clear" in outcome.warnings[0]
    assert "--probe" in outcome.warnings[0]


@pytest.mark.parametrize("socket", ["libvirt-sock", "virtxend-sock"])
def test_either_kind_of_libvirt_may_listen(paths, healthy, socket):
    silent_libvirt(healthy)
    put(healthy / "run/libvirt" / socket, "")

    assert steps_xen.run_startup_checks(context_of(paths)).warnings == ()


def dead_console(root):
    put(root / "proc/11/comm", "bash\n")


def no_qemu(root):
    (root / "run/qemu-dom0.pid").unlink()


def no_qemu_package(root):
    (root / "run/qemu-dom0.pid").unlink()
    (root / "usr/libexec/xen-qemu-system-i386").unlink()


def garbage_pid(root):
    put(root / "run/xenconsoled.pid", "garbage")


def autoballoon(root):
    put(root / "etc/xen/xl.conf", 'autoballoon="on"\n')


def silent_libvirt(root):
    put(root / "usr/lib/x86_64-linux-gnu/libvirt/connection-driver/libvirt_driver_libxl.so", "")


@pytest.mark.parametrize(
    ("break_it", "found", "hint"),
    [
        (dead_console, "xenconsoled is not running", "systemctl restart xen"),
        (garbage_pid, "xenconsoled is not running", "systemctl restart xen"),
        (no_qemu, "dom0's QEMU is not running", "systemctl restart xen"),
        (no_qemu_package, "QEMU for Xen is not installed", "apt-get install qemu-system-xen"),
        (autoballoon, "xl would shrink dom0", "dom0_mem="),
        (silent_libvirt, "libvirt is installed but not listening", "systemctl start libvirtd.socket"),
    ],
)
def test_other_findings_are_warnings_that_name_what_to_type(paths, healthy, break_it, found, hint):
    break_it(healthy)

    outcome = steps_xen.run_startup_checks(context_of(paths))

    assert len(outcome.warnings) == 1
    assert found in outcome.warnings[0]
    assert hint in outcome.warnings[0]


def test_a_module_that_does_not_load_is_a_warning_and_no_change(paths, healthy, monkeypatch):
    def modprobe(argv, *, timeout_s, package=None):
        raise CommandError(argv, "failed with exit code 1: not found", hint="")

    monkeypatch.setattr(checks, "run", modprobe)

    outcome = steps_xen.run_startup_checks(context_of(paths))

    assert isinstance(outcome, Unchanged)
    assert len(outcome.warnings) == len(checks.MODULES)
    assert "xen-netback does not load, guests have no network" in " ".join(outcome.warnings)


def test_open_vswitch_is_never_asked_for():
    assert "openvswitch" not in checks.MODULES
    assert not [check.name for check in checks.CHECKS if "ovs" in check.name or "vswitch" in check.name]


# --- scripts ---


@pytest.fixture
def scripts(monkeypatch):
    """What was run, in order; a script whose name holds `bad` fails."""
    ran = []

    def run(argv, *, timeout_s):
        ran.append((argv[0].rpartition("/")[2], *argv[1:], timeout_s))
        if "bad" in argv[0]:
            raise CommandError(argv, "failed with exit code 3: no luck", hint="try it")

    monkeypatch.setattr(steps_scripts, "run", run)
    return ran


def a_script(directory, name, mode=0o755):
    put(directory / name, "#!/bin/sh\n")
    (directory / name).chmod(mode)


def test_start_up_scripts_run_in_order_each_with_its_deadline(paths, scripts):
    directory = paths.etc / "startup.d"
    for name, mode in (("20-b", 0o755), ("10-a", 0o700), ("README", 0o644), (".hidden", 0o755)):
        a_script(directory, name, mode)
    (directory / "30-dir").mkdir()
    context = context_of(paths, scripts_timeout_s=7.0)

    planned = steps_scripts.plan_startup_scripts(context)
    outcome = steps_scripts.run_startup_scripts(context)

    assert scripts == [("10-a", 7.0), ("20-b", 7.0)]
    assert outcome.changes == planned
    assert outcome.note == "2 of 2 succeeded"


def test_a_failed_script_is_told_and_the_next_one_runs(paths, scripts):
    a_script(paths.etc / "startup.d", "10-bad")
    a_script(paths.etc / "startup.d", "20-good")

    outcome = steps_scripts.run_startup_scripts(context_of(paths))

    assert [name for name, _ in scripts] == ["10-bad", "20-good"]
    assert len(outcome.warnings) == 1
    assert "10-bad" in outcome.warnings[0]
    assert "exit code 3: no luck" in outcome.warnings[0]


def test_a_script_that_others_can_write_is_not_run(paths, scripts):
    a_script(paths.etc / "startup.d", "10-a", 0o777)

    outcome = steps_scripts.run_startup_scripts(context_of(paths))

    assert scripts == []
    assert "is not run" in outcome.warnings[0]


def test_a_dangling_link_is_told_and_the_other_scripts_run(paths, scripts):
    a_script(paths.etc / "startup.d", "10-a")
    (paths.etc / "startup.d" / "20-gone").symlink_to("/nowhere/at-all")
    context = context_of(paths)

    planned = steps_scripts.plan_startup_scripts(context)
    outcome = steps_scripts.run_startup_scripts(context)

    assert scripts == [("10-a", 60.0)]
    assert outcome.changes == planned
    assert "20-gone is not run: No such file" in outcome.warnings[0]


def test_without_scripts_nothing_changes(paths, scripts):
    assert isinstance(steps_scripts.run_startup_scripts(context_of(paths)), Unchanged)


def with_store(paths, *, ran):
    paths.local_database.write_text(json.dumps({"master_scripts": ran}))
    return context_of(paths, HostState(local=local.open_store(paths.local_database)))


def test_a_new_coordinator_runs_its_role_scripts_once(paths, scripts):
    for name in ("20-b", "10-a"):
        a_script(paths.etc / "master.d", name)

    planned_then_done(
        with_store(paths, ran=False), steps_scripts.plan_start_role_scripts, steps_scripts.start_role_scripts
    )

    assert scripts == [("10-a", "start", 60.0), ("20-b", "start", 60.0)]
    assert json.loads(paths.local_database.read_text()) == {"master_scripts": True}


def test_a_host_that_lost_the_role_stops_its_role_scripts_in_reverse(paths, scripts):
    for name in ("10-a", "20-b"):
        a_script(paths.etc / "master.d", name)

    planned_then_done(
        with_store(paths, ran=True), steps_scripts.plan_stop_role_scripts, steps_scripts.stop_role_scripts
    )

    assert scripts == [("20-b", "stop", 60.0), ("10-a", "stop", 60.0)]


def test_a_failed_role_script_still_counts_as_run(paths, scripts):
    a_script(paths.etc / "master.d", "10-bad")
    context = with_store(paths, ran=False)

    assert len(steps_scripts.start_role_scripts(context).warnings) == 1
    assert context.host.local.get(local.MASTER_SCRIPTS) is True


def test_role_scripts_without_a_local_database_name_the_missing_step(paths):
    with pytest.raises(OperatorError) as caught:
        steps_scripts.start_role_scripts(context_of(paths))

    assert "open-local-database" in caught.value.hint


# --- memory ---


class BalloonedXenstore(FakeXenstore):
    """A xenstore whose dom0 follows its memory target at once."""

    def __init__(self, driver):
        super().__init__({"/local/domain/0": "", "/local/domain/0/control/feature-poweroff": "1"})
        self._driver = driver

    def must_exist(self, path):
        assert path in self.nodes

    def write(self, path, value):
        super().write(path, value)
        if path.endswith("memory/target"):
            put(self._driver / "target_kb", value.decode())
            put(self._driver / "info/current_kb", value.decode())


@pytest.fixture
def dom0(paths, monkeypatch):
    """A dom0 of 1536 MiB that can have at most that, with 1 GiB free in Xen; its size in KiB when called."""
    driver = paths.root / balloon.DRIVER
    figures = {"target_kb": 1572864, "info/current_kb": 1572864, "info/low_kb": 0, "info/high_kb": 0}
    for name, value in {**figures, "retry_count": 1, "schedule_delay": 1}.items():
        put(driver / name, str(value))
    put(paths.root / "proc/meminfo", "MemTotal: 1424000 kB\nMemAvailable: 1300000 kB\n")
    host = hypercall.HostInfo(
        3 << 20, 1 << 20, 0, 2, 1, 1, 2, 1, 1, "", "4.20", "", "", "", (), (), "dom0_mem=1536M"
    )
    monkeypatch.setattr(hypercall, "host", lambda: host)
    domain = a_domain(UUID, mem_kib=1572864, maxmem_kib=1573888)
    monkeypatch.setattr(hypercall, "domain", lambda _: domain)
    store = BalloonedXenstore(driver)
    monkeypatch.setattr(steps_xen, "connect_xenstore", lambda _: store)
    return lambda: int((driver / "info/current_kb").read_text())


def test_by_default_missing_keys_are_made_from_the_drivers_target(paths, dom0):
    put(paths.root / balloon.DRIVER / "info/current_kb", "1500000")  # on its way

    outcome = planned_then_done(context_of(paths), steps_xen.plan_dom0_memory, steps_xen.set_dom0_memory)

    assert outcome.changes == (
        Change("/local/domain/0/memory/target", None, "1572864"),
        Change("/local/domain/0/memory/static-max", None, "1500000"),
    )


def test_by_default_a_dom0_that_somebody_moves_is_left_to_go_on(paths, dom0):
    """xl shrinks dom0 for a guest: neither the target nor the size of this instant is written over that."""
    store = steps_xen.connect_xenstore(None)
    store.nodes["/local/domain/0/memory/target"] = b"1048576"
    store.nodes["/local/domain/0/memory/static-max"] = b"1572864"
    before = dict(store.nodes)

    assert steps_xen.plan_dom0_memory(context_of(paths)) == ()
    assert isinstance(steps_xen.set_dom0_memory(context_of(paths)), Unchanged)
    assert store.nodes == before
    assert dom0() == 1572864


def test_a_target_that_appears_meanwhile_is_not_written_over(paths, dom0, monkeypatch):
    store = steps_xen.connect_xenstore(None)
    transact = store.transact

    def somebody_is_faster(body):
        store.nodes["/local/domain/0/memory/target"] = b"1048576"
        transact(body)

    monkeypatch.setattr(store, "transact", somebody_is_faster)

    steps_xen.set_dom0_memory(context_of(paths))

    assert store.nodes["/local/domain/0/memory/target"] == b"1048576"
    assert store.nodes["/local/domain/0/memory/static-max"] == b"1572864"


def test_garbage_in_a_memory_key_is_replaced(paths, dom0):
    store = steps_xen.connect_xenstore(None)
    store.nodes["/local/domain/0/memory/target"] = b"much"
    store.nodes["/local/domain/0/memory/static-max"] = b"1572864"

    outcome = planned_then_done(context_of(paths), steps_xen.plan_dom0_memory, steps_xen.set_dom0_memory)

    assert outcome.changes == (Change("/local/domain/0/memory/target", "much", "1572864"),)


@pytest.mark.parametrize(("deadline_s", "moves_s"), [(600.0, 590.0), (30.0, 20.0), (4.0, 2.0), (0.0, 0.0)])
def test_dom0_stops_moving_before_the_steps_deadline(paths, dom0, monkeypatch, deadline_s, moves_s):
    given = []
    monkeypatch.setattr(steps_xen.time, "monotonic", lambda: 100.0)
    real = balloon.set_target

    def set_target(target_kib, store, **options):
        given.append(options["timeout_s"])
        return real(target_kib, store, **options)

    monkeypatch.setattr(balloon, "set_target", set_target)

    steps_xen.set_dom0_memory(context_of(paths, timeout_s=deadline_s, dom0_memory_mib=1536))

    assert given == [moves_s]


def test_the_configured_size_is_what_dom0_gets(paths, dom0):
    context = context_of(paths, dom0_memory_mib=1024)

    planned_then_done(context, steps_xen.plan_dom0_memory, steps_xen.set_dom0_memory)

    assert dom0() == 1024 * 1024


def test_an_unsafe_size_is_refused_and_dom0_left_alone(paths, dom0):
    with pytest.raises(HostagentError, match="dom0 needs"):
        steps_xen.set_dom0_memory(context_of(paths, dom0_memory_mib=128))

    assert dom0() == 1572864


def test_without_a_balloon_driver_the_size_cannot_be_told(paths, dom0):
    (paths.root / balloon.DRIVER / "target_kb").unlink()

    with pytest.raises(OperatorError, match="no usable balloon driver"):
        steps_xen.set_dom0_memory(context_of(paths))


# --- waiting for xenstored ---


def test_xenstored_gets_its_time_once_per_sequence(paths, monkeypatch):
    from hostagent.xen import xenstore as client

    tries, now = [], [100.0]

    def refuse():
        tries.append(now[0])
        raise client.XenstoreUnavailable("there is no xenstored")

    monkeypatch.setattr(client.Xenstore, "connect", refuse)
    monkeypatch.setattr(steps_xen.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(steps_xen.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    context = context_of(paths, xenstore_wait_s=1.0)

    with pytest.raises(client.XenstoreUnavailable):
        steps_xen.connect_xenstore(context)
    first = len(tries)
    with pytest.raises(client.XenstoreUnavailable):
        steps_xen.connect_xenstore(context)

    assert first == 6
    assert len(tries) == first + 1


# --- all of them ---


def test_every_changing_step_is_compared_with_its_plan(project):
    files = ("test_startup_steps.py", "test_startup_database.py", "test_steps_api.py")
    text = "".join((project / "tests/pure" / name).read_text() for name in files)

    assert [step.name for step in STEPS if step.plan and f"{step.plan.__name__}" not in text] == []


@pytest.fixture
def recorded(paths, inventory_file, monkeypatch):
    """What the steps of API and database ask: the facts of a host, its addresses, the daemon's socket."""
    monkeypatch.setattr("hostagent.hostinfo.facts.gather", lambda *_, **__: samples.facts())
    monkeypatch.setattr("hostagent.hostinfo.address.look", dict)
    with listening_socket(socket_path(paths)):
        yield


def test_a_step_holds_only_at_points_its_row_names(
    paths, inventory_file, healthy, scripts, dom0, recorded, monkeypatch
):
    store = steps_xen.connect_xenstore(None)
    held = {}
    host = HostState(hooks=Hooks())
    for step in STEPS:
        reached: list[str] = []
        if step.name != "stop-role-scripts":
            step.run(context_of(paths, host, held=reached, localhost_port=0))
        held[step.name] = reached
    host.scheduler.stop()
    host.close()

    assert store.nodes
    assert {
        step.name: held[step.name] for step in STEPS if not set(held[step.name]) <= set(step.hold_points)
    } == {}
    assert held["start-role-scripts"] == ["scripts-run", "flag-written"]
