"""A server that echoes, on a Unix socket in the temporary directory, and clients of it."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
from typing import TYPE_CHECKING, TypeVar

from hostagent.api.http import Limits, Request, Response, Route
from hostagent.api.local_socket import listening_socket
from hostagent.api.routes import Routes, rpc_routes
from hostagent.api.server import Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from hostagent.api.http import AnyRoute


T = TypeVar("T")

REQUEST = b"POST /jsonrpc HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
CHUNKED = b"POST /jsonrpc HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
QUICK_HEAD = Limits(head_s=0.05)


async def echo(request: Request) -> Response:
    return Response(200, {"content-type": "application/json"}, request.path.encode() + request.body)


@contextlib.asynccontextmanager
async def serving(
    path: Path, *routes: AnyRoute, limits: Limits | None = None, connection_limit: int | None = None
) -> AsyncIterator[Server]:
    """A server on `path` with these routes, and with doors that echo the body where they have none."""
    server = Server(Routes([*routes, *rpc_routes(echo, echo)]), limits)
    with listening_socket(path) as listener:
        server.start("local", [listener], "unix", connection_limit=connection_limit)
        try:
            yield server
        finally:
            await server.stop_all()


def serve(path: Path, work: Callable[[], T], *routes: AnyRoute, **values) -> T:
    """Run `work` in a thread against a server, and return what it returns."""

    async def run() -> T:
        async with serving(path, *routes, **values):
            return await asyncio.to_thread(work)

    return asyncio.run(run())


@contextlib.contextmanager
def caller(path: Path):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(str(path))
        yield connection


def rest(connection: socket.socket) -> bytes:
    """What the server says until it closes."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            received += part
    return received


def talk(path: Path, *sent: bytes, eof: bool = False) -> bytes:
    with caller(path) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for part in sent:
                connection.sendall(part)
            if eof:
                connection.shutdown(socket.SHUT_WR)
        return rest(connection)


class Client(http.client.HTTPConnection):
    """Python's own HTTP client, over the Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=20)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(str(self._path))

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, bytes]:
        self.request(method, path, body, headers)  # type: ignore[arg-type]
        response = self.getresponse()
        return response.status, response.read()


def ask(path: Path, method: str, target: str, body: object = None) -> tuple[int, bytes]:
    with contextlib.closing(Client(path)) as client:
        return client.ask(method, target, body)


class Poll:
    """A handler that waits; tells that it began, and how it ended."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.ended = asyncio.Event()
        self.release = asyncio.Event()
        self.waiting = 0
        self.cancelled = 0

    async def __call__(self, _request: Request) -> Response:
        self.waiting += 1
        self.began.set()
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.waiting -= 1
            self.ended.set()
        return Response(body=b"events")

    @property
    def route(self) -> Route:
        return Route("GET", "/poll", self)


POLL = b"GET /poll HTTP/1.1\r\nHost: x\r\n\r\n"
