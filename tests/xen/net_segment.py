"""Stations on a lab segment, made of frames: they ask and answer ARP and ICMP under any VLAN tag, and serve IPv6.

The machine that runs the lab may have no 8021q module, and a station of its kernel would hide what the wire carries:
so tags, pings and LACPDUs are built and read here, and what dom0 sends is judged as it was on the segment.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import struct
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from nested_xen import network, process, registry
from nested_xen.errors import LabError
from nested_xen.frames import Arp, Ethernet, EtherType, Lacpdu, LacpEnd, LacpState, NotThis, arp_request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nested_xen.wire import Port

ANSWER_S = 60
ECHO_REQUEST, ECHO_REPLY = 8, 0
ICMP, DONT_FRAGMENT = 1, 0x4000
UDP = 17
IPV6, ICMPV6 = 0x86DD, 58
ROUTER_ADVERTISEMENT, NEIGHBOUR_ADVERTISEMENT = 134, 136
SOLICITED = 0x40
"""Among the flags of a neighbour advertisement."""
UNSPECIFIED = "0.0.0.0"  # noqa: S104 - the sender of a probe, nothing is bound
DHCP_CLIENT, DHCP_SERVER = 68, 67
PREFIX6 = "2001:db8:64::"
SERVER6 = f"{PREFIX6}1"
PARTNER = "02:00:00:00:00:aa"
IN_USE = (
    LacpState.ACTIVITY
    | LacpState.SHORT_TIMEOUT
    | LacpState.AGGREGATION
    | LacpState.SYNCHRONIZATION
    | LacpState.COLLECTING
    | LacpState.DISTRIBUTING
)


def tags(tag: int | None) -> tuple[int, ...]:
    return () if tag is None else (tag,)


def has_tag(frame: Ethernet, tag: int | None) -> bool:
    """Only that tag and no other; None: none at all. The priority bits do not count."""
    return tuple(tci & 0xFFF for tci in frame.vlans) == tags(tag)


def who_has(port: Port, address: str, *, sender: str, tag: int | None = None) -> str:
    """Ask for the holder of an address by ARP; its MAC, whose answer carried the same tag. Raises LabError."""
    asked = arp_request(port.mac, sender, address)
    question = Ethernet(asked.destination, asked.source, asked.type, asked.payload, tags(tag))
    end = time.monotonic() + ANSWER_S
    while time.monotonic() < end:
        port.send(question)
        for frame in port.frames(deadline_s=1):
            answer = arp_of(frame)
            if (
                answer is not None
                and has_tag(frame, tag)
                and answer.operation == 2
                and answer.sender == address
            ):
                return answer.sender_mac
    raise LabError(f"nobody on {port.segment} answers for {address} with tag {tag}")


def nobody_has(port: Port, address: str, *, sender: str, tag: int | None = None) -> None:
    """No answer to a question by ARP in the time in which others are answered. Raises LabError."""
    asked = arp_request(port.mac, sender, address)
    for _ in range(3):
        port.send(Ethernet(asked.destination, asked.source, asked.type, asked.payload, tags(tag)))
        port.expect_none(
            lambda frame: (got := arp_of(frame)) is not None and (got.operation, got.sender) == (2, address),
            during_s=1,
        )


def arp_of(frame: Ethernet) -> Arp | None:
    try:
        return Arp.parse(frame)
    except NotThis:
        return None


def is_announcement(frame: Ethernet, address: str) -> bool:
    """A gratuitous ARP (RFC 5227, section 3): sender and target are the address."""
    arp = arp_of(frame)
    return arp is not None and arp.sender == arp.target == address


def is_probe(frame: Ethernet, address: str) -> bool:
    """A probe for a double address (RFC 5227, section 2.1): nobody asks for it."""
    arp = arp_of(frame)
    return arp is not None and (arp.operation, arp.sender, arp.target) == (1, UNSPECIFIED, address)


def ping(port: Port, address: str, *, sender: str, tag: int | None = None, size: int = 56) -> Ethernet:
    """One echo with `size` bytes of data that may not be fragmented; the frame of its answer. Raises LabError."""
    mac = who_has(port, address, sender=sender, tag=tag)
    data = bytes(number % 251 for number in range(size))
    request = _echo(ECHO_REQUEST, data)
    packet = ipv4(sender, address, ICMP, request)
    port.send(Ethernet(mac, port.mac, EtherType.IPV4, packet, tags(tag)))
    end = time.monotonic() + ANSWER_S
    while time.monotonic() < end:
        for frame in port.frames(deadline_s=1):
            who = arp_of(frame)
            if who is not None and who.operation == 1 and who.target == sender:
                reply = Arp(2, port.mac, sender, who.sender_mac, who.sender)
                port.send(Ethernet(who.sender_mac, port.mac, EtherType.ARP, bytes(reply), tags(tag)))
            elif has_tag(frame, tag) and is_ipv4(frame, ICMP, source=address):
                if frame.payload[20:21] == bytes([ECHO_REPLY]) and data in frame.payload:
                    return frame
        port.send(Ethernet(mac, port.mac, EtherType.IPV4, packet, tags(tag)))
    raise LabError(f"{address} on {port.segment} with tag {tag} does not answer a ping of {size} bytes")


def is_ipv4(frame: Ethernet, protocol: int, *, source: str = "", destination: str = "") -> bool:
    if frame.type != EtherType.IPV4 or len(frame.payload) < 20 or frame.payload[9] != protocol:
        return False
    ends = (socket.inet_ntoa(frame.payload[12:16]), socket.inet_ntoa(frame.payload[16:20]))
    return source in ("", ends[0]) and destination in ("", ends[1])


def _icmpv6(frame: Ethernet) -> bytes:
    """The message; empty for another frame."""
    packet = frame.payload
    return packet[40:] if frame.type == IPV6 and len(packet) >= 64 and packet[6] == ICMPV6 else b""


def is_router_advertisement(frame: Ethernet) -> bool:
    return _icmpv6(frame)[:1] == bytes([ROUTER_ADVERTISEMENT])


def is_announcement6(frame: Ethernet, address: str) -> bool:
    """An unsolicited neighbour advertisement for the address (RFC 4861, section 7.2.6)."""
    message = _icmpv6(frame)
    told = message[:1] == bytes([NEIGHBOUR_ADVERTISEMENT]) and not message[4] & SOLICITED
    return told and message[8:24] == socket.inet_pton(socket.AF_INET6, address)


def is_dhcp_request(frame: Ethernet, mac: str) -> bool:
    """What a DHCP client with this MAC address sends to servers."""
    if not is_ipv4(frame, UDP) or frame.source != mac:
        return False
    return struct.unpack_from("!HH", frame.payload, 20) == (DHCP_CLIENT, DHCP_SERVER)


def ipv4(source: str, destination: str, protocol: int, payload: bytes) -> bytes:
    head = struct.pack(
        "!BBHHHBBH4s4s",
        0x45, 0, 20 + len(payload), 1, DONT_FRAGMENT, 64, protocol, 0,
        socket.inet_aton(source), socket.inet_aton(destination),
    )  # fmt: skip
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def _echo(kind: int, data: bytes) -> bytes:
    head = struct.pack("!BBHHH", kind, 0, 0, 0x1AB, 1)
    return struct.pack("!BBHHH", kind, 0, checksum(head + data), 0x1AB, 1) + data


def checksum(data: bytes) -> int:
    """RFC 1071."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Background:
    """A thread that does something with a port until the block ends; what it raised is raised there."""

    def __init__(self, work: Callable[[threading.Event], None]) -> None:
        self._over = threading.Event()
        self._problem: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, args=(work,), name="a station")

    def _run(self, work: Callable[[threading.Event], None]) -> None:
        try:
            work(self._over)
        except BaseException as error:  # noqa: BLE001 - handed to the test's thread below
            self._problem.append(error)

    def __enter__(self) -> Background:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        if self._problem:
            raise self._problem[0]


