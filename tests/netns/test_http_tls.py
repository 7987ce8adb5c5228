"""The API over TCP and TLS on the loopback of a network namespace."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import shutil
import ssl
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest
from nested_xen import network, process

from hostagent.api.http import Limits, RawRoute, Request, Response, Route
from hostagent.api.routes import Routes, rpc_routes
from hostagent.api.server import Server
from hostagent.api.tcp import AddressError, listening_tcp

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from nested_xen.lab import Lab

T = TypeVar("T")

ROOT = Path("/")
PORT = 443
LOOPBACK_IPV6_OFF = Path("/proc/sys/net/ipv6/conf/lo/disable_ipv6")
CLI = b"POST /cli HTTP/1.0\r\nContent-Length: 4\r\n\r\nhelp"
REQUEST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"


async def who(request: Request) -> Response:
    return Response(body=f"{request.peer.kind} {request.peer.address} ".encode() + request.body)


async def repeat(_request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"magic:")
    while (line := await reader.readline()).strip():
        writer.write(line)
        await writer.drain()


async def long(_request: Request) -> Response:
    return Response(body=bytes(range(256)) * (64 << 10))


ROUTES = (*rpc_routes(who, who), RawRoute("POST", "/cli", repeat, 10), Route("GET", "/long", long))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """`certificate(name)`: a context of a server with its own RSA certificate for that name."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed (openssl)")
    folder = tmp_path_factory.mktemp("tls")

    def make(name: str) -> ssl.SSLContext:
        both = folder / f"{name}.pem"
        argv = [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            f"/CN={name}",
        ]
        process.run([*argv, "-keyout", folder / "key.pem", "-out", folder / "cert.pem"])
        both.write_bytes((folder / "key.pem").read_bytes() + (folder / "cert.pem").read_bytes())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(both)
        return context

    return make


