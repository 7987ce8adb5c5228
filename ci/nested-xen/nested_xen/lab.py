"""A lab: hosts and segments that come and go together.

Its record (`registry`) is written before anything is started, so that `down` finds everything also after the
process that made the lab was killed; labs whose owner process is gone are taken down by the next `up`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from dataclasses import dataclass, field
from pathlib import Path
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
    from collections.abc import Iterator, Sequence

KEPT_ASIDE = 3  # failed hosts per lab


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
        """Prepare a host's folders and taps; the host is off."""
        host = Host(self.name, machine, self.image, self.accel)
        for path in (host.folder, host.sockets):
            path.mkdir()
        self.hosts[machine.name] = host
        self.record()
        network.connect(self.name, machine)
        return host

    def forget(self, name: str) -> None:
        """Drop a host that is off: its taps and its folders go."""
        host = self.hosts.pop(name)
        network.disconnect(self.name, host.machine)
        for path in (host.folder, host.sockets):
            shutil.rmtree(path)
        self.record()

    def set_aside(self, name: str) -> Path:
        """Drop a host that is off but keep its disks and logs; of the KEPT_ASIDE last ones, until `down`."""
        host = self.hosts[name]
        before = sorted(host.folder.parent.glob("*.failed-*"), key=lambda path: path.stat().st_mtime)
        for path in before[: len(before) - KEPT_ASIDE + 1]:
            shutil.rmtree(path)
        number = max((int(path.name.rpartition("-")[2]) for path in before), default=0) + 1
        kept = host.folder.with_name(f"{name}.failed-{number}")
        host.folder.rename(kept)
        host.folder.mkdir()
        self.forget(name)
        return kept

    def start(self, machine: Machine) -> Host:
        """A ready host: from its slot's saved state, or by a cold boot when the machine is odd."""
        host = self.add(machine)
        self.bring_up(host)
        return host

    def bring_up(self, host: Host) -> None:
        """Make an added host ready, from a saved state where its hardware has one."""
        if host.machine.odd:
            disks.new(host.machine, self.image, host.folder)
            with self._recorded(), progress.step(f"cold boot of {host.name}"):
                host.boot()
        else:
            saved = slot.booted(host.machine, self.image, self.accel)
            with self._recorded(), progress.step(f"restoring {host.name}"):
                host.restore(saved)

    @contextlib.contextmanager
    def _recorded(self) -> Iterator[None]:
        try:
            yield
        finally:
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
                    "origin": str(host.origin) if host.origin else None,
                    "state": host.state,
                    "first_error": host.first_error,
                }
                for host in self.hosts.values()
            ],
        )


def create(
    name: str,
    release: Release,
    *,
    accel: str = "auto",
    hosts: int = 1,
    beside: int = 0,
    owner: int | None = None,
) -> Lab:
    """An empty lab: its image (built if need be), accelerator and namespace. `hosts`: how many are to run at a time;
    `beside`: how many of other labs do.
    """
    _make_room(name)
    process.require("qemu-system-x86_64", "qemu-system-x86")
    image = images.ensure(release)
    return _create(Lab(name, image, accelerators.choose(accel, image, hosts, beside), owner))


def create_segments(name: str, *, owner: int | None = None) -> Lab:
    """A lab that has segments and servers but can have no host: needs neither image nor QEMU."""
    _make_room(name)
    image = Image(Release.BOOKWORM, cache() / "images" / "none")
    return _create(Lab(name, image, Accel("none", "a lab without hosts"), owner))


def _make_room(name: str) -> None:
    _check_name(name)
    process.require_root()
    process.require("ip", "iproute2")
    for stale in registry.drop_stale():
        progress.note(f"took lab {stale} down: the process that made it is gone")
    if registry.folder(name).exists():
        raise LabError(f"lab {name} is up already", hint=f"lab down --name {name}, or give another --name")
    if network.namespaces(name):
        raise LabError(
            f"there is a network namespace of a lab {name}, but no record", hint=f"lab down --name {name}"
        )


def _create(lab: Lab) -> Lab:
    registry.claim(lab.name)
    try:
        lab.record()
        network.create(lab.name)
    except BaseException:
        registry.remove(lab.name)
        raise
    return lab


def open_lab(name: str) -> Lab:
    """A lab that is up, as its record says."""
    data = registry.read(name)
    image = Image(Release(data["release"]), cache() / "images" / data["image"])
    lab = Lab(name, image, Accel(**data["accel"]), data["owner"])
    for entry in data["hosts"]:
        machine = _machine(entry["machine"])
        host = Host(name, machine, image, lab.accel)
        host.origin = Path(entry["origin"]) if entry["origin"] else None
        host.state = State(entry["state"]) if host.pid is not None else State.OFF
        host.first_error = entry["first_error"]
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