def holder(port: Port, address: str) -> Background:
    """A station that has an address: it answers ARP for it, probes too."""

    def answer(over: threading.Event) -> None:
        while not over.is_set():
            for frame in port.frames(deadline_s=0.2):
                asked = arp_of(frame)
                if asked is not None and asked.operation == 1 and asked.target == address:
                    reply = Arp(2, port.mac, address, asked.sender_mac, asked.sender)
                    port.send(Ethernet(asked.sender_mac, port.mac, EtherType.ARP, bytes(reply), frame.vlans))

    return Background(answer)


def lacp_partner(ports: list[Port], *, systems: tuple[str, ...] = (PARTNER,)) -> Background:
    """The switch at the other end of a bond: answers each LACPDU on each port. With two `systems`, the ports belong to
    two switches.
    """

    def answer(over: threading.Event) -> None:
        while not over.is_set():
            for number, port in enumerate(ports):
                for frame in port.frames(deadline_s=0.1):
                    with contextlib.suppress(NotThis):
                        theirs = Lacpdu.parse(frame).actor
                        mine = LacpEnd(systems[number % len(systems)], 7, number + 1, IN_USE)
                        port.send(Lacpdu(mine, theirs).frame(port.mac))

    return Background(answer)


@contextlib.contextmanager
def router6(lab: str, segment: str, *, leases: bool) -> Iterator[Path]:
    """An IPv6 router on a segment (dnsmasq): advertisements for autoconf, or with `leases` a DHCPv6 server beside them.
    Yields its file of leases.
    """
    folder = registry.store(lab) / "servers" / f"router6-{segment}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    network.give_server_address(lab, segment, "198.51.100.2/24")
    network.call_inside(lab, _allow_ipv6, segment=segment)
    # nodad: the server may answer at once
    network.batch(lab, [f"address replace {SERVER6}/64 dev {network.SERVER_DEVICE} nodad"], segment=segment)
    span = f"{PREFIX6}100,{PREFIX6}1ff,64,1h" if leases else f"{PREFIX6},ra-only,64,1h"
    lines = [
        "port=0",
        "enable-ra",
        f"ra-param={network.SERVER_DEVICE},10,600",
        f"dhcp-range={span}",
        f"dhcp-leasefile={folder}/leases",
        f"interface={network.SERVER_DEVICE}",
        "bind-interfaces",
        "except-interface=lo",
        "dhcp-authoritative",
        "log-dhcp",
        "user=root",
        "pid-file",
    ]
    (folder / "dnsmasq.conf").write_text("\n".join(lines) + "\n")
    words = ["dnsmasq", "--keep-in-foreground", "--log-facility=-", f"--conf-file={folder}/dnsmasq.conf"]
    words[0] = process.require("dnsmasq", "dnsmasq-base")
    pid = process.spawn(network.inside(lab, words, segment=segment), log=folder / "log")
    try:
        end = time.monotonic() + ANSWER_S
        while "router advertisement" not in (folder / "log").read_text(errors="replace"):
            if not process.alive(pid) or time.monotonic() > end:
                raise LabError(f"dnsmasq does not serve IPv6: {(folder / 'log').read_text()[-2000:]}")
            time.sleep(0.1)
        yield folder / "leases"
    finally:
        process.end(pid)


def _allow_ipv6() -> None:
    for name in ("all", "default", network.SERVER_DEVICE):
        settings = Path("/proc/sys/net/ipv6/conf", name)
        (settings / "disable_ipv6").write_text("0")
        # else it says in neighbour advertisements that it is no router, and hosts drop their default route over it
        (settings / "forwarding").write_text("1")


def ping_from_servers(lab: str, segment: str, address: str, *, size: int = 56, check: bool = True) -> bool:
    """A ping from the kernel of a segment's servers, whole or not at all."""
    words = ["ping", "-n", "-c", "1", "-W", "5", "-M", "do", "-s", str(size), address]
    end = time.monotonic() + ANSWER_S
    while True:
        done = process.run(network.inside(lab, words, segment=segment), check=False, timeout_s=30)
        if done.code == 0 or not check:
            return done.code == 0
        if time.monotonic() > end:
            raise LabError(f"{address} does not answer a ping of {size} bytes from {segment}: {done.stdout}")
