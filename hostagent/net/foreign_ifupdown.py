"""What ifupdown makes of a card: the stanzas of /etc/network/interfaces and what it includes, and dhclient's leases."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from hostagent.named import NamedTuple
from hostagent.net.foreign_files import Nic, Owner, address, first, is_address, shown, text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILE = "etc/network/interfaces"
DEPTH = 5  # of files that include files
INCLUDED = re.compile(r"[A-Za-z0-9_-]+")  # names that `source-directory` takes (interfaces(5))
MODES = {"dhcp": "DHCP", "static": "Static", "auto": "Autoconf"}
ALL = ("eth", "em", "en", "p")
"""What the names begin with that `bridge_ports all` takes."""
NUMBER_DIGITS = 6
RANGE = re.compile(r"(.*?)\[?([0-9]{1,6})-([0-9]{1,6})\]?(.*)")
LEASE = re.compile(r"lease\s*\{(.*?)\n\}", re.DOTALL)


class Stanza(NamedTuple):
    """An `iface` stanza: its options in order, one entry per line."""

    device: str
    family: str
    """inet or inet6."""
    method: str
    options: tuple[tuple[str, str], ...]
    file: str

    def all(self, *names: str) -> list[str]:
        return [value for name, value in self.options if name.replace("_", "-") in names]


def owner(nic: Nic, root: Path) -> Owner | None:
    """Ifupdown's hold on the card, itself or as a port of a bridge or bond; None when no stanza names it."""
    lines = list(_lines(root / FILE, root, DEPTH))
    found = stanzas(lines)
    own = [stanza for stanza in found if stanza.device == nic.name]
    above = {stanza.device for stanza in found if _is_port(stanza, nic.name)}
    through = next((stanza.device for stanza in found if stanza.device in above), "")
    if not own and not through:
        return None
    told = [stanza for stanza in found if stanza.device == (through or nic.name)]
    started = [file for line, file in lines if _starts(line, nic.name)]
    files = tuple(dict.fromkeys([*(stanza.file for stanza in (*own, *told)), *started]))
    lease = text(root / f"var/lib/dhcp/dhclient.{through or nic.name}.leases")
    described = describe(nic.name, told, lease)
    client_id = ""
    if described.mode == "DHCP":
        from hostagent.net import foreign_duid

        client_id = foreign_duid.client_id(nic, root)
    return described._replace(
        files=files,
        client_id=client_id,
        # the lines of both names go out; ifupdown itself takes nothing down by that
        disable=" && ".join(_comment_out(sorted({nic.name, through} - {""}), file) for file in files),
        through=through,
    )


def describe(device: str, told: list[Stanza], lease: str) -> Owner:
    """What the stanzas give to the device. `lease`: the content of dhclient's file for it."""
    modes = {"inet": "None", "inet6": "None"}
    addresses: list[str] = []
    gateways: list[str] = []
    dns: list[str] = []
    search: list[str] = []
    for stanza in told:
        modes[stanza.family] = MODES.get(stanza.method, modes[stanza.family])
        mask = [*stanza.all("netmask"), ""][0].split() or [""]
        for given in stanza.all("address"):
            found = address(given, mask[0] or ("64" if stanza.family == "inet6" else ""))
            addresses += [found] if found and stanza.method == "static" else []
        gateways += stanza.all("gateway")
        dns += [word for line in stanza.all("dns-nameservers", "dns-nameserver") for word in line.split()]
        search += [word for line in stanza.all("dns-search", "dns-domain") for word in line.split()]
    if modes["inet"] == "DHCP":
        last = parse_lease(lease)
        addresses += [last["address"]] if last["address"] else []
        gateways += last["routers"].split()
        dns += last["dns"].split()
        search += last["search"].split()
    return Owner(
        "ifupdown",
        device,
        modes["inet"],
        tuple(dict.fromkeys(addresses)),
        first(4, gateways),
        tuple(dict.fromkeys(filter(is_address, dns))),
        mode6=modes["inet6"],
        gateway6=first(6, gateways),
        search=tuple(dict.fromkeys(search)),
    )


def stanzas(lines: list[tuple[str, str]]) -> list[Stanza]:
    """The `iface` stanzas for IPv4 and IPv6 among (line, file) pairs."""
    found: list[Stanza] = []
    inside = False
    for line, file in lines:
        words = line.split()
        if words[0] == "iface":
            inside = len(words) >= 4 and words[2] in ("inet", "inet6")
            if inside:
                found.append(Stanza(words[1], words[2], words[3], (), file))
        elif words[0] in ("mapping", "source", "source-directory") or words[0].startswith(
            ("auto", "allow-", "no-")
        ):
            inside = False
        elif inside:
            option = (words[0], line.split(None, 1)[1] if len(words) > 1 else "")
            found[-1] = found[-1]._replace(options=(*found[-1].options, option))
    return found


