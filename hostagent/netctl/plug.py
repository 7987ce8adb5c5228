"""Changes of objects carried out on this host: records become what is wanted, a plan, its journal, and the kernel.

What `effect.Effect` promises. A change holds the lock of all network changes from its first look until the database has
it. How it is carried out, and what must work afterwards, is `net/change.py`, as without a daemon.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

from hostagent.errors import HostagentError
from hostagent.named import NamedTuple
from hostagent.net import cache, early, emergency, journal, taken_back
from hostagent.net.bonds import MODES, SLB_REASON
from hostagent.net.change import CHANGED, Change, Course, carried_out
from hostagent.net.checks import check, guests, network_guests
from hostagent.net.devices import GROUP, Wanted
from hostagent.net.finding import STOP, Finding
from hostagent.net.model import want_network
from hostagent.net.noted import note_course
from hostagent.net.others import bridge_taken
from hostagent.net.plan import plan as plan_of
from hostagent.net.reachable import announce
from hostagent.net.records import Records
from hostagent.net.unfinished import meant, state_of, unfinished
from hostagent.netctl.generation import keep
from hostagent.netctl.merged import bridges_of, guests_moved, mtus, together
from hostagent.netctl.observed import awaits_address, management_address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from hostagent.net.bring import Host
    from hostagent.net.devices import Kernel
    from hostagent.net.foreign_files import Owner
    from hostagent.net.nics_types import Nic
    from hostagent.net.operation import Plan
    from hostagent.net.probe import Answer, Probe
    from hostagent.netctl.account import Account
    from hostagent.netctl.effect import Done

log = logging.getLogger(__name__)

LOCK_S = 60.0
POLL_S = 0.5
FOREIGN_ROW = 46
"""Of the failure catalogue: what another program has is never taken from it in passing."""


class Site(NamedTuple):
    """What of the host a `Network` works with; every one may be called by any thread."""

    open: Callable[[str], Host]
    """This host, for one change; the argument is the management bridge."""
    owners: Callable[[str], Sequence[Owner]]
    """Other network daemons that have a NIC."""
    management: Callable[[], tuple[str, str]]
    """Bridge and family, as the inventory has them."""
    set_management: Callable[[str, str, str], None]
    """Write the inventory: bridge, family, and during a move, until the database has it, the former bridge."""
    serve: Callable[[str, str], None]
    """Listen on the address of this bridge, or on none for an empty one."""
    nics: Callable[[], Sequence[Nic]]
    has_bridge: Callable[[str], bool]
    ask: Callable[[Probe], Answer]
    """A probe on the wire."""


class Network:
    """This host's network: the `Effect` of the calls. For changes it is called by one thread at a time."""

    def __init__(self, site: Site, *, boot: bool = False, account: Account | None = None) -> None:
        """`boot`: what can be had with less is brought up with less, instead of being refused."""
        self._site = site
        self._boot = boot
        self._account = account

    @property
    def site(self) -> Site:
        return self._site

    def telling(self, account: Account) -> Network:
        """The same network, for one change that is told of in `account`."""
        return Network(self._site, boot=self._boot, account=account)

    # --- changes ---

    @contextlib.contextmanager
    def bring_up(
        self,
        records: Records,
        refs: Sequence[str],
        *,
        was: Records,
        down: Sequence[str] = (),
        becoming_management: str = "",
        moved: Mapping[str, str] | None = None,
        asked: bool = True,
    ) -> Iterator[Mapping[str, int]]:
        """As `Effect.bring_up`. Raises FindingError, ConflictError, RolledBackError, BusyError, FileError,
        and TakenBackError where it was not asked for."""
        with self._host(was) as host:
            kernel = host.tools.netlink.look()
            both = together(records, was, kernel)
            wanted = self._wanted(both, refs, host, kernel, down=down, becoming=becoming_management)
            if not asked:
                taken_back.refuse(host, refs, wanted)
            planned = plan_of(wanted, kernel, host.around(wanted, kernel))
            planned = guests_moved(planned, kernel, bridges_of(both, moved or {}))
            what = ", ".join(
                [*(f"up {both.pifs[ref].device}" for ref in refs), *(f"down {ref}" for ref in down)]
            )
            management = becoming_management or next((ref for ref in refs if both.pifs[ref].management), "")
            change = Change(
                what,
                both,
                kernel,
                wanted,
                planned,
                digest=cache.digest(records),
                kept_as=_kept_as(was, records),
                former=was.bridge,
                becoming=becoming_management,
                blame=management or next(iter(refs), ""),
            )
            with self._carried_out(host, change) as course:
                yield mtus(both, refs, host.tools.netlink.look())
            if course.reached and course.outcome == CHANGED:
                _verified(host, records)
            if asked and not self._boot:
                taken_back.plugged(host, refs, wanted)
            for told in emergency.changed(host, both, refs, becoming_management):
                log.warning("%s: %s", what, told)
        if self._account is None and host.wire is not None and wanted.addresses:
            for trouble in announce(wanted, planned, host.wire):
                log.warning("%s: %s", what, trouble)

    @contextlib.contextmanager
    def take_down(
        self, records: Records, refs: Sequence[str], *, after: Records | None = None
    ) -> Iterator[Mapping[str, int]]:
        """As `Effect.take_down`."""
        with self._host(records) as host:
            kernel = host.tools.netlink.look()
            now = together(records, records, kernel)
            wanted = self._wanted(now, (), host, kernel, down=refs)
            for finding in guests(now, refs, wanted.gone, kernel):
                raise finding.error()
            what = ", ".join(f"down {now.pifs[ref].device}" for ref in refs)
            change = _leading_to(after, what, host, kernel, wanted, now, was=records)
            with self._carried_out(host, change._replace(blame=next(iter(refs), ""))):
                yield {}

    def attach(self, records: Records, network: str, *, was: Records | None = None) -> Done:
        """As `Effect.attach`."""
        return self._internal(records, network, present=True, was=was, after=records)

    def detach(self, records: Records, network: str, *, after: Records | None = None) -> Done:
        """As `Effect.detach`."""
        return self._internal(records, network, present=False, was=records, after=after)

    @contextlib.contextmanager
    def listen(self, bridge: str, address_type: str) -> Iterator[Mapping[str, int]]:
        """As `Effect.listen`. Raises FileError, InvalidValueError, OperatorError."""
        before = self._site.management()
        self._site.set_management(bridge, address_type, before[0])
        try:
            self._site.serve(bridge, address_type)
            yield {}
        except BaseException:
            self._site.set_management(*before, "")
            self._site.serve(*before)
            raise
        try:
            self._site.set_management(bridge, address_type, "")
        except HostagentError as error:  # the database has it, and the next start finds so
            log.warning("the management interface is %s; %s (%s)", bridge, error.found, error.hint)

    def remove_bridges(self, names: Sequence[str], was: Records | None = None) -> tuple[str, ...]:
        """Remove bridges of ours that have no port; those that went. `was`: what the database says."""
        with self._host(was) as host:
            kernel = host.tools.netlink.look()
            busy = {link.master for link in kernel.links.values()}
            links = kernel.by_name()
            gone = tuple(
                name
                for name in names
                if name in links and links[name].group == GROUP and links[name].ifindex not in busy
            )
            wanted = Wanted(gone=gone)
            records = Records("", {}, {}, {}, {})
            what = f"remove {', '.join(gone)}"
            with self._carried_out(host, Change(what, records, kernel, wanted, plan_of(wanted, kernel))):
                pass
            for name in gone:
                _hand_out(host, records, name)
            return gone

    def planned(self, records: Records, refs: Sequence[str]) -> Plan:
        """What `bring_up` of these PIFs would do now. Raises as it does."""
        with self.opened() as host:
            kernel = host.tools.netlink.look()
            wanted = self._wanted(together(records, records, kernel), refs, host, kernel)
            return plan_of(wanted, kernel, host.around(wanted, kernel))

    def planned_bridge(self, records: Records, network: str) -> Plan:
        """What `attach` of this network would do now. Raises as it does."""
        with self.opened() as host:
            kernel = host.tools.netlink.look()
            wanted = _bridge_wanted(records, network, kernel, present=True)
            return plan_of(wanted, kernel, host.around(wanted, kernel))

    # --- looks ---

    def management_bridge(self) -> str:
        return self._site.management()[0]

    def management_address_type(self) -> str:
        return self._site.management()[1]

    def has_bridge(self, name: str) -> bool:
        return self._site.has_bridge(name)

    def has_address(self, device: str, family: str) -> bool:
        with self.opened() as host:
            kernel = host.tools.netlink.look()
        waits = family == "IPv6" and awaits_address(kernel, device)
        return waits or bool(management_address(kernel, device, family))

    def foreign_vlans(self) -> Mapping[tuple[str, int], str]:
        with self.opened() as host:
            kernel = host.tools.netlink.look()
        return {
            (kernel.links[link.lower].name, link.vlan_id): link.name
            for link in kernel.links.values()
            if link.kind == "vlan" and link.group != GROUP and link.lower in kernel.links
        }

    def mode_refused(self, mode: str) -> str:
        if mode in MODES:
            return ""
        return SLB_REASON if mode == "balance-slb" else f"no such bond mode: {mode}"

    def nics(self) -> Sequence[Nic]:
        return self._site.nics()

    # --- how ---

    @contextlib.contextmanager
    def opened(self) -> Iterator[Host]:
        """This host, for a look, or for a change by who has its lock."""
        host = self._site.open(self.management_bridge())
        try:
            yield host
        finally:
            close = getattr(host.tools.netlink, "close", None)
            if close is not None:
                close()

    @contextlib.contextmanager
    def _host(self, was: Records | None = None) -> Iterator[Host]:
        """This host for a change, with nothing unfinished and nobody else at work. `was`: what the database says."""
        with (
            self.opened() as host,
            journal.Lock(
                host.folder,
                host.by,
                wait_s=LOCK_S if self._account is None else self._account.lock_s,
                sleep=host.wait,
            ),
        ):
            if told := unfinished(host, "" if was is None else state_of(was)):
                log.warning("%s", told)
            yield host

    def _wanted(
        self,
        records: Records,
        up: Sequence[str],
        host: Host,
        kernel: Kernel,
        *,
        down: Sequence[str] = (),
        becoming: str = "",
    ) -> Wanted:
        for ref in up:
            pif = records.pifs.get(ref)
            names = early.nics_of(records, pif) if pif is not None else ()
            for _, what in early.held(names, kernel, self._site.owners):
                hint = "hostagent net adopt takes it over with its address; --dry-run shows how"
                raise Finding(FOREIGN_ROW, STOP, (ref,), what, hint).error()
        told = []
        for finding in check(
            records, up, down=down, becoming_management=becoming, kernel=kernel, boot=self._boot
        ):
            if finding.severity == STOP or finding.row == FOREIGN_ROW:
                raise finding.error()
            told.append(finding)
        if self._account is not None:
            self._account.findings = told
        return emergency.want_beside(host.run, records, up, kernel, down=down, becoming=becoming)

    @contextlib.contextmanager
    def _carried_out(self, host: Host, change: Change) -> Iterator[Course]:
        """As `change.carried_out`, and into the history. Yields how it goes."""
        account = self._account
        course = account.course if account is not None else Course()
        if account is not None:
            change = change._replace(confirm_s=account.confirm_s)
        began = host.clock()
        try:
            with carried_out(change._replace(boot=self._boot), host, course):
                yield course
        except BaseException as error:
            if course.outcome:
                note_course(host, course, host.clock() - began, error)
            raise
        if course.outcome:
            note_course(host, course, host.clock() - began)
        if account is None:
            for told in course.less:
                log.warning("%s: %s", change.what, told)

    @contextlib.contextmanager
    def _internal(
        self, records: Records, network: str, *, present: bool, was: Records | None, after: Records | None
    ) -> Iterator[Mapping[str, int]]:
        with self._host(was) as host:
            kernel = host.tools.netlink.look()
            wanted = _bridge_wanted(records, network, kernel, present=present)
            bridge = records.networks[network].bridge
            what = f"{'make' if present else 'remove'} bridge {bridge}"
            change = _leading_to(after, what, host, kernel, wanted, records, was=was or records)
            try:
                with self._carried_out(host, change):
                    yield {}
            except BaseException:
                if not present and change.planned.steps:  # the bridge came back, and its server ended with it
                    _hand_out(host, records, bridge, network)
                raise
            _hand_out(host, records, bridge, network if present else "")


