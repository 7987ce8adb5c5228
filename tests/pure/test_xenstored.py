"""Telling a restarted xenstored from a healthy one, over a small /proc and /sys and a fake xenstored."""

from __future__ import annotations

import json

import pytest

from hostagent.xen import xenstored
from hostagent.xen.xenstore import XenstoreUnavailable
from hostagent.xen.xenstored import (
    KERNEL_NODE,
    MARK,
    MEMORY_TARGET,
    TARGET_KIB,
    Daemon,
    Evidence,
    Link,
    Says,
    Variant,
    detect_restart,
    judge,
    look,
    remember,
    running_daemon,
)
from tests.pure import fake_xenstored as fake

BOOT_ID = "df87197b-0413-4be4-ba36-948a1beabe76"
KIB = 1572864


class Host:
    """A dom0 with one xenstored, /proc and /sys below `root`, and a kernel that follows memory/target."""

    def __init__(self, tmp_path):
        self.root = tmp_path / "root"
        self.run_dir = tmp_path / "run"
        self.run_dir.mkdir()
        self.server = fake.FakeXenstored()
        self.kernel_listens = True
        self.write("proc/sys/kernel/random/boot_id", BOOT_ID + "\n")
        self.write(TARGET_KIB, f"{KIB}\n")
        self.start(371, 4347)
        self.server.nodes[KERNEL_NODE] = b"1"
        self.server.on_request = self._kernel
        self.store = self.server.store()

    def write(self, path, text):
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def process(self, pid, name, ticks):
        fields = ["S", *["0"] * 18, str(ticks), *["0"] * 30]
        self.write(f"proc/{pid}/stat", f"{pid} ({name}) {' '.join(fields)}\n")

    def start(self, pid, ticks, name="oxenstored"):
        self.process(pid, name, ticks)
        self.write("run/xenstore.pid", f"{pid}\n")

    def kill(self, pid):
        (self.root / f"proc/{pid}/stat").unlink()

    def restart(self):
        """As measured: the tree is empty and the kernel's watches are gone."""
        self.kill(371)
        self.start(1292, 196799)
        self.server.hang_up()
        self.server.nodes = {"domid": b"0"}
        self.kernel_listens = False

    def detect(self, *, probe=False):
        return detect_restart(
            self.store, root=self.root, run_dir=self.run_dir, probe=probe, pause=lambda s: None
        )

    def look(self):
        return look(root=self.root, run_dir=self.run_dir)

    def remember(self):
        return remember(self.store, root=self.root, run_dir=self.run_dir)

    def _kernel(self, asked):
        if asked.op == fake.WRITE and asked.path == MEMORY_TARGET and self.kernel_listens:
            self.write(TARGET_KIB, asked.words[1].decode() + "\n")
        return False


@pytest.fixture
def host(tmp_path):
    made = Host(tmp_path)
    yield made
    made.store.close()
    made.server.close()


def says(report):
    return {item.check: item.says for item in report.evidence}


@pytest.mark.parametrize("variant", Variant)
def test_the_daemon_is_found_by_its_pid_file(host, variant):
    host.start(371, 4347, variant.value)

    assert running_daemon(root=host.root) == Daemon(variant, 371, 4347)


@pytest.mark.parametrize("pid_file", ["", "garbage", "99999\n", "12\n", "-1", "9" * 500])
def test_with_a_useless_pid_file_the_daemon_is_found_by_name(host, pid_file):
    host.process(12, "sshd", 5)
    host.process(13, "a) (b", 5)
    host.write("proc/14/stat", "torn")
    host.write("run/xenstore.pid", pid_file)

    assert running_daemon(root=host.root) == Daemon(Variant.OXENSTORED, 371, 4347)


def test_without_a_daemon_there_is_none(host):
    host.kill(371)

    assert running_daemon(root=host.root) is None


def test_a_healthy_host_is_connected_also_before_first_contact(host):
    report = host.detect(probe=True)

    assert report.link is Link.CONNECTED
    assert says(report) == {
        "daemon": Says.UNKNOWN,
        "kernel-node": Says.SAME,
        "own-mark": Says.UNKNOWN,
        "probe": Says.SAME,
    }
    assert report.hint == ""


def test_after_first_contact_every_check_says_the_same_daemon(host):
    assert host.remember() == Daemon(Variant.OXENSTORED, 371, 4347)
    assert host.server.nodes[MARK] == BOOT_ID.encode()

    report = host.detect(probe=True)

    assert report.link is Link.CONNECTED
    assert set(says(report).values()) == {Says.SAME}


def test_a_restart_is_detected_and_every_check_says_so(host):
    host.remember()
    host.restart()

    report = host.detect(probe=True)

    assert report.link is Link.RESTARTED
    assert set(says(report).values()) == {Says.RESTARTED}
    assert report.daemon == Daemon(Variant.OXENSTORED, 1292, 196799)
    assert "reboot" in report.hint


def test_a_restart_before_first_contact_is_detected_by_the_kernels_missing_node(host):
    host.restart()

    assert host.detect().link is Link.RESTARTED


def test_remembering_again_after_a_restart_does_not_hide_it(host):
    host.remember()
    host.restart()
    host.remember()

    assert host.detect().link is Link.RESTARTED


def test_a_record_of_an_earlier_boot_says_nothing(host):
    host.remember()
    host.write("proc/sys/kernel/random/boot_id", "another boot\n")
    host.restart()
    host.server.nodes[KERNEL_NODE] = b"1"

    assert host.detect().link is Link.CONNECTED
    assert says(host.detect())["daemon"] is Says.UNKNOWN


