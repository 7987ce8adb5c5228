"""The record of every lab that is up, there before anything of the lab is started.

It is `<run folder>/<name>/lab.json`. So `down` finds all of it, also after the process that made the lab was
killed: a lab whose owner is gone is *stale*. What is large (disks, snapshots, logs) is in the lab's *store*,
`<cache>/labs/<name>`; two links, `disks` there and `record` back, tie the two, so that a store whose record is
gone (the machine was booted since) is known as left over.
"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

from nested_xen import network, process
from nested_xen.errors import LabError
from nested_xen.paths import cache, locked, run_folder

if TYPE_CHECKING:
    import contextlib
    from pathlib import Path


def folder(name: str) -> Path:
    """Record, sockets and pids of a lab."""
    return run_folder() / name


def store(name: str) -> Path:
    """Disks, snapshots and logs of a lab."""
    link = folder(name) / "disks"
    return link.readlink() if link.is_symlink() else _stores() / name


def claim(name: str) -> None:
    """Take a name for a new lab: make its folders. Raises LabError when it is taken; the record comes next."""
    try:
        folder(name).mkdir(mode=0o700)
    except FileExistsError as error:
        raise _taken(name) from error
    own = _stores() / name
    with _stores_locked():
        if (own / "record").exists():
            folder(name).rmdir()
            raise _taken(f"{name} of the run folder {(own / 'record').readlink().parent}")
        shutil.rmtree(own, ignore_errors=True)
        (folder(name) / "disks").symlink_to(own)
        own.mkdir(parents=True)
        (own / "record").symlink_to(folder(name))


def write(
    name: str, *, release: str, image: str, accel: dict[str, Any], owner: int | None, hosts: list[Any]
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
    """Was this lab made for a process that has ended? One that another process removes just now is not ours."""
    try:
        record = read(name)
    except LabError:
        return False
    owner = record.get("owner")
    return owner is not None and process.started_at(owner) != record["owner_started"]


def drop_stale() -> list[str]:
    """Take down the labs whose owner has ended; returns their names. Stores without a record go too."""
    stale = [name for name in names() if is_stale(name)]
    for name in stale:
        remove(name)
    with _stores_locked():
        for path in _stores().iterdir():
            if not (path / "record").exists():
                shutil.rmtree(path, ignore_errors=True)
    return stale


def remove(name: str) -> None:
    """Remove a lab: every process in its namespaces, its devices, its files. Harmless when it is half there."""
    # the lock's file stays: who waits for it must not get another one than who comes next
    with locked(run_folder() / f".{name}.lock"):
        network.remove(name)
        shutil.rmtree(store(name), ignore_errors=True)
        shutil.rmtree(folder(name), ignore_errors=True)


def _stores() -> Path:
    return cache() / "labs"


def _stores_locked() -> contextlib.AbstractContextManager[None]:
    _stores().mkdir(exist_ok=True)
    return locked(cache() / "labs.lock")


def _taken(what: str) -> LabError:
    return LabError(f"lab {what} is up already", hint="`lab down` removes it; --name gives another one")
