"""`db.conf`: where the database and its copies are.

The format is xapi's (startup-and-pool-join.md 2.4): blocks that begin with `[path]`, `key:value` lines, the last block
is the preferred one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from hostagent.errors import OperatorError
from hostagent.files import read_bounded

CONF_LIMIT_BYTES = 1 << 16
HEADER = re.compile(r"\[(/.+)\]\s*")


class DbConfError(OperatorError):
    """`db.conf` cannot be understood."""


@dataclass(frozen=True, slots=True)
class Connection:
    """One block of `db.conf`. `period_s` and `cycles` cap how often a copy is written when `limited`."""

    path: Path
    limited: bool = False
    period_s: int = 21600
    cycles: int = 10
    compress: bool = False
    remote: bool = False


def parse(text: str, *, source: str = "db.conf") -> list[Connection]:
    """The connections, in the order of the file. Raises DbConfError: no block, a path twice or not absolute, a value
    that is not of its key, two databases said to be the pool's own (`is_on_remote_storage`). Keys that mean nothing to
    us, such as `format`, are passed over.
    """
    found: list[Connection] = []
    block: tuple[str, dict[str, str]] | None = None
    for number, line in enumerate((*text.splitlines(), ""), start=1):
        header = HEADER.fullmatch(line.strip())
        if block is None:
            block = (header[1], {}) if header else None
            continue
        if header or not line.strip():
            found.append(_connection(*block, source))
            block = (header[1], {}) if header else None
            continue
        key, colon, value = line.partition(":")
        if not colon:
            raise DbConfError(
                f"{source}, line {number}: '{line[:60]}' is not key:value", hint="mend that line"
            )
        block[1][key.strip().lower()] = value.strip().lower()
    paths = [connection.path for connection in found]
    if not found or len(set(paths)) != len(paths):
        raise DbConfError(
            f"{source} names {'no database' if not found else 'a database twice'}",
            hint="give each its block: [/path], then key:value lines, then an empty line; or remove the file",
        )
    if sum(connection.remote for connection in found) > 1:
        raise DbConfError(
            f"{source}: more than one database has is_on_remote_storage:true",
            hint="only one can be the pool's",
        )
    return found


def _connection(path: str, values: dict[str, str], source: str) -> Connection:
    def flag(key: str) -> bool:
        if values.get(key, "false") not in ("true", "false"):
            raise DbConfError(f"{source}: {key} of [{path}] is '{values[key]}'", hint="true or false")
        return values.get(key) == "true"

    def number(key: str, default: int) -> int:
        if not re.fullmatch(r"\d{1,9}", values.get(key, "0"), re.ASCII):
            raise DbConfError(f"{source}: {key} of [{path}] is '{values[key]}'", hint="a whole number")
        return int(values.get(key, default))

    mode = values.get("mode", "no_limit")
    if mode not in ("no_limit", "write_limit"):
        raise DbConfError(f"{source}: mode of [{path}] is '{mode}'", hint="no_limit or write_limit")
    return Connection(
        path=Path(path),
        limited=mode == "write_limit",
        period_s=number("write_limit_period", 21600),
        cycles=number("write_limit_write_cycles", 10),
        compress=flag("compress"),
        remote=flag("is_on_remote_storage"),
    )


def read_conf(path: Path, default: Path) -> list[Connection]:
    """The connections of `db.conf`, or the one default where there is no such file. Raises DbConfError, FileError."""
    if not path.exists():
        return [Connection(default)]
    text = read_bounded(path, limit_bytes=CONF_LIMIT_BYTES).decode(errors="replace")
    return parse(text, source=str(path))
