"""Calls over the local socket, for the command line: standard library only, always a deadline."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
from typing import TYPE_CHECKING

from hostagent.errors import HostagentError, OperatorError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TIMEOUT_S = 10.0
PIECE_BYTES = 1 << 16


class NotRunningError(OperatorError):
    """No daemon listens on the socket."""


class NoPermissionError(OperatorError):
    """The socket is root's, and we are not."""


class NoAnswerError(OperatorError):
    """Something listens, and does not answer as the daemon does."""


class CallFailedError(HostagentError):
    """The daemon answered with an error; `code` and `params` are what it sent."""

    def __init__(self, method: str, code: str, params: tuple[str, ...]) -> None:
        shown = " ".join((code, *params))
        super().__init__(
            f"{method}: {shown}",
            hint="journalctl -u hostagent; `hostagent status` shows its state",
            params=params,
        )
        self.code = code


def call(path: Path, method: str, *params: object, timeout_s: float = TIMEOUT_S) -> object:
    """The result of one call. `timeout_s` is for each of connect, send and answer.

    Raises NotRunningError, NoPermissionError, NoAnswerError, or CallFailedError with what the daemon said.
    """
    body = json.dumps({"jsonrpc": "2.0", "method": method, "params": params, "id": 1})
    headers = {"Content-Type": "application/json", "Connection": "close"}
    with _asking(path, timeout_s) as connection:
        connection.request("POST", "/jsonrpc", body, headers)
        response = connection.getresponse()
        status, content = response.status, response.read()
    return _result(method, status, content)


def download(path: Path, target: str, *, timeout_s: float = TIMEOUT_S) -> Iterator[bytes]:
    """What a GET of `target` gives, piece by piece. `timeout_s` is for each piece.

    Raises, while the pieces are taken, NotRunningError, NoPermissionError, NoAnswerError.
    """
    with _asking(path, timeout_s) as connection:
        connection.request("GET", target, headers={"Connection": "close"})
        response = connection.getresponse()
        if response.status != 200:
            why = response.read(PIECE_BYTES).decode(errors="replace").strip()
            raise NoAnswerError(
                f"the daemon answered HTTP {response.status}: {why}", hint="journalctl -u hostagent"
            )
        while piece := response.read(PIECE_BYTES):
            yield piece


@contextlib.contextmanager
def _asking(path: Path, timeout_s: float) -> Iterator[http.client.HTTPConnection]:
    connection = _UnixConnection(path, timeout_s)
    try:
        yield connection
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise NotRunningError(
            f"the daemon does not run: nobody listens on {path}",
            hint="`hostagent status` says why; systemctl start hostagent",
        ) from error
    except PermissionError as error:
        raise NoPermissionError(
            f"uid {os.geteuid()} may not open {path}", hint="only root may: use sudo"
        ) from error
    except TimeoutError as error:
        raise NoAnswerError(
            f"the daemon did not answer within {timeout_s:g} s",
            hint="systemctl status hostagent; systemd's watchdog restarts a daemon that hangs",
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise NoAnswerError(
            f"the daemon broke off: {error or type(error).__name__}", hint="journalctl -u hostagent"
        ) from error
    finally:
        connection.close()


def _result(method: str, status: int, content: bytes) -> object:
    hint = "is it of the same version? systemctl restart hostagent"
    if status != 200:
        why = content.decode(errors="replace").strip()[:200]
        raise NoAnswerError(f"the daemon answered HTTP {status}: {why}", hint=hint)
    try:
        match json.loads(content):
            case {"result": result}:
                return result
            case {"error": {"message": str(code), "data": list(params)}}:
                raise CallFailedError(method, code, tuple(str(param) for param in params))
    except ValueError as error:
        raise NoAnswerError("the daemon answered with something that is not JSON", hint=hint) from error
    raise NoAnswerError("the daemon answered with JSON that is not JSON-RPC 2.0", hint=hint)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path
        self._timeout_s = timeout_s

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self._timeout_s)
        self.sock.connect(str(self._path))
