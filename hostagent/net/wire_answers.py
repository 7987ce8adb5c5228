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
from typing import TYPE_CHECKING

from hostagent.errors import KernelError
from hostagent.named import NamedTuple
from hostagent.net.devices import Address, Link, Route
from hostagent.net.netlink_names import BOND_PORT, BOND_SETTINGS, BRIDGE_SETTINGS, IPV6_SETTINGS
from hostagent.net.wire import CLONED, TABLE_MAIN, UNICAST

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
_TIMES = struct.Struct("=IIII")
_FAMILY_OF_LENGTH = {4: socket.AF_INET, 16: socket.AF_INET6}
_NUMBERS_OF_PORT = tuple(BOND_PORT.items())
_PLACES_OF_IPV6 = tuple((name, place * 4) for name, place in IPV6_SETTINGS.items())
_NUMBERS_OF_BRIDGE = tuple((name, number) for name, (number, _) in BRIDGE_SETTINGS.items())
_NUMBERS_OF_BOND = tuple((name, number) for name, (number, _) in BOND_SETTINGS.items())
_NOBODY = bytes(6)
_NONE = slice(0, 0)

SHAPES, SHAPES_OF_LENGTH = 512, 15
_shapes: dict[tuple[int, int], tuple[tuple[int, int, dict[int, slice]], ...]] = {}


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


def spans(data: bytes, position: int = 0) -> dict[int, slice]:
    """Attribute number -> where in `data` its bytes are, the last of each number; raises MalformedMessage.

    The messages of a look are alike: the same attributes in the same places. So the places are remembered with all
    headers of the data they were found in, and data of the same length with the very same headers is not walked again:
    a mask compares them all at once. That is what makes a look at 2000 devices cheap. Not to be changed by the caller.
    """
    known = _shapes.get((len(data), position), ())
    whole = int.from_bytes(data, "little")
    for mask, headers, found in known:
        if whole & mask == headers:
            return found
    found = {}
    over_headers = bytearray(len(data))
    for number, start, stop in _walk(data, position):
        found[number] = slice(start, stop)
        over_headers[start - 4 : start] = b"\xff\xff\xff\xff"
    mask = int.from_bytes(over_headers, "little")
    if len(_shapes) >= SHAPES:
        _shapes.clear()
    _shapes[(len(data), position)] = (*known[-SHAPES_OF_LENGTH:], (mask, whole & mask, found))
    return found


def _walk(data: bytes, position: int) -> Iterator[tuple[int, int, int]]:
    """Number, start and end of each attribute's bytes."""
    end = len(data)
    while end - position >= 4:
        length, number = _ATTRIBUTE.unpack_from(data, position)
        if length < 4 or position + length > end:
            raise MalformedMessage(f"a netlink attribute of {length} bytes where {end - position} are left")
        yield number & TYPE_BITS, position + 4, position + length
        position += (length + 3) & ~3


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
        words = message.body[spans(message.body, start).get(1, _NONE)]
    return number, _words(words)


def decode_link(body: bytes) -> Link:
    """The device of RTM_NEWLINK and RTM_DELLINK; raises MalformedMessage.

    `lower` is 0 when it lies in another network namespace, `partner` is empty while nobody answers.
    """
    if len(body) < _LINK.size:
        raise MalformedMessage(f"a link message of {len(body)} bytes")
    _, _, index, flags, _ = _LINK.unpack_from(body)
    found = spans(body, 16)
    get, number, order = found.get, int.from_bytes, sys.byteorder
    kind, vlan_id, vlan_protocol, partner = "", -1, 0, ""
    settings: Mapping[str, int] = {}
    port: Mapping[str, int] = {}
    if 18 in found:
        info = body[found[18]]
        of_info = spans(info)
        kind = _words(info[of_info.get(1, _NONE)])
        data = info[of_info.get(2, _NONE)]
        if kind == "bridge":
            settings = _named(data, _NUMBERS_OF_BRIDGE)
        elif kind == "vlan":
            of_data = spans(data)
            vlan_id = number(data[of_data[1]], order) if 1 in of_data else -1
            vlan_protocol = number(data[of_data.get(5, _NONE)], "big")
        elif kind == "bond":
            settings = _named(data, _NUMBERS_OF_BOND)
            lacp = data[spans(data).get(23, _NONE)]
            other = lacp[spans(lacp).get(5, _NONE)]
            partner = "" if other == _NOBODY else other.hex(":")
        if info[of_info.get(4, _NONE)] == b"bond\0":
            port = _named(info[of_info.get(5, _NONE)], _NUMBERS_OF_PORT)
    return Link(
        index,
        _words(body[get(3, _NONE)]),
        kind,
        body[get(1, _NONE)].hex(":"),
        number(body[get(4, _NONE)], order),
        number(body[get(10, _NONE)], order),
        0 if 37 in found else number(body[get(5, _NONE)], order),
        flags,
        number(body[get(27, _NONE)], order),
        body[get(33, _NONE)] == b"\1",
        number(body[get(16, _NONE)], order),
        body[get(54, _NONE)].hex(":"),
        _words(body[found[56]]) if 56 in found else "",
        _altnames(body[found[52]]) if 52 in found else (),
        number(body[get(50, _NONE)], order),
        number(body[get(51, _NONE)], order),
        vlan_id,
        vlan_protocol,
        settings,
        port,
        partner,
        _ipv6(body[found[26]]) if 26 in found else {},
    )


