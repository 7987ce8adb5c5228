"""What NetworkManager makes of a card: its state files first, and its keyfiles where it is yet to start."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hostagent.net.foreign_files import (
    Nic,
    Owner,
    Sections,
    address,
    assignments,
    enabled,
    first,
    is_address,
    sections,
    shown,
    text,
    value,
)

if TYPE_CHECKING:
    from pathlib import Path

FOLDERS = ("etc/NetworkManager/system-connections", "run/NetworkManager/system-connections")
DEVICES, LEASES = "run/NetworkManager/devices", "var/lib/NetworkManager"
TIMES = f"{LEASES}/timestamps"
DISABLE = (
    "printf '[keyfile]\\nunmanaged-devices+=interface-name:{name}\\n'"
    " > /etc/NetworkManager/conf.d/00-hostagent-{name}.conf"
)
MODES = {"auto": "DHCP", "manual": "Static"}
MODES6 = {"auto": "Autoconf", "dhcp": "DHCP", "manual": "Static"}


def owner(nic: Nic, root: Path) -> Owner | None:
    """NetworkManager's hold on the card; None when it leaves it alone, or does not run and is not enabled."""
    state = sections(text(root / DEVICES / str(nic.ifindex))) if nic.ifindex else []
    if value(state, "device", "managed") in ("false", "0"):
        return None
    uuid = value(state, "device", "connection-uuid")
    if not uuid and not _will_have(nic, root):
        return None
    found = _up(uuid, root) if uuid else _chosen(nic, root)
    if found is not None:
        file, parsed = found
        lease = assignments(text(root / LEASES / f"internal-{_uuid(parsed)}-{nic.name}.lease"))
        return describe(nic, parsed, lease)._replace(
            files=(shown(file, root),),
            disable=DISABLE.format(name=nic.name),
            through=value(parsed, "connection", "controller", value(parsed, "connection", "master")),
        )
    if not uuid:
        return None
    return Owner("NetworkManager", nic.name, disable=DISABLE.format(name=nic.name))


def last(nic: Nic, root: Path) -> str:
    """The uuid of the connection that was up last on the card, as far as files say; empty where none can have been.

    NetworkManager's own note of the card says it where it has not let go; one that is up on another card was not.
    """
    own = value(sections(text(root / DEVICES / str(nic.ifindex))), "device", "connection-uuid")
    if own and _up(own, root) is not None:
        return own
    notes = (file for file in (root / DEVICES).glob("*") if file.name != str(nic.ifindex))
    elsewhere = {value(sections(text(file)), "device", "connection-uuid") for file in notes}
    times = sections(text(root / TIMES))
    fitting = [one for _, one in _connections(root) if fits(nic, one) and _uuid(one) not in elsewhere]
    found = max(fitting, key=lambda one: (_time(one, times), _priority(one)), default=None)
    return _uuid(found) if found is not None else ""


def _connections(root: Path) -> list[tuple[Path, Sections]]:
    files = (file for folder in FOLDERS for file in sorted((root / folder).glob("*.nmconnection")))
    return [(file, sections(text(file))) for file in files]


def _uuid(parsed: Sections) -> str:
    return value(parsed, "connection", "uuid")


def _up(uuid: str, root: Path) -> tuple[Path, Sections] | None:
    return next((one for one in _connections(root) if _uuid(one[1]) == uuid), None)


def _chosen(nic: Nic, root: Path) -> tuple[Path, Sections] | None:
    """The one with the highest priority, of those the one that was up last."""
    times = sections(text(root / TIMES))
    fitting = [one for one in _connections(root) if matches(nic, one[1])]
    return max(fitting, key=lambda one: (_priority(one[1]), _time(one[1], times)), default=None)


def _priority(parsed: Sections) -> int:
    given = value(parsed, "connection", "autoconnect-priority")
    return int(given) if re.fullmatch(r"-?[0-9]{1,3}", given) else 0


def _time(parsed: Sections, times: Sections) -> int:
    """When it was up last, in seconds since 1970; 0: never."""
    given = value(times, "timestamps", _uuid(parsed))
    return int(given) if re.fullmatch(r"[0-9]{1,19}", given) else 0


def _will_have(nic: Nic, root: Path) -> bool:
    """Whether NetworkManager starts at boot and its configuration does not keep it from the card."""
    if not enabled("NetworkManager.service", root):
        return False
    from hostagent.net.foreign_nm_conf import unmanaged

    return not unmanaged(nic, root)


def matches(nic: Nic, parsed: Sections) -> bool:
    """Whether a connection is for this card by name or MAC address and comes up by itself."""
    named = value(parsed, "connection", "interface-name") or _mac(parsed)
    return bool(named) and value(parsed, "connection", "autoconnect") != "false" and fits(nic, parsed)


def fits(nic: Nic, parsed: Sections) -> bool:
    """Whether a connection may be up on this card: it names no other one."""
    name = value(parsed, "connection", "interface-name")
    kind = value(parsed, "connection", "type")
    right = kind in ("ethernet", "802-3-ethernet") and name in ("", nic.name, *nic.altnames)
    return right and _mac(parsed) in ("", nic.mac.lower())


def _mac(parsed: Sections) -> str:
    return value(parsed, "ethernet", "mac-address", value(parsed, "802-3-ethernet", "mac-address")).lower()


def describe(nic: Nic, parsed: Sections, lease: dict[str, str]) -> Owner:
    """What a connection gives to the card. `lease`: NetworkManager's file of its DHCPv4 lease."""
    mode = MODES.get(value(parsed, "ipv4", "method"), "None")
    addresses: list[str] = []
    gateways: list[str] = []
    dns: list[str] = []
    search: list[str] = []
    for family in ("ipv4", "ipv6"):
        for name, pairs in parsed:
            if name != family:
                continue
            for key, given in pairs:
                if key.removeprefix("addresses").removeprefix("address").isdecimal() or key == "addresses":
                    plain, _, router = given.partition(",")
                    found = address(plain)
                    addresses += [found] if found else []
                    gateways += [router]
        gateways.append(value(parsed, family, "gateway"))
        dns += value(parsed, family, "dns").replace(",", ";").split(";")
        search += value(parsed, family, "dns-search").replace(",", ";").split(";")
    if mode == "DHCP":
        leased = address(lease.get("ADDRESS", ""), lease.get("NETMASK", ""))
        addresses += [leased] if leased else []
        gateways += lease.get("ROUTER", "").split()
        dns += lease.get("DNS", "").split()
        search += lease.get("DOMAINNAME", "").split()
    return Owner(
        "NetworkManager",
        nic.name,
        mode,
        tuple(dict.fromkeys(addresses)),
        first(4, gateways),
        tuple(dict.fromkeys(filter(is_address, dns))),
        mode6=MODES6.get(value(parsed, "ipv6", "method"), "None"),
        gateway6=first(6, gateways),
        search=tuple(dict.fromkeys(name.strip() for name in search if name.strip() and name[0] != "~")),
    )
