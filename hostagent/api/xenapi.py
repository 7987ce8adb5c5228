"""The whole API of the daemon: XenAPI and our own calls, on every listener, over what start-up has found so far.

It answers from the daemon's first moment; calls that need the database are told HOST_STILL_BOOTING until the step that
opens it hands it over (`attach`).
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from typing import TYPE_CHECKING

from hostagent.api import calls_adopt, calls_coverage, calls_db, calls_net, methods
from hostagent.api.calls import METHODS
from hostagent.api.cli_door import CliDoor
from hostagent.api.core import Core, Peer
from hostagent.api.dispatch import Dispatcher
from hostagent.api.endpoint import Endpoint
from hostagent.api.events import Events
from hostagent.api.fault import CallError
from hostagent.api.handlers import Handlers
from hostagent.api.pam import Authenticator
from hostagent.api.rendered import Rendered
from hostagent.api.roles import Role
from hostagent.api.routes import Routes, rpc_routes
from hostagent.api.server import Server
from hostagent.api.tasks import Tasks
from hostagent.api.xenapi_calls import IMPLEMENTED
from hostagent.lifecycle import Phase

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable, Iterable

    from hostagent.api.http import PeerKind
    from hostagent.api.service import Service
    from hostagent.db.database import Database
    from hostagent.startup.state import HostState

log = logging.getLogger(__name__)

LOCAL, LOCALHOST, MANAGEMENT = "local", "localhost", "management"
"""Names of the listeners."""


def address_text(name: object) -> str:
    """The name of a listening socket as people write it."""
    if isinstance(name, tuple):
        host, port = name[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return str(name)


class XenApi:
    """Made in the daemon's event loop; steps call `attach` and what follows it from threads of their own."""

    def __init__(self, service: Service, host: HostState) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self.listeners: dict[str, str] = {}
        """Name of each that is open → its addresses."""
        self._service = service
        self._host = host
        self._authenticate = Authenticator()
        self.core = Core(
            authenticate=self._authenticate,
            pool_secrets=self._pool_secrets,
            blocked=self._blocked,
            emergency=lambda: service.lifecycle.state.phase is Phase.EMERGENCY,
            coordinator=self._coordinator,
        )
        self.dispatcher = Dispatcher(self.core, IMPLEMENTED)
        own = (
            *METHODS,
            *calls_db.calls(self.core),
            *calls_adopt.calls(self.core),
            *calls_net.calls(self.core),
            *calls_coverage.calls(self.dispatcher),
        )
        endpoint = Endpoint(self.dispatcher, methods.Dispatcher(own, service))
        self._cli = CliDoor(self.dispatcher)
        routes = (
            *rpc_routes(endpoint.json, endpoint.xml),
            *self._cli.routes(),
            *Handlers(self.dispatcher, self.core, service).routes(),
        )
        self.routes = Routes(routes)
        self._server = Server(self.routes)

    def serve_local(self, listener: socket.socket) -> None:
        """The Unix socket, which only root can open."""
        self._listen(LOCAL, [listener], "unix")

    def attach(self, database: Database, host_uuid: str) -> None:
        """Let calls use the database."""

        def attach() -> None:
            self.core.database = database
            self.core.host_uuid = host_uuid
            self.core.tasks = Tasks(database)

        self._in_loop(attach)

    def start_events(self) -> None:
        """Events of the attached database flow from now on. Raises CallError HOST_STILL_BOOTING without one."""

        def start() -> None:
            self.core.events = Events(self.core.db)

        self._in_loop(start)

    def call_internal(self, method: str, *params: object) -> object:
        """The result of a call that takes a session, made by our own code as root of the pool in a session of its own,
        whatever state the host is in. Before `attach` only calls of emergency mode work.

        Raises CallError; RuntimeError in the loop's thread, which would wait for itself.
        """
        if threading.get_ident() == self._thread:
            raise RuntimeError(f"{method}: the event loop cannot wait for itself")
        core, database = self.core, self.core.database
        session = core.sessions.log_in("root", Role.ROOT, pool=True, database=database, host=core.this_host())
        call = self.dispatcher.call(method, [session.ref, *params], Peer(trusted=True, internal=True))
        try:
            value = asyncio.run_coroutine_threadsafe(call, self._loop).result().value
        finally:
            core.sessions.end(session, database)
        return json.loads(value.text) if isinstance(value, Rendered) else value

    def listen_localhost(self, sockets: Iterable[socket.socket]) -> None:
        """Plain HTTP for programs on this host."""
        self._in_loop(lambda: self._listen(LOCALHOST, sockets, "localhost"))

    def listen_management(self, sockets: Iterable[socket.socket], context: ssl.SSLContext) -> None:
        """HTTPS for everybody else, there alone: answers under way on former sockets come to their end."""

        def listen() -> None:
            self._leave(MANAGEMENT)
            self._listen(MANAGEMENT, sockets, "tls", tls=context)

        self._in_loop(listen)

    def leave_management(self) -> None:
        """No more HTTPS for others; none before is no error."""
        self._in_loop(lambda: self._leave(MANAGEMENT))

    def serving(self) -> dict[str, object]:
        """What `hostagent status` tells of the API: each listener's addresses, the database's path and generation."""
        database = self.core.database
        return {
            "listeners": dict(self.listeners),
            "database": None
            if database is None
            else {"path": str(database.path), "generation": database.generation},
        }

    async def stop(self) -> None:
        """Accept no more, end what is under way."""
        await self._server.stop_all()
        self._cli.close()
        self._authenticate.close()
        await self.dispatcher.stop()

    def _listen(
        self,
        name: str,
        sockets: Iterable[socket.socket],
        kind: PeerKind,
        *,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        opened = tuple(sockets)
        self._server.start(name, opened, kind, tls=tls)
        self.listeners[name] = ", ".join(address_text(one.getsockname()) for one in opened)

    def _leave(self, name: str) -> None:
        if self.listeners.pop(name, None) is not None:
            self._server.retire(name)

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
