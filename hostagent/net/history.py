"""What was done to the network, newest last: one line of JSON for each change, in a file that stays small.

It is for people: what cannot be read in it is passed over, and a change does not fail because it cannot be recorded.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from hostagent.files import FileError, read_bounded, write_atomic
from hostagent.named import NamedTuple
from hostagent.net.shown import words

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

NAME = "history.jsonl"
LIMIT_BYTES = 2 << 20
KEPT_BYTES = 1 << 20
"""What is left when the limit is reached: the newest of it."""
ARGS_MOST = 200
"""Characters of the arguments of an operation."""
STEPS = 1000
"""Steps that an entry keeps: the slowest ones, in their order."""


class Done(NamedTuple):
    """One operation of a plan."""

    verb: str
    device: str
    milliseconds: float
    args: str = ""
    """What it was done with, in words (`shown.words`): never the content of a file. Entries of before have none."""


class Entry(NamedTuple):
    at_s: float
    """When it began, in seconds since 1970."""
    what: str
    outcome: str
    """changed, degraded, waiting, confirmed, rolled-back, failed or undone."""
    seconds: float
    by: str
    """Who did it: interface-reconfigure, hostagent, guard."""
    digest: str = ""
    """Of the records it leads to (`cache.digest`)."""
    total: int = 0
    """Operations of its plan; `steps` may be fewer."""
    steps: tuple[Done, ...] = ()
    told: tuple[str, ...] = ()
    """What failed, or is less than was asked for."""


def done(verb: str, device: str, args: Mapping[str, Any], milliseconds: float) -> Done:
    """An operation with its arguments (`shown.args_of`)."""
    return Done(verb, device, milliseconds, words(verb, args)[:ARGS_MOST])


def entry_of(entry: Entry, steps: list[Done]) -> Entry:
    """The entry with these steps, as many as it keeps."""
    kept = steps
    if len(steps) > STEPS:
        slowest = sorted(range(len(steps)), key=lambda at: -steps[at].milliseconds)[:STEPS]
        kept = [steps[at] for at in sorted(slowest)]
    return entry._replace(total=len(steps), steps=tuple(kept))


def append(folder: Path, entry: Entry) -> None:
    """Add an entry; the caller holds the lock of all changes. Raises FileError.

    Not synced: what a power cut takes from here is told by the journal.
    """
    line = (json.dumps(entry, separators=(",", ":")) + "\n").encode()
    path = folder / NAME
    try:
        size = path.stat().st_size if path.exists() else 0
        if size + len(line) > LIMIT_BYTES:
            write_atomic(path, _newest(_content(path), KEPT_BYTES - len(line)) + line, mode=0o600)
            return
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.write(file, line)
        finally:
            os.close(file)
    except OSError as error:
        raise FileError(
            f"{path} could not be written: {error.strerror}", hint="df -h; mount", number=error.errno or 0
        ) from error


def read(folder: Path, most: int = 0) -> tuple[Entry, ...]:
    """The entries, newest first, at most `most` of them (0: all). Raises FileError when it cannot be read."""
    found = []
    for line in reversed(_content(folder / NAME).splitlines()):
        entry = decode(line)
        if entry is not None:
            found.append(entry)
            if len(found) == most:
                break
    return tuple(found)


def decode(line: bytes) -> Entry | None:
    """The entry on a line; None for what is none, e.g. a line that a power cut left half written."""
    try:
        value = json.loads(line)
        at_s, what, outcome, seconds, by, digest, total, steps, told = value
        entry = Entry(
            float(at_s),
            _text(what),
            _text(outcome),
            float(seconds),
            _text(by),
            _text(digest),
            int(total),
            tuple(
                Done(_text(verb), _text(device), float(ms), *(_text(one) for one in args))
                for verb, device, ms, *args in steps
            ),
            tuple(_text(one) for one in told),
        )
    except (ValueError, TypeError, OverflowError, RecursionError):
        return None
    return entry


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("a text is wanted")
    return value


def _content(path: Path) -> bytes:
    try:
        return read_bounded(path, limit_bytes=LIMIT_BYTES)
    except FileError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return b""
        raise


def _newest(content: bytes, most: int) -> bytes:
    """The last whole lines that fit into so many bytes."""
    if len(content) <= most:
        return content
    rest = content[len(content) - max(most, 0) :]
    return rest[rest.find(b"\n") + 1 :] if b"\n" in rest else b""
