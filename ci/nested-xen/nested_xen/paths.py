"""Where the lab keeps things: a cache of images, saved states and the disks of labs that are up, and a run folder.

The run folder may be a small tmpfs: only records, sockets and pids are there.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING

from nested_xen import progress
from nested_xen.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = Path(__file__).resolve().parent.parent
PROJECT = SOURCE.parent.parent
RECIPE = SOURCE / "image"
LONGEST_RUN_FOLDER = 60
"""Of the 107 characters of a Unix socket's path; lab, host and ssh's own ending take the rest."""


def cache() -> Path:
    """HOSTAGENT_LAB_CACHE, else the user's cache folder."""
    given = os.environ.get("HOSTAGENT_LAB_CACHE")
    base = (
        Path(given)
        if given
        else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "hostagent-lab"
    )
    base = base.absolute()
    base.mkdir(parents=True, exist_ok=True)
    return base


def run_folder() -> Path:
    """HOSTAGENT_LAB_RUN, else a folder in /run: of the labs that are up now, gone after a reboot like them.

    Raises LabError when its path is too long for the sockets below it.
    """
    base = Path(os.environ.get("HOSTAGENT_LAB_RUN", "/run/hostagent-lab")).absolute()
    if len(os.fsencode(base)) > LONGEST_RUN_FOLDER:
        raise LabError(
            f"HOSTAGENT_LAB_RUN is {base}, too long for the sockets in it",
            hint=f"at most {LONGEST_RUN_FOLDER} characters",
        )
    base.mkdir(parents=True, exist_ok=True, mode=0o700)
    return base


@contextlib.contextmanager
def locked(path: Path, *, held_to: str = "") -> Iterator[None]:
    """Hold an exclusive lock on `path` (made when missing); released by the kernel if the process dies.

    `held_to`: what another process may hold it for so long that the wait is shown (`build the image`).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (fcntl.LOCK_NB if held_to else 0))
        except BlockingIOError:
            with progress.step(f"waiting for another process to {held_to}"):
                fcntl.flock(file, fcntl.LOCK_EX)
        yield
