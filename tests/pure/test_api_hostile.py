"""What is no request, bodies beyond bounds, slow and half-open clients: over real sockets."""

from __future__ import annotations

import asyncio
import select
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostagent.api.http import HEAD_LIMIT_BYTES, Limits, Request, Response, Route
from hostagent.api.protocol import CHUNKS_FREE, Connection
from tests.pure.http_server import (
    CHUNKED,
    POLL,
    QUICK_HEAD,
    REQUEST,
    Poll,
    ask,
    caller,
    echo,
    rest,
    serve,
    serving,
    talk,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


# --- what is no request ---


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (b"/../etc/shadow", 400),
        (b"/a/%2e%2e/b", 400),
        (b"/a%2fb", 400),
        (b"/a%00", 400),
        (b"/%ff", 400),
        (b"/x?a=%ff", 400),
        (b"*", 400),
        (b"/nothing", 404),
        (b"/jsonrpc", 405),
        (b"http://x/", 200),
    ],
)
def test_tricks_with_paths_get_a_clean_answer(path, target, status):
    request = b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % target

    received = serve(path, lambda: talk(path, request))

    assert received.startswith(b"HTTP/1.1 %d " % status)
    assert b"cache-control: no-cache, no-store" in received


@pytest.mark.parametrize(
    "garbage",
    [b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"\x00" * 100, b"GET /\xff HTTP/1.1\r\n\r\n"],
)
def test_garbage_is_answered_400_or_cut(path, garbage):
    received = serve(path, lambda: talk(path, garbage), limits=QUICK_HEAD)

    assert received == b"" or received.startswith(b"HTTP/1.1 400 Bad Request\r\n")


def test_another_version_of_http_is_told(path):
    received = serve(path, lambda: talk(path, b"GET / HTTP/2.0\r\nHost: x\r\n\r\n"))

    assert received.startswith(b"HTTP/1.1 505 ")


@pytest.mark.parametrize(
    "head",
    [
        b"POST /jsonrpc HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 2 * HEAD_LIMIT_BYTES,
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 2 * HEAD_LIMIT_BYTES + b"\r\n\r\n",
    ],
)
def test_a_head_over_the_limit_is_answered_431(path, head):
    received = serve(path, lambda: talk(path, head))

    assert received.startswith(b"HTTP/1.1 431 ")


def test_garbage_during_an_answer_breaks_it_off_without_a_traceback(path, caplog):
    async def run() -> bytes:
        poll = Poll()
        async with serving(path, poll.route):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(b"GET /poll HTTP/1.0\r\n\r\n")
            await poll.began.wait()
            writer.write(b"garbage")
            received = await reader.read()
            await poll.ended.wait()
            writer.close()
            assert poll.cancelled == 1
            return received

    assert asyncio.run(run()).startswith(b"HTTP/1.1 400 ")
    assert "Traceback" not in caplog.text


@settings(max_examples=60)
@given(
    st.lists(
        st.sampled_from([REQUEST, CHUNKED, b"2\r\n{}\r\n", b"0\r\n\r\n", b"\r\n", b"GET ", b"/ HTTP/1.1\r\n"])
        | st.binary(max_size=20),
        max_size=6,
    )
)
def test_whatever_a_client_sends_it_gets_http_and_the_server_goes_on(tmp_path_factory, parts):
    path = tmp_path_factory.mktemp("socket") / "s"

    def work() -> tuple[bytes, tuple[int, bytes]]:
        received = talk(path, *parts, eof=True)
        return received, ask(path, "POST", "/", b"1")

    received, after = serve(path, work)

    assert received == b"" or received.startswith(b"HTTP/1.1 ")
    assert after == (200, b"/1")


# --- bodies ---


def test_a_chunked_body_is_taken(path):
    def work() -> tuple[int, bytes]:
        return ask(path, "POST", "/x", iter([b"ab", b"c" * 70000, b"d"]))

    assert serve(path, work) == (200, b"/xab" + b"c" * 70000 + b"d")


def test_a_chunked_body_over_the_limit_is_refused(path):
    route = Route("POST", "/small", echo, body_limit=10)

    received = serve(
        path, lambda: talk(path, CHUNKED.replace(b"/jsonrpc", b"/small"), b"b\r\n" + b"x" * 11), route
    )

    assert received.startswith(b"HTTP/1.1 413 ")


def test_an_announced_body_over_the_limit_is_refused_and_the_connection_closed(path):
    request = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n"

    received = serve(path, lambda: talk(path, request))

    assert received.startswith(b"HTTP/1.1 413 ")
    assert b"access-control-allow-origin: *" in received


def test_a_body_in_crumbs_is_refused(path):
    crumbs = CHUNKED + b"1\r\nx\r\n" * (CHUNKS_FREE + 10)

    received = serve(path, lambda: talk(path, crumbs))

    assert received.startswith(b"HTTP/1.1 400 ")
    assert b"too small" in received


