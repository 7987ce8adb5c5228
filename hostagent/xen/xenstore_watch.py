"""Watches: one connection of their own with a thread that always drains it, and a bounded queue per watch.

The connection is apart from that of requests because xenstored limits the events it keeps for a client, so
somebody must read at all times; requests have no such need and are quicker without a thread
(xenstore_router).

Invariant: whoever waits on a `Watch` never misses a change without a `Resync`: it comes when the queue
overflowed, and after every reconnection, when the watches have been registered anew.
"""

from __future__ import annotations

import collections
import enum
import itertools
import logging
import random
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from hostagent.errors import HostagentError
from hostagent.xen.xenstore_errors import XenstoreUnavailable
from hostagent.xen.xenstore_router import Router, reply_payload
from hostagent.xen.xenstore_wire import NUL, Connection, Op

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

QUEUE_EVENTS = 1024  # oxenstored's quota-maxwatchevents: it would not keep more for us either
IDLE_S = 5.0  # silence after which the daemon is asked for a sign of life; twice that and it counts as lost
UNWATCH_S = 1.0
BACKOFF_FIRST_S = 0.1
BACKOFF_LAST_S = 2.0


@dataclass(frozen=True, slots=True)
class Changed:
    """Something at or below a watched path changed, or the watch was just registered: read it again.

    `path` is the node that changed, or the watched path itself when a parent was removed.
    """

    path: str


class ResyncReason(enum.Enum):
    """Why single events are no longer known."""

    OVERFLOW = "more events than the queue holds"
    RECONNECTED = "the connection to xenstored was made anew"


@dataclass(frozen=True, slots=True)
class Resync:
    """Events were lost: list and read everything again."""

    reason: ResyncReason


Event = Changed | Resync


