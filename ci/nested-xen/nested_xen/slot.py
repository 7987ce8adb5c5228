"""Saved states: a slot's machine, booted once and frozen, so that a fresh booted host takes seconds.

On disk: `states/<slot>-<hash>/` with `state` (memory and devices) and the qcow2 files it goes with; never
written again once the folder has its name. The hash covers everything a state depends on: image, QEMU
version, accelerator, hardware. Every slot is booted by itself, so two of them share neither MACs nor keys nor
random pool.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
from typing import TYPE_CHECKING

from nested_xen import accel as accelerators
from nested_xen import disks, evidence, network, progress, qmp, registry
from nested_xen.host import Host
from nested_xen.machine import qemu_arguments
from nested_xen.paths import cache, locked, run_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from nested_xen.accel import Accel
    from nested_xen.image import Image
    from nested_xen.machine import Machine

KEPT_STATES = 2  # per slot, release and kind

# What tests and people run first on a host: run once before the state is saved, so that every restored host
# has it in its page cache.
WARM_UP = (
    "xl info >/dev/null; xenstore-ls >/dev/null; python3 -c 'import libvirt, json, asyncio';"
    " virsh -c xen:///system list >/dev/null; lvs >/dev/null 2>&1; ip -j link >/dev/null;"
    " ssh-keyscan -T 1 localhost >/dev/null 2>&1; true"
)


def booted(machine: Machine, image: Image, accel: Accel) -> Path:
    """The folder of a slot's booted state, made now if there is none (one cold boot)."""
    return _ensure(
        f"{machine.name}-{image.release}-booted",
        _digest(machine, image, accel),
        lambda host: _first_boot(host, machine, image),
        lambda lab: Host(lab, machine, image, accel.alone()),
        f"booting {machine.name} ({image.release}) for the first time",
    )


def prepared(
    base: Path,
    machine: Machine,
    image: Image,
    accel: Accel,
    *,
    kind: str,
    digest: str,
    prepare: Callable[[Host], None],
) -> Path:
    """A state on top of another one: `base` restored, `prepare` done to it, saved again under `kind` and
    `digest`.
    """

    def work(host: Host) -> None:
        host.restore(base)
        prepare(host)

    return _ensure(
        f"{machine.name}-{image.release}-{kind}",
        hashlib.sha256(f"{base.name} {digest}".encode()).hexdigest()[:16],
        work,
        lambda lab: Host(lab, machine, image, accel.alone()),
        f"preparing {machine.name} ({image.release}) as {kind}",
    )


def _ensure(
    prefix: str,
    digest: str,
    work: Callable[[Host], None],
    make_host: Callable[[str], Host],
    title: str,
) -> Path:
    folder = cache() / "states" / f"{prefix}-{digest}"
    with locked(cache() / "states" / f"{prefix}.lock", held_to=f"make the state {prefix}"):
        if not folder.exists():
            with progress.step(title):
                _make(folder, work, make_host)
            _drop_older(folder, prefix)
    return folder


def _make(folder: Path, work: Callable[[Host], None], make_host: Callable[[str], Host]) -> None:
    """Make a state in a lab of its own, which is stale, so that `down` takes it, when we are killed."""
    lab = "make-" + hashlib.sha256(f"{run_folder()} {folder.name}".encode()).hexdigest()[:6]
    registry.remove(lab)
    registry.claim(lab)
    host = make_host(lab)
    registry.write(
        lab,
        release=host.image.release,
        image=host.image.folder.name,
        accel=dataclasses.asdict(host.accel),
        owner=os.getpid(),
        hosts=[],
    )
    try:
        for path in (host.folder, host.sockets):
            path.mkdir()
        network.create(lab)
        network.connect(lab, host.machine)
        work(host)
        host.exec("sync")
        host.close_ssh()
        with qmp.monitor(host.sockets) as monitor:
            monitor.save(host.folder / "state")
        host.power_off()
        for leftover in ("host_key", "host_key.pub", "known_hosts", "qemu.log"):
            (host.folder / leftover).unlink(missing_ok=True)
        host.folder.rename(folder)
    except Exception as error:
        kept = cache() / "failed" / folder.name.rpartition("-")[0]
        evidence.keep(host, kept, str(error))
        progress.note(f"what there is of the host that failed: {kept}")
        raise
    finally:
        registry.remove(lab)


def _first_boot(host: Host, machine: Machine, image: Image) -> None:
    disks.new(machine, image, host.folder)
    host.boot()
    host.exec(WARM_UP)


def _digest(machine: Machine, image: Image, accel: Accel) -> str:
    # whether others ran beside it makes no other state
    uncrowded = dataclasses.replace(accel, crowded=False)
    words = qemu_arguments(machine, uncrowded, image.folder, cache(), sockets=cache(), incoming=False)
    # a state's disks stand on this very file: an image built again from the same recipe is another one
    built = image.root.stat().st_mtime_ns
    return hashlib.sha256(f"{accelerators.qemu_version()} {built} {words} {WARM_UP}".encode()).hexdigest()[
        :16
    ]


def _drop_older(folder: Path, prefix: str) -> None:
    others = [path for path in folder.parent.glob(f"{prefix}-*") if path.is_dir()]
    others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for other in others[KEPT_STATES:]:
        shutil.rmtree(other, ignore_errors=True)
