"""The XenAPI data model, loaded from `datamodel.json`: classes, fields, messages, enums, errors, relations.

The JSON holds interface facts with our own descriptions; its `_meta` names the origin. Nothing here is typed by hand:
what a class has, which fields are computed from the other side of a relation, and who may call what, follows from it.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, field
from importlib import resources
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from hostagent.db import datatype
from hostagent.db.datatype import DataType, Kind, Value

if TYPE_CHECKING:
    from collections.abc import Mapping

FILE = "datamodel.json"
MESSAGES = "message"
"""xapi keeps these beside its database; we keep them in it."""
SCHEMA = (5, 909)
"""Major and minor of the database schema that `datamodel.json` describes (its `_meta.source`)."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field. `qualifier` is RW, StaticRO (constructor only) or DynamicRO (set by us). `fill` is the value a new
    object gets when nobody names one.
    """

    name: str
    type: DataType
    notation: str
    qualifier: str
    fill: Value
    internal: bool
    persist: bool
    state: str


@dataclass(frozen=True, slots=True)
class Param:
    """One parameter of a message, without the session."""

    name: str
    type: DataType
    notation: str
    has_default: bool
    default: Value


@dataclass(frozen=True, slots=True)
class Message:
    """One message. `generated`: it follows from a field or from the class having objects. `session` is false for the
    log-ins, which take no session reference.
    """

    cls: str
    name: str
    params: tuple[Param, ...]
    result: DataType
    notation: str
    generated: bool
    hidden: bool
    pool_internal: bool
    asynchronous: bool
    session: bool
    min_role: str
    state: str
    errors: tuple[str, ...]

    @property
    def wire_name(self) -> str:
        return f"{self.cls}.{self.name}"


@dataclass(frozen=True, slots=True)
class End:
    """One end of a relation."""

    cls: str
    field: str


@dataclass(frozen=True, slots=True)
class Relation:
    """Two fields that say the same thing from both sides. `near` holds a single reference, or a set when `many`;
    `far` is always a set, and never written.
    """

    near: End
    far: End
    many: bool


@dataclass(frozen=True, slots=True)
class ClassModel:
    """One class. `far` and `near` are the relations of which it is an end, by the name of its field.

    `in_database`: it has objects that we store; `counted`: they are a table to clients (`valid_ref_counts`), which
    messages are not (xenapi.md 4.1).
    """

    name: str
    fields: Mapping[str, Field]
    messages: Mapping[str, Message]
    in_database: bool
    counted: bool
    persistent: bool
    events: bool
    listed: bool
    state: str
    far: dict[str, Relation] = field(default_factory=dict)
    near: dict[str, Relation] = field(default_factory=dict)

    @property
    def public(self) -> tuple[Field, ...]:
        """Fields that records on the wire have."""
        return tuple(item for item in self.fields.values() if not item.internal)

    def stored(self, name: str) -> bool:
        """Is a field kept in the object's own row, not computed from a relation?"""
        return name not in self.far and not (name in self.near and self.near[name].many)


@dataclass(frozen=True, slots=True)
class Model:
    """The whole data model. `errors` maps a code to the names of its parameters, `http` the name of an HTTP handler to
    the lowest role that may use it.
    """

    classes: Mapping[str, ClassModel]
    enums: Mapping[str, tuple[str, ...]]
    errors: Mapping[str, tuple[str, ...]]
    by_event_name: Mapping[str, str]
    http: Mapping[str, str]

    def cls(self, name: str) -> ClassModel:
        """The class of that exact name. Raises KeyError."""
        return self.classes[name]

    def message(self, wire_name: str) -> Message | None:
        """The message `Class.method`, None if the model has none."""
        cls, _, name = wire_name.partition(".")
        found = self.classes.get(cls)
        return found.messages.get(name) if found else None


@functools.cache
def load() -> Model:
    """The data model; loaded once."""
    text = resources.files("hostagent.db").joinpath(FILE).read_text(encoding="utf-8")
    raw: dict[str, Any] = json.loads(text)
    enums = MappingProxyType({name: tuple(values) for name, values in raw["_enums"].items()})
    classes = {name: _class(name, facts, enums) for name, facts in raw.items() if not name.startswith("_")}
    _relate(raw["_relations"], classes)
    return Model(
        classes=MappingProxyType(classes),
        enums=enums,
        errors=MappingProxyType({code: tuple(names) for code, names in raw["_errors"].items()}),
        by_event_name=MappingProxyType({name.lower(): name for name in classes}),
        http=MappingProxyType({facts["name"]: facts["min_role"] for facts in raw["_http"]}),
    )


def _class(name: str, facts: dict[str, Any], enums: Mapping[str, tuple[str, ...]]) -> ClassModel:
    return ClassModel(
        name=name,
        fields={
            key: _field(key, item, enums, kept=name == MESSAGES) for key, item in facts["fields"].items()
        },
        messages={key: _message(name, key, item, enums) for key, item in facts["messages"].items()},
        in_database=facts["in_database"] or name == MESSAGES,
        counted=facts["in_database"],
        persistent=facts["persistent"] or name == MESSAGES,
        events=facts["events"],
        listed=facts["get_all_records"],
        state=facts["state"],
    )


def _field(name: str, facts: dict[str, Any], enums: Mapping[str, tuple[str, ...]], *, kept: bool) -> Field:
    kind = datatype.parse(facts["type"])
    declared = facts.get("has_default", True)
    fill = facts["default"] if declared and facts["default"] is not None else datatype.zero(kind, enums)
    return Field(
        name=name,
        type=kind,
        notation=facts["type"],
        qualifier=facts["qualifier"],
        fill=fill,
        internal=facts.get("internal", False),
        persist=kept or facts.get("persist", True),
        state=facts.get("state", "published"),
    )


def _message(cls: str, name: str, facts: dict[str, Any], enums: Mapping[str, tuple[str, ...]]) -> Message:
    return Message(
        cls=cls,
        name=name,
        params=tuple(_param(item, enums) for item in facts["params"]),
        result=datatype.parse(facts["result"]),
        notation=facts["result"],
        generated=facts.get("implicit", False),
        hidden=facts.get("hidden", False),
        pool_internal=facts.get("pool_internal", False),
        asynchronous=facts.get("async", False),
        session=facts.get("session", True),
        min_role=facts.get("min_role") or "",
        state=facts.get("state", "published"),
        errors=tuple(facts["errors"]),
    )


def _param(facts: dict[str, Any], enums: Mapping[str, tuple[str, ...]]) -> Param:
    kind = datatype.parse(facts["type"])
    declared = "default" in facts
    default = facts["default"] if declared else datatype.zero(kind, enums)
    return Param(facts["name"], kind, facts["type"], declared, default)


def _relate(raw: list[dict[str, str]], classes: dict[str, ClassModel]) -> None:
    """Enter the relations in both their classes. A set of references that no relation mentions is a plain field,
    and so is one that is both ends of the same relation.
    """
    for facts in raw:
        near, far = (End(*facts[side].split(".")) for side in ("one", "other"))
        if near == far:
            continue
        relation = Relation(near, far, many=facts["kind"] == "many-to-many")
        ends = (classes[near.cls].fields[near.field].type, classes[far.cls].fields[far.field].type)
        wanted = (Kind.SET if relation.many else Kind.REF, Kind.SET)
        if tuple(end.kind for end in ends) != wanted:
            raise ValueError(f"relation {facts}: its fields are {[end.kind.value for end in ends]}")
        classes[near.cls].near[near.field] = relation
        classes[far.cls].far[far.field] = relation
