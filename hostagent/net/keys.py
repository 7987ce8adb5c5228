"""The `other_config` keys of PIFs and networks that change networking (networking.md 1.6), as typed values.

Reading never fails: what can be used is, and each key or element that cannot is told as a KeyProblem with its place, so
that one typing error costs one route and not all of them. `check_pif` and `check_network` refuse the same texts when
they are set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.errors import InvalidValueError
from hostagent.named import NamedTuple
from hostagent.net import inet

if TYPE_CHECKING:
    from collections.abc import Mapping

MTU_LEAST, MTU_MOST = 68, 65535
"""What the kernel takes at all; a NIC's own limits are checked against the kernel."""
DUPLEX = ("half", "full")
OFFLOADS = ("rx", "tx", "sg", "tso", "gso", "gro", "lro")
FLAGS = {"on": True, "true": True, "off": False, "false": False}
DOMAIN_BYTES = 253
DOMAIN_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._")
INTERNAL_FIRST, INTERNAL_LAST, INTERNAL_NETMASK = "169.254.0.1", "169.254.255.254", "255.255.0.0"


class KeyProblem(NamedTuple):
    key: str
    value: str
    found: str
    """A sentence that names the key, and of a list the element by number and column (both from 1)."""
    hint: str
    harmless: bool = False
    """It does nothing, and nothing else is lost by it: told, and not refused."""


class PifKeys(NamedTuple):
    """All but `defaultroute` and `peerdns`, which the choice of the owners asks for alone."""

    domain: tuple[str, ...] = ()
    mtu: int = 0
    """Bytes; 0: as the network has it."""
    bond: Mapping[str, str] = {}
    """`bond-*`, without that word: `bonds.py` reads them."""
    link: Mapping[str, int | str] = {}
    """speed (Mb/s), duplex (half, full), autoneg (on, off), advertise (mask of link modes)."""
    features: Mapping[str, bool] = {}
    problems: tuple[KeyProblem, ...] = ()


class StaticRoute(NamedTuple):
    destination: str
    """`address/length`, as the kernel has it."""
    gateway: str


class NetworkKeys(NamedTuple):
    routes: tuple[StaticRoute, ...] = ()
    mtu: int = 0
    """Bytes; 0: as the network's field has it. From the time before there was one; where it stands, it counts."""
    link: Mapping[str, int | str] = {}
    features: Mapping[str, bool] = {}
    persist: bool = False
    host_internal: bool = False
    first: str = INTERNAL_FIRST
    """dom0's address on the host-internal network (`ip_begin`)."""
    last: str = INTERNAL_LAST
    """The last address that guests there are given (`ip_end`): in the subnet of `first`, and not before it."""
    netmask: str = INTERNAL_NETMASK
    problems: tuple[KeyProblem, ...] = ()


OWNER_KEYS = ("defaultroute", "peerdns")
PIF_KEYS = frozenset((*OWNER_KEYS, "domain", "mtu"))
NETWORK_KEYS = frozenset(
    (
        "persist",
        "is_host_internal_management_network",
        "static-routes",
        "mtu",
        "ip_begin",
        "ip_end",
        "netmask",
    )
)
NO_PIF_KEYS = PifKeys()
NO_NETWORK_KEYS = NetworkKeys()


def of_pif(other_config: Mapping[str, str]) -> PifKeys:
    """What a PIF's other_config says. Keys that are not about networking, or only about Open vSwitch, do nothing."""
    if not _any(other_config, PIF_KEYS, ("ethtool-", "bond-")):
        return NO_PIF_KEYS
    problems: list[KeyProblem] = []
    link, features = _ethtool(other_config, problems)
    for key in OWNER_KEYS:
        _flag(other_config, key, problems)
    return PifKeys(
        domain=_domains(other_config.get("domain", ""), problems),
        mtu=_mtu(other_config, problems),
        bond={key[5:]: value for key, value in other_config.items() if key.startswith("bond-")},
        link=link,
        features=features,
        problems=tuple(problems),
    )


def of_network(other_config: Mapping[str, str]) -> NetworkKeys:
    """What a network's other_config says."""
    if not _any(other_config, NETWORK_KEYS, ("ethtool-",)):
        return NO_NETWORK_KEYS
    problems: list[KeyProblem] = []
    link, features = _ethtool(other_config, problems)
    routes, wrong = static_routes(other_config.get("static-routes", ""))
    problems += wrong
    netmask = other_config.get("netmask", INTERNAL_NETMASK)
    if inet.prefix_of(netmask) < 0:
        problems.append(_problem("netmask", netmask, "is no netmask", "use a form like 255.255.0.0"))
        netmask = INTERNAL_NETMASK
    first = _ipv4(other_config, "ip_begin", INTERNAL_FIRST, problems)
    return NetworkKeys(
        routes=routes,
        mtu=_mtu(other_config, problems),
        link=link,
        features=features,
        persist=_flag(other_config, "persist", problems),
        host_internal=_flag(other_config, "is_host_internal_management_network", problems),
        first=first,
        last=_last(other_config, first, netmask, problems),
        netmask=netmask,
        problems=tuple(problems),
    )


