"""Messages from rtnetlink: the kernel's links, addresses, routes and errors, decoded.

Narrow, because a look at a host with a thousand networks is thousands of messages with forty attributes each: only
attributes that `devices.py` has a field for are read, and a number is taken in whatever width the kernel sends it.
Bytes that are no message raise MalformedMessage and nothing else.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from typing import TYPE_CHECKING, NamedTuple

from hostagent.errors import KernelError
from hostagent.net.devices import Address, Link, Route
from hostagent.net.netlink_names import BOND_PORT, BOND_SETTINGS, BRIDGE_SETTINGS
from hostagent.net.wire import CLONED, METRIC6, TABLE_MAIN, UNICAST

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

NLMSG_ERROR, NLMSG_DONE = 2, 3
DUMP_INTERRUPTED = 0x10
HAS_TEXT, CAPPED = 0x200, 0x100  # of an error: attributes follow; the refused message is left out
TYPE_BITS = 0x3FFF

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")
_HOP = struct.Struct("=HBBI")
_TWO_WORDS = struct.Struct("=II")
_FAMILY_OF_LENGTH = {4: socket.AF_INET, 16: socket.AF_INET6}
_NUMBERS_OF_BRIDGE = tuple((name, number) for name, (number, _) in BRIDGE_SETTINGS.items())
_NUMBERS_OF_BOND = tuple((name, number) for name, (number, _) in BOND_SETTINGS.items())
_NOBODY = bytes(6)


class MalformedMessage(KernelError):
    """Bytes from the netlink socket that are no message of the kernel's."""

    def __init__(self, found: str) -> None:
        super().__init__(
            found, hint="report this with the kernel's version (uname -r): its messages are read wrongly"
        )


class Message(NamedTuple):
    type: int
    flags: int
    sequence: int
    body: bytes


def messages(data: bytes) -> Iterator[Message]:
    """The messages of one datagram; raises MalformedMessage."""
    position, end = 0, len(data)
    while position < end:
        if end - position < 16:
            raise MalformedMessage(f"a netlink message ends within its header ({end - position} bytes)")
        length, type_, flags, sequence, _ = _HEADER.unpack_from(data, position)
        if length < 16 or position + length > end:
            raise MalformedMessage(f"a netlink message of {length} bytes where {end - position} are left")
        yield Message(type_, flags, sequence, data[position + 16 : position + length])
        position += (length + 3) & ~3


def attributes(data: bytes, position: int = 0) -> dict[int, bytes]:
    """Attribute number -> its bytes, the last of each number; raises MalformedMessage."""
    return dict(_walk(data, position))


def _walk(data: bytes, position: int) -> list[tuple[int, bytes]]:
    found = []
    end = len(data)
    unpack = _ATTRIBUTE.unpack_from
    while end - position >= 4:
        length, number = unpack(data, position)
        if length < 4 or position + length > end:
            raise MalformedMessage(f"a netlink attribute of {length} bytes where {end - position} are left")
        found.append((number & TYPE_BITS, data[position + 4 : position + length]))
        position += (length + 3) & ~3
    return found


def decode_error(message: Message) -> tuple[int, str]:
    """Of NLMSG_ERROR, or NLMSG_DONE that ends a dump: errno (0: done as asked) and the kernel's own words, if any."""
    if len(message.body) < 4:
        return 0, ""
    number = -int.from_bytes(message.body[:4], sys.byteorder, signed=True)
    words = b""
    if message.flags & HAS_TEXT:
        start = 4
        if message.type == NLMSG_ERROR:
            refused = 16 if message.flags & CAPPED else max(16, _number(message.body[4:8]))
            start += (refused + 3) & ~3
        words = attributes(message.body, start).get(1, b"")
    return number, _words(words)


