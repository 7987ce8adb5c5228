"""What an HTTP handler gets and gives, and how a request's path and query become text.

Nothing here knows the server library: a handler is a coroutine from `Request` to `Response`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import unquote_to_bytes

RPC_BODY_LIMIT_BYTES = 10 << 20
"""For one call. xapi stops at 300 KiB, and clients have hit that (xenapi.md 1.1 and trap 17)."""
HEAD_LIMIT_BYTES = 16 << 10

PeerKind = Literal["unix", "localhost", "tls"]

ABSOLUTE = re.compile(rb"https?://[^/]+(/.*)?", re.IGNORECASE | re.DOTALL)
BAD_ESCAPE = re.compile(rb"%(?![0-9a-f]{2})|%2f", re.IGNORECASE)
CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class RefusedError(Exception):
    """A request that is answered with an HTTP error status and one line of text; handlers raise it as well."""

    def __init__(self, status: int, why: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(why)
        self.status = status
        self.why = why
        self.headers = headers or {}


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end. `kind` is the listener's; `address` is the IP address, or `pid N` on the Unix
    socket, where the kernel also names the `uid`.
    """

    kind: PeerKind
    address: str
    uid: int | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """A whole request. `path` is decoded and has no dot segments; of a query name given twice the first value
    counts. Header names are lower case; values of a header sent twice are joined as RFC 9110 5.3 has it.
    """

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    peer: Peer


@dataclass(frozen=True, slots=True)
class Response:
    """An answer. A `body` that is an iterator is sent in chunks as they come; names of headers in lower case.
    `cache-control: no-cache, no-store` is added unless given, `content-length` always where it is known.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | AsyncIterator[bytes] = b""


Handler = Callable[[Request], Awaitable[Response]]
"""Runs on the event loop; cancelled when its client goes away. May raise RefusedError."""
RawHandler = Callable[[Request, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""Gets the connection itself once the request body was read; what it writes is all that the client sees. The
connection is closed when it returns, and it is cancelled when the connection breaks. A client that only shuts
down its sending side shows as end of file. It drains after writing: unread bytes have a deadline.
"""


@dataclass(frozen=True, slots=True)
class Route:
    """Requests of a method whose path is `prefix` or, with `below`, lies below it. `cross_origin`: a browser may
    read the answer whatever page asked (xenapi.md 1.1, CORS).
    """

    method: str
    prefix: str
    handler: Handler
    body_limit: int = 0
    cross_origin: bool = False
    below: bool = True


@dataclass(frozen=True, slots=True)
class RawRoute:
    """As Route, for a handler that talks to the connection itself."""

    method: str
    prefix: str
    handler: RawHandler
    body_limit: int = 0
    cross_origin: bool = False
    below: bool = True


AnyRoute = Route | RawRoute


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a client may take, in seconds. xapi gives a head 10 s per read (xenapi.md 1.1)."""

    handshake_s: float = 10.0
    head_s: float = 10.0
    """For a request head, from its connection or its first byte on."""
    body_pause_s: float = 10.0
    """Between two parts of a body."""
    body_s: float = 60.0
    """For a whole body."""
    unread_s: float = 10.0
    """For a client to take 64 KiB more of a reply that waits for it, or what is left."""
    eof_s: float = 1.0
    """For an answer to a client that has shut down its sending side: nearly always it is gone altogether."""
    keep_alive_s: float = 75.0
    """Between two requests: longer than clients keep an idle connection, so that it is they who close it."""
    stop_s: float = 3.0
    """For answers under way when a listener is stopped."""


def path_of(target: bytes) -> str:
    """The path of a request target without its query, decoded once.

    Raises RefusedError (400): not UTF-8, a broken escape, an encoded slash, a control character, a dot segment.
    """
    if not target.startswith(b"/"):
        absolute = ABSOLUTE.fullmatch(target)
        if absolute is None:
            raise RefusedError(400, "the target of a request is a path that starts with /")
        target = absolute[1] or b"/"
    if BAD_ESCAPE.search(target):
        raise RefusedError(400, "the path has a broken escape or an encoded slash")
    path = _text(target, "the path")
    if CONTROL.search(path):
        raise RefusedError(400, "the path has a control character")
    if not {".", ".."}.isdisjoint(path.split("/")):
        raise RefusedError(400, "the path has a dot segment")
    return path


def query_of(query: bytes) -> dict[str, str]:
    """Names and values of a query string (application/x-www-form-urlencoded); a name without `=` has the value "".

    Raises RefusedError (400): not UTF-8, or a NUL character.
    """
    found: dict[str, str] = {}
    for pair in query.split(b"&"):
        if pair:
            name, _, value = pair.replace(b"+", b" ").partition(b"=")
            found.setdefault(_text(name, "the query"), _text(value, "the query"))
    return found


def _text(escaped: bytes, where: str) -> str:
    try:
        text = unquote_to_bytes(escaped).decode()
    except UnicodeDecodeError as error:
        raise RefusedError(400, f"{where} is not UTF-8") from error
    if "\0" in text:
        raise RefusedError(400, f"{where} has a NUL character")
    return text
