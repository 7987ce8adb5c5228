"""The pool role of this host: one word in ETC/pool.conf (reference 1.4, 2.2).

`master`, `slave:<address>` (everything after the first colon, IPv6 too) or `broken`, outer space trimmed. An
unreadable or unknown content stops start-up; it never becomes a role by guessing (reference 8.2).
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hostagent.errors import InvalidValueError, OperatorError
from hostagent.files import read_bounded, write_atomic

if TYPE_CHECKING:
    from pathlib import Path

LIMIT_BYTES = 4096
MODE = 0o644
ADDRESS = re.compile(r"[0-9A-Za-z:.%_-]{1,253}")
"""What may stand for a coordinator: IPv4, IPv6 (with a zone) or a host name (RFC 1035: at most 253)."""


class RoleError(OperatorError):
    """The role file does not say a role."""


class RoleWord(enum.Enum):
    COORDINATOR = "coordinator"
    SUPPORTER = "supporter"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class PoolRole:
    """What this host is in its pool; `coordinator` is its address on a supporter, else empty."""

    kind: RoleWord
    coordinator: str = ""

    @property
    def is_coordinator(self) -> bool:
        return self.kind is RoleWord.COORDINATOR

    @property
    def word(self) -> str:
        """As people read it: `coordinator`, `supporter of 192.0.2.1`, `broken`."""
        return f"{self.kind.value} of {self.coordinator}" if self.coordinator else self.kind.value


COORDINATOR = PoolRole(RoleWord.COORDINATOR)
BROKEN = PoolRole(RoleWord.BROKEN)


def supporter_of(address: str) -> PoolRole:
    """Raises InvalidValueError for what cannot be an address."""
    if not ADDRESS.fullmatch(address):
        raise InvalidValueError(
            "address", address, f"{address!r} is not an address", hint="IPv4, IPv6 or a name"
        )
    return PoolRole(RoleWord.SUPPORTER, address)


def read_role(path: Path) -> PoolRole:
    """The role in this file. Raises FileError (missing, unreadable) and RoleError (not a role)."""
    data = read_bounded(path, limit_bytes=LIMIT_BYTES)
    try:
        return parse_role(data.decode("ascii"), path)
    except UnicodeDecodeError as error:
        raise _unknown(path, repr(data[:40])) from error


def parse_role(text: str, path: Path) -> PoolRole:
    """The role `text` says; `path` is named in the error. Raises RoleError."""
    word = text.strip()
    if word == "master":
        return COORDINATOR
    if word == "broken":
        return BROKEN
    kind, colon, address = word.partition(":")
    if kind == "slave" and colon and ADDRESS.fullmatch(address.strip()):
        return PoolRole(RoleWord.SUPPORTER, address.strip())
    raise _unknown(path, repr(word if len(word) <= 40 else f"{word[:40]}…"))


def format_role(role: PoolRole) -> str:
    match role.kind:
        case RoleWord.COORDINATOR:
            return "master"
        case RoleWord.SUPPORTER:
            return f"slave:{role.coordinator}"
        case RoleWord.BROKEN:
            return "broken"


def write_role(path: Path, role: PoolRole) -> None:
    """Change the role; it counts from the next start of the daemon on. Raises FileError."""
    write_atomic(path, format_role(role) + "\n", mode=MODE)


def _unknown(path: Path, found: str) -> RoleError:
    return RoleError(
        f"{path} says {found}, which is not a role",
        hint="write `master` for a host of its own, or `slave:ADDRESS` of its coordinator, and start again",
    )
