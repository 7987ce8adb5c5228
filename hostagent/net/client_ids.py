"""By which name a DHCP server knows a bridge whose card was taken over, and the address to ask for first.

Kept in a file of its own below STATE/net, as no field of a PIF is for it: a server that gives addresses by client
identifier gives another one to a host that goes by its MAC address from one day to the next. When the management
interface moves to another bridge (a bond, a VLAN), both go along, and its lease is not given back.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from hostagent.files import FileError, read_bounded, write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from hostagent.net.devices import Lease
    from hostagent.net.dhcp import Client

LIMIT_BYTES = 64 << 10
FIELDS = ("client_id", "request")
NAME = "proc/sys/kernel/hostname"
NAMELESS = ("", "(none)", "localhost", "localhost.localdomain")
IN_A_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")


def file_of(bridge: str, state: Path) -> Path:
    return state / "net" / "client-ids" / f"{bridge}.json"


def content(client_id: str, request: str) -> str:
    return json.dumps({"client_id": client_id, "request": request}) + "\n"


def moved(leases: Iterable[Lease], management: str) -> str:
    """The bridge that is to have the management interface's IPv4 lease in the place of `management`; empty for none."""
    wanted = [lease for lease in leases if lease.family == 4 and lease.gateway]
    if not management or any(lease.device == management for lease in wanted):
        return ""
    return next((lease.device for lease in wanted), "")


def carry(client: Client, bridge: str, address: str, state: Path) -> None:
    """The client of `bridge` names itself as `client` does, and asks for this address first. Raises FileError."""
    file = file_of(bridge, state)
    file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    write_atomic(file, content(client.client_id, address or client.request), mode=0o600)


def host_name(root: Path) -> str:
    """What this host is called now, for DHCP servers; empty where it has no name yet, or one that no host can have."""
    try:
        found = read_bounded(root / NAME, limit_bytes=128).decode("ascii", "replace").strip()
    except FileError:
        return ""
    return found if found not in NAMELESS and IN_A_NAME.fullmatch(found) else ""


def named(client: Client, state: Path) -> Client:
    """The client with what is kept for its bridge; as it is where nothing is, or what cannot be read."""
    try:
        found = json.loads(read_bounded(file_of(client.bridge, state), limit_bytes=LIMIT_BYTES))
    except (FileError, ValueError, RecursionError):
        return client
    if not isinstance(found, dict) or not all(isinstance(found.get(name), str) for name in FIELDS):
        return client
    return client._replace(client_id=found["client_id"], request=found["request"])
