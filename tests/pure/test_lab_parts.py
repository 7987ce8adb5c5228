"""Parts of the lab that need no host: what is alive, verdicts, evidence, commands, the hosts of a test run."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nested_xen import (
    accel,
    cli,
    disks,
    evidence,
    faults,
    fixtures,
    image,
    lab,
    machine,
    network,
    paths,
    process,
    qmp,
    registry,
    slot,
)
from nested_xen.errors import Dom0CrashedError, HostError, LabError
from nested_xen.host import Host, State
from nested_xen.image import Image, Release
from qemu.qmp import QMPError

if TYPE_CHECKING:
    from collections.abc import Callable

TCG = accel.Accel("tcg", "test")


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run folder and cache of these tests."""
    monkeypatch.setenv("HOSTAGENT_LAB_RUN", str(tmp_path / "r"))
    monkeypatch.setenv("HOSTAGENT_LAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(paths, "LONGEST_RUN_FOLDER", 1000)
    return tmp_path


@pytest.fixture
def made(folders: Path, monkeypatch: pytest.MonkeyPatch) -> lab.Lab:
    """A lab without a network."""
    for name in ("connect", "disconnect"):
        monkeypatch.setattr(network, name, lambda *_: None)
    monkeypatch.setattr(process, "started_at", lambda _: None)
    registry.claim("pure")
    found = lab.Lab("pure", Image(Release.TRIXIE, folders / "image"), TCG, None)
    found.record()
    return found


def h1(made: lab.Lab) -> Host:
    return made.hosts["h1"] if "h1" in made.hosts else made.add(machine.standard(1))


# what is alive


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`proc(state, threads)`: process 7 as /proc shows it, started at tick 4711."""
    monkeypatch.setattr(process, "PROC", tmp_path)

    def write(state: str, threads: int) -> None:
        for thread in range(threads):
            (tmp_path / "7" / "task" / str(7 + thread)).mkdir(parents=True)
        fields = [state, *("0" for _ in range(18)), "4711", "0"]
        (tmp_path / "7" / "stat").write_text(f"7 (a ) (b) {' '.join(fields)}\n")

    return write


def test_a_running_process_has_a_start_time(proc: Any) -> None:
    proc("S", 2)
    assert process.started_at(7) == 4711
    assert process.alive(7)
    assert process.started_at(8) is None


def test_a_zombie_has_ended_but_not_while_threads_of_it_live(proc: Any) -> None:
    proc("Z", 1)
    assert process.started_at(7) is None
    assert not process.alive(7)


def test_a_dead_first_thread_does_not_end_the_others(proc: Any) -> None:
    proc("Z", 2)
    assert process.started_at(7) == 4711


# verdicts and keys


def test_a_positive_verdict_about_kvm_is_kept_and_a_negative_one_expires(tmp_path: Path) -> None:
    memory = tmp_path / "accel.json"
    assert accel.remembered(memory, "k", 0) == (False, None)
    memory.write_text(json.dumps({"key": "k", "problem": "no banner", "at": 1000}))
    assert accel.remembered(memory, "k", 1001) == (True, "no banner")
    assert accel.remembered(memory, "other", 1001) == (False, None)
    assert accel.remembered(memory, "k", 1000 + accel.NEGATIVE_S) == (False, None)
    memory.write_text(json.dumps({"key": "k", "problem": None, "at": 1000}))
    assert accel.remembered(memory, "k", 10**9) == (True, None)


@given(st.one_of(st.text(), st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps)))
def test_any_other_file_is_no_verdict(text: str) -> None:
    file = SimpleNamespace(read_text=lambda: text)
    assert accel.remembered(file, "k", 0) == (False, None)  # type: ignore[arg-type]


def test_the_key_of_an_image_covers_the_options_it_is_built_with(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    key = tmp_path / "id"
    key.with_suffix(".pub").write_text("a key")
    monkeypatch.setattr(image, "ssh_key", lambda: key)
    before = image._digest(Release.TRIXIE)
    assert before == image._digest(Release.TRIXIE)
    for name in ("BOOTSTRAP_OPTIONS", "FILE_SYSTEM_OPTIONS", "DISK_OPTIONS"):
        with monkeypatch.context() as patch:
            patch.setattr(image, name, (*getattr(image, name), "--more"))
            assert image._digest(Release.TRIXIE) != before


def test_the_key_of_a_state_covers_what_is_run_before_it_is_saved(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accel, "qemu_version", lambda: "QEMU")
    (folders / "image").mkdir()
    (folders / "image" / "root.qcow2").touch()
    built = Image(Release.TRIXIE, folders / "image")
    before = slot._digest(machine.standard(1), built, TCG)
    monkeypatch.setattr(slot, "WARM_UP", "true")
    assert slot._digest(machine.standard(1), built, TCG) != before


# folders and records


def test_disks_and_logs_are_below_the_cache_and_sockets_in_the_run_folder(
    made: lab.Lab, folders: Path
) -> None:
    found = h1(made)
    assert found.folder.is_relative_to(folders / "cache")
    words = machine.qemu_arguments(
        found.machine, TCG, Path("/boot"), found.folder, sockets=found.sockets, incoming=False
    )
    in_run = [word for word in words if str(folders / "r") in word]
    assert [word.partition(",")[0] for word in in_run] == ["socket", "socket"]
    assert any(f"{folders}/cache/labs/pure/h1/serial.log" in word for word in words)


def test_a_run_folder_too_long_for_sockets_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOSTAGENT_LAB_RUN", "/tmp/" + "x" * 60)
    with pytest.raises(LabError, match="too long"):
        paths.run_folder()


def test_a_name_that_is_taken_cannot_be_claimed_in_this_or_another_run_folder(
    made: lab.Lab, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(LabError, match="lab pure is up already"):
        registry.claim("pure")
    monkeypatch.setenv("HOSTAGENT_LAB_RUN", str(folders / "r2"))
    with pytest.raises(LabError, match=f"of the run folder {folders / 'r'} is up already"):
        registry.claim("pure")
    assert not registry.folder("pure").exists()


def test_the_state_a_host_came_from_is_recorded_whole(made: lab.Lab, folders: Path) -> None:
    h1(made).origin = folders / "elsewhere" / "state"
    h1(made).first_error = "no clock"
    made.record()
    opened = lab.open_lab("pure").hosts["h1"]
    assert (opened.origin, opened.first_error) == (folders / "elsewhere" / "state", "no clock")


# reset and snapshots


@pytest.fixture
def restored(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What hosts were restored from; none is started."""
    found: list[Path] = []
    monkeypatch.setattr(Host, "_restore", lambda _, saved: found.append(saved))
    return found


def test_reset_goes_to_the_origin_also_after_a_reset_to_a_snapshot(
    made: lab.Lab, folders: Path, restored: list[Path]
) -> None:
    found, origin = h1(made), folders / "origin"
    origin.mkdir()
    before = found.folder / "snapshots" / "before"
    before.mkdir(parents=True)
    found.restore(origin)
    found.reset("before")
    found.reset()
    assert restored == [origin, before, origin]


def test_a_missing_state_is_an_error_before_anything_is_done(
    made: lab.Lab, folders: Path, restored: list[Path]
) -> None:
    found = h1(made)
    with pytest.raises(LabError, match="booted cold"):
        found.reset()
    found.origin = folders / "pruned"
    with pytest.raises(LabError, match="is not there any more"):
        found.reset()
    with pytest.raises(LabError, match="h1 has no snapshot before\nhint: snapshots: none"):
        found.reset("before")
    assert restored == []


def test_a_snapshot_is_never_replaced_and_stays_in_its_folder(made: lab.Lab) -> None:
    found = h1(made)
    (found.folder / "snapshots" / "before").mkdir(parents=True)
    with pytest.raises(LabError, match="has a snapshot before already"):
        found.snapshot("before")
    for name in ("../escape", "", ".new", "a/b", "-x", "y" * 65):
        with pytest.raises(LabError, match="cannot name a snapshot"):
            found.snapshot(name)


def test_a_failed_snapshot_lets_the_host_run_on(made: lab.Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[str] = []

    def refuse(state: Path) -> None:
        raise HostError("no space")

    peer = SimpleNamespace(save=refuse, command=commands.append)
    monkeypatch.setattr(qmp, "monitor", lambda _: AsContext(peer))
    with pytest.raises(HostError, match="no space"):
        h1(made).snapshot("before")
    assert commands == ["cont"]
    assert h1(made).snapshots() == []


# identity


def test_only_the_first_boot_and_a_restore_give_an_identity(
    made: lab.Lab, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = h1(made)
    (folders / "saved").mkdir()
    (folders / "saved" / "serial.log").write_text("(XEN) from power-on\n")
    given: list[bool] = []
    for name in ("power_off", "_pull_cables", "wait_booted"):
        monkeypatch.setattr(Host, name, lambda _: None)
    monkeypatch.setattr(Host, "_start", lambda *_, **__: None)
    monkeypatch.setattr(disks, "over", lambda *_: None)
    monkeypatch.setattr(qmp, "monitor", lambda _: AsContext(SimpleNamespace(load=lambda _: None)))

    def become(self: Host, *, new_identity: bool) -> None:
        given.append(new_identity)
        (self.folder / "known_hosts").touch()

    monkeypatch.setattr(Host, "_become_ready", become)
    found.boot()
    found.boot()
    found.restore(folders / "saved")
    found.boot()
    assert given == [True, False, True, False]
    assert (found.folder / "serial.log").read_text() == "(XEN) from power-on\n"


# copying out


def test_a_failed_copy_leaves_the_local_file_as_it_was(
    made: lab.Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Host, "ssh_arguments", lambda _: ["ssh"])
    local = tmp_path / "notes.txt"
    local.write_text("mine")

    def fail(*_: object, output: Any, **__: object) -> None:
        output.write(b"half of")
        raise LabError("no such file")

    monkeypatch.setattr(process, "run", fail)
    with pytest.raises(LabError, match="no such file"):
        h1(made).get("/no/such", local)
    assert local.read_text() == "mine"
    monkeypatch.setattr(process, "run", lambda *_, output, **__: output.write(b"theirs"))
    h1(made).get("/there", local)
    assert local.read_text() == "theirs"
    assert [path.name for path in tmp_path.glob("notes*")] == ["notes.txt"]


# the hosts of a test run


@pytest.fixture
def hosts(made: lab.Lab, monkeypatch: pytest.MonkeyPatch) -> fixtures.Hosts:
    monkeypatch.setattr(Host, "power_off", lambda self: setattr(self, "state", State.OFF))
    return fixtures.Hosts(Release.TRIXIE, "tcg", made)


def test_after_an_odd_machine_the_slot_gets_the_standard_one_with_its_own_taps(
    hosts: fixtures.Hosts, made: lab.Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    taps: list[tuple[str, int]] = []
    monkeypatch.setattr(network, "connect", lambda _, given: taps.append(("made", len(given.nics))))
    monkeypatch.setattr(network, "disconnect", lambda _, given: taps.append(("gone", len(given.nics))))
    hosts.odd(machine.custom(1, nics=1))
    standard = hosts.standard(1)
    assert taps == [("made", 1), ("gone", 1), ("made", 4)]
    assert not standard.machine.odd
    assert hosts.standard(1) is standard


def test_a_failed_host_is_replaced_and_its_disks_are_kept_for_the_last_three(
    hosts: fixtures.Hosts, made: lab.Lab
) -> None:
    for number in range(5):
        failed = hosts.standard(1)
        (failed.folder / "root.qcow2").write_text(f"disk {number}")
        failed.state = State.BROKEN
        assert hosts.standard(1) is not failed
    kept = sorted(registry.store("pure").glob("h1.failed-*"))
    assert [(path / "root.qcow2").read_text() for path in kept] == ["disk 2", "disk 3", "disk 4"]
    assert not (hosts.standard(1).folder / "root.qcow2").exists()


def test_a_kept_lab_is_nobodys_so_that_the_next_one_does_not_remove_it(
    hosts: fixtures.Hosts, made: lab.Lab
) -> None:
    made.owner = 12345
    made.record()
    assert json.loads((registry.folder("pure") / "lab.json").read_text())["owner"] == 12345
    hosts.keep()
    assert json.loads((registry.folder("pure") / "lab.json").read_text())["owner"] is None


def test_hosts_of_a_failed_test_are_broken_before_their_evidence_is_sought(
    made: lab.Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, kept = h1(made), []
    monkeypatch.setattr(evidence, "keep", lambda given, folder, why: kept.append((given.state, why)))
    item: Any = SimpleNamespace(stash=pytest.Stash(), nodeid="tests/xen/test_x.py::test_y")
    item.stash[fixtures.TAKEN] = [found, found]
    fixtures._set_aside(item)
    assert (kept, found.state) == ([], State.OFF)
    item.stash[fixtures.FAILED] = "setup: it did not come up"
    fixtures._set_aside(item)
    fixtures._set_aside(item)  # as after a failed teardown
    assert kept == [(State.BROKEN, "setup: it did not come up")]


# evidence


def test_evidence_never_raises_and_takes_the_live_report_first(
    made: lab.Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = h1(made)
    monkeypatch.setattr(Host, "pid", property(lambda _: 7))

    def fail(_: Host) -> str:
        raise TimeoutError("not even a LabError")

    monkeypatch.setattr(evidence, "_by_ssh", fail)
    monkeypatch.setattr(evidence, "_by_agent", fail)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "of-an-earlier-run").touch()
    evidence.keep(found, tmp_path / "kept", "it failed")
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["missing.txt", "why.txt"]
    assert "not even a LabError" in (tmp_path / "kept" / "missing.txt").read_text()
    (tmp_path / "file").touch()
    evidence.keep(found, tmp_path / "file" / "kept", "no room for it")
    reports = [line for line in evidence.FROM_DOM0.values() if "startup-report.json" in line]
    assert ["/run/" in line for line in reports] == [True, False]


# QEMU's monitor


@pytest.mark.parametrize("error", [TimeoutError(), ConnectionResetError("gone"), QMPError("closed")])
def test_an_unanswered_command_is_a_host_error(error: Exception) -> None:
    def fail(_: object) -> None:
        raise error

    with pytest.raises(HostError, match="QEMU does not answer stop"):
        qmp.Monitor(SimpleNamespace(cmd_obj=fail)).command("stop")  # type: ignore[arg-type]


def test_connecting_has_a_deadline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(qmp, "CONNECT_S", 0.01)
    protocol = qmp._Bounded(str(tmp_path / "qmp"))
    with pytest.raises(TimeoutError):
        protocol._sync(asyncio.Event().wait())
    protocol._aloop.close()


# carrier


def test_a_missing_nic_or_one_that_is_down_is_no_proof_of_a_pulled_cable(
    made: lab.Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(qmp, "monitor", lambda _: AsContext(SimpleNamespace(command=lambda *_, **__: None)))
    monkeypatch.setattr(faults, "_await_by_agent", lambda _host, line, _problem: asked.append(line))
    faults.set_carrier(h1(made), 1, up=False)
    assert asked == ['test "$(cat /sys/bus/pci/devices/0000:00:03.0/virtio*/net/*/carrier)" = 0']


# the command


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = cli.main([*words])
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch, made: lab.Lab) -> lab.Lab:
    monkeypatch.setattr(process, "require_root", lambda: None)
    h1(made)
    return made


def test_without_root_every_command_says_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for words in (["list"], ["down"], ["up"], ["logs", "h1"]):
        code, _, said = run(capsys, *words)
        assert code == 1
        assert said == "error: the lab needs root: taps and network namespaces\nhint: run it with sudo\n"
    code, said, _ = run(capsys, "list", "--json")
    assert json.loads(said)["hint"] == "run it with sudo"


def test_files_that_are_not_there_are_errors_and_no_tracebacks(
    root: lab.Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(capsys, "copy", "--name", "pure", "/no/such", "h1:/x")[0] == 1
    code, _, said = run(capsys, "logs", "--name", "pure", "h1")
    assert (code, said) == (1, "error: h1 has no serial log yet: it was never on\n")

    def full(name: str) -> None:
        raise OSError(28, "No space left on device", "/run")

    monkeypatch.setattr(lab, "down", full)
    code, _, said = run(capsys, "down", "--name", "pure")
    assert code == 1
    assert "error: [Errno 28] No space left on device: '/run'" in said


def test_logs_and_ssh_know_json(root: lab.Lab, capsys: pytest.CaptureFixture[str]) -> None:
    (root.hosts["h1"].folder / "serial.log").write_text("(XEN) hello\n")
    code, said, _ = run(capsys, "logs", "--name", "pure", "--json", "h1")
    assert (code, json.loads(said)) == (0, {"host": "h1", "serial": "(XEN) hello\n"})
    for words in (["logs", "-f"], ["ssh"]):
        code, said, _ = run(capsys, *words, "--name", "pure", "--json", "h1")
        assert code == 1
        assert "has no JSON form" in json.loads(said)["error"]


def test_exec_streams_and_copy_into_a_folder_keeps_the_name(
    root: lab.Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Host, "ssh_arguments", lambda _: ["ssh"])
    streamed: list[list[str]] = []

    def stream(words: list[str], **_: object) -> int:
        streamed.append(words)
        return 3

    monkeypatch.setattr(process, "stream", stream)
    assert run(capsys, "exec", "--name", "pure", "h1", "xl", "info")[0] == 3
    assert streamed == [["ssh", "xl info"]]
    targets: list[Path] = []
    monkeypatch.setattr(Host, "get", lambda _, remote, local: targets.append(local))
    code, _, said = run(capsys, "copy", "--name", "pure", "h1:/etc/fstab", str(tmp_path))
    assert (code, targets) == (0, [tmp_path / "fstab"])
    assert f"copying h1:/etc/fstab to {tmp_path}" in said
    for wrong in (["a", "b"], ["h1:/a", "h1:/b"], ["h9:/a", "b"]):
        assert run(capsys, "copy", "--name", "pure", *wrong)[0] == 1


def test_down_also_takes_what_a_killed_up_was_making(
    root: lab.Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gone: list[str] = []
    monkeypatch.setattr(network, "remove", gone.append)
    registry.claim("make-abcdef")
    other = lab.Lab("make-abcdef", root.image, TCG, 4711)
    other.record()
    record = registry.folder("make-abcdef") / "lab.json"
    record.write_text(record.read_text().replace('"owner_started": null', '"owner_started": 1'))
    code, said, _ = run(capsys, "down", "--name", "pure", "--json")
    assert (code, json.loads(said)) == (0, {"down": ["pure", "make-abcdef"]})
    assert gone == ["pure", "make-abcdef"]
    assert registry.names() == []
    assert not registry.store("make-abcdef").exists()


class AsContext:
    """Stands in for `qmp.monitor(folder)`."""

    def __init__(self, peer: object) -> None:
        self.peer = peer

    def __enter__(self) -> object:
        return self.peer

    def __exit__(self, *_: object) -> None:
        pass


class Crashing(Host):
    """A host whose dom0 has booted, or panicked, as soon as QEMU runs."""

    def wait_booted(self, *, deadline_s: float = 0) -> None:
        self._check_console()

    def _become_ready(self, *, new_identity: bool) -> None:
        self.state = State.READY


@pytest.fixture
def crashing(made: lab.Lab, monkeypatch: pytest.MonkeyPatch) -> Callable[[int, str], Crashing]:
    """Makes a host whose kernel panics in its first boots; each power-on leaves a line on the console."""

    def make(panics: int, kind: str) -> Crashing:
        host = Crashing(made.name, machine.standard(1), made.image, accel.Accel(kind, "test"))
        for folder in (host.folder, host.sockets):
            folder.mkdir(parents=True)
        boots = iter([True] * panics + [False] * 9)

        def power_on(*_: object, **__: object) -> int:
            last = "(XEN) Hardware Dom0 crashed: 'noreboot' set" if next(boots) else "login:"
            with (host.folder / "serial.log").open("a") as console:
                console.write(f"power on\n{last}\n")
            return 1

        monkeypatch.setattr(process, "spawn", power_on)
        return host

    return make


@pytest.mark.parametrize(("panics", "boots"), [(0, 1), (1, 2), (2, 3)])
def test_a_kernel_that_panics_as_it_boots_under_emulation_is_switched_on_again(
    crashing: Callable[[int, str], Crashing], panics: int, boots: int
) -> None:
    host = crashing(panics, "tcg")
    host.boot()
    assert host.state is State.READY
    assert (host.folder / "serial.log").read_text().count("power on") == boots


@pytest.mark.parametrize(("kind", "boots"), [("tcg", 3), ("kvm", 1)])
def test_one_that_goes_on_panicking_is_broken_with_that_error(
    crashing: Callable[[int, str], Crashing], kind: str, boots: int
) -> None:
    host = crashing(9, kind)
    with pytest.raises(Dom0CrashedError, match="panicked"):
        host.boot()
    assert host.state is State.BROKEN
    assert (host.folder / "serial.log").read_text().count("power on") == boots


@pytest.mark.parametrize(
    ("cores", "hosts", "thread"),
    [(2, 1, "multi"), (1, 1, "multi"), (2, 2, "single"), (3, 2, "single"), (4, 2, "multi")],
)
def test_hosts_that_would_share_cores_are_emulated_by_one_thread_each(
    made: lab.Lab, monkeypatch: pytest.MonkeyPatch, cores: int, hosts: int, thread: str
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(cores)))
    taken = accel.choose("tcg", made.image, hosts)
    assert f"thread={thread}" in taken.option
    assert "thread=multi" in taken.alone().option


def test_a_state_is_the_same_for_hosts_that_share_cores_and_hosts_that_do_not(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys: list[str] = []

    def ensure(_prefix: str, digest: str, *_: object) -> Path:
        keys.append(digest)
        return folders

    monkeypatch.setattr(slot, "_ensure", ensure)
    monkeypatch.setattr(accel, "qemu_version", lambda: "test")
    built = Image(Release.TRIXIE, folders / "image")
    built.folder.mkdir()
    built.root.write_bytes(b"")
    for crowded in (False, True):
        slot.booted(machine.standard(1), built, accel.Accel("tcg", "test", crowded))
    assert keys[0] == keys[1]
