"""The socket under RUN: one instance, root only, and a client that can tell what is wrong."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import stat
from typing import TYPE_CHECKING

import pytest

from hostagent.api import client, server
from hostagent.api.http import Limits, Response
from hostagent.api.local_socket import (
    RunDirectoryError,
    SecondInstanceError,
    listening_socket,
    only_instance,
    socket_path,
)
from hostagent.api.routes import Routes, rpc_routes
from hostagent.api.server import Server
from hostagent.config import Paths

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def paths(tmp_path):
    return Paths(etc=tmp_path / "etc", state=tmp_path / "state", run=tmp_path / "run", root=tmp_path / "root")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "api.sock"


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_the_run_directory_is_made_private(paths):
    with only_instance(paths):
        assert mode_of(paths.run) == 0o700


def test_a_run_directory_open_to_others_is_closed(paths):
    paths.run.mkdir(mode=0o755)

    with only_instance(paths):
        assert mode_of(paths.run) == 0o700


def test_a_second_instance_is_refused_with_the_pid_of_the_first(paths):
    with (
        only_instance(paths),
        pytest.raises(SecondInstanceError, match=f"pid {os.getpid()}"),
        only_instance(paths),
    ):
        pass


def test_the_lock_is_free_again_afterwards(paths):
    with only_instance(paths):
        pass
    with only_instance(paths):
        pass


def test_a_lock_file_that_is_a_link_is_not_followed(paths, tmp_path):
    paths.run.mkdir(mode=0o700)
    target = tmp_path / "precious"
    target.write_text("keep")
    (paths.run / "hostagent.lock").symlink_to(target)

    with pytest.raises(RunDirectoryError), only_instance(paths):
        pass

    assert target.read_text() == "keep"


def test_a_run_that_is_a_file_is_an_error_with_a_hint(paths):
    paths.run.write_text("")

    with pytest.raises(RunDirectoryError) as caught, only_instance(paths):
        pass

    assert str(paths.run) in caught.value.found
    assert caught.value.hint


def test_the_socket_is_for_its_owner_only_and_gone_afterwards(path):
    with listening_socket(path):
        assert stat.S_ISSOCK(path.lstat().st_mode)
        assert mode_of(path) == 0o600

    assert not path.exists()


def test_hundreds_may_come_at_once(path):
    with listening_socket(path), contextlib.ExitStack() as clients:
        for _ in range(600):  # less than the files a process may have open
            client = clients.enter_context(socket.socket(socket.AF_UNIX))
            client.settimeout(0)
            client.connect(str(path))  # raises BlockingIOError when the kernel keeps no more


def test_a_stale_socket_is_replaced(path):
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))

    with listening_socket(path), socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(path))


def test_something_that_is_no_socket_is_left_alone(path):
    path.write_text("mine")

    with pytest.raises(RunDirectoryError, match="not a socket"), listening_socket(path):
        pass

    assert path.read_text() == "mine"


def test_the_umask_is_restored(path):
    before = os.umask(0o022)
    try:
        with listening_socket(path):
            assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)


def test_a_path_too_long_for_a_socket_is_an_error_with_a_hint(tmp_path):
    with pytest.raises(RunDirectoryError, match="too long"), listening_socket(tmp_path / ("x" * 120)):
        pass


# --- over the wire ---


def replying(answer):
    async def handle(request):
        reply = answer(request.body)
        if reply is None:
            return Response(204)
        return Response(200, {"content-type": "application/json"}, reply)

    return handle


def serve(path: Path, answer, work):
    """Run `work` in a thread against a server on `path`, and return what it returns."""

    async def run():
        with listening_socket(path) as listener:
            api = Server(Routes(rpc_routes(replying(answer))), Limits(stop_s=0))
            api.start("local", [listener], "unix")
            try:
                return await asyncio.to_thread(work)
            finally:
                await api.stop_all()

    return asyncio.run(run())


def reply_with(**members: object):
    return lambda _body: json.dumps({"jsonrpc": "2.0", "id": 1, **members}).encode()


def test_a_call_gets_its_result(path):
    assert serve(path, reply_with(result=[1, "a"]), lambda: client.call(path, "x", "p")) == [1, "a"]


def test_the_server_gets_the_method_and_parameters(path):
    seen: list[object] = []

    def answer(body: bytes) -> bytes:
        seen.append(json.loads(body))
        return b'{"result": ""}'

    serve(path, answer, lambda: client.call(path, "VM.start", "ref", 5))

    assert seen == [{"jsonrpc": "2.0", "method": "VM.start", "params": ["ref", 5], "id": 1}]


def test_an_error_of_the_daemon_keeps_its_code_and_parameters(path):
    error = {"code": 1, "message": "HANDLE_INVALID", "data": ["VM", "ref"]}

    with pytest.raises(client.CallFailedError, match="HANDLE_INVALID VM ref") as caught:
        serve(path, reply_with(error=error), lambda: client.call(path, "x"))

    assert caught.value.record()["code"] == "HANDLE_INVALID"
    assert caught.value.params == ("VM", "ref")


@pytest.mark.parametrize("answer", [b"{", b"[]", b'{"error": 5}', b'"x"'])
def test_a_strange_answer_is_an_error_with_a_hint(path, answer):
    with pytest.raises(client.NoAnswerError) as caught:
        serve(path, lambda _: answer, lambda: client.call(path, "x"))

    assert caught.value.hint


def test_an_http_error_is_shown_with_its_text(path):
    with pytest.raises(client.NoAnswerError, match="HTTP 204"):
        serve(path, lambda _: None, lambda: client.call(path, "x"))


def test_without_a_socket_the_client_says_how_to_start_the_daemon(path):
    with pytest.raises(client.NotRunningError) as caught:
        client.call(path, "x")

    assert "systemctl start hostagent" in caught.value.hint


def test_a_socket_nobody_listens_on_is_a_daemon_that_does_not_run(path):
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))

    with pytest.raises(client.NotRunningError):
        client.call(path, "x")


def test_a_daemon_that_does_not_answer_is_given_up_at_the_deadline(path):
    with listening_socket(path), pytest.raises(client.NoAnswerError, match=r"within 0\.05 s"):
        client.call(path, "x", timeout_s=0.05)


def test_a_caller_of_another_user_is_refused(path, monkeypatch):
    monkeypatch.setattr(server, "credentials", lambda _connection: (4711, 65534))

    with pytest.raises(client.NoAnswerError):
        serve(path, reply_with(result=1), lambda: client.call(path, "x"))


def test_the_kernel_names_the_caller(path):
    with listening_socket(path) as listener, socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(path))
        connection, _ = listener.accept()
        with connection:
            assert server.credentials(connection) == (os.getpid(), os.geteuid())


def test_the_socket_lies_in_the_run_directory(paths):
    assert socket_path(paths) == paths.run / "api.sock"
