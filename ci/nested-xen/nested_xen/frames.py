"""Ethernet frames as the test process builds and reads them: Ethernet with VLAN tags, ARP, LACPDU. Pure.

Layouts: IEEE 802.3 and 802.1Q (Ethernet, tags), RFC 826 (ARP), IEEE 802.1AX 6.4.2.3 (LACPDU).
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag

BROADCAST = "ff:ff:ff:ff:ff:ff"
SLOW_PROTOCOLS = "01:80:c2:00:00:02"
TAG_TYPES = (0x8100, 0x88A8)
SHORTEST = 60  # bytes without the checksum


class EtherType(IntEnum):
    IPV4 = 0x0800
    ARP = 0x0806
    SLOW = 0x8809
    LLDP = 0x88CC
    LOCAL = 0x88B5  # IEEE local experimental: what tests send when the content does not matter


class NotThis(ValueError):
    """The bytes are not a frame of the kind asked for."""


def mac_bytes(text: str) -> bytes:
    parts = text.split(":")
    if len(parts) != 6:
        raise NotThis(f"{text!r} is no MAC address")
    return bytes(int(part, 16) for part in parts)


def mac_text(data: bytes) -> str:
    return data.hex(":")


@dataclass(frozen=True, slots=True)
class Ethernet:
    """A frame without its checksum. `vlans` are 802.1Q tag values (TCI: priority and id), outermost first."""

    destination: str
    source: str
    type: int
    payload: bytes = field(repr=False)
    vlans: tuple[int, ...] = ()

    def __bytes__(self) -> bytes:
        tags = b"".join(struct.pack("!HH", TAG_TYPES[0], tci) for tci in self.vlans)
        head = mac_bytes(self.destination) + mac_bytes(self.source)
        return (head + tags + struct.pack("!H", self.type) + self.payload).ljust(SHORTEST, b"\0")

    @classmethod
    def parse(cls, data: bytes) -> Ethernet:
        """Read a frame; raises NotThis when it is cut short. Padding stays in the payload."""
        at, vlans = 12, []
        while True:
            if len(data) < at + 2:
                raise NotThis(f"an Ethernet frame of {len(data)} bytes")
            (kind,) = struct.unpack_from("!H", data, at)
            if kind not in TAG_TYPES:
                break
            if len(data) < at + 4:
                raise NotThis("a VLAN tag cut short")
            vlans.append(struct.unpack_from("!H", data, at + 2)[0])
            at += 4
        return cls(mac_text(data[:6]), mac_text(data[6:12]), kind, data[at + 2 :], tuple(vlans))


@dataclass(frozen=True, slots=True)
class Arp:
    """ARP for IPv4 over Ethernet. Operation 1 asks, 2 answers."""

    operation: int
    sender_mac: str
    sender: str
    target_mac: str
    target: str

    def __bytes__(self) -> bytes:
        head = struct.pack("!HHBBH", 1, EtherType.IPV4, 6, 4, self.operation)
        sender = mac_bytes(self.sender_mac) + socket.inet_aton(self.sender)
        return head + sender + mac_bytes(self.target_mac) + socket.inet_aton(self.target)

    @classmethod
    def parse(cls, frame: Ethernet) -> Arp:
        if frame.type != EtherType.ARP or len(frame.payload) < 28:
            raise NotThis("no ARP frame")
        *kind, operation = struct.unpack_from("!HHBBH", frame.payload)
        if kind != [1, EtherType.IPV4, 6, 4]:
            raise NotThis("ARP, but not for IPv4 over Ethernet")
        fields = struct.unpack_from("!6s4s6s4s", frame.payload, 8)
        macs, addresses = map(mac_text, fields[::2]), map(socket.inet_ntoa, fields[1::2])
        sender_mac, target_mac = macs
        sender, target = addresses
        return cls(operation, sender_mac, sender, target_mac, target)


def arp_request(mac: str, sender: str, target: str) -> Ethernet:
    """Who has `target`? Sender 0.0.0.0 makes it a probe for a double address."""
    asked = Arp(1, mac, sender, "00:00:00:00:00:00", target)
    return Ethernet(BROADCAST, mac, EtherType.ARP, bytes(asked))


class LacpState(IntFlag):
    ACTIVITY = 0x01
    SHORT_TIMEOUT = 0x02
    AGGREGATION = 0x04
    SYNCHRONIZATION = 0x08
    COLLECTING = 0x10
    DISTRIBUTING = 0x20
    DEFAULTED = 0x40
    EXPIRED = 0x80


@dataclass(frozen=True, slots=True)
class LacpEnd:
    """What a LACPDU says of one end (actor or partner)."""

    system: str
    key: int
    port: int
    state: LacpState
    system_priority: int = 0xFFFF
    port_priority: int = 0xFF

    def __bytes__(self) -> bytes:
        return struct.pack(
            "!H6sHHHB3x",
            self.system_priority,
            mac_bytes(self.system),
            self.key,
            self.port_priority,
            self.port,
            self.state,
        )

    @classmethod
    def parse(cls, data: bytes) -> LacpEnd:
        system_priority, system, key, port_priority, port, state = struct.unpack("!H6sHHHB3x", data)
        return cls(mac_text(system), key, port, LacpState(state), system_priority, port_priority)


@dataclass(frozen=True, slots=True)
class Lacpdu:
    """A LACP version 1 PDU: actor, partner, collector delay 0."""

    actor: LacpEnd
    partner: LacpEnd

    def frame(self, source: str) -> Ethernet:
        """The PDU as a link sends it, to the slow-protocols address."""
        body = bytes([1, 1, 1, 20]) + bytes(self.actor) + bytes([2, 20]) + bytes(self.partner)
        return Ethernet(SLOW_PROTOCOLS, source, EtherType.SLOW, (body + bytes([3, 16])).ljust(110, b"\0"))

    @classmethod
    def parse(cls, frame: Ethernet) -> Lacpdu:
        data = frame.payload
        if frame.type != EtherType.SLOW or len(data) < 42 or data[0] != 1:
            raise NotThis("no LACPDU")
        if data[2:4] != bytes([1, 20]) or data[22:24] != bytes([2, 20]):
            raise NotThis("a LACPDU without actor or partner where they belong")
        return cls(LacpEnd.parse(data[4:22]), LacpEnd.parse(data[24:42]))