def test_crumbs_are_counted_for_each_request(path):
    some = CHUNKED + b"1\r\nx\r\n" * (CHUNKS_FREE - 10) + b"0\r\n\r\n"

    received = serve(path, lambda: talk(path, some + some, eof=True))

    assert received.count(b"HTTP/1.1 200 ") == 2


# --- slow and half-open clients ---


def test_a_connection_that_never_speaks_is_cut(path):
    assert serve(path, lambda: talk(path), limits=QUICK_HEAD) == b""


def test_a_head_that_never_ends_is_cut(path):
    assert serve(path, lambda: talk(path, REQUEST[:30]), limits=QUICK_HEAD) == b""


@pytest.mark.parametrize("together", [True, False])
def test_a_second_head_has_the_same_deadline(path, together):
    def work() -> bytes:
        with caller(path) as connection:
            connection.sendall(REQUEST + REQUEST[:20] * together)
            while not connection.recv(65536).endswith(b"{}"):
                pass
            if not together:
                connection.sendall(REQUEST[:20])
            return rest(connection)

    assert serve(path, work, limits=QUICK_HEAD) == b""


def test_a_slow_head_does_not_get_more_time_with_each_byte(path, monkeypatch):
    deadlines: list[asyncio.TimerHandle] = []
    original = asyncio.SelectorEventLoop.call_later

    def note(loop, delay, callback, *args, **values):
        timer = original(loop, delay, callback, *args, **values)
        if delay == Limits().head_s:
            deadlines.append(timer)
        return timer

    monkeypatch.setattr(asyncio.SelectorEventLoop, "call_later", note)

    async def run() -> None:
        async with serving(path):
            reader, writer = await asyncio.open_unix_connection(path)
            for byte in REQUEST:
                writer.write(bytes([byte]))
                await asyncio.sleep(0)
            await reader.readuntil(b"{}")
            assert [timer.cancelled() for timer in deadlines] == [True]
            writer.close()

    asyncio.run(run())


def test_a_body_that_never_ends_is_answered_408(path):
    received = serve(path, lambda: talk(path, REQUEST[:-1]), limits=Limits(body_pause_s=0.05))

    assert received.startswith(b"HTTP/1.1 408 ")


def test_a_client_that_does_not_read_its_reply_is_cut(path, monkeypatch):
    whys: list[str] = []
    original = Connection._cut

    def note(connection: Connection, why: str) -> None:
        whys.append(why)
        original(connection, why)

    async def long(_request: Request) -> Response:
        return Response(body=b"x" * (8 << 20))

    def work() -> None:
        with caller(path) as connection:
            connection.sendall(b"GET /long HTTP/1.0\r\n\r\n")
            waiting = select.poll()
            waiting.register(connection, select.POLLHUP)
            assert waiting.poll(20000)

    monkeypatch.setattr(Connection, "_cut", note)
    serve(path, work, Route("GET", "/long", long), limits=Limits(unread_s=0.05))

    assert whys == ["it does not read its reply"]


def test_a_client_that_shuts_down_its_sending_side_still_gets_its_answers(path):
    async def run() -> bytes:
        poll = Poll()
        async with serving(path, poll.route, limits=Limits(eof_s=3600)):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(POLL)
            await poll.began.wait()
            writer.write_eof()
            for _ in range(20):  # for the server to see the end
                await asyncio.sleep(0)
            poll.release.set()
            received = await asyncio.wait_for(reader.read(), 20)
            writer.close()
            return received

    assert asyncio.run(run()).endswith(b"\r\n\r\nevents")
    assert serve(path, lambda: talk(path, REQUEST, REQUEST, eof=True)).count(b"/jsonrpc{}") == 2


def test_half_a_request_and_an_end_is_no_request(path):
    assert serve(path, lambda: talk(path, REQUEST[:-1], eof=True)) == b""


@pytest.mark.parametrize("whole", [True, False])
def test_a_client_that_goes_away_cancels_its_handler(path, whole):
    async def run() -> tuple[int, int]:
        poll = Poll()
        async with serving(path, poll.route, limits=Limits(eof_s=0.01)) as server:
            _, writer = await asyncio.open_unix_connection(path)
            writer.write(POLL)
            await poll.began.wait()
            if whole:
                writer.close()
            else:
                writer.write_eof()
            await poll.ended.wait()
            writer.close()
            while server.connections("local"):
                await asyncio.sleep(0)
            return poll.cancelled, poll.waiting

    assert asyncio.run(run()) == (1, 0)


def test_a_client_that_goes_away_ends_the_stream_it_got(path):
    async def run() -> None:
        began, ended = asyncio.Event(), asyncio.Event()

        async def chunks() -> AsyncIterator[bytes]:
            try:
                yield b"one"
                began.set()
                await asyncio.Event().wait()
            finally:
                ended.set()

        async def stream(_request: Request) -> Response:
            return Response(body=chunks())

        async with serving(path, Route("GET", "/poll", stream), limits=Limits(eof_s=0.01)):
            _, writer = await asyncio.open_unix_connection(path)
            writer.write(POLL)
            await began.wait()
            writer.close()
            await ended.wait()

    asyncio.run(run())
