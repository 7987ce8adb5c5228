"""Where the lab keeps things: a cache of images and saved states, and a run folder per lab."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = Path(__file__).resolve().parent.parent
PROJECT = SOURCE.parent.parent
RECIPE = SOURCE / "image"


def cache() -> Path:
    """HOSTAGENT_LAB_CACHE, else the user's cache folder."""
    given = os.environ.get("HOSTAGENT_LAB_CACHE")
    base = (
        Path(given)
        if given
        else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "hostagent-lab"
    )
    base.mkdir(parents=True, exist_ok=True)
    return base


def run_folder() -> Path:
    """Folder of the labs that are up now; gone after a reboot, like the labs."""
    base = Path(os.environ.get("HOSTAGENT_LAB_RUN", "/run/hostagent-lab"))
    base.mkdir(parents=True, exist_ok=True, mode=0o700)
    return base


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path` (made when missing); released by the kernel if the process dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
