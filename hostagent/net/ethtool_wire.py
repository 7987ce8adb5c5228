"""Messages of the kernel's ethtool family (generic netlink), as bytes: link modes, offloads, names of their bits.

No socket here (`ethtool.py` has it). Sets of bits go both ways in the compact form; which bit is which, the kernel's
own lists of names say, so that nothing here depends on its version. Numbers are those of linux/ethtool_netlink.h and
genetlink.h. Bytes that are no message raise MalformedMessage and nothing else.
"""

from __future__ import annotations

import os
import struct
import sys
from typing import TYPE_CHECKING

from hostagent.named import NamedTuple
from hostagent.net.wire import ACK, DUMP, NESTED, REQUEST
from hostagent.net.wire_answers import MalformedMessage, spans

if TYPE_CHECKING:
    from collections.abc import Mapping

CONTROL, GET_FAMILY, FAMILY_ID, FAMILY_NAME = 16, 3, 1, 2
STRINGS_GET, LINK_MODES_GET, LINK_MODES_SET, FEATURES_GET, FEATURES_SET = 1, 4, 5, 11, 12
FEATURE_NAMES, LINK_MODE_NAMES = 4, 9
"""Sets of strings: ETH_SS_FEATURES, ETH_SS_LINK_MODES."""
COMPACT, OMIT_REPLY = 1, 2
HARDWARE, WANTED, ACTIVE = 2, 3, 4
AUTONEG, OURS, SPEED, DUPLEX = 2, 3, 5, 6
NO_MASK, SIZE, VALUE, MASK = 1, 2, 4, 5
UNKNOWN_SPEED = 0xFFFFFFFF
DUPLEX_NAMES = {0: "half", 1: "full"}
DUPLEX_NUMBERS = {name: number for number, name in DUPLEX_NAMES.items()}

_HEADER = struct.Struct("=IHHII")
_GENERIC = struct.Struct("=BBxx")
_ATTRIBUTE = struct.Struct("=HH")
_U32 = struct.Struct("=HHI")
_PADDING = (b"", b"\0", b"\0\0", b"\0\0\0")
_NONE = slice(0, 0)
_BODY = 4
"""Where the attributes begin: after the header of generic netlink."""


class Features(NamedTuple):
    """Offloads of a device, each a number with one bit per feature."""

    device: str
    changeable: int
    active: int


class LinkModes(NamedTuple):
    """How a NIC makes its link. `advertised` and `supported` have one bit per link mode, and some for other things."""

    autoneg: bool
    speed: int
    """Mb/s; 0 while not known, as without a link."""
    duplex: str
    """half, full, or empty while not known."""
    advertised: int
    supported: int


def numbered(message: bytes, sequence: int) -> bytes:
    """A message with its sequence number, which those made here do not have."""
    return message[:8] + sequence.to_bytes(4, sys.byteorder) + message[12:]


def ask_family() -> bytes:
    """Which message type the ethtool family has on this kernel."""
    return _message(CONTROL, GET_FAMILY, REQUEST | ACK, _attribute(FAMILY_NAME, b"ethtool\0"))


def ask_names(family: int, which: int) -> bytes:
    sets = _nest(2, _nest(1, _U32.pack(8, 1, which)))
    return _message(family, STRINGS_GET, REQUEST | ACK, _nest(1, b"") + sets)


def ask(family: int, command: int, device: str = "") -> bytes:
    """FEATURES_GET or LINK_MODES_GET, of all devices when none is named."""
    flags = REQUEST | ACK if device else REQUEST | DUMP
    return _message(family, command, flags, _of(device, COMPACT))


def set_features(family: int, device: str, value: int, mask: int, size: int) -> bytes:
    """Have the features of `mask` as in `value`, leave the others; `size` is the number of bits the kernel has."""
    bits = _nest(WANTED, _bits(value, mask, size))
    return _message(family, FEATURES_SET, REQUEST | ACK, _of(device, COMPACT | OMIT_REPLY) + bits)


def set_link_modes(family: int, device: str, wanted: Mapping[str, int | str], mask: int, size: int) -> bytes:
    """`wanted` as `devices.Device.link`; what of `mask` is not in its `advertise` is not advertised any more."""
    body = _of(device, COMPACT)
    if "autoneg" in wanted:
        body += _attribute(AUTONEG, b"\1" if wanted["autoneg"] == "on" else b"\0")
    if "advertise" in wanted:
        value = int(wanted["advertise"])
        body += _nest(OURS, _bits(value, mask | value, max(size, value.bit_length())))
    if "speed" in wanted:
        body += _U32.pack(8, SPEED, int(wanted["speed"]))
    if "duplex" in wanted:
        body += _attribute(DUPLEX, bytes((DUPLEX_NUMBERS[str(wanted["duplex"])],)))
    return _message(family, LINK_MODES_SET, REQUEST | ACK, body)


