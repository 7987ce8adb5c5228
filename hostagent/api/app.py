"""The ASGI application: one route, `POST /jsonrpc`, within limits of size and time.

A request that never becomes JSON-RPC gets an HTTP status that says why, as one line of text; everything
else is answered with 200 and a JSON-RPC reply (204 when no reply is wanted).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

PATH = "/jsonrpc"
BODY_LIMIT_BYTES = 1 << 20
BODY_DEADLINE_S = 10.0
"""From the end of the request head to the end of the body; xapi waits 10 s per read (xenapi.md 1.1)."""

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Answer = Callable[[bytes], Awaitable[bytes | None]]


class RefusedError(Exception):
    """A request that is answered with an HTTP status other than 200."""

    def __init__(self, status: int, why: str, *, allow: bytes | None = None) -> None:
        super().__init__(why)
        self.status = status
        self.why = why
        self.allow = allow


class ClientGoneError(Exception):
    """The client closed its side; nobody reads an answer."""


def make_app(answer: Answer, *, body_deadline_s: float = BODY_DEADLINE_S) -> App:
    """The application that hands each body to `answer` and sends back what it returns."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            _check_head(scope)
            body = await asyncio.wait_for(_read_body(receive), body_deadline_s)
        except RefusedError as refused:
            await _refuse(send, refused)
        except TimeoutError:
            await _refuse(send, RefusedError(408, f"the body did not arrive within {body_deadline_s:g} s"))
        except ClientGoneError:
            return
        else:
            reply = await answer(body)
            if reply is None:
                await _send(send, 204, b"", ())
            else:
                # exactly this type: with a charset xen-api falls back to XML-RPC (xenapi.md 1.3)
                await _send(send, 200, reply, ((b"content-type", b"application/json"),))

    return app


def _check_head(scope: Scope) -> None:
    if scope["path"] != PATH:
        raise RefusedError(404, f"nothing is here: calls go to POST {PATH}")
    if scope["method"] != "POST":
        raise RefusedError(405, f"calls go to POST {PATH}", allow=b"POST")
    headers = dict(scope["headers"])
    content_type = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
    if content_type != b"application/json":
        raise RefusedError(415, "the content-type must be application/json")
    length = headers.get(b"content-length", b"0")
    if length.isdigit() and int(length[:20]) > BODY_LIMIT_BYTES:
        raise RefusedError(413, f"a body is at most {BODY_LIMIT_BYTES} bytes")


async def _read_body(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        body += message.get("body", b"")
        if len(body) > BODY_LIMIT_BYTES:
            raise RefusedError(413, f"a body is at most {BODY_LIMIT_BYTES} bytes")
        if not message.get("more_body", False):
            return bytes(body)


async def _refuse(send: Send, refused: RefusedError) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    if refused.allow:
        headers.append((b"allow", refused.allow))
    await _send(send, refused.status, f"{refused.why}\n".encode(), tuple(headers))


async def _send(send: Send, status: int, body: bytes, headers: tuple[tuple[bytes, bytes], ...]) -> None:
    length = () if status == 204 else ((b"content-length", b"%d" % len(body)),)
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [*headers, *length, (b"cache-control", b"no-cache, no-store")],
        }
    )
    await send({"type": "http.response.body", "body": body})
