"""A card that was taken over goes back to the daemon it was taken from, with its addresses.

Their files come back first: at a boot in between, the card is theirs once the deciding one is (`later_boot.py`). Then
the addresses move from the bridge to the card, the daemon is told, and what answered before must answer; else all of it
is undone.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from hostagent.errors import HostagentError
from hostagent.net import adopt, adopt_files, apply, bring, client_ids, journal
from hostagent.net.adopt_files import CannotAdoptError, Change
from hostagent.net.devices import SCOPE_LINK
from hostagent.net.foreign_daemons import TAKE
from hostagent.net.later_boot import content
from hostagent.net.model import want
from hostagent.net.operation import Plan
from hostagent.net.plan import plan as plan_of
from hostagent.net.reachable import LostError
from hostagent.net.unfinished import arm, disarm, state_of, unfinished
from hostagent.net.verify import differences
from hostagent.netctl import adopt_objects
from hostagent.netctl.adopt_place import (
    SPARE_S,
    PlannedError,
    answers,
    must_answer,
    note_done,
    note_file,
    note_undone,
    noted,
    notes,
    opened,
    placed,
    probes,
    reader,
    resolved,
    undone,
)
from hostagent.netctl.control import Control
from hostagent.netctl.merged import together
from hostagent.netctl.plug import POLL_S, Network

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from hostagent.net.bring import Host
    from hostagent.net.devices import Kernel, Lease, Link
    from hostagent.net.records import Records
    from hostagent.netctl.adopt_place import Adopted, Place, Request


def release(place: Place, request: Request) -> Any:
    """Give a card back to the daemon it was taken from; as `adopt.take`."""
    earlier = resolved(place, request)
    note = noted(place.state, request.nic)
    with opened(place, note.bridge) as host:
        giving = _Giving(place, request, host, note)
        result = bring.empty_result(f"release {note.nic} to {note.daemon}", "", "planned")
        result["told"] += earlier
        if request.dry_run:
            bring.put_plan(result, giving.rehearsed(), giving.kernel)
        else:
            with journal.Lock(
                host.folder, f"{host.by} release {note.nic}", wait_s=request.timeout_s, sleep=host.wait
            ):
                told = unfinished(host)
                result["told"] += [told] if told else []
                began = host.clock()
                try:
                    giving.carry_out()
                except BaseException as error:
                    note_undone(giving, result, began, error)
                    raise
                note_done(giving, result, began)
                place.keep(adopt_objects.records(place, ""))
    return {**result, "files": [change.path for change in giving.files], "bridge": note.bridge}


class _Giving(Network):
    """The `Effect` of giving back."""

    def __init__(self, place: Place, request: Request, host: Host, note: Adopted) -> None:
        super().__init__(place.site)
        self.place = place
        self.request = request
        self.host = host
        self.note = note
        others = [other for other in notes(place.state) if other.nic != note.nic]
        shared = {c.path for other in others for c in other.files if adopt_files.MARK not in (c.after or "")}
        beside = [other.nic for other in others if other.daemon == adopt_files.IFUPDOWN]
        held = adopt_files.hold_off(note.daemon, note.nic, reader(place.root))
        mine = [c for c in note.files if c.path not in shared and (held is None or c.path != held.path)]
        restored = adopt_files.restoring(mine, reader(place.root), beside)
        self.files = tuple(placed(place, one) for one in restored)
        self.hold_off = None if held is None else placed(place, held)
        ours = (note_file(place.state, note.nic), client_ids.file_of(note.bridge, place.state))
        self.notes = tuple(
            Change(str(path), had, None) for path in ours if (had := content(path)) is not None
        )
        self.switch = str(place.root / adopt_files.switch_of(note.daemon, note.nic, note.files).lstrip("/"))
        self.plan = Plan(())
        self.kernel: Kernel | None = None
        self.milliseconds: tuple[float, ...] = ()
        self._dry = False

    def rehearsed(self) -> Plan:
        self._dry = True
        try:
            self.carry_out()
        except PlannedError as found:
            self.plan = found.plan
        return self.plan

    def carry_out(self) -> None:
        control = Control(self.place.database, self.place.host_uuid, self)
        control.change(adopt_objects.giving(control, self.note.nic))

    @contextlib.contextmanager
    def take_down(
        self, records: Records, refs: Sequence[str], *, after: Records | None = None
    ) -> Iterator[Mapping[str, int]]:
        """As `Effect.take_down`, of the one card, whose addresses stay on it."""
        host, note = self.host, self.note
        kernel = self.kernel = host.tools.netlink.look()
        nic, bridge = _pair(kernel, note)
        now = together(records, records, kernel)
        adopt.refuse_release(now, refs[0], bridge, nic, kernel)
        wanted = adopt.released(kernel, nic, bridge)
        leases: tuple[Lease, ...] = want(now, refs, links=kernel.by_name()).leases
        planned = plan_of(wanted, kernel)
        self.plan = adopt.releasing(
            planned,
            kernel,
            nic,
            bridge,
            note.daemon,
            self.files,
            leases,
            self.hold_off,
            self.notes,
            self.switch,
        )
        if note.daemon == adopt_files.IFUPDOWN:
            self.plan = adopt.lasting(self.plan, nic)
        if self._dry:
            raise PlannedError(self.plan)
        before = answers(self.place.site.ask, probes(kernel, bridge, ()))
        had = {
            one.text for one in kernel.addresses if one.device == bridge.ifindex and one.scope < SCOPE_LINK
        }
        arm(host, self.request.timeout_s + SPARE_S)
        written = None
        try:
            written, applied = apply.carry_out(
                self.plan, host.tools, host.folder, boot=host.boot, digest="" if after is None else state_of(after),
                what=f"release {note.nic}", check=lambda found: differences(wanted, found),
            )  # fmt: skip
            self.milliseconds = applied.milliseconds
            host.tools.foreign(note.daemon, TAKE, note.nic)
            host.tools.hold("told")
            self._must_have(had)
            must_answer(host, self.place.site.ask, before, note.nic, self.request.timeout_s)
            yield {}
        except BaseException as error:
            back = None
            if written is not None:
                troubles = apply.take_back(written, host.tools, host.folder, boot=host.boot)
                back = undone(self, error, troubles)
            disarm(host)
            if back is not None:
                raise back from error
            raise
        journal.commit(host.folder, written)
        with contextlib.suppress(HostagentError):
            host.disarm()

    def _must_have(self, had: set[str]) -> None:
        """The other daemon may make the IPv4 address anew: it is waited for."""
        wanted = {text for text in had if ":" not in text}
        until = self.host.clock() + self.request.timeout_s
        while True:
            kernel = self.host.tools.netlink.look()
            nic = kernel.by_name()[self.note.nic]
            missing = wanted - {one.text for one in kernel.addresses if one.device == nic.ifindex}
            if not missing:
                return
            if self.host.clock() >= until:
                raise LostError(
                    f"{self.note.daemon} has not given {nic.name} the address {', '.join(sorted(missing))}",
                    hint="see its log",
                )
            self.host.wait(POLL_S)


def _pair(kernel: Kernel, note: Adopted) -> tuple[Link, Link]:
    links = kernel.by_name()
    nic, bridge = links.get(note.nic), links.get(note.bridge)
    if nic is None or bridge is None or nic.master != bridge.ifindex:
        raise CannotAdoptError(
            f"{note.nic} is no port of {note.bridge} now",
            hint="hostagent net check; hostagent pif plug brings it back",
        )
    return nic, bridge
