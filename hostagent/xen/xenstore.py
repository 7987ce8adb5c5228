"""Xenstore for the rest of hostagent: read, write, list, permissions, transactions, watches; never hangs.

Paths are str, values bytes. An absent node is None, never an error, where the answer can say so. Every call
has a deadline. A connection that was lost (xenstored died or was restarted) is made again at the next call,
once, and the call repeated: outside transactions every call may be done twice without harm. While there is no
xenstored, calls raise XenstoreUnavailable at once over the socket, and at their deadline over the xenbus
device.

Built on pyxs 0.4.1: its header, operation numbers, connection shape and the verbs of its `Client` are kept.
Its packet limits, connection, router and monitor are replaced, because they hang when the daemon dies under a
call, when a directory reply is longer than 4096 bytes, and in other ways listed in `xenstore_wire` and
`xenstore_router`; its path check is too, since it lets a newline at the end pass and never applies the limit
of relative paths. pyxs is imported at the first connection: in an emulated dom0 it costs a quarter of a
second.
"""

from __future__ import annotations

import random
import re
import threading
import time
from abc import abstractmethod
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

from hostagent.errors import HostagentError, InvalidValueError
from hostagent.xen.xenstore_errors import (
    InvalidPath,
    XenstoreConflict,
    XenstoreDeadline,
    XenstoreDenied,
    XenstoreLost,
    XenstoreMissing,
    XenstoreProtocol,
    XenstoreQuota,
    XenstoreRefused,
    XenstoreUnavailable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from hostagent.xen.xenstore_router import Client, Request, Router
    from hostagent.xen.xenstore_watch import Watch, Watcher
    from hostagent.xen.xenstore_wire import Connection

T = TypeVar("T")
Names = list[str]
Answers = list[bytes | HostagentError]

SOCKET = Path("/run/xenstored/socket")
DEVICES = (Path("/dev/xen/xenbus"), Path("/proc/xen/xenbus"))
DEADLINE_S = 5.0
PIPELINE_REQUESTS = 32  # requests on their way at a time: their replies fit the socket's buffer
CONFLICT_RETRIES = 8
CONFLICT_PAUSE_S = 0.005  # mean pause after the first conflict; doubles each time
TREE_MAX_NODES = 20_000
TREE_MAX_DEPTH = 64

ABSOLUTE_PATH_MAX = 3072  # XENSTORE_ABS_PATH_MAX
RELATIVE_PATH_MAX = 2048  # XENSTORE_REL_PATH_MAX
_PATH = re.compile(r"/|/?[A-Za-z0-9_@-]+(?:/[A-Za-z0-9_@-]+)*")
_PERMISSION = re.compile(r"[nrwb][0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class Node:
    """A node as a walk found it; `value` is None when it may not be read."""

    path: str
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Tree:
    """Nodes below a path, parents before children; `truncated` when a bound ended the walk."""

    nodes: tuple[Node, ...]
    truncated: bool


Looks = list[tuple[Node, Names]]


class _Calls:
    """The calls that a connection and a transaction have in common."""

    @abstractmethod
    def _call(self, verb: Callable[[Client], T], deadline_s: float | None) -> T:
        """Do one exchange within the deadline."""

    def read(self, path: str, *, deadline_s: float | None = None) -> bytes | None:
        """The value of a node, any octets; None when there is no such node."""
        wire = checked_path(path)
        return _none_if_missing(lambda: self._call(lambda client: bytes(client.read(wire)), deadline_s))

    def read_many(self, paths: Iterable[str], *, deadline_s: float | None = None) -> dict[str, bytes | None]:
        """The values of many nodes, sent together: about three times as fast as one by one."""
        from hostagent.xen.xenstore_wire import NUL, Op

        asked = list(dict.fromkeys(paths))
        requests = [(Op.READ, checked_path(path) + NUL) for path in asked]
        answers = self._pipeline(requests, deadline_s)
        return {path: _value(answer) for path, answer in zip(asked, answers, strict=True)}

    def list(self, path: str, *, deadline_s: float | None = None) -> Names | None:
        """The names of a node's children in the server's order; None when there is no such node."""
        wire = checked_path(path)
        names = _none_if_missing(lambda: self._call(lambda client: client.list(wire), deadline_s))
        return None if names is None else [name.decode() for name in names]

    def write(self, path: str, value: bytes, *, deadline_s: float | None = None) -> None:
        """Set a value, making the node and its parents as needed. About 2000 bytes fit (XenstoreQuota)."""
        wire = checked_path(path)
        self._call(lambda client: client.write(wire, value), deadline_s)

    def mkdir(self, path: str, *, deadline_s: float | None = None) -> None:
        """Make a node with an empty value, and its parents; one that exists keeps its value."""
        wire = checked_path(path)
        self._call(lambda client: client.mkdir(wire), deadline_s)

    def remove(self, path: str, *, deadline_s: float | None = None) -> None:
        """Remove a node and all below it; harmless when it, or its parent, is absent."""
        wire = checked_path(path)
        _none_if_missing(lambda: self._call(lambda client: client.delete(wire), deadline_s))

    def permissions(self, path: str, *, deadline_s: float | None = None) -> Names:
        """Permissions as xenstore writes them: owner and default first (`n0`), then `r5`, `w5`, `b5`.

        Raises XenstoreMissing.
        """
        wire = checked_path(path)
        return [entry.decode() for entry in self._call(lambda client: client.get_perms(wire), deadline_s)]

    def set_permissions(self, path: str, entries: Sequence[str], *, deadline_s: float | None = None) -> None:
        """Replace the permissions of a node. Raises XenstoreMissing, InvalidValueError."""
        wire = checked_path(path)
        for entry in entries:
            if not _PERMISSION.fullmatch(entry):
                raise InvalidValueError(
                    "permissions",
                    entry,
                    f"{entry!r} is no xenstore permission",
                    hint="n, r, w or b and a domain id: n0 is `owned by dom0, no access for others`",
                )
        wire_entries = [entry.encode() for entry in entries]
        self._call(lambda client: client.set_perms(wire, wire_entries), deadline_s)

    def must_exist(self, path: str, *, deadline_s: float | None = None) -> None:
        """Raise XenstoreMissing unless the node is there.

        Called first in a transaction, it keeps a write from making the tree of a domain that has just died.
        """
        if self.read(path, deadline_s=deadline_s) is None:
            raise XenstoreMissing(
                f"{path} does not exist (any more)", hint="has the domain gone? see `xl list`"
            )

    def tree(
        self,
        path: str,
        *,
        max_nodes: int = TREE_MAX_NODES,
        max_depth: int = TREE_MAX_DEPTH,
        deadline_s: float | None = None,
    ) -> Tree | None:
        """All nodes at and below `path`, depth first; None when it does not exist.

        Two requests per node, in pipelines: for diagnosis, never periodically. What vanishes during the walk
        is left out. The deadline is that of each exchange.
        """
        found: list[Node] = []
        truncated = False
        waiting = [(0, node) for node in self._look([path], deadline_s)]
        while waiting:
            depth, (node, names) = waiting.pop()
            if len(found) == max_nodes:
                truncated = True
                break
            found.append(node)
            if names and depth == max_depth:
                truncated = True
                continue
            below = [f"{node.path.rstrip('/')}/{name}" for name in names]
            waiting += [(depth + 1, look) for look in reversed(self._look(below, deadline_s))]
        return Tree(tuple(found), truncated) if found else None

    def _look(self, paths: Sequence[str], deadline_s: float | None) -> Looks:
        """Each node with the names of its children, as far as it is (still) there."""
        from hostagent.xen.xenstore_wire import NUL, Op

        wires = [path.encode() + NUL for path in paths]
        answers = self._pipeline([(op, wire) for wire in wires for op in (Op.READ, Op.DIRECTORY)], deadline_s)
        seen = []
        for path, value, children in zip(paths, answers[::2], answers[1::2], strict=True):
            match value, children:
                case XenstoreMissing(), _:
                    continue
                case _, XenstoreQuota():
                    names = self.list(path, deadline_s=deadline_s) or []
                case _, bytes():
                    names = [name.decode("utf-8", "replace") for name in children.split(NUL) if name]
                case _:
                    names = []
            seen.append((Node(path, value if isinstance(value, bytes) else None), names))
        return seen

    def _pipeline(self, requests: Sequence[Request], deadline_s: float | None) -> Answers:
        answers: Answers = []
        for start in range(0, len(requests), PIPELINE_REQUESTS):
            part = requests[start : start + PIPELINE_REQUESTS]
            answers += self._call(partial(_send_all, part), deadline_s)
        return answers


class Transaction(_Calls):
    """A transaction under way: it sees one state of the store; its changes appear together, or never."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def _call(self, verb: Callable[[Client], T], deadline_s: float | None) -> T:
        if deadline_s is None:
            return verb(self._client)
        whole, self._client.expires = (
            self._client.expires,
            min(self._client.expires, time.monotonic() + deadline_s),
        )
        try:
            return verb(self._client)
        finally:
            self._client.expires = whole


class Xenstore(_Calls):
    """A client of xenstored; may be shared by threads. A context manager that closes itself."""

    def __init__(
        self,
        dial: Callable[[float], Connection],
        *,
        deadline_s: float = DEADLINE_S,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """`dial(expires)` makes a connection; `deadline_s` is that of each call unless it has its own.

        Use `connect`; this is for tests, which dial a socket pair and must not `pause` between conflicts.
        """
        self._pause = pause
        self._dial = dial
        self._deadline_s = deadline_s
        self._connecting = threading.Lock()
        self._router: Router | None = None
        self._watcher: Watcher | None = None
        self._closed = False

    @classmethod
    def connect(
        cls, *, socket: Path | None = None, device: Path | None = None, deadline_s: float = DEADLINE_S
    ) -> Self:
        """Connect to xenstored over its Unix socket or, when there is none, the kernel's xenbus device.

        Arguments: `socket`, only this socket; `device`, only this device.
        Raises XenstoreUnavailable when nobody answers.
        """
        store = cls(partial(_dial, socket, device), deadline_s=deadline_s)
        store._live_router(time.monotonic() + deadline_s)
        return store

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """End both connections, the watches with them; later calls raise XenstoreUnavailable."""
        with self._connecting:
            self._closed = True
            router, self._router = self._router, None
            watcher, self._watcher = self._watcher, None
        if router is not None:
            router.end("closed by this program")
        if watcher is not None:
            watcher.close()

    @property
    def transport(self) -> str:
        """The path of the socket or device in use; empty before the first connection."""
        router = self._router
        return str(router.connection.path) if router is not None else ""

    def transact(
        self,
        body: Callable[[Transaction], T],
        *,
        retries: int = CONFLICT_RETRIES,
        deadline_s: float | None = None,
    ) -> T:
        """Run `body(tx)` in a transaction and commit; after a conflict again, `retries` times at most.

        `body` has to read again whatever it decides on, and must not do slow work. When it raises, nothing is
        changed. The deadline (default: that of the connection) is for all tries together.
        Raises XenstoreConflict when the last try conflicted too; XenstoreLost when the connection ended (if
        that was at the commit, nobody knows whether it was done).
        """
        expires = time.monotonic() + (self._deadline_s if deadline_s is None else deadline_s)
        pause_s = CONFLICT_PAUSE_S
        for _ in range(retries):
            try:
                return self._attempt(body, expires)
            except XenstoreConflict:
                jitter = random.uniform(0.5, 1.5)  # noqa: S311 - spreads retries, no secret
                self._pause(max(0.0, min(pause_s * jitter, expires - time.monotonic())))
                pause_s *= 2
        try:
            return self._attempt(body, expires)
        except XenstoreConflict as error:
            raise XenstoreConflict(f"a xenstore transaction met {retries + 1} conflicts in a row") from error

    def _attempt(self, body: Callable[[Transaction], T], expires: float) -> T:
        client = self._begun(expires)
        try:
            result = body(Transaction(client))
        except XenstoreUnavailable:
            raise
        except XenstoreDeadline as error:
            client.router.end(error.found)  # the only way to be rid of a transaction nobody answers for
            raise
        except BaseException:
            self._roll_back(client)
            raise
        client.commit()
        return result

    def _begun(self, expires: float) -> Client:
        """A client in a new transaction. At a deadline its connection ends: a late reply would open one."""

        def begin(client: Client) -> Client:
            try:
                client.transaction()
            except XenstoreDeadline as error:
                client.router.end(error.found)
                raise
            return client

        return self._call(begin, expires - time.monotonic())

    def _roll_back(self, client: Client) -> None:
        """End a transaction without its changes; when that fails, its connection with it. Raises nothing."""
        client.expires = max(client.expires, time.monotonic() + 1.0)
        try:
            client.rollback()
        except HostagentError as error:
            client.router.end(f"a transaction could not be ended: {error}")

    def watch(self, path: str, *more: str) -> Watch:
        """Watch paths, with all below them, on one queue of events (see `xenstore_watch.Watch`).

        `@introduceDomain` and `@releaseDomain` tell of domains that come and go. Each path gives one event at
        once: take it as the order to read everything for the first time.
        """
        from hostagent.xen.xenstore_watch import Watcher

        paths = (path, *more)
        for each in paths:
            checked_path(each)
        with self._connecting:
            if self._closed:
                raise XenstoreUnavailable("this xenstore connection was closed")
            if self._watcher is None:
                self._watcher = Watcher(self._dial, self._deadline_s)
        return self._watcher.add(paths, time.monotonic() + self._deadline_s)

    def _call(self, verb: Callable[[Client], T], deadline_s: float | None) -> T:
        from hostagent.xen.xenstore_router import Client

        expires = time.monotonic() + (self._deadline_s if deadline_s is None else deadline_s)
        try:
            return verb(Client(self._live_router(expires), expires))
        except XenstoreLost:
            return verb(Client(self._live_router(expires), expires))

    def _live_router(self, expires: float) -> Router:
        from hostagent.xen.xenstore_router import Router

        router = self._router
        if router is not None and router.ended is None:
            return router
        if not self._connecting.acquire(timeout=max(0.0, expires - time.monotonic())):
            raise XenstoreDeadline("accept a connection", 0.0)
        try:
            if self._closed:
                raise XenstoreUnavailable("this xenstore connection was closed")
            if self._router is None or self._router.ended is not None:
                self._router = Router(self._dial(expires))
            return self._router
        finally:
            self._connecting.release()


def checked_path(path: str) -> bytes:
    """The path as it goes over the wire. Raises InvalidPath. Source: docs/misc/xenstore.txt, "Paths"."""
    if not _PATH.fullmatch(path):
        raise InvalidPath(path, "a character or a slash that is not allowed")
    if len(path) > (ABSOLUTE_PATH_MAX if path.startswith("/") else RELATIVE_PATH_MAX):
        raise InvalidPath(path, "too long")
    return path.encode()


def _dial(socket: Path | None, device: Path | None, expires: float) -> Connection:
    """A connection over the given socket or device; with neither, the usual socket or else the device."""
    from hostagent.xen.xenstore_wire import SocketConnection

    if device is not None:
        return _dial_device(device, expires)
    try:
        return SocketConnection.dial(socket or SOCKET, expires)
    except FileNotFoundError as error:
        found = next((path for path in DEVICES if path.exists()), None)
        if socket is not None or found is None:
            raise XenstoreUnavailable(f"there is no xenstored: {socket or SOCKET} does not exist") from error
        return _dial_device(found, expires)


def _dial_device(path: Path, expires: float) -> Connection:
    """Open the device and see that somebody answers: the open alone works without any xenstored."""
    from hostagent.xen.xenstore_router import Router
    from hostagent.xen.xenstore_wire import NUL, Op, XenbusConnection

    connection = XenbusConnection.dial(path)
    try:
        Router(connection).request(((Op.READ, b"domid" + NUL),), 0, expires)
    except XenstoreDeadline as error:
        connection.close()
        raise XenstoreUnavailable(f"no xenstored answers over {path}") from error
    return connection


def _send_all(requests: Sequence[Request], client: Client) -> Answers:
    answers: Answers = client.pipeline(requests)
    return answers


def _none_if_missing(call: Callable[[], T]) -> T | None:
    try:
        return call()
    except XenstoreMissing:
        return None


def _value(answer: bytes | HostagentError) -> bytes | None:
    if isinstance(answer, XenstoreMissing):
        return None
    if isinstance(answer, HostagentError):
        raise answer
    return answer


__all__ = [
    "InvalidPath",
    "Node",
    "Transaction",
    "Tree",
    "Xenstore",
    "XenstoreConflict",
    "XenstoreDeadline",
    "XenstoreDenied",
    "XenstoreLost",
    "XenstoreMissing",
    "XenstoreProtocol",
    "XenstoreQuota",
    "XenstoreRefused",
    "XenstoreUnavailable",
]
