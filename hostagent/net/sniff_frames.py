"""Frames that tell what a NIC is plugged into: LACPDUs, LLDP, and the VLAN tags of all others. Pure.

What is on the wire is anybody's: nothing raises, and texts are made fit to be printed. Layouts: IEEE 802.1Q (tags),
802.1AX 6.4.2.3 (LACPDU), 802.1AB 8 and annexes D, F (LLDP).
"""

from __future__ import annotations

import socket
import struct

from hostagent.named import NamedTuple

TAGS = (0x8100, 0x88A8, 0x9100)
SLOW, LLDP = 0x8809, 0x88CC
LACP = 1  # subtype of slow protocols
TEXT_MOST = 255
ORGANIZATION = 127
IEEE_8021, IEEE_8023 = b"\x00\x80\xc2", b"\x00\x12\x0f"


class LacpEnd(NamedTuple):
    """One end of a link as it tells itself (IEEE 802.1AX: system, key and port make out an aggregate)."""

    system: str
    """MAC address."""
    system_priority: int
    key: int
    port: int
    port_priority: int
    state: int
    """Bits: 1 active, 2 fast, 4 aggregable, 8 in sync, 16 collecting, 32 distributing, 64 defaulted, 128 expired."""


class Lacpdu(NamedTuple):
    actor: LacpEnd
    partner: LacpEnd
    """Who the sender thinks that we are; all zero while it hears nobody."""


class Neighbour(NamedTuple):
    """What a switch says of itself over LLDP."""

    chassis: str
    port: str
    ttl_s: int
    port_description: str = ""
    system_name: str = ""
    system_description: str = ""
    address: str = ""
    """Where it is managed."""
    untagged_vlan: int = 0
    """The VLAN of untagged frames; 0 if it does not say."""
    vlans: tuple[int, ...] = ()
    """VLANs that it names on this port."""
    aggregated: bool = False
    """The port is part of an aggregate now."""
    largest_frame: int = 0
    """Bytes; 0 if it does not say."""


class Frame(NamedTuple):
    type: int
    """Of what is inside all tags; a length below 0x600."""
    vlan: int
    """The outermost tag's, 0 for one that has a priority only, -1 without a tag."""
    payload: bytes


def frame_of(data: bytes, tag: int = -1) -> Frame | None:
    """A frame from its destination address on; None if it is cut short. `tag` is the TCI that the NIC or kernel took
    out of it, -1 if it did not."""
    vlan = -1 if tag < 0 else tag & 0xFFF
    at = 12
    while len(data) >= at + 2:
        kind = int.from_bytes(data[at : at + 2], "big")
        if kind not in TAGS:
            return Frame(kind, vlan, data[at + 2 :])
        if len(data) >= at + 4 and vlan < 0:
            vlan = int.from_bytes(data[at + 2 : at + 4], "big") & 0xFFF
        at += 4
    return None


def lacpdu_of(payload: bytes) -> Lacpdu | None:
    """What is in a frame of type SLOW; None if it is no LACPDU."""
    if (
        len(payload) < 42
        or payload[0] != LACP
        or payload[2:4] != b"\x01\x14"
        or payload[22:24] != b"\x02\x14"
    ):
        return None
    return Lacpdu(_end(payload[4:]), _end(payload[24:]))


def neighbour_of(payload: bytes) -> Neighbour | None:
    """What is in a frame of type LLDP; None if it does not say which port of which chassis."""
    found = Neighbour("", "", 0)
    vlans: list[int] = []
    at = 0
    while at + 2 <= len(payload):
        head = int.from_bytes(payload[at : at + 2], "big")
        kind, length = head >> 9, head & 0x1FF
        value = payload[at + 2 : at + 2 + length]
        at += 2 + length
        if not kind or len(value) < length:
            break
        if kind == ORGANIZATION:
            found = _organization(found, value, vlans)
        else:
            found = _basic(found, kind, value)
    if not (found.chassis and found.port):
        return None
    return found._replace(vlans=tuple(sorted(set(vlans))))


def _basic(found: Neighbour, kind: int, value: bytes) -> Neighbour:
    match kind:
        case 1:
            return found._replace(chassis=_identity(value, mac=4, address=5))
        case 2:
            return found._replace(port=_identity(value, mac=3, address=4))
        case 3:
            return found._replace(ttl_s=int.from_bytes(value[:2], "big"))
        case 4:
            return found._replace(port_description=_text(value))
        case 5:
            return found._replace(system_name=_text(value))
        case 6:
            return found._replace(system_description=_text(value))
        case 8 if value and not found.address:
            return found._replace(address=_address(value[1 : 1 + value[0]]))
    return found


def _organization(found: Neighbour, value: bytes, vlans: list[int]) -> Neighbour:
    owner, kind, rest = value[:3], value[3:4], value[4:]
    number = int.from_bytes(rest[:2], "big")
    if owner == IEEE_8021 and kind == b"\x01" and len(rest) >= 2:
        return found._replace(untagged_vlan=number & 0xFFF)
    if owner == IEEE_8021 and kind == b"\x03" and len(rest) >= 2:
        vlans.append(number & 0xFFF)
    elif (owner, kind) in ((IEEE_8023, b"\x03"), (IEEE_8021, b"\x07")) and rest:
        return found._replace(aggregated=rest[0] & 3 == 3)  # it can be, and it is
    elif owner == IEEE_8023 and kind == b"\x04" and len(rest) >= 2:
        return found._replace(largest_frame=number)
    return found


def _end(data: bytes) -> LacpEnd:
    priority, system, key, port_priority, port, state = struct.unpack_from("!H6sHHHB", data)
    return LacpEnd(system.hex(":"), priority, key, port, port_priority, state)


def _identity(value: bytes, *, mac: int, address: int) -> str:
    """An identity whose first byte says of which kind it is."""
    kind, rest = value[:1], value[1:]
    if kind == bytes((mac,)) and len(rest) == 6:
        return rest.hex(":")
    if kind == bytes((address,)):
        return _address(rest)
    return _text(rest)


def _address(value: bytes) -> str:
    """An address after its family by IANA's numbers."""
    if value[:1] == b"\x01" and len(value) == 5:
        return socket.inet_ntop(socket.AF_INET, value[1:])
    if value[:1] == b"\x02" and len(value) == 17:
        return socket.inet_ntop(socket.AF_INET6, value[1:])
    return value[1:].hex(":")


def _text(value: bytes) -> str:
    """Fit for a terminal."""
    text = value[:TEXT_MOST].decode(errors="replace").rstrip("\0")
    return "".join(letter if letter.isprintable() else " " for letter in text).strip()
