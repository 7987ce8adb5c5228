"""The local database: a few flags of this host alone that must survive whatever happens to the rest.

One JSON object in STATE/local.json, replaced whole at each change (reference 2.3). Reads never raise: they
answer from memory. What is kept inside may become something else later; callers see only `LocalStore`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from hostagent.files import FileError, read_bounded, write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

log = logging.getLogger(__name__)

T = TypeVar("T", bool, str)

LIMIT_BYTES = 1 << 20
MODE = 0o600


@dataclass(frozen=True, slots=True)
class Key(Generic[T]):
    """A key, the type of its value, and what reading it gives while it is absent."""

    name: str
    default: T


HA_ARMED = Key("ha.armed", default=False)
HA_DISABLE_FAILOVER_DECISIONS = Key("ha.disable_failover_decisions", default=False)
HA_CLUSTER_STACK = Key("ha_cluster_stack", default="")
HA_BASE_T = Key("ha_base_t", default="")
HA_PEERS = Key("ha_peers", default="")
MASTER_SCRIPTS = Key("master_scripts", default=False)
THIS_NODE_JUST_BECAME_MASTER = Key("this_node_just_became_master", default=False)
HOST_DISABLED_UNTIL_REBOOT = Key("host_disabled_until_reboot", default=False)
HOST_AUTO_ENABLE = Key("host_auto_enable", default=True)
HOST_RESTARTED_CLEANLY = Key("host_restarted_cleanly", default=False)
REDO_LOG_ENABLED = Key("redo_log.enabled", default=False)
LAST_UPDATE_HASH = Key("last_update_hash", default="")
"""From ha.armed to here: reference 2.3."""

IDENTITY_MADE = Key("identity_made", default=False)
"""Ours: role, inventory and pool secret have all been there. One that is missing after that was lost, and is never made
anew; before that, a first start was cut off and the next one makes what it did not come to."""


class LocalStore:
    """The local database of one host, open. Its methods may be called from any thread.

    `set_aside` is where an unreadable earlier file was put, None if it was fine. Reads answer what was there when the
    store was opened, or at the last write; a write starts from what the file holds now, as another process may have
    written other keys.
    """

    def __init__(self, path: Path, values: Mapping[str, object], *, set_aside: Path | None = None) -> None:
        self._path = path
        self._values = dict(values)
        self._lock = threading.Lock()
        self.set_aside = set_aside

    def get(self, key: Key[T]) -> T:
        """The value, or the key's default while it is absent or of another type."""
        with self._lock:
            value = self._values.get(key.name)
        return value if isinstance(value, type(key.default)) else key.default

    def has(self, key: Key[T]) -> bool:
        with self._lock:
            return isinstance(self._values.get(key.name), type(key.default))

    def shown(self, name: str) -> str | None:
        """The value of a key as reports show it; None while it is absent."""
        with self._lock:
            return str(self._values[name]).lower() if name in self._values else None

    def imagined(self, values: Mapping[str, bool | str]) -> LocalStore:
        """A store as this one would be after `put_all`, for plans; nothing is written."""
        with self._lock:
            return LocalStore(self._path, {**self._values, **values})

    def put(self, key: Key[T], value: T) -> None:
        """Store a value durably; on return it survives a power cut. Raises FileError, and then nothing
        changed.
        """
        self.put_all({key.name: value})

    def put_all(self, values: Mapping[str, bool | str]) -> None:
        """Store several values in one step: after a crash all of them are there or none."""
        with self._lock, _turn_to_write(self._path):
            present = self._path.exists()
            found = look(self._path) if present else None
            now = self._values if found is None else found._values
            changed = {**now, **values}
            if changed != now or not present:
                write_atomic(self._path, json.dumps(changed, indent=1, sort_keys=True) + "\n", mode=MODE)
            self._values = changed


@contextlib.contextmanager
def _turn_to_write(path: Path) -> Iterator[None]:
    """Between reading the file and writing it no other process writes it; held for one small write each."""
    try:
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise FileError(
            f"{path} could not be written: {path.parent}: {error.strerror}",
            hint="is it a directory that root can write?",
            number=error.errno or 0,
        ) from error
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def look(path: Path) -> LocalStore | None:
    """The store as it is on disk, without changing anything; None if its file cannot be understood.

    Raises FileError when the file is there but cannot be read (not for a missing one: that is an empty
    store).
    """
    try:
        values = json.loads(read_bounded(path, limit_bytes=LIMIT_BYTES))
    except FileError as error:
        if error.errno == errno.ENOENT:
            return LocalStore(path, {})
        if error.errno:
            raise
        return None
    except (ValueError, RecursionError):
        return None
    return LocalStore(path, values) if isinstance(values, dict) else None


def open_store(path: Path) -> LocalStore:
    """Open the store. A file that cannot be understood is set aside as `<name>.corrupt-<time>`, never
    deleted.

    Raises FileError: the file is there but cannot be read, or cannot be set aside.
    """
    store = look(path)
    if store is not None:
        return store
    aside = corrupt_name(path)
    try:
        path.rename(aside)
    except OSError as error:
        raise FileError(
            f"{path} is damaged and could not be set aside: {error.strerror}",
            hint=f"move it away: mv {path} {aside}",
            number=error.errno or 0,
        ) from error
    log.warning("%s could not be understood; it is kept as %s", path, aside)
    return LocalStore(path, {}, set_aside=aside)


def corrupt_name(path: Path) -> Path:
    """A free name beside `path` for what cannot be understood."""
    return dated_name(path, "corrupt")


def dated_name(path: Path, what: str) -> Path:
    """A free name beside `path` that tells what it became, and when (UTC)."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    name = path.with_name(f"{path.name}.{what}-{stamp}")
    number = 1
    while name.exists():
        number += 1
        name = path.with_name(f"{path.name}.{what}-{stamp}-{number}")
    return name
