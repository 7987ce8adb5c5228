"""Values of the data model's types as XML-RPC `<value>` elements (the "sent by server" column of xenapi.md 1.2).

For each type an encoder is built once, a closure that turns a kept value (`hostagent.db.datatype`) into text: a list of
ten thousand records of ninety fields is a million values, and its types are looked at once, not a million times.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from hostagent.api.rendered import Rendered
from hostagent.db.datatype import NOT_IN_XML, DataType, Kind

if TYPE_CHECKING:
    from hostagent.db.model import ClassModel, Model

Encode = Callable[[Any], str]

EVENT = "event"
EVENT_BATCH = "event batch"
"""The answer of event.from, which is no class of the model (xenapi.md 4.1)."""


def value_text(kind: DataType, value: object, model: Model) -> str:
    """`<value>…</value>` of a kept value of that type; a task's result has this form, whatever protocol asks for it
    (xenapi.md 4.3). What XML cannot carry is dropped from texts.
    """
    if isinstance(value, Rendered):
        value = json.loads(value.text)
    return _encoders(model).of(kind)(value)


def escape(text: str) -> str:
    """Text as it may stand between tags. A carriage return is written as a reference: a parser would make a line feed
    of it (XML 1.0, 2.11).
    """
    odd = not text.isprintable()  # printable has neither control characters, surrogates nor noncharacters
    if odd:
        text = NOT_IN_XML.sub("", text)
    if "&" in text:
        text = text.replace("&", "&amp;")
    if "<" in text:
        text = text.replace("<", "&lt;")
    if ">" in text:
        text = text.replace(">", "&gt;")
    if '"' in text:
        text = text.replace('"', "&quot;")
    return text.replace("\r", "&#13;") if odd else text


_made: dict[int, Encoders] = {}


def _encoders(model: Model) -> Encoders:
    """The encoders of a model. They hold the model, so that no other one gets its id."""
    found = _made.get(id(model))
    if found is None:
        found = _made[id(model)] = Encoders(model)
    return found


class Encoders:
    """The encoders of one model's types, each built when it is first wanted."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._by_type: dict[DataType, Encode] = {}
        self._snapshots: dict[object, Encode] = {}

    def of(self, kind: DataType) -> Encode:
        encode = self._by_type.get(kind)
        if encode is None:
            encode = self._by_type[kind] = self._build(kind)
        return encode

    def _build(self, kind: DataType) -> Encode:
        match kind.kind:
            case Kind.INT:
                return _integer
            case Kind.FLOAT:
                return _number
            case Kind.BOOL:
                return _truth
            case Kind.DATETIME:
                return _moment
            case Kind.VOID:
                return _nothing
            case Kind.SET:
                return _set(self.of(kind.of()))
            case Kind.MAP:
                return _map(self.of(kind.of()))
            case Kind.OPTION:
                return _option(self.of(kind.of()))
            case Kind.RECORD:
                return self._record(kind.name)
        return _text

    def _record(self, name: str) -> Encode:
        if name == EVENT_BATCH:
            events = _set(_members({"snapshot": _by_value}, self._snapshot_of))
            return _members({"events": events, "valid_ref_counts": _map(_counted)})
        cls = self._model.classes.get(name)
        if cls is None:
            return _by_value
        return _members(self._fields(cls), self._snapshot_of if name == EVENT else None)

    def _fields(self, cls: ClassModel) -> dict[str, Encode]:
        return {field.name: self.of(field.type) for field in cls.public}

    def _snapshot_of(self, event: Mapping[str, Any]) -> Encode:
        """The encoder of an event's snapshot, which is of the class that the event names."""
        name = event.get("class", "")
        encode = self._snapshots.get(name)
        if encode is None:
            cls = self._model.by_event_name.get(str(name).lower())
            if cls is None:
                return _by_value
            encode = self._snapshots[name] = self.of(DataType(Kind.RECORD, cls))
        return encode


def _text(value: object) -> str:
    return f"<value>{escape(str(value))}</value>"


def _integer(value: object) -> str:
    return f"<value>{value}</value>"


def _counted(value: object) -> str:
    return f"<value><i4>{value}</i4></value>"


def _number(value: float) -> str:
    """16 significant digits. What is no finite number has no place in XML-RPC and is sent as 0 (xenapi.md 1.3)."""
    return f"<value><double>{value if math.isfinite(value) else 0.0:.16g}</double></value>"


def _truth(value: object) -> str:
    return "<value><boolean>1</boolean></value>" if value else "<value><boolean>0</boolean></value>"


def _moment(value: object) -> str:
    return f"<value><dateTime.iso8601>{escape(str(value))}</dateTime.iso8601></value>"


def _nothing(_value: object) -> str:
    return "<value></value>"


def _set(item: Encode) -> Encode:
    def encode(value: list[object]) -> str:
        return f"<value><array><data>{''.join(map(item, value))}</data></array></value>"

    return encode


def _map(item: Encode) -> Encode:
    def encode(value: dict[object, object]) -> str:
        members = [
            f"<member><name>{escape(str(key))}</name>{item(inner)}</member>" for key, inner in value.items()
        ]
        return f"<value><struct>{''.join(members)}</struct></value>"

    return encode


def _option(item: Encode) -> Encode:
    def encode(value: object) -> str:
        return "<value></value>" if value is None or value == "" else item(value)

    return encode


def _members(
    fields: Mapping[str, Encode], snapshot: Callable[[Mapping[str, Any]], Encode] | None = None
) -> Encode:
    """The encoder of a record with those fields. A member that is none of them goes by its Python type. `snapshot`
    gives the encoder of the member of that name, from the whole record.
    """
    known = {name: (f"<member><name>{escape(name)}</name>", encode) for name, encode in fields.items()}

    def encode(value: dict[str, object]) -> str:
        parts = ["<value><struct>"]
        for name, inner in value.items():
            found = known.get(name)
            if found is None:
                parts.append(f"<member><name>{escape(name)}</name>{_by_value(inner)}</member>")
            elif snapshot is not None and name == "snapshot":
                parts.append(f"{found[0]}{snapshot(value)(inner)}</member>")
            else:
                parts.append(f"{found[0]}{found[1](inner)}</member>")
        parts.append("</struct></value>")
        return "".join(parts)

    return encode


def _by_value(value: object) -> str:
    """A value whose type the model does not tell."""
    match value:
        case bool():
            return _truth(value)
        case float():
            return _number(value)
        case dict():
            return _map(_by_value)(value)
        case list() | tuple():
            return _set(_by_value)(list(value))
        case None:
            return _nothing(value)
    return _text(value)
