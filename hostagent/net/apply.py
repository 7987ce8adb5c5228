"""Carrying a plan out, and back.

Steps that are netlink messages go out together, as many as stand in a row; the others through the caller's tools. The
first failure undoes, in reverse, exactly the steps that happened. `undo` does that from the journal, which knows only
about how far a killed process came: the undo of a step that did not happen finds things as they were, and does no harm,
nor does a second time.

A link setting with which the link stays away is taken back alone, and told (`link_kept.py`): it is no reason to undo a
network.
"""

from __future__ import annotations

import errno
import time
from typing import TYPE_CHECKING, Any, Protocol

from hostagent.errors import BugError, HostagentError, KernelError
from hostagent.named import NamedTuple
from hostagent.net import journal as journals
from hostagent.net.devices import Kernel, Lease
from hostagent.net.link_kept import as_map, changes_link, has_link, link_kept, links_come
from hostagent.net.operation import Operation
from hostagent.net.shown import args_of, names_in, names_of, words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from hostagent.net.journal import Journal
    from hostagent.net.operation import Plan, Step
    from hostagent.net.verify import Difference

NETLINK = {
    "link-add", "link-set", "link-del", "group-del", "address-add", "address-del", "route-add", "route-del"
}  # fmt: skip
NOT_THERE = (errno.ENODEV, errno.EADDRNOTAVAIL, errno.ESRCH, errno.ENOENT)
DONE_ALREADY = (*NOT_THERE, errno.EEXIST)
"""What the kernel says to an undo of what did not happen, or is undone already."""
LOST_TRIES = 3
"""How often an undo is sent again when the kernel's answer is lost."""
AFTER_REBOOT = {"dns", "file"}
"""What lasts beyond the kernel's life."""
MARKS = 16
"""How often at most a plan's progress goes to the disk."""


class Netlink(Protocol):
    """As `netlink.Netlink`. A KernelError of `execute` has `position` (of the first that failed), `errno`, `executed`,
    the positions that happened, and `unknown`, those whose answer was lost."""

    def look(self) -> Kernel: ...

    def execute(self, operations: Sequence[Operation]) -> None: ...


def _none(*args: object) -> None:
    raise BugError(f"no tool for {args}", hint="report it")


class Tools(NamedTuple):
    """What carries out each verb. All raise HostagentError."""

    netlink: Netlink
    sysctl: Callable[[str, str], None]
    """Path below /proc/sys, value."""
    ethtool: Callable[[str, Mapping[str, Any]], None]
    """Device; `link` and `features` as an ethtool operation has them."""
    lease_start: Callable[[Lease], None]
    lease_stop: Callable[[Lease], None]
    resolver: Callable[[str, str], None]
    """Makes resolv.conf hold this text; systemd-resolved files it under this bridge, of empty that of management."""
    hold: Callable[[str], None] = lambda _: None
    """A hold point of the fault tests: `begun`, `step-N` after the batch that ends there, `applied`, `undoing`."""
    wait: Callable[[float], None] = time.sleep
    file: Callable[[str, str | None], None] = _none
    """Path and what it is to hold; None: it goes."""
    foreign: Callable[[str, str, str], None] = _none
    """Daemon, what it is told, device (`foreign_daemons.tell`)."""
    lease_leave: Callable[[Lease], None] | None = None
    """As `lease_stop`, which takes its place where there is none; the server is told nothing."""


class Trouble(NamedTuple):
    """An operation of an undo that failed and may matter."""

    operation: Operation
    found: str


class Applied(NamedTuple):
    milliseconds: tuple[float, ...]
    """Of each step; those that went out together share the time evenly."""
    differences: tuple[Difference, ...] = ()
    """What is not as wanted all the same, and was accepted."""
    taken_back: tuple[tuple[str, str], ...] = ()
    """Device and name of each link setting that cost the link and is as before."""
    told: tuple[str, ...] = ()
    """That, in words."""


class RolledBackError(KernelError):
    """A plan failed and was undone. XenAPI PIF_CONFIGURATION_ERROR [PIF; message].

    `troubles` are what the undo could not do: empty when all is as before. `milliseconds`, as of `Applied`: 0 for steps
    that were not tried.
    """

    code = "PIF_CONFIGURATION_ERROR"

    def __init__(
        self,
        found: str,
        *,
        hint: str,
        serves: tuple[str, ...] = (),
        troubles: tuple[Trouble, ...] = (),
        milliseconds: tuple[float, ...] = (),
    ) -> None:
        super().__init__("", hint=hint, params=((*serves, "")[0], found))
        self._cause = found
        self.troubles: tuple[Trouble, ...] = ()
        self.add(troubles)
        self.milliseconds = milliseconds

    def add(self, troubles: tuple[Trouble, ...]) -> None:
        """More that the undo could not do."""
        self.troubles += troubles
        rest = "; ".join(trouble.found for trouble in self.troubles)
        back = f"undoing it failed in part: {rest}" if rest else "the network is as before"
        self.found = f"{self._cause}; {back}"
        self.args = (self.found,)


