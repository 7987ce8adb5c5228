"""What is written down after a change: which generation of the records works, and the history."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from hostagent.errors import CallerError, HostagentError
from hostagent.net import cache, history
from hostagent.net.attached import works
from hostagent.net.shown import args_of, names_in

if TYPE_CHECKING:
    from collections.abc import Callable

    from hostagent.net.bring import Host
    from hostagent.net.change import Course
    from hostagent.net.devices import Kernel
    from hostagent.net.journal import Journal
    from hostagent.net.records import Pif, Records
    from hostagent.net.result import Result


def note_verified(host: Host, generation: Callable[[], cache.Cached], result: Result, ref: str) -> None:
    """The management interface, this PIF, is up: this is the generation to go back to, unless another one is management
    in it, it came up with less and does not work, or its gateway does not answer; that is told."""
    try:
        cached = generation()
        records = cached.records
        pif = records.pifs.get(ref)
        network = records.networks.get(pif.network) if pif is not None else None
        if pif is None or network is None or network.bridge != records.bridge or cached.verified:
            return
        kernel = host.tools.netlink.look()
        if result["outcome"] == "degraded" and not works(records, pif, kernel):
            return
        if silent := _silent(host, pif, network.bridge, kernel):
            result["told"].append(
                f"generation {cached.generation} is not marked as verified:"
                f" the gateway {silent} does not answer on {network.bridge}"
            )
            return
        cache.mark_verified(host.folder, cached)
    except HostagentError as error:
        result["told"].append(f"the generation could not be marked as verified: {error.found}")


def _silent(host: Host, pif: Pif, device: str, kernel: Kernel) -> str:
    """The gateway of a PIF that does not answer; empty where it does, or nobody can be asked."""
    if host.wire is None:
        return ""
    from hostagent.net.reachable import silent_gateway

    return silent_gateway(pif, kernel, device, host.wire)


def note_change(host: Host, records: Records | None, result: Result) -> None:
    """A change that was made, or failed, into the history. That it cannot be written there is told, no more."""
    steps = [
        history.done(one["verb"], one["device"], one["args"], one["milliseconds"] or 0.0)
        for one in result["operations"]
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
    names = names_in(change.planned, change.kernel)
    steps = [
        history.done(step.do.verb, step.do.device, args_of(step.do, names), took)
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
