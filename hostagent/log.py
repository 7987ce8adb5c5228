"""Logging set-up: journal form or terminal form, fields from context, values that must not be logged.

Messages go to standard error. Under systemd each line starts with its priority (`<6>`, sd-daemon(3)), which
the journal takes off and stores; on a terminal lines carry a time and a colour. The fields of a message
(step, task, …) come from a context variable set with `fields()`, never from the message itself.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import sys
from types import MappingProxyType
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_NONE: Mapping[str, str] = MappingProxyType({})
_fields: contextvars.ContextVar[Mapping[str, str]] = contextvars.ContextVar("log_fields", default=_NONE)

_PRIORITIES = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
"""Python level → syslog severity (RFC 5424 6.2.1); below INFO it is 7, debug."""

_COLOURS = ((logging.ERROR, "31"), (logging.WARNING, "33"), (logging.INFO, "0"))
_DEBUG_COLOUR = "2"


class Secret:
    """Text that must not appear in a log, report or traceback: `repr` hides it, `reveal` gives it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return "(secret)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a secret is not serialised")


@contextlib.contextmanager
def fields(**values: str) -> Iterator[None]:
    """Put fields on every message logged inside the block (and in threads that copy the context)."""
    token = _fields.set({**_fields.get(), **values})
    try:
        yield
    finally:
        _fields.reset(token)


class JournalForm(logging.Formatter):
    """One priority prefix per line, so that a traceback keeps the priority of its message."""

    def format(self, record: logging.LogRecord) -> str:
        priority = next((number for level, number in _PRIORITIES if record.levelno >= level), 7)
        text = f"{_context()}{super().format(record)}"
        return "\n".join(f"<{priority}>{line}" for line in text.splitlines())


class TerminalForm(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        colour = next((code for level, code in _COLOURS if record.levelno >= level), _DEBUG_COLOUR)
        time = self.formatTime(record, "%H:%M:%S")
        return f"\x1b[2m{time}\x1b[0m \x1b[{colour}m{_context()}{super().format(record)}\x1b[0m"


def set_up(level: str, modules: Mapping[str, str] | None = None, *, stream: TextIO | None = None) -> None:
    """Send the program's messages to `stream` (standard error), replacing what an earlier call set up."""
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    handler.setFormatter(TerminalForm() if stream.isatty() else JournalForm())
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    set_levels(level, modules or {})


AUDIT = "hostagent.audit"
"""Who changed what: written whatever the general level is, unless the settings name it."""
_set_modules: set[str] = set()


def set_levels(level: str, modules: Mapping[str, str]) -> None:
    """Change the levels while running (SIGHUP); a module no longer named falls back to the general level."""
    logging.getLogger().setLevel(level.upper())
    for name in _set_modules - set(modules):
        logging.getLogger(name).setLevel(logging.NOTSET)
    logging.getLogger(AUDIT).setLevel(logging.INFO)
    for name, module_level in modules.items():
        logging.getLogger(name).setLevel(module_level.upper())
    _set_modules.clear()
    _set_modules.update(modules)


def _context() -> str:
    values = _fields.get()
    return "".join(f"{name}={value} " for name, value in values.items())
