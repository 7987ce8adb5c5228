"""By which name a DHCP server knows a card whose client is the host's own dhcpcd (ifupdown's on Debian 13)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hostagent.net.foreign_files import Nic, text

if TYPE_CHECKING:
    from pathlib import Path

FILE = "etc/dhcpcd.conf"
DUID = "var/lib/dhcpcd/duid"
PIDS = "run/dhcpcd/{name}.pid", "run/dhcpcd/{name}-4.pid"
OF_A_DUID = "ff"
"""The type of a client identifier that is made of an IAID and a DUID (RFC 4361)."""


def client_id(nic: Nic, root: Path) -> str:
    """`ff:IAID:DUID` of the dhcpcd that runs for the card; "" where none does, or the server knows it by its MAC
    address. The IAID is the end of that (dhcpcd.conf(5)).
    """
    if not any((root / name.format(name=nic.name)).exists() for name in PIDS):
        return ""
    duid = text(root / DUID).strip().lower()
    if not _by_duid(nic.name, text(root / FILE)) or not re.fullmatch(
        r"[0-9a-f]{2}(:[0-9a-f]{2}){3,129}", duid
    ):
        return ""
    return ":".join((OF_A_DUID, *nic.mac.split(":")[-4:], duid))


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
