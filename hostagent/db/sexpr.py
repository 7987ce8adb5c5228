"""Sets and maps as the XML database format writes them: s-expressions of quoted text, `('a' 'b')`, `(('k' 'v'))`."""

from __future__ import annotations

from typing import TypeAlias

Expression: TypeAlias = "str | list[Expression]"

DEPTH_LIMIT = 16
QUOTES = "'\""
SPACE = " \t\n\r"


class MalformedError(ValueError):
    """Text that is no s-expression."""


def write(value: Expression) -> str:
    """A text in quotes, a list in parentheses."""
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"'{escaped}'"
    return f"({' '.join(write(item) for item in value)})"


def read(text: str) -> Expression:
    """The one value a text holds. Raises MalformedError: not closed, nested deeper than 16, something behind it."""
    stack: list[list[Expression]] = [[]]
    place = 0
    while place < len(text):
        char = text[place]
        if char in SPACE:
            place += 1
        elif char == "(":
            if len(stack) > DEPTH_LIMIT:
                raise MalformedError(f"nested deeper than {DEPTH_LIMIT} levels")
            stack.append([])
            place += 1
        elif char == ")":
            if len(stack) == 1:
                raise MalformedError(f"closed at {place}, and never opened")
            done = stack.pop()
            stack[-1].append(done)
            place += 1
        else:
            word, place = _quoted(text, place) if char in QUOTES else _bare(text, place)
            stack[-1].append(word)
    if len(stack) != 1 or len(stack[0]) != 1:
        raise MalformedError(
            "not closed" if len(stack) > 1 else f"{len(stack[0])} values where one should be"
        )
    return stack[0][0]


def _quoted(text: str, place: int) -> tuple[str, int]:
    quote, parts, start = text[place], [], place + 1
    at = start
    while at < len(text):
        if text[at] == "\\" and at + 1 < len(text):
            parts += [text[start:at], text[at + 1]]
            at = start = at + 2
        elif text[at] == quote:
            return "".join((*parts, text[start:at])), at + 1
        else:
            at += 1
    raise MalformedError(f"the quote at {place} is not closed")


def _bare(text: str, place: int) -> tuple[str, int]:
    end = place
    while end < len(text) and text[end] not in SPACE + "()" + QUOTES:
        end += 1
    return text[place:end], end
