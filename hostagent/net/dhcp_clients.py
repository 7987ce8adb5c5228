"""Which DHCP clients run on which device, whoever started them: two on one device make its address come and go.

Found by their command lines and by their sockets, below a root directory: packet sockets name their device, UDP sockets
on a client's port the address of one.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING

from hostagent.named import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

PROGRAMS = ("dhclient", "dhcpcd", "udhcpc", "systemd-networkd", "NetworkManager", "connmand", "pump")
"""By the first 15 characters, as the kernel keeps them in `comm`."""
CLIENT_PORTS = {68, 546}
WITH_VALUE = {
    "dhclient": {
        "-p",
        "-s",
        "-sf",
        "-lf",
        "-pf",
        "-cf",
        "-df",
        "-e",
        "-I",
        "-D",
        "-B",
        "-H",
        "-C",
        "-R",
        "-V",
        "-F",
    },
    "dhcpcd": set("-C -c -e -F -f -h -I -i -j -l -m -O -o -Q -r -S -s -t -u -v -W -w -X -y -Z -z".split())
    | {"--config", "--script", "--hostname", "--timeout", "--metric", "--clientid", "--nohook", "--logfile"},
}
"""Options whose value is the next word, so that it is not taken for a device."""
OURS = re.compile(r"/hostagent-dhcp-[^/]+\.service$")


class Running(NamedTuple):
    """A DHCP client at work on a device."""

    device: str
    """Empty: on every device that it finds."""
    program: str
    pid: int
    unit: str
    """The systemd unit it runs in; empty when it is none."""
    ours: bool
    evidence: str
    """command line, packet socket or UDP port."""

    @property
    def ending(self) -> str:
        """The command that ends it."""
        return f"systemctl stop {self.unit}" if self.unit.endswith(".service") else f"kill {self.pid}"


def foreign(device: str, root: Path, addresses: Mapping[str, str]) -> list[Running]:
    """The clients at work on this device that are not ours."""
    return [
        client for client in running(root, addresses) if client.device in (device, "") and not client.ours
    ]


def running(root: Path, addresses: Mapping[str, str]) -> list[Running]:
    """Every DHCP client, one entry per device. `addresses`: the address of a device (in `inet_ntop`'s form) → its name.

    A daemon that manages networks (systemd-networkd, NetworkManager, connmand) counts only where it has a socket: its
    command line names no device.
    """
    found: dict[tuple[int, str], Running] = {}
    processes = list(_processes(root))
    owners = {inode: pid for pid, *_ in processes for inode in _sockets(root / "proc" / str(pid) / "fd")}
    named = {pid: (program, *_placed(root, pid)) for pid, program, _ in processes}

    def add(pid: int, device: str, evidence: str) -> None:
        program, unit, ours = named[pid]
        found.setdefault((pid, device), Running(device, program, pid, unit, ours, evidence))

    for pid, program, words in processes:
        for device in devices_of(program, words):
            add(pid, device, "command line")
    names = _names(root)
    for index, inode in packet_sockets(_text(root / "proc/net/packet")):
        if inode in owners and index in names:
            add(owners[inode], names[index], "packet socket")
    for file in ("udp", "udp6"):
        for address, inode in udp_sockets(_text(root / "proc/net" / file)):
            if inode in owners and address in addresses:
                add(owners[inode], addresses[address], "UDP port of DHCP clients")
    return sorted(found.values(), key=lambda client: (client.device, client.pid))


def devices_of(program: str, words: list[str]) -> list[str]:
    """The devices that a command line names; `[""]`: it takes all it finds; `[]`: it does not say."""
    if program in ("systemd-networkd", "NetworkManager", "connmand"):
        return []
    if words and words[0].startswith("dhcpcd:"):
        # its own title: `dhcpcd: xenbr0 [ip4] [ip6]`, `dhcpcd: [manager] [ip4]`; its helpers have other words there
        rest = " ".join([words[0].removeprefix("dhcpcd:"), *words[1:]]).split()
        if rest and rest[0] in ("[manager]", "[master]"):
            return [""]
        return [rest[0]] if rest and not rest[0].startswith("[") else []
    given = list(_plain_words(program, words[1:]))
    if program in ("udhcpc", "pump"):
        return [_value_of(words, "-i", "--interface") or "eth0"]
    return given or [""]


def _plain_words(program: str, words: list[str]) -> Iterator[str]:
    takes = WITH_VALUE.get(program, set())
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word in takes:
            skip = True
        elif word and not word.startswith("-"):
            yield word


def _value_of(words: list[str], *options: str) -> str:
    for word, following in zip(words, [*words[1:], ""], strict=False):
        for option in options:
            if word == option:
                return following
            if word.startswith(f"{option}=") or (word.startswith(option) and not option.startswith("--")):
                return word[len(option) :].lstrip("=")
    return ""


def packet_sockets(text: str) -> list[tuple[int, int]]:
    """(index of the device, inode) of each line of /proc/net/packet that is bound to a device."""
    found = []
    for line in text.splitlines()[1:]:
        words = line.split()
        if len(words) >= 9 and words[4].isdecimal() and words[8].isdecimal() and int(words[4]):
            found.append((int(words[4]), int(words[8])))
    return found


def udp_sockets(text: str) -> list[tuple[str, int]]:
    """(local address, inode) of each line of /proc/net/udp or udp6 that has the port of a DHCP client."""
    import socket

    found = []
    for line in text.splitlines()[1:]:
        words = line.split()
        if len(words) < 10 or not words[9].isdecimal():
            continue
        address, _, port = words[1].partition(":")
        with suppress(ValueError):
            if int(port, 16) not in CLIENT_PORTS:
                continue
            raw = bytes.fromhex(address)
            # words of four bytes in the machine's order; every machine that Xen runs Debian on is little-endian
            raw = b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4))
            family = {4: socket.AF_INET, 16: socket.AF_INET6}.get(len(raw))
            if family is not None:
                found.append((socket.inet_ntop(family, raw), int(words[9])))
    return found


def _processes(root: Path) -> Iterator[tuple[int, str, list[str]]]:
    """(pid, program, words of the command line) of each process that is a DHCP client, or may be one."""
    cut = {name[:15]: name for name in PROGRAMS}
    with suppress(OSError):
        for folder in sorted((root / "proc").iterdir()):
            if not folder.name.isdecimal():
                continue
            program = cut.get(_text(folder / "comm").strip())
            if program is not None:
                words = _text(folder / "cmdline").rstrip("\0").split("\0")
                yield int(folder.name), program, words


def _sockets(folder: Path) -> Iterator[int]:
    with suppress(OSError):
        for entry in folder.iterdir():
            with suppress(OSError):
                target = str(entry.readlink())
                if target.startswith("socket:[") and target[8:-1].isdecimal():
                    yield int(target[8:-1])


def _placed(root: Path, pid: int) -> tuple[str, bool]:
    """The systemd unit of a process, and whether it is one of ours."""
    for line in _text(root / "proc" / str(pid) / "cgroup").splitlines():
        path = line.rpartition(":")[2]
        if line.startswith("0::"):
            return next((part for part in reversed(path.split("/")) if part.endswith(".service")), ""), bool(
                OURS.search(path)
            )
    return "", False


def _names(root: Path) -> dict[int, str]:
    """Index of a device → its name."""
    found = {}
    with suppress(OSError):
        for folder in (root / "sys/class/net").iterdir():
            text = _text(folder / "ifindex").strip()
            if text.isdecimal():
                found[int(text)] = folder.name
    return found


def _text(file: Path) -> str:
    """What a file of /proc or /sys holds; empty when the process or device has gone meanwhile."""
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""
