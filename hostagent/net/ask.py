"""One question to the daemon's local socket: JSON-RPC over HTTP, with nothing but a socket and JSON.

`hostagent/api/client.py` is the same for the command line; importing it (http.client, email) would cost more than all
that `interface-reconfigure` does.
"""

from __future__ import annotations

import json
import socket
from typing import Any

from hostagent.errors import HostagentError, OperatorError

ANSWER_LIMIT_BYTES = 64 << 20
HEAD_LIMIT_BYTES = 1 << 16
PIECE_BYTES = 1 << 16
CONNECT_S = 5.0
WITHOUT = "interface-reconfigure --force BRIDGE up works without it"


class NotThereError(OperatorError):
    """Nobody listens on the socket: there is no daemon."""


class NoAnswerError(OperatorError):
    """Something listens, and does not answer as the daemon does, or not in time."""


class AnsweredError(HostagentError):
    """The daemon answered with an error, whose code and parameters this has."""

    def __init__(self, code: str, params: tuple[str, ...], found: str = "", hint: str = "") -> None:
        super().__init__(
            found or " ".join((code, *params)), hint=hint or "journalctl -u hostagent", params=params
        )
        self.code = code


def ask(path: str, method: str, *params: object, timeout_s: float) -> Any:
    """The result of one call; `timeout_s` is for each silence of the daemon.

    Raises NotThereError, NoAnswerError, AnsweredError.
    """
    body = json.dumps({"jsonrpc": "2.0", "method": method, "params": params, "id": 1}).encode()
    head = (
        "POST /jsonrpc HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(CONNECT_S)
            connection.connect(path)
            connection.settimeout(timeout_s)
            connection.sendall(head.encode() + body)
            answer = _all(connection)
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise NotThereError(f"nobody listens on {path}", hint="systemctl start hostagent") from error
    except PermissionError as error:
        raise NoAnswerError(f"{path} may not be opened", hint="only root may: use sudo") from error
    except TimeoutError as error:
        raise NoAnswerError(
            f"the daemon did not answer within {timeout_s:g} s",
            hint=f"it may still be at work: hostagent net status; {WITHOUT}",
        ) from error
    except OSError as error:
        raise NoAnswerError(
            f"the daemon broke off: {error.strerror}", hint=f"journalctl -u hostagent; {WITHOUT}"
        ) from error
    return result_of(answer)


def _all(connection: socket.socket) -> bytes:
    pieces, length = [], 0
    while piece := connection.recv(PIECE_BYTES):
        pieces.append(piece)
        length += len(piece)
        if length > ANSWER_LIMIT_BYTES:
            raise NoAnswerError(
                f"the daemon's answer has more than {ANSWER_LIMIT_BYTES} bytes", hint="is it ours?"
            )
    return b"".join(pieces)


def result_of(answer: bytes) -> Any:
    """The result in an HTTP answer, read to its end. Raises NoAnswerError, AnsweredError."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status = head[:HEAD_LIMIT_BYTES].split(b"\r\n", 1)[0].split(b" ", 2)
    hint = "is it of the same version? systemctl restart hostagent"
    if len(status) < 2 or not status[0].startswith(b"HTTP/1."):
        raise NoAnswerError("the daemon's answer is no HTTP", hint=hint)
    if status[1] != b"200":
        raise NoAnswerError(
            f"the daemon answered HTTP {status[1][:20].decode('ascii', 'replace')}", hint=hint
        )
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise NoAnswerError("the daemon's answer is not whole, or no JSON", hint=hint) from error
    fault = value.get("error") if isinstance(value, dict) else None
    if isinstance(fault, dict):
        params = fault.get("data")
        raise AnsweredError(
            str(fault.get("message")), tuple(map(str, params)) if isinstance(params, list) else ()
        )
    if not isinstance(value, dict) or "result" not in value:
        raise NoAnswerError("the daemon's answer is no JSON-RPC", hint=hint)
    result = value["result"]
    told = result["error"] if isinstance(result, dict) and set(result) == {"error"} else None
    if isinstance(told, dict) and set(told) >= {"code", "params", "found", "hint"}:
        # a failure of one of our own calls, with all its words (docs/local-api.md)
        params = told["params"]
        raise AnsweredError(
            str(told["code"]),
            tuple(map(str, params)) if isinstance(params, list) else (),
            str(told["found"]),
            str(told["hint"]),
        )
    return result
