"""What the readers of other network daemons' files share: the result, the card asked for, sections and addresses."""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING

from hostagent.files import FileError, read_bounded
from hostagent.named import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

LIMIT_BYTES = 1 << 20


class Nic(NamedTuple):
    """A card, as the files of network daemons may name it. `mac` is the permanent one where it has one."""

    name: str
    ifindex: int = 0
    mac: str = ""
    driver: str = ""
    path: str = ""
    """udev's ID_PATH, e.g. `pci-0000:00:03.0`."""
    altnames: tuple[str, ...] = ()


class Owner(NamedTuple):
    """A network daemon that has a card, and what it gives to it.

    `mode` and `mode6` are values of PIF.ip_configuration_mode and PIF.ipv6_configuration_mode. `addresses`
    (`address/prefix`) are those of its files, for DHCP those of its last lease where that can be read. `disable`: the
    command that keeps the daemon from the card from its next start on; none of them changes what is up now.
    """

    daemon: str
    device: str
    mode: str = "None"
    addresses: tuple[str, ...] = ()
    gateway: str = ""
    dns: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    """Below the root, where this stands."""
    disable: str = ""
    mode6: str = "None"
    gateway6: str = ""
    search: tuple[str, ...] = ()
    client_id: str = ""
    """By which it was known to the DHCP server (`ff:…`); empty where that was the MAC address or cannot be read."""
    through: str = ""
    """The bridge or bond of the daemon's that the card is a port of: what this is about."""
    mac: str = ""
    """The card's permanent MAC address, where the daemon's file would take the card under another name too."""


Sections = list[tuple[str, list[tuple[str, str]]]]


def sections(text: str) -> Sections:
    """Sections of an ini file in order, repeated sections and keys kept apart; lines that are neither are left out.

    A line that ends in a backslash goes on in the next (systemd.syntax(7)); `#` and `;` begin comments.
    """
    found: Sections = []
    whole = ""
    for raw in text.splitlines():
        line = raw.strip()
        if line.startswith(("#", ";")):
            continue
        if line.endswith("\\"):
            whole += line[:-1].rstrip() + " "
            continue
        line, whole = (whole + line).strip(), ""
        if line.startswith("[") and line.endswith("]"):
            found.append((line[1:-1], []))
        elif "=" in line and found:
            key, _, value = line.partition("=")
            found[-1][1].append((key.strip(), value.strip()))
    return found


def values(parsed: Sections, section: str, key: str) -> Iterator[str]:
    """Every value of a key, in all sections of that name. An empty value voids those before it (systemd.syntax(7))."""
    kept: list[str] = []
    for name, pairs in parsed:
        if name == section:
            for one, value in pairs:
                if one == key:
                    kept = [*kept, value] if value else []
    return iter(kept)


def value(parsed: Sections, section: str, key: str, default: str = "") -> str:
    return [default, *values(parsed, section, key)][-1]


def assignments(text: str) -> dict[str, str]:
    """`NAME=value` lines, as in systemd's state and lease files."""
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return {name.strip(): value.strip().strip("\"'") for name, value in pairs}


def text(file: Path) -> str:
    """The file's content; empty when there is none or it cannot be read."""
    try:
        return read_bounded(file, limit_bytes=LIMIT_BYTES).decode(errors="replace")
    except FileError:
        return ""


def shown(file: Path, root: Path) -> str:
    """The path as the host knows it."""
    return "/" + str(file.relative_to(root))


def address(given: str, netmask: str = "") -> str:
    """`address/prefix` in `inet_ntop`'s form from an address with a prefix, or with a netmask; "" when it is none.

    Without either, the whole of the address.
    """
    plain, _, prefix = given.strip().partition("/")
    family = socket.AF_INET6 if ":" in plain else socket.AF_INET
    try:
        found = socket.inet_ntop(family, socket.inet_pton(family, plain))
    except (OSError, ValueError):
        return ""
    longest = 128 if family == socket.AF_INET6 else 32
    bits = prefix_of(prefix or netmask or str(longest))
    return f"{found}/{bits}" if 0 <= bits <= longest else ""


def prefix_of(text: str) -> int:
    """The length of a prefix given as a number or as a netmask; -1 for what is neither."""
    if re.fullmatch(r"[0-9]{1,3}", text):
        return int(text)
    try:
        number = int.from_bytes(socket.inet_pton(socket.AF_INET, text), "big")
    except (OSError, ValueError):
        return -1
    bits = f"{number:032b}"
    return -1 if "01" in bits else bits.count("1")


def is_address(text: str) -> bool:
    return bool(address(text))


def first(family: int, given: Iterable[str]) -> str:
    """The first of these addresses that is of this family (4 or 6), without its prefix; "" for none."""
    for one in given:
        plain = one.partition("/")[0]
        if is_address(plain) and (":" in plain) == (family == 6):
            return plain
    return ""


def enabled(unit: str, root: Path) -> bool:
    """Whether systemd starts this unit at boot: something wants it, and it is not masked (which keeps that link)."""
    folders = (root / "etc/systemd/system", root / "run/systemd/system", root / "usr/lib/systemd/system")
    if any(_masks(folder / unit) for folder in folders[:2]):
        return False
    wants = [folder for above in folders for folder in above.glob("*.wants")]
    return any((folder / unit).is_symlink() or (folder / unit).exists() for folder in wants)


def _masks(file: Path) -> bool:
    """A link to /dev/null or an empty file in the place of a unit (systemd.unit(5))."""
    try:
        return str(file.readlink()) == "/dev/null" if file.is_symlink() else file.stat().st_size == 0
    except OSError:
        return False
