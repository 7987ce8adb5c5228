"""The ban holds: each kind of forbidden effect fails the test that tries it."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.pure.ban import ForbiddenEffectError


@pytest.mark.parametrize(
    "effect",
    [
        pytest.param(lambda: subprocess.Popen(["/bin/true"]), id="a process"),
        pytest.param(lambda: os.system("true"), id="a shell"),  # noqa: S605
        pytest.param(lambda: os.fork(), id="a fork"),
        pytest.param(lambda: os.posix_spawn("/bin/true", ["true"], {}), id="a spawn"),
        pytest.param(lambda: socket.socket(socket.AF_INET), id="an internet socket"),
        pytest.param(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW), id="a netlink socket"),
        pytest.param(lambda: socket.create_connection(("127.0.0.1", 1)), id="a connection"),
        pytest.param(lambda: Path("/proc/self/stat").read_text(), id="reading /proc"),
        pytest.param(lambda: list(Path("/sys").iterdir()), id="listing /sys"),
        pytest.param(lambda: Path("/etc/hostagent-test").write_text(""), id="writing into /etc"),
        pytest.param(lambda: Path("/etc/hostagent-test").mkdir(), id="making a directory in /etc"),
        pytest.param(lambda: Path("/etc/hostagent-test").unlink(), id="deleting in /etc"),
        pytest.param(lambda: time.sleep(0.001), id="sleeping"),
    ],
)
def test_a_pure_test_may_not_touch_the_machine(effect):
    with pytest.raises(ForbiddenEffectError):
        effect()


def test_the_ban_passes_through_except_exception():
    def careless():
        with contextlib.suppress(Exception):
            Path("/proc/self/stat").read_text()

    with pytest.raises(ForbiddenEffectError):
        careless()


def test_a_unix_socket_outside_the_temporary_directory_is_banned():
    with socket.socket(socket.AF_UNIX) as sock, pytest.raises(ForbiddenEffectError):
        sock.connect("/run/xenstored/socket")


def test_a_unix_socket_inside_the_temporary_directory_is_allowed(tmp_path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "s"))

    assert (tmp_path / "s").is_socket()


def test_socket_pairs_temporary_files_and_sources_are_allowed(tmp_path, project):
    left, right = socket.socketpair()
    (tmp_path / "file").write_text("x")

    with left, right:
        left.send(b"x")
        assert right.recv(1) == b"x"
    assert (project / "pyproject.toml").read_text()


def test_what_a_module_does_while_it_is_imported_is_allowed(tmp_path, monkeypatch):
    (tmp_path / "reads_proc.py").write_text("with open('/proc/self/stat') as file:\n    TEXT = file.read()\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    import reads_proc  # type: ignore[import-not-found]

    assert reads_proc.TEXT