def _any(other_config: Mapping[str, str], known: frozenset[str], beginnings: tuple[str, ...]) -> bool:
    """Whether there is anything to read; of a thousand networks, few have it."""
    return any(key in known or key.startswith(beginnings) for key in other_config)


def check_pif(other_config: Mapping[str, str]) -> None:
    """Raise INVALID_VALUE [other_config:KEY; value] for the first key of a PIF whose value cannot be used. Keys that
    nobody knows, and what the kernel has no longer, may stand: other programs keep theirs here too.
    """
    from hostagent.net import bonds

    read = of_pif(other_config)
    _check(read.problems)
    for name, value in read.bond.items():
        if refusal := bonds.refused(name, value):
            _check((KeyProblem(f"bond-{name}", value, refusal.found, refusal.hint),))


def check_network(other_config: Mapping[str, str]) -> None:
    """As `check_pif`, for a network."""
    _check(of_network(other_config).problems)


def _check(problems: tuple[KeyProblem, ...]) -> None:
    for problem in problems:
        if not problem.harmless:
            raise InvalidValueError(
                f"other_config:{problem.key}", problem.value, problem.found, hint=problem.hint
            )


def wants_default_route(other_config: Mapping[str, str]) -> bool:
    """The `defaultroute` key alone: the choice of the gateway asks it of every PIF."""
    return _flag(other_config, "defaultroute", [])


def wants_dns(other_config: Mapping[str, str]) -> bool:
    """The `peerdns` key alone."""
    return _flag(other_config, "peerdns", [])


def words(text: str) -> tuple[str, ...]:
    """The elements of a list parted by commas, blanks taken off, empty ones left out, each once."""
    return tuple(dict.fromkeys(word for part in text.split(",") if (word := part.strip())))


def _domains(text: str, problems: list[KeyProblem]) -> tuple[str, ...]:
    """The search domains of a list parted by commas or, as in resolv.conf, blanks, each once.

    What is no domain name is left out: a line break in it would be a line of its own in resolv.conf.
    """
    found: dict[str, None] = {}
    for word in text.strip().replace(",", " ").replace("\t", " ").split(" "):
        if len(word) > DOMAIN_BYTES or not DOMAIN_CHARACTERS.issuperset(word):
            told = f"has {word!r}, which is no domain name"
            hint = f"letters, digits, '-', '.' and '_', at most {DOMAIN_BYTES}, as in example.org,example.net"
            problems.append(_problem("domain", text, told, hint))
        elif word:
            found[word] = None
    return tuple(found)


def static_routes(text: str) -> tuple[tuple[StaticRoute, ...], list[KeyProblem]]:
    """The routes of `net/length/gateway,net/length/gateway`, IPv4 or IPv6, and what is wrong with the rest.

    A default route is none of these: it belongs to the PIF that owns the gateway.
    """
    routes: dict[str, StaticRoute] = {}
    problems: list[KeyProblem] = []
    column = 1
    for count, part in enumerate(text.split(","), 1):
        element = part.strip()
        if element:
            route = _static_route(element)
            if isinstance(route, str):
                problems.append(_element(count, column, part, route))
            elif route.destination in routes:
                problems.append(_element(count, column, part, f"a second route to {route.destination}"))
            else:
                routes[route.destination] = route
        column += len(part) + 1
    return tuple(routes.values()), problems


def _static_route(element: str) -> StaticRoute | str:
    """One route, or what is wrong with it."""
    parts = [part.strip() for part in element.split("/")]
    if len(parts) != 3:
        return "not of the form net/length/gateway"
    net, length, gateway = inet.address(parts[0]), parts[1], inet.address(parts[2])
    if not net:
        return f"{parts[0]!r} is no address"
    if not (length.isascii() and length.isdigit() and len(length) <= 3):
        return f"prefix {length!r} is no number"
    prefix = int(length)
    if prefix > inet.BITS[inet.family(net)]:
        return f"prefix {prefix}"
    if not gateway:
        return f"the gateway {parts[2]!r} is no address"
    if inet.family(net) != inet.family(gateway):
        return f"the gateway {gateway} is not of the same family as {net}"
    if not prefix:
        return "a default route is set as the gateway of a PIF with defaultroute=true"
    if (start := inet.subnet(net, prefix)) != net:
        return f"{net}/{prefix} is no network (did you mean {start}/{prefix}?)"
    return StaticRoute(f"{net}/{prefix}", gateway)