def _hand_out(host: Host, records: Records, bridge: str, network: str = "") -> None:
    """Guests get addresses on a bridge as its network says, once it is there for good; without a network no more."""
    try:
        host.hand_out(bridge, records.networks.get(network))
    except HostagentError as error:  # its guests may have addresses of their own
        log.warning("%s (hint: %s)", error.found, error.hint)


def _bridge_wanted(records: Records, network: str, kernel: Kernel, *, present: bool) -> Wanted:
    """As `want_network`, of a bridge that is ours or to be made: another program's stays as it is. Raises FindingError
    also where one has the name, and for guests on a bridge that is to go."""
    wanted, record = want_network(records, network, present=present), records.networks[network]
    if not wanted.devices and not wanted.gone:
        return wanted
    taken = bridge_taken(record, kernel)
    if taken and not present:
        return Wanted()
    if finding := taken if present else network_guests(record, kernel):
        raise finding.error()
    return wanted


def _verified(host: Host, records: Records) -> None:
    """The host is reached as the database, which has them by now, wants it: that is what to go back to."""
    try:
        keep(host.folder, records, verified=True)
    except HostagentError as error:
        log.warning("the generation could not be marked as verified: %s; %s", error.found, error.hint)


def _leading_to(
    after: Records | None,
    what: str,
    host: Host,
    kernel: Kernel,
    wanted: Wanted,
    records: Records,
    *,
    was: Records,
) -> Change:
    """What makes the kernel as `wanted` of `records`. The database says `was` now, and `after` once it has the change;
    None where it will say the same."""
    return Change(
        what,
        records,
        kernel,
        wanted,
        plan_of(wanted, kernel, host.around(wanted, kernel)),
        digest=cache.digest(was if after is None else after),
        kept_as=_kept_as(was, after),
        former=was.bridge,
    )


def _kept_as(was: Records, after: Records | None) -> str:
    """What tells that the database has a change; nothing where it says the same before and after it."""
    if after is None or after == was or meant(after) == meant(was):
        return ""
    return state_of(after)
