"""A PIF brought up or down from records alone: look, want, plan, journal, apply, verify; undone when it fails.

This is what `interface-reconfigure` does when no daemon runs. What it needs of the host comes as a `Host`. What comes
out is one JSON value, `Result`, which the daemon's answer has as well.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from hostagent.errors import CallerError, ErrorRecord
from hostagent.files import FileError
from hostagent.net import apply, cache, history, journal
from hostagent.net.attached import as_now
from hostagent.net.checks import check
from hostagent.net.finding import STOP, FindingError
from hostagent.net.model import want
from hostagent.net.plan import plan as plan_of
from hostagent.net.verify import Around, Difference, differences

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from hostagent.net.devices import Kernel, Wanted
    from hostagent.net.operation import Operation, Plan
    from hostagent.net.records import Pif, Records

UP, DOWN = "up", "down"
DO, PLAN, CHECK = "do", "plan", "check"
CARRIER_S = 6.0
"""A copper port takes some 3 s to find its speed."""
POLL_S = 0.1
SCOPE_LINK = 253
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
    began = host.clock()
    cached = found.cached
    pif = find(cached.records, request)
    what = f"{request.action} {_name(pif)}"
    result = empty_result(what, f"cache generation {cached.generation}{', verified' * cached.verified}")
    result["told"] += found.told
    if request.mode != DO:
        _look(request, pif, cached.records, host, result)
        result["seconds"] = round(host.clock() - began, 4)
        return result
    deadline = began + request.timeout_s
    with journal.Lock(host.folder, f"{host.by} {what}", wait_s=request.timeout_s, sleep=host.wait):
        recover(host, result)
        wanted = _change(request, pif, cached.records, host, result)
    if result["outcome"] in DONE_OUTCOMES and request.action == UP:
        missing = _settle(wanted, pif.ref, host, deadline)
        result["told"] += missing
        if missing and result["outcome"] == "changed":
            result["outcome"] = "degraded"
    if request.action == UP and not _troubled(result) and (pif.management or request.management):
        _note_verified(host, cached, result)
    result["seconds"] = round(host.clock() - began, 4)
    if result["outcome"] != "unchanged":
        _record(host, cached.records, result)
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
    up = (pif.ref,) if request.action == UP else ()
    down = (pif.ref,) if request.action == DOWN else ()
    becoming = pif.ref if request.management else ""
    for finding in check(now, up, down=down, becoming_management=becoming, kernel=kernel):
        if finding.severity == STOP:
            raise FindingError(finding)
        if finding.row != NO_CARRIER_ROW:
            result["told"].append(f"{finding.found} (hint: {finding.hint})")
            if finding.row != NO_SERVERS_ROW and pif.ref in finding.refs:
                result["outcome"] = "degraded"
    return want(now, up, down=down, becoming_management=becoming, links=kernel.by_name())


def _change(request: Request, pif: Pif, records: Records, host: Host, result: Result) -> Wanted:
    kernel = host.tools.netlink.look()
    wanted = _wanted(request, pif, records, kernel, result)
    planned = plan_of(wanted, kernel, host.around(wanted, kernel))
    put_plan(result, planned)
    if not planned.steps:
        return wanted

    def differing(after: Kernel) -> Any:
        return differences(wanted, after, host.around(wanted, after))

    if request.confirm:
        host.arm(request.timeout_s)
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
    except apply.RolledBackError as error:
        if request.confirm:
            host.disarm()
        result["outcome"] = "rolled-back"
        result["error"] = error.record()
        return wanted
    for operation, took in zip(result["operations"], applied.milliseconds, strict=True):
        operation["milliseconds"] = round(took, 4)
    if host.soft:
        result["told"] += host.soft
        result["outcome"] = "degraded"
    if request.confirm:
        result["outcome"] = "waiting"
        result["told"].append(
            f"undone in {request.timeout_s:g} s unless confirmed (hint: hostagent net confirm)"
        )
        return wanted
    journal.mark(host.folder, written, journal.COMMITTED)
    if result["outcome"] == "unchanged":
        result["outcome"] = "changed"
    return wanted


def recover(host: Host, result: Result) -> None:
    """Undo what a killed process or a power cut left in the middle; the caller holds the lock.

    A change of this boot that waits for its confirmation is left alone: its timer lives.
    """
    left = journal.pending(host.folder)
    if left is None or (left.state == journal.APPLIED and left.boot_id == host.boot):
        return
    troubles = apply.undo(left, host.tools, boot=host.boot)
    told = f"undid what was left unfinished: {left.what}"
    result["told"].append(told + "".join(f"; {trouble.found}" for trouble in troubles))
    if not troubles:
        journal.mark(host.folder, left, journal.UNDONE)


def confirm(host: Host) -> Result:
    """Keep the change that waits for it. Raises FileError, JournalError, BusyError."""
    with journal.Lock(host.folder, f"{host.by} confirm", wait_s=10.0, sleep=host.wait):
        left = journal.pending(host.folder)
        if left is None or left.state != journal.APPLIED or left.boot_id != host.boot:
            return empty_result("confirm", outcome="nothing")
        host.disarm()
        journal.mark(host.folder, left, journal.COMMITTED)
        result = empty_result(left.what, outcome="confirmed")
        _record(host, None, result)
        return result


def undo(host: Host) -> Result:
    """Undo the change that is not committed: what the timer does. Raises FileError, JournalError, BusyError."""
    with journal.Lock(host.folder, f"{host.by} undo", wait_s=60.0, sleep=host.wait):
        left = journal.pending(host.folder)
        if left is None:
            return empty_result("undo", outcome="nothing")
        troubles = apply.undo(left, host.tools, boot=host.boot)
        result = empty_result(left.what, outcome="undone")
        result["told"] = [trouble.found for trouble in troubles]
        if not troubles:
            journal.mark(host.folder, left, journal.UNDONE)
        _record(host, None, result)
        return result


def _settle(wanted: Wanted, ref: str, host: Host, deadline: float) -> list[str]:
    """Wait for carrier and leases of a PIF; what is missing when the time is over, in words."""
    serving = {device.name: device for device in wanted.devices if ref in device.serves}
    uplinks = [name for name, device in serving.items() if device.kind == "physical"]
    leases = [lease for lease in wanted.leases if lease.device in serving]
    began = host.clock()
    while True:
        kernel = host.tools.netlink.look()
        links = kernel.by_name()
        passed = host.clock() - began
        dark = [name for name in uplinks if name in links and not links[name].carrier]
        without = [
            lease for lease in leases if not _has_address(kernel, links[lease.device].ifindex, lease.family)
        ]
        late = host.clock() >= deadline
        if late or ((not dark or passed >= CARRIER_S) and not without):
            break
        host.wait(POLL_S)
    return [
        *(f"no carrier on {name}: look at the cable, the switch port, the transceiver" for name in dark),
        *(
            f"no {'DHCP' if lease.family == 4 else 'DHCPv6'} answer on {lease.device} after {passed:.0f} s;"
            " the client goes on trying"
            for lease in without
        ),
    ]


def _has_address(kernel: Kernel, index: int, family: int) -> bool:
    return any(
        address.device == index and (":" in address.text) == (family == 6) and address.scope < SCOPE_LINK
        for address in kernel.addresses
    )


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


def put_differences(result: Result, differing: tuple[Difference, ...]) -> None:
    """What is not as wanted, into a result."""
    result["differences"] = [
        {"device": one.device, "what": one.what, "wanted": one.wanted, "found": one.found}
        for one in differing
    ]


def _short(operation: Operation) -> tuple[str, str, Mapping[str, Any]]:
    return operation.verb, operation.device, dict(operation.args)


def _note_verified(host: Host, cached: cache.Cached, result: Result) -> None:
    """The management interface works: this is the generation to go back to."""
    if cached.verified:
        return
    try:
        cache.mark_verified(host.folder, cached)
    except FileError as error:
        result["told"].append(f"the generation could not be marked as verified: {error.found}")


def _record(host: Host, records: Records | None, result: Result) -> None:
    steps = [
        history.Done(operation["verb"], operation["device"], operation["milliseconds"] or 0.0)
        for operation in result["operations"]
    ]
    error = result["error"]
    entry = history.Entry(
        time.time(),
        result["what"],
        result["outcome"],
        result["seconds"],
        host.by,
        cache.digest(records) if records is not None else "",
        told=(*result["told"], *([error["found"]] if error else ())),
    )
    try:
        history.append(host.folder, history.entry_of(entry, steps))
    except FileError as failure:
        result["told"].append(f"the history could not be written: {failure.found}")


def _name(pif: Pif) -> str:
    return f"PIF {pif.uuid} ({pif.device}{f' tag {pif.vlan}' if pif.vlan >= 0 else ''})"
