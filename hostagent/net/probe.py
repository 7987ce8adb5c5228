"""Probes on the wire: is the gateway there, has another host our address, can a peer be reached; and announcements.

ARP (RFC 826, 5227) and neighbour discovery (RFC 4861) are asked by frames of our own on the device itself, so that an
answer is of now and not out of the kernel's table. Before a change of the management network some probes are made,
after it those that worked are made again (`lost`).
"""

from __future__ import annotations

import errno
import fcntl
import socket
import struct
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from hostagent.errors import KernelError
from hostagent.named import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

ETH_ARP, ETH_IPV6 = 0x0806, 0x86DD
BROADCAST = b"\xff" * 6
NOBODY4, NOBODY6 = bytes(4), bytes(16)
REQUEST, REPLY = 1, 2
ICMPV6, SOLICITATION, ADVERTISEMENT = 58, 135, 136
SOURCE_ADDRESS, TARGET_ADDRESS = 1, 2
OVERRIDE = 0x20000000
ALL_NODES = bytes.fromhex("ff020000000000000000000000000001")
SOL_PACKET, ADD_MEMBERSHIP, ALL_MULTICAST = (
    263,
    1,
    2,
)  # linux/if_packet.h: PACKET_ADD_MEMBERSHIP, PACKET_MR_ALLMULTI
OUTGOING = 4  # PACKET_OUTGOING: our own frame, seen on its way out
SIOCGIFHWADDR = 0x8927
FRAME_BYTES = 2048
TRIES = 3
SPACING_S = 0.3
_ARP = struct.Struct("!HHBBH6s4s6s4s")


class ProbeError(KernelError):
    """A probe could not be made: no such device, device down, not permitted."""

    code = "PIF_CONFIGURATION_ERROR"


class Probe(NamedTuple):
    """A question: `kind` is gateway or tcp. `source`: our address to ask from, "" for any (tcp) or none (gateway)."""

    kind: str
    target: str
    device: str = ""
    port: int = 0
    source: str = ""


class Answer(NamedTuple):
    """`detail`: the MAC address of who answered, or what a TCP connection came to. `ms`: until then."""

    probe: Probe
    answered: bool
    detail: str = ""
    ms: float = 0.0


class Arp(NamedTuple):
    operation: int
    sender_mac: bytes
    sender: bytes
    target_mac: bytes
    target: bytes


class Neighbour(NamedTuple):
    """A neighbour solicitation or advertisement. `link_address` is that of its option, else of its frame."""

    kind: int
    source: bytes
    target: bytes
    link_address: bytes


# --- effect ---


def ask(probe: Probe, *, timeout_s: float) -> Answer:
    """Make a probe. No answer is no error. Raises ProbeError when it could not be made."""
    started = time.monotonic()
    if probe.kind == "tcp":
        answered, detail = _connect(probe, timeout_s)
    else:
        detail = holder(probe.device, probe.target, source=probe.source, timeout_s=timeout_s)
        answered = bool(detail)
    return Answer(probe, answered, detail, (time.monotonic() - started) * 1000)


def holder(device: str, address: str, *, source: str = "", timeout_s: float) -> str:
    """The MAC address of the host that has this address on the device's network; "" when none says so in time.

    Without `source` it is the probe for a duplicate address (RFC 5227 2.1, RFC 4862 5.4), and another host that probes
    for the same address counts as its holder. This host's own answers do not count: Linux answers for each address on
    all its NICs, so that one NIC hears another on the same segment.

    Raises ProbeError: no such device, device down, `address` is none.
    """
    target, asker = _bytes(address), _bytes(source) if source else b""
    ipv4 = len(target) == 4
    with _opened(device, ETH_ARP if ipv4 else ETH_IPV6) as (wire, mac):
        if ipv4:
            question = arp_frame(mac, REQUEST, asker or NOBODY4, target)
        else:
            question = solicitation(mac, asker or NOBODY6, target)
        expires = time.monotonic() + timeout_s
        for _ in range(TRIES):
            wire.send(question)
            until = min(expires, time.monotonic() + max(SPACING_S, timeout_s / TRIES))
            for frame in _frames(wire, until):
                found = claimant(frame, target, probing=not asker)
                if found and found != mac and text_of(found) not in _ours():
                    return text_of(found)
    return ""


