"""A lab leaves nothing behind: not after `down`, and not when the process that made it was killed."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import nested_xen
import pytest
from nested_xen import lab, network, process, progress, registry, services, wire
from nested_xen.errors import LabError
from nested_xen.paths import cache, locked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nested_xen.lab import Lab

START_S = 30
CHILD = """
import os, sys, time
from nested_xen import lab, services, wire
made = lab.create_segments(sys.argv[1], owner=os.getpid())
port = wire.join(made.name, "storage", "a")
server = services.dhcp(made.name, "storage")
print("up", server.pid, flush=True)
time.sleep(600)
"""


def inodes(name: str) -> set[int]:
    """What tells the lab's namespaces from others, also once their names are gone."""
    return {(network.NAMESPACES / namespace).stat().st_ino for namespace in network.namespaces(name)}


def processes(namespaces: set[int]) -> list[str]:
    """Every process of the machine that is in one of these namespaces."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "ns" / "net").stat().st_ino in namespaces:
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return found


def test_down_ends_every_process_and_removes_every_device_and_file(segments: Lab, need) -> None:
    need("dnsmasq", "dnsmasq-base")
    links_before = process.run(["ip", "-br", "link"]).stdout
    port = wire.join(segments.name, "storage", "a")
    server = services.dhcp(segments.name, "storage")
    namespaces, store = inodes(segments.name), registry.store(segments.name)
    assert len(namespaces) == 2
    assert len(processes(namespaces)) == 1  # dnsmasq
    assert (store / "servers").exists()
    lab.down(segments.name)
    assert processes(namespaces) == []
    assert network.namespaces(segments.name) == []
    assert not server.running
    assert not segments.folder.exists()
    assert not store.exists()
    assert process.run(["ip", "-br", "link"]).stdout == links_before
    port.close()
    lab.down(segments.name)


def test_the_next_lab_takes_down_one_whose_process_was_killed(
    segments: Lab, need, tmp_path: Path, own_run_folder: Path
) -> None:
    need("dnsmasq", "dnsmasq-base")
    name = f"{segments.name}-dead"
    source = Path(nested_xen.__file__).parent.parent
    words = ["env", f"PYTHONPATH={source}", sys.executable, "-c", CHILD, name]
    log = tmp_path / "child.log"
    child = process.spawn(words, log=log)
    deadline = time.monotonic() + START_S
    while "up" not in log.read_text():
        assert process.alive(child), log.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    server = int(log.read_text().split()[-1])
    assert not registry.is_stale(name)
    process.kill(child)
    assert process.alive(server)
    assert registry.is_stale(name)
    namespaces, store = inodes(name), registry.store(name)
    assert processes(namespaces)
    assert store.exists()
    assert json.loads((own_run_folder / name / "lab.json").read_text())["owner"] == child

    other = lab.create_segments(f"{segments.name}-next", owner=os.getpid())
    try:
        assert name not in registry.names()
        assert network.namespaces(name) == []
        assert processes(namespaces) == []
        assert not store.exists()
        assert not process.alive(server)
        assert not (own_run_folder / name).exists()
    finally:
        lab.down(other.name)


def test_a_lab_that_cannot_be_made_leaves_nothing_and_may_be_tried_again(
    segments: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"{segments.name}-half"

    def fail(lab: str) -> None:
        process.run(["ip", "netns", "add", network.namespace(lab)])
        raise LabError("no capability")

    with monkeypatch.context() as patch:
        patch.setattr(network, "create", fail)
        with pytest.raises(LabError, match="no capability"):
            lab.create_segments(name, owner=os.getpid())
    assert name not in registry.names()
    assert network.namespaces(name) == []
    made = lab.create_segments(name, owner=os.getpid())
    with pytest.raises(LabError, match="is up already"):
        lab.create_segments(name, owner=os.getpid())
    assert lab.open_lab(name).name == made.name
    lab.down(name)


def test_a_lab_without_its_namespace_is_listed_without_segments(segments: Lab) -> None:
    assert "management" in network.segments(segments.name)
    network.remove(segments.name)
    assert network.segments(segments.name) == []


def test_disks_of_a_lab_whose_record_is_gone_go_with_the_next_lab(segments: Lab) -> None:
    left = cache() / "labs" / "before-the-reboot"
    left.mkdir()
    (left / "record").symlink_to("/nowhere/before-the-reboot")
    registry.drop_stale()
    assert not left.exists()
    assert registry.store(segments.name).exists()


def test_a_record_that_another_process_removes_just_now_is_not_stale(segments: Lab) -> None:
    assert not registry.is_stale(f"{segments.name}-gone")


# a shell gives SIGINT to what it starts with `&` as ignored, and Python leaves it so
RUNNER = """
import signal, sys
from pathlib import Path
from nested_xen import process
signal.signal(signal.SIGINT, signal.default_int_handler)
process.run(["sh", "-c", "sleep 777 & echo $! >" + sys.argv[1] + "; wait"], contained=True, timeout_s=600)
"""


def sleepers() -> list[Path]:
    """Processes of the machine that run RUNNER's sleep."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "cmdline").read_bytes() == b"sleep\x00777\x00":
                found.append(folder)
        except OSError:
            continue
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_what_is_run_ends_with_us_with_all_it_started(
    segments: Lab, tmp_path: Path, number: signal.Signals
) -> None:
    source = Path(nested_xen.__file__).parent.parent
    started, log = tmp_path / "started", tmp_path / "log"
    words = ["env", f"PYTHONPATH={source}", sys.executable, "-c", RUNNER, str(started)]
    runner = process.spawn(words, log=log)
    until(lambda: started.exists() and bool(sleepers()), "the sleep does not start")
    os.kill(runner, number)
    until(lambda: not process.alive(runner) and sleepers() == [], "the sleep survives")


def test_what_an_exception_interrupts_is_ended(segments: Lab) -> None:
    class InterruptedByATimerError(BaseException):
        pass

    def interrupt(*_: object) -> None:
        raise InterruptedByATimerError

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        with pytest.raises(InterruptedByATimerError):
            process.run(["sleep", "777"], timeout_s=600)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert sleepers() == []


def test_a_long_wait_for_a_lock_is_shown(
    segments: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lock"
    shown = []

    @contextlib.contextmanager
    def step(title: str) -> Iterator[None]:
        shown.append(title)
        holder.close()  # the other process lets go
        yield

    holder = path.open("w")
    fcntl.flock(holder, fcntl.LOCK_EX)
    monkeypatch.setattr(progress, "step", step)
    with locked(path, held_to="build the image"):
        pass
    with locked(path, held_to="build the image"):
        pass
    assert shown == ["waiting for another process to build the image"]


def until(holds: Callable[[], bool], problem: str) -> None:
    deadline = time.monotonic() + START_S
    while not holds():
        assert time.monotonic() < deadline, problem
        time.sleep(0.05)
