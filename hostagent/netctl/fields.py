"""Fields of objects with the type that the data model gives them; the null reference is "" here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.db.datatype import NULL_REF

if TYPE_CHECKING:
    from hostagent.db.view import View


def text(view: View, cls: str, ref: str, field: str) -> str:
    """A text, or a reference. Raises HandleInvalidError, as all here do."""
    value = str(view.get(cls, ref, field))
    return "" if value == NULL_REF else value


def flag(view: View, cls: str, ref: str, field: str) -> bool:
    return view.get(cls, ref, field) is True


def number(view: View, cls: str, ref: str, field: str) -> int:
    value = view.get(cls, ref, field)
    return value if isinstance(value, int) else -1


def texts(view: View, cls: str, ref: str, field: str) -> list[str]:
    """A set of texts or of references."""
    value = view.get(cls, ref, field)
    return [str(item) for item in value] if isinstance(value, list) else []


def pairs(view: View, cls: str, ref: str, field: str) -> dict[str, str]:
    """A map of text to text."""
    value = view.get(cls, ref, field)
    return {key: str(item) for key, item in value.items()} if isinstance(value, dict) else {}
