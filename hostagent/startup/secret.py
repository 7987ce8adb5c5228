"""The pool secret: three uuids joined by `/` in ETC/ptoken, 0600; who knows it may speak for the pool.

While a pool changes its secret, STATE/ptoken.old and STATE/ptoken.new are both present and both secrets
count. Exactly one of them means a rotation stopped half-way, and start-up stops too (reference 2.2, S8).
"""

from __future__ import annotations

import errno
import re
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hostagent.errors import OperatorError
from hostagent.files import FileError, read_bounded
from hostagent.log import Secret

if TYPE_CHECKING:
    from pathlib import Path

    from hostagent.config import Paths

LIMIT_BYTES = 4096
MODE = 0o600
VALID = re.compile(r"[0-9a-f/-]{37,}")
"""Reference S8: hexadecimal digits, `/` and `-`, at least 37 characters (more than one uuid)."""


class SecretError(OperatorError):
    """A file of the pool secret holds something else, or a rotation is half done."""


@dataclass(frozen=True, slots=True)
class PoolSecrets:
    """The secret in force, and the pair of a rotation under way (old and new are both accepted then)."""

    current: Secret
    rotation: tuple[Secret, Secret] | None = None

    @property
    def accepted(self) -> tuple[Secret, ...]:
        return (self.current, *(self.rotation or ()))


def new_secret() -> Secret:
    return Secret("/".join(str(uuid.uuid4()) for _ in range(3)))


def parse_secret(data: bytes, path: Path) -> Secret:
    """The secret in a file; one final newline, as an editor leaves it, does not count. Raises SecretError."""
    text = data.decode("ascii", errors="replace").removesuffix("\n")
    if not VALID.fullmatch(text):
        raise SecretError(
            f"{path} does not hold a pool secret ({len(data)} bytes)",
            hint="three uuids joined by `/`; restore it from a backup or, in a pool, from another member. "
            "On a host of its own: move it and the local database (local.json) away, and start again",
        )
    return Secret(text)


def read_secret(path: Path) -> Secret | None:
    """The secret in this file, None if there is no file. Raises FileError, SecretError."""
    try:
        return parse_secret(read_bounded(path, limit_bytes=LIMIT_BYTES), path)
    except FileError as error:
        if error.errno == errno.ENOENT:
            return None
        raise


def read_rotation(paths: Paths) -> tuple[Secret, Secret] | None:
    """Old and new secret while a rotation is under way. Raises FileError, SecretError."""
    old_path, new_path = paths.state / "ptoken.old", paths.state / "ptoken.new"
    old, new = read_secret(old_path), read_secret(new_path)
    if old is None and new is None:
        return None
    if old is None or new is None:
        present, missing = (old_path, new_path) if old else (new_path, old_path)
        raise SecretError(
            f"a rotation of the pool secret stopped half-way: {present} is there, {missing} is not",
            hint=f"remove {present} once {paths.pool_secret} is the coordinator's",
        )
    return old, new
