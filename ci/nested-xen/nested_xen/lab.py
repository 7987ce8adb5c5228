"""A lab: hosts and segments that come and go together.

Its record (`registry`) is written before anything is started, so that `down` finds everything also after the
process that made the lab was killed; labs whose owner process is gone are taken down by the next `up`.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nested_xen import accel as accelerators
from nested_xen import disks, network, process, progress, registry, slot
from nested_xen import image as images
from nested_xen.accel import Accel
from nested_xen.errors import LabError
from nested_xen.host import Host, State
from nested_xen.image import Image, Release
from nested_xen.machine import Disk, Machine, Nic
from nested_xen.paths import cache

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@dataclass
class Lab:
    """Hosts by slot name, all of one release, in one network namespace."""

    name: str
    image: Image
    accel: Accel
    owner: int | None
    """Pid whose end makes this lab stale; None: it stays until `down`."""
    hosts: dict[str, Host] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return registry.folder(self.name)

    def add(self, machine: Machine) -> Host:
        """Prepare a host's folder and taps; the host is off."""
        folder = self.folder / machine.name
        folder.mkdir(parents=True, exist_ok=True)
        host = Host(self.name, machine, self.image, self.accel, folder)
        self.hosts[machine.name] = host
        self.record()
        network.connect(self.name, machine)
        return host

    def forget(self, name: str) -> None:
        """Drop a host that is off: its taps and its folder go."""
        network.disconnect(self.name, self.hosts[name].machine)
        shutil.rmtree(self.hosts.pop(name).folder)
        self.record()

    def start(self, machine: Machine) -> Host:
        """A ready host: from its slot's saved state, or by a cold boot when the machine is odd."""
        host = self.add(machine)
        self.bring_up(host)
        return host

    def bring_up(self, host: Host) -> None:
        """Make an added host ready, from a saved state where its hardware has one."""
        if host.machine.odd:
            disks.new(host.machine, self.image, host.folder)
            with progress.step(f"cold boot of {host.name}"):
                host.boot()
        else:
            saved = slot.booted(host.machine, self.image, self.accel)
            with progress.step(f"restoring {host.name}"):
                host.restore(saved)
        self.record()

    def record(self) -> None:
        """Write down what the lab consists of now."""
        registry.write(
            self.name,
            release=self.image.release,
            image=self.image.folder.name,
            accel=dataclasses.asdict(self.accel),
            owner=self.owner,
            hosts=[
                {
                    "machine": dataclasses.asdict(host.machine),
                    "saved": str(host.saved) if host.saved else None,
                    "state": host.state,
                }
                for host in self.hosts.values()
            ],
        )


def create(name: str, release: Release, *, accel: str = "auto", owner: int | None = None) -> Lab:
    """An empty lab: its image (built if need be), accelerator and namespace."""
    _make_room(name)
    process.require("qemu-system-x86_64", "qemu-system-x86")
    image = images.ensure(release)
    return _create(Lab(name, image, accelerators.choose(accel, image), owner))


def create_segments(name: str, *, owner: int | None = None) -> Lab:
    """A lab that has segments and servers but can have no host: needs neither image nor QEMU."""
    _make_room(name)
    image = Image(Release.BOOKWORM, cache() / "images" / "none")
    return _create(Lab(name, image, Accel("none", "a lab without hosts"), owner))


def _make_room(name: str) -> None:
    _check_name(name)
    if os.geteuid() != 0:
        raise LabError("the lab needs root: taps and network namespaces", hint="run it with sudo")
    process.require("ip", "iproute2")
    for stale in registry.drop_stale():
        progress.note(f"took lab {stale} down: the process that made it is gone")
    if registry.folder(name).exists():
        raise LabError(f"lab {name} is up already", hint=f"lab down --name {name}, or give another --name")


def _create(lab: Lab) -> Lab:
    lab.record()
    network.create(lab.name)
    return lab


def open_lab(name: str) -> Lab:
    """A lab that is up, as its record says."""
    data = registry.read(name)
    image = Image(Release(data["release"]), cache() / "images" / data["image"])
    lab = Lab(name, image, Accel(**data["accel"]), data["owner"])
    for entry in data["hosts"]:
        machine = _machine(entry["machine"])
        host = Host(name, machine, image, lab.accel, lab.folder / machine.name)
        host.saved = cache() / "states" / entry["saved"].rpartition("/")[2] if entry["saved"] else None
        host.state = State(entry["state"]) if host.pid is not None else State.OFF
        lab.hosts[machine.name] = host
    return lab


def down(name: str) -> None:
    """Remove a lab: every process in its namespace, its devices, its files. Harmless when it is gone or half
    there.
    """
    _check_name(name)
    registry.remove(name)


def _machine(data: dict[str, object]) -> Machine:
    nics: Sequence[dict[str, object]] = data.pop("nics")  # type: ignore[assignment]
    spare: Sequence[dict[str, object]] = data.pop("disks")  # type: ignore[assignment]
    return Machine(
        nics=tuple(Nic(**nic) for nic in nics),  # type: ignore[arg-type]
        disks=tuple(Disk(**disk) for disk in spare),  # type: ignore[arg-type]
        **data,  # type: ignore[arg-type]
    )


def _check_name(name: str) -> None:
    if not name.isascii() or not name.replace("-", "").isalnum() or len(name) > 20:
        raise LabError(f"{name!r} cannot name a lab", hint="letters, digits and dashes, at most 20")