class Watch:
    """Watched paths and the queue of what happened to them; a context manager that unwatches at its end."""

    def __init__(self, watcher: Watcher, paths: tuple[str, ...], tokens: tuple[str, ...]) -> None:
        self.paths = paths
        self.tokens = tokens
        self._watcher = watcher
        self._arrived = threading.Condition()
        self._events: collections.deque[Event] = collections.deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop watching. Never raises: a dead daemon has forgotten the watch anyway."""
        self._watcher.forget(self)

    def wait(self, deadline_s: float) -> Event | None:
        """The next event, or None after `deadline_s` seconds without one.

        Raises XenstoreUnavailable at the deadline when there is no connection then. A short loss inside the
        deadline shows as a Resync only.
        """
        expires = time.monotonic() + deadline_s
        with self._arrived:
            while not self._events:
                if (
                    not self._arrived.wait(max(0.0, expires - time.monotonic()))
                    and time.monotonic() >= expires
                ):
                    break
            if self._events:
                return self._events.popleft()
        if (lost := self._watcher.lost) is not None:
            raise XenstoreUnavailable(f"not watching {', '.join(self.paths)}: {lost}")
        return None

    def put(self, event: Event) -> None:
        """Queue an event; when the queue is full, all of it becomes one Resync. Never blocks."""
        with self._arrived:
            if isinstance(event, Resync):
                self._events.clear()
            elif len(self._events) >= QUEUE_EVENTS:
                self._events.clear()
                event = Resync(ResyncReason.OVERFLOW)
            self._events.append(event)
            self._arrived.notify_all()


class Watcher:
    """Keeps the connection of watches: drains it, makes it again when lost, registers all watches anew."""

    def __init__(
        self, dial: Callable[[float], Connection], deadline_s: float, *, idle_s: float = IDLE_S
    ) -> None:
        self._dial = dial
        self._deadline_s = deadline_s
        self._idle_s = idle_s
        self._tokens = itertools.count(1)
        self._lock = threading.RLock()
        self._by_token: dict[str, tuple[Watch, str]] = {}
        self._closing = threading.Event()
        self._alive: Callable[[], bool] = lambda: True
        self.lost: str | None = None
        """Why there is no connection at the moment; None when there is one."""
        self._router: Router | None = self._connect()
        self._thread = threading.Thread(target=self._run, name="xenstore-watches", daemon=True)
        self._thread.start()

    def add(self, paths: tuple[str, ...], expires: float) -> Watch:
        """Watch paths on one queue; each comes once as Changed at first. Raises like any request."""
        tokens = tuple(f"hostagent-{next(self._tokens)}" for _ in paths)
        watch = Watch(self, paths, tokens)
        with self._lock:
            router = self._router
            if router is None:
                raise XenstoreUnavailable(f"cannot watch {', '.join(paths)}: {self.lost}")
            self._by_token.update({token: (watch, path) for token, path in zip(tokens, paths, strict=True)})
        try:
            for token, path in zip(tokens, paths, strict=True):
                _register(router, path, token, expires)
        except HostagentError:
            self.forget(watch)
            raise
        return watch

    def forget(self, watch: Watch) -> None:
        """Unwatch, as far as the daemon can be asked within a second; one that is silent is given up."""
        with self._lock:
            for token in watch.tokens:
                self._by_token.pop(token, None)
            router = self._router
        if router is None:
            return
        requests = [
            (Op.UNWATCH, path.encode() + NUL + token.encode() + NUL)
            for path, token in zip(watch.paths, watch.tokens, strict=True)
        ]
        expires = time.monotonic() + UNWATCH_S
        try:
            _see_life(router, expires)
            router.request(requests, 0, expires)
        except HostagentError as error:
            log.debug("unwatch: %s", error.found)

    def close(self) -> None:
        """End the thread and the connection; harmless when ended."""
        with self._lock:
            self._closing.set()
            router = self._router
        if router is not None:
            router.end("closed by this program")
        self._thread.join(self._deadline_s)

    def _connect(self) -> Router:
        return Router(self._dial(time.monotonic() + self._deadline_s), on_event=self._deliver)

    def _deliver(self, path: str, token: str) -> None:
        with self._lock:
            if self._router is None:
                return  # registering anew: the Resync that follows stands for all of these
            watch, _ = self._by_token.get(token, (None, ""))
        if watch is not None:
            watch.put(Changed(path))

    def _run(self) -> None:
        router = self._router
        while router is not None:
            router.run(self._idle_s, lambda router=router: self._ask_for_life(router))  # type: ignore[misc]
            with self._lock:
                self._router, self.lost = None, router.ended
            if not self._closing.is_set():
                log.warning("lost xenstored's watches: %s", router.ended)
            router = self._reconnect()

    def _ask_for_life(self, router: Router) -> None:
        if not self._alive():
            router.end("xenstored is connected but silent")
            return
        try:
            self._alive = router.post(Op.READ, b"domid\x00")
        except HostagentError as error:
            router.end(error.found)

    def _reconnect(self) -> Router | None:
        """A connection with all watches registered, tried until there is one; None when closing."""
        pause_s = BACKOFF_FIRST_S
        while not self._closing.wait(pause_s * random.uniform(0.5, 1.0)):  # noqa: S311 - spreads retries, no secret
            pause_s = min(BACKOFF_LAST_S, pause_s * 2)
            try:
                router = self._connect()
            except HostagentError as error:
                self.lost = error.found
                continue
            try:
                with self._lock:
                    known = dict(self._by_token)
                for token, (_, path) in known.items():
                    _register(router, path, token, time.monotonic() + self._deadline_s)
            except HostagentError as error:
                self.lost = error.found
                router.end(error.found)
                continue
            with self._lock:
                if self._closing.is_set():
                    router.end("closed by this program")
                    return None
                self._alive = lambda: True
                self._router, self.lost = router, None
                watches = {id(watch): watch for watch, _ in self._by_token.values()}
            for watch in watches.values():
                watch.put(Resync(ResyncReason.RECONNECTED))
            log.warning("watching xenstore again: %d paths", len(known))
            return router
        return None


def _register(router: Router, path: str, token: str, expires: float) -> None:
    """Register one watch; EEXIST means it is registered already."""
    _see_life(router, expires)
    request = (Op.WATCH, path.encode() + NUL + token.encode() + NUL)
    reply = router.request((request,), 0, expires)[0]
    if reply.op == Op.ERROR and reply.payload == b"EEXIST\x00":
        return
    reply_payload(request, reply)


def _see_life(router: Router, expires: float) -> None:
    """Ask for a sign of life before a WATCH or UNWATCH over the device, and end the router without one.

    There both wait for xenstored inside the kernel, in write(), where nothing can end them.
    """
    if not router.connection.kernel_answers_watches:
        return
    try:
        router.request(((Op.READ, b"domid\x00"),), 0, expires)
    except HostagentError as error:
        router.end(error.found)
        raise