def carry_out(
    plan: Plan,
    tools: Tools,
    folder: Path,
    *,
    boot: str,
    digest: str,
    what: str,
    check: Callable[[Kernel], tuple[Difference, ...]],
    accept: Callable[[tuple[Difference, ...]], bool] = lambda found: not found,
) -> tuple[Journal, Applied]:
    """Journal, apply, look again and check. The journal returned is `applied`: the caller commits or undoes it.

    `accept` judges what `check` finds. Raises RolledBackError when a step failed, the outcome is not accepted, or
    cannot be looked at: all is undone then, and the journal over where that had no troubles. FileError, BusyError
    before anything happened.
    """
    journal = journals.begin(folder, plan, boot=boot, digest=digest, what=what)
    tools.hold("begun")
    try:
        applied = apply(plan, tools, lambda count: journals.progress(folder, count))
    except RolledBackError as error:
        if not error.troubles:  # else it stays as it is: only then it says how far it came
            error.add(_marked(journal, folder, ()))
        raise
    try:
        found = check(tools.netlink.look())
        found = tuple(one for one in found if (one.device, one.what) not in applied.taken_back)
        if accept(found):
            journal = journals.mark(folder, journal, journals.APPLIED)
            tools.hold("applied")
            return journal, applied._replace(differences=found)
    except HostagentError as error:
        raise RolledBackError(
            f"after all {len(plan.steps)} steps the outcome could not be checked: {error.found}",
            hint=error.hint,
            troubles=take_back(journal, tools, folder, boot=boot),
            milliseconds=applied.milliseconds,
        ) from error
    except BaseException:
        take_back(journal, tools, folder, boot=boot)
        raise
    raise RolledBackError(
        f"after all {len(plan.steps)} steps {_told(found)}",
        hint="`hostagent net check` compares again; the kernel's log may say why",
        serves=next((one.serves for one in found if one.serves), ()),
        troubles=take_back(journal, tools, folder, boot=boot),
        milliseconds=applied.milliseconds,
    )


def _told(found: tuple[Difference, ...]) -> str:
    told = [f"{one.device or 'the resolver'}: {one.what} {one.found}, not {one.wanted}" for one in found[:5]]
    return "; ".join(told) + (f" and {len(found) - 5} more" if len(found) > 5 else "")


