"""The API on several listening sockets at once, on one event loop: who is let in, and how it ends.

uvicorn parses and answers (protocol.py). Its own server is not used: it accepts without asking who comes, shakes
hands with any number of TLS clients, and wakes ten times a second to look for its exit flag.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
from typing import TYPE_CHECKING, cast

import uvicorn
from uvicorn.server import ServerState

from hostagent.api.app import Allowance, make_app
from hostagent.api.http import Limits, Peer
from hostagent.api.protocol import Connection

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable

    from hostagent.api.http import PeerKind
    from hostagent.api.routes import Routes

log = logging.getLogger(__name__)

CONNECTIONS: dict[PeerKind, int] = {"unix": 1024, "localhost": 800, "tls": 800}
"""Per listener, as xapi's (xenapi.md 1.1)."""
ACCEPT_PAUSE_S = 1.0
"""When the kernel gives no more connections: out of file descriptors or memory."""
TLS_SHUTDOWN_S = 20.0
"""For the last pieces of a reply, and the goodbye of TLS, once a connection is being closed."""

FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 21\r\n"
    b"cache-control: no-cache, no-store\r\nretry-after: 5\r\nconnection: close\r\n\r\ntoo many connections\n"
)
UCRED = struct.Struct("3i")  # struct ucred of SO_PEERCRED, unix(7): pid, uid, gid


def credentials(connection: socket.socket) -> tuple[int, int]:
    """pid and uid of the process at the other end, as the kernel noted them when it connected."""
    pid, uid, _ = UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size))
    return cast("int", pid), cast("int", uid)


class Server:
    """A routing table on any number of listeners, each started and stopped by its name. All calls on the loop."""

    def __init__(self, routes: Routes, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._config = uvicorn.Config(
            make_app(routes, self._limits),
            http=Connection,
            loop="asyncio",
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="error",  # below, it tells of each client that does not speak HTTP
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=cast("int", self._limits.keep_alive_s),
        )
        self._config.load()
        self._listeners: dict[str, _Listener] = {}
        self._retiring: set[asyncio.Task[None]] = set()

    @property
    def listeners(self) -> tuple[str, ...]:
        """Names of those that are started, in the order of their start."""
        return tuple(self._listeners)

    def connections(self, name: str) -> int:
        """How many clients a listener has now."""
        return len(self._listeners[name].clients)

    def start(
        self,
        name: str,
        sockets: Iterable[socket.socket],
        kind: PeerKind,
        *,
        connection_limit: int | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Serve on listening sockets, which are the server's until it stops and closes them. `connection_limit`
        (else CONNECTIONS) is for all of them together; clients beyond it get 503, or with TLS are closed before
        they cost a handshake.

        Raises ValueError when a listener of this name is there, or when `tls` is missing or has no place.
        """
        if name in self._listeners:
            raise ValueError(f"there is a listener {name} already")
        if (kind == "tls") != (tls is not None):
            raise ValueError(f"a {kind} listener with{'' if tls else 'out'} a TLS context")
        limit = CONNECTIONS[kind] if connection_limit is None else connection_limit
        listener = _Listener(self._config, self._limits, kind, limit, tls)
        listener.start(sockets)
        self._listeners[name] = listener

    def replace_tls(self, name: str, context: ssl.SSLContext) -> None:
        """Use this context, with another certificate, for connections from now on; those that are up stay."""
        self._listeners[name].tls = context

    async def stop(self, name: str) -> None:
        """Accept no more, let answers under way end (`Limits.stop_s`), cut the rest. Other listeners go on."""
        await self._listeners.pop(name).stop()

    def retire(self, name: str) -> None:
        """As `stop`, without waiting for it: also for who was asked over a connection of that listener."""
        task = asyncio.create_task(self._listeners.pop(name).stop())
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def stop_all(self) -> None:
        listeners = list(self._listeners.values())
        self._listeners.clear()
        await asyncio.gather(*(listener.stop() for listener in listeners), *self._retiring)


class _Listener:
    def __init__(
        self, config: uvicorn.Config, limits: Limits, kind: PeerKind, limit: int, tls: ssl.SSLContext | None
    ) -> None:
        self.tls = tls
        self.clients: set[Connection] = set()
        """Those included that still shake hands."""
        self._config = config
        self._limits = limits
        self._kind = kind
        self._limit = limit
        self._state = ServerState()
        self._allowance = Allowance()
        self._empty = asyncio.Event()
        self._sockets: list[socket.socket] = []
        self._accepting: list[asyncio.Task[None]] = []
        self._opening: set[asyncio.Task[None]] = set()

    def start(self, sockets: Iterable[socket.socket]) -> None:
        for listening in sockets:
            listening.setblocking(False)  # noqa: FBT003 - as socket has it
            self._sockets.append(listening)
            self._accepting.append(asyncio.create_task(self._accept(listening)))

    async def stop(self) -> None:
        for task in (*self._accepting, *self._opening):
            task.cancel()
        await asyncio.gather(*self._accepting, *self._opening, return_exceptions=True)
        for listening in self._sockets:
            listening.close()
        for client in list(self.clients):
            client.shutdown()
        if self.clients:
            self._empty.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), self._limits.stop_s)
        for client in list(self.clients):
            client.abort()
        if self._state.tasks:
            await asyncio.wait(self._state.tasks, timeout=self._limits.stop_s)

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, address = await loop.sock_accept(listening)
            except OSError as error:
                log.warning("cannot accept a connection: %s", error)
                await asyncio.sleep(ACCEPT_PAUSE_S)
                continue
            peer = self._admit(connection, address)
            if peer is None:
                connection.close()
            else:
                self._take_in(connection, peer)

    def _take_in(self, connection: socket.socket, peer: Peer) -> None:
        client = Connection(self._config, self._state, peer, self._limits, self._allowance, self._closed)
        self.clients.add(client)

        def opened(task: asyncio.Task[None]) -> None:
            self._opening.discard(task)
            if client.transport is None:  # it never came to be
                connection.close()
                self._closed(client)

        task = asyncio.create_task(self._open(connection, client))
        self._opening.add(task)
        task.add_done_callback(opened)

    def _admit(self, connection: socket.socket, address: object) -> Peer | None:
        """Who it is; None when it may not come in."""
        if self._kind == "unix":
            pid, uid = credentials(connection)
            if uid not in (0, os.geteuid()):
                log.warning("refused a connection of pid %d, uid %d: only root may call", pid, uid)
                return None
            peer = Peer(self._kind, f"pid {pid}", uid)
        else:
            peer = Peer(self._kind, str(address[0]) if isinstance(address, tuple) else "")
        if len(self.clients) < self._limit:
            return peer
        log.info("refused %s client %s: there are %d already", peer.kind, peer.address, len(self.clients))
        if self.tls is None:
            with contextlib.suppress(OSError):
                connection.send(FULL)
        return None

    async def _open(self, connection: socket.socket, client: Connection) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: client,
                connection,
                ssl=self.tls,
                ssl_handshake_timeout=self._limits.handshake_s if self.tls else None,
                ssl_shutdown_timeout=TLS_SHUTDOWN_S if self.tls else None,
            )
        except OSError as error:  # of the client or of its TLS
            log.info("no connection with %s client %s: %s", client.peer.kind, client.peer.address, error)

    def _closed(self, client: Connection) -> None:
        self.clients.discard(client)
        if not self.clients:
            self._empty.set()
