"""What a kill or a power cut left of a change of the network, before the next one begins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.net import apply, journal

if TYPE_CHECKING:
    from collections.abc import Callable

    from hostagent.net.bring import Host


def unfinished(host: Host, digest: str = "", *, waiting: Callable[[], bool] = lambda: True) -> str:
    """Undo a change that a kill or a power cut left in the middle; the caller holds the lock. What was done, in words.

    With `digest`, of what the database says: a whole one that the database has is kept. One that is `waiting` for its
    confirmation (its timer runs) is left alone; the next change is then told so (BusyError).
    """
    left = journal.pending(host.folder)
    if left is None:
        return ""
    if left.state == journal.APPLIED and left.boot_id == host.boot:
        if digest and left.digest == digest:
            journal.mark(host.folder, left, journal.COMMITTED)
            return f"kept, as the database has it: {left.what}"
        if waiting():
            return ""
    troubles = apply.take_back(left, host.tools, host.folder, boot=host.boot)
    return f"undid what was left unfinished: {left.what}" + "".join(f"; {one.found}" for one in troubles)