def family_of(body: bytes) -> int:
    """The answer to `ask_family`."""
    return _number(body[spans(body, _BODY).get(FAMILY_ID, _NONE)])


def names_of(body: bytes) -> tuple[str, ...]:
    """The answer to `ask_names`: name of each bit, empty where it has none."""
    found: dict[int, str] = {}
    for string in _all(_in(_in(_in(body, _BODY, 2), 0, 1), 0, 3), 1):
        parts = spans(string)
        found[_number(string[parts.get(1, _NONE)])] = _text(string[parts.get(2, _NONE)])
    last = max(found, default=-1)
    if last >= 1 << 16:
        raise MalformedMessage(f"a name of ethtool's bit {last}")
    return tuple(found.get(bit, "") for bit in range(last + 1))


def features_of(body: bytes) -> Features:
    """One answer to FEATURES_GET."""
    parts = spans(body, _BODY)
    changeable, _ = _decode_bits(body[parts.get(HARDWARE, _NONE)])
    active, _ = _decode_bits(body[parts.get(ACTIVE, _NONE)])
    return Features(_device(body[parts.get(1, _NONE)]), changeable, active)


def link_modes_of(body: bytes) -> LinkModes:
    """One answer to LINK_MODES_GET."""
    parts = spans(body, _BODY)
    advertised, supported = _decode_bits(body[parts.get(OURS, _NONE)])
    speed = _number(body[parts.get(SPEED, _NONE)])
    return LinkModes(
        _number(body[parts.get(AUTONEG, _NONE)]) == 1,
        0 if speed == UNKNOWN_SPEED else speed,
        DUPLEX_NAMES.get(_number(body[parts[DUPLEX]]), "") if DUPLEX in parts else "",
        advertised,
        supported,
    )


def _message(type_: int, command: int, flags: int, body: bytes) -> bytes:
    return (
        _HEADER.pack(_HEADER.size + _BODY + len(body), type_, flags, 0, 0) + _GENERIC.pack(command, 1) + body
    )


def _of(device: str, flags: int) -> bytes:
    """The header that every request of the family begins with."""
    name = _attribute(2, os.fsencode(device) + b"\0") if device else b""
    return _nest(1, name + _U32.pack(8, 3, flags))


def _bits(value: int, mask: int, size: int) -> bytes:
    octets = (size + 31) // 32 * 4
    return (
        _U32.pack(8, SIZE, size)
        + _attribute(VALUE, value.to_bytes(octets, sys.byteorder))
        + _attribute(MASK, mask.to_bytes(octets, sys.byteorder))
    )


def _decode_bits(data: bytes) -> tuple[int, int]:
    """Value and mask of a compact set; where there is no mask, the set is a plain list and 0 stands for it."""
    parts = spans(data)
    return _number(data[parts.get(VALUE, _NONE)]), _number(data[parts.get(MASK, _NONE)])


def _device(data: bytes) -> str:
    return _text(data[spans(data).get(2, _NONE)])


def _in(data: bytes, position: int, number: int) -> bytes:
    return data[spans(data, position).get(number, _NONE)]


def _all(data: bytes, wanted: int) -> list[bytes]:
    """The bytes of every attribute of one number: `spans` tells the last only."""
    found = []
    position, end = 0, len(data)
    while end - position >= 4:
        length, number = _ATTRIBUTE.unpack_from(data, position)
        if length < 4 or position + length > end:
            raise MalformedMessage(f"a netlink attribute of {length} bytes where {end - position} are left")
        if number & ~NESTED == wanted:
            found.append(data[position + 4 : position + length])
        position += (length + 3) & ~3
    return found


def _attribute(number: int, payload: bytes) -> bytes:
    return _ATTRIBUTE.pack(4 + len(payload), number) + payload + _PADDING[-len(payload) & 3]


def _nest(number: int, payload: bytes) -> bytes:
    return _ATTRIBUTE.pack(4 + len(payload), number | NESTED) + payload


def _number(data: bytes) -> int:
    """A number of any length. Sets of bits are of 32-bit words: in the order of our machines that is the same."""
    return int.from_bytes(data, sys.byteorder)


def _text(data: bytes) -> str:
    return os.fsdecode(data.partition(b"\0")[0])
