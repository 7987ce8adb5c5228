"""PIFs that an undo took back, or over which the emergency reset went: noted until somebody plugs them.

The note is RUN/net/taken-back.json: references, and why. The repair of drift heeds it: otherwise it would bring up
again, unasked and unconfirmed, what cost somebody the network.
"""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

from hostagent.errors import HostagentError, OperatorError
from hostagent.files import read_bounded, write_atomic
from hostagent.net.management import chain

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

    from hostagent.net.bring import Host
    from hostagent.net.devices import Wanted
    from hostagent.net.journal import Journal
    from hostagent.net.records import Pif, Records

FILE = "net/taken-back.json"
LIMIT_BYTES = 16 << 20  # 4000 VLANs make 1 MB


class TakenBackError(OperatorError):
    """Nobody has asked for what an undo took back."""


def noted(run: Path | None) -> dict[str, str]:
    """Why each PIF is not to be repaired, by reference; a note that cannot be read is none."""
    if run is None:
        return {}
    try:
        found = json.loads(read_bounded(run / FILE, limit_bytes=LIMIT_BYTES))
    except (HostagentError, ValueError, RecursionError):
        return {}
    return {str(ref): str(why) for ref, why in found.items()} if isinstance(found, dict) else {}


def undoing(host: Host, left: Journal) -> list[str]:
    """This change is about to be undone; the caller holds the lock. That it could not be noted, in words.

    Before, because the repair begins as soon as it sees the first step of it.
    """
    return _note(host, {ref for step in left.steps for ref in step.serves}, f"{left.what} was undone")


def restoring(host: Host, records: Records, pif: Pif, newest: Records) -> list[str]:
    """The management interface is brought up as `records` have it, and is not to be made otherwise from the `newest`
    ones, those of the database: nor is what these have on its devices, or have as the management interface. Returns
    what `undoing` does, and comes before the change as that does where the daemon may run.
    """
    devices = chain(records, pif)
    refs = {pif.ref} | {
        ref
        for ref, one in newest.pifs.items()
        if one.management or not (one.vlan_master_of or devices.isdisjoint(chain(newest, one)))
    }
    return _note(host, refs, "the management interface was brought back from an earlier generation")


def refuse(host: Host, refs: Iterable[str], wanted: Wanted) -> None:
    """Raises TakenBackError where what is to come up unasked was taken back; the caller holds the lock."""
    had = noted(host.run)
    if back := had.keys() & _coming(refs, wanted):
        raise TakenBackError(had[min(back)], hint="hostagent pif plug brings it up as its records say")


def plugged(host: Host, refs: Iterable[str], wanted: Wanted) -> None:
    """Somebody had these PIFs brought up; the caller holds the lock. What came along is as the records say, too."""
    had = noted(host.run)
    if had:
        came = _coming(refs, wanted)
        kept = {ref: why for ref, why in had.items() if ref not in came}
        if kept != had:
            # where it fails they are not repaired, which is told when it matters
            with contextlib.suppress(HostagentError):
                _write(host.run, kept)


def _coming(refs: Iterable[str], wanted: Wanted) -> set[str]:
    return {*refs, *(ref for device in wanted.devices for ref in device.serves)}


def _note(host: Host, refs: Collection[str], why: str) -> list[str]:
    if host.run is None or not refs:
        return []
    try:
        _write(host.run, {**noted(host.run), **dict.fromkeys(sorted(refs), why)})
    except (HostagentError, OSError) as error:
        return [f"where drift is repaired, this may be repaired too: {error}"]
    return []


def _write(run: Path | None, refs: dict[str, str]) -> None:
    if run is not None:
        path = run / FILE
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        write_atomic(path, json.dumps(refs))
