"""What systemd-networkd makes of a card: its state files first, and its .network files where it is yet to start."""

from __future__ import annotations

import fnmatch
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
    values,
)

if TYPE_CHECKING:
    from pathlib import Path

FOLDERS = (
    "etc/systemd/network",
    "run/systemd/network",
    "usr/local/lib/systemd/network",
    "usr/lib/systemd/network",
)
"""A file in an earlier one replaces that of the same name in a later one."""
LINKS, LEASES = "run/systemd/netif/links", "run/systemd/netif/leases"
DISABLE = (
    "printf '[Match]\\n{match}\\n\\n[Link]\\nUnmanaged=yes\\n'"
    " > /etc/systemd/network/00-hostagent-{name}.network"
)
YES = {"yes", "true", "on", "1", "y", "t"}
NO = {"no", "false", "off", "0", "n", "f"}
EVERYWHERE = ("0.0.0.0/0", "::/0")
DHCP4 = {*YES, "both", "ipv4", "v4"}
DHCP6 = {*YES, "both", "ipv6", "v6"}


def owner(nic: Nic, root: Path) -> Owner | None:
    """Networkd's hold on the card; None when it leaves it alone, or does not run and is not enabled."""
    link = assignments(text(root / LINKS / str(nic.ifindex))) if nic.ifindex else {}
    if link.get("ADMIN_STATE") == "unmanaged":
        return None
    if link:
        named = link.get("NETWORK_FILE", "").lstrip("/")
        file = root / named if named else None
    else:
        file = matching(nic, root) if enabled("systemd-networkd.service", root) else None
    if file is None:
        return None
    parsed, read = _merged(file, root)
    if value(parsed, "Link", "Unmanaged") in YES:
        return None
    through = value(parsed, "Network", "Bridge") or value(parsed, "Network", "Bond")
    lease = assignments(text(root / LEASES / str(nic.ifindex))) if nic.ifindex else {}
    mac = "" if by_name_only(parsed) else nic.mac.lower()
    match = f"PermanentMACAddress={mac}" if mac else f"Name={nic.name}"
    return describe(nic, parsed, lease)._replace(
        files=tuple(shown(one, root) for one in read),
        disable=DISABLE.format(name=nic.name, match=match),
        through=through,
        mac=mac,
    )


def describe(nic: Nic, parsed: Sections, lease: dict[str, str]) -> Owner:
    """What the merged .network file gives to the card. `lease`: networkd's file of its DHCPv4 lease."""
    dhcp = value(parsed, "Network", "DHCP", "no").lower()
    static = [
        found
        for section in ("Network", "Address")
        for one in values(parsed, section, "Address")
        if (found := address(one))
    ]
    gateways = [*values(parsed, "Network", "Gateway"), *_default_routes(parsed)]
    dns = [_server(word) for line in values(parsed, "Network", "DNS") for word in line.split()]
    search = [
        word for line in values(parsed, "Network", "Domains") for word in line.split() if word[0] != "~"
    ]
    leased = address(lease.get("ADDRESS", ""), lease.get("NETMASK", ""))
    mode = "DHCP" if dhcp in DHCP4 else "Static" if first(4, static) else "None"
    if mode == "DHCP":
        gateways += lease.get("ROUTER", "").split()
        dns += lease.get("DNS", "").split()
        search += [*lease.get("DOMAIN_SEARCH_LIST", "").split(), *lease.get("DOMAINNAME", "").split()]
        static += [leased] if leased else []
    return Owner(
        "systemd-networkd",
        nic.name,
        mode,
        tuple(dict.fromkeys(static)),
        first(4, gateways),
        tuple(dict.fromkeys(server for server in dns if server)),
        mode6=_mode6(parsed, dhcp, static),
        gateway6=first(6, gateways),
        search=tuple(dict.fromkeys(search)),
        client_id=_client_id(lease.get("CLIENTID", "")) if mode == "DHCP" else "",
    )


