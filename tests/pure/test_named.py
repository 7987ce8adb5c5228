"""Named tuples that are imported fast are what `typing` makes."""

from __future__ import annotations

import copy
import types
import typing

import pytest

from hostagent.named import NamedTuple


class Ours(NamedTuple):
    """A thing."""

    name: str
    size: int = 3
    names: tuple[str, ...] = ()

    @property
    def twice(self) -> int:
        return self.size * 2

    @classmethod
    def named(cls, name: str) -> Ours:
        return cls(name)


class Theirs(typing.NamedTuple):
    """A thing."""

    name: str
    size: int = 3
    names: tuple[str, ...] = ()


def test_it_has_what_one_of_typing_has() -> None:
    for name in ("_fields", "_field_defaults", "__doc__", "__module__", "__match_args__", "__slots__"):
        assert getattr(Ours, name) == getattr(Theirs, name), name
    assert typing.get_type_hints(Ours) == typing.get_type_hints(Theirs)
    assert list(Ours.__annotations__) == list(Theirs.__annotations__)
    assert set(dir(Theirs)) - set(dir(Ours)) <= {"__orig_bases__"}


def test_its_objects_are_tuples_with_methods() -> None:
    one = Ours.named("a")
    assert tuple(one) == tuple(Theirs("a")) == ("a", 3, ())
    assert one._replace(size=4).twice == 8
    assert repr(one) == "Ours(name='a', size=3, names=())"
    assert type(copy.copy(one)) is Ours
    with pytest.raises(AttributeError):
        one.name = "b"  # type: ignore[misc]
    with pytest.raises(TypeError, match="name"):
        Ours()  # type: ignore[call-arg]


def test_a_field_without_default_behind_one_with_it_is_refused() -> None:
    fields = {"__module__": __name__, "__annotations__": {"first": "int", "second": "int"}, "first": 1}
    with pytest.raises(TypeError, match="Wrong: fields without a default come first; those with one: first"):
        types.new_class("Wrong", (NamedTuple,), exec_body=lambda body: body.update(fields))
