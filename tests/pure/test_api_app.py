"""The ASGI application called in-process: which HTTP answer each request gets."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.api.app import PIECE_BYTES, SMALL_BODY_BYTES, Allowance, make_app
from hostagent.api.http import Limits, Peer, RefusedError, Request, Response, Route
from hostagent.api.routes import Routes, rpc_routes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LIMIT = 1 << 20
PEER = Peer("unix", "pid 1", 0)
QUICK = Limits(body_pause_s=0.01, body_s=0.02)


class FakeLink:
    """A connection that is never lost."""

    gone = False

    def __init__(self, allowance: Allowance) -> None:
        self.peer = PEER
        self.allowance = allowance
        self.work: list[object] = []

    def begin(self, work: object) -> None:
        self.work.append(work)

    def end(self, work: object) -> None:
        self.work.remove(work)


@dataclass
class Exchange:
    """One request and what came back. `chunks` are body messages; None is a client that sends no more."""

    method: str = "POST"
    path: bytes = b"/jsonrpc"
    query: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ((b"content-type", b"application/json"),)
    chunks: tuple[bytes | None, ...] = (b"{}",)
    response: Response | RefusedError = field(default_factory=lambda: Response(body=b'{"ok":1}'))
    allowance: Allowance = field(default_factory=Allowance)
    limits: Limits = QUICK
    seen: list[Request] = field(default_factory=list)
    sent: list[dict[str, Any]] = field(default_factory=list)
    left: list[bytes | None] = field(default_factory=list)

    def run(self) -> Exchange:
        link = FakeLink(self.allowance)
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": self.method,
            "raw_path": self.path,
            "query_string": self.query,
            "headers": list(self.headers),
            "state": {"link": link},
        }
        waiting = self.left = list(self.chunks)

        async def receive() -> dict[str, object]:
            if not waiting:
                return {"type": "http.disconnect"}
            chunk = waiting.pop(0)
            if chunk is None:
                await asyncio.Event().wait()
            return {"type": "http.request", "body": chunk, "more_body": bool(waiting)}

        async def send(message) -> None:
            self.sent.append(dict(message))

        async def handle(request: Request) -> Response:
            self.seen.append(request)
            if isinstance(self.response, RefusedError):
                raise self.response
            return self.response

        table = [
            Route("POST", "/jsonrpc", handle, LIMIT, cross_origin=True),
            Route("PUT", "/small", handle, 5),
        ]
        routes = Routes([*table, *(route for route in rpc_routes(handle) if route.method != "POST")])

        asyncio.run(make_app(routes, self.limits)(scope, receive, send))  # type: ignore[arg-type]
        assert link.work == []
        return self

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def reply_headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.sent[1:])


def test_a_handler_gets_the_whole_request():
    headers = ((b"cookie", b"a=1"), (b"cookie", b"b=2"), (b"x", b"\xe9"), (b"x", b"y"))

    exchange = Exchange(query=b"a=1&b=%20", headers=headers, chunks=(b'{"a"', b":1}")).run()

    assert exchange.seen == [
        Request(
            "POST",
            "/jsonrpc",
            {"a": "1", "b": " "},
            {"cookie": "a=1; b=2", "x": "\xe9, y"},
            b'{"a":1}',
            PEER,
        )
    ]


def test_an_answer_has_its_length_and_is_not_cached():
    exchange = Exchange().run()

    assert (exchange.status, exchange.body) == (200, b'{"ok":1}')
    assert exchange.reply_headers == {
        b"content-length": b"8",
        b"cache-control": b"no-cache, no-store",
        b"access-control-allow-origin": b"*",
    }


def test_a_handler_may_say_how_long_its_answer_keeps():
    exchange = Exchange(response=Response(headers={"cache-control": "max-age=5"})).run()

    assert [value for name, value in exchange.sent[0]["headers"] if name == b"cache-control"] == [
        b"max-age=5"
    ]


def test_no_content_has_no_length():
    assert b"content-length" not in Exchange(response=Response(204)).run().reply_headers


def test_a_stream_is_sent_as_it_comes():
    async def chunks() -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two"

    exchange = Exchange(response=Response(body=chunks())).run()

    assert [message.get("body") for message in exchange.sent] == [None, b"one", b"two", b""]
    assert [message.get("more_body") for message in exchange.sent] == [None, True, True, None]
    assert b"content-length" not in exchange.reply_headers


@pytest.mark.parametrize("streamed", [False, True])
def test_a_long_answer_is_sent_in_pieces(streamed):
    body = bytes(range(256)) * 600

    async def chunks() -> AsyncIterator[bytes]:
        yield body

    sent = Exchange(response=Response(body=chunks() if streamed else body)).run().sent

    assert b"".join(message["body"] for message in sent[1:]) == body
    assert max(len(message["body"]) for message in sent[1:]) == PIECE_BYTES
    assert [message.get("more_body", False) for message in sent[1:]] == [True] * (len(sent) - 2) + [False]


def test_a_handler_refuses_and_the_connection_lives_on():
    refused = RefusedError(401, "log in first", {"www-authenticate": 'Basic realm="x"'})

    exchange = Exchange(response=refused).run()

    assert (exchange.status, exchange.body) == (401, b"log in first\n")
    assert exchange.reply_headers[b"www-authenticate"] == b'Basic realm="x"'
    assert b"connection" not in exchange.reply_headers


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", b"/nothing", 404), ("GET", b"/jsonrpc", 405), ("POST", b"/../x", 400), ("POST", b"/%ff", 400)],
)
def test_what_is_refused_before_its_body_closes_the_connection(method, path, status):
    exchange = Exchange(method=method, path=path, chunks=(None,)).run()

    assert (exchange.status, exchange.seen) == (status, [])
    assert exchange.reply_headers[b"connection"] == b"close"


def test_a_browser_is_told_that_it_may_call():
    exchange = Exchange(method="OPTIONS", headers=((b"origin", b"https://lite"),), chunks=(b"",)).run()

    assert exchange.status == 200
    assert exchange.reply_headers[b"access-control-allow-origin"] == b"*"
    assert b"POST" in exchange.reply_headers[b"access-control-allow-methods"]
    assert b"content-type" in exchange.reply_headers[b"access-control-allow-headers"]


def test_the_front_page_is_for_people():
    exchange = Exchange(method="GET", path=b"/", chunks=(b"",)).run()

    assert (exchange.status, exchange.reply_headers[b"content-type"]) == (200, b"text/html; charset=utf-8")
    assert b"access-control-allow-origin" not in exchange.reply_headers


@pytest.mark.parametrize("length", [str(LIMIT + 1), "9" * 5000])
def test_an_announced_body_over_the_limit_is_refused_unread(length):
    exchange = Exchange(headers=((b"content-length", length.encode()),), chunks=(None,)).run()

    assert exchange.status == 413
    assert exchange.reply_headers[b"access-control-allow-origin"] == b"*"


def test_a_body_that_grows_over_the_limit_is_refused():
    half = b"x" * (LIMIT // 2 + 1)

    exchange = Exchange(chunks=(half, half, b"rest")).run()

    assert (exchange.status, exchange.seen) == (413, [])


def test_a_body_at_the_limit_is_taken():
    assert Exchange(chunks=(b"x" * LIMIT,)).run().status == 200


@pytest.mark.parametrize(("body", "status"), [(b"12345", 200), (b"123456", 413)])
def test_each_route_has_its_own_limit(body, status):
    assert Exchange(method="PUT", path=b"/small", chunks=(body,)).run().status == status


def test_a_head_over_the_limit_is_refused():
    headers = tuple((b"x-%d" % number, b"y" * 1000) for number in range(17))

    assert Exchange(headers=headers).run().status == 431


def test_large_bodies_share_an_allowance_and_give_it_back():
    allowance = Allowance(1000)

    full = Exchange(allowance=allowance, chunks=(b"x" * SMALL_BODY_BYTES, b"x" * 1001)).run()
    fitting = Exchange(allowance=allowance, chunks=(b"x" * SMALL_BODY_BYTES, b"x" * 400, b"x" * 600)).run()

    assert (full.status, fitting.status, allowance.left) == (503, 200, 1000)


def test_small_bodies_are_taken_whatever_others_hold():
    assert Exchange(allowance=Allowance(0), chunks=(b"x" * SMALL_BODY_BYTES,)).run().status == 200


def test_a_sender_that_stops_in_the_middle_is_cut_at_the_deadline():
    exchange = Exchange(chunks=(b"{", None)).run()

    assert (exchange.status, exchange.seen) == (408, [])


def test_a_sender_that_only_trickles_is_cut_as_well():
    trickle = Limits(body_pause_s=3600, body_s=0)

    assert Exchange(limits=trickle, chunks=(b"{", None)).run().status == 408


def test_a_client_that_left_gets_nothing():
    exchange = Exchange(chunks=()).run()

    assert (exchange.sent, exchange.seen) == ([], [])


def test_other_protocols_are_left_alone():
    async def never(*_: object) -> None:
        raise AssertionError

    async def exchange() -> None:
        await make_app(Routes([]), QUICK)({"type": "websocket"}, never, never)  # type: ignore[arg-type]

    asyncio.run(exchange())


@given(
    st.text(max_size=20),
    st.binary(max_size=20),
    st.binary(max_size=20),
    st.lists(st.tuples(st.binary(max_size=9), st.binary(max_size=9)), max_size=3),
    st.lists(st.binary(max_size=20), max_size=3),
)
def test_any_request_gets_one_whole_response_or_none(method, path, query, headers, chunks):
    exchange = Exchange(
        method=method, path=path, query=query, headers=tuple(headers), chunks=tuple(chunks)
    ).run()

    if exchange.sent:
        start, *bodies = exchange.sent
        assert start["type"] == "http.response.start"
        assert [bool(body.get("more_body")) for body in bodies] == [*(True for _ in bodies[1:]), False]


def test_a_small_body_of_a_refused_request_is_read_once_it_is_answered():
    exchange = Exchange(method="DELETE", chunks=(b"a", b"b")).run()

    assert exchange.status == 405
    assert exchange.left == []


def test_who_asks_before_sending_is_not_made_to_send():
    exchange = Exchange(method="DELETE", headers=((b"expect", b"100-continue"),), chunks=(b"a", b"b")).run()

    assert exchange.status == 405
    assert exchange.left == [b"a", b"b"]
    assert exchange.allowance.left == Allowance().left
