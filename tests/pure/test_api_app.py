"""The ASGI application called in-process: which HTTP answer each request gets."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.api.app import BODY_LIMIT_BYTES, make_app


@dataclass
class Exchange:
    """One request and what came back. `chunks` are body messages; None is a client that sends no more."""

    method: str = "POST"
    path: str = "/jsonrpc"
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    chunks: tuple[bytes | None, ...] = (b"{}",)
    answered: list[bytes] = field(default_factory=list)
    sent: list[dict[str, Any]] = field(default_factory=list)
    reply: bytes | None = b'{"ok":1}'

    def run(self) -> Exchange:
        headers = {"content-type": self.content_type, **self.headers}
        scope = {
            "type": "http",
            "method": self.method,
            "path": self.path,
            "headers": [(name.encode(), value.encode()) for name, value in headers.items() if value],
        }
        waiting = list(self.chunks)

        async def receive() -> dict[str, object]:
            if not waiting:
                return {"type": "http.disconnect"}
            chunk = waiting.pop(0)
            if chunk is None:
                await asyncio.Event().wait()
            return {"type": "http.request", "body": chunk, "more_body": bool(waiting)}

        async def send(message) -> None:
            self.sent.append(dict(message))

        async def answer(body: bytes) -> bytes | None:
            self.answered.append(body)
            return self.reply

        async def exchange() -> None:
            await make_app(answer, body_deadline_s=0.01)(scope, receive, send)

        asyncio.run(exchange())
        return self

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def reply_headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])

    @property
    def body(self) -> bytes:
        return bytes(self.sent[1]["body"])


def test_a_reply_is_exactly_application_json():
    exchange = Exchange(chunks=(b'{"a"', b":1}")).run()

    assert exchange.answered == [b'{"a":1}']
    assert (exchange.status, exchange.body) == (200, b'{"ok":1}')
    assert exchange.reply_headers[b"content-type"] == b"application/json"
    assert exchange.reply_headers[b"content-length"] == b"8"


def test_a_request_may_name_its_charset():
    assert Exchange(content_type="Application/JSON; charset=utf-8").run().status == 200


def test_no_reply_wanted_is_no_content():
    exchange = Exchange(reply=None).run()

    assert (exchange.status, exchange.body) == (204, b"")


@pytest.mark.parametrize("path", ["/", "/jsonrpc/", "/RPC2", "/jsonrpc2", ""])
def test_another_path_is_not_found_and_named_in_the_text(path):
    exchange = Exchange(path=path).run()

    assert exchange.status == 404
    assert b"POST /jsonrpc" in exchange.body
    assert exchange.reply_headers[b"connection"] == b"close"


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "post"])
def test_another_method_is_not_allowed_and_post_is_offered(method):
    exchange = Exchange(method=method).run()

    assert exchange.status == 405
    assert exchange.reply_headers[b"allow"] == b"POST"


@pytest.mark.parametrize("content_type", ["", "text/xml", "application/x-www-form-urlencoded", "json"])
def test_another_content_type_is_unsupported(content_type):
    exchange = Exchange(content_type=content_type).run()

    assert (exchange.status, exchange.answered) == (415, [])


@pytest.mark.parametrize("length", [str(BODY_LIMIT_BYTES + 1), "9" * 5000])
def test_an_announced_body_over_the_limit_is_refused_unread(length):
    exchange = Exchange(headers={"content-length": length}, chunks=(None,)).run()

    assert exchange.status == 413


def test_a_body_that_grows_over_the_limit_is_refused():
    half = b"x" * (BODY_LIMIT_BYTES // 2 + 1)

    exchange = Exchange(chunks=(half, half, b"rest")).run()

    assert (exchange.status, exchange.answered) == (413, [])


def test_a_body_at_the_limit_is_taken():
    assert Exchange(chunks=(b"x" * BODY_LIMIT_BYTES,)).run().status == 200


def test_a_sender_that_stops_in_the_middle_is_cut_at_the_deadline():
    exchange = Exchange(chunks=(b"{", None)).run()

    assert (exchange.status, exchange.answered) == (408, [])


def test_a_client_that_left_gets_nothing():
    exchange = Exchange(chunks=()).run()

    assert (exchange.sent, exchange.answered) == ([], [])


def test_other_protocols_are_left_alone():
    async def never(*_: object) -> None:
        raise AssertionError

    async def exchange() -> None:
        await make_app(never)({"type": "websocket"}, never, never)  # type: ignore[arg-type]

    asyncio.run(exchange())


@given(st.text(max_size=20), st.text(max_size=20), st.lists(st.binary(max_size=20), max_size=3))
def test_any_request_gets_one_whole_response_or_none(method, path, chunks):
    sent = Exchange(method=method, path=path, chunks=tuple(chunks)).run().sent

    assert [message["type"] for message in sent] in ([], ["http.response.start", "http.response.body"])
