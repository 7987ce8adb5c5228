"""The management interface brought back by hand, without a reboot: the last verified generation, then the ladder.

`ladder.py` chooses, with its limits: rungs 3 and 4 only on NICs that the operator names. Whether one helped is judged
by the kernel: the chain is up, with carrier, and has an address if it is to have one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.errors import HostagentError
from hostagent.net import bring, cache, ladder
from hostagent.net.attached import works

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


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
    first = _try(found, request, host)
    if works(records, pif, host.tools.netlink.look()):
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
        if works(rung.records, pif, host.tools.netlink.look()):
            result["told"] = [*failed, f"rung {rung.number} of the ladder: {rung.why}", *result["told"]]
            result["outcome"] = "degraded"
            return result
        failed.append(f"rung {rung.number} ({rung.why}): {_why(result)}")
    message = ladder.console_message([], situation)
    first["outcome"] = "failed"
    first["told"] = [*first["told"], *failed, *filter(None, message.splitlines())]
    return first


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
