"""Parts of the lab that need no host: what is alive, verdicts, folders, snapshots, copying, faults."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nested_xen import accel, disks, faults, image, lab, machine, paths, process, qmp, registry, slot
from nested_xen.errors import HostError, LabError
from nested_xen.host import Host
from nested_xen.image import Image, Release
from qemu.qmp import QMPError

from tests.pure.lab_hosts import TCG, AsContext, h1

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
