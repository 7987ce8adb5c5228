"""The NICs over which the host has its root file system, where that is on NFS or on disks of iSCSI: they stay plugged.

A card that the firmware booted from over iSCSI is no NIC of the host's at all (`nics_look.py`); this is for hosts whose
initial RAM disk found its root by itself. Reads below a root; what cannot be read counts as not there.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hostagent.net import inet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from hostagent.net.devices import Kernel, Route

MOUNTS, BLOCKS, CONNECTIONS = "proc/self/mountinfo", "sys/dev/block", "sys/class/iscsi_connection"
NFS = ("nfs", "nfs4")
SESSION = re.compile(r"session(\d+)", re.ASCII)
ADDRESSES = ("address", "persistent_address")
"""Of a connection: where it goes now, and where it was told to go, which is left of one that broke."""


def nics(root: Path, look: Callable[[], Kernel]) -> frozenset[str]:
    """Their names; the kernel is looked at only where there is such a server. Raises what `look` does."""
    found = servers(root)
    kernel = look() if found else None
    return frozenset(name for server in found if kernel for name in carriers(kernel, server))


def servers(root: Path) -> frozenset[str]:
    """The addresses that serve the file system mounted at /; empty for a local one."""
    for line in reversed(_text(root / MOUNTS).splitlines()):  # the last one lies on top
        here, _, source = line.partition(" - ")
        words, (kind, *rest) = here.split(), source.split() or [""]
        if len(words) < 5 or words[4] != "/":
            continue
        if kind in NFS:
            options = rest[-1].split(",") if rest else ()
            told = (one.removeprefix("addr=") for one in options if one.startswith("addr="))
        else:
            told = (address for one in _sessions(root / BLOCKS / words[2]) for address in _targets(root, one))
        return frozenset(found for text in told if (found := inet.address(text)))
    return frozenset()


def carriers(kernel: Kernel, server: str) -> set[str]:
    """The names of the lowest devices over which the routes to a server go: a bridge's ports, a bond's members."""
    fitting = [(length, -route.metric, route.device) for route in kernel.routes
               if (length := _length(route, server)) >= 0]  # fmt: skip
    best = max(fitting, default=(0, 0, 0))[:2]
    return {name for *key, device in fitting if tuple(key) == best for name in _lowest(kernel, device)}


def _length(route: Route, server: str) -> int:
    """Of the prefix with which a route fits; -1 when it does not."""
    if route.destination == f"default{inet.family(server)}":
        return 0
    found = inet.cidr(route.destination)
    return found[1] if found and inet.contains(*found, server) else -1


def _lowest(kernel: Kernel, index: int) -> set[str]:
    link = kernel.links.get(index)
    if link is None:
        return set()
    under = [port.ifindex for port in kernel.links.values() if port.master == index]
    if link.kind == "vlan":
        under.append(link.lower)
    return {name for one in under for name in _lowest(kernel, one)} or {link.name}


def _sessions(block: Path) -> set[str]:
    """Numbers of the iSCSI sessions that a disk comes from, or those that it is made of (LVM, RAID, several paths)."""
    here = block.resolve()
    found = {one[1] for part in here.parts if (one := SESSION.fullmatch(part))}
    whole = here.parent if (here / "partition").exists() else here
    return found.union(*(_sessions(slave) for slave in _entries(whole / "slaves")))


def _targets(root: Path, session: str) -> Iterable[str]:
    for connection in _entries(root / CONNECTIONS):
        if connection.name.startswith(f"connection{session}:"):
            yield next(filter(None, (_text(connection / name).strip() for name in ADDRESSES)), "")


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _text(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""
