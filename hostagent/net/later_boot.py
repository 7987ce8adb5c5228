"""A takeover or a release of a card that a power cut left, at a later boot.

One file, the switch, has decided by then whose the card is (`adopt_files.py`). Where it holds what the change was to
make it hold, the rest of its files follows and the change is kept; else they are undone, as those of every change are.
Nothing of the kernel is done again, and no daemon is told anything: they read their files at the boot.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hostagent.files import FileError, read_bounded
from hostagent.net import journal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hostagent.net.bring import Host
    from hostagent.net.journal import Journal

LIMIT_BYTES = 16 << 20


def decided(host: Host, left: Journal) -> bool:
    """Whether this is a later boot, at which the switch of what is left says that it stays. Raises FileError."""
    return left.boot_id != host.boot and any(
        file.get("decides") and content(Path(file["path"])) == file["instead"] for file in _files(left)
    )


def carry_on(host: Host, left: Journal) -> str:
    """Write what is missing of the files, and keep the change; what was done, in words. The caller holds the lock.

    Raises FileError, BusyError: then it is to be tried again.
    """
    missing = [file for file in _files(left) if content(Path(file["path"])) != file["instead"]]
    for file in missing:
        host.tools.file(file["path"], file["instead"])
        host.tools.hold(f"carried on {file['path']}")
    journal.commit(host.folder, left)
    files = f"; carried on with {', '.join(file['path'] for file in missing)}" if missing else ""
    return f"kept, as the power went after it was decided: {left.what}{files}"


def content(path: Path) -> str | None:
    """What a file holds; None: there is none. Raises FileError."""
    try:
        return read_bounded(path, limit_bytes=LIMIT_BYTES).decode(errors="surrogateescape")
    except FileError as error:
        if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            return None
        raise


def _files(left: Journal) -> list[Mapping[str, Any]]:
    """The arguments of what undoes the files that it changes: the undo of its first step has all of them."""
    files = {one.args["path"]: one.args for step in left.steps for one in step.undo if "instead" in one.args}
    return list(files.values())
