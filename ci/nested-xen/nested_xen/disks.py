"""Disk files of a host: qcow2 overlays over the frozen files of an image or a saved state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nested_xen import process

if TYPE_CHECKING:
    from pathlib import Path

    from nested_xen.image import Image
    from nested_xen.machine import Machine


def overlay(base: Path, path: Path) -> None:
    """A fresh overlay that shows `base` until it is written; replaces what stood at `path`."""
    path.unlink(missing_ok=True)
    process.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", path])


def new(machine: Machine, image: Image, folder: Path) -> None:
    """The disks of a machine that boots for the first time: the image's root, empty spare disks."""
    overlay(image.root, folder / "root.qcow2")
    for disk in machine.disks:
        process.run(["qemu-img", "create", "-q", "-f", "qcow2", folder / f"{disk.name}.qcow2", disk.size])


def over(machine: Machine, saved: Path, folder: Path) -> None:
    """The disks of a machine that goes on from a saved state: overlays over the state's files."""
    for name in ("root", *(disk.name for disk in machine.disks)):
        overlay(saved / f"{name}.qcow2", folder / f"{name}.qcow2")
