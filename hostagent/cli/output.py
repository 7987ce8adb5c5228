"""What a command prints: a table or record for people, JSON for programs, an error with its hint for both."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from typing import TextIO

    from hostagent.errors import HostagentError


class Colour(enum.Enum):
    """What a colour says, and its SGR code (ECMA-48 8.3.117)."""

    GOOD = "32"
    WARNING = "33"
    BAD = "31"
    DIM = "2"


WORD_COLOURS = {
    "clean": Colour.GOOD,
    "ready": Colour.GOOD,
    "changed": Colour.GOOD,
    "unchanged": Colour.GOOD,
    "starting": Colour.WARNING,
    "stopping": Colour.WARNING,
    "degraded": Colour.WARNING,
    "blocked": Colour.WARNING,
    "running": Colour.WARNING,
    "stopped": Colour.BAD,
    "failed": Colour.BAD,
    "emergency": Colour.BAD,
    "not running": Colour.BAD,
    "skipped": Colour.DIM,
    "not built": Colour.DIM,
}
"""Words of state that are coloured wherever they are a whole cell."""


def text(value: object) -> str:
    """A value as people read it: yes and no, nothing for None, lists joined with commas."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case enum.Enum():
            return str(value.value)
        case list() | tuple():
            return ", ".join(text(item) for item in value)
        case _:
            return str(value)


def size(value: object) -> str:
    """A number of bytes with a binary unit: 1536 → `1.5 KiB`."""
    if not isinstance(value, int | float):
        return text(value)
    amount = float(value)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(amount) < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def size_kib(value: object) -> str:
    """A number of KiB with a binary unit."""
    return size(value * 1024) if isinstance(value, int | float) else text(value)


def duration(value: object) -> str:
    """Seconds in the two largest units that matter: 0.012 → `12 ms`, 93784 → `1 d 2 h`."""
    if not isinstance(value, int | float):
        return text(value)
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 60:
        return f"{value:.1f} s"
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    rest = int(value)
    parts: list[str] = []
    for name, length in units:
        count, rest = divmod(rest, length)
        if count or parts:
            parts.append(f"{count} {name}")
    return " ".join(part for part in parts[:2] if not part.startswith("0 "))


def when(value: object) -> str:
    """A moment (Unix seconds) as local time."""
    if not isinstance(value, int | float):
        return text(value)
    return dt.datetime.fromtimestamp(value).astimezone().strftime("%Y-%m-%d %H:%M:%S")


@dataclass(frozen=True, slots=True)
class Column:
    """A field that people see: key, title (the key with spaces if empty) and how its value is shown."""

    key: str
    title: str = ""
    show: Callable[[object], str] = text


def emit(
    args: argparse.Namespace,
    data: object,
    *,
    columns: Sequence[Column | str] | None = None,
    empty: str = "nothing to show",
) -> None:
    """Print a record or rows to standard output.

    Arguments: `data`, one mapping or dataclass, or a sequence of them; `columns`, what people see, in order
    (all fields if None; `--json` always prints every field raw); `empty`, what people see when there are no
    rows.
    """
    plain = as_plain(data)
    if args.json:
        print(json.dumps(plain, indent=2, ensure_ascii=False, default=str))
        return
    if isinstance(plain, dict):
        shown = _columns(columns, plain)
        rows = [
            [_paint(_title(column), Colour.DIM), _cell(column, plain)]
            for column in shown
            if column.key in plain
        ]
        print(_table(rows, headers=()))
    elif isinstance(plain, list) and plain:
        shown = _columns(columns, plain[0])
        rows = [[_cell(column, row) for column in shown] for row in plain]
        print(_table(rows, headers=[_title(column) for column in shown]))
    else:
        print(empty)


def error(args: argparse.Namespace | None, failure: HostagentError) -> None:
    """Print an error and its hint to standard error, as one JSON object if the command was asked for JSON."""
    if args is not None and args.json:
        print(json.dumps({"error": failure.record()}, indent=2, ensure_ascii=False), file=sys.stderr)
        return
    print(f"{_paint('error:', Colour.BAD, stream=sys.stderr)} {failure.found}", file=sys.stderr)
    print(f"hint: {failure.hint}", file=sys.stderr)


def as_plain(data: object) -> object:
    """The same data as dicts, lists and scalars: dataclasses opened, enums by value, sets sorted."""
    if dataclasses.is_dataclass(data) and not isinstance(data, type):
        return {field.name: as_plain(getattr(data, field.name)) for field in dataclasses.fields(data)}
    match data:
        case enum.Enum():
            return data.value
        case Mapping():
            return {str(key): as_plain(value) for key, value in data.items()}
        case str() | bytes():
            return data
        case set() | frozenset():
            return sorted(as_plain(item) for item in data)  # type: ignore[type-var]
        case Sequence():
            return [as_plain(item) for item in data]
        case _:
            return data


def coloured(stream: TextIO | None = None) -> bool:
    """Whether the stream is a terminal whose user did not ask for plain text (no-color.org)."""
    return not os.environ.get("NO_COLOR") and (stream or sys.stdout).isatty()


def _paint(words: str, colour: Colour | None, *, stream: TextIO | None = None) -> str:
    return f"\x1b[{colour.value}m{words}\x1b[0m" if colour and words and coloured(stream) else words


def _columns(columns: Sequence[Column | str] | None, record: Mapping[str, object]) -> list[Column]:
    return [Column(item) if isinstance(item, str) else item for item in (columns or list(record))]


def _title(column: Column) -> str:
    return column.title or column.key.replace("_", " ")


def _cell(column: Column, record: Mapping[str, object]) -> str:
    shown = column.show(record.get(column.key))
    return _paint(shown, WORD_COLOURS.get(shown))


def _table(rows: Sequence[Sequence[str]], *, headers: Sequence[str]) -> str:
    from tabulate import tabulate

    table = tabulate(rows, headers=headers, tablefmt="simple" if headers else "plain", disable_numparse=True)
    return "\n".join(line.rstrip() for line in table.splitlines())
