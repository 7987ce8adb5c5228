"""Which NIC is which: each keeps a position for good, whatever the kernel calls it today (networking.md 1.8).

Pure: from the list of before and the NICs seen now to the list of now, and what changed. The list is a small file; the
caller says where. What there is to see, `nics_look.py` reads.
"""

from __future__ import annotations

import json
import time
from itertools import pairwise
from typing import TYPE_CHECKING

from hostagent.errors import OperatorError
from hostagent.files import FileError, read_bounded, write_atomic
from hostagent.named import NamedTuple
from hostagent.net.nics_types import Nic

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterable, Mapping, Sequence

VERSION = 1
LIMIT_BYTES = 1 << 20
FILE = "nics.json"
"""Below STATE/net: which NIC has which position."""
MOST_POSITION = 9999
"""`xenbr9999` still fits into a device's name, with a VLAN's tag."""
RULES = "etc/firstboot.d/data/initial_network_device_rules.conf"
STORED: Mapping[str, type] = {
    "position": int,
    "name": str,
    "mac": str,
    "mtu": int,
    "present": bool,
    "vendor_id": str,
    "vendor_name": str,
    "device_id": str,
    "device_name": str,
    "pci_path": str,
    "driver": str,
    "missing_since_s": int,
}


class NicListError(OperatorError):
    """The stored list of NICs cannot be used."""


class Seen(NamedTuple):
    """A NIC that is there now; its position is -1. The rest is what the firmware says of its place."""

    nic: Nic
    onboard: int = 0
    """The firmware's number of a NIC on the board; 0 for others."""
    label: str = ""
    """The firmware's name of its place."""
    port: int = 0
    """Which port of its PCI function."""


class Rule(NamedTuple):
    """The position of a NIC before there is a list: `kind` is mac, pci or label."""

    position: int
    kind: str
    value: str


class Change(NamedTuple):
    """What became of the NIC at a position: new, renamed, moved (to another slot), replaced, missing or back."""

    position: int
    what: str
    before: str
    after: str
    """Names; of a moved one PCI addresses, of a replaced one MAC addresses."""


class Assignment(NamedTuple):
    nics: tuple[Nic, ...]
    """By position."""
    changes: tuple[Change, ...] = ()
    problems: tuple[str, ...] = ()
    """Why NICs are in none of the positions, or why the list was left alone, as sentences."""


def assign(earlier: Sequence[Nic], seen: Sequence[Seen], rules: Sequence[Rule] = ()) -> Assignment:
    """The list of now. `rules` count only while there is no list.

    1. Who has a MAC address of the list keeps its position. 2. Who is in the slot of one that vanished takes its place;
    the ports of one PCI function do so together, in the order of their MAC addresses, if there are as many as before.
    3. Others come after the highest position, in the firmware's order. Vanished NICs keep their position, not present.

    With a MAC address or a position twice, who is who cannot be known: the list stays, and only NICs that are
    unmistakable are brought up to date; if there is no list yet, those with the same address are left out.
    """
    doubles = _doubles(earlier, seen)
    nameless = [f"{each.nic.name} has no MAC address of its own" for each in seen if not each.nic.mac]
    problems = (*doubles, *nameless)
    ambiguous = {"", *_twice([each.nic.mac for each in seen]), *_twice([nic.mac for nic in earlier])}
    clear = [each for each in seen if each.nic.mac not in ambiguous]
    if doubles and earlier:
        now = {each.nic.mac: each.nic for each in clear}
        kept = tuple(now.get(nic.mac, nic)._replace(position=nic.position) for nic in earlier)
        return Assignment(kept, _changes(earlier, kept), problems)
    known = {nic.mac: nic.position for nic in earlier}
    placed = {
        known[each.nic.mac]: each.nic._replace(position=known[each.nic.mac])
        for each in clear
        if each.nic.mac in known
    }
    fresh = [each for each in clear if each.nic.mac not in known]
    vanished = [nic for nic in earlier if nic.position not in placed]
    placed |= _replacements(vanished, fresh)
    if not earlier:
        placed |= _by_rules(fresh, rules)
    taken = _macs(placed)
    position = max([nic.position for nic in earlier] + list(placed), default=-1)
    for each in in_firmware_order(fresh):
        if each.nic.mac not in taken:
            position += 1
            placed[position] = each.nic._replace(position=position)
    for nic in earlier:
        placed.setdefault(nic.position, nic._replace(present=False, carrier=False, speed=0, duplex=False))
    nics = tuple(placed[position] for position in sorted(placed))
    return Assignment(nics, _changes(earlier, nics), problems)


