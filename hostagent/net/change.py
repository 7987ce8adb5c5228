"""A planned change carried out on this host, the same for `bring` and for the daemon's calls: kept whole, or undone.

Before it nobody may have the new addresses; it is journalled and verified; what answered the management interface must
answer again (`care.py`). Where something can be lost, a timer undoes it should this process not come to the end.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from hostagent.errors import HostagentError
from hostagent.named import NamedTuple
from hostagent.net import apply, journal
from hostagent.net.layers import as_planned
from hostagent.net.management import needs_care
from hostagent.net.unfinished import arm, disarm
from hostagent.net.verify import differences

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hostagent.net.bring import Host
    from hostagent.net.care import Care
    from hostagent.net.devices import Kernel, Wanted
    from hostagent.net.operation import Plan
    from hostagent.net.records import Records
    from hostagent.net.verify import Difference

SPARE_S = 30.0
"""Beside twice the time that a change of the management interface has to settle (a bond's partner, then answers): after
so long without us, the timer undoes it. It waits for our lock in any case."""
SOFT = "dns"
"""What may differ afterwards, and is told: for its name servers no host loses its network."""
ROLLED_BACK, WAITING, CHANGED = "rolled-back", "waiting", "changed"


class Change(NamedTuple):
    """What is to be carried out, and whom it concerns."""

    what: str
    records: Records
    """What it leads to; those of before that it takes down are in it."""
    kernel: Kernel
    """As it was looked at for the plan."""
    wanted: Wanted
    planned: Plan
    digest: str = ""
    """Of the records, for the history."""
    kept_as: str = ""
    """`unfinished.state_of` what the database says once it has the change: should we be killed then, it is kept. Empty
    where no database gets it, or an operator is to confirm it: then it is undone."""
    former: str = ""
    """The management interface's bridge before it."""
    becoming: str = ""
    """The PIF that becomes the management interface, by reference."""
    blame: str = ""
    """The PIF that a failure is reported for, by reference."""
    boot: bool = False
    """An address that another host has is taken all the same: a host that cannot be reached helps nobody."""
    confirm_s: float = 0.0
    """Undo it after so long unless somebody confirms it; 0 for not at all."""


class Course:
    """How a change went: filled in while it is carried out. `outcome` is rolled-back, waiting or changed; empty while
    nothing was touched. `less`: what is less than was asked for, in words; `troubles`: what undoing it could not do.
    `at`: when its steps were done, on the host's clock. `reached`: what answered the management interface before
    answers after it."""

    def __init__(self) -> None:
        self.change: Change | None = None
        self.outcome = ""
        self.less: list[str] = []
        self.troubles: list[str] = []
        self.milliseconds: tuple[float, ...] = ()
        self.at = 0.0
        self.reached = False


@contextlib.contextmanager
def carried_out(change: Change, host: Host, course: Course) -> Iterator[None]:
    """The plan is done and verified; committed when the block is left whole, undone when it raises. The caller holds
    the lock.

    One that is to be confirmed is left `waiting`. Where undoing has troubles the timer goes on: it tries again. Raises
    RolledBackError, what the block raises, and before anything is touched ConflictError, GuardError, FileError,
    BusyError.
    """
    course.change = change
    if not change.planned.steps:
        yield
        return
    care = _care(change, host)
    if care is not None:
        course.less += care.before()
    timer_s = change.confirm_s or (2 * care.settle_s + SPARE_S if care is not None and care.baseline else 0.0)
    if timer_s:
        arm(host, timer_s)
    written = None
    ours = True
    try:
        written, applied = apply.carry_out(
            change.planned,
            host.tools,
            host.folder,
            boot=host.boot,
            digest="" if change.confirm_s else change.kept_as,
            what=change.what,
            check=_differing(change, host),
            accept=lambda found: all(one.what == SOFT for one in found),
        )
        course.milliseconds, course.at = applied.milliseconds, host.clock()
        course.less += [*host.soft, *applied.told, *map(_of_resolver, applied.differences)]
        if care is not None:
            course.less += care.after()
            course.reached = bool(care.baseline)
        ours = False
        yield
        ours = True
        if change.confirm_s:
            journal.mark(host.folder, written, journal.WAITING)
        elif not change.kept_as:
            journal.commit(host.folder, written)
    except BaseException as error:
        if written is not None or isinstance(error, apply.RolledBackError):
            course.outcome = ROLLED_BACK
        if isinstance(error, apply.RolledBackError):
            course.milliseconds = error.milliseconds
            course.troubles += [trouble.found for trouble in error.troubles]
        troubles: tuple[apply.Trouble, ...] = ()
        if written is not None:
            troubles = apply.take_back(written, host.tools, host.folder, boot=host.boot)
            course.troubles += [trouble.found for trouble in troubles]
        if timer_s:
            disarm(host)
        if care is not None:
            care.undone()
        if written is not None and isinstance(error, HostagentError) and (ours or troubles):
            raise apply.RolledBackError(
                error.found, hint=error.hint, serves=(change.blame,), troubles=troubles
            ) from error
        raise
    if change.confirm_s:
        course.outcome = WAITING
        return
    course.outcome = CHANGED
    if change.kept_as:
        try:
            journal.commit(host.folder, written)
        except HostagentError as error:  # the database has it: whoever finds the journal keeps the change
            course.less.append(f"the journal could not be marked: {error.found}")
    if timer_s:
        # after the mark: an undo that waits for our lock then finds nothing to do
        with contextlib.suppress(HostagentError):
            host.disarm()


def _care(change: Change, host: Host) -> Care | None:
    """None where there is nothing to ask on the wire: no new address, and management is not concerned."""
    if host.wire is None:
        return None
    if not needs_care(change.records, change.wanted, change.kernel, change.planned, change.becoming):
        return None
    from hostagent.net.care import Care

    return Care(change, host, host.wire)


def _differing(change: Change, host: Host) -> Callable[[Kernel], tuple[Difference, ...]]:
    def differing(after: Kernel) -> tuple[Difference, ...]:
        wanted = as_planned(change.wanted, change.planned, after)
        return differences(wanted, after, host.around(wanted, after))

    return differing


def _of_resolver(differing: Difference) -> str:
    found, wanted = (
        "; ".join(line for line in text.splitlines() if line and not line.startswith("#")) or "nothing"
        for text in (differing.found, differing.wanted)
    )
    return (
        f"the resolver has not what it was given: it says {found}, not {wanted} (hint: hostagent net check)"
    )
