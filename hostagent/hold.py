"""Hold points: a fault test stops the agent at a named place, to kill it or cut the host's power exactly there.

The file RUN/hold names the place as `<what>:<point>`. It counts only when root owns it and nobody else can write it;
without it a hold point costs one `stat`. While held, RUN/held tells the same words and the pid, so that the test knows
it was really reached; removing RUN/hold lets the work go on. Start-up steps and the changes of the network use it.
"""

from __future__ import annotations

import os
import stat
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

LOOK_EVERY_S = 0.05
GROUP_OR_WORLD_WRITE = stat.S_IWGRP | stat.S_IWOTH


def ordered(run: Path, place: str, *, owner: int = 0) -> bool:
    """Whether RUN/hold names this place, and is to be believed."""
    order = run / "hold"
    try:
        found = order.lstat()
        if found.st_uid != owner or found.st_mode & GROUP_OR_WORLD_WRITE or not stat.S_ISREG(found.st_mode):
            return False
        return order.read_text(errors="replace").strip() == place
    except OSError:
        return False


def hold(run: Path, place: str, *, owner: int = 0) -> None:
    """Stay here as long as RUN/hold names this place. Raises OSError when RUN/held cannot be written."""
    if not ordered(run, place, owner=owner):
        return
    held = run / "held"
    held.write_text(f"{place} {os.getpid()}\n")
    while ordered(run, place, owner=owner):
        time.sleep(LOOK_EVERY_S)
    held.unlink(missing_ok=True)
