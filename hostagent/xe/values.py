"""Text of the command line to values of the API, and values of the API to text; by the types of the data model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.db.datatype import NULL_REF, Kind, UnfitError, fit
from hostagent.db.model import load
from hostagent.xe.arguments import UsageError, boolean, size, split_list
from hostagent.xe.words import means, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hostagent.db.datatype import DataType

    FindRef = Callable[[str, str], str]
    Name = Callable[[str, str], str]

NOWHERE = "<not in database>"
DANGLING = "<invalid reference>"


def from_text(kind: DataType, text: str, name: str, find: FindRef) -> object:
    """The value that `text` means for the parameter `name`. `find(class, uuid)` gives the reference of an object.

    Sizes may have a unit, the case of enums does not matter, a set is a comma list. Raises UsageError.
    """
    match kind.kind:
        case Kind.BOOL:
            return boolean(text, name)
        case Kind.INT:
            return size(text, name)
        case Kind.ENUM:
            return _choice(kind.name, text, name)
        case Kind.REF:
            return find(kind.name, text) if text not in ("", "null", NULL_REF) else NULL_REF
        case Kind.SET:
            return [from_text(kind.of(), item, name, find) for item in split_list(text)]
        case Kind.MAP:
            raise UsageError(f"{name} is a map: write {name}:KEY=VALUE")
    try:
        return fit(kind, text, load().enums)
    except UnfitError as error:
        raise UsageError(f"{name} is {error}, not '{text}'") from error


def map_from(kind: DataType, given: Mapping[str, str], name: str, find: FindRef) -> dict[str, object]:
    """The map that `name:KEY=VALUE …` means. Raises UsageError."""
    return {key: from_text(kind.of(), text, f"{name}:{key}", find) for key, text in given.items()}


def to_text(kind: DataType, value: object, name_of: Name, separator: str = "; ") -> str:
    """A value as xe prints it. `name_of(class, reference)` gives what is printed for a reference, `separator` stands
    between the members of a set.

    Source: xenapi.md 6.4.
    """
    if isinstance(value, list):
        item = kind.of()
        return separator.join(to_text(item, member, name_of) for member in value)
    if isinstance(value, dict) and kind.kind is Kind.MAP and kind.key is not None:
        of, key = kind.of(), kind.key
        return "; ".join(f"{to_text(key, k, name_of)}: {to_text(of, v, name_of)}" for k, v in value.items())
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) or (kind.kind is Kind.FLOAT and isinstance(value, int)):
        return f"{value:.3f}"
    if kind.kind is Kind.REF:
        return name_of(kind.name, str(value))
    return shown(kind.name, str(value)) if kind.kind is Kind.ENUM else str(value)


def _choice(enum: str, text: str, name: str) -> str:
    words = load().enums[enum]
    for word in words:
        if means(enum, word, text):
            return word
    raise UsageError(f"{name} is one of {', '.join(words)}; not '{text}'")
