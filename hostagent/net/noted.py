"""What is written down after a change: which generation of the records works, and the history."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from hostagent.files import FileError
from hostagent.net import cache, history

if TYPE_CHECKING:
    from hostagent.net.bring import Host, Result
    from hostagent.net.records import Records


def note_verified(host: Host, cached: cache.Cached, result: Result) -> None:
    """The management interface works: this is the generation to go back to."""
    if cached.verified:
        return
    try:
        cache.mark_verified(host.folder, cached)
    except FileError as error:
        result["told"].append(f"the generation could not be marked as verified: {error.found}")


def note_change(host: Host, records: Records | None, result: Result) -> None:
    """A change that was made, or failed, into the history. That it cannot be written there is told, no more."""
    steps = [
        history.Done(operation["verb"], operation["device"], operation["milliseconds"] or 0.0)
        for operation in result["operations"]
    ]
    error = result["error"]
    entry = history.Entry(
        time.time(),
        result["what"],
        result["outcome"],
        result["seconds"],
        host.by,
        cache.digest(records) if records is not None else "",
        told=(*result["told"], *([error["found"]] if error else ())),
    )
    try:
        history.append(host.folder, history.entry_of(entry, steps))
    except FileError as failure:
        result["told"].append(f"the history could not be written: {failure.found}")