def client_context(version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    return context


def inside(lab: Lab, work: Callable[[Server], Awaitable[T]], limits: Limits | None = None) -> T:
    """Run `work` with a server that has no listener yet, in the lab's namespace."""

    async def run() -> T:
        server = Server(Routes(ROUTES), limits)
        try:
            return await asyncio.wait_for(work(server), 60)
        finally:
            await server.stop_all()

    def in_namespace() -> T:
        LOOPBACK_IPV6_OFF.write_text("0")  # a lab has no IPv6 of its own
        return asyncio.run(run())

    return network.call_inside(lab.name, in_namespace)


def start_https(server: Server, context: ssl.SSLContext, **values) -> None:
    sockets = [listening_tcp(address, PORT, ROOT) for address in ("127.0.0.1", "::1")]
    server.start("https", sockets, "tls", tls=context, **values)


def ask(address: str, context: ssl.SSLContext, method: str = "POST", path: str = "/") -> tuple[bytes, bytes]:
    """The answer to a call, and the server's certificate."""
    connection = http.client.HTTPSConnection(address, PORT, timeout=20, context=context)
    with contextlib.closing(connection):
        connection.request(method, path, b"{}")
        answer = connection.getresponse().read()
        assert isinstance(connection.sock, ssl.SSLSocket)
        certificate = connection.sock.getpeercert(binary_form=True)
    assert certificate is not None
    return answer, certificate


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_calls_over_tls_on_several_addresses(segments: Lab, certificate, version) -> None:
    context = certificate("host")

    async def work(server: Server) -> list[bytes]:
        start_https(server, context)
        client = client_context(version)
        return [(await asyncio.to_thread(ask, address, client))[0] for address in ("127.0.0.1", "::1")]

    assert inside(segments, work) == [b"tls 127.0.0.1 {}", b"tls ::1 {}"]


def test_old_tls_is_refused_and_the_listener_goes_on(segments: Lab, certificate) -> None:
    context = certificate("host")

    async def work(server: Server) -> bytes:
        start_https(server, context)
        reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        answer = await reader.read()
        assert not answer.startswith(b"HTTP")
        writer.close()
        return (await asyncio.to_thread(ask, "127.0.0.1", client_context()))[0]

    assert inside(segments, work) == b"tls 127.0.0.1 {}"


def test_https_comes_and_goes_while_plain_http_stays(segments: Lab, certificate) -> None:
    context = certificate("host")

    def plain() -> bytes:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", 80, timeout=20)) as connection:
            connection.request("POST", "/", b"{}")
            return connection.getresponse().read()

    async def work(server: Server) -> None:
        server.start("localhost", [listening_tcp("127.0.0.1", 80, ROOT)], "localhost")
        for _ in range(2):
            start_https(server, context)
            assert (await asyncio.to_thread(ask, "::1", client_context()))[0] == b"tls ::1 {}"
            assert await asyncio.to_thread(plain) == b"localhost 127.0.0.1 {}"
            await server.stop("https")
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", PORT)
            assert await asyncio.to_thread(plain) == b"localhost 127.0.0.1 {}"

    inside(segments, work)


def test_a_new_certificate_is_for_new_connections(segments: Lab, certificate) -> None:
    old, new = certificate("old"), certificate("new")

    async def work(server: Server) -> tuple[bytes, bytes]:
        start_https(server, old)
        _, before = await asyncio.to_thread(ask, "::1", client_context())
        reader, writer = await asyncio.open_connection("::1", PORT, ssl=client_context())
        server.replace_tls("https", new)
        _, after = await asyncio.to_thread(ask, "::1", client_context())
        writer.write(REQUEST)
        assert await reader.readuntil(b"{}")
        writer.close()
        return before, after

    before, after = inside(segments, work)

    assert b"old" in before
    assert b"new" in after


def test_a_long_answer_arrives_whole_also_when_it_is_the_last(segments: Lab, certificate) -> None:
    context = certificate("host")

    async def work(server: Server) -> bytes:
        start_https(server, context)
        reader, writer = await asyncio.open_connection("::1", PORT, ssl=client_context())
        writer.write(b"GET /long HTTP/1.0\r\n\r\n")
        answer = await reader.read()
        writer.close()
        return answer

    answer = inside(segments, work)

    assert answer.partition(b"\r\n\r\n")[2] == bytes(range(256)) * (64 << 10)


@pytest.mark.parametrize("sent", [(CLI, b"one\ntwo\n\n"), (CLI + b"one\ntwo\n\n",)])
def test_a_raw_handler_over_tls(segments: Lab, certificate, sent) -> None:
    context = certificate("host")

    async def work(server: Server) -> bytes:
        start_https(server, context)
        reader, writer = await asyncio.open_connection("::1", PORT, ssl=client_context())
        for part in sent:
            writer.write(part)
            await asyncio.sleep(0)
        answer = await reader.read()
        writer.close()
        return answer

    assert inside(segments, work) == b"magic:one\ntwo\n"


def test_clients_that_do_not_shake_hands_count_and_are_cut(segments: Lab, certificate) -> None:
    context = certificate("host")

    async def work(server: Server) -> None:
        start_https(server, context, connection_limit=2)
        waiting = [await asyncio.open_connection("127.0.0.1", PORT) for _ in range(2)]
        while server.connections("https") < 2:
            await asyncio.sleep(0.01)
        reader, over = await asyncio.open_connection("127.0.0.1", PORT)
        assert await reader.read() == b""
        for reader, writer in waiting:
            assert await reader.read() == b""  # at the deadline of the handshake
            writer.close()
        over.close()
        while server.connections("https"):
            await asyncio.sleep(0.01)
        answer, _ = await asyncio.to_thread(ask, "127.0.0.1", client_context())
        assert answer

    inside(segments, work, Limits(handshake_s=0.5))


def test_a_client_that_does_not_read_is_cut_over_tls_as_well(segments: Lab, certificate) -> None:
    context = certificate("host")

    async def work(server: Server) -> None:
        start_https(server, context)
        _, writer = await asyncio.open_connection("::1", PORT, ssl=client_context())
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n")
        while not server.connections("https"):
            await asyncio.sleep(0.01)
        while server.connections("https"):
            await asyncio.sleep(0.01)
        writer.transport.abort()

    inside(segments, work, Limits(unread_s=0.5))


def test_a_stop_during_a_handshake_leaves_nothing(segments: Lab, certificate) -> None:
    context = certificate("host")

    async def work(server: Server) -> bytes:
        start_https(server, context)
        reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
        while not server.connections("https"):
            await asyncio.sleep(0.01)
        await server.stop("https")
        left = await reader.read()
        writer.close()
        return left

    assert inside(segments, work) == b""


TAKEN = """
import os, socket
from pathlib import Path
from hostagent.api.tcp import PortTakenError, listening_tcp, port_holders
with socket.create_server(("127.0.0.1", 8080)):
    try:
        listening_tcp("127.0.0.1", 8080, Path("/"))
    except PortTakenError as error:
        print(f"pid {os.getpid()}" in error.found, [one.pid for one in port_holders(8080, Path("/"))] == [os.getpid()])
"""


def test_a_port_that_is_taken_names_the_process(segments: Lab) -> None:
    """In a process of its own: /proc/net is that of a process, and here only a thread is in the namespace."""
    said = process.run(network.inside(segments.name, [sys.executable, "-c", TAKEN]))

    assert said.stdout == "True True\n"


def test_an_address_of_another_host_cannot_be_listened_on(segments: Lab) -> None:
    with pytest.raises(AddressError, match="Cannot assign requested address"):
        network.call_inside(segments.name, lambda: listening_tcp("203.0.113.9", 8080, ROOT))
