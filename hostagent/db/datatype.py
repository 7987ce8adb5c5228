"""XenAPI's data types: the notation of the data model, the values of each type, and what clients may send for them.

A value is kept as JSON has it: text, number, boolean, list for a set, object with text keys for a map. Datetimes are
text of the one form `YYYYMMDDTHH:MM:SSZ`, references text, integers within 64 bits (xenapi.md 1.2, 1.3).
"""

from __future__ import annotations

import datetime as dt
import functools
import math
import re
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

Value: TypeAlias = "str | int | float | bool | list[Value] | dict[str, Value]"

NULL_REF = "OpaqueRef:NULL"
EPOCH = "19700101T00:00:00Z"
INT_MIN, INT_MAX = -(1 << 63), (1 << 63) - 1
WHOLE = re.compile(r"\s*[+-]?\d{1,19}\s*", re.ASCII)
DECIMAL = re.compile(
    r"\s*[+-]?(\d{1,400}(\.\d{0,400})?|\.\d{1,400})(e[+-]?\d{1,4})?\s*", re.ASCII | re.IGNORECASE
)
MOMENT = re.compile(
    r"(\d{4})-?(\d\d)-?(\d\d)T(\d\d):?(\d\d):?(\d\d)(?:[.,]\d+)?\s*(Z|[+-]\d\d(?::?\d\d)?)?", re.ASCII
)
NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 (2.2) cannot carry, lone surrogates included."""


class Kind(Enum):
    """The base of a type."""

    STRING = "string"
    INT = "int"
    FLOAT = "float"
    BOOL = "bool"
    DATETIME = "datetime"
    VOID = "void"
    ENUM = "enum"
    REF = "ref"
    RECORD = "record"
    SET = "set"
    MAP = "map"
    OPTION = "option"


@dataclass(frozen=True, slots=True)
class DataType:
    """One type. `name`: the enum, or the class of a reference or record; `item`: what a set, a map or an option holds;
    `key`: what a map is keyed by.
    """

    kind: Kind
    name: str = ""
    item: DataType | None = None
    key: DataType | None = None

    def of(self) -> DataType:
        """What a set, a map or an option holds."""
        if self.item is None:
            raise TypeError(f"{self.kind.value} holds nothing")
        return self.item


class UnfitError(Exception):
    """A value is not of its type; the text says what the type wants."""


class NotationError(ValueError):
    """Text that is no type in the notation of the data model."""


SCALARS = {
    "string": DataType(Kind.STRING),
    "secret string": DataType(Kind.STRING),
    "int": DataType(Kind.INT),
    "float": DataType(Kind.FLOAT),
    "bool": DataType(Kind.BOOL),
    "datetime": DataType(Kind.DATETIME),
    "void": DataType(Kind.VOID),
    # the model's own words for the answer of event.from, and for the record of whatever class an event is of
    "an event batch": DataType(Kind.RECORD, "event batch"),
    "<class> record": DataType(Kind.RECORD, "<class>"),
}
SUFFIXED = {"set": Kind.SET, "option": Kind.OPTION, "ref": Kind.REF, "record": Kind.RECORD}


@functools.cache
def parse(text: str) -> DataType:
    """The type that a notation such as `(string -> VM ref) map` or `enum vdi_type set` names. Raises NotationError."""
    if text in SCALARS:
        return SCALARS[text]
    head, _, last = text.rpartition(" ")
    if last == "map" and head.startswith("(") and head.endswith(")"):
        left, right = _arrow(head[1:-1])
        return DataType(Kind.MAP, item=parse(right), key=parse(left))
    if last in SUFFIXED and head:
        kind = SUFFIXED[last]
        if kind in (Kind.SET, Kind.OPTION):
            return DataType(kind, item=parse(head))
        if head.isidentifier():
            return DataType(kind, head)
    if head == "enum" and last.isidentifier():
        return DataType(Kind.ENUM, last)
    raise NotationError(f"'{text}' is not a type")


def _arrow(text: str) -> tuple[str, str]:
    """Both sides of the outermost `->`."""
    depth = 0
    for place, char in enumerate(text):
        depth += (char == "(") - (char == ")")
        if depth == 0 and text.startswith(" -> ", place):
            return text[:place], text[place + 4 :]
    raise NotationError(f"'{text}' has no arrow")


def zero(wanted: DataType, enums: Mapping[str, tuple[str, ...]]) -> Value:
    """The value of a field for which the model declares no default."""
    match wanted.kind:
        case Kind.INT:
            return 0
        case Kind.FLOAT:
            return 0.0
        case Kind.BOOL:
            return False
        case Kind.DATETIME:
            return EPOCH
        case Kind.ENUM:
            return enums[wanted.name][0]
        case Kind.REF:
            return NULL_REF
        case Kind.SET:
            return []
        case Kind.MAP | Kind.RECORD:
            return {}
    return ""


def fit(wanted: DataType, value: object, enums: Mapping[str, tuple[str, ...]]) -> Value:
    """`value` as it is kept, when a client may send it for this type: integers and numbers also as text, moments in
    every form of ISO 8601 that clients use, an empty text for the null reference.

    Raises UnfitError. Source: xenapi.md 1.2 and 1.3, columns "accepted".
    """
    match wanted.kind:
        case Kind.STRING:
            return _text(value)
        case Kind.INT:
            return _whole(value)
        case Kind.FLOAT:
            return _number(value)
        case Kind.BOOL:
            if isinstance(value, bool):
                return value
            raise UnfitError("a boolean")
        case Kind.DATETIME:
            return moment(value)
        case Kind.ENUM:
            if isinstance(value, str) and value in enums[wanted.name]:
                return value
            raise UnfitError(f"one of {', '.join(enums[wanted.name])}")
        case Kind.REF:
            return _text(value) or NULL_REF
        case Kind.SET:
            if not isinstance(value, list | tuple):
                raise UnfitError("a set")
            return _without_repeats([fit(wanted.of(), item, enums) for item in value])
        case Kind.MAP:
            return _map(wanted, value, enums)
        case Kind.RECORD:
            if isinstance(value, dict):
                return value
            raise UnfitError("a record")
        case Kind.OPTION:
            return "" if value is None or value == "" else fit(wanted.of(), value, enums)
    if value in ("", None):
        return ""
    raise UnfitError("nothing")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise UnfitError("text")
    if NOT_IN_XML.search(value):
        raise UnfitError("text without control characters")
    return value


def _whole(value: object) -> int:
    if isinstance(value, str) and WHOLE.fullmatch(value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not INT_MIN <= value <= INT_MAX:
        raise UnfitError("an integer of 64 bits")
    return value


def _number(value: object) -> float:
    if isinstance(value, str) and DECIMAL.fullmatch(value):
        value = float(value)
    try:
        number = math.nan if isinstance(value, bool) or not isinstance(value, int | float) else float(value)
    except OverflowError:
        number = math.nan
    if not math.isfinite(number):
        raise UnfitError("a finite number")
    return number


def moment(value: object) -> str:
    """A moment in the one form in which it is kept, UTC; text without a zone is taken as UTC. Raises UnfitError."""
    found = MOMENT.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        raise UnfitError("a moment such as 20260821T02:00:23Z")
    year, month, day, hour, minute, second = (int(part) for part in found.groups()[:6])
    try:
        when = dt.datetime(year, month, day, hour, minute, second, tzinfo=dt.UTC) - _zone(found[7])
    except (ValueError, OverflowError) as error:
        raise UnfitError(f"a moment that exists ({error})") from error
    return stamp(when)


def _zone(text: str | None) -> dt.timedelta:
    if text in (None, "Z"):
        return dt.timedelta()
    digits = text[1:].replace(":", "")
    ahead = dt.timedelta(hours=int(digits[:2]), minutes=int(digits[2:] or 0))
    return -ahead if text[0] == "-" else ahead


def stamp(when: dt.datetime) -> str:
    """A moment as XenAPI writes it."""
    utc = when.astimezone(dt.UTC)
    return f"{utc.year:04}{utc:%m%dT%H:%M:%SZ}"


def _map(wanted: DataType, value: object, enums: Mapping[str, tuple[str, ...]]) -> dict[str, Value]:
    if not isinstance(value, dict) or wanted.key is None:
        raise UnfitError("a map")
    fitting: dict[str, Value] = {}
    for key, item in value.items():
        if key == "":
            raise UnfitError("a map whose keys are not empty")
        kept = key_text(wanted.key, key, enums)
        if kept in fitting:
            raise UnfitError(f"a map that has each key once, not '{kept}' twice")
        fitting[kept] = fit(wanted.of(), item, enums)
    return fitting


def key_text(wanted: DataType, key: object, enums: Mapping[str, tuple[str, ...]]) -> str:
    """The key of a map as it is kept: text, whatever its type."""
    return str(fit(wanted, key, enums))


def _without_repeats(items: list[Value]) -> list[Value]:
    if all(isinstance(item, str | int | float) for item in items):
        return list(dict.fromkeys(items))
    return [item for place, item in enumerate(items) if item not in items[:place]]
