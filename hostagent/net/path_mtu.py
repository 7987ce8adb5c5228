"""How large a packet gets to a host without being cut up: echo requests that no router may fragment (row 19).

On one segment nobody answers that a packet was too large, it is just lost; so several sizes are asked for at once and
the largest that comes back counts. IPv4 only, over a raw socket.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from typing import TYPE_CHECKING

from hostagent.errors import KernelError

if TYPE_CHECKING:
    from collections.abc import Iterable

IP_MTU_DISCOVER, PROBE = 10, 3  # IP_PMTUDISC_PROBE: never cut up, whatever the kernel remembers of the path
ECHO, ECHO_REPLY = 8, 0
HEADERS_BYTES = 28
"""Of IPv4 and ICMP."""
SIZES = (576, 1280, 1400, 1450, 1472, 1492, 1500, 2304, 4000, 4470, 8000, 8972, 9000)
"""MTUs that occur, between which the answer lies: of tunnels, PPPoE, Ethernet, jumbo frames."""
ANSWER_S = 1.0


class PathError(KernelError):
    """It could not be asked: no route, no such source, not permitted."""


def sizes(most: int) -> tuple[int, ...]:
    """The packet sizes to ask for, in bytes, the largest first."""
    return tuple(sorted({*(size for size in SIZES if size < most), most}, reverse=True))


def echo(identity: int, size: int) -> bytes:
    """An echo request that makes an IPv4 packet of that size; its number is the size."""
    payload = bytes(max(0, size - HEADERS_BYTES))
    head = struct.pack("!BBHHH", ECHO, 0, 0, identity, size)
    total = sum(
        struct.unpack(f"!{(len(head) + len(payload) + 1) // 2}H", (head + payload) + bytes(len(payload) % 2))
    )
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return head[:2] + struct.pack("!H", ~total & 0xFFFF) + head[4:] + payload


def answered(packet: bytes, identity: int) -> int:
    """The size that a received IPv4 packet answers for; 0 when it is no answer to us."""
    start = (packet[0] & 0xF) * 4 if packet and packet[0] >> 4 == 4 else 0
    reply = packet[start : start + 8]
    if len(reply) < 8 or reply[0] != ECHO_REPLY or int.from_bytes(reply[4:6]) != identity:
        return 0
    return int.from_bytes(reply[6:8])


def carries(target: str, most: int, source: str = "", *, timeout_s: float = ANSWER_S) -> int:
    """The largest size, at most `most`, of which an answer came; 0 when none did: then nothing is known of the path.

    Raises PathError.
    """
    identity = os.getpid() & 0xFFFF
    try:
        with socket.socket(
            socket.AF_INET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_ICMP
        ) as wire:
            wire.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PROBE)
            if source:
                wire.bind((source, 0))
            wire.connect((target, 0))
            asked = _ask(wire, identity, sizes(min(most, 0xFFFF)))
            return _hear(wire, identity, asked, timeout_s)
    except OSError as error:
        hint = "run as root" if error.errno == errno.EPERM else f"ip route get {target}"
        raise PathError(
            f"the way to {target} could not be measured: {error.strerror or error}", hint=hint
        ) from error


def _ask(wire: socket.socket, identity: int, wanted: Iterable[int]) -> set[int]:
    asked = set()
    for size in wanted:
        try:
            wire.send(echo(identity, size))
        except OSError as error:
            if error.errno != errno.EMSGSIZE:  # larger than our own device takes
                raise
        else:
            asked.add(size)
    return asked


def _hear(wire: socket.socket, identity: int, asked: set[int], timeout_s: float) -> int:
    """The largest of `asked` that came back. Small ones do not wait for the largest any longer than `timeout_s`."""
    until, best = time.monotonic() + timeout_s, 0
    while best < max(asked, default=0) and (left := until - time.monotonic()) > 0:
        wire.settimeout(left)
        try:
            size = answered(wire.recv(0xFFFF), identity)
        except TimeoutError:
            break
        if size in asked:
            best = max(best, size)
    return best
