"""By which name a DHCP server knows a card whose client ifupdown has started: dhcpcd (Debian 13) or dhclient (12)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hostagent.net.foreign_files import Nic, text

if TYPE_CHECKING:
    from pathlib import Path

DHCPCD_FILE = "etc/dhcpcd.conf"
DHCPCD_DUID = "var/lib/dhcpcd/duid"
DHCPCD_PIDS = "run/dhcpcd/{name}.pid", "run/dhcpcd/{name}-4.pid"
DHCLIENT_PID = "run/dhclient.{name}.pid"
DHCLIENT_LEASES = "var/lib/dhcp/dhclient.{name}.leases"
BY_DUID = "-i"
"""The option of dhclient, which ifupdown gives, by which a server knows it by a DUID."""
OF_A_DUID = "ff"
"""The type of a client identifier that is made of an IAID and a DUID (RFC 4361)."""
DUID = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){3,129}")
QUOTED = re.compile(r'^default-duid "((?:[^"\\\n]|\\[0-7]{3}|\\["\\])*)";', re.MULTILINE)
ONE = re.compile(r"\\([0-7]{3})|\\?(.)")


def client_id(nic: Nic, root: Path) -> str:
    """`ff:IAID:DUID` of the client that runs for the card; "" where none does, or the server knows it by its MAC
    address. The IAID is the end of that (dhcpcd.conf(5), dhclient(8)).
    """
    duid = _of_dhcpcd(nic.name, root) or _of_dhclient(nic.name, root)
    return ":".join((OF_A_DUID, *nic.mac.split(":")[-4:], duid)) if DUID.fullmatch(duid) else ""


def _of_dhcpcd(name: str, root: Path) -> str:
    if not any((root / path.format(name=name)).exists() for path in DHCPCD_PIDS):
        return ""
    return text(root / DHCPCD_DUID).strip().lower() if _by_duid(name, text(root / DHCPCD_FILE)) else ""


def _of_dhclient(name: str, root: Path) -> str:
    pid = text(root / DHCLIENT_PID.format(name=name)).strip()
    if not pid.isdecimal() or BY_DUID not in text(root / "proc" / pid / "cmdline").split("\0"):
        return ""
    found = QUOTED.findall(text(root / DHCLIENT_LEASES.format(name=name)))
    octets = [int(octal, 8) if octal else ord(letter) for octal, letter in ONE.findall((found or [""])[-1])]
    return ":".join(f"{octet:02x}" for octet in octets)


def _by_duid(name: str, configuration: str) -> bool:
    """Whether `duid` holds for the card: the last word of it and `clientid` counts."""
    found = False
    mine = True
    for line in configuration.splitlines():
        words = line.split()
        if not words:
            continue
        if words[0] in ("interface", "ssid", "profile", "arping"):
            mine = words[:2] == ["interface", name]
        elif mine and words[0] in ("duid", "clientid"):
            found = words[0] == "duid"
    return found
