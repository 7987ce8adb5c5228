"""The whole API of the daemon: XenAPI and our own calls, on every listener, over what start-up has found so far.

It answers from the daemon's first moment; calls that need the database are told HOST_STILL_BOOTING until the step that
opens it hands it over (`attach`).
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from hostagent.api import methods
from hostagent.api.calls import METHODS
from hostagent.api.core import Core, Peer
from hostagent.api.dispatch import Dispatcher
from hostagent.api.endpoint import Endpoint
from hostagent.api.events import Events
from hostagent.api.fault import CallError
from hostagent.api.pam import Authenticator
from hostagent.api.routes import Routes, rpc_routes
from hostagent.api.server import Server
from hostagent.api.tasks import Tasks
from hostagent.api.xenapi_calls import IMPLEMENTED

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable, Iterable

    from hostagent.api.service import Service
    from hostagent.db.database import Database
    from hostagent.startup.state import HostState

log = logging.getLogger(__name__)

LOCAL, LOCALHOST, MANAGEMENT = "local", "localhost", "management"
"""Names of the listeners."""


class XenApi:
    """Made in the daemon's event loop; `attach` and the `listen_` methods may be called from any thread."""

    def __init__(self, service: Service, host: HostState) -> None:
        self._loop = asyncio.get_running_loop()
        self._service = service
        self._host = host
        self.core = Core(
            authenticate=Authenticator(),
            pool_secrets=self._pool_secrets,
            blocked=self._blocked,
            coordinator=self._coordinator,
        )
        self.dispatcher = Dispatcher(self.core, IMPLEMENTED)
        endpoint = Endpoint(self.dispatcher, methods.Dispatcher(METHODS, service))
        self._server = Server(Routes(rpc_routes(endpoint.json, endpoint.xml)))

    def serve_local(self, listener: socket.socket) -> None:
        """The Unix socket, which only root can open."""
        self._server.start(LOCAL, [listener], "unix")

    def attach(self, database: Database, host_uuid: str) -> None:
        """Let calls use the database; events flow from now on."""

        def attach() -> None:
            self.core.database = database
            self.core.host_uuid = host_uuid
            self.core.tasks = Tasks(database)
            self.core.events = Events(database)

        self._in_loop(attach)

    def listen_localhost(self, sockets: Iterable[socket.socket]) -> None:
        """Plain HTTP for programs on this host."""
        self._in_loop(lambda: self._server.start(LOCALHOST, sockets, "localhost"))

    def listen_management(self, sockets: Iterable[socket.socket], context: ssl.SSLContext) -> None:
        """HTTPS for everybody else."""
        self._in_loop(lambda: self._server.start(MANAGEMENT, sockets, "tls", tls=context))

    def trusted_peer(self) -> Peer:
        """The peer of calls that come from inside."""
        return Peer(trusted=True)

    async def stop(self) -> None:
        await self._server.stop_all()

    def _in_loop(self, work: Callable[[], None]) -> None:
        """Do it in the event loop, and wait until it is done; raises what it raised."""

        async def run() -> None:
            work()

        asyncio.run_coroutine_threadsafe(run(), self._loop).result()

    def _pool_secrets(self) -> list[str]:
        """The secret in force, and both of a rotation under way."""
        secrets = self._host.secrets
        return [secret.reveal() for secret in secrets.accepted] if secrets else []

    def _blocked(self) -> CallError | None:
        blocking = self._service.lifecycle.state.blocking
        return CallError(blocking["code"], *blocking["params"]) if blocking else None

    def _coordinator(self) -> str | None:
        role = self._host.role
        return role.coordinator if role is not None and role.coordinator else None