def _is_port(stanza: Stanza, name: str) -> bool:
    """Whether a bridge or bond of the stanza takes the card: by name, or by a pattern (bridge-utils-interfaces(5);
    `glob` is ifupdown2's)."""
    for line in stanza.all("bridge-ports", "bond-slaves", "slaves"):
        how = ""
        for word in line.split():
            if word in ("regex", "noregex", "glob"):
                how = word
            elif (
                word == name
                or (word == "all" and name.startswith(ALL))
                or (how == "regex" and _matches(word, name))
                or (how == "glob" and _in_glob(word, name))
            ):
                return True
    return False


def _matches(pattern: str, name: str) -> bool:
    try:
        return re.fullmatch(pattern, name) is not None
    except (re.error, RecursionError, OverflowError):
        return False


def _in_glob(pattern: str, name: str) -> bool:
    """`swp*`, and a range of numbers: `swp[1-4]`, `swp1-4`."""
    found = RANGE.fullmatch(pattern)
    if found is None:
        return fnmatchcase(name, pattern)
    before, low, high, after = found.groups()
    number = name.removeprefix(before).removesuffix(after)
    return (
        name == f"{before}{number}{after}"
        and number.isdecimal()
        and len(number) <= NUMBER_DIGITS
        and int(low) <= int(number) <= int(high)
    )


def _starts(line: str, device: str) -> bool:
    words = line.split()
    return (words[0] == "auto" or words[0].startswith("allow-")) and device in words[1:]


def _lines(file: Path, root: Path, depth: int) -> Iterator[tuple[str, str]]:
    """Lines with their file, comments left out, continuations joined, included files in their place."""
    whole = ""
    for raw in text(file).splitlines():
        if not whole and raw.lstrip().startswith("#"):
            continue
        if raw.endswith("\\"):
            whole += raw[:-1] + " "
            continue
        line, whole = (whole + raw).strip(), ""
        words = line.split()
        if not words:
            continue
        yield line, shown(file, root)
        if words[0] in ("source", "source-directory") and len(words) == 2 and depth:
            for included in _included(words[0], words[1], file, root):
                yield from _lines(included, root, depth - 1)


def _included(kind: str, pattern: str, file: Path, root: Path) -> list[Path]:
    base = root if pattern.startswith("/") else file.parent
    pattern = pattern.strip("/")
    try:
        found = sorted(base.glob(f"{pattern}/*" if kind == "source-directory" else pattern))
    except (ValueError, NotImplementedError, OSError):  # a pattern that is none
        return []
    return [
        one
        for one in found
        if one.is_file()
        and one.is_relative_to(root)
        and (kind == "source" or INCLUDED.fullmatch(one.name) or one.suffix == ".cfg")
    ]


def _comment_out(names: list[str], file: str) -> str:
    """A command that makes comments of these devices' stanzas and takes them out of the lines that start devices."""
    either = "|".join(name.replace(".", "[.]") for name in names)
    program = (
        f"/^[ \\t]*(auto|allow-[a-z]+)[ \\t]/{{off=0; kept=$1; for (i=2; i<=NF; i++) if ($i !~ /^({either})$/)"
        ' kept=kept " " $i; print (kept == $1 ? "#" $0 : kept); next} '
        f'/^[ \\t]*iface[ \\t]+({either})([ \\t]|$)/{{off=1; print "#" $0; next}} '
        '/^[ \\t]*(iface|mapping|source)/{off=0} {print (off && NF ? "#" : "") $0}'
    )
    return f"awk '{program}' {file} > {file}.new && cat {file}.new > {file} && rm {file}.new"


def parse_lease(content: str) -> dict[str, str]:
    """The last IPv4 lease of a dhclient file: address (with prefix), routers, dns, search; "" for what it lacks."""
    blocks = LEASE.findall(content)
    block = blocks[-1] if blocks else ""

    def of(pattern: str) -> str:
        found = re.search(rf"^\s*{pattern}\s+([^;\n]*);", block, re.MULTILINE)
        return found[1].replace('"', "").replace(",", " ").strip() if found else ""

    return {
        "address": address(of("fixed-address"), of("option subnet-mask")),
        "routers": of("option routers"),
        "dns": of("option domain-name-servers"),
        "search": of("option domain-search") or of("option domain-name"),
    }
