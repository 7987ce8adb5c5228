"""The management interface brought back by hand, without a reboot: the last verified generation, then the ladder.

`ladder.py` chooses, with its limits: rungs 3 and 4 only on NICs that the operator names. Whether one helped is judged
by the kernel: the chain is up, with carrier, and has an address if it is to have one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.errors import HostagentError
from hostagent.net import bring, cache, journal, ladder
from hostagent.net.attached import attached
from hostagent.net.unfinished import unfinished

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hostagent.net.devices import Kernel
    from hostagent.net.records import Pif, Records

SCOPE_LINK = 253
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
) -> bring.Result:
    """Bring up the management interface of `found`; if it does not work then, climb. The result of the try that works,
    else of the first one, with outcome `failed` and the console message. Raises CallerError where there is none."""
    records = found.cached.records
    request = bring.Request(bring.UP, bridge=records.bridge, management=True, timeout_s=timeout_s, boot=True)
    pif = bring.find(records, request)
    cleared = _cleared(host)
    first = _try(found, request, host)
    first["told"] = [*cleared, *first["told"]]
    if _works(records, pif, host.tools.netlink.look()):
        return first
    tried: set[tuple[int, str, int]] = set(FIRST)
    failed: list[str] = [f"the generation {found.cached.generation}: {_why(first)}"]
    while True:
        situation = ladder.Situation(records, None, tuple(cards()), listed)
        rung = ladder.choose(situation, tried)
        if rung is None or rung.records is None:
            break
        tried.add(rung.key)
        pif = ladder.management(rung.records) or pif
        again = request._replace(pif=pif.ref, bridge="", timeout_s=rung.timeout_s)
        # as verified: what is only an emergency must not become the generation to go back to
        result = _try(cache.Found(cache.Cached(rung.records, 0, verified=True)), again, host)
        if _works(rung.records, pif, host.tools.netlink.look()):
            result["told"] = [*failed, f"rung {rung.number} of the ladder: {rung.why}", *result["told"]]
            result["outcome"] = "degraded"
            return result
        failed.append(f"rung {rung.number} ({rung.why}): {_why(result)}")
    message = ladder.console_message([], situation)
    first["outcome"] = "failed"
    first["told"] = [*first["told"], *failed, *filter(None, message.splitlines())]
    return first


def _cleared(host: bring.Host) -> list[str]:
    """End what an earlier change has left, also one that waits for its confirmation: it must not be in the way."""
    try:
        with journal.Lock(host.folder, f"{host.by} emergency-reset", wait_s=LOCK_S, sleep=host.wait):
            told = unfinished(host, insist=True)
    except HostagentError as error:
        return [f"what may be left of an earlier change was not resolved: {error.found} (hint: {error.hint})"]
    return [told] if told else []


def _try(found: cache.Found, request: bring.Request, host: bring.Host) -> bring.Result:
    try:
        return bring.bring(request, found, host)
    except HostagentError as error:
        result = bring.empty_result(f"up {request.bridge or request.pif}", outcome="failed")
        result["error"] = error.record()
        return result


def _why(result: bring.Result) -> str:
    error = result["error"]
    return "; ".join([*result["told"], *([error["found"]] if error else ())]) or "no carrier or no address"


def _works(records: Records, pif: Pif, kernel: Kernel) -> bool:
    if pif.ref not in attached(records, kernel):
        return False
    bridge = records.networks[pif.network].bridge
    index = next((index for index, link in kernel.links.items() if link.name == bridge), 0)
    if not index or not kernel.links[index].carrier:
        return False
    wants = pif.ip_mode != "None" or pif.ipv6_mode != "None"
    return not wants or any(one.device == index and one.scope < SCOPE_LINK for one in kernel.addresses)
