"""`typing.NamedTuple`, imported fast: annotations are kept as they stand.

`typing` compiles each annotation that is text, the first at the cost of setting up the compiler's syntax tree. With the
named tuples on the way of `interface-reconfigure` that was a fifth of all the instructions of its imports.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import NamedTuple as NamedTuple
else:
    from collections import namedtuple

    class _Maker(type):
        def __new__(cls, name, bases, body):
            if not bases:
                return super().__new__(cls, name, bases, body)
            fields = body.pop("__annotations__", {})
            given = [field for field in fields if field in body]
            if given != list(fields)[len(fields) - len(given) :]:
                raise TypeError(
                    f"{name}: fields without a default come first; those with one: {', '.join(given)}"
                )
            made = namedtuple(
                name, fields, defaults=[body.pop(field) for field in given], module=body["__module__"]
            )
            made.__annotations__ = made.__new__.__annotations__ = fields
            for key, value in body.items():
                setattr(made, key, value)
            return made

    class NamedTuple(metaclass=_Maker):
        """The base of a class of fields, with or without defaults, and of methods."""
