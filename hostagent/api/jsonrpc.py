"""JSON-RPC 2.0 as bytes in, bytes out: shape, batches, errors. It does not know which calls exist.

Errors have the shape xapi gives them (xenapi.md 1.3): `message` is a XenAPI error code and `data` its
parameters, so that XenAPI clients read every one of them. `code` is 1 for an error of the call itself, and
one of the numbers JSON-RPC 2.0 (5.1) reserves when the request never became a call.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from hostagent.errors import CallerError

Call = Callable[[str, list[object]], object]
"""Runs a call by its wire name with positional parameters; raises Fault, nothing else."""

APPLICATION_ERROR = 1
PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602

DEPTH_LIMIT = 64
BATCH_LIMIT = 100


class Fault(Exception):
    """A call that is answered with an error: number, XenAPI code, its parameters."""

    def __init__(self, number: int, code: str, params: list[str]) -> None:
        super().__init__(code)
        self.number = number
        self.code = code
        self.params = params


class MalformedError(CallerError):
    """Bytes that are not JSON within our limits."""

    code = "MALFORMED_JSON"


@dataclass(frozen=True, slots=True)
class Request:
    """One request of well-formed shape. A notification wants no reply, whatever happens."""

    method: str
    params: list[object]
    id: str | int | None
    notification: bool


def answer(body: bytes, call: Call) -> bytes | None:
    """The reply to a request body; None when nothing in it wants one. Never raises."""
    try:
        message = parse(body)
    except MalformedError as error:
        return _encode(_error(None, Fault(PARSE_ERROR, "Parse error", [error.found])))
    if not isinstance(message, list):
        reply = _answer_one(message, call)
        return None if reply is None else _encode(reply)
    if not message or len(message) > BATCH_LIMIT:
        found = f"a batch holds 1 to {BATCH_LIMIT} requests, this one {len(message)}"
        return _encode(_error(None, Fault(INVALID_REQUEST, "Invalid Request", [found])))
    replies = [reply for item in message if (reply := _answer_one(item, call)) is not None]
    return _encode(replies) if replies else None


def parse(body: bytes) -> object:
    """The value a body holds, nested at most DEPTH_LIMIT levels.

    Raises MalformedError: not UTF-8, not JSON (NaN and infinities are not), numbers beyond what Python
    converts, or nested deeper.
    """
    try:
        value: object = json.loads(body.decode(), parse_constant=_refuse_constant)
    except RecursionError:
        deep = True
    except ValueError as error:
        raise MalformedError(f"not JSON: {error}", hint="send one JSON value in UTF-8") from error
    else:
        deep = body.count(b"[") + body.count(b"{") > DEPTH_LIMIT and _deeper(value, DEPTH_LIMIT)
    if deep:
        raise MalformedError(f"nested deeper than {DEPTH_LIMIT} levels", hint="send a flatter request")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number in JSON")


def _deeper(value: object, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        lists = [item for item in level if isinstance(item, list)]
        dicts = [item for item in level if isinstance(item, dict)]
        level = [inner for item in lists for inner in item]
        level += [inner for item in dicts for inner in item.values()]
    return any(isinstance(item, list | dict) for item in level)


def _answer_one(message: object, call: Call) -> dict[str, object] | None:
    try:
        request = _request(message)
    except Fault as fault:
        return _error(None, fault)
    try:
        result = call(request.method, request.params)
    except Fault as fault:
        return None if request.notification else _error(request.id, fault)
    return None if request.notification else {"jsonrpc": "2.0", "result": result, "id": request.id}


def _request(untrusted: object) -> Request:
    """Raises Fault when the message is not a JSON-RPC 2.0 request."""
    if not isinstance(untrusted, dict):
        raise _invalid("a request is an object")
    if untrusted.get("jsonrpc") != "2.0":
        raise _invalid('the member "jsonrpc" must be "2.0"')
    method, identity = untrusted.get("method"), untrusted.get("id")
    if not isinstance(method, str):
        raise _invalid('the member "method" must be a string')
    if isinstance(identity, bool) or not isinstance(identity, str | int | None):
        raise _invalid('the member "id" must be a string or an integer')
    match untrusted.get("params"):
        case None:
            params: list[object] = []
        case list() as given:
            params = given
        case dict() as structure:
            params = [structure]  # one struct parameter, as in xapi
        case _:
            raise _invalid('the member "params" must be an array or an object')
    return Request(method, params, identity, notification="id" not in untrusted)


def _invalid(found: str) -> Fault:
    return Fault(INVALID_REQUEST, "Invalid Request", [found])


def _error(identity: str | int | None, fault: Fault) -> dict[str, object]:
    error = {"code": fault.number, "message": fault.code, "data": fault.params}
    return {"jsonrpc": "2.0", "error": error, "id": identity}


def _encode(reply: object) -> bytes:
    return json.dumps(reply, allow_nan=False, separators=(",", ":")).encode()
