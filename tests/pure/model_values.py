"""Random values of the data model's types, in the form in which they are kept and returned."""

from __future__ import annotations

import datetime as dt

from hypothesis import strategies as st

from hostagent.db import model
from hostagent.db.datatype import INT_MAX, INT_MIN, NULL_REF, DataType, Kind, parse, stamp

MODEL = model.load()
BATCH = DataType(Kind.RECORD, "event batch")

xml_text = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"), exclude_characters="\ufffe\uffff")
    | st.sampled_from("\t\n\r&<>\"' ]"),
    max_size=12,
)
"""Whatever XML 1.0 can carry."""


def _notations() -> list[str]:
    found: set[str] = set()
    for cls in MODEL.classes.values():
        found.update(field.notation for field in cls.fields.values())
        for message in cls.messages.values():
            found.update((message.notation, *(param.notation for param in message.params)))
    return sorted(found)


NOTATIONS = _notations()
"""Every type that a field, a parameter or a result of the model has."""


def values(kind: DataType) -> st.SearchStrategy[object]:
    """Kept values of a type. Records have some of their fields: with all of them an example is slow to draw."""
    match kind.kind:
        case Kind.INT:
            return st.integers(INT_MIN, INT_MAX)
        case Kind.FLOAT:
            return st.floats(allow_nan=False, allow_infinity=False)
        case Kind.BOOL:
            return st.booleans()
        case Kind.DATETIME:
            return st.datetimes(timezones=st.just(dt.UTC)).map(stamp)
        case Kind.ENUM:
            return st.sampled_from(MODEL.enums[kind.name])
        case Kind.REF:
            return st.just(NULL_REF) | st.uuids().map(lambda uuid: f"OpaqueRef:{uuid}")
        case Kind.SET:
            return st.lists(values(kind.of()), max_size=3)
        case Kind.MAP:
            return st.dictionaries(xml_text.filter(bool), values(kind.of()), max_size=3)
        case Kind.OPTION:
            return st.just("") | values(kind.of())
        case Kind.VOID:
            return st.just("")
        case Kind.RECORD:
            return event_batches() if kind == BATCH else _records(kind.name)
    return xml_text


@st.composite
def _records(draw: st.DrawFn, name: str) -> dict[str, object]:
    if name not in MODEL.classes:
        return draw(st.dictionaries(xml_text, xml_text, max_size=3))
    fields = {field.name: field.type for field in MODEL.cls(name).public}
    drawn = draw(st.lists(st.sampled_from(sorted(fields)), unique=True, max_size=4)) if fields else []
    record = {field: draw(values(fields[field])) for field in drawn}
    if name == "event":
        record.update(draw(_event()))
    return record


@st.composite
def _event(draw: st.DrawFn) -> dict[str, object]:
    name = draw(st.sampled_from(sorted(MODEL.by_event_name)).filter(lambda name: name != "event"))
    return {"class": name, "snapshot": draw(_records(MODEL.by_event_name[name]))}


@st.composite
def event_batches(draw: st.DrawFn) -> dict[str, object]:
    texts = {"id": "7", "timestamp": "0.0", "operation": "mod", "ref": NULL_REF}
    return {
        "events": draw(st.lists(_event().map(lambda event: texts | event), max_size=3)),
        "valid_ref_counts": draw(
            st.dictionaries(st.sampled_from(["vm", "task"]), st.integers(0, (1 << 31) - 1))
        ),
        "token": "00000000000000000007,00000000000000000000",
    }


def typed_values() -> st.SearchStrategy[tuple[DataType, object]]:
    """A type of the model and a value of it."""
    kinds = st.sampled_from(NOTATIONS).map(parse)
    return kinds.flatmap(lambda kind: st.tuples(st.just(kind), values(kind)))
