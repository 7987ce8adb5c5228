"""JSON-RPC 1.0 and 2.0 as bytes in, bytes out: shape, batches, errors. It does not know which calls exist.

A member `jsonrpc` of "2.0" selects 2.0, its absence 1.0. Errors have the shape xapi gives them (xenapi.md 1.3): in 2.0
`message` is a XenAPI error code and `data` its parameters, in 1.0 `error` is the array of both. `code` is 1 for an
error of the call itself, and one of the numbers JSON-RPC 2.0 (5.1) reserves when the request never became a call.
More than xapi: notifications and batches, both of 2.0 only; parameters as an object or left out also in 1.0.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NoReturn

from hostagent.api.rendered import Rendered
from hostagent.errors import CallerError

Call = Callable[[str, list[object]], Awaitable[object]]
"""Runs a call by its wire name with positional parameters; returns a JSON value or Rendered, raises Fault, nothing
else.
"""

APPLICATION_ERROR = 1
PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602

DEPTH_LIMIT = 64
BATCH_LIMIT = 100
LARGE = 1 << 16
"""A body of more bytes is read in a thread."""


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


async def answer(body: bytes, call: Call) -> bytes | None:
    """The reply to a request body; None when nothing in it wants one. Never raises."""
    try:
        message = await asyncio.to_thread(parse, body) if len(body) > LARGE else parse(body)
    except MalformedError as error:
        return _bytes(_error(Fault(PARSE_ERROR, "Parse error", [error.found]), None, old=False))
    if not isinstance(message, list):
        reply = await _answer_one(message, call, old=isinstance(message, dict) and "jsonrpc" not in message)
        return None if reply is None else _bytes(reply)
    if not message or len(message) > BATCH_LIMIT:
        found = f"a batch holds 1 to {BATCH_LIMIT} requests, this one {len(message)}"
        return _bytes(_error(_invalid(found), None, old=False))
    replies = [reply for item in message if (reply := await _answer_one(item, call, old=False)) is not None]
    return _bytes(f"[{','.join(replies)}]") if replies else None


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


async def _answer_one(message: object, call: Call, *, old: bool) -> str | None:
    try:
        request = _request(message, old=old)
    except Fault as fault:
        return _error(fault, None, old=old)
    try:
        result = await call(request.method, request.params)
    except Fault as fault:
        return None if request.notification else _error(fault, request.id, old=old)
    return None if request.notification else _success(result, request.id, old=old)


def _request(untrusted: object, *, old: bool) -> Request:
    """Raises Fault when the message is not a request of that version."""
    if not isinstance(untrusted, dict):
        raise _invalid("a request is an object")
    if not old and untrusted.get("jsonrpc") != "2.0":
        raise _invalid('the member "jsonrpc" must be "2.0", or absent from a request that is no batch')
    method, identity = untrusted.get("method"), untrusted.get("id")
    if not isinstance(method, str):
        raise _invalid('the member "method" must be a string')
    if isinstance(identity, bool) or not isinstance(identity, str | int | None) or (old and identity is None):
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


def _success(result: object, identity: str | int | None, *, old: bool) -> str:
    text = result.text if isinstance(result, Rendered) else _json(result)
    if old:
        return f'{{"result":{text},"error":null,"id":{_json(identity)}}}'
    return f'{{"jsonrpc":"2.0","result":{text},"id":{_json(identity)}}}'


def _error(fault: Fault, identity: str | int | None, *, old: bool) -> str:
    if old:
        return _json({"result": None, "error": [fault.code, *fault.params], "id": identity})
    error = {"code": fault.number, "message": fault.code, "data": fault.params}
    return _json({"jsonrpc": "2.0", "error": error, "id": identity})


def _json(value: object) -> str:
    """A value as JSON text. NaN and infinities, which JSON has not, become 0 (xenapi.md 1.3)."""
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":"))
    except ValueError:
        return json.dumps(_finite(value), allow_nan=False, separators=(",", ":"))


def _finite(value: object) -> object:
    match value:
        case float() if not math.isfinite(value):
            return 0
        case dict():
            return {key: _finite(item) for key, item in value.items()}
        case list() | tuple():
            return [_finite(item) for item in value]
    return value


def _bytes(text: str) -> bytes:
    """JSON text as UTF-8. Half a surrogate pair, which UTF-8 has not, is written as JSON's escape for it."""
    return text.encode(errors="backslashreplace")
