"""The API as the daemon serves it, over a small database and a Unix socket in the temporary directory."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

from hostagent.api import calls_coverage, calls_db, methods, roles
from hostagent.api.calls import METHODS
from hostagent.api.cli_door import CliDoor
from hostagent.api.core import Core
from hostagent.api.dispatch import Dispatcher
from hostagent.api.endpoint import Endpoint
from hostagent.api.events import Events
from hostagent.api.handlers import Handlers
from hostagent.api.local_socket import listening_socket, socket_path
from hostagent.api.roles import Role
from hostagent.api.routes import Routes, rpc_routes
from hostagent.api.server import Server
from hostagent.api.service import Service
from hostagent.api.tasks import Tasks
from hostagent.api.xenapi_calls import IMPLEMENTED
from hostagent.db.database import open_database
from hostagent.lifecycle import Lifecycle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path
    from typing import Any

    from hostagent.config import Paths

SECRET = "aa/bb/cc"
USERS = {"root": ("letmein", Role.POOL_ADMIN), "eve": ("look", Role.READ_ONLY)}


async def authenticate(user, password):
    known = USERS.get(user)
    return known[1] if known and known[0] == password else None


class Daemon:
    """What the daemon has; `kind` makes the socket's clients ones of another listener."""

    def __init__(self, paths: Paths, *, with_database: bool = True) -> None:
        self.paths = paths
        self.restarts: list[str] = []
        self.lifecycle = Lifecycle()
        self.service = Service(paths, self.lifecycle, 0.0, lambda _: None, self.restarts.append)
        self.core = Core(
            authenticate,
            lambda: [SECRET],
            host_uuid="host-uuid",
            blocked=lambda: self.blocked,
            emergency=lambda: self.blocked is not None,
        )
        self.blocked = None
        if with_database:
            self.lifecycle.became_ready()
            self.core.database = db = open_database(paths.database, paths.volatile_database)
            with db.write() as w:
                roles.write_records(w)
                if not w.refs("host"):
                    self.host = w.create(
                        "host", {"metrics": w.create("host_metrics", {}), "uuid": "host-uuid"}
                    )
                    w.create("pool", {"master": self.host, "name_label": "here"})
            self.core.tasks, self.core.events = Tasks(db), Events(db)
        self.dispatcher = Dispatcher(self.core, IMPLEMENTED)
        own = (*METHODS, *calls_db.calls(self.core), *calls_coverage.calls(self.dispatcher))
        endpoint = Endpoint(self.dispatcher, methods.Dispatcher(own, self.service))
        handlers = Handlers(self.dispatcher, self.core, self.service).routes()
        self.door = CliDoor(self.dispatcher)
        doors = (*rpc_routes(endpoint.json, endpoint.xml), *self.door.routes())
        self.server = Server(Routes((*doors, *handlers)))

    @property
    def socket(self) -> Path:
        return socket_path(self.paths)


@contextlib.asynccontextmanager
async def serving(paths: Paths, kind: Any = "unix", **values: Any) -> AsyncIterator[Daemon]:
    daemon = Daemon(paths, **values)
    with listening_socket(daemon.socket) as listener:
        daemon.server.start("local", [listener], kind)
        try:
            yield daemon
        finally:
            await daemon.server.stop_all()
            daemon.door.close()
            await daemon.dispatcher.stop()
            if daemon.core.database is not None:
                daemon.core.database.close()


def serve(paths: Paths, work: Callable[[Daemon], Any], **values: Any) -> Any:
    """Run `work` in a thread against the daemon, and return what it returns."""

    async def run() -> Any:
        async with serving(paths, **values) as daemon:
            return await asyncio.to_thread(work, daemon)

    return asyncio.run(run())


def talk(path: Path, sent: bytes) -> bytes:
    """What the server says until it closes."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(str(path))
        connection.sendall(sent)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while part := connection.recv(65536):
                received += part
        return received