def _mode6(parsed: Sections, dhcp: str, static: list[str]) -> str:
    """Without a word to the contrary networkd takes router advertisements (IPv6AcceptRA=)."""
    local = value(parsed, "Network", "LinkLocalAddressing", "ipv6").lower()
    accepts = value(
        parsed, "Network", "IPv6AcceptRA", value(parsed, "Network", "IPv6AcceptRouterAdvertisements")
    )
    if dhcp in DHCP6:
        return "DHCP"
    if first(6, static):
        return "Static"
    return "None" if accepts.lower() in NO or local in (*NO, "ipv4") else "Autoconf"


def _default_routes(parsed: Sections) -> list[str]:
    found = []
    for name, pairs in parsed:
        route = dict(pairs)
        if name == "Route" and route.get("Destination", EVERYWHERE[0]) in EVERYWHERE:
            found.append(route.get("Gateway", ""))
    return found


def _server(word: str) -> str:
    """The address out of `address[:port][%interface][#name]`, where a v6 address with a port stands in brackets."""
    plain = word.partition("#")[0].partition("%")[0]
    if plain.startswith("["):
        plain = plain[1:].partition("]")[0]
    elif plain.count(":") == 1:
        plain = plain.partition(":")[0]
    return plain if is_address(plain) else ""


def _client_id(hexadecimal: str) -> str:
    """`ff:…` from the lease file's digits; empty for one that is the MAC address (type 1), which we send anyway."""
    try:
        raw = bytes.fromhex(hexadecimal)
    except ValueError:
        return ""
    return "" if len(raw) < 2 or raw[0] == 1 else raw.hex(":")


def matching(nic: Nic, root: Path) -> Path | None:
    """The first .network file, by name, whose [Match] takes the card; None when it is masked or there is none."""
    named: dict[str, Path] = {}
    for folder in FOLDERS:
        for file in (root / folder).glob("*.network"):
            named.setdefault(file.name, file)
    for name in sorted(named):
        if matches(nic, sections(text(named[name]))):
            return named[name]
    return None


def by_name_only(parsed: Sections) -> bool:
    """Whether a file's [Match] takes what has one of some names, and nothing else: then it takes another card once the
    order of the cards changes, and that one must be kept from it. Any other file finds the same card again.
    """
    pairs = [pair for name, pairs in parsed if name == "Match" for pair in pairs if pair[1]]
    return any(
        key in ("Name", "OriginalName") and not set(given) & set("*?[!")  # a pattern takes any name
        for key, given in pairs
    )


def matches(nic: Nic, parsed: Sections) -> bool:
    """Whether a file's [Match] takes a card. Conditions that cannot be judged from here count as not met."""
    pairs = [pair for name, pairs in parsed if name == "Match" for pair in pairs if pair[1]]
    facts = {
        "Name": (nic.name, *nic.altnames),
        "OriginalName": (nic.name,),
        "MACAddress": (nic.mac.lower(),),
        "PermanentMACAddress": (nic.mac.lower(),),
        "Driver": (nic.driver,),
        "Path": (nic.path,),
        "Type": ("ether",),
    }
    return bool(pairs) and all(key in facts and _one_of(given, facts[key]) for key, given in pairs)


def _one_of(given: str, facts: tuple[str, ...]) -> bool:
    words = given.split()
    inverted = words[0].startswith("!")
    words = [words[0].removeprefix("!"), *words[1:]]
    hit = any(
        fnmatch.fnmatchcase(fact, word) or fact == word.lower().replace("-", ":")
        for fact in facts
        for word in words
    )
    return hit != inverted


def _merged(file: Path, root: Path) -> tuple[Sections, list[Path]]:
    """The file and its drop-ins, in the order in which they count, and which files those are."""
    drops: dict[str, Path] = {}
    for folder in FOLDERS:
        for drop in (root / folder / f"{file.name}.d").glob("*.conf"):
            drops.setdefault(drop.name, drop)
    read = [file, *(drops[name] for name in sorted(drops))]
    return [section for one in read for section in sections(text(one))], read
