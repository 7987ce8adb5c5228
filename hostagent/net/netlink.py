"""One socket to rtnetlink: `look()` reads the kernel's links, addresses and routes, `execute()` changes them.

Many messages go out in one send. The kernel works on them in order, inside the send, and one that fails does not stop
those behind it; so a failure says which operations did happen.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING, TypeVar

from hostagent.errors import KernelError
from hostagent.net.devices import Kernel, Link
from hostagent.net.shown import args_of, names_of
from hostagent.net.wire import (
    ASK_ADDRESSES,
    ASK_LINKS,
    ASK_ROUTES,
    RTM_GETADDR,
    RTM_GETLINK,
    RTM_GETROUTE,
    encode,
    question,
)
from hostagent.net.wire_answers import (
    DUMP_INTERRUPTED,
    NLMSG_DONE,
    NLMSG_ERROR,
    decode_address,
    decode_error,
    decode_link,
    decode_routes,
    messages,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hostagent.net.operation import Operation

T = TypeVar("T")

CHUNK = 200
"""Operations in one send: the answers, if all of them fail, must fit into the receive buffer (networking.md 4.2)."""
RECEIVE_BYTES = 1 << 20
DATAGRAM_BYTES = 1 << 16  # the kernel fills at most half of it
LOOKS = 10
ANSWER_S = 30
"""The kernel has answered when the send returns; this only keeps a fault from holding us for ever."""

SOL_NETLINK = 270
SO_RCVBUFFORCE = 33
CAP_ACK, EXT_ACK, STRICT_CHECK = 10, 11, 12


HINTS = {
    errno.EPERM: "run as root; if you are, see whether lockdown or a security module denies it (dmesg)",
    errno.EEXIST: "somebody else made it meanwhile; look again (ip link, ip addr) and plan anew",
    errno.ENODEV: "the device went meanwhile; look again (ip link) and plan anew",
    errno.EOPNOTSUPP: "see whether the kernel has the module and may load it (modprobe, /etc/modprobe.d); it comes with"
    " the package linux-image",
    errno.EBUSY: "the device is in use (ip -d link): a port must be down before a bond takes it",
    errno.ENETUNREACH: "the gateway must be in a network of an address of the device",
    errno.ERANGE: "a name of the kernel's has at most 15 bytes, and a number its limits (ip -d link)",
    errno.ENOBUFS: "look again: what was done is not known",
}
UNKNOWN_KIND = "Unknown device type"
"""The kernel's words for a kind of device that it has no module for."""
MODULES = {"bond": "bonding", "vlan": "8021q", "bridge": "bridge"}
HINT = "look at the device with: ip -d link"


class NetlinkError(KernelError):
    """The kernel did not do an operation, or did not answer.

    `position` is that of the first operation that failed, `errno` its number, `text` the kernel's own words, often
    empty. `failures` has all of them: position -> (errno, text). `executed` are the positions that did happen; an
    operation of several messages that failed in part is not among them. `unknown` are those whose answer was lost: they
    most likely happened. Positions in none of these were not tried.
    """

    def __init__(
        self,
        found: str,
        *,
        number: int,
        text: str = "",
        position: int = -1,
        failures: Mapping[int, tuple[int, str]] | None = None,
        executed: tuple[int, ...] = (),
        unknown: tuple[int, ...] = (),
    ) -> None:
        super().__init__(found, hint=HINTS.get(number, HINT))
        self.errno = number
        self.text = text
        self.position = position
        self.failures = failures or {}
        self.executed = executed
        self.unknown = unknown


def netlink_socket(receive_bytes: int, groups: int = 0) -> socket.socket:
    """A bound NETLINK_ROUTE socket that gets the kernel's words with errors; raises NetlinkError."""
    try:
        made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        try:
            try:
                made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, receive_bytes)
            except PermissionError:  # who may only look does with what the sysctl allows
                made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
            for option in (CAP_ACK, EXT_ACK, STRICT_CHECK):
                made.setsockopt(SOL_NETLINK, option, 1)
            made.bind((0, groups))
        except OSError:
            made.close()
            raise
    except OSError as error:
        raise NetlinkError(f"no netlink socket: {error.strerror}", number=error.errno or 0) from error
    return made