def in_firmware_order(seen: Iterable[Seen]) -> list[Seen]:
    """Those on the board by their number, then by PCI address and port, then those without one by name."""
    return sorted(
        seen,
        key=lambda each: (
            each.onboard or 1 << 30,
            pci_order(each.nic.pci_path),
            each.port,
            _natural(each.nic.name),
            each.nic.mac,
        ),
    )


def pci_order(path: str) -> tuple[int, ...]:
    """A PCI address as numbers, to sort by; behind all of them what is none."""
    domain, _, rest = path.partition(":")
    bus, _, slot = rest.partition(":")
    device, _, function = slot.partition(".")
    try:
        return tuple(int(part, 16) for part in (domain, bus, device, function))
    except ValueError:
        return (1 << 40,)


def parse_rules(text: str) -> tuple[Rule, ...]:
    """Lines like `0:mac="00:16:3e:00:00:01"`, `1:pci="0000:00:03.0"`, `2:label="NIC.Embedded.1"`. Others, and those
    for a position or a NIC that an earlier line is for, are left out."""
    found: dict[int, Rule] = {}
    for line in text.splitlines():
        number, _, rest = line.strip().partition(":")
        kind, sign, value = rest.partition("=")
        value = value.strip().strip('"')
        if not (sign and value and kind in ("mac", "pci", "label")):
            continue
        if not (number.isascii() and number.isdigit() and len(number) < 5):
            continue
        rule = Rule(int(number), kind, value if kind == "label" else value.lower())
        if all(other[1:] != rule[1:] for other in found.values()):
            found.setdefault(rule.position, rule)
    return tuple(found.values())


def load(path: pathlib.Path) -> tuple[Nic, ...]:
    """The stored list, () if there is none yet. Raises FileError, NicListError."""
    try:
        data = read_bounded(path, limit_bytes=LIMIT_BYTES)
    except FileError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return ()
        raise
    try:
        return decode(data)
    except ValueError as error:
        raise NicListError(
            f"{path} is no list of NICs: {error}",
            hint=f"restore it, or remove it: then NICs get their positions anew, in the firmware's order ({path})",
        ) from error


def dated(nics: Iterable[Nic], now_s: int) -> tuple[Nic, ...]:
    """The same, where those that were first not found now have the time of it."""
    return tuple(
        nic if nic.present or nic.missing_since_s else nic._replace(missing_since_s=now_s) for nic in nics
    )


def missing_since(path: pathlib.Path) -> dict[str, str]:
    """MAC of each missing NIC of the stored list → since when, in words; empty where the list cannot be read."""
    try:
        known = load(path)
    except (FileError, NicListError):
        return {}
    return {
        nic.mac: time.strftime("since %Y-%m-%d %H:%M:%S", time.localtime(nic.missing_since_s))
        for nic in known
        if nic.missing_since_s
    }


def store(path: pathlib.Path, nics: Sequence[Nic]) -> None:
    """Keep the list, durably. Raises FileError, BusyError."""
    write_atomic(path, encode(nics))


def encode(nics: Sequence[Nic]) -> bytes:
    kept = [{field: getattr(nic, field) for field in STORED} for nic in nics]
    return json.dumps({"version": VERSION, "nics": kept}, indent=1).encode() + b"\n"