def _element(count: int, column: int, part: str, found: str) -> KeyProblem:
    column += len(part) - len(part.lstrip())
    return KeyProblem(
        "static-routes",
        f"element {count}, column {column}: {part.strip()}",
        f"static-routes, element {count} (column {column}, {part.strip()!r}): {found}",
        "write net/length/gateway, parted by commas, as in 10.8.0.0/16/10.1.1.254",
    )


def _ethtool(
    other_config: Mapping[str, str], problems: list[KeyProblem]
) -> tuple[Mapping[str, int | str], Mapping[str, bool]]:
    link: dict[str, int | str] = {}
    features: dict[str, bool] = {}
    for key, value in other_config.items():
        if not key.startswith("ethtool-"):
            continue
        name = key[8:]
        flag = FLAGS.get(value.strip().lower())
        if name in OFFLOADS or name in ("autoneg", "ufo"):
            if flag is None:
                problems.append(_problem(key, value, "is neither on nor off", "use on or off"))
            elif name == "autoneg":
                link[name] = "on" if flag else "off"
            elif name != "ufo":
                features[name] = flag
            elif flag:
                told = _problem(key, value, "has no effect: Linux has no ufo since 4.14", "remove the key")
                problems.append(told._replace(harmless=True))
        elif name == "speed":
            if 0 < (speed := _whole(value)) <= 0x7FFFFFFF:
                link[name] = speed
            else:
                problems.append(_problem(key, value, "is no speed", "give Mb/s, as in 1000"))
        elif name == "duplex":
            if value.strip() in DUPLEX:
                link[name] = value.strip()
            else:
                problems.append(_problem(key, value, "is no duplex mode", "use half or full"))
        elif name == "advertise":
            if (mask := _mask(value)) > 0:
                link[name] = mask
            else:
                problems.append(
                    _problem(key, value, "is no mask of link modes", "use hexadecimal, as in 0x1000")
                )
        else:
            told = _problem(key, value, "is no setting that we know", f"remove {key}")
            problems.append(told._replace(harmless=True))
    return link, features


def _flag(other_config: Mapping[str, str], key: str, problems: list[KeyProblem]) -> bool:
    text = other_config.get(key, "")
    flag = FLAGS.get(text.strip().lower())
    if flag is None and text:
        problems.append(_problem(key, text, "is neither true nor false", "use true or false"))
    return bool(flag)


def _mtu(other_config: Mapping[str, str], problems: list[KeyProblem]) -> int:
    text = other_config.get("mtu", "")
    if not text or MTU_LEAST <= (mtu := _whole(text)) <= MTU_MOST:
        return mtu if text else 0
    problems.append(
        _problem(
            "mtu", text, f"is no MTU between {MTU_LEAST} and {MTU_MOST}", "use a number of bytes, as in 9000"
        )
    )
    return 0


def _ipv4(other_config: Mapping[str, str], key: str, default: str, problems: list[KeyProblem]) -> str:
    text = other_config.get(key, default)
    if ":" not in text and (found := inet.address(text)):
        return found
    problems.append(_problem(key, text, "is no IPv4 address", f"remove it to have {default}"))
    return default


def _last(other_config: Mapping[str, str], first: str, netmask: str, problems: list[KeyProblem]) -> str:
    """`ip_end`; where it is not given, or cannot be used, the last address of the subnet but the broadcast's."""
    prefix, begin = inet.prefix_of(netmask), inet.number(first)
    top = begin | ~inet.number(netmask) & 0xFFFFFFFF
    default = inet.of_number(max(begin, top - 1))
    if "ip_end" not in other_config:
        return default
    last = _ipv4(other_config, "ip_end", default, problems)
    if not inet.contains(first, prefix, last):
        found = f"is not in {inet.subnet(first, prefix)}/{prefix}, where ip_begin is"
    elif inet.number(last) < begin:
        found = f"is before ip_begin, {first}"
    elif inet.number(last) == top and prefix < 31:
        found = f"is the broadcast address of {inet.subnet(first, prefix)}/{prefix}"
    else:
        return last
    hint = f"remove it to have {default}, or set ip_begin, ip_end and netmask together"
    problems.append(_problem("ip_end", other_config["ip_end"], found, hint))
    return default


def _whole(text: str) -> int:
    """A number written in digits; -1 for anything else."""
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 12 else -1


def _mask(text: str) -> int:
    digits = text.strip().lower().removeprefix("0x")
    if not digits or len(digits) > 64 or digits.strip("0123456789abcdef"):
        return -1
    return int(digits, 16)


def _problem(key: str, value: str, found: str, hint: str) -> KeyProblem:
    return KeyProblem(key, value, f"{key}={value!r} {found}", hint)
