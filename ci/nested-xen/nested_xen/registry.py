"""The record of every lab that is up, there before anything of the lab is started.

It is `<run folder>/<name>/lab.json`. So `down` finds all of it, also after the process that made the lab was
killed: a lab whose owner is gone is *stale*.
"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

from nested_xen import network, process
from nested_xen.errors import LabError
from nested_xen.paths import locked, run_folder

if TYPE_CHECKING:
    from pathlib import Path


def folder(name: str) -> Path:
    return run_folder() / name


def write(
    name: str, *, release: str, image: str, accel: dict[str, str], owner: int | None, hosts: list[Any]
) -> None:
    """Write a lab's record atomically. `owner`: the pid whose end makes it stale; None: it stays until
    `down`.
    """
    record = {
        "release": release,
        "image": image,
        "accel": accel,
        "owner": owner,
        "owner_started": process.started_at(owner) if owner else None,
        "hosts": hosts,
    }
    folder(name).mkdir(parents=True, exist_ok=True)
    new = folder(name) / "lab.json.new"
    new.write_text(json.dumps(record, indent=1))
    new.rename(folder(name) / "lab.json")


def read(name: str) -> dict[str, Any]:
    """A lab's record. Raises LabError: no such lab."""
    try:
        record: dict[str, Any] = json.loads((folder(name) / "lab.json").read_text())
    except FileNotFoundError as error:
        up = ", ".join(names()) or "none"
        raise LabError(f"there is no lab {name} (up: {up})", hint=f"lab up --name {name}") from error
    return record


def names() -> list[str]:
    """Labs that are up."""
    return sorted(path.parent.name for path in run_folder().glob("*/lab.json"))


def is_stale(name: str) -> bool:
    """Was this lab made for a process that has ended?"""
    record = read(name)
    return record["owner"] is not None and process.started_at(record["owner"]) != record["owner_started"]


def drop_stale() -> list[str]:
    """Take down the labs whose owner has ended; returns their names."""
    stale = [name for name in names() if is_stale(name)]
    for name in stale:
        remove(name)
    return stale


def remove(name: str) -> None:
    """Remove a lab: every process in its namespaces, its devices, its files. Harmless when it is half there."""
    with locked(run_folder() / f".{name}.lock"):
        network.remove(name)
        shutil.rmtree(folder(name), ignore_errors=True)
    (run_folder() / f".{name}.lock").unlink(missing_ok=True)
