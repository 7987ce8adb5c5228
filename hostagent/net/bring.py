"""A PIF brought up or down from records alone: look, want, plan, journal, apply, verify; undone when it fails.

This is what `interface-reconfigure` does when no daemon runs. What it needs of the host comes as a `Host`. What comes
out is one JSON value, `Result`, which the daemon's answer has as well.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from hostagent.errors import CallerError, ErrorRecord, HostagentError
from hostagent.net import apply, cache, journal
from hostagent.net.attached import as_now
from hostagent.net.checks import check
from hostagent.net.finding import STOP, FindingError
from hostagent.net.management import needs_care
from hostagent.net.model import want
from hostagent.net.noted import note_change, note_verified
from hostagent.net.plan import plan as plan_of
from hostagent.net.settle import settle
from hostagent.net.verify import Around, Difference, differences

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from hostagent.net.devices import Kernel, Wanted
    from hostagent.net.management import Wire
    from hostagent.net.operation import Operation, Plan
    from hostagent.net.records import Pif, Records

UP, DOWN = "up", "down"
DO, PLAN, CHECK = "do", "plan", "check"
UNDO_S = 90.0
"""After so long without us, the timer undoes a change of the management interface."""
NO_CARRIER_ROW = 57
"""Of the failure catalogue; after the change it is looked at anew."""
NO_SERVERS_ROW = 42
"""No name servers were asked for: that is told, and is not less than was asked for."""
DONE_OUTCOMES = ("changed", "degraded", "waiting")


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
    remarks: Callable[[], list[str]] = list
    """What of the host as a whole makes every network less than was asked for, in words."""


class Op(TypedDict):
    verb: str
    device: str
    args: Mapping[str, Any]
    undo: list[tuple[str, str, Mapping[str, Any]]]
    milliseconds: float | None


class Result(TypedDict):
    what: str
    outcome: str
    """unchanged, changed, degraded, waiting, rolled-back; of --plan planned; of --check right or differs; of undo and
    confirm also undone, confirmed, nothing."""
    operations: list[Op]
    differences: list[dict[str, str]]
    told: list[str]
    """What is less than was asked for, and what was found on the way."""
    seconds: float
    source: str
    error: ErrorRecord | None


def find(records: Records, request: Request) -> Pif:
    """The PIF that is meant. Raises NoSuchPifError."""
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
    what = f"{request.action} {_name(pif)}"
    result = empty_result(what, f"cache generation {cached.generation}{', verified' * cached.verified}")
    result["told"] += found.told
    if request.mode != DO:
        _look(request, pif, cached.records, host, result)
        result["seconds"] = round(host.clock() - began, 4)
        return result
    with journal.Lock(host.folder, f"{host.by} {what}", wait_s=request.timeout_s, sleep=host.wait):
        recover(host, result)
        wanted, planned = _change(request, pif, cached.records, host, result)
    # also with nothing to do: a client may run that has no lease
    waits = result["outcome"] in DONE_OUTCOMES or (result["outcome"] == "unchanged" and wanted.leases)
    if waits and request.action == UP:
        missing = settle(wanted, pif.ref, host, began + request.timeout_s)
        if host.wire is not None and planned.steps and wanted.addresses:
            from hostagent.net.reachable import announce

            missing += announce(wanted, planned, host.wire)
        _less(result, missing)
    if request.action == UP and not _troubled(result) and (pif.management or request.management):
        note_verified(host, cached, result)
    if request.action == UP and result["outcome"] != "rolled-back":
        _less(result, host.remarks())
    result["seconds"] = round(host.clock() - began, 4)
    if result["outcome"] != "unchanged":
        note_change(host, cached.records, result)
    return result


def empty_result(what: str, source: str = "", outcome: str = "unchanged") -> Result:
    """A result with nothing done."""
    return Result(
        what=what,
        outcome=outcome,
        operations=[],
        differences=[],
        told=[],
        seconds=0.0,
        source=source,
        error=None,
    )


def _less(result: Result, told: list[str]) -> None:
    """What is less than was asked for."""
    result["told"] += told
    if told and result["outcome"] in ("unchanged", "changed"):
        result["outcome"] = "degraded"


def _troubled(result: Result) -> bool:
    return result["outcome"] not in ("unchanged", "changed")


def _look(request: Request, pif: Pif, records: Records, host: Host, result: Result) -> None:
    """Plan or check, and touch nothing."""
    kernel = host.tools.netlink.look()
    wanted = _wanted(request, pif, records, kernel, result)
    around = host.around(wanted, kernel)
    if request.mode == PLAN:
        put_plan(result, plan_of(wanted, kernel, around))
        result["outcome"] = "planned"
        return
    differing = differences(wanted, kernel, around)
    put_differences(result, differing)
    result["outcome"] = "differs" if differing else "right"


def _wanted(request: Request, pif: Pif, records: Records, kernel: Kernel, result: Result) -> Wanted:
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
    for finding in check(now, up, down=down, becoming_management=becoming, kernel=kernel, boot=request.boot):
        if finding.severity == STOP:
            raise FindingError(finding)
        if finding.row != NO_CARRIER_ROW:
            result["told"].append(f"{finding.found} (hint: {finding.hint})")
            if finding.row != NO_SERVERS_ROW and pif.ref in finding.refs:
                result["outcome"] = "degraded"
    return want(now, up, down=down, becoming_management=becoming, links=kernel.by_name())


def _change(request: Request, pif: Pif, records: Records, host: Host, result: Result) -> tuple[Wanted, Plan]:
    kernel = host.tools.netlink.look()
    wanted = _wanted(request, pif, records, kernel, result)
    planned = plan_of(wanted, kernel, host.around(wanted, kernel))
    put_plan(result, planned)
    if not planned.steps:
        return wanted, planned

    def differing(after: Kernel) -> Any:
        return differences(wanted, after, host.around(wanted, after))

    care = None
    becoming = pif.ref if request.management else ""
    if host.wire is not None and needs_care(records, wanted, kernel, planned, becoming):
        from hostagent.net.care import Care

        care = Care(request, pif, records, wanted, host, host.wire)
        result["told"] += care.before(kernel, planned)
    guarded = request.confirm or (care is not None and bool(care.baseline))
    if guarded:
        host.arm(request.timeout_s if request.confirm else UNDO_S)
    try:
        written, applied = apply.carry_out(
            planned,
            host.tools,
            host.folder,
            boot=host.boot,
            digest=cache.digest(records),
            what=result["what"],
            check=differing,
        )
        try:
            if care is not None:
                result["told"] += care.after()
            if guarded and not request.confirm:
                host.disarm()  # raises when the timer was faster
        except HostagentError as error:
            raise apply.RolledBackError(
                error.found,
                hint=error.hint,
                serves=(pif.ref,),
                troubles=apply.take_back(written, host.tools, host.folder, boot=host.boot),
                milliseconds=applied.milliseconds,
            ) from error
        except BaseException:
            apply.take_back(written, host.tools, host.folder, boot=host.boot)
            raise
    except apply.RolledBackError as error:
        if guarded:
            _disarmed(host)
        if care is not None:
            care.undone()
        put_times(result, error.milliseconds)
        result["outcome"] = "rolled-back"
        result["error"] = error.record()
        return wanted, planned
    except BaseException:
        if guarded:
            _disarmed(host)
        raise
    put_times(result, applied.milliseconds)
    if soft := [*host.soft, *applied.told]:
        result["told"] += soft
        result["outcome"] = "degraded"
    if request.confirm:
        result["outcome"] = "waiting"
        result["told"].append(
            f"undone in {request.timeout_s:g} s unless confirmed (hint: hostagent net confirm)"
        )
        return wanted, planned
    journal.mark(host.folder, written, journal.COMMITTED)
    if result["outcome"] == "unchanged":
        result["outcome"] = "degraded" if care is not None and care.less else "changed"
    return wanted, planned


def _disarmed(host: Host) -> None:
    with contextlib.suppress(HostagentError):  # it has ended: then its undo finds nothing to do
        host.disarm()


def recover(host: Host, result: Result) -> None:
    """Undo what a killed process or a power cut left in the middle; the caller holds the lock.

    A change of this boot that waits for its confirmation is left alone: its timer lives.
    """
    left = journal.pending(host.folder)
    if left is None or (left.state == journal.APPLIED and left.boot_id == host.boot):
        return
    troubles = apply.take_back(left, host.tools, host.folder, boot=host.boot)
    told = f"undid what was left unfinished: {left.what}"
    result["told"].append(told + "".join(f"; {trouble.found}" for trouble in troubles))


def confirm(host: Host) -> Result:
    """Keep the change that waits for it. Raises FileError, JournalError, BusyError."""
    with journal.Lock(host.folder, f"{host.by} confirm", wait_s=10.0, sleep=host.wait):
        left = journal.pending(host.folder)
        if left is None or left.state != journal.APPLIED or left.boot_id != host.boot:
            return empty_result("confirm", outcome="nothing")
        host.disarm()
        journal.mark(host.folder, left, journal.COMMITTED)
        result = empty_result(left.what, outcome="confirmed")
        note_change(host, None, result)
        return result


def undo(host: Host) -> Result:
    """Undo the change that is not committed: what the timer does. Raises FileError, JournalError, BusyError."""
    with journal.Lock(host.folder, f"{host.by} undo", wait_s=60.0, sleep=host.wait):
        left = journal.pending(host.folder)
        if left is None:
            return empty_result("undo", outcome="nothing")
        troubles = apply.take_back(left, host.tools, host.folder, boot=host.boot)
        result = empty_result(left.what, outcome="undone")
        result["told"] = [trouble.found for trouble in troubles]
        note_change(host, None, result)
        return result


def put_plan(result: Result, planned: Plan) -> None:
    """The operations of a plan, into a result."""
    result["operations"] = [
        Op(
            verb=step.do.verb,
            device=step.do.device,
            args=dict(step.do.args),
            undo=[_short(operation) for operation in step.undo],
            milliseconds=None,
        )
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


def _short(operation: Operation) -> tuple[str, str, Mapping[str, Any]]:
    return operation.verb, operation.device, dict(operation.args)


def _name(pif: Pif) -> str:
    return f"PIF {pif.uuid} ({pif.device}{f' tag {pif.vlan}' if pif.vlan >= 0 else ''})"