class Netlink:
    """A socket in the network namespace of the thread that makes it. A context manager; for one thread at a time."""

    def __init__(self) -> None:
        self._socket = netlink_socket(RECEIVE_BYTES)
        self._socket.settimeout(ANSWER_S)
        self._sequence = 0

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def look(self) -> Kernel:
        """All links, all addresses, the routes of the main table; raises NetlinkError, MalformedMessage.

        Each of the three is what the kernel had at one moment; an interrupted one is read again.
        """
        links: dict[int, Link] = {
            link.ifindex: link for link in self._dump(RTM_GETLINK, ASK_LINKS, decode_link)
        }
        addresses = self._dump(RTM_GETADDR, ASK_ADDRESSES, decode_address)
        routes = self._dump(RTM_GETROUTE, ASK_ROUTES, decode_routes)
        return Kernel(
            links,
            tuple(address for address in addresses if address is not None),
            tuple(route for of_one in routes for route in of_one),
        )

    def execute(self, operations: Sequence[Operation]) -> None:
        """Do the operations in order, in chunks; raises NetlinkError after the chunk in which any failed.

        Later operations of that chunk were tried all the same, later chunks not. Nothing at all is done when one of
        them cannot be encoded (BugError).
        """
        first = self._sequence + 1
        self._sequence += len(operations)
        end = len(operations) - 1
        encoded = [
            encode(operation, first + i, ack=i == end or i % CHUNK == CHUNK - 1)
            for i, operation in enumerate(operations)
        ]
        for start in range(0, len(encoded), CHUNK):
            chunk = encoded[start : start + CHUNK]
            last = start + len(chunk) - 1
            try:
                self._socket.sendall(b"".join(chunk))
                failures = self._answers(first, start, last)
            except OSError as error:
                number = errno.ETIMEDOUT if isinstance(error, TimeoutError) else error.errno or 0
                raise NetlinkError(
                    f"the kernel's answer to operations {start} to {last} was lost: {os.strerror(number)}",
                    number=number,
                    position=start,
                    executed=tuple(range(start)),
                    unknown=tuple(range(start, last + 1)),
                ) from error
            if failures:
                raise _failed(operations, failures, last)

    def _answers(self, first: int, start: int, last: int) -> dict[int, tuple[int, str]]:
        """Position -> errno and text of what failed in a chunk. Answers to earlier chunks are passed over."""
        failures: dict[int, tuple[int, str]] = {}
        while True:
            for message in messages(self._socket.recv(DATAGRAM_BYTES)):
                position = message.sequence - first
                if message.type != NLMSG_ERROR or position < start:
                    continue
                number, text = decode_error(message)
                if number:
                    failures.setdefault(position, (number, text))
                if position >= last:
                    return failures

    def _dump(self, type_: int, body: bytes, decode: Callable[[bytes], T]) -> list[T]:
        """What the kernel has of one kind, as of one moment."""
        for _ in range(LOOKS):
            self._sequence += 1
            try:
                self._socket.sendall(question(type_, body, self._sequence))
                bodies = self._dumped()
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    continue
                number = errno.ETIMEDOUT if isinstance(error, TimeoutError) else error.errno or 0
                raise NetlinkError(f"no look at the kernel: {os.strerror(number)}", number=number) from error
            if bodies is not None:
                return [decode(body) for body in bodies]
        raise NetlinkError(
            f"the kernel's devices changed during each of {LOOKS} looks at them", number=errno.EINTR
        )

    def _dumped(self) -> list[bytes] | None:
        """The bodies of the dump that was asked for last, None if it was interrupted. Always reads to its end."""
        bodies = []
        interrupted = False
        while True:
            for message in messages(self._socket.recv(DATAGRAM_BYTES)):
                if message.sequence != self._sequence:
                    continue
                interrupted |= bool(message.flags & DUMP_INTERRUPTED)
                if message.type not in (NLMSG_DONE, NLMSG_ERROR):
                    bodies.append(message.body)
                    continue
                number, text = decode_error(message)
                if number:
                    words = text or os.strerror(number)
                    raise NetlinkError(f"the kernel refused a look: {words}", number=number, text=text)
                return None if interrupted else bodies


def _failed(
    operations: Sequence[Operation], failures: Mapping[int, tuple[int, str]], last: int
) -> NetlinkError:
    position = min(failures)
    number, text = failures[position]
    operation = operations[position]
    symbol = errno.errorcode.get(number, str(number))
    module = MODULES.get(str(operation.args.get("kind"))) if text == UNKNOWN_KIND else None
    lacking = f": the kernel lacks the module {module}" if module else ""
    return NetlinkError(
        f"the kernel refused {operation.verb} of {operation.device} with {args_of(operation, names_of(operations))}:"
        f" {text or os.strerror(number)} ({symbol}){lacking}",
        number=number,
        text=text,
        position=position,
        failures=failures,
        executed=tuple(i for i in range(last + 1) if i not in failures),
    )
