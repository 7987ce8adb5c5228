"""uvicorn on our socket: who may connect, how long a client may take, start and stop.

uvicorn's own main loop is not used: it wakes ten times a second to look for its exit flag.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
from typing import TYPE_CHECKING, cast

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    import asyncio

    from hostagent.api.app import App

log = logging.getLogger(__name__)

CONNECTION_LIMIT = 64
HEAD_LIMIT_BYTES = 16384
HEAD_DEADLINE_S = 10.0
"""For a request head from its connection or its first byte on; xapi waits as long (xenapi.md 1.1)."""
UNREAD_DEADLINE_S = 10.0
"""For a client to go on reading a reply that no longer fits the socket buffer."""
SHUTDOWN_S = 3

UCRED = struct.Struct("3i")  # struct ucred of SO_PEERCRED, unix(7): pid, uid, gid


class LocalProtocol(H11Protocol):
    """HTTP for root and for our own user, with deadlines."""

    _deadline: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        pid, uid = peer(transport.get_extra_info("socket"))
        if uid not in (0, os.geteuid()):
            log.warning("refused a connection of pid %d, uid %d: only root may call", pid, uid)
            transport.abort()
            return
        self._deadline = self.loop.call_later(HEAD_DEADLINE_S, self._cut)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._disarm()
        elif self._deadline is None:  # a later request on this connection has begun
            self._deadline = self.loop.call_later(HEAD_DEADLINE_S, self._cut)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(UNREAD_DEADLINE_S, self._cut)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        if self._unread is not None:
            self._unread.cancel()
        super().connection_lost(exc)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _cut(self) -> None:
        log.warning("cut a client that was too slow")
        self.transport.abort()


def peer(connection: socket.socket) -> tuple[int, int]:
    """pid and uid of the process at the other end, as the kernel noted them when it connected."""
    pid, uid, _ = UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size))
    return cast("int", pid), cast("int", uid)


class Server:
    """The API on one listening socket, from `start()` to `stop()`."""

    def __init__(self, app: App, listener: socket.socket) -> None:
        config = uvicorn.Config(
            app,
            http=LocalProtocol,
            loop="asyncio",
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            limit_concurrency=CONNECTION_LIMIT,
            h11_max_incomplete_event_size=HEAD_LIMIT_BYTES,
            timeout_graceful_shutdown=SHUTDOWN_S,
        )
        config.load()
        self._server = uvicorn.Server(config)
        self._server.lifespan = config.lifespan_class(config)
        self._listener = listener

    async def start(self) -> None:
        await self._server.startup(sockets=[self._listener])

    async def stop(self) -> None:
        await self._server.shutdown(sockets=[self._listener])
