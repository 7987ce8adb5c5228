"""XML-RPC as XenAPI speaks it: a request's bytes into a call, and replies into bytes (xenapi.md 1.2).

XenAPI puts its own envelope inside the method response: a struct of `Status` and `Value` or `ErrorDescription`.
`<fault>` is never sent. Requests come from anybody who reaches the port: no entities, no document types, no nesting
beyond DEPTH_LIMIT, no more than VALUE_LIMIT values, nothing but the elements of XML-RPC in their places.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hostagent.api.xmlvalues import escape, value_text
from hostagent.db.datatype import DECIMAL, INT_MAX, INT_MIN, WHOLE
from hostagent.errors import CallerError, InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hostagent.db.datatype import DataType
    from hostagent.db.model import Model

DEPTH_LIMIT = 64
"""Of arrays and structs in each other, as of those of a JSON request."""
VALUE_LIMIT = 200_000
ATTRIBUTE_LIMIT = 8
"""XML-RPC has none, and they are not looked at."""
PIECE_BYTES = 1 << 16
"""What the parser gets at a time; no tag is longer."""
NOT_FINITE = re.compile(r"\s*[+-]?(nan|inf|infinity)\s*", re.ASCII | re.IGNORECASE)


class MalformedError(CallerError):
    """Bytes that are not an XML-RPC request within our limits."""

    code = "MALFORMED_XML"

    def __init__(self, found: str) -> None:
        super().__init__(found, hint="send one methodCall of XML-RPC in UTF-8")


# --- replies ---


def success(kind: DataType, value: object, model: Model) -> bytes:
    """The reply of a call that returned a kept value, or Rendered, of that type."""
    return _response(_envelope("Success", "Value", value_text(kind, value, model)))


def failure(code: str, params: Sequence[str]) -> bytes:
    """The reply of a call that failed with that XenAPI error."""
    told = "".join(f"<value>{escape(text)}</value>" for text in (code, *params))
    return _response(
        _envelope("Failure", "ErrorDescription", f"<value><array><data>{told}</data></array></value>")
    )


def bare(kind: DataType, value: object, model: Model) -> bytes:
    """A reply without the envelope; system.listMethods has it so."""
    return _response(value_text(kind, value, model))


def _envelope(status: str, name: str, value: str) -> str:
    return (
        f"<value><struct><member><name>Status</name><value>{status}</value></member>"
        f"<member><name>{name}</name>{value}</member></struct></value>"
    )


def _response(value: str) -> bytes:
    return f"<methodResponse><params><param>{value}</param></params></methodResponse>".encode()


# --- requests ---


def parse_call(body: bytes) -> tuple[str, list[object]]:
    """Method name and parameters of a request, as the Python values that the same request in JSON gives: text, int,
    float, bool, list, dict. Text keeps its spaces, and a dateTime.iso8601 stays text.

    Raises MalformedError; InvalidValueError when a parameter is not UTF-8. An encoding that the XML declaration names
    is not heeded: all clients send UTF-8.
    """
    # imported here: imports are slow in dom0, and most clients speak JSON
    from defusedxml.common import DefusedXmlException
    from defusedxml.ElementTree import ParseError, XMLParser

    request = _Request()
    parser = XMLParser(
        target=request, encoding="utf-8", forbid_dtd=True, forbid_entities=True, forbid_external=True
    )
    bad = _not_utf8(body)
    try:
        if bad is not None:
            _feed(parser, body[: bad.start])
            raise _refuse_bytes(bad, request)
        _feed(parser, body)
        parser.close()
    except ParseError as error:
        raise MalformedError(f"not XML: {error}") from error
    except DefusedXmlException as error:
        raise MalformedError(f"XML with a document type or entities: {type(error).__name__}") from error
    return request.call()


def _feed(parser: Any, body: bytes) -> None:
    """In pieces, so that a tag of megabytes ends it. Raises MalformedError, and what the parser raises."""
    for at in range(0, len(body), PIECE_BYTES):
        parser.feed(body[at : at + PIECE_BYTES])
        if at - parser.parser.CurrentByteIndex > PIECE_BYTES:
            raise MalformedError(f"a tag or comment of more than {PIECE_BYTES} bytes")


def _not_utf8(body: bytes) -> UnicodeDecodeError | None:
    try:
        body.decode()
    except UnicodeDecodeError as error:
        return error
    return None


def _refuse_bytes(bad: UnicodeDecodeError, request: _Request) -> CallerError:
    """The error for bytes that are not UTF-8, of which `request` has seen what stands before them. The value itself is
    not told: it may be a password.
    """
    found = f"byte 0x{bad.object[bad.start]:02x} at offset {bad.start} is not UTF-8"
    place = request.open_parameter()
    if place is None:
        return MalformedError(found)
    return InvalidValueError(f"parameter {place}", found, found, hint="send text in UTF-8")


FOLLOW = {
    # element -> what may stand in it, in this order
    "": ("methodCall",),
    "methodCall": ("methodName", "params"),
    "param": ("value",),
    "array": ("data",),
    "member": ("name", "value"),
}
REPEAT = {
    # element -> what may stand in it any number of times
    "params": "param",
    "data": "value",
    "struct": "member",
}
TEXT = {"methodName", "name", "string", "int", "i4", "i8", "double", "boolean", "dateTime.iso8601"}
IN_VALUE = TEXT - {"methodName", "name"} | {"array", "struct"}
BLANK = " \t\r\n"
"""Whitespace of XML; Python's own notion has more."""


