"""What is written down after a change: which generation of the records works, and the history."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from hostagent.errors import CallerError, HostagentError
from hostagent.net import cache, history

if TYPE_CHECKING:
    from collections.abc import Callable

    from hostagent.net.bring import Host, Result
    from hostagent.net.change import Course
    from hostagent.net.journal import Journal
    from hostagent.net.records import Records


def note_verified(host: Host, generation: Callable[[], cache.Cached], result: Result, ref: str) -> None:
    """The management interface, this PIF, works: this is the generation to go back to, unless another one is management
    in it."""
    try:
        cached = generation()
        records = cached.records
        network = records.networks.get(records.pifs[ref].network) if ref in records.pifs else None
        if network is None or network.bridge != records.bridge:
            return
        if not cached.verified:
            cache.mark_verified(host.folder, cached)
    except HostagentError as error:
        result["told"].append(f"the generation could not be marked as verified: {error.found}")


def note_change(host: Host, records: Records | None, result: Result) -> None:
    """A change that was made, or failed, into the history. That it cannot be written there is told, no more."""
    steps = [
        history.Done(operation["verb"], operation["device"], operation["milliseconds"] or 0.0)
        for operation in result["operations"]
    ]
    error = result["error"]
    told = (*result["told"], *([error["found"]] if error else ()))
    digest = cache.digest(records) if records is not None else ""
    failed = _note(host, result["what"], result["outcome"], result["seconds"], digest, steps, told)
    result["told"] += failed


def note_course(host: Host, course: Course, seconds: float, error: BaseException | None = None) -> None:
    """As `note_change`, for who has no result to tell of."""
    change = course.change
    if change is None:
        return
    spent = [*course.milliseconds, *[0.0] * (len(change.planned.steps) - len(course.milliseconds))]
    steps = [
        history.Done(step.do.verb, step.do.device, took)
        for step, took in zip(change.planned.steps, spent, strict=True)
    ]
    found = [error.found if isinstance(error, HostagentError) else type(error).__name__] if error else []
    _note(host, change.what, course.outcome, seconds, change.digest, steps, (*course.less, *found))


def nothing_to_confirm(host: Host, left: Journal | None) -> CallerError:
    """Why no change can be confirmed: the one in the journal is none to keep, or there is none (any more)."""
    if left is not None:
        why = "is of before this boot" if left.boot_id != host.boot else f"is {left.state}, and not whole"
        return CallerError(f"{left.what} {why}: it cannot be confirmed", hint="hostagent net undo")
    last: tuple[history.Entry, ...] = ()
    with contextlib.suppress(HostagentError):
        last = history.read(host.folder, most=1)
    became = ""
    if last and last[0].outcome in ("undone", "undo-failed"):
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(last[0].at_s))
        in_part = ", in part" if last[0].outcome != "undone" else ""
        became = f": {last[0].what} was undone at {when}{in_part}"
    return CallerError(f"no change waits for confirmation{became}", hint="hostagent net history")


def _note(
    host: Host,
    what: str,
    outcome: str,
    seconds: float,
    digest: str,
    steps: list[history.Done],
    told: tuple[str, ...],
) -> list[str]:
    """An entry of the history; why there is none, in words: it is for people, and must not fail the change."""
    entry = history.Entry(time.time() - seconds, what, outcome, seconds, host.by, digest, told=told)
    try:
        history.append(host.folder, history.entry_of(entry, steps))
    except HostagentError as failure:
        return [f"the history could not be written: {failure.found}"]
    return []
