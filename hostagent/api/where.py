"""The expressions of get_all_where and get_all_records_where: `field "name__label" = "x" and not (true)`.

Values compare as the text in which the XML database format writes them; nested names use two underscores
(xenapi.md 2.3).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NoReturn

from hostagent.api.fault import CallError
from hostagent.db.xmldump import column, text_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from hostagent.db.datatype import Value
    from hostagent.db.model import ClassModel

    Test = Callable[[dict[str, Value]], bool]

LENGTH_LIMIT = 4096
DEPTH_LIMIT = 32
WORD = re.compile(r'\s*("(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'|[A-Za-z_]+|[()=])', re.DOTALL)


def test(expression: str, cls: ClassModel) -> Test:
    """A test of one record. Raises CallError INTERNAL_ERROR (as xapi does) for what is no expression."""
    return _Parser(expression, cls).whole()


class _Parser:
    """Recursive descent: `or` binds weaker than `and`, `not` stronger than both."""

    def __init__(self, text: str, cls: ClassModel) -> None:
        self._text = text
        self._cls = cls
        self._columns = {column(cls.name, name): name for name in cls.fields} | {
            name: name for name in cls.fields
        }
        if len(text) > LENGTH_LIMIT:
            self._refuse(f"longer than {LENGTH_LIMIT} characters")
        self._words: list[str] = []
        place = 0
        while text[place:].strip():
            found = WORD.match(text, place)
            if found is None:
                self._refuse(f"at '{text[place : place + 20]}'")
            self._words.append(found[1])
            place = found.end()

    def whole(self) -> Test:
        found = self._either(0)
        if self._words:
            self._refuse(f"at '{self._words[0]}'")
        return found

    def _either(self, depth: int) -> Test:
        left = self._both(depth)
        while self._take("or"):
            left = _or(left, self._both(depth))
        return left

    def _both(self, depth: int) -> Test:
        left = self._one(depth)
        while self._take("and"):
            left = _and(left, self._one(depth))
        return left

    def _one(self, depth: int) -> Test:
        if depth > DEPTH_LIMIT:
            self._refuse(f"nested deeper than {DEPTH_LIMIT} levels")
        if self._take("not"):
            inner = self._one(depth + 1)
            return lambda record: not inner(record)
        if self._take("("):
            found = self._either(depth + 1)
            self._need(")")
            return found
        if self._take("true"):
            return lambda _record: True
        if self._take("false"):
            return lambda _record: False
        left = self._operand()
        self._need("=")
        right = self._operand()
        return lambda record: left(record) == right(record)

    def _operand(self) -> Callable[[dict[str, Value]], str]:
        if self._take("field"):
            name = self._columns.get(self._literal())
            if name is None:
                self._refuse(f"{self._cls.name} has no such field")
            kind = self._cls.fields[name].type
            return lambda record: text_of(kind, record[name])
        literal = self._literal()
        return lambda _record: literal

    def _literal(self) -> str:
        if not self._words or self._words[0][0] not in "'\"":
            self._refuse("a text in quotes is missing")
        return re.sub(r"\\(.)", r"\1", self._words.pop(0)[1:-1], flags=re.DOTALL)

    def _take(self, word: str) -> bool:
        if self._words and self._words[0] == word:
            del self._words[0]
            return True
        return False

    def _need(self, word: str) -> None:
        if not self._take(word):
            self._refuse(f"'{word}' is missing")

    def _refuse(self, why: str) -> NoReturn:
        raise CallError("INTERNAL_ERROR", f"cannot read the expression '{self._text[:100]}': {why}")


def _or(left: Test, right: Test) -> Test:
    return lambda record: left(record) or right(record)


def _and(left: Test, right: Test) -> Test:
    return lambda record: left(record) and right(record)