def _ipv6(data: bytes) -> dict[str, int]:
    """The settings of IFLA_AF_SPEC, which save three reads of files for each device of a check."""
    of_family = data[spans(data).get(socket.AF_INET6, _NONE)]
    conf = of_family[spans(of_family).get(2, _NONE)]
    last = len(conf) - 4
    return {
        name: int.from_bytes(conf[at : at + 4], sys.byteorder, signed=True)
        for name, at in _PLACES_OF_IPV6
        if at <= last
    }


def _named(data: bytes, numbers: tuple[tuple[str, int], ...]) -> dict[str, int]:
    found = spans(data)
    return {name: int.from_bytes(data[found[n]], sys.byteorder) for name, n in numbers if n in found}


def _altnames(data: bytes) -> tuple[str, ...]:
    return tuple(_words(data[start:stop]) for number, start, stop in _walk(data, 0) if number == 53)


def decode_address(body: bytes) -> Address | None:
    """The address of RTM_NEWADDR and RTM_DELADDR, None if it is of neither IP family; raises MalformedMessage."""
    if len(body) < _ADDRESS.size:
        raise MalformedMessage(f"an address message of {len(body)} bytes")
    family, prefix, flags, scope, index = _ADDRESS.unpack_from(body)
    if family not in (socket.AF_INET, socket.AF_INET6):
        return None
    found = spans(body, 8)
    times = body[found.get(6, _NONE)]
    _, valid_s, _, set_cs = _TIMES.unpack_from(times) if len(times) >= _TIMES.size else (0, 0xFFFFFFFF, 0, 0)
    # with a peer, IFA_ADDRESS is the peer's and IFA_LOCAL is ours
    text = _address_text(body[found.get(2) or found.get(1, _NONE)])
    flags = _number(body[found[8]]) if 8 in found else flags
    return Address(index, text, prefix, flags, scope, valid_s, set_cs)


def decode_routes(body: bytes) -> tuple[Route, ...]:
    """The routes of RTM_NEWROUTE and RTM_DELROUTE, one for each of its next hops; raises MalformedMessage.

    Empty when it is not a unicast IP route of the main table.
    """
    if len(body) < _ROUTE.size:
        raise MalformedMessage(f"a route message of {len(body)} bytes")
    family, bits, _, _, table, protocol, _, type_, flags = _ROUTE.unpack_from(body)
    if type_ != UNICAST or flags & CLONED or family not in (socket.AF_INET, socket.AF_INET6):
        return ()
    found = spans(body, 12)
    if (_number(body[found[15]]) if 15 in found else table) != TABLE_MAIN:
        return ()
    if bits == 0:
        destination = "default6" if family == socket.AF_INET6 else "default4"
    else:
        destination = f"{_address_text(body[found.get(1, _NONE)])}/{bits}"
    metric = _number(body[found.get(6, _NONE)])
    if 9 in found:
        hops = list(_hops(body[found[9]]))
    else:
        hops = [(_number(body[found.get(4, _NONE)]), _gateway(body, found))]
    return tuple(Route(device, destination, gateway, protocol, metric) for device, gateway in hops)


def _hops(data: bytes) -> Iterator[tuple[int, str]]:
    """Device and gateway of each."""
    position = 0
    while len(data) - position >= _HOP.size:
        length, _, _, device = _HOP.unpack_from(data, position)
        if length < _HOP.size or position + length > len(data):
            raise MalformedMessage(f"a next hop of {length} bytes where {len(data) - position} are left")
        hop = data[position : position + length]
        yield device, _gateway(hop, spans(hop, _HOP.size))
        position += (length + 3) & ~3


def _gateway(data: bytes, found: Mapping[int, slice]) -> str:
    raw = data[found.get(5, _NONE)] or data[found.get(18, _NONE)][2:]  # RTA_VIA: its family stands before it
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
