"""Messages to rtnetlink, as bytes: operations on links, addresses and routes, and the questions of a look.

No socket here (`netlink.py` has it); the kernel's answers are decoded in `wire_answers.py`. Encoding is direct, without
a description of messages between, because it is most of what a thousand networks cost us besides the kernel's own work.
Numbers are those of linux/netlink.h, rtnetlink.h, if_link.h, if_addr.h.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias

from hostagent.errors import BugError
from hostagent.net.devices import LEAVING, PROTOCOL, SCOPE_LINK, UP
from hostagent.net.netlink_names import BOND_SETTINGS, BRIDGE_SETTINGS

if TYPE_CHECKING:
    from hostagent.net.operation import Operation, Value

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWLINKPROP, RTM_DELLINKPROP = 108, 109
REQUEST, ACK, DUMP = 0x1, 0x4, 0x300
REPLACE, EXCLUSIVE, CREATE, APPEND = 0x100, 0x200, 0x400, 0x800
NESTED = 0x8000
TABLE_MAIN = 254
UNICAST = 1
CLONED = 0x200
SCOPE_GLOBAL, SCOPE_ANY = 0, 255
SKIP_STATISTICS = 8  # RTEXT_FILTER_SKIP_STATS
METRIC6 = 1024
"""What the kernel makes of metric 0 of an IPv6 route, and shows."""

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")
_U32 = struct.Struct("=HHI")
_DEFAULTS = {"default4": socket.AF_INET, "default6": socket.AF_INET6}
_PADDING = (b"", b"\0", b"\0\0", b"\0\0\0")

Parts: TypeAlias = "list[tuple[int, int, bytes]]"
"""Messages without their headers: type, flags, body."""


def encode(operation: Operation, sequence: int, *, ack: bool = False) -> bytes:
    """The messages of one operation (`operation.py` has the verbs), one or more, all with the same sequence number.

    `ack` asks for an answer to the last of them; an error is answered always. What differs from one message:

    - link-set with `altname`, `altname_gone` or `addrgen` (IFLA_INET6_ADDR_GEN_MODE: 0 from the MAC, 1 none) has one
      message more for each. That for `addrgen` comes first: the kernel heeds it only before the device is up.
    - `master` is handled before `up` by the kernel: a port of a bond is set down by an operation of its own before.
    - address-add gives an address that is there the lifetime and flags asked for (`valid_s`: for ever if absent), so
      that one from a lease becomes permanent without ever being away. In IPv6 the kernel keeps its old prefix.
    - `metric` 0 of an IPv6 route is sent as what the kernel would make of it, so that a deletion finds that one only.

    Raises BugError for what is no operation of netlink, has unknown args or values that do not fit. An index is
    required: the kernel reads a link message without one as meant for the whole group. group-del is such a message, and
    takes no group but LEAVING.
    """
    try:
        if operation.ifindex <= 0 and operation.verb != "group-del":
            raise ValueError("an index of the device is required")
        make, known = _VERBS[operation.verb]
        if not operation.args.keys() <= known:
            raise ValueError(f"unknown args {sorted(operation.args.keys() - known)}")
        parts = make(operation)
    except (KeyError, TypeError, ValueError, OSError, struct.error) as error:
        raise BugError(
            f"{operation.verb} of {operation.device} with {dict(operation.args)} is no netlink message: {error!r}",
            hint="report this: the plan holds an operation that cannot be carried out",
        ) from error
    last = len(parts) - 1
    return b"".join(
        [
            _HEADER.pack(
                16 + len(body), type_, flags | (REQUEST | ACK if ack and i == last else REQUEST), sequence, 0
            )
            + body
            for i, (type_, flags, body) in enumerate(parts)
        ]
    )


def question(type_: int, body: bytes, sequence: int) -> bytes:
    """A request for a dump."""
    return _HEADER.pack(16 + len(body), type_, REQUEST | DUMP, sequence, 0) + body


ASK_LINKS = _LINK.pack(0, 0, 0, 0, 0) + _U32.pack(8, 29, SKIP_STATISTICS)
ASK_ADDRESSES = _ADDRESS.pack(0, 0, 0, 0, 0)
ASK_ROUTES = _ROUTE.pack(0, 0, 0, 0, TABLE_MAIN, 0, 0, 0, 0)


def _attribute(number: int, payload: bytes) -> bytes:
    return _ATTRIBUTE.pack(4 + len(payload), number) + payload + _PADDING[-len(payload) & 3]


def _text(number: int, text: object) -> bytes:
    return _attribute(number, os.fsencode(str(text)) + b"\0")


def _u32(number: int, value: object) -> bytes:
    return _U32.pack(8, number, value)


def _link_add(operation: Operation) -> Parts:
    args = operation.args
    kind = str(args["kind"])
    body = _LINK.pack(0, 0, operation.ifindex, UP if args.get("up") else 0, UP if args.get("up") else 0)
    body += _text(3, operation.device) + _link_attributes(args)
    if args.get("lower"):
        body += _u32(5, args["lower"])
    data = _settings(kind, args.get("settings"))
    if kind == "vlan":
        protocol = args.get("vlan_protocol") or 0x8100
        data += _attribute(1, struct.pack("=H", args["vlan_id"])) + _attribute(5, struct.pack(">H", protocol))
    return [(RTM_NEWLINK, CREATE | EXCLUSIVE, body + _link_info(kind, data))]


def _link_set(operation: Operation) -> Parts:
    args = operation.args
    head = _LINK.pack(0, 0, operation.ifindex, 0, 0)
    parts: Parts = []
    if args.get("addrgen") is not None:
        of_family = _attribute(socket.AF_INET6, _attribute(8, struct.pack("=B", args["addrgen"])))
        parts.append((RTM_NEWLINK, 0, head + _attribute(26, of_family)))
    body = _link_attributes(args)
    settings = args.get("settings")
    if settings:
        kind = "bond" if set(_map(settings)) <= BOND_SETTINGS.keys() else "bridge"
        body += _link_info(kind, _settings(kind, settings))
    up = args.get("up")
    if body or up is not None:
        change = 0 if up is None else UP
        parts.append((RTM_NEWLINK, 0, _LINK.pack(0, 0, operation.ifindex, UP if up else 0, change) + body))
    for name, type_, flags in (
        ("altname_gone", RTM_DELLINKPROP, 0),
        ("altname", RTM_NEWLINKPROP, CREATE | EXCLUSIVE | APPEND),
    ):
        if args.get(name):
            parts.append((type_, flags, head + _attribute(52 | NESTED, _text(53, args[name]))))
    return parts or [(RTM_NEWLINK, 0, head)]


def _link_del(operation: Operation) -> Parts:
    return [(RTM_DELLINK, 0, _LINK.pack(0, 0, operation.ifindex, 0, 0))]


def _group_del(operation: Operation) -> Parts:
    if operation.ifindex or operation.args["group"] != LEAVING:
        raise ValueError("only the group of what leaves is deleted as one")
    return [(RTM_DELLINK, 0, _LINK.pack(0, 0, 0, 0, 0) + _u32(27, LEAVING))]


def _link_attributes(args: Mapping[str, Value]) -> bytes:
    body = b""
    if args.get("mac"):
        body += _attribute(1, bytes.fromhex(str(args["mac"]).replace(":", "")))
    if args.get("mtu"):
        body += _u32(4, args["mtu"])
    if args.get("master") is not None:
        body += _u32(10, args["master"])
    if args.get("group") is not None:
        body += _u32(27, args["group"])
    return body


def _link_info(kind: str, data: bytes) -> bytes:
    return _attribute(18, _text(1, kind) + (_attribute(2, data) if data else b""))


def _settings(kind: str, settings: Value) -> bytes:
    if not settings:
        return b""
    known = {"bridge": BRIDGE_SETTINGS, "bond": BOND_SETTINGS}[kind]
    data = b""
    for name, value in _map(settings).items():
        number, form = known[name]
        data += _attribute(number, struct.pack("=" + form, value))
    return data


def _map(settings: Value) -> Mapping[str, int | str | bool]:
    if not isinstance(settings, Mapping):
        raise TypeError(f"settings are a map, not {settings!r}")
    return settings


def _address(operation: Operation, type_: int, flags: int) -> Parts:
    args = operation.args
    family, raw = _raw(str(args["text"]))
    of_address, valid_s = args.get("flags"), args.get("valid_s")
    body = _ADDRESS.pack(family, args["prefix"], 0, args.get("scope") or 0, operation.ifindex)
    body += _attribute(2, raw) + _attribute(1, raw)
    if type_ == RTM_NEWADDR and of_address is not None:
        body += _u32(8, of_address)
    if type_ == RTM_NEWADDR and valid_s is not None:
        body += _attribute(6, struct.pack("=IIII", valid_s, valid_s, 0, 0))
    return [(type_, flags, body)]


def _address_add(operation: Operation) -> Parts:
    return _address(operation, RTM_NEWADDR, CREATE | REPLACE)


def _address_del(operation: Operation) -> Parts:
    return _address(operation, RTM_DELADDR, 0)


def _route(operation: Operation, type_: int, flags: int) -> Parts:
    args = operation.args
    destination, gateway = str(args["destination"]), str(args.get("gateway") or "")
    if destination in _DEFAULTS:
        family, raw, bits = _DEFAULTS[destination], b"", 0
    else:
        text, _, prefix = destination.partition("/")
        family, raw = _raw(text)
        bits = int(prefix)
    # a deletion that names the scope finds only routes of that very scope
    scope = SCOPE_ANY if type_ == RTM_DELROUTE else SCOPE_GLOBAL if gateway else SCOPE_LINK
    protocol = args.get("protocol")
    body = _ROUTE.pack(
        family, bits, 0, 0, TABLE_MAIN, PROTOCOL if protocol is None else protocol, scope, UNICAST, 0
    )
    if raw:
        body += _attribute(1, raw)
    body += _u32(4, operation.ifindex)
    if gateway:
        of_gateway, raw = _raw(gateway)
        body += (
            _attribute(5, raw)
            if of_gateway == family
            else _attribute(18, struct.pack("=H", of_gateway) + raw)
        )
    metric = args.get("metric") or (METRIC6 if family == socket.AF_INET6 else 0)
    if metric:
        body += _u32(6, metric)
    return [(type_, flags, body)]


def _route_add(operation: Operation) -> Parts:
    return _route(operation, RTM_NEWROUTE, CREATE | REPLACE)


def _route_del(operation: Operation) -> Parts:
    return _route(operation, RTM_DELROUTE, 0)


def _raw(text: str) -> tuple[socket.AddressFamily, bytes]:
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    return family, socket.inet_pton(family, text)


_OF_LINK = {"up", "mac", "mtu", "master", "group", "settings"}
_OF_ADDRESS = frozenset(("text", "prefix", "flags", "scope", "valid_s"))
_OF_ROUTE = frozenset(("destination", "gateway", "protocol", "metric"))
_VERBS: Mapping[str, tuple[Callable[[Operation], Parts], frozenset[str]]] = {
    "link-add": (_link_add, frozenset(_OF_LINK | {"kind", "index", "lower", "vlan_id", "vlan_protocol"})),
    "link-set": (_link_set, frozenset(_OF_LINK | {"altname", "altname_gone", "addrgen"})),
    "link-del": (_link_del, frozenset()),
    "group-del": (_group_del, frozenset(("group",))),
    "address-add": (_address_add, _OF_ADDRESS),
    "address-del": (_address_del, _OF_ADDRESS),
    "route-add": (_route_add, _OF_ROUTE),
    "route-del": (_route_del, _OF_ROUTE),
}
