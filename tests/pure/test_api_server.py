"""The server over real sockets: connections, deadlines, limits, hand-over, start and stop."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import logging
import select
import socket
import threading
from typing import TYPE_CHECKING, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostagent.api import app
from hostagent.api.http import HEAD_LIMIT_BYTES, Limits, RawRoute, Request, Response, Route
from hostagent.api.local_socket import listening_socket
from hostagent.api.protocol import CHUNKS_FREE, Connection
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


@pytest.fixture
def path(tmp_path):
    return tmp_path / "api.sock"


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


# --- hand-over ---


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
