"""A DHCP lease: read from what dhcpcd prints of it, and kept across releases and reboots."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from hostagent.files import FileError, read_bounded, write_atomic
from hostagent.named import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

LIMIT_BYTES = 64 * 1024
BOUND = {"BOUND", "RENEW", "REBIND", "REBOOT", "TIMEOUT", "INFORM", "STATIC"}
BOUND6 = {"BOUND6", "RENEW6", "REBIND6", "REBOOT6", "TIMEOUT6", "INFORM6", "DELEGATED6"}
"""`reason` of a lease that is in use (dhcpcd-run-hooks(8)). TIMEOUT: no server answered, the last lease is used."""


class Leased(NamedTuple):
    """A lease as the client has it. `addresses` are `address/prefix`; times in seconds, 0 where not told."""

    family: int
    reason: str
    addresses: tuple[str, ...]
    routers: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    server: str = ""
    lease_s: int = 0

    @property
    def stale(self) -> bool:
        """Whether this is an old lease that no server has confirmed."""
        return self.reason.startswith("TIMEOUT")


def parse_lease(text: str, family: int) -> Leased | None:
    """What `dhcpcd -U` prints: blocks of `name=value`, one per protocol. None when none of this family is in use."""
    wanted = BOUND if family == 4 else BOUND6
    block: dict[str, str] = {}
    for line in [*text.splitlines(), "reason=end"]:
        name, separator, value = line.strip().partition("=")
        if name == "reason" and separator:
            if block.get("reason") in wanted and (found := _leased(block, family)).addresses:
                return found
            block = {}
        if separator:
            block[name] = _unquoted(value)
    return None


def _leased(block: Mapping[str, str], family: int) -> Leased:
    if family == 4:
        address = block.get("ip_address", "")
        return Leased(
            4,
            block["reason"],
            addresses=(f"{address}/{block.get('subnet_cidr', '32')}",) if address else (),
            routers=tuple(block.get("routers", "").split()),
            dns=tuple(block.get("domain_name_servers", "").split()),
            search=tuple((block.get("domain_search") or block.get("domain_name", "")).split()),
            server=block.get("dhcp_server_identifier", ""),
            lease_s=_number(block.get("dhcp_lease_time", "")),
        )
    named = [name for name in block if name.startswith("dhcp6_ia_na") and "_ia_addr" in name]
    lifetimes = [_number(block[name]) for name in named if name.endswith("_vltime")]
    return Leased(
        6,
        block["reason"],
        addresses=tuple(f"{block[name]}/128" for name in named if not name.endswith("time") and block[name]),
        dns=tuple(block.get("dhcp6_name_servers", "").split()),
        search=tuple(block.get("dhcp6_domain_search", "").split()),
        server=block.get("dhcp6_server_id", ""),
        lease_s=min(lifetimes, default=0),
    )


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 10 else 0


# --- the last lease, kept across releases and reboots ---


def last_file(bridge: str, family: int, state_dir: Path) -> Path:
    return state_dir / "net" / "leases" / f"{bridge}.{family}.json"


def keep_last(bridge: str, found: Leased, state_dir: Path) -> None:
    """Remember a lease that a server has given: an address to come up with when no server answers."""
    if found.stale:
        return
    file = last_file(bridge, found.family, state_dir)
    text = json.dumps(found._asdict(), sort_keys=True) + "\n"
    if content(file) != text:  # a lease is renewed much more often than it changes
        file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        write_atomic(file, text)


def last(bridge: str, family: int, state_dir: Path) -> Leased | None:
    """The lease that this bridge last had; None when none is kept or the file is damaged."""
    try:
        found = json.loads(content(last_file(bridge, family, state_dir)) or "null")
        if not isinstance(found, dict) or found.get("family") != family:
            return None
        addresses, routers, dns, search = (
            tuple(map(str, found[name])) for name in ("addresses", "routers", "dns", "search")
        )
        lease_s, server = int(found["lease_s"]), str(found["server"])
        kept = Leased(family, str(found["reason"]), addresses, routers, dns, search, server, lease_s)
    except (ValueError, TypeError, KeyError):
        return None
    return kept


def content(file: Path) -> str | None:
    try:
        return read_bounded(file, limit_bytes=LIMIT_BYTES).decode(errors="replace")
    except FileError:
        return None