def decode(data: bytes) -> tuple[Nic, ...]:
    """Raises ValueError that says what is wrong."""
    try:
        held = json.loads(data)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(held, dict) or held.get("version") != VERSION or not isinstance(held.get("nics"), list):
        raise ValueError(f"not of version {VERSION}")
    nics = []
    for each in held["nics"]:
        if not isinstance(each, dict) or not {"position", "name", "mac"} <= each.keys():
            raise ValueError("an entry without position, name and MAC address")
        fields = {field: each[field] for field in STORED if field in each}
        for field, value in fields.items():
            if type(value) is not STORED[field]:
                raise ValueError(f"{field} is {value!r}")
        if not 0 <= fields["position"] <= MOST_POSITION:
            raise ValueError(f"position {fields['position']}")
        if not 0 <= fields.get("missing_since_s", 0) < 1 << 35:
            raise ValueError(f"missing_since_s {fields['missing_since_s']}")
        nics.append(Nic(**{**fields, "mac": fields["mac"].lower()}))
    return tuple(sorted(nics))


def _replacements(vanished: Iterable[Nic], fresh: Iterable[Seen]) -> dict[int, Nic]:
    """Those in the slots of vanished ones, by position."""
    olds: dict[str, list[Nic]] = {}
    news: dict[str, list[Nic]] = {}
    for nic in vanished:
        olds.setdefault(nic.pci_path, []).append(nic)
    for each in fresh:
        news.setdefault(each.nic.pci_path, []).append(each.nic)
    found: dict[int, Nic] = {}
    for slot, old in olds.items():
        new = news.get(slot, [])
        if slot and len(new) == len(old):
            pairs = zip(sorted(old, key=_mac), sorted(new, key=_mac), strict=True)
            found |= {gone.position: nic._replace(position=gone.position) for gone, nic in pairs}
    return found


def _by_rules(fresh: Sequence[Seen], rules: Iterable[Rule]) -> dict[int, Nic]:
    placed: dict[int, Nic] = {}
    for rule in rules:
        for each in in_firmware_order(fresh):
            has = {"mac": each.nic.mac, "pci": each.nic.pci_path, "label": each.label}[rule.kind]
            if has == rule.value and each.nic.mac not in _macs(placed):
                placed[rule.position] = each.nic._replace(position=rule.position)
                break
    return placed


def _changes(earlier: Sequence[Nic], nics: Iterable[Nic]) -> tuple[Change, ...]:
    before = {nic.position: nic for nic in earlier}
    changes = []
    for nic in nics:
        was = before.get(nic.position)
        if was is None:
            changes.append(Change(nic.position, "new", "", nic.name))
        elif was.mac != nic.mac:
            changes.append(Change(nic.position, "replaced", was.mac, nic.mac))
        elif was.present and not nic.present:
            changes.append(Change(nic.position, "missing", was.name, ""))
        elif nic.present and not was.present:
            changes.append(Change(nic.position, "back", "", nic.name))
        if was is not None and nic.present and was.name != nic.name:
            changes.append(Change(nic.position, "renamed", was.name, nic.name))
        if was is not None and was.mac == nic.mac and was.pci_path != nic.pci_path:
            changes.append(Change(nic.position, "moved", was.pci_path, nic.pci_path))
    return tuple(changes)


def _doubles(earlier: Sequence[Nic], seen: Iterable[Seen]) -> tuple[str, ...]:
    """A sentence for each MAC address or position that is there twice."""
    problems = []
    for where, nics in (("on this host", [each.nic for each in seen]), ("in the list of NICs", [*earlier])):
        for mac in _twice([nic.mac for nic in nics if nic.mac]):
            names = ", ".join(sorted(nic.name for nic in nics if nic.mac == mac))
            problems.append(f"the MAC address {mac} is {where} more than once: {names}")
    positions = [str(nic.position) for nic in earlier]
    problems += [
        f"position {position} is in the list of NICs more than once" for position in _twice(positions)
    ]
    return tuple(problems)


def _twice(values: Sequence[str]) -> list[str]:
    """Those that are there more than once, in order."""
    ordered = sorted(values)
    return sorted({value for value, after in pairwise(ordered) if value == after})


def _macs(placed: Mapping[int, Nic]) -> set[str]:
    return {nic.mac for nic in placed.values()}


def _mac(nic: Nic) -> str:
    return nic.mac


def _natural(name: str) -> tuple[tuple[int, str], ...]:
    """eth2 before eth10."""
    parts: list[str] = []
    for letter in name:
        if parts and parts[-1][-1].isdecimal() == letter.isdecimal():
            parts[-1] += letter
        else:
            parts.append(letter)
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in parts)
