"""Many callers over one connection: request ids, replies to their callers, and pyxs's verbs on top.

pyxs's `Client` is kept for the verbs (read, write, mkdir, delete, list, get_perms, set_perms, transaction,
commit): their one seam, `execute_command`, is ours. Its `Router` and `Monitor` are replaced, because

- P1, P7: a dead router left its callers waiting for ever; here the end of the connection ends every waiting
  call, and each call has a deadline;
- P5, P6, P11: closing one client closed the shared router, which could not start again, and the transaction
  id lived on the shared client; here a client is a throw-away value, one per call or transaction;
- P8, P9: ids were unlocked and outgrew their 32-bit field;
- P3, P12: DIRECTORY_PART is used when a server refuses a long directory;
- P4: values are octets; only the NUL that ends a list is stripped, never a NUL that ends a value;
- P10: errors are told apart by name.

There is no reader thread: the first caller that waits reads for all (a watcher, which must always drain,
makes itself the permanent reader with `run`). That saves two thread switches per request.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

import pyxs.client

from hostagent.errors import HostagentError
from hostagent.xen.xenstore_errors import (
    XenstoreDeadline,
    XenstoreLost,
    XenstoreProtocol,
    XenstoreQuota,
    XenstoreUnavailable,
    named_error,
)
from hostagent.xen.xenstore_wire import DIRECTORY_PART, NUL, Connection, Op, Packet

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

log = logging.getLogger(__name__)

LAST_REQUEST_ID = 0xFFFF_FFFF
DIRECTORY_PART_RESTARTS = 16  # how often a directory may change under a listing in parts

OPERATION_NAMES = {
    Op.DIRECTORY: "list",
    Op.READ: "read",
    Op.GET_PERMS: "read the permissions of",
    Op.WATCH: "watch",
    Op.UNWATCH: "unwatch",
    Op.TRANSACTION_START: "start a transaction",
    Op.TRANSACTION_END: "end a transaction",
    Op.WRITE: "write",
    Op.MKDIR: "create",
    Op.RM: "remove",
    Op.SET_PERMS: "set the permissions of",
    DIRECTORY_PART: "list a part of",
}
PATHLESS = (Op.TRANSACTION_START, Op.TRANSACTION_END)

Request = tuple[int, bytes]
Payloads = list[bytes]
Answers = list[bytes | HostagentError]


class _Batch:
    """Requests sent together, and the replies as they come, in the order of the requests."""

    __slots__ = ("missing", "replies", "requests")

    def __init__(self, requests: Sequence[Request]) -> None:
        self.requests = requests
        self.replies: list[Packet | None] = [None] * len(requests)
        self.missing = len(requests)


class Router:
    """Sends requests and gives each caller its replies, whatever their order; owns its connection."""

    def __init__(
        self, connection: Connection, *, on_event: Callable[[str, str], None] | None = None, first_id: int = 1
    ) -> None:
        self.connection = connection
        self._on_event = on_event
        self._sending = threading.RLock()  # taken before _turn, never inside it
        self._turn = threading.Condition()  # guards all below
        self._reading = False
        self._pending: dict[int, tuple[_Batch, int]] = {}
        self._next_id = first_id
        self._ended: str | None = None

    @property
    def ended(self) -> str | None:
        """Why the router is of no more use; None while it is."""
        return self._ended

    def request(self, requests: Sequence[Request], tx_id: int, expires: float) -> list[Packet]:
        """Send all requests, then wait for all replies, in order of the requests; ERROR replies are replies.

        Raises XenstoreDeadline (a socket's connection lives on), XenstoreLost, XenstoreProtocol.
        """
        if not self.connection.one_at_a_time:
            return self._exchange(requests, tx_id, expires)
        if not self._sending.acquire(timeout=max(0.0, expires - time.monotonic())):
            raise XenstoreDeadline("answer another thread's request", 0.0)
        try:
            return [self._exchange((request,), tx_id, expires)[0] for request in requests]
        except XenstoreDeadline as error:
            self.end(error.found)  # its reply is still to come, so nothing more can be sent here
            raise
        finally:
            self._sending.release()

    def _exchange(self, requests: Sequence[Request], tx_id: int, expires: float) -> list[Packet]:
        started = time.monotonic()
        batch = _Batch(requests)
        if not self._sending.acquire(timeout=max(0.0, expires - started)):
            raise XenstoreDeadline("take a request", expires - started)
        try:
            ids = self._register(batch)
            packets = [Packet(op, data, rq, tx_id) for rq, (op, data) in zip(ids, requests, strict=True)]
            try:
                self.connection.send(packets, expires)
            except XenstoreQuota:
                self._forget(ids)
                raise
            except (XenstoreUnavailable, XenstoreDeadline) as error:
                self.end(error.found)
                raise
        finally:
            self._sending.release()
        try:
            self._await(batch, expires)
        finally:
            if batch.missing:
                self._forget(ids)
        if batch.missing:
            doing = _doing(*requests[batch.replies.index(None)])
            raise XenstoreDeadline(f"answer a request to {doing}", time.monotonic() - started)
        return [reply for reply in batch.replies if reply is not None]

    def run(self, idle_s: float, on_idle: Callable[[], None]) -> None:
        """Read for everybody until the connection ends; call `on_idle` after `idle_s` without a packet."""
        with self._turn:
            self._turn.wait_for(lambda: not self._reading)
            self._reading = True
        try:
            while self._ended is None:
                if not self._receive(time.monotonic() + idle_s) and self._ended is None:
                    on_idle()
        finally:
            self._stop_reading()

    def post(self, op: int, payload: bytes) -> Callable[[], bool]:
        """Send one request without waiting for it; the result says whether the reply has come."""
        batch = _Batch(((op, payload),))
        with self._sending:
            ids = self._register(batch)
            self.connection.send([Packet(op, payload, ids[0])], time.monotonic())
        return lambda: batch.missing == 0

    def end(self, reason: str) -> None:
        """End the router: every waiting and later call raises XenstoreLost. Harmless when ended."""
        with self._turn:
            if self._ended is not None:
                return
            self._ended = reason
            self._pending.clear()
            self._turn.notify_all()
            if self._reading:
                self.connection.interrupt()
                return
        self._close()

    def _close(self) -> None:
        with self._sending:  # a sender must not write into a descriptor that has become somebody else's
            self.connection.close()

    def _register(self, batch: _Batch) -> list[int]:
        with self._turn:
            if self._ended is not None:
                raise XenstoreLost(self._ended)
            ids = []
            for index in range(len(batch.requests)):
                while self._next_id in self._pending:
                    self._next_id = self._next_id % LAST_REQUEST_ID + 1
                self._pending[self._next_id] = (batch, index)
                ids.append(self._next_id)
                self._next_id = self._next_id % LAST_REQUEST_ID + 1
            return ids

    def _forget(self, ids: Sequence[int]) -> None:
        with self._turn:
            for rq_id in ids:
                self._pending.pop(rq_id, None)

    def _await(self, batch: _Batch, expires: float) -> None:
        """Wait until the batch is complete or its time is over, reading for all when nobody else does."""
        with self._turn:
            while batch.missing and self._reading and self._ended is None:
                if not self._turn.wait(max(0.0, expires - time.monotonic())) and time.monotonic() >= expires:
                    return
            if not batch.missing:
                return
            if self._ended is not None:
                raise XenstoreLost(self._ended)
            self._reading = True
        try:
            while batch.missing and self._ended is None:
                if not self._receive(expires) and time.monotonic() >= expires:
                    return
        finally:
            self._stop_reading()
        if batch.missing:
            raise XenstoreLost(self._ended or "the connection ended")

    def _stop_reading(self) -> None:
        with self._turn:
            self._reading = False
            self._turn.notify_all()
        if self._ended is not None:
            self._close()

    def _receive(self, expires: float) -> bool:
        """Receive and hand on; whether anything came. Ends the router instead of raising."""
        try:
            packets = self.connection.recv(expires)
            for packet in packets:
                self._dispatch(packet)
        except XenstoreUnavailable as error:
            self.end(error.found)
            return False
        return bool(packets)

    def _dispatch(self, packet: Packet) -> None:
        if packet.op == Op.WATCH_EVENT:
            parts = packet.payload.split(NUL)
            if len(parts) < 2:
                raise XenstoreProtocol("xenstored sent a watch event without a token")
            if self._on_event is not None:
                self._on_event(parts[0].decode("utf-8", "replace"), parts[1].decode("utf-8", "replace"))
            return
        with self._turn:
            batch, index = self._pending.pop(packet.rq_id, (None, 0))
            if batch is None:
                log.debug("dropped a late or unasked reply from xenstored: id %d", packet.rq_id)
                return
            if packet.op not in (batch.requests[index][0], Op.ERROR):
                raise XenstoreProtocol(
                    f"xenstored answered type {batch.requests[index][0]} with type {packet.op}"
                )
            batch.replies[index] = packet
            batch.missing -= 1
            if not batch.missing:
                self._turn.notify_all()


class Client(pyxs.client.Client):  # type: ignore[misc]
    """pyxs's verbs for one call or one transaction: bytes in, bytes out, our errors. Owns nothing."""

    def __init__(self, router: Router, expires: float) -> None:
        self.router = router
        self.expires = expires
        self.tx_id = 0

    def connect(self) -> None:
        """Nothing: the router it was made with is connected."""

    def close(self) -> None:
        """Nothing: the router belongs to whoever made it (P5)."""

    def execute_command(self, op: int, *args: bytes) -> bytes:
        """One request; its reply without the NUL that ends a list. Raises what the server's error means."""
        request = (op, b"".join(args))
        return reply_payload(request, self.router.request((request,), self.tx_id, self.expires)[0])

    def read(self, path: bytes) -> bytes:
        """The value; pyxs would check the path again, which takes longer than the rest of its work."""
        return self.execute_command(Op.READ, path + NUL)

    def ack(self, op: int, *args: bytes) -> None:
        payload = self.execute_command(op, *args)
        if payload != b"OK":
            raise XenstoreProtocol(f"xenstored answered type {op} with {payload[:40]!r} instead of OK")

    def list(self, path: bytes) -> Payloads:
        try:
            names: Payloads = super().list(path)
        except XenstoreQuota:
            return self._list_in_parts(path)
        return names

    def pipeline(self, requests: Sequence[Request]) -> Answers:
        """Send all, then collect all: payload or error of each request, in order."""
        replies = self.router.request(requests, self.tx_id, self.expires)
        return [_payload_or_error(request, reply) for request, reply in zip(requests, replies, strict=True)]

    def _list_in_parts(self, path: bytes) -> Payloads:
        """List with DIRECTORY_PART.

        A reply is the node's generation, NUL, then names, each with a NUL; an empty name ends the list.
        """
        names = b""
        generation: bytes | None = None
        restarts = 0
        while not (names.endswith(NUL + NUL) or names == NUL):
            part = (DIRECTORY_PART, path + NUL + str(len(names)).encode() + NUL)
            reply = self.router.request((part,), self.tx_id, self.expires)[0]
            if reply.op == Op.ERROR and reply.payload == b"ENOSYS\x00":
                raise named_error("E2BIG", _doing(Op.DIRECTORY, path + NUL))
            seen, _, more = reply_bytes(part, reply).partition(NUL)
            if generation is None or seen == generation:
                generation, names = seen, names + more
                if more:
                    continue
            restarts += 1
            if restarts > DIRECTORY_PART_RESTARTS:
                raise named_error("EAGAIN", _doing(Op.DIRECTORY, path + NUL))
            generation, names = None, b""
        return [name for name in names.split(NUL) if name]


def reply_payload(request: Request, reply: Packet) -> bytes:
    """The payload; a value whole, everything else without the NUL that ends it. Raises the server's error."""
    payload = reply_bytes(request, reply)
    return payload if request[0] == Op.READ else payload.removesuffix(NUL)


def reply_bytes(request: Request, reply: Packet) -> bytes:
    """The payload as it came. Raises the server's error."""
    if reply.op == Op.ERROR:
        raise named_error(reply.payload.rstrip(NUL).decode("ascii", "replace"), _doing(*request))
    return reply.payload


def _payload_or_error(request: Request, reply: Packet) -> bytes | HostagentError:
    try:
        return reply_payload(request, reply)
    except HostagentError as error:
        return error


def _doing(op: int, payload: bytes) -> str:
    verb = OPERATION_NAMES.get(op, f"do operation {op} on")
    return verb if op in PATHLESS else f"{verb} {payload.partition(NUL)[0].decode('utf-8', 'replace')}"
