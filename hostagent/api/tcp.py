"""Listening TCP sockets, and who holds a port that is not free.

The holder is read from /proc, for a start-up step that cannot have its port must name who has it.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import re
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hostagent.errors import OperatorError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BACKLOG = 1024
KEEP_ALIVE = {socket.TCP_KEEPIDLE: 60, socket.TCP_KEEPINTVL: 10, socket.TCP_KEEPCNT: 3}
"""Seconds, seconds, number (tcp(7)): a client whose host has died is noticed after a minute and a half."""
LISTEN_STATE = "0A"  # TCP_LISTEN in the st column of /proc/net/tcp, include/net/tcp_states.h
SOCKET_LINK = re.compile(r"socket:\[(\d+)\]")


class PortTakenError(OperatorError):
    """Another process listens on the port."""


class AddressError(OperatorError):
    """The address cannot be listened on: it is not the host's, or not allowed."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A listening socket of a port. `pid` and `program` are None when no process of ours to see has it open."""

    address: str
    pid: int | None
    program: str | None

    def __str__(self) -> str:
        who = "a process that is not in /proc" if self.pid is None else f"{self.program}, pid {self.pid}"
        return f"{who} (on {self.address})"


def listening_tcp(address: str, port: int, root: Path) -> socket.socket:
    """A listening socket on an IPv4 or IPv6 address; its connections notice a host that has died.

    Raises PortTakenError, which names the holder as `root`/proc tells it, or AddressError.
    """
    try:
        family = socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET
    except ValueError as error:
        raise AddressError(f"{address!r} is not an IP address", hint="give an address, not a name") from error
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in KEEP_ALIVE.items():
            listener.setsockopt(socket.IPPROTO_TCP, option, value)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((address, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise _refused(address, port, root, error) from error
    return listener


def _refused(address: str, port: int, root: Path, error: OSError) -> OperatorError:
    where = f"port {port} on {address}"
    if error.errno != errno.EADDRINUSE:
        return AddressError(
            f"cannot listen on {where}: {error.strerror}", hint="ip address show; only root may below 1024"
        )
    holders = [str(holder) for holder in port_holders(port, root)]
    if not holders:
        return PortTakenError(f"{where} is taken, and no process is seen that holds it", hint="ss -Hltnp")
    return PortTakenError(
        f"{where} is taken by {'; '.join(holders)}",
        hint="stop it or move it to another port, then: systemctl restart hostagent",
    )


def port_holders(port: int, root: Path) -> list[Holder]:
    """Who listens on a TCP port of this network namespace, in the order of the kernel's tables; [] if nobody.

    Source: proc(5), /proc/net/tcp and tcp6 (addresses in hexadecimal words of the machine's byte order, the inode
    in column 10), and the links in /proc/PID/fd.
    """
    listening = [
        (address, inode)
        for table in ("tcp", "tcp6")
        for address, number, inode in _listening(root / "proc/net" / table)
        if number == port
    ]
    owners = _owners({inode for _, inode in listening}, root)
    return [Holder(address, *owners.get(inode, (None, None))) for address, inode in listening]


def _listening(table: Path) -> Iterator[tuple[str, int, str]]:
    """Address, port and inode of each listening socket; lines of another shape are passed over."""
    try:
        lines = table.read_text().splitlines()[1:]
    except (OSError, UnicodeDecodeError):  # a kernel without IPv6 has no tcp6
        return
    for line in lines:
        columns = line.split()
        if len(columns) < 10 or columns[3] != LISTEN_STATE:
            continue
        address, _, port = columns[1].partition(":")
        with contextlib.suppress(ValueError, struct.error):
            yield _address(address), int(port, 16), columns[9]


def _address(digits: str) -> str:
    words = [int(digits[at : at + 8], 16) for at in range(0, len(digits), 8)]
    return str(ipaddress.ip_address(struct.pack(f"={len(words)}I", *words)))


def _owners(inodes: set[str], root: Path) -> dict[str, tuple[int, str]]:
    """The process with the lowest pid that has each socket open: the service, where its children inherit it."""
    found: dict[str, tuple[int, str]] = {}
    with contextlib.suppress(OSError):
        pids = sorted(int(entry.name) for entry in (root / "proc").iterdir() if entry.name.isdecimal())
        for pid in pids:
            for inode in _sockets(root / "proc" / str(pid) / "fd") & inodes - found.keys():
                found[inode] = pid, _program(root / "proc" / str(pid) / "comm")
            if len(found) == len(inodes):
                break
    return found


def _sockets(directory: Path) -> set[str]:
    found = set()
    with contextlib.suppress(OSError):  # the process has ended, or is another user's
        for entry in directory.iterdir():
            with contextlib.suppress(OSError):
                if match := SOCKET_LINK.fullmatch(str(entry.readlink())):
                    found.add(match[1])
    return found


def _program(comm: Path) -> str:
    try:
        return comm.read_text(errors="replace").strip()
    except OSError:
        return "a process that has ended"
