"""A xenstored over socket pairs that keeps real state, and misbehaves when a test tells it to.

Its framing is its own, so that it shares no mistake with the code under test.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hostagent.xen.xenstore import Xenstore, XenstoreUnavailable
from hostagent.xen.xenstore_wire import SocketConnection, XenbusConnection

if TYPE_CHECKING:
    from collections.abc import Callable

HEADER = struct.Struct("=IIII")
DIRECTORY, READ, GET_PERMS, WATCH, UNWATCH, START, END = range(1, 8)
WRITE, MKDIR, RM, SET_PERMS, WATCH_EVENT, ERROR = 11, 12, 13, 14, 15, 16
DIRECTORY_PART = 22
SPEC_LIMIT = 4096


@dataclass(frozen=True)
class Asked:
    """One request as it arrived, and the socket to answer on."""

    op: int
    rq: int
    tx: int
    body: bytes
    sock: socket.socket

    @property
    def words(self) -> list[bytes]:
        return self.body.split(b"\0")

    @property
    def path(self) -> str:
        return self.words[0].decode()


def packet(op: int, body: bytes, rq: int = 1, tx: int = 0) -> bytes:
    return HEADER.pack(op, rq, tx, len(body)) + body


class FakeXenstored:
    """`on_request` may deal with a request itself and return True; `long_replies` is oxenstored's habit."""

    def __init__(self) -> None:
        self.nodes: dict[str, bytes] = {"/": b"", "domid": b"0"}
        self.generation = 1
        self.permissions: dict[str, list[bytes]] = {}
        self.watches: list[tuple[socket.socket, str, bytes]] = []
        self.transactions: dict[int, tuple[dict[str, bytes], dict[str, bytes]]] = {}
        self.asked: list[Asked] = []
        self.on_request: Callable[[Asked], bool] = lambda asked: False
        self.long_replies = True
        self.is_down = False
        self.dials = 0
        self._lock = threading.RLock()
        self._clients: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def dial(self, expires: float = 0.0) -> SocketConnection:
        if self.is_down:
            raise XenstoreUnavailable("nobody listens")
        return SocketConnection(self._accept(), "the fake")

    def dial_device(self, expires: float = 0.0) -> XenbusConnection:
        sock = self._accept()
        return XenbusConnection(sock.detach(), "the fake device")

    def store(self, deadline_s: float = 5.0) -> Xenstore:
        return Xenstore(self.dial, deadline_s=deadline_s, pause=lambda seconds: None)

    def hold(self, path: str) -> list[Asked]:
        """From now on leave requests for `path` unanswered; they gather in the result."""
        held: list[Asked] = []

        def keep(asked: Asked) -> bool:
            if asked.path == path:
                held.append(asked)
            return asked.path == path

        self.on_request = keep
        return held

    def hang_up(self) -> None:
        """End every connection, as when the daemon dies; `is_down` says whether new ones are refused."""
        with self._lock:
            clients, self._clients, self.watches = self._clients, [], []
            self.transactions.clear()
        for sock in clients:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.is_down = True
        self.hang_up()
        for thread in self._threads:
            thread.join(5)
            assert not thread.is_alive()

    def fire(self, path: str) -> None:
        """Send the events that a change of `path` makes."""
        with self._lock:
            for sock, watched, token in self.watches:
                if path == watched or path.startswith(watched.rstrip("/") + "/"):
                    sock.sendall(packet(WATCH_EVENT, path.encode() + b"\0" + token + b"\0", rq=0))

    def answer(self, asked: Asked) -> None:
        """Answer as xenstored would."""
        with self._lock:
            op, body = self._do(asked)
            asked.sock.sendall(packet(op, body, asked.rq, asked.tx))
            if asked.op == WATCH and op != ERROR:
                token = asked.words[1]
                asked.sock.sendall(packet(WATCH_EVENT, asked.words[0] + b"\0" + token + b"\0", rq=0))
            if asked.op in (WRITE, RM) and not asked.tx and op != ERROR:
                self.fire(asked.path)

    def _accept(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        with self._lock:
            self.dials += 1
            self._clients.append(ours)
        thread = threading.Thread(target=self._serve, args=(ours,), daemon=True)
        self._threads.append(thread)
        thread.start()
        return theirs

    def _serve(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError, EOFError), sock.makefile("rb") as stream:
            while True:
                op, rq, tx, size = HEADER.unpack(_exactly(stream, HEADER.size))
                asked = Asked(op, rq, tx, _exactly(stream, size), sock)
                self.asked.append(asked)
                if not self.on_request(asked):
                    self.answer(asked)

    def _do(self, asked: Asked) -> tuple[int, bytes]:
        name = asked.path
        before, nodes = self.transactions.get(asked.tx, (self.nodes, self.nodes))
        if asked.op in (READ, DIRECTORY, DIRECTORY_PART, GET_PERMS, SET_PERMS) and name not in nodes:
            return ERROR, b"ENOENT\0"
        if asked.op == READ:
            return READ, nodes[name]
        if asked.op == DIRECTORY:
            names = self._children(name, nodes)
            return (
                (ERROR, b"E2BIG\0")
                if len(names) > SPEC_LIMIT and not self.long_replies
                else (DIRECTORY, names)
            )
        if asked.op == DIRECTORY_PART:
            names = self._children(name, nodes) + b"\0"
            generation = str(self.generation).encode() + b"\0"
            start = int(asked.words[1])
            part = names[start : start + SPEC_LIMIT - len(generation)]
            if start + len(part) < len(names):
                part = part[: part.rindex(b"\0") + 1]
            return DIRECTORY_PART, generation + part
        if asked.op == WRITE:
            self.generation += 1
            nodes[name] = asked.body.partition(b"\0")[2]
            for end in range(len(name)):
                if name[end] == "/":
                    nodes.setdefault(name[:end] or "/", b"")
        elif asked.op == MKDIR:
            nodes.setdefault(name, b"")
        elif asked.op == RM:
            for below in [each for each in nodes if each == name or each.startswith(name + "/")]:
                del nodes[below]
        elif asked.op == GET_PERMS:
            return GET_PERMS, b"".join(entry + b"\0" for entry in self.permissions.get(name, [b"n0"]))
        elif asked.op == SET_PERMS:
            self.permissions[name] = asked.words[1:-1]
        elif asked.op == WATCH:
            self.watches.append((asked.sock, name, asked.words[1]))
        elif asked.op == UNWATCH:
            self.watches = [each for each in self.watches if each[2] != asked.words[1]]
        elif asked.op == START:
            tx = len(self.transactions) + 1
            self.transactions[tx] = (dict(self.nodes), dict(self.nodes))
            return START, str(tx).encode() + b"\0"
        elif asked.op == END:
            del self.transactions[asked.tx]
            if asked.words[0] == b"T":
                if before != self.nodes:
                    return ERROR, b"EAGAIN\0"
                self.nodes = nodes
        else:
            return ERROR, b"ENOSYS\0"
        return asked.op, b"OK\0"

    @staticmethod
    def _children(name: str, nodes: dict[str, bytes]) -> bytes:
        below = name.rstrip("/") + "/"
        names = [node.removeprefix(below) for node in nodes if node.startswith(below) and node != below]
        return b"".join(each.encode() + b"\0" for each in names if "/" not in each)


def _exactly(stream: object, size: int) -> bytes:
    data: bytes = stream.read(size)  # type: ignore[attr-defined]
    if len(data) < size:
        raise EOFError
    return data
