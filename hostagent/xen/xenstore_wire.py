"""Xenstore packets over a byte stream: framing, and the two transports, each call with its deadline.

pyxs gives the header layout (`Packet._struct`), the operation numbers and the shape of a connection. Replaced
are:

- the packet's limits (P2, P12 of the reference: a long reply or a new operation raised in the middle of
  reading): requests keep the protocol's 4096 bytes, replies may be longer because oxenstored sends long
  directories whole;
- `send` and `recv` of the connection (P1: no deadline; one read per field, so a short packet blocks): here
  bytes are gathered as they come and never waited for past the deadline;
- the transports: pyxs leaks the socket when its peer is gone, and connects without a deadline.

Everything is in native byte order: the two ends are on one host (xen/include/public/io/xs_wire.h).
"""

from __future__ import annotations

import abc
import errno
import os
import select
import socket
import time
from typing import TYPE_CHECKING

import pyxs.connection
from pyxs._internal import Op
from pyxs._internal import Packet as PyxsPacket

from hostagent.xen.xenstore_errors import (
    XenstoreDeadline,
    XenstoreLost,
    XenstoreProtocol,
    XenstoreQuota,
    XenstoreUnavailable,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

NUL = b"\x00"
HEADER_BYTES = 16
REQUEST_MAX_BYTES = 4096  # XENSTORE_PAYLOAD_MAX
REPLY_MAX_BYTES = 4 << 20  # sanity limit of our own: a hundred thousand children with uuid names
LAST_OPERATION = 26  # XS_SET_QUOTA, the highest type in xs_wire.h
DIRECTORY_PART = 22
READ_BYTES = 1 << 16


class Packet(PyxsPacket):  # type: ignore[misc]
    """pyxs's packet (op, rq_id, tx_id, size, payload) without its limits on replies and operations."""

    __slots__ = ()
    op: int
    rq_id: int
    tx_id: int
    size: int
    payload: bytes

    def __new__(cls, op: int, payload: bytes, rq_id: int, tx_id: int = 0) -> Packet:
        return tuple.__new__(cls, (op, rq_id, tx_id, len(payload), payload))

    def encode(self) -> bytes:
        """Header and payload as they go over the wire; raises XenstoreQuota past 4096 bytes of payload."""
        if self.size > REQUEST_MAX_BYTES:
            raise XenstoreQuota(
                f"a xenstore request of {self.size} bytes is over the protocol's {REQUEST_MAX_BYTES}",
                hint="shorten the value; xenstored takes about 2000 bytes per node",
            )
        header: bytes = PyxsPacket._struct.pack(self.op, self.rq_id, self.tx_id, self.size)
        return header + self.payload


class Decoder:
    """Turns a stream, in whatever pieces it comes, into packets."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Packet]:
        """Take more bytes, return the packets they complete; raises XenstoreProtocol on what is no header."""
        self._buffer += data
        packets = []
        start = 0
        while len(self._buffer) - start >= HEADER_BYTES:
            op, rq_id, tx_id, size = PyxsPacket._struct.unpack_from(self._buffer, start)
            if op > LAST_OPERATION or size > REPLY_MAX_BYTES:
                raise XenstoreProtocol(f"xenstored sent a packet of type {op} and {size} bytes")
            end = start + HEADER_BYTES + size
            if len(self._buffer) < end:
                break
            packets.append(Packet(op, bytes(self._buffer[start + HEADER_BYTES : end]), rq_id, tx_id))
            start = end
        del self._buffer[:start]
        return packets


class Connection(pyxs.connection.PacketConnection, abc.ABC):  # type: ignore[misc]
    """A stream of packets with a deadline both ways; `interrupt()` ends a receive from another thread.

    Deadlines (`expires`) are moments of time.monotonic(). Connected from construction to `close()`.
    """

    one_at_a_time = False
    """Whether the next request may be sent only after the reply to the last one."""
    kernel_answers_watches = False
    """Whether WATCH is done by the kernel inside the write, which cannot be interrupted."""

    def __init__(self, fd: int, path: str) -> None:
        self.path = path
        self._decoder = Decoder()
        self._fd = fd
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._readable = select.poll()
        self._readable.register(fd, select.POLLIN)
        self._readable.register(self._wake, select.POLLIN)

    def fileno(self) -> int:
        return self._fd

    def interrupt(self) -> None:
        """Make a receive under way, or else the next one, return what it has at once."""
        os.eventfd_write(self._wake, 1)

    def close(self, silent: bool = True) -> None:  # noqa: FBT001, FBT002 - pyxs's signature
        """Close both descriptors; harmless when closed already."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
            os.close(self._wake)

    @abc.abstractmethod
    def send(self, packets: Iterable[Packet], expires: float) -> None:
        """Send packets in order; raises XenstoreLost, or XenstoreDeadline if it may be cut in mid-packet."""

    def recv(self, expires: float) -> Sequence[Packet]:
        """Packets that came, at least one unless interrupted or past `expires`; raises XenstoreLost."""
        while True:
            ready = self._readable.poll(max(0.0, expires - time.monotonic()) * 1000)
            if not ready:
                return ()
            if any(fd == self._wake for fd, _ in ready):
                os.eventfd_read(self._wake)
                return ()
            try:
                data = os.read(self._fd, READ_BYTES)
            except BlockingIOError:
                continue
            except OSError as error:
                raise XenstoreLost(f"reading from {self.path} failed: {error.strerror}") from error
            if not data:
                raise XenstoreLost(f"xenstored closed the connection {self.path}")
            packets = self._decoder.feed(data)
            if packets:
                return packets


class SocketConnection(Connection):
    """xenstored's Unix socket: many packets per write, the daemon's death is an end of file."""

    def __init__(self, sock: socket.socket, path: str) -> None:
        sock.settimeout(0)
        super().__init__(sock.detach(), path)

    @classmethod
    def dial(cls, path: Path, expires: float) -> SocketConnection:
        """Connect; raises FileNotFoundError if there is no socket, XenstoreUnavailable if nobody listens."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(max(0.001, expires - time.monotonic()))
            sock.connect(os.fspath(path))
        except FileNotFoundError:
            sock.close()
            raise
        except OSError as error:
            sock.close()
            reason = error.strerror or "no answer within the deadline"
            raise XenstoreUnavailable(f"cannot connect to xenstored at {path}: {reason}") from error
        return cls(sock, str(path))

    def send(self, packets: Iterable[Packet], expires: float) -> None:
        rest = memoryview(b"".join([packet.encode() for packet in packets]))
        while rest:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:
                self._wait_writable(expires)
            except OSError as error:
                raise XenstoreLost(f"writing to {self.path} failed: {error.strerror}") from error

    def _wait_writable(self, expires: float) -> None:
        writable = select.poll()
        writable.register(self._fd, select.POLLOUT)
        left_s = max(0.0, expires - time.monotonic())
        if not writable.poll(left_s * 1000):
            raise XenstoreDeadline("take a request", left_s)


class XenbusConnection(Connection):
    """The kernel's xenbus device: one request at a time; the daemon's death shows only as silence.

    The kernel queues a request without copying its body out of the file's buffer, so a second request written
    before the first was answered overwrites it (observed on Linux 6.1: EINVAL for three reads in a row).
    The kernel does WATCH itself and waits for xenstored inside the write (drivers/xen/xenbus/
    xenbus_dev_frontend.c): see `kernel_answers_watches`.
    """

    one_at_a_time = True
    kernel_answers_watches = True

    @classmethod
    def dial(cls, path: Path) -> XenbusConnection:
        """Open the device; raises XenstoreUnavailable."""
        try:
            fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            why = "this is no Xen domain" if error.errno == errno.ENOENT else error.strerror
            raise XenstoreUnavailable(f"cannot open {path}: {why}") from error
        return cls(fd, str(path))

    def send(self, packets: Iterable[Packet], expires: float) -> None:
        for packet in packets:
            data = packet.encode()
            try:
                written = os.write(self._fd, data)
            except OSError as error:
                raise XenstoreLost(f"writing to {self.path} failed: {error.strerror}") from error
            if written != len(data):
                raise XenstoreLost(f"{self.path} took {written} of {len(data)} bytes")


__all__ = [
    "DIRECTORY_PART",
    "NUL",
    "Connection",
    "Decoder",
    "Op",
    "Packet",
    "SocketConnection",
    "XenbusConnection",
]
