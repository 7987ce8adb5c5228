"""Listening on NICs for some seconds, to explain a dead uplink: LACPDUs, VLAN tags and LLDP as they come in.

Nothing is sent and no device is changed, except that the NICs take all frames while it lasts. Needs CAP_NET_RAW.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
import struct
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from hostagent.errors import KernelError
from hostagent.named import NamedTuple
from hostagent.net.sniff_frames import LLDP, SLOW, Lacpdu, Neighbour, frame_of, lacpdu_of, neighbour_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ALL = 3  # ETH_P_ALL
SOL_PACKET, ADD_MEMBERSHIP, AUXILIARY, IGNORE_OUTGOING = 263, 1, 8, 23
PROMISCUOUS = 1
ATTACH_FILTER = 26  # of SOL_SOCKET
AUXILIARY_DATA = struct.Struct("=IIIHHHH")  # struct tpacket_auxdata
TAG_VALID = 0x10
HEAD_BYTES, CONTROL_BYTES = 64, 2048
"""Of frames in general, only the tags count."""
MOST_FRAMES = 20000
"""Of one NIC: they are enough to know its VLANs, and dom0 has other things to do."""
TURN = 64
BUFFER_BYTES = 1 << 20
GONE = (errno.ENETDOWN, errno.ENODEV, errno.ENXIO)


class SniffError(KernelError):
    """A NIC that cannot be listened on; `device` says which, `errno` why."""

    def __init__(self, found: str, *, hint: str, device: str, number: int) -> None:
        super().__init__(found, hint=hint)
        self.device = device
        self.errno = number


class Sniffed(NamedTuple):
    """What came in on a NIC."""

    frames: int = 0
    """How many were looked at."""
    untagged: int = 0
    vlans: Mapping[int, int] = {}
    """VLAN → frames with its tag. 0: a tag with a priority only."""
    lacp: tuple[Lacpdu, ...] = ()
    """The last one of each sender."""
    neighbours: tuple[Neighbour, ...] = ()
    """The last word of each port that speaks LLDP."""
    down: bool = False
    """The NIC went down or away meanwhile."""


def sniff(devices: Iterable[str], seconds: float) -> dict[str, Sniffed]:
    """Listen on all of these at once, for so long, unless all go down; LACP speaks every 1 or 30 s, LLDP every 30 s.

    Raises SniffError: before it listens, for a device that is not there or not up; afterwards where one fails that did
    not go away.
    """
    heard = {device: Heard() for device in devices}
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        for device in heard:
            for control in (True, False):
                listening = stack.enter_context(_listen(device, control=control))
                selector.register(listening, selectors.EVENT_READ, (device, control))
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and selector.get_map():
            for key, _ in selector.select(left):
                device, control = key.data
                listening = key.fileobj  # type: ignore[assignment]
                try:
                    goes_on = _take(listening, heard[device], control=control)
                except OSError as error:
                    raise _failed(device, error) from error
                if not goes_on:
                    selector.unregister(key.fileobj)
    return {device: each.told() for device, each in heard.items()}


class Heard:
    """What was heard so far on one NIC."""

    def __init__(self) -> None:
        self.frames = self.untagged = 0
        self.vlans: dict[int, int] = {}
        self.lacp: dict[tuple[str, int], Lacpdu] = {}
        self.neighbours: dict[tuple[str, str], Neighbour] = {}
        self.down = False

    def count(self, data: bytes, tag: int) -> None:
        """Any frame."""
        frame = frame_of(data, tag)
        if frame is None:
            return
        self.frames += 1
        if frame.vlan < 0:
            self.untagged += 1
        else:
            self.vlans[frame.vlan] = self.vlans.get(frame.vlan, 0) + 1

    def control(self, data: bytes) -> None:
        """A frame of a control protocol."""
        frame = frame_of(data)
        if frame is None:
            return
        if frame.type == SLOW and (lacpdu := lacpdu_of(frame.payload)) is not None:
            self.lacp[lacpdu.actor.system, lacpdu.actor.port] = lacpdu
        if frame.type == LLDP and (neighbour := neighbour_of(frame.payload)) is not None:
            self.neighbours[neighbour.chassis, neighbour.port] = neighbour

    def told(self) -> Sniffed:
        return Sniffed(
            self.frames,
            self.untagged,
            dict(sorted(self.vlans.items())),
            tuple(self.lacp.values()),
            tuple(self.neighbours.values()),
            self.down,
        )


def _take(listening: socket.socket, heard: Heard, *, control: bool) -> bool:
    """What has come, at most a turn of it; whether to go on."""
    for _ in range(TURN):
        try:
            data, ancillary, _, _ = listening.recvmsg(CONTROL_BYTES if control else HEAD_BYTES, 64)
        except BlockingIOError:
            return True
        except OSError as error:
            if error.errno not in GONE:
                raise
            heard.down = True
            return False
        if control:
            heard.control(data)
        else:
            heard.count(data, _tag(ancillary))
            if heard.frames >= MOST_FRAMES:
                return False
    return True


def _tag(ancillary: Iterable[tuple[int, int, bytes]]) -> int:
    """The tag that was taken out of a frame, -1 for none."""
    for level, kind, data in ancillary:
        if (level, kind) == (SOL_PACKET, AUXILIARY) and len(data) >= AUXILIARY_DATA.size:
            status, _, _, _, _, tag, _ = AUXILIARY_DATA.unpack_from(data)
            return tag if status & TAG_VALID else -1
    return -1


def _listen(device: str, *, control: bool) -> socket.socket:
    """A socket for what a NIC takes in, seen before a bridge or bond has it. `control`: LACP and LLDP only, so that no
    flood of other frames pushes them out. Raises SniffError."""
    try:
        index = socket.if_nametoindex(device)
        listening = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    except OSError as error:
        raise _failed(device, error) from error
    try:
        if control:
            _only_control(listening)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        listening.setsockopt(SOL_PACKET, AUXILIARY, 1)
        listening.setsockopt(SOL_PACKET, IGNORE_OUTGOING, 1)
        listening.setsockopt(SOL_PACKET, ADD_MEMBERSHIP, struct.pack("iHH8s", index, PROMISCUOUS, 0, b""))
        listening.bind((device, ALL))
        if waiting := listening.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(waiting, os.strerror(waiting))
    except OSError as error:
        listening.close()
        raise _failed(device, error) from error
    return listening


def _only_control(listening: socket.socket) -> None:
    """Have the kernel pass on frames of the two types and no others."""
    import array

    load_half, equal, answer = 0x28, 0x15, 0x06
    program = array.array(
        "B",
        b"".join(
            struct.pack("=HBBI", *each)
            for each in (
                (load_half, 0, 0, 12),
                (equal, 1, 0, SLOW),
                (equal, 0, 1, LLDP),
                (answer, 0, 0, 0xFFFF),
                (answer, 0, 0, 0),
            )
        ),
    )
    address, length = program.buffer_info()
    listening.setsockopt(socket.SOL_SOCKET, ATTACH_FILTER, struct.pack("HxxxxxxP", length // 8, address))


def _failed(device: str, error: OSError) -> SniffError:
    number = error.errno or errno.ENODEV  # if_nametoindex sets none
    hint = {
        errno.EPERM: "run as root",
        errno.ENETDOWN: f"bring it up first: ip link set {device} up",
        errno.ENODEV: "look at ip link",
    }.get(number, "look at ip -d link")
    found = f"{device} cannot be listened on: {os.strerror(number)}"
    return SniffError(found, hint=hint, device=device, number=number)
