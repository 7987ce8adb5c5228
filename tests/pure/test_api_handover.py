"""Raw handlers, which get the connection to themselves, over real sockets."""

from __future__ import annotations

import asyncio
import select
import socket
import threading

import pytest

from hostagent.api import app
from hostagent.api.http import Limits, RawRoute, Request
from tests.pure.http_server import caller, rest, serve, serving, talk

CLI = b"POST /cli HTTP/1.0\r\nContent-Length: 4\r\n\r\nhelp"


async def repeat(request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers with the body, then each line it gets, until an empty one."""
    writer.write(b"magic:" + request.body)
    while (line := await reader.readline()).strip():
        writer.write(line)
        await writer.drain()


RAW = RawRoute("POST", "/cli", repeat, body_limit=10)


@pytest.mark.parametrize(
    "sent",
    [
        (CLI, b"one\ntwo\n", b"\n"),
        (CLI + b"one\ntwo\n\n",),
        (CLI[:-2], b"lpone\ntwo\n\n"),
        (CLI.replace(b"1.0", b"1.1\r\nHost: x"), b"one\ntwo\n\n"),
        (CLI.replace(b"1.0", b"1.1\r\nHost: x") + b"one\ntwo\n\n",),
    ],
)
def test_a_raw_handler_has_the_connection_to_itself(path, sent, caplog):
    assert serve(path, lambda: talk(path, *sent), RAW) == b"magic:helpone\ntwo\n"
    assert caplog.records == []


def test_what_follows_a_body_waits_for_its_raw_handler(path, monkeypatch):
    original = app._read_body
    body_read = asyncio.Event()

    async def slowly(*values) -> bytes:
        body = await original(*values)
        body_read.set()
        for _ in range(20):
            await asyncio.sleep(0)
        return body

    async def run() -> bytes:
        async with serving(path, RAW):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(CLI)
            await body_read.wait()
            writer.write(b"one\n\n")
            received = await reader.read()
            writer.close()
            return received

    monkeypatch.setattr(app, "_read_body", slowly)

    assert asyncio.run(run()) == b"magic:helpone\n"


def test_a_raw_handler_waits_for_its_client_and_the_client_for_it(path):
    def work() -> bytes:
        with caller(path) as connection:
            connection.sendall(CLI)
            assert connection.recv(100) == b"magic:help"
            connection.sendall(b"one\n")
            assert connection.recv(100) == b"one\n"
            connection.shutdown(socket.SHUT_WR)
            return rest(connection)

    assert serve(path, work, RAW) == b""


def test_a_raw_handler_gets_and_sends_much(path):
    much = b"".join(b"%06d" % number * 10 + b"\n" for number in range(20000))

    def work() -> bytes:
        with caller(path) as connection:
            connection.sendall(CLI)
            sender = threading.Thread(target=connection.sendall, args=(much + b"\n",))
            sender.start()
            received = rest(connection)
            sender.join()
            return received

    assert serve(path, work, RAW) == b"magic:help" + much


def test_a_body_too_long_for_a_raw_handler_is_refused_in_http(path):
    request = b"POST /cli HTTP/1.0\r\nContent-Length: 11\r\n\r\n"

    received = serve(path, lambda: talk(path, request), RAW)

    assert received.startswith(b"HTTP/1.1 413 ")


def test_a_raw_handler_that_fails_closes_and_says_nothing_in_http(path, caplog):
    async def broken(_request: Request, _reader: object, writer: asyncio.StreamWriter) -> None:
        writer.write(b"magic")
        raise RuntimeError("a defect")

    assert serve(path, lambda: talk(path, CLI), RawRoute("POST", "/cli", broken, 10)) == b"magic"
    assert "a defect" in caplog.text


def test_a_raw_client_that_does_not_read_is_cut_and_its_handler_ended(path):
    ended: list[type[BaseException]] = []

    async def flood(_request: Request, _reader: object, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()
        except BaseException as error:
            ended.append(type(error))
            raise

    def work() -> None:
        with caller(path) as connection:
            connection.sendall(CLI)
            waiting = select.poll()
            waiting.register(connection, select.POLLHUP)
            assert waiting.poll(20000)

    serve(path, work, RawRoute("POST", "/cli", flood, 10), limits=Limits(unread_s=0.05))

    assert len(ended) == 1
    assert issubclass(ended[0], (asyncio.CancelledError, ConnectionError))
