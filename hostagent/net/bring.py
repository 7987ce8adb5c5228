"""A PIF brought up or down from records alone: look, want, plan, journal, apply, verify; undone when it fails.

This is what `interface-reconfigure` does when no daemon runs. What it needs of the host comes as a `Host`. What comes
out is one JSON value, `result.Result`, which the daemon's answer has as well.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from hostagent.errors import CallerError, HostagentError
from hostagent.named import NamedTuple
from hostagent.net import apply, cache, emergency, journal, lacp, later_boot, taken_back
from hostagent.net.attached import as_now
from hostagent.net.change import CHANGED, ROLLED_BACK, WAITING, Change, Course, carried_out
from hostagent.net.checks import check, unplug
from hostagent.net.finding import STOP, FindingError
from hostagent.net.noted import note_change, note_verified, nothing_to_confirm
from hostagent.net.plan import plan as plan_of
from hostagent.net.settle import comes, dark, settle
from hostagent.net.shown import args_of, names_in
from hostagent.net.unfinished import unfinished
from hostagent.net.verify import Around, Difference, differences

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from hostagent.net.devices import Kernel, Wanted
    from hostagent.net.finding import Finding
    from hostagent.net.management import Wire
    from hostagent.net.operation import Plan
    from hostagent.net.records import Network, Pif, Records
    from hostagent.net.result import Result

UP, DOWN = "up", "down"
DO, PLAN, CHECK = "do", "plan", "check"
NO_CARRIER_ROW = 57
"""Of the failure catalogue; after the change it is looked at anew."""
NO_SERVERS_ROW = 42
"""No name servers were asked for: that is told, and is not less than was asked for."""


class NoSuchPifError(CallerError):
    """The records have no such PIF. XenAPI HANDLE_INVALID [PIF; reference]."""

    code = "HANDLE_INVALID"


class Request(NamedTuple):
    """What is asked for. The PIF by reference or uuid, or by the bridge of its network."""

    action: str
    pif: str = ""
    bridge: str = ""
    management: bool = False
    """It is, or becomes, the management interface: that decides who owns gateway and DNS."""
    mode: str = DO
    timeout_s: float = 60.0
    """For the lock, carrier and DHCP together; with `confirm`, to type the confirmation in."""
    confirm: bool = False
    """Undo it after `timeout_s` unless somebody confirms it."""
    keep_old: bool = False
    """With `management`: the former management interface keeps its address, though it is in the same subnet."""
    boot: bool = False
    """What can be had with less is brought up with less, and an address that another host has is taken all the same."""


class Host(NamedTuple):
    """What a change needs of the host."""

    folder: Path
    """STATE/net."""
    tools: apply.Tools
    boot: str
    around: Callable[[Wanted, Kernel], Around | None]
    arm: Callable[[float], None]
    """Start the timer that undoes the change when nobody confirms it, outside this process."""
    disarm: Callable[[], None]
    wait: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    by: str = "interface-reconfigure"
    soft: list[str] = []  # noqa: RUF012 - given by who opens the host; tools add to it
    """What tools could not do and what does not fail a change."""
    wire: Wire | None = None
    """None: nothing is asked on the wire, and nothing announced."""
    waiting: Callable[[], bool] = lambda: False
    """Whether the timer runs, or undoes something now. May raise HostagentError."""
    stand_down: Callable[[], None] = lambda: None
    """Stop the timer and an undo that waits for the lock, if there are any."""
    run: Path | None = None
    """RUN; None: what is true until the next boot is not noted."""
    remarks: Callable[[], list[str]] = list
    """What of the host as a whole makes every network less than was asked for, in words."""
    hand_out: Callable[[str, Network | None], None] = lambda *_: None
    """Addresses for guests on this bridge, as its network says; None: no more (`leases_server.put`)."""


def find(records: Records, request: Request) -> Pif:
    """The PIF that is meant. Raises NoSuchPifError, also where no name is given: networks may have no bridge."""
    if not request.pif and not request.bridge:
        raise NoSuchPifError(
            "no bridge is named, so no PIF is meant", hint="hostagent pif list", params=("PIF", "")
        )
    if request.pif:
        found = records.pifs.get(request.pif)
        if found is None:
            found = next((pif for pif in records.pifs.values() if pif.uuid == request.pif), None)
    else:
        refs = {ref for ref, network in records.networks.items() if network.bridge == request.bridge}
        on_it = [pif for pif in records.pifs.values() if pif.network in refs]
        found = next((pif for pif in on_it if not pif.bond_slave_of), None)
    if found is None:
        name = request.pif or request.bridge
        known = ", ".join(_known(records, by_bridge=not request.pif)) or "none at all"
        raise NoSuchPifError(
            f"no PIF {'is ' if request.pif else 'is on a bridge '}{name}; known: {known}",
            hint="hostagent pif list",
            params=("PIF", name),
        )
    return found


def _known(records: Records, *, by_bridge: bool) -> list[str]:
    if by_bridge:
        return sorted({network.bridge for network in records.networks.values() if network.bridge})[:20]
    return [f"{pif.uuid} ({pif.device})" for pif in records.pifs.values()][:20]


def bring(request: Request, found: cache.Found, host: Host) -> Result:
    """Do, plan or check what is asked for. Raises what stops it before anything is touched: FindingError,
    NoSuchPifError, BusyError, FileError, NetlinkError and the errors of `plan`.

    A change that failed and was undone comes back as `rolled-back`, with its error.
    """
    began, cached = host.clock(), found.cached
    pif = find(cached.records, request)
    what = f"{request.action} {name_of(pif)}"
    result = empty_result(what, f"cache generation {cached.generation}{', verified' * cached.verified}")
    result["told"] += found.told
    if request.mode != DO:
        _look(request, pif, cached.records, host, result)
        result["seconds"] = round(host.clock() - began, 4)
        return result
    course = Course()
    with journal.Lock(host.folder, f"{host.by} {what}", wait_s=request.timeout_s, sleep=host.wait):
        recover(host, result)
        _change(request, pif, cached.records, host, result, course)
        asked = request.action == UP and not request.boot
        if asked and course.change is not None and course.outcome != ROLLED_BACK:
            taken_back.plugged(host, (pif.ref,), course.change.wanted)
    if request.action == UP:
        finish(result, request, pif, course, host, began + request.timeout_s, lambda: cached)
    result["seconds"] = round(host.clock() - began, 4)
    if result["outcome"] != "unchanged":
        note_change(host, cached.records, result)
    return result


def empty_result(what: str, source: str = "", outcome: str = "unchanged") -> Result:
    """A result with nothing done."""
    return {
        "what": what,
        "outcome": outcome,
        "operations": [],
        "differences": [],
        "told": [],
        "undo_troubles": [],
        "seconds": 0.0,
        "source": source,
        "error": None,
    }


def finish(
    result: Result,
    request: Request,
    pif: Pif,
    course: Course,
    host: Host,
    deadline: float,
    generation: Callable[[], cache.Cached],
) -> None:
    """What follows a PIF's coming up: what comes by itself is waited for until `deadline` on the host's clock, its
    addresses are announced, and what works now, the cache's `generation`, is to be gone back to. Without the lock.
    """
    change = course.change
    bonds: list[str] = []
    if change is not None and not request.boot:
        bonds = lacp.others(change.wanted, pif.ref, change.records, change.becoming)
    # also with nothing to do: a client may run that has no lease
    waits = bonds or (change is not None and comes(change.wanted, pif.ref))
    idle = result["outcome"] == "unchanged" and not waits
    if change is not None and result["outcome"] != ROLLED_BACK and not idle:
        wanted, planned = change.wanted, change.planned
        told = settle(wanted, planned, pif.ref, host, deadline=deadline, since=course.at, bonds=bonds)
        less(result, told)
    elif change is not None and idle:
        less(result, dark(change.wanted, pif.ref, change.kernel))
    fit = ("unchanged", "changed", "degraded") if request.boot else ("unchanged", "changed")
    if result["outcome"] in fit and (pif.management or request.management):
        note_verified(host, generation, result, pif.ref)
    if result["outcome"] != ROLLED_BACK:
        # after the mark: a host can be gone back to that carries less than its MTU
        if change is not None and not request.boot:
            less(result, _narrow(pif, change, host))
        less(result, host.remarks())


def _narrow(pif: Pif, change: Change, host: Host) -> list[str]:
    network = change.records.networks.get(pif.network)
    if host.wire is None or network is None or pif.ip_mode == "None":
        return []
    if not (change.planned.steps or comes(change.wanted, pif.ref)):
        return []
    from hostagent.net.reachable import narrow

    told = narrow(pif, host.tools.netlink.look(), network.bridge or pif.device, host.wire)
    return [told] if told else []


def less(result: Result, told: list[str]) -> None:
    """What is less than was asked for."""
    result["told"] += told
    if told and result["outcome"] in ("unchanged", "changed"):
        result["outcome"] = "degraded"


def put_findings(result: Result, findings: Iterable[Finding], ref: str) -> None:
    """What a check before the change found; what concerns the PIF is less than was asked for."""
    for finding in findings:
        if finding.row == NO_CARRIER_ROW:
            continue
        told = f"{finding.found} (hint: {finding.hint})"
        if finding.row != NO_SERVERS_ROW and ref in finding.refs:
            less(result, [told])
        else:
            result["told"].append(told)


def put_course(result: Result, course: Course) -> None:
    """How the change went."""
    change = course.change
    if change is not None:
        put_plan(result, change.planned, change.kernel)
    put_times(result, course.milliseconds)
    if course.outcome and (course.outcome != CHANGED or result["outcome"] == "unchanged"):
        result["outcome"] = course.outcome
    result["undo_troubles"] += course.troubles
    less(result, course.less)
    if change is not None and course.outcome == WAITING:
        result["told"].append(
            f"undone in {change.confirm_s:g} s unless confirmed (hint: hostagent net confirm)"
        )


def _look(request: Request, pif: Pif, records: Records, host: Host, result: Result) -> None:
    """Plan or check, and touch nothing."""
    kernel = host.tools.netlink.look()
    wanted = _wanted(request, pif, records, host, kernel, result)
    around = host.around(wanted, kernel)
    if request.mode == PLAN:
        put_plan(result, plan_of(wanted, kernel, around), kernel)
        result["outcome"] = "planned"
        return
    differing = differences(wanted, kernel, around)
    put_differences(result, differing)
    result["outcome"] = "differs" if differing else "right"


def _wanted(
    request: Request, pif: Pif, records: Records, host: Host, kernel: Kernel, result: Result
) -> Wanted:
    """What the request wants. Raises FindingError for what stops it; what is less is told."""
    now = as_now(records, kernel)
    up: tuple[str, ...] = (pif.ref,) if request.action == UP else ()
    down = (pif.ref,) if request.action == DOWN else ()
    becoming = pif.ref if request.management else ""
    if becoming and up and not request.keep_old:
        from hostagent.net.former import cleared

        now, former, told = cleared(now, now.pifs[pif.ref])
        up += former
        result["told"] += told
    findings = check(now, up, down=down, becoming_management=becoming, kernel=kernel, boot=request.boot)
    for finding in findings:
        if finding.severity == STOP:
            raise FindingError(finding)
    wanted = emergency.want_beside(host.run, now, up, kernel, down=down, becoming=becoming)
    if not becoming:
        for finding in unplug(now, down, wanted.gone, kernel):
            raise FindingError(finding)
    put_findings(result, findings, pif.ref)
    return wanted


def _change(request: Request, pif: Pif, records: Records, host: Host, result: Result, course: Course) -> None:
    kernel = host.tools.netlink.look()
    wanted = _wanted(request, pif, records, host, kernel, result)
    change = Change(
        result["what"],
        records,
        kernel,
        wanted,
        plan_of(wanted, kernel, host.around(wanted, kernel)),
        digest=cache.digest(records),
        former=records.bridge,
        becoming=pif.ref if request.management else "",
        blame=pif.ref,
        boot=request.boot,
        confirm_s=request.timeout_s if request.confirm else 0.0,
    )
    try:
        with carried_out(change, host, course):
            pass
    except HostagentError as error:
        if course.outcome != ROLLED_BACK:
            raise
        result["error"] = error.record()
    put_course(result, course)


def recover(host: Host, result: Result) -> None:
    """Undo what a killed process or a power cut left in the middle; the caller holds the lock."""
    if told := unfinished(host):
        result["told"].append(told)


def confirm(host: Host) -> Result:
    """Keep the change that waits for it, or whose maker died when all of it was done. Where there is none, outcome
    `nothing` with an error: who asks wants a change kept. Raises FileError, JournalError, BusyError.
    """
    with journal.Lock(host.folder, f"{host.by} confirm", wait_s=10.0, sleep=host.wait):
        left = journal.pending(host.folder)
        whole = left is not None and left.state in (journal.APPLIED, journal.WAITING)
        if left is None or not whole or left.boot_id != host.boot:
            result = empty_result("confirm", outcome="nothing")
            result["error"] = nothing_to_confirm(host, left).record()
            return result
        journal.commit(host.folder, left)
        # after the mark: an undo that waits for our lock then finds nothing to do
        with contextlib.suppress(HostagentError):
            host.disarm()
        result = empty_result(left.what, outcome="confirmed")
        note_change(host, None, result)
        return result


def undo(host: Host) -> Result:
    """Undo the change that is not committed: what the timer does. Raises FileError, BusyError."""
    with journal.Lock(host.folder, f"{host.by} undo", wait_s=60.0, sleep=host.wait):
        left, lost = journal.usable(host.folder)
        if left is None:
            result = empty_result("undo", outcome="undo-failed" if lost else "nothing")
            result["told"] += [lost] if lost else []
            return result
        if later_boot.decided(host, left):
            result = empty_result(left.what, outcome="confirmed")
            result["told"] = [later_boot.carry_on(host, left)]
            note_change(host, None, result)
            return result
        unnoted = taken_back.undoing(host, left) if left.boot_id == host.boot else []
        troubles = apply.take_back(left, host.tools, host.folder, boot=host.boot)
        result = empty_result(left.what, outcome="undo-failed" if troubles else "undone")
        result["told"] = [*(trouble.found for trouble in troubles), *host.soft, *unnoted]
        if left.state != journal.UNDO_FAILED or not troubles:  # each try of the timer is not worth an entry
            note_change(host, None, result)
        if not troubles:
            with contextlib.suppress(HostagentError):
                host.disarm()
        return result


def put_plan(result: Result, planned: Plan, kernel: Kernel | None) -> None:
    """The operations of a plan that was made of `kernel`, into a result."""
    names = names_in(planned, kernel)
    result["operations"] = [
        {
            "verb": step.do.verb,
            "device": step.do.device,
            "args": args_of(step.do, names),
            "undo": [(undo.verb, undo.device, args_of(undo, names)) for undo in step.undo],
            "milliseconds": None,
        }
        for step in planned.steps
    ]


def put_times(result: Result, milliseconds: tuple[float, ...]) -> None:
    """How long each operation took, into a result that has the plan."""
    for operation, took in zip(result["operations"], milliseconds, strict=False):
        operation["milliseconds"] = round(took, 4)


def put_differences(result: Result, differing: tuple[Difference, ...]) -> None:
    """What is not as wanted, into a result."""
    result["differences"] = [
        {"device": one.device, "what": one.what, "wanted": one.wanted, "found": one.found}
        for one in differing
    ]


def name_of(pif: Pif) -> str:
    """As results and messages name it."""
    return f"PIF {pif.uuid} ({pif.device}{f' tag {pif.vlan}' if pif.vlan >= 0 else ''})"