def decode_link(body: bytes) -> Link:
    """The device of RTM_NEWLINK and RTM_DELLINK; raises MalformedMessage.

    `lower` is 0 when it lies in another network namespace, `partner` is empty while nobody answers.
    """
    if len(body) < _LINK.size:
        raise MalformedMessage(f"a link message of {len(body)} bytes")
    _, _, index, flags, _ = _LINK.unpack_from(body)
    found = dict(_walk(body, 16))
    get, number, order = found.get, int.from_bytes, sys.byteorder
    kind, vlan_id, vlan_protocol, partner = "", -1, 0, ""
    settings: Mapping[str, int] = {}
    port: Mapping[str, int] = {}
    if 18 in found:
        info = dict(_walk(found[18], 0))
        kind = _words(info.get(1, b""))
        if kind == "bridge" and 2 in info:
            data = dict(_walk(info[2], 0))
            settings = {name: number(data[n], order) for name, n in _NUMBERS_OF_BRIDGE if n in data}
        elif kind == "vlan" and 2 in info:
            data = dict(_walk(info[2], 0))
            vlan_id = number(data.get(1, b"\xff\xff"), order)
            vlan_protocol = number(data.get(5, b""), "big")
        elif kind == "bond" and 2 in info:
            data = dict(_walk(info[2], 0))
            settings = {name: number(data[n], order) for name, n in _NUMBERS_OF_BOND if n in data}
            other = attributes(data.get(23, b"")).get(5, _NOBODY)
            partner = "" if other == _NOBODY else other.hex(":")
        if info.get(4) == b"bond\0" and 5 in info:
            data = dict(_walk(info[5], 0))
            port = {name: number(data[n], order) for name, n in BOND_PORT.items() if n in data}
    return Link(
        index,
        _words(get(3, b"")),
        kind,
        get(1, b"").hex(":"),
        number(get(4, b""), order),
        number(get(10, b""), order),
        0 if 37 in found else number(get(5, b""), order),
        flags,
        number(get(27, b""), order),
        get(33, b"\0") != b"\0",
        number(get(16, b""), order),
        get(54, b"").hex(":"),
        _words(found[56]) if 56 in found else "",
        tuple(_words(name) for n, name in _walk(found[52], 0) if n == 53) if 52 in found else (),
        number(get(50, b""), order),
        number(get(51, b""), order),
        vlan_id,
        vlan_protocol,
        settings,
        port,
        partner,
    )


def decode_address(body: bytes) -> Address | None:
    """The address of RTM_NEWADDR and RTM_DELADDR, None if it is of neither IP family; raises MalformedMessage."""
    if len(body) < _ADDRESS.size:
        raise MalformedMessage(f"an address message of {len(body)} bytes")
    family, prefix, flags, scope, index = _ADDRESS.unpack_from(body)
    if family not in (socket.AF_INET, socket.AF_INET6):
        return None
    found = attributes(body, 8)
    times = found.get(6, b"")
    valid_s = _TWO_WORDS.unpack_from(times)[1] if len(times) >= 8 else 0xFFFFFFFF
    # with a peer, IFA_ADDRESS is the peer's and IFA_LOCAL is ours
    text = _address_text(found.get(2) or found.get(1, b""))
    return Address(index, text, prefix, _number(found[8]) if 8 in found else flags, scope, valid_s)


def decode_routes(body: bytes) -> tuple[Route, ...]:
    """The routes of RTM_NEWROUTE and RTM_DELROUTE, one for each of its next hops; raises MalformedMessage.

    Empty when it is not a unicast IP route of the main table. Metric 0 is the family's default (`METRIC6`).
    """
    if len(body) < _ROUTE.size:
        raise MalformedMessage(f"a route message of {len(body)} bytes")
    family, bits, _, _, table, protocol, _, type_, flags = _ROUTE.unpack_from(body)
    if type_ != UNICAST or flags & CLONED or family not in (socket.AF_INET, socket.AF_INET6):
        return ()
    found = attributes(body, 12)
    if (_number(found[15]) if 15 in found else table) != TABLE_MAIN:
        return ()
    six = family == socket.AF_INET6
    if bits == 0:
        destination = "default6" if six else "default4"
    else:
        destination = f"{_address_text(found.get(1, b''))}/{bits}"
    metric = _number(found.get(6, b""))
    if six and metric == METRIC6:
        metric = 0
    if 9 in found:
        hops = list(_hops(found[9]))
    else:
        hops = [(_number(found.get(4, b"")), found)]
    return tuple(Route(device, destination, _gateway(of_hop), protocol, metric) for device, of_hop in hops)


def _hops(data: bytes) -> Iterator[tuple[int, dict[int, bytes]]]:
    position = 0
    while len(data) - position >= _HOP.size:
        length, _, _, device = _HOP.unpack_from(data, position)
        if length < _HOP.size or position + length > len(data):
            raise MalformedMessage(f"a next hop of {length} bytes where {len(data) - position} are left")
        yield device, attributes(data[position : position + length], _HOP.size)
        position += (length + 3) & ~3


def _gateway(found: Mapping[int, bytes]) -> str:
    raw = found.get(5) or found.get(18, b"")[2:]  # RTA_VIA: of the other family, which stands before it
    return _address_text(raw) if raw else ""


def _address_text(raw: bytes) -> str:
    family = _FAMILY_OF_LENGTH.get(len(raw))
    if family is None:
        raise MalformedMessage(f"an address of {len(raw)} bytes")
    return socket.inet_ntop(family, raw)


def _words(raw: bytes) -> str:
    return os.fsdecode(raw.partition(b"\0")[0])


def _number(raw: bytes) -> int:
    return int.from_bytes(raw, sys.byteorder)
