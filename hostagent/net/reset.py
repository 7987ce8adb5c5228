"""The management interface brought back by hand, without a reboot: the last verified generation, then the ladder.

`ladder.py` chooses, with its limits: rungs 3 and 4 only on NICs that the operator names. Whether one helped is judged
by the kernel: the chain is up, with carrier, and has an address if it is to have one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.errors import BusyError, HostagentError
from hostagent.net import bring, cache, climb, emergency, journal, ladder, taken_back
from hostagent.net.attached import works
from hostagent.net.unfinished import unfinished

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hostagent.net.records import Pif, Records
    from hostagent.net.result import Result

LOCK_S = 30.0
FIRST = {(ladder.RETRY, "", -1), (ladder.RESTORE, "", -1)}
"""What the command does before it climbs."""


def reset(
    found: cache.Found,
    host: bring.Host,
    cards: Callable[[], Sequence[ladder.Seen]],
    *,
    listed: tuple[str, ...] = (),
    timeout_s: float = 60.0,
) -> Result:
    """Bring up the management interface of `found`; if it does not work then, or there is none, climb. The result of
    the try that works, else of the first one, with outcome `failed` and the console message.

    Raises NoSuchPifError where no record says what management is, and no NIC is `listed`; NetlinkError; FileError
    where the lock of all changes cannot be had: then nothing could be tried.
    """
    records = found.cached.records
    request = bring.Request(bring.UP, bridge=records.bridge, management=True, timeout_s=timeout_s, boot=True)
    pif, tried = None, FIRST
    try:
        pif = bring.find(records, request)
    except bring.NoSuchPifError as error:
        if not listed and ladder.management(records) is None:
            raise
        first = bring.empty_result("up the management interface")
        first["error"] = error.record()
        first["told"] += found.told
        tried = set()
    cleared = _cleared(host)
    if pif is not None:
        cleared += _noted(host, records, pif)
        first = climb.attempt(found, request, host)
    first["told"] = [*cleared, *first["told"]]
    if pif is not None and works(records, pif, host.tools.netlink.look()):
        first["told"] += emergency.end(host, records.bridge)
        return first

    def situation() -> ladder.Situation:  # whatever daemon has them: an operator named these NICs
        return ladder.Situation(records, None, tuple(cards()), listed, climb.last_lease(records, host))

    nobody = ladder.unknown(situation())
    climbed = climb.climb(situation, host, tried=tried)
    failed = [
        f"the generation {found.cached.generation}: {'; '.join(climb.said(first)) or 'no carrier or no address'}",
        *climbed.told,
    ]
    if climbed.rung is not None and climbed.result is not None:
        rung, result = climbed.rung, climbed.result
        result["told"] = [*failed, *nobody, f"rung {rung.number} of the ladder: {rung.why}", *result["told"]]
        result["outcome"] = "degraded"
        return result
    first["outcome"] = "failed"
    first["told"] = [*first["told"], *failed, *filter(None, climbed.message.splitlines())]
    return first


def _cleared(host: bring.Host) -> list[str]:
    """End what an earlier change has left, also one that waits for its confirmation: it must not be in the way."""
    try:
        with journal.Lock(host.folder, f"{host.by} emergency-reset", wait_s=LOCK_S, sleep=host.wait):
            try:
                told = unfinished(host, insist=True)
            except HostagentError as error:
                return [_unresolved(error)]
    except BusyError as error:
        return [_unresolved(error)]
    return [told] if told else []


def _noted(host: bring.Host, records: Records, pif: Pif) -> list[str]:
    try:
        newest = cache.read(host.folder).cached.records
    except HostagentError:
        newest = records
    return taken_back.restoring(host, records, pif, newest)


def _unresolved(error: HostagentError) -> str:
    return f"what may be left of an earlier change was not resolved: {error.found} (hint: {error.hint})"
