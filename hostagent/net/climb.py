"""The emergency ladder climbed: what `ladder.py` chooses is tried until the management interface works.

Whether it does is judged by the kernel (`attached.works`). At boot (`early.py`) and by hand (`reset.py`) alike.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from hostagent.errors import HostagentError
from hostagent.named import NamedTuple
from hostagent.net import bring, cache, emergency, ladder, taken_back
from hostagent.net.attached import works
from hostagent.net.devices import SCOPE_LINK, UP
from hostagent.net.operation import Operation
from hostagent.net.settle import CARRIER_S, POLL_S

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from hostagent.net.devices import Kernel
    from hostagent.net.dhcp_lease import Leased
    from hostagent.net.records import Pif, Records
    from hostagent.net.result import Result

SOON_S = 20.0
"""For rungs 1 and 2 where rungs 3 and 4 can follow: the boot waits for all of them together."""


class Climbed(NamedTuple):
    """`rung` is the one that helped, with its result; None where none did. `failed`: the others, and why."""

    rung: ladder.Rung | None
    result: Result | None
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
    dead: list[str] = []
    now = situation()
    if _lift(now.listed, host):
        now = situation()
    while True:
        rung = ladder.choose(now, done)
        late = bool(until) and host.clock() >= until
        if rung is None or rung.records is None or late:
            _put_back(dead, now, host)
            if rung is not None and not late:
                _ask_on(rung.cards, now, host, held)
            local = link_local(host.tools.netlink.look(), now.listed)
            return Climbed(None, None, tuple(failed), ladder.console_message(failed, now, local))
        done.add(rung.key)
        pif = ladder.management(rung.records)
        if pif is None:
            continue
        if why := held(rung.records, pif):
            failed.append((rung, why))
            continue
        told: list[str] = []
        if rung.number >= ladder.PLAIN:
            dead = dead or _ways(now)
            told = emergency.aside([one for one in dead if one != rung.records.bridge], host)
        result = _raised(rung.records, pif, _seconds(rung, now), host)
        result["told"] = [*told, *result["told"]]
        if works(rung.records, pif, host.tools.netlink.look()):
            result["told"] += _noted(rung, pif, now, host)
            return Climbed(rung, result, tuple(failed), "")
        failed.append((rung, "; ".join(said(result)) or "no carrier or no address"))
        if rung.number == ladder.PLAIN:
            dead.append(rung.records.bridge)
        now = situation()


def _ways(now: ladder.Situation) -> list[str]:
    """The bridges that rungs 1 and 2 may have left an address on, which leads nowhere."""
    tried = [records for records in (now.records, now.verified) if records is not None]
    return list(dict.fromkeys(records.bridge for records in tried if records.bridge))


def _noted(rung: ladder.Rung, pif: Pif, now: ladder.Situation, host: bring.Host) -> list[str]:
    """Note what management stands on now, or that it stands on its own; what is told."""
    if rung.number < ladder.PLAIN or rung.records is None:
        told = emergency.end(host, rung.records.bridge if rung.records is not None else "")
        if rung.number == ladder.RESTORE and rung.records is not None:
            told += taken_back.restoring(host, rung.records, pif, now.records)
        return told
    try:
        emergency.begin(host, rung, now.records.bridge)
    except HostagentError as error:
        return [f"the rung could not be noted: {error.found} (hint: {error.hint})"]
    return []


def _put_back(dead: Sequence[str], now: ladder.Situation, host: bring.Host) -> None:
    """No rung helped: the management interface has its address again, for when its cable does."""
    pif = ladder.management(now.records)
    if not dead or pif is None:
        return
    emergency.aside([one for one in dead if one != now.records.bridge], host)
    _raised(now.records, pif, ladder.TIMEOUTS_S[ladder.CONSOLE], host)


def last_lease(records: Records, host: bring.Host) -> Leased | None:
    """What a DHCP server last gave to the management interface, kept below STATE; None where none is known."""
    from hostagent.net import dhcp_lease

    return dhcp_lease.last(records.bridge, 4, host.folder.parent) if records.bridge else None


def link_local(kernel: Kernel, listed: Sequence[str]) -> list[str]:
    """Where this host can be reached on its segment by an address that needs nobody: of these NICs or what they are
    ports of."""
    names = kernel.by_name()
    carrying = dict.fromkeys(names[name].master or names[name].ifindex for name in listed if name in names)
    return [
        f"{one.text} on {kernel.links[one.device].name}"
        for one in kernel.addresses
        if one.device in carrying and one.scope >= SCOPE_LINK
    ]


def _lift(listed: Sequence[str], host: bring.Host) -> bool:
    """Set listed NICs up that nobody has: before that they have no carrier. Waits for it; whether there were any."""
    links = host.tools.netlink.look().by_name()
    down = [links[name] for name in listed if name in links and not links[name].flags & UP]
    down = [link for link in down if not link.master]
    with contextlib.suppress(HostagentError):
        host.tools.netlink.execute(
            [Operation("link-set", link.name, link.ifindex, {"up": True}) for link in down]
        )
    until = host.clock() + CARRIER_S
    while down and host.clock() < until:
        kernel = host.tools.netlink.look()
        if all(kernel.links[link.ifindex].carrier for link in down if link.ifindex in kernel.links):
            break
        host.wait(POLL_S)
    return bool(down)


def _ask_on(
    names: Sequence[str],
    now: ladder.Situation,
    host: bring.Host,
    held: Callable[[Records, Pif], str],
) -> None:
    """The last rung: each listed NIC on its bridge, which has a link-local address and goes on asking for another."""
    for card in now.cards:
        if card.name not in names:
            continue
        records = ladder.on_card(now.records, card, ladder.ASK)
        pif = ladder.management(records)
        if pif is not None and not held(records, pif):
            _raised(records, pif, ladder.TIMEOUTS_S[ladder.CONSOLE], host)


def _seconds(rung: ladder.Rung, now: ladder.Situation) -> float:
    """Less for what has just failed, and for what failed before, where there are NICs for the rungs after them."""
    others = rung.number <= ladder.RESTORE and ladder.usable(now)
    return min(rung.timeout_s, SOON_S) if others else rung.timeout_s


def _raised(records: Records, pif: Pif, timeout_s: float, host: bring.Host) -> Result:
    request = bring.Request(bring.UP, pif=pif.ref, management=True, timeout_s=timeout_s, boot=True)
    # as verified: what is only an emergency must not become the generation to go back to
    return attempt(cache.Found(cache.Cached(records, 0, verified=True)), request, host)


def attempt(found: cache.Found, request: bring.Request, host: bring.Host) -> Result:
    """As `bring.bring`; what stops it is told as outcome `failed`."""
    try:
        return bring.bring(request, found, host)
    except HostagentError as error:
        result = bring.empty_result(f"up {request.bridge or request.pif}", outcome="failed")
        result["error"] = error.record()
        return result


def said(result: Result) -> tuple[str, ...]:
    """What was told, and the error."""
    error = result["error"]
    return (*result["told"], *([f"{error['found']} (hint: {error['hint']})"] if error else ()))