def apply(plan: Plan, tools: Tools, progress: Callable[[int], None] = lambda _: None) -> Applied:
    """All steps in order. Raises RolledBackError after undoing those that happened.

    `progress` makes durable that from now on so many steps may have begun (`journal.progress`).
    """
    steps = plan.steps
    done: list[int] = []
    unknown: list[int] = []
    reached = journals.reach(steps, 0)
    lost: list[tuple[Operation, str]] = []
    unlit: list[Step] = []
    milliseconds = [0.0] * len(steps)
    try:
        for first, after in _batches([step.do for step in steps]):
            if reached < after:
                marked = max(after, min(len(steps), first + len(steps) // MARKS))
                progress(marked)
                reached = journals.reach(steps, marked)
            started = time.perf_counter()
            linked = changes_link(steps[first])
            watched = linked and has_link(steps[first], tools)
            try:
                _forward(steps, first, after, tools, done, unknown)
            finally:
                each = (time.perf_counter() - started) * 1000 / (after - first)
                milliseconds[first:after] = [each] * (after - first)
            if watched:
                lost += link_kept(steps[first], tools)
            elif linked:
                unlit.append(steps[first])
            tools.hold(f"step-{after}")
        lost += links_come(unlit, tools)
    except HostagentError as error:
        failed = steps[_failed(steps, done)]
        troubles = _back([steps[position] for position in (*done, *unknown)], tools)
        raise RolledBackError(
            f"{_words(failed.do, names_in(plan))} failed: {error.found}",
            hint=error.hint,
            serves=failed.serves,
            troubles=troubles,
            milliseconds=tuple(milliseconds),
        ) from error
    except BaseException:
        _back([steps[position] for position in (*done, *unknown)], tools)
        raise
    taken_back = tuple((do.device, name) for do, _ in lost for name in as_map(do.args["link"]))
    return Applied(tuple(milliseconds), taken_back=taken_back, told=tuple(told for _, told in lost))


def take_back(journal: Journal, tools: Tools, folder: Path, *, boot: str) -> tuple[Trouble, ...]:
    """Undo all of a journal and mark it as undone, or as `undo-failed` where that had troubles, which it returns.

    That it could not be marked is one of them: then it will be undone once more.
    """
    return _marked(journal, folder, undo(journal, tools, boot=boot))


def _marked(journal: Journal, folder: Path, troubles: tuple[Trouble, ...]) -> tuple[Trouble, ...]:
    """Mark a journal as its undo went; the troubles, with that of the marking."""
    try:
        journals.mark(folder, journal, journals.UNDO_FAILED if troubles else journals.UNDONE)
    except HostagentError as error:
        return (*troubles, Trouble(Operation("journal", "", 0), error.found))
    return troubles


def undo(journal: Journal, tools: Tools, *, boot: str) -> tuple[Trouble, ...]:
    """Undo all of a journal that may have begun; the caller marks it afterwards. Repeatable.

    Returns what failed and may matter. After a reboot only what lies in files is undone.
    """
    steps: Sequence[Step] = journal.steps
    if boot != journal.boot_id:
        steps = [
            step._replace(undo=tuple(one for one in step.undo if one.verb in AFTER_REBOOT)) for step in steps
        ]
    return _back(steps, tools)


def _batches(operations: Sequence[Operation]) -> Iterable[tuple[int, int]]:
    """First and after-last positions: runs of netlink operations, every other one alone."""
    first = 0
    while first < len(operations):
        after = first + 1
        if operations[first].verb in NETLINK:
            while after < len(operations) and operations[after].verb in NETLINK:
                after += 1
        yield first, after
        first = after


def _forward(
    steps: Sequence[Step], first: int, after: int, tools: Tools, done: list[int], unknown: list[int]
) -> None:
    """Do a batch: `done` gets the positions that happened, `unknown` those that may have, their answer being lost."""
    if steps[first].do.verb not in NETLINK:
        done.append(first)  # even a half-done one is to be undone
        _other(steps[first].do, tools)
        return
    left = list(range(first, after))
    while left:
        try:
            tools.netlink.execute([steps[position].do for position in left])
        except KernelError as error:
            happened = {left[position] for position in getattr(error, "executed", ())}
            failed = left[getattr(error, "position", 0)]
            done += sorted(happened)
            unknown += [left[position] for position in getattr(error, "unknown", ())]
            gone = steps[failed].do.verb.endswith("-del") and getattr(error, "errno", 0) in NOT_THERE
            if not gone or unknown:
                raise
            done.append(failed)
            left = [position for position in left if position not in happened and position != failed]
        else:
            done += left
            return


def _failed(steps: Sequence[Step], done: Sequence[int]) -> int:
    """The first step that did not happen, or the last that was begun."""
    if done and steps[done[-1]].do.verb not in NETLINK:
        return done[-1]
    happened = set(done)
    return next((position for position in range(len(steps)) if position not in happened), len(steps) - 1)


def _back(steps: Sequence[Step], tools: Tools) -> tuple[Trouble, ...]:
    tools.hold("undoing")
    # never given back: it may be the address that the bridge asks for which is to have it again
    tools = tools._replace(lease_stop=tools.lease_leave or tools.lease_stop)
    operations = [operation for step in reversed(steps) for operation in step.undo]
    troubles: list[Trouble] = []
    for first, after in _batches(operations):
        if operations[first].verb in NETLINK:
            _netlink_back(operations[first:after], tools, troubles)
            continue
        try:
            _other(operations[first], tools)
        except HostagentError as error:
            if getattr(error, "errno", None) not in DONE_ALREADY:
                troubles.append(Trouble(operations[first], error.found))
    return tuple(troubles)


def _netlink_back(operations: Sequence[Operation], tools: Tools, troubles: list[Trouble]) -> None:
    """All of them, in order, one by one where some fail: the next may depend on it."""
    left = list(operations)
    lost = 0
    while left:
        try:
            tools.netlink.execute(left)
        except HostagentError as error:
            failed = getattr(error, "position", 0)
            happened = set(getattr(error, "executed", ()))
            if getattr(error, "unknown", ()) and (lost := lost + 1) < LOST_TRIES:
                left = left[failed:]
                continue
            if not _done_already(left[failed], getattr(error, "errno", 0)):
                failure = f"{_words(left[failed], names_of(left))} failed: {error.found}"
                troubles.append(Trouble(left[failed], failure))
            left = [one for at, one in enumerate(left) if at > failed and at not in happened]
        else:
            return


def _done_already(operation: Operation, number: int) -> bool:
    """Whether the kernel's answer means that it is as the undo wants it. What is to come back to a device that has gone
    does not come back.
    """
    return number == errno.EEXIST if operation.verb.endswith("-add") else number in DONE_ALREADY


def _other(operation: Operation, tools: Tools) -> None:
    args: Any = operation.args
    if operation.verb == "sysctl":
        tools.sysctl(args["path"], args["value"])
    elif operation.verb == "ethtool":
        tools.ethtool(operation.device, args)
    elif operation.verb == "lease-start":
        tools.lease_start(Lease(operation.device, **args))
    elif operation.verb == "lease-stop":
        tools.lease_stop(Lease(operation.device, **args))
    elif operation.verb == "file":
        tools.file(args["path"], args["content"])
    elif operation.verb == "foreign":
        tools.foreign(args["daemon"], args["what"], operation.device)
    else:
        tools.resolver(args["after"], args.get("bridge", ""))


def _words(operation: Operation, names: Mapping[int, str]) -> str:
    told = words(operation.verb, args_of(operation, names))
    return f"{operation.verb} {operation.device} {told}".rstrip()