@dataclass(slots=True)
class _Open:
    """An element that has not ended: what stood in it so far."""

    tag: str
    inside: list[Any] = field(default_factory=list)
    text: list[str] = field(default_factory=list)


class _Request:
    """What the parser tells of a request, element by element; holds every element to its place."""

    def __init__(self) -> None:
        self._stack = [_Open("")]
        self._depth = 0
        self._values = 0

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        parent = self._stack[-1]
        if len(attributes) > ATTRIBUTE_LIMIT:
            raise MalformedError(f"<{tag[:40]}> has {len(attributes)} attributes")
        if not _fits(parent, tag):
            raise MalformedError(f"<{tag[:40]}> has no place in {_name(parent)}")
        if tag == "value":
            self._values += 1
            if self._values > VALUE_LIMIT:
                raise MalformedError(f"more than {VALUE_LIMIT} values")
        elif tag in ("array", "struct"):
            self._depth += 1
            if self._depth > DEPTH_LIMIT:
                raise MalformedError(f"nested deeper than {DEPTH_LIMIT} levels")
        self._stack.append(_Open(tag))

    def data(self, text: str) -> None:
        element = self._stack[-1]
        if element.tag in TEXT or (element.tag == "value" and not element.inside):
            element.text.append(text)
        elif text.strip(BLANK):
            raise MalformedError(f"text has no place in {_name(element)}")

    def end(self, _tag: str) -> None:
        element = self._stack.pop()
        if element.tag in ("array", "struct"):
            self._depth -= 1
        self._stack[-1].inside.append(_finish(element))

    def close(self) -> None:
        """The parser's last word; `call` has the result."""

    def call(self) -> tuple[str, list[object]]:
        ((method, params),) = self._stack[0].inside
        return method, params

    def open_parameter(self) -> int | None:
        """Which parameter the parser is in, counted from 1; None outside of parameters."""
        names = [element.tag for element in self._stack]
        if "param" not in names:
            return None
        return len(self._stack[names.index("params")].inside) + 1


def _fits(parent: _Open, tag: str) -> bool:
    if parent.tag == "value":
        if parent.inside or tag not in IN_VALUE:
            return False
        if "".join(parent.text).strip(BLANK):
            raise MalformedError(f"a value has text beside its <{tag}>")
        parent.text.clear()
        return True
    order = FOLLOW.get(parent.tag, ())
    return tag == REPEAT.get(parent.tag) or order[len(parent.inside) : len(parent.inside) + 1] == (tag,)


def _finish(element: _Open) -> Any:
    """The Python value of an element that has ended. Raises MalformedError when something is missing in it."""
    text, inside = "".join(element.text), element.inside
    match element.tag, inside:
        case "methodCall", [method]:
            return method, []
        case "methodCall", [method, params]:
            return method, params
        case "methodName", _:
            return _method(text)
        case "value", []:
            return text
        case (("value" | "param" | "array"), [only]):
            return only
        case (("params" | "data"), _):
            return inside
        case "member", [name, value]:
            return name, value
        case "struct", _:
            return _struct(inside)
    read = READ.get(element.tag)
    if read is None:
        raise MalformedError(f"{_name(element)} lacks <{FOLLOW[element.tag][len(inside)]}>")
    return read(text)


def _method(text: str) -> str:
    name = text.strip(BLANK)
    if not name:
        raise MalformedError("the method has no name")
    return name


def _struct(members: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(members)
    if len(made) != len(members):
        raise MalformedError("a struct has a member twice")
    return made


def _integer(text: str) -> int:
    if not WHOLE.fullmatch(text) or not INT_MIN <= (number := int(text)) <= INT_MAX:
        raise MalformedError(f"'{text[:40]}' is no integer of 64 bits")
    return number


def _number(text: str) -> float:
    """Infinities and NaN are let through: what they mean is the call's to say (the timeout of event.from)."""
    if not DECIMAL.fullmatch(text) and not NOT_FINITE.fullmatch(text):
        raise MalformedError(f"'{text[:40]}' is no number")
    return float(text)


def _truth(text: str) -> bool:
    match text.strip(BLANK):
        case "1":
            return True
        case "0":
            return False
    raise MalformedError(f"'{text[:40]}' is no boolean: 0 or 1")


READ: dict[str, Callable[[str], object]] = {
    "string": str,
    "name": str,
    "int": _integer,
    "i4": _integer,
    "i8": _integer,
    "double": _number,
    "boolean": _truth,
    "dateTime.iso8601": str,
}


def _name(element: _Open) -> str:
    return f"<{element.tag}>" if element.tag else "a request"
