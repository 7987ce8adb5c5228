# mypy: disable-error-code="union-attr,attr-defined,arg-type"
# each test knows which outcome it has; modules are reached through the one that uses them
"""The steps that look at Xen, and the checks of a dom0, on a fabricated host."""

from __future__ import annotations

import pytest

from hostagent.errors import OperatorError
from hostagent.run import CommandError
from hostagent.startup import checks, steps_xen
from hostagent.startup.state import HostState, learn
from hostagent.startup.step import Unchanged
from hostagent.xen import hypercall, xenstored
from tests.pure.startup_host import UUID, a_domain, planned_then_done
from tests.pure.startup_tree import context_of, put

# --- Xen ---


def with_inventory(paths, **state):
    host = HostState(**state)
    learn(context_of(paths).config, host)
    return context_of(paths, host)


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
