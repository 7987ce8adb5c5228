"""What a DHCP client sends and hears on a segment, as frames."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from nested_xen.frames import BROADCAST, Ethernet, EtherType

if TYPE_CHECKING:
    from nested_xen.wire import Port

SOON_S = 10
DISCOVER, OFFER, REQUEST, ACK = 1, 2, 3, 5
MAGIC = bytes([99, 130, 83, 99])


def dhcp_frame(port: Port, kind: int, **options: bytes) -> Ethernet:
    """A client's DHCP message (RFC 2131) with the broadcast flag, in UDP (no checksum) in IPv4."""
    codes = {"requested": 50, "server": 54}
    more = b"".join(bytes([codes[name], len(value)]) + value for name, value in options.items())
    mac = bytes.fromhex(port.mac.replace(":", ""))
    head = struct.pack("!4BIHH16x16s192x", 1, 1, 6, 0, 0x1AB, 0, 0x8000, mac)
    body = head + MAGIC + bytes([53, 1, kind]) + more + b"\xff"
    udp = struct.pack("!4H", 68, 67, 8 + len(body), 0) + body
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, bytes(4), b"\xff" * 4)
    total = sum(struct.unpack("!10H", ip))
    check = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    return Ethernet(BROADCAST, port.mac, EtherType.IPV4, ip[:10] + struct.pack("!H", check) + ip[12:] + udp)


def dhcp_answer(port: Port, kind: int) -> tuple[bytes, dict[int, bytes]]:
    """The address given and the options of the next DHCP answer of a kind."""

    def is_it(frame: Ethernet) -> bool:
        return frame.type == EtherType.IPV4 and frame.payload[20:24] == struct.pack("!HH", 67, 68)

    [frame] = port.capture(is_it, deadline_s=SOON_S)
    message = frame.payload[28:]
    options, at = {}, 240
    while message[at] != 255:
        code, length = message[at : at + 2]
        options[code] = message[at + 2 : at + 2 + length]
        at += 2 + length
    assert options[53] == bytes([kind])
    return message[16:20], options
