"""The server over real sockets: requests on a connection, many at once, listeners that start and stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from typing import TYPE_CHECKING

import pytest

from hostagent.api.http import Limits, Request, Response, Route
from hostagent.api.local_socket import listening_socket
from tests.pure.http_server import POLL, REQUEST, Client, Poll, ask, caller, rest, serve, serving, talk

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator
    from pathlib import Path


# --- requests on a connection ---


def test_thirty_connections_of_a_client_are_kept_alive(path):
    def work() -> list[tuple[int, bytes]]:
        clients = [Client(path) for _ in range(30)]
        first = [client.ask("POST", "/RPC2", b"1") for client in clients]
        sockets = [client.sock for client in clients]
        second = [client.ask("POST", "/jsonrpc", b"2") for client in clients]
        assert [client.sock for client in clients] == sockets
        for client in clients:
            client.close()
        return first + second

    assert serve(path, work) == [(200, b"/RPC21")] * 30 + [(200, b"/jsonrpc2")] * 30


def test_requests_sent_ahead_are_answered_in_order(path):
    last = b"POST /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 1\r\n\r\n!"

    received = serve(path, lambda: talk(path, REQUEST * 5 + last))

    assert received.count(b"HTTP/1.1 200 ") == 6
    assert received.count(b"\r\n\r\n/jsonrpc{}") == 5
    assert received.endswith(b"\r\n\r\n/last!")


@pytest.mark.parametrize(
    "request_",
    [
        b"POST / HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}",
        b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}",
    ],
)
def test_a_client_that_wants_one_answer_gets_it_and_the_end(path, request_):
    received = serve(path, lambda: talk(path, request_))

    assert b"connection: close" in received.lower()
    assert received.endswith(b"/{}")


def test_an_idle_connection_is_closed(path):
    def work() -> bytes:
        with caller(path) as connection:
            connection.sendall(REQUEST)
            return rest(connection)

    received = serve(path, work, limits=Limits(keep_alive_s=0.05))

    assert received.endswith(b"{}")


def test_a_client_may_ask_before_it_sends_its_body(path):
    def work() -> bytes:
        with caller(path) as connection:
            connection.sendall(
                b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n"
            )
            assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
            connection.sendall(b"{}")
            return rest(connection)

    received = serve(path, work)

    assert received.endswith(b"/{}")


def test_a_long_answer_arrives_whole(path):
    body = bytes(range(256)) * (64 << 10)

    async def long(_request: Request) -> Response:
        return Response(body=body)

    assert serve(path, lambda: ask(path, "GET", "/long"), Route("GET", "/long", long)) == (200, body)


def test_a_stream_arrives_in_chunks_and_the_connection_lives_on(path):
    async def chunks() -> AsyncIterator[bytes]:
        for number in range(5):
            yield b"%d," % number * 40000

    async def stream(_request: Request) -> Response:
        return Response(body=chunks())

    def work() -> list[tuple[int, bytes]]:
        with contextlib.closing(Client(path)) as client:
            return [client.ask("GET", "/stream"), client.ask("POST", "/x", b"1")]

    streamed, after = serve(path, work, Route("GET", "/stream", stream))

    assert streamed == (200, b"".join(b"%d," % number * 40000 for number in range(5)))
    assert after == (200, b"/x1")


def test_a_defect_in_a_handler_is_a_500_and_a_log_line(path, caplog):
    async def broken(_request: Request) -> Response:
        raise RuntimeError("a defect")

    status, text = serve(path, lambda: ask(path, "GET", "/x"), Route("GET", "/x", broken))

    assert (status, b"defect" in text) == (500, False)
    assert "a defect" in caplog.text


def test_a_header_that_would_split_the_answer_is_not_sent(path, caplog):
    caplog.set_level(logging.CRITICAL)

    async def split(_request: Request) -> Response:
        return Response(200, {"x": "a\r\nset-cookie: b"})

    received = serve(path, lambda: talk(path, b"GET /x HTTP/1.0\r\n\r\n"), Route("GET", "/x", split))

    assert received == b""


# --- many ---


def test_three_hundred_wait_at_once_without_a_thread_each(path):
    async def run() -> tuple[int, list[bytes], int]:
        poll = Poll()
        async with serving(path, poll.route):
            before = threading.active_count()
            clients = [await asyncio.open_unix_connection(path) for _ in range(300)]
            for _, writer in clients:
                writer.write(POLL)
            while poll.waiting < 300:
                await asyncio.sleep(0)
            threads = threading.active_count() - before
            poll.release.set()
            answers = [await reader.readuntil(b"events") for reader, _ in clients]
            for _, writer in clients:
                writer.close()
            return threads, answers, poll.cancelled

    threads, answers, cancelled = asyncio.run(run())

    assert (threads, cancelled) == (0, 0)
    assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in answers)


def test_clients_beyond_the_limit_get_503_until_one_leaves(path):
    async def run() -> tuple[bytes, bytes]:
        async with serving(path, connection_limit=2) as server:
            pairs = [await asyncio.open_unix_connection(path) for _ in range(2)]
            for reader, writer in pairs:
                writer.write(REQUEST)
                await reader.readuntil(b"{}")
            reader, third = await asyncio.open_unix_connection(path)
            refused = await reader.read()
            pairs[0][1].close()
            while server.connections("local") == 2:
                await asyncio.sleep(0)
            reader, fourth = await asyncio.open_unix_connection(path)
            fourth.write(REQUEST)
            taken = await reader.readuntil(b"{}")
            for writer in (third, fourth, pairs[1][1]):
                writer.close()
            return refused, taken

    refused, taken = asyncio.run(run())

    assert refused.startswith(b"HTTP/1.1 503 ")
    head, _, text = refused.partition(b"\r\n\r\n")
    assert b"content-length: %d\r\n" % len(text) in head
    assert taken.startswith(b"HTTP/1.1 200 ")


# --- start and stop ---


def test_one_listener_stops_while_the_other_goes_on(path, tmp_path):
    async def call(at: Path) -> bytes:
        reader, writer = await asyncio.open_unix_connection(at)
        writer.write(REQUEST)
        answer = await reader.readuntil(b"{}")
        writer.close()
        return answer

    async def run() -> None:
        async with serving(path) as server:
            other = tmp_path / "other.sock"
            with listening_socket(other) as listener:
                server.start("other", [listener], "localhost")
                assert server.listeners == ("local", "other")
                assert await call(path)
                assert await call(other)
                await server.stop("other")
                with pytest.raises(ConnectionRefusedError):
                    await call(other)
            with listening_socket(other) as listener:
                server.start("other", [listener], "localhost")
                assert await call(other)
                assert await call(path)
                await server.stop("other")

    asyncio.run(run())


def test_a_stop_lets_an_answer_under_way_end(path):
    async def run() -> bytes:
        poll = Poll()
        async with serving(path, poll.route, limits=Limits(stop_s=20)) as server:
            idle, kept = await asyncio.open_unix_connection(path)
            kept.write(REQUEST)
            await idle.readuntil(b"{}")
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(POLL)
            await poll.began.wait()
            stopping = asyncio.create_task(server.stop("local"))
            assert await idle.read() == b""
            poll.release.set()
            await stopping
            answer = await reader.read()
            for each in (kept, writer):
                each.close()
            return answer

    assert asyncio.run(run()).endswith(b"events")


def test_a_stop_cuts_what_does_not_end(path):
    async def run() -> tuple[bytes, int]:
        poll = Poll()
        async with serving(path, poll.route, limits=Limits(stop_s=0.05)) as server:
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(POLL)
            await poll.began.wait()
            await server.stop("local")
            received = await reader.read()
            writer.close()
            return received, poll.cancelled

    assert asyncio.run(run()) == (b"", 1)


def test_mistakes_with_listeners_are_told(path):
    async def run() -> None:
        async with serving(path) as server:
            with pytest.raises(ValueError, match="already"):
                server.start("local", [], "unix")
            with pytest.raises(ValueError, match="TLS"):
                server.start("https", [], "tls")

    asyncio.run(run())


def test_when_the_kernel_gives_no_connection_the_server_waits_and_goes_on(path, monkeypatch, caplog):
    failing = [OSError(24, "Too many open files")]
    original = asyncio.SelectorEventLoop.sock_accept

    async def accept(loop: asyncio.SelectorEventLoop, listening: socket.socket) -> object:
        if failing:
            raise failing.pop()
        return await original(loop, listening)

    monkeypatch.setattr(asyncio.SelectorEventLoop, "sock_accept", accept)
    monkeypatch.setattr("hostagent.api.server.ACCEPT_PAUSE_S", 0.01)

    received = serve(path, lambda: talk(path, REQUEST, eof=True))

    assert received.endswith(b"{}")
    assert "Too many open files" in caplog.text
