"""The emergency ladder climbed: what `ladder.py` chooses is tried until the management interface works.

Whether it does is judged by the kernel (`attached.works`). At boot (`early.py`) and by hand (`reset.py`) alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from hostagent.errors import HostagentError
from hostagent.net import bring, cache, ladder
from hostagent.net.attached import works

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from hostagent.net.records import Pif, Records


class Climbed(NamedTuple):
    """`rung` is the one that helped, with its result; None where none did. `failed`: the others, and why."""

    rung: ladder.Rung | None
    result: bring.Result | None
    failed: tuple[tuple[ladder.Rung, str], ...]
    message: str
    """For the console."""

    @property
    def told(self) -> tuple[str, ...]:
        return tuple(f"rung {rung.number} ({rung.why}): {why}" for rung, why in self.failed)


def climb(
    situation: Callable[[], ladder.Situation],
    host: bring.Host,
    *,
    tried: Collection[tuple[int, str, int]] = (),
    held: Callable[[Records, Pif], str] = lambda *_: "",
    until: float = 0.0,
) -> Climbed:
    """Rung after rung but those `tried`, none begun after `until` on the host's clock (0: no limit). `held`: why the
    NICs of a PIF are not to be touched, in words. Raises NetlinkError where the kernel cannot even be looked at.
    """
    done = set(tried)
    failed: list[tuple[ladder.Rung, str]] = []
    while True:
        now = situation()
        rung = ladder.choose(now, done)
        if rung is None or rung.records is None or (until and host.clock() >= until):
            return Climbed(None, None, tuple(failed), ladder.console_message(failed, now))
        done.add(rung.key)
        pif = ladder.management(rung.records)
        if pif is None:
            continue
        if why := held(rung.records, pif):
            failed.append((rung, why))
            continue
        request = bring.Request(bring.UP, pif=pif.ref, management=True, timeout_s=rung.timeout_s, boot=True)
        # as verified: what is only an emergency must not become the generation to go back to
        result = attempt(cache.Found(cache.Cached(rung.records, 0, verified=True)), request, host)
        if works(rung.records, pif, host.tools.netlink.look()):
            return Climbed(rung, result, tuple(failed), "")
        failed.append((rung, "; ".join(said(result)) or "no carrier or no address"))


def attempt(found: cache.Found, request: bring.Request, host: bring.Host) -> bring.Result:
    """As `bring.bring`; what stops it is told as outcome `failed`."""
    try:
        return bring.bring(request, found, host)
    except HostagentError as error:
        result = bring.empty_result(f"up {request.bridge or request.pif}", outcome="failed")
        result["error"] = error.record()
        return result


def said(result: bring.Result) -> tuple[str, ...]:
    """What was told, and the error."""
    error = result["error"]
    return (*result["told"], *([f"{error['found']} (hint: {error['hint']})"] if error else ()))
