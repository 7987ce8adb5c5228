"""The test process on a segment: a NIC of its own there, to capture frames and to inject them.

A port is a veth pair in the lab's namespace: one end on the segment's bridge, the other held by a raw socket.
It has no address and answers nothing by itself; it sees what a station on the segment sees in promiscuous
mode (frames that the bridge has learned to send elsewhere do not come by), each frame as it is on the wire:
tagged, whole, checksums filled in.
"""

from __future__ import annotations

import contextlib
import hashlib
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING

from nested_xen import network, process
from nested_xen.errors import LabError
from nested_xen.frames import Ethernet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SOL_PACKET, ETH_P_ALL = 263, 3
PACKET_ADD_MEMBERSHIP, PACKET_AUXDATA, PACKET_IGNORE_OUTGOING = 1, 8, 23
PACKET_MR_PROMISC = 1
# struct tpacket_auxdata: status, len, snaplen, mac, net, vlan_tci, vlan_tpid
AUXDATA = struct.Struct("=IIIHHHH")
TP_STATUS_VLAN_VALID = 0x10
LONGEST = 65536
BUFFER_BYTES = 8 << 20
PCAP_MAGIC, PCAP_ETHERNET = 0xA1B2C3D4, 1


class Port:
    """A NIC of the test process; made by `join`, gone after `close` (or with the lab)."""

    def __init__(self, lab: str, segment: str, name: str) -> None:
        digest = hashlib.sha256(f"{lab} {name}".encode()).digest()
        self.lab = lab
        self.segment = segment
        self.name = name
        self.device = f"p-{name}"
        self.mac = "52:54:00:78:" + digest[:2].hex(":")
        self._outer = f"q-{name}"
        network.batch(
            lab,
            [
                f"link add {self._outer} type veth peer name {self.device}",
                f"link set {self._outer} mtu {network.MTU}",
                f"link set {self.device} mtu {network.MTU} address {self.mac}",
                f"link set {self.device} arp off up",
                f"link set {self._outer} up",
            ],
        )
        # whole frames with real checksums, not what the kernel hands on between its own devices
        process.run(
            network.inside(lab, ["ethtool", "-K", self._outer, "tx", "off", "tso", "off", "gso", "off"])
        )
        self._socket = network.call_inside(lab, lambda: _listen(self.device, own_frames=False))
        network.move(lab, self._outer, segment)

    def send(self, frame: Ethernet | bytes) -> None:
        """Put one frame on the segment."""
        self._socket.send(bytes(frame))

    def frames(self, *, deadline_s: float) -> Iterator[Ethernet]:
        """Frames in the order they came, also those that came before the call; ends at the deadline."""
        end = time.monotonic() + deadline_s
        while (left := end - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                data, ancillary, _, _ = self._socket.recvmsg(LONGEST, 64)
            except TimeoutError:
                return
            yield Ethernet.parse(_with_tag(data, ancillary))

    def capture(
        self, wanted: Callable[[Ethernet], bool], *, deadline_s: float, count: int = 1
    ) -> list[Ethernet]:
        """The next `count` frames that are `wanted`; raises LabError with what came instead."""
        found: list[Ethernet] = []
        others: list[Ethernet] = []
        for frame in self.frames(deadline_s=deadline_s):
            (found if wanted(frame) else others).append(frame)
            if len(found) == count:
                return found
        raise LabError(
            f"{len(found)} of {count} awaited frames on {self.segment} within {deadline_s:g} s; "
            f"{len(others)} others, the last: {others[-5:]}"
        )

    def expect_none(self, unwanted: Callable[[Ethernet], bool], *, during_s: float) -> None:
        """Watch for a while; raises LabError at the first `unwanted` frame."""
        for frame in self.frames(deadline_s=during_s):
            if unwanted(frame):
                raise LabError(f"on {self.segment}, where it must not come: {frame}")

    def drain(self) -> None:
        """Forget what came up to now."""
        self._socket.setblocking(False)  # noqa: FBT003 - the socket's own interface
        with contextlib.suppress(BlockingIOError):
            while True:
                self._socket.recv(1)

    def move(self, segment: str) -> None:
        """Unplug from this segment and plug into another one."""
        network.move(self.lab, self._outer, segment)
        self.segment = segment

    def set_carrier(self, *, up: bool) -> None:
        """Pull the port's cable out of the segment, or put it back."""
        network.batch(self.lab, [f"link set {self._outer} {'up' if up else 'down'}"])

    def close(self) -> None:
        """Remove the port; harmless when it is gone."""
        self._socket.close()
        process.run(
            ["ip", "-n", network.namespace(self.lab), "link", "delete", self._outer],
            check=False,
            timeout_s=10,
        )

    def __enter__(self) -> Port:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def join(lab: str, segment: str, name: str = "test") -> Port:
    """A port called `name` (at most 13 characters, one per lab) on a segment, which is made when missing."""
    if not name or len(name) > 13:
        raise LabError(f"{name!r} cannot name a port", hint="1 to 13 characters")
    return Port(lab, segment, name)


@contextlib.contextmanager
def recorded(lab: str, segment: str, file: Path) -> Iterator[None]:
    """All traffic of a segment while the block runs into a pcap file, for people (`tcpdump -r`, Wireshark)."""
    heard = network.call_inside(lab, lambda: _listen(network.bridge_name(segment), own_frames=True))
    over = threading.Event()
    with file.open("wb") as out:
        out.write(struct.pack("=IHHiIII", PCAP_MAGIC, 2, 4, 0, 0, LONGEST, PCAP_ETHERNET))

        def write() -> None:
            heard.settimeout(0.1)
            while True:
                try:
                    data, ancillary, _, _ = heard.recvmsg(LONGEST, 64)
                except TimeoutError:
                    if over.is_set():
                        return
                    continue
                whole = _with_tag(data, ancillary)
                seconds, nanoseconds = divmod(time.time_ns(), 10**9)
                out.write(struct.pack("=IIII", seconds, nanoseconds // 1000, len(whole), len(whole)) + whole)

        writer = threading.Thread(target=write, name=f"recording {segment}")
        writer.start()
        try:
            yield
        finally:
            over.set()
            writer.join()
            heard.close()


def _listen(device: str, *, own_frames: bool) -> socket.socket:
    """A raw socket that hears everything on a device; called inside the lab's namespace."""
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    opened.bind((device, 0))
    opened.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
    opened.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, not own_frames)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
    promiscuous = struct.pack("=iHH8x", socket.if_nametoindex(device), PACKET_MR_PROMISC, 0)
    opened.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, promiscuous)
    return opened


def _with_tag(data: bytes, ancillary: list[tuple[int, int, bytes]]) -> bytes:
    """Put back the VLAN tag that the kernel takes out of a received frame and reports beside it."""
    for level, kind, value in ancillary:
        if level == SOL_PACKET and kind == PACKET_AUXDATA and len(value) >= AUXDATA.size:
            status, *_, tci, protocol = AUXDATA.unpack_from(value)
            if status & TP_STATUS_VLAN_VALID:
                return data[:12] + struct.pack("!HH", protocol or 0x8100, tci) + data[12:]
    return data
