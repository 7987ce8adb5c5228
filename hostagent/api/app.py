"""The ASGI application: from a request head to a route, the body within its limits, the answer.

A request that reaches no handler gets an HTTP status that says why, as one line of text.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from hostagent.api.http import (
    HEAD_LIMIT_BYTES,
    AnyRoute,
    Limits,
    Peer,
    RawRoute,
    RefusedError,
    Request,
    Response,
    path_of,
    query_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hostagent.api.routes import Routes

SMALL_BODY_BYTES = 64 << 10
"""Bodies up to this size are taken always; what is more shares one allowance per listener."""
LARGE_BODIES_BYTES = 64 << 20
"""Of request bodies in memory at once, per listener: hundreds of unknown clients may connect."""
LINGER_S = 1.0
"""How long the rest of a refused request is read."""
PIECE_BYTES = 64 << 10
"""A longer reply is written in pieces, each when the client has taken the one before: a deadline holds for each, and
no close overtakes them. (asyncio's TLS transport lets one write of any size pass, and cuts a close that takes long.)
"""

CROSS_ORIGIN = (b"access-control-allow-origin", b"*")
NO_CACHE = (b"cache-control", b"no-cache, no-store")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Pairs = tuple[tuple[bytes, bytes], ...]


class Allowance:
    """Bytes that a listener's clients share."""

    def __init__(self, left: int = LARGE_BODIES_BYTES) -> None:
        self.left = left


class Link(Protocol):
    """The connection of a request, as the application uses it; `scope["state"]["link"]` (protocol.py)."""

    peer: Peer
    allowance: Allowance
    gone: bool

    def begin(self, work: asyncio.Task[Any] | None) -> None:
        """Cancel this task if the connection is lost before `end`."""

    def end(self, work: asyncio.Task[Any] | None) -> None: ...

    def expect_raw(self) -> None:
        """Call before the first await: bytes after the body are not HTTP."""

    def hand_over(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """The connection itself; HTTP on it is over."""


class ClientGoneError(Exception):
    """The client closed its side; nobody reads an answer."""


def make_app(routes: Routes, limits: Limits) -> App:
    """The application that serves a routing table."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        link: Link = scope["state"]["link"]
        work = asyncio.current_task()
        link.begin(work)
        held = _Held(link.allowance)
        try:
            await _serve(routes, limits, link, held, scope, receive, send)
        except asyncio.CancelledError:
            if not link.gone:
                raise
        finally:
            held.give_back()
            link.end(work)

    return app


async def _serve(
    routes: Routes, limits: Limits, link: Link, held: _Held, scope: Scope, receive: Receive, send: Send
) -> None:
    shared: Pairs = ()
    body_read = refused_early = False
    try:
        path, query = path_of(scope["raw_path"]), query_of(scope["query_string"])
        route = routes.find(scope["method"], path)
        shared = (CROSS_ORIGIN,) if route.cross_origin else ()
        _check_head(scope, route)
        if isinstance(route, RawRoute):
            link.expect_raw()
        body = await _read_body(receive, route.body_limit, limits, held)
        body_read = True
        request = Request(scope["method"], path, query, _headers(scope), body, link.peer)
        if isinstance(route, RawRoute):
            reader, writer = link.hand_over()
            try:
                await route.handler(request, reader, writer)
            finally:
                writer.close()
            return
        response = await route.handler(request)
    except RefusedError as refused:
        response = _refusal(refused, keep=body_read)
        refused_early = not body_read
    except ClientGoneError:
        return
    rest = partial(_skip_body, scope, receive, limits, held) if refused_early else None
    await _respond(send, response, shared, rest)


def _check_head(scope: Scope, route: AnyRoute) -> None:
    if not scope["http_version"].startswith("1."):
        raise RefusedError(505, "this server speaks HTTP/1.0 and HTTP/1.1")
    size = len(scope["raw_path"]) + len(scope["query_string"])
    size += sum(len(name) + len(value) + 4 for name, value in scope["headers"])
    if size > HEAD_LIMIT_BYTES:
        raise RefusedError(431, f"a request head is at most {HEAD_LIMIT_BYTES} bytes")
    length: bytes = dict(scope["headers"]).get(b"content-length", b"0")
    if length.isdigit() and int(length[:20]) > route.body_limit:
        raise _too_long(route.body_limit)


def _too_long(limit: int) -> RefusedError:
    return RefusedError(413, f"a body here is at most {limit} bytes")


class _Held:
    """What one request has taken of its listener's allowance."""

    def __init__(self, allowance: Allowance) -> None:
        self._allowance = allowance
        self._taken = 0

    def take_for(self, size: int) -> None:
        """For a body that is `size` bytes so far. Raises RefusedError (503) when others hold too much."""
        more = size - SMALL_BODY_BYTES - self._taken
        if more <= 0:
            return
        if more > self._allowance.left:
            raise RefusedError(503, "too many large requests at once; try again", {"retry-after": "5"})
        self._allowance.left -= more
        self._taken += more

    def give_back(self) -> None:
        self._allowance.left += self._taken
        self._taken = 0


async def _read_body(receive: Receive, limit: int, limits: Limits, held: _Held) -> bytes:
    clock = asyncio.get_running_loop().time
    end = clock() + limits.body_s
    body = bytearray()
    try:
        async with asyncio.timeout(limits.body_pause_s) as patience:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGoneError
                body += message.get("body", b"")
                if len(body) > limit:
                    raise _too_long(limit)
                held.take_for(len(body))
                if not message.get("more_body", False):
                    return bytes(body)
                patience.reschedule(min(clock() + limits.body_pause_s, end))
    except TimeoutError as error:
        raise RefusedError(408, "the body did not arrive in time") from error


async def _skip_body(scope: Scope, receive: Receive, limits: Limits, held: _Held) -> None:
    """Read a small body that nobody wants: its sender would otherwise meet a closed connection before the answer."""
    if b"expect" in dict(scope["headers"]):
        return
    soon = replace(limits, body_s=LINGER_S, body_pause_s=LINGER_S)
    with contextlib.suppress(RefusedError, ClientGoneError):
        await _read_body(receive, SMALL_BODY_BYTES, soon, held)


def _headers(scope: Scope) -> dict[str, str]:
    found: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        if name in found:
            found[name] += f"{'; ' if name == 'cookie' else ', '}{value}"
        else:
            found[name] = value
    return found


def _refusal(refused: RefusedError, *, keep: bool) -> Response:
    """`keep`: the connection can carry another request, for this one's body was read."""
    headers = {"content-type": "text/plain; charset=utf-8", **refused.headers}
    if not keep:
        headers["connection"] = "close"
    return Response(refused.status, headers, f"{refused.why}\n".encode(errors="replace"))


async def _respond(
    send: Send, response: Response, shared: Pairs, before_end: Callable[[], Awaitable[None]] | None = None
) -> None:
    """`before_end` is awaited when the client can read the whole of a short answer, before the connection is closed."""
    body = response.body
    headers = [*shared, *_encoded(response.headers)]
    if "cache-control" not in response.headers:
        headers.append(NO_CACHE)
    if isinstance(body, bytes) and response.status != 204:
        headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    if isinstance(body, bytes):
        at = 0
        while len(body) - at > PIECE_BYTES:
            await send({"type": "http.response.body", "body": body[at : at + PIECE_BYTES], "more_body": True})
            at += PIECE_BYTES
        if before_end is not None:
            await send({"type": "http.response.body", "body": body[at:], "more_body": True})
            await before_end()
            at = len(body)
        await send({"type": "http.response.body", "body": body[at:]})
        return
    try:
        async for chunk in body:
            for at in range(0, len(chunk), PIECE_BYTES):
                piece = chunk[at : at + PIECE_BYTES]
                await send({"type": "http.response.body", "body": piece, "more_body": True})
    finally:
        if isinstance(body, AsyncGenerator):
            await body.aclose()
    await send({"type": "http.response.body", "body": b""})


def _encoded(headers: Mapping[str, str]) -> Pairs:
    return tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items())