def _ours() -> set[str]:
    """MAC addresses of this host's devices."""
    found = set()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        for _, name in socket.if_nameindex():
            with suppress(OSError):  # gone since
                answer = fcntl.ioctl(asker, SIOCGIFHWADDR, struct.pack("256s", name.encode()))
                found.add(text_of(answer[18:24]))
    return found


def announce(
    device: str,
    addresses: Iterable[str],
    *,
    times: int = 3,
    spacing_s: float = 1.0,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Tell the neighbours where these addresses now are: gratuitous ARP, unsolicited advertisement. Frames sent.

    Raises ProbeError: no such device, device down, an address is none.
    """
    wanted = [_bytes(address) for address in addresses]
    sent = 0
    for turn in range(times if wanted else 0):
        if turn:
            sleep(spacing_s)
        with _opened(device, 0) as (wire, mac):
            for address in wanted:
                ipv4 = len(address) == 4
                wire.send(arp_frame(mac, REQUEST, address, address) if ipv4 else advertisement(mac, address))
                sent += 1
    return sent


def _connect(probe: Probe, timeout_s: float) -> tuple[bool, str]:
    """Whether the host answers: a refused connection is an answer, too."""
    try:
        address = (probe.source, 0) if probe.source else None
        with socket.create_connection((probe.target, probe.port), timeout_s, source_address=address):
            return True, "connected"
    except ConnectionRefusedError:
        return True, "refused"
    except TimeoutError:
        return False, f"no answer within {timeout_s:g} s"
    except OSError as error:
        return False, error.strerror or str(error)


@contextmanager
def _opened(device: str, protocol: int) -> Iterator[tuple[socket.socket, bytes]]:
    """A packet socket on the device, and the device's MAC address."""
    try:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as wire:
            wire.bind((device, protocol))
            if protocol == ETH_IPV6:  # an advertisement to all nodes must pass the card's filter
                index = socket.if_nametoindex(device)
                member = struct.pack("=iHH8s", index, ALL_MULTICAST, 0, b"")
                wire.setsockopt(SOL_PACKET, ADD_MEMBERSHIP, member)
            yield wire, wire.getsockname()[4]
    except OSError as error:
        hints = {
            errno.ENETDOWN: f"bring it up: ip link set {device} up",
            errno.ENODEV: "ip link show",
            errno.EPERM: "run as root",
        }
        raise ProbeError(
            f"{device} could not be probed: {error.strerror or error}",
            hint=hints.get(error.errno or 0, f"ip -s link show {device}"),
        ) from error


def _frames(wire: socket.socket, until: float) -> Iterator[bytes]:
    """What arrives on the device until then."""
    while (left := until - time.monotonic()) > 0:
        wire.settimeout(left)
        try:
            frame, sender = wire.recvfrom(FRAME_BYTES)
        except TimeoutError:
            return
        if sender[2] != OUTGOING:
            yield frame


# --- pure ---


def worked(answers: Iterable[Answer]) -> tuple[Probe, ...]:
    """The probes that are to be made again after a change."""
    return tuple(answer.probe for answer in answers if answer.answered)


def lost(before: Sequence[Answer], after: Sequence[Answer]) -> tuple[Answer, ...]:
    """The answers of afterwards to probes that worked before and do not any more: a reason to undo.

    A gateway is the same one whatever our address and device; one that was not asked again counts as lost.
    """
    now = {(answer.probe.kind, answer.probe.target, answer.probe.port): answer for answer in after}
    gone = []
    for answer in before:
        again = now.get((answer.probe.kind, answer.probe.target, answer.probe.port))
        if answer.answered and (again is None or not again.answered):
            gone.append(again or Answer(answer.probe, answered=False, detail="not asked again"))
    return tuple(gone)


def claimant(frame: bytes, address: bytes, *, probing: bool) -> bytes:
    """The MAC address of a host that, by this frame, has the address (or, `probing`, is about to); b"" otherwise."""
    if len(address) == 4:
        arp = parse_arp(frame)
        if arp is None:
            return b""
        has = arp.sender == address
        wants = probing and arp.operation == REQUEST and arp.sender == NOBODY4 and arp.target == address
        return arp.sender_mac if has or wants else b""
    found = parse_neighbour(frame)
    if found is None:
        return b""
    has = found.kind == ADVERTISEMENT and found.target == address
    wants = probing and found.kind == SOLICITATION and found.source == NOBODY6 and found.target == address
    return found.link_address if has or wants else b""


def arp_frame(mac: bytes, operation: int, sender: bytes, target: bytes) -> bytes:
    """A broadcast of ARP. With the sender's own address as target it is an announcement."""
    body = _ARP.pack(1, 0x0800, 6, 4, operation, mac, sender, bytes(6), target)
    return (BROADCAST + mac + struct.pack("!H", ETH_ARP) + body).ljust(60, b"\0")


def parse_arp(frame: bytes) -> Arp | None:
    """ARP for IPv4 over Ethernet, None for anything else."""
    if len(frame) < 14 + _ARP.size or frame[12:14] != b"\x08\x06":
        return None
    hardware, protocol, mac_size, size, operation, *rest = _ARP.unpack_from(frame, 14)
    return Arp(operation, *rest) if (hardware, protocol, mac_size, size) == (1, 0x0800, 6, 4) else None


def solicitation(mac: bytes, source: bytes, target: bytes) -> bytes:
    """A question for the holder of an IPv6 address, to the multicast group that its holder must listen to."""
    group = bytes.fromhex("ff0200000000000000000001ff") + target[13:]
    option = b"" if source == NOBODY6 else bytes([SOURCE_ADDRESS, 1]) + mac  # RFC 4861 4.3: never from ::
    return _icmpv6(mac, source, group, SOLICITATION, 0, target + option)


def advertisement(mac: bytes, address: bytes) -> bytes:
    """An unsolicited advertisement to all nodes that replaces what they have."""
    return _icmpv6(
        mac, address, ALL_NODES, ADVERTISEMENT, OVERRIDE, address + bytes([TARGET_ADDRESS, 1]) + mac
    )


def _icmpv6(mac: bytes, source: bytes, group: bytes, kind: int, flags: int, rest: bytes) -> bytes:
    message = struct.pack("!BBHI", kind, 0, 0, flags) + rest
    pseudo = source + group + struct.pack("!II", len(message), ICMPV6)
    message = message[:2] + struct.pack("!H", checksum(pseudo + message)) + message[4:]
    header = struct.pack("!IHBB", 6 << 28, len(message), ICMPV6, 255) + source + group
    return b"\x33\x33" + group[12:] + mac + struct.pack("!H", ETH_IPV6) + header + message


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    data += bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def parse_neighbour(frame: bytes) -> Neighbour | None:
    """A neighbour solicitation or advertisement that is whole and came from this link; None for anything else."""
    if len(frame) < 14 + 40 + 24 or frame[12:14] != b"\x86\xdd" or frame[14] >> 4 != 6:
        return None
    size = int.from_bytes(frame[18:20])
    message = frame[54 : 54 + size]
    if (
        frame[20] != ICMPV6 or frame[21] != 255 or len(message) != size or size < 24
    ):  # 255: not from beyond a router
        return None
    source, group = frame[22:38], frame[38:54]
    if checksum(source + group + struct.pack("!II", size, ICMPV6) + message) != 0:
        return None
    if message[0] not in (SOLICITATION, ADVERTISEMENT) or message[1] != 0:
        return None
    wanted = SOURCE_ADDRESS if message[0] == SOLICITATION else TARGET_ADDRESS
    link_address, at = frame[6:12], 24
    while at + 8 <= size and message[at + 1]:
        if message[at] == wanted and message[at + 1] == 1:
            link_address = message[at + 2 : at + 8]
        at += message[at + 1] * 8
    return Neighbour(message[0], source, message[8:24], link_address)


def text_of(mac: bytes) -> str:
    return mac.hex(":")


def _bytes(address: str) -> bytes:
    """An address as the wire has it: 4 bytes or 16."""
    try:
        return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
    except (OSError, ValueError) as error:  # a NUL, and what is not ASCII
        raise ProbeError(f"{address!r} is no address", hint="give an IPv4 or IPv6 address") from error
