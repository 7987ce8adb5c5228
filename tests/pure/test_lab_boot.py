"""Booting under emulation: kernels that panic, hosts that share cores."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import pytest
from nested_xen import accel, lab, machine, process, slot
from nested_xen.errors import Dom0CrashedError, HostError
from nested_xen.host import Host, State
from nested_xen.image import Image, Release

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


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


@pytest.mark.parametrize(("ends", "boots"), [(True, 2), (False, 1)])
def test_a_qemu_that_crashes_as_it_boots_is_started_again_and_one_that_is_silent_is_not(
    made: lab.Lab, monkeypatch: pytest.MonkeyPatch, *, ends: bool, boots: int
) -> None:
    class Silent(Crashing):
        def wait_booted(self, *, deadline_s: float = 0) -> None:
            if len(started) == 1:
                raise HostError("QEMU does not answer")

    host = Silent(made.name, machine.standard(1), made.image, accel.Accel("tcg", "test"))
    for folder in (host.folder, host.sockets):
        folder.mkdir(parents=True)
    started: list[int] = []

    def power_on(*_: object, **__: object) -> int:
        started.append(1)
        return 1

    monkeypatch.setattr(process, "spawn", power_on)
    monkeypatch.setattr(process, "started_at", lambda _pid: None if ends else 7)
    monkeypatch.setattr(process, "kill", lambda _pid: None)
    with contextlib.nullcontext() if ends else pytest.raises(HostError, match="does not answer"):
        host.boot()
    assert len(started) == boots


@pytest.mark.parametrize(
    ("cores", "hosts", "beside", "thread", "alone"),
    [
        (2, 1, 0, "multi", "multi"),
        (1, 1, 0, "multi", "multi"),
        (2, 2, 0, "single", "multi"),
        (3, 2, 0, "single", "multi"),
        (4, 2, 0, "multi", "multi"),
        (2, 1, 1, "single", "single"),
        (4, 1, 1, "multi", "multi"),
    ],
)
def test_hosts_that_would_share_cores_are_emulated_by_one_thread_each(
    made: lab.Lab,
    monkeypatch: pytest.MonkeyPatch,
    cores: int,
    hosts: int,
    beside: int,
    thread: str,
    alone: str,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(cores)))
    taken = accel.choose("tcg", made.image, hosts, beside)
    assert f"thread={thread}" in taken.option
    assert f"thread={alone}" in taken.alone().option


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
    for crowded, beside in ((False, 0), (True, 0), (True, 1)):
        slot.booted(machine.standard(1), built, accel.Accel("tcg", "test", crowded, beside))
    assert len(set(keys)) == 1
