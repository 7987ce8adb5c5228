"""Changes of objects carried out on this host: records become what is wanted, a plan, its journal, and the kernel.

What `effect.Effect` promises. A change holds the lock of all network changes from its first look until the database has
it. A change of the management interface must keep what worked: its gateway, if it answered before, answers afterwards.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, NamedTuple

from hostagent.errors import HostagentError, KernelError
from hostagent.net import apply, cache, early, history, journal
from hostagent.net.checks import check
from hostagent.net.devices import GROUP, Wanted
from hostagent.net.finding import STOP, Finding
from hostagent.net.model import want, want_network
from hostagent.net.plan import plan as plan_of
from hostagent.net.verify import differences
from hostagent.netctl.account import Account
from hostagent.netctl.merged import bridges_of, guests_moved, mtus, together
from hostagent.netctl.unfinished import unfinished

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from hostagent.net.bring import Host
    from hostagent.net.devices import Kernel
    from hostagent.net.foreign_files import Owner
    from hostagent.net.nics_types import Nic
    from hostagent.net.operation import Plan
    from hostagent.net.probe import Answer, Probe
    from hostagent.net.records import Records
    from hostagent.net.verify import Difference
    from hostagent.netctl.effect import Done

LOCK_S = 60.0
UNDO_S = 90.0
"""After so long without us, the timer undoes a change of the management interface."""
PROBE_S = 2.0
SETTLE_S = 30.0
"""For a management interface that was changed: carrier, a bond's partner, a DHCP lease, and its gateway's answer."""
POLL_S = 0.5
DEFAULTS = {4: "default4", 6: "default6"}
SLB = "the kernel's bonding has no balance-slb: use active-backup, or lacp where the switch speaks it"
MODES = ("active-backup", "lacp")
FOREIGN_ROW = 46
"""Of the failure catalogue: what another program has is never taken from it in passing."""


class LostGatewayError(KernelError):
    """The gateway answered before a change of the management interface, and does not after it: it was undone."""

    code = "PIF_CONFIGURATION_ERROR"


class Site(NamedTuple):
    """What of the host a `Network` works with; every one may be called by any thread."""

    open: Callable[[str], Host]
    """This host, for one change; the argument is the management bridge."""
    owners: Callable[[str], Sequence[Owner]]
    """Other network daemons that have a NIC."""
    management: Callable[[], tuple[str, str]]
    """Bridge and family, as the inventory has them."""
    set_management: Callable[[str, str], None]
    """Write the inventory."""
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
        self._account = account or Account(LOCK_S)

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
    ) -> Iterator[Mapping[str, int]]:
        """As `Effect.bring_up`. Raises FindingError, RolledBackError, LostGatewayError, BusyError, FileError."""
        with self._host() as host:
            kernel = host.tools.netlink.look()
            both = together(records, was, kernel)
            wanted = self._wanted(both, refs, kernel, down=down, becoming=becoming_management)
            planned = plan_of(wanted, kernel, host.around(wanted, kernel))
            planned = guests_moved(planned, kernel, bridges_of(both, moved or {}))
            what = ", ".join(
                [*(f"up {both.pifs[ref].device}" for ref in refs), *(f"down {ref}" for ref in down)]
            )
            management = becoming_management or next((ref for ref in refs if both.pifs[ref].management), "")
            before = self._gateway(both, kernel, was) if management and planned.steps else None
            with self._carried_out(host, planned, wanted, cache.digest(records), what, guarded=bool(before)):
                after = host.tools.netlink.look()
                if before is not None and before.answered:
                    self._must_answer(host, both, management, wanted)
                yield mtus(both, refs, after)

    @contextlib.contextmanager
    def take_down(self, records: Records, refs: Sequence[str]) -> Iterator[Mapping[str, int]]:
        """As `Effect.take_down`."""
        with self._host() as host:
            kernel = host.tools.netlink.look()
            now = together(records, records, kernel)
            wanted = self._wanted(now, (), kernel, down=refs)
            planned = plan_of(wanted, kernel, host.around(wanted, kernel))
            what = ", ".join(f"down {now.pifs[ref].device}" for ref in refs)
            with self._carried_out(host, planned, wanted, cache.digest(records), what):
                yield {}

    def attach(self, records: Records, network: str) -> Done:
        """As `Effect.attach`."""
        return self._internal(records, network, present=True)

    def detach(self, records: Records, network: str) -> Done:
        """As `Effect.detach`."""
        return self._internal(records, network, present=False)

    @contextlib.contextmanager
    def listen(self, bridge: str, address_type: str) -> Iterator[Mapping[str, int]]:
        """As `Effect.listen`. Raises FileError, InvalidValueError, OperatorError."""
        before = self._site.management()
        self._site.set_management(bridge, address_type)
        try:
            self._site.serve(bridge, address_type)
            yield {}
        except BaseException:
            self._site.set_management(*before)
            self._site.serve(*before)
            raise

    def remove_bridges(self, names: Sequence[str]) -> tuple[str, ...]:
        """Remove bridges of ours that have no port; those that went."""
        with self._host() as host:
            kernel = host.tools.netlink.look()
            busy = {link.master for link in kernel.links.values()}
            links = kernel.by_name()
            gone = tuple(
                name
                for name in names
                if name in links and links[name].group == GROUP and links[name].ifindex not in busy
            )
            wanted = Wanted(gone=gone)
            planned = plan_of(wanted, kernel)
            with self._carried_out(host, planned, wanted, "", f"remove {', '.join(gone)}"):
                return gone

    def planned(self, records: Records, refs: Sequence[str]) -> Plan:
        """What `bring_up` of these PIFs would do now. Raises as it does."""
        with self.opened() as host:
            kernel = host.tools.netlink.look()
            wanted = self._wanted(together(records, records, kernel), refs, kernel)
            return plan_of(wanted, kernel, host.around(wanted, kernel))

    # --- looks ---

    def management_bridge(self) -> str:
        return self._site.management()[0]

    def management_address_type(self) -> str:
        return self._site.management()[1]

    def has_bridge(self, name: str) -> bool:
        return self._site.has_bridge(name)

    def foreign_vlan(self, device: str, tag: int) -> str:
        with self.opened() as host:
            kernel = host.tools.netlink.look()
        lower = kernel.by_name().get(device)
        return next(
            (
                link.name
                for link in kernel.links.values()
                if lower and link.kind == "vlan" and (link.lower, link.vlan_id) == (lower.ifindex, tag)
                if link.group != GROUP
            ),
            "",
        )

    def mode_refused(self, mode: str) -> str:
        if mode in MODES:
            return ""
        return SLB if mode == "balance-slb" else f"no such bond mode: {mode}"

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
    def _host(self) -> Iterator[Host]:
        """This host for a change, with nothing unfinished and nobody else at work."""
        with (
            self.opened() as host,
            journal.Lock(host.folder, host.by, wait_s=self._account.lock_s, sleep=host.wait),
        ):
            unfinished(host)
            yield host

    def _wanted(
        self,
        records: Records,
        up: Sequence[str],
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
        self._account.findings = told
        return want(records, up, down=down, becoming_management=becoming, links=kernel.by_name())

    @contextlib.contextmanager
    def _carried_out(
        self, host: Host, planned: Plan, wanted: Wanted, digest: str, what: str, *, guarded: bool = False
    ) -> Iterator[None]:
        """The plan is done and verified; committed when the block is left whole, undone when it raises.

        One that is to be confirmed has no digest, so that nobody takes it for one that the database has (`unfinished`).
        """
        account = self._account
        account.wanted, account.planned = wanted, planned
        if not planned.steps:
            yield
            return
        guarded = guarded or bool(account.confirm_s)
        digest = "" if account.confirm_s else digest

        def differing(kernel: Kernel) -> tuple[Difference, ...]:
            return differences(wanted, kernel, host.around(wanted, kernel))

        began = host.clock()
        if guarded:
            host.arm(account.confirm_s or UNDO_S)
        try:
            written, done = apply.carry_out(
                planned, host.tools, host.folder, boot=host.boot, digest=digest, what=what, check=differing
            )
            account.milliseconds, account.soft = tuple(done.milliseconds), tuple(host.soft)
            try:
                yield
                if guarded and not account.confirm_s:
                    host.disarm()  # raises when the timer was faster
            except BaseException:
                troubles = apply.undo(written, host.tools, boot=host.boot)
                if not troubles:
                    journal.mark(host.folder, written, journal.UNDONE)
                raise
            if not account.confirm_s:
                journal.mark(host.folder, written, journal.COMMITTED)
        except BaseException as error:
            if guarded:
                with contextlib.suppress(HostagentError):
                    host.disarm()
            found = error.found if isinstance(error, HostagentError) else type(error).__name__
            account.outcome = "rolled-back"
            self._note(host, what, "rolled-back", began, digest, planned, (), (found,))
            raise
        account.outcome = "waiting" if account.confirm_s else "changed"
        self._note(host, what, account.outcome, began, digest, planned, done.milliseconds, tuple(host.soft))

    def _note(
        self,
        host: Host,
        what: str,
        outcome: str,
        began: float,
        digest: str,
        planned: Plan,
        milliseconds: Sequence[float],
        told: tuple[str, ...],
    ) -> None:
        seconds = host.clock() - began
        entry = history.Entry(time.time() - seconds, what, outcome, seconds, host.by, digest, told=told)
        spent = [*milliseconds, *[0.0] * (len(planned.steps) - len(milliseconds))]
        steps = [
            history.Done(step.do.verb, step.do.device, ms)
            for step, ms in zip(planned.steps, spent, strict=True)
        ]
        with contextlib.suppress(HostagentError):  # it is for people: a full disk must not fail the change
            history.append(host.folder, history.entry_of(entry, steps))

    @contextlib.contextmanager
    def _internal(self, records: Records, network: str, *, present: bool) -> Iterator[Mapping[str, int]]:
        with self._host() as host:
            kernel = host.tools.netlink.look()
            wanted = want_network(records, network, present=present)
            planned = plan_of(wanted, kernel, host.around(wanted, kernel))
            name = records.networks[network].bridge
            what = f"{'make' if present else 'remove'} bridge {name}"
            with self._carried_out(host, planned, wanted, cache.digest(records), what):
                yield {}

    # --- the management interface ---

    def _gateway(self, records: Records, kernel: Kernel, was: Records) -> Answer | None:
        """The answer of the gateway that the management interface has now; None where there is none to ask."""
        pif = early.management(was)
        bridge = was.networks[pif.network].bridge if pif else records.bridge
        link = kernel.by_name().get(bridge)
        for route in kernel.routes:
            if link and route.device == link.ifindex and route.destination in DEFAULTS.values():
                return self._ask(bridge, route.gateway, kernel)
        return None

    def _ask(self, bridge: str, gateway: str, kernel: Kernel) -> Answer | None:
        from hostagent.net.probe import Probe

        link = kernel.by_name().get(bridge)
        if link is None or not gateway:
            return None
        source = next(
            (
                address.text
                for address in kernel.addresses
                if address.device == link.ifindex and (":" in address.text) == (":" in gateway)
            ),
            "",
        )
        return self._site.ask(Probe("gateway", gateway, bridge, source=source)) if source else None

    def _must_answer(self, host: Host, records: Records, ref: str, wanted: Wanted) -> None:
        """Raises LostGatewayError unless the gateway of the changed management interface answers in time, if it is to
        have one."""
        bridge = records.networks[records.pifs[ref].network].bridge
        routes = [r for r in wanted.routes if r.device == bridge and r.destination in DEFAULTS.values()]
        leases = [lease for lease in wanted.leases if lease.device == bridge and lease.gateway]
        if not routes and not leases:
            return
        until = host.clock() + SETTLE_S
        while True:
            kernel = host.tools.netlink.look()
            link = kernel.by_name().get(bridge)
            for route in kernel.routes:
                if link and route.device == link.ifindex and route.destination in DEFAULTS.values():
                    answer = self._ask(bridge, route.gateway, kernel)
                    if answer is not None and answer.answered:
                        return
            if host.clock() >= until:
                break
            host.wait(POLL_S)
        asked = ", ".join(route.gateway for route in routes) or "that of the DHCP lease"
        raise LostGatewayError(
            f"the gateway ({asked}) answered before the change and not within {SETTLE_S:g} s after it on {bridge}",
            hint="look at address, netmask, VLAN tag, bond mode and the switch's port; the former network is back",
            params=(ref, "the gateway does not answer"),
        )