@pytest.mark.parametrize("garbage", ["", "{", "[]", "null", '{"boot_id": 7}', "x" * 5000])
def test_a_record_that_is_garbage_says_nothing_and_is_written_anew(host, garbage):
    (host.run_dir / xenstored.RECORD).write_text(garbage)

    assert host.detect().link is Link.CONNECTED

    host.remember()
    assert json.loads((host.run_dir / xenstored.RECORD).read_text())["pid"] == 371


def test_remember_killed_before_the_mark_is_completed_by_the_next(host):
    host.server.is_down = True
    host.server.hang_up()
    with pytest.raises(XenstoreUnavailable):
        host.remember()
    host.server.is_down = False

    assert says(host.detect())["own-mark"] is Says.UNKNOWN
    host.remember()
    assert says(host.detect())["own-mark"] is Says.SAME


def test_a_node_an_operator_removed_is_a_suspicion_that_the_probe_settles(host):
    host.remember()
    del host.server.nodes[KERNEL_NODE]

    assert host.detect().link is Link.SUSPECT
    assert "--probe" in host.detect().hint
    assert host.detect(probe=True).link is Link.CONNECTED


def test_the_probe_leaves_target_and_xenstore_as_they_were(host):
    host.detect(probe=True)

    assert MEMORY_TARGET not in host.server.nodes
    assert (host.root / TARGET_KIB).read_text() == f"{KIB}\n"

    host.server.nodes[MEMORY_TARGET] = str(KIB).encode()
    host.detect(probe=True)

    assert host.server.nodes[MEMORY_TARGET] == str(KIB).encode()


def test_the_probe_does_not_move_a_host_whose_target_the_kernel_did_not_take(host):
    host.server.nodes[MEMORY_TARGET] = b"1048576"

    report = host.detect(probe=True)

    assert says(report)["probe"] is Says.UNKNOWN
    assert fake.WRITE not in [asked.op for asked in host.server.asked]


def overridden(host, value):
    """Somebody sets this target as soon as the kernel has followed the probe's."""
    follow = host.server.on_request

    def kernel(asked):
        handled = follow(asked)
        if asked.op == fake.END and host.server.nodes.get(MEMORY_TARGET) is None:
            host.server.answer(asked)
            host.server.nodes[MEMORY_TARGET] = value
            return True
        return handled

    host.server.on_request = kernel


@pytest.mark.parametrize(("listens", "says_so"), [(True, Says.SAME), (False, Says.UNKNOWN)])
def test_a_target_that_somebody_sets_during_the_probe_stands(host, listens, says_so):
    host.kernel_listens = listens
    overridden(host, b"1153434")

    report = host.detect(probe=True)

    assert says(report)["probe"] is says_so
    assert host.server.nodes[MEMORY_TARGET] == b"1153434"


def test_a_look_from_time_to_time_sees_a_restart_and_asks_nobody(host):
    assert host.look().link is Link.CONNECTED
    host.remember()
    asked = len(host.server.asked)
    assert host.look().link is Link.CONNECTED

    host.restart()

    assert host.look().link is Link.RESTARTED
    assert "pid 1292" in host.look().evidence[0].seen
    assert "reboot" in host.look().hint
    host.kill(1292)
    assert host.look().link is Link.DEAD
    assert len(host.server.asked) == asked


def test_a_look_at_a_host_whose_xenstored_runs_elsewhere_finds_nothing_wrong(host):
    host.kill(371)
    host.remember()

    assert host.look().link is Link.CONNECTED


def test_a_kernel_without_balloon_driver_leaves_the_probe_open(host):
    (host.root / TARGET_KIB).unlink()

    report = host.detect(probe=True)

    assert says(report)["probe"] is Says.UNKNOWN
    assert report.link is Link.CONNECTED
    assert MEMORY_TARGET not in host.server.nodes


def test_a_dead_daemon_is_an_answer(host):
    host.remember()
    host.kill(371)
    host.server.is_down = True
    host.server.hang_up()

    for report in (host.detect(), detect_restart(None, root=host.root, run_dir=host.run_dir)):
        assert report.link is Link.DEAD
        assert report.daemon is None
        assert "systemctl restart xen" in report.hint


def test_a_frozen_daemon_is_dead_too_but_named(host):
    host.store.close()
    host.store = host.server.store(deadline_s=0.02)
    host.server.on_request = lambda asked: True

    report = host.detect()

    assert report.link is Link.DEAD
    assert report.daemon.pid == 371


@pytest.mark.parametrize("daemon", Says)
@pytest.mark.parametrize("node", Says)
@pytest.mark.parametrize("mark", Says)
def test_the_verdict_follows_its_rule(daemon, node, mark):
    found = {"daemon": daemon, "kernel-node": node, "own-mark": mark}
    evidence = [Evidence(check, said, "") for check, said in found.items()]
    signs = [check for check, said in found.items() if said is Says.RESTARTED]
    only_the_node = signs == ["kernel-node"] and Says.SAME not in found.values()

    verdict = judge(evidence)

    assert (verdict is Link.CONNECTED) == (not signs)
    assert (verdict is Link.RESTARTED) == (len(signs) >= 2 or only_the_node)
    assert judge([*evidence, Evidence("probe", Says.SAME, "")]) is Link.CONNECTED
    assert judge([*evidence, Evidence("probe", Says.RESTARTED, "")]) is Link.RESTARTED
    assert judge([*evidence, Evidence("probe", Says.UNKNOWN, "")]) is verdict
