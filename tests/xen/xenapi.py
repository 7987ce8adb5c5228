"""How tests reach the API of a host with clients of others: its real sockets, through a tunnel of ssh."""

from __future__ import annotations

import contextlib
import itertools
import socket
import subprocess
import tempfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import XenAPI

if TYPE_CHECKING:
    from collections.abc import Iterator

SOCKET = "/run/hostagent/api.sock"
PORT = 18080
OPEN_S = 60
PASSWORD = "correct horse"


@dataclass(frozen=True)
class Tunnel:
    """A host's sockets as they are reached from here. `local`, `tcp`: files that lead to its Unix socket and to its
    port 80; `url`: the latter, for programs started with the words of `inside` in front of them.
    """

    local: Path
    tcp: Path
    inside: tuple[str, ...]
    url: str = f"http://127.0.0.1:{PORT}"

    @contextlib.contextmanager
    def session(self, user: str = "root", password: str = "", *, path: Path | None = None) -> Iterator[Any]:
        """A session of the unchanged Python package: over the Unix socket, or over `path`."""
        client = connect(path or self.local)
        try:
            client.xenapi.login_with_password(user, password, "1.0", "test")
            yield client
            client.xenapi.session.logout()
        finally:
            client("close")()


def connect(path: Path) -> Any:
    """A client that has not logged in. The package writes `_` for `/` in the path of a socket."""
    return XenAPI.Session(f"http://{str(path).replace('/', '_')}", transport=XenAPI.UDSTransport())


@contextlib.contextmanager
def tunnel(host: Any) -> Iterator[Tunnel]:
    """Lead here to the sockets of the agent on a host that is up; they need not be listening yet."""
    folder = Path(tempfile.gettempdir()) / f"xenapi-{uuid.uuid4().hex}"
    folder.mkdir(mode=0o700)
    local, tcp = folder / "local", folder / "tcp"
    ssh = host.ssh_arguments()
    targets = (f"{local}:{SOCKET}", f"{tcp}:127.0.0.1:80", f"127.0.0.1:{PORT}:127.0.0.1:80")
    forwards = [word for target in targets for word in ("-L", target)]
    options = ("-S", "none", "-N", "-o", "ExitOnForwardFailure=yes")
    process = subprocess.Popen([*ssh, *options, *forwards], stdin=subprocess.DEVNULL)
    try:
        _await_sockets(process, local, tcp)
        yield Tunnel(local, tcp, tuple(itertools.takewhile(lambda word: word != "ssh", ssh)))
    finally:
        process.kill()
        process.wait()
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()


def _await_sockets(process: subprocess.Popen[bytes], *paths: Path) -> None:
    end = time.monotonic() + OPEN_S
    while not all(path.exists() for path in paths):
        assert process.poll() is None, "ssh has ended"
        assert time.monotonic() < end, "no tunnel"
        time.sleep(0.05)
    for path in paths:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(path))
