"""A card taken over from another network daemon, and given back: on the host, in its files, and in the database.

The order is what makes it safe: probes of what works; the undo timer; the plan with its journal; the same probes; then
database, inventory and cache (ours is enabled); then the files that keep the other daemon off (theirs is disabled),
which is told to let go; looked at once more, and kept. Killed before that, the timer undoes all of it, files too;
without power, whoever the one deciding file names brings the card up at the next boot, and the other files follow it.
"""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

from hostagent.errors import HostagentError
from hostagent.named import NamedTuple
from hostagent.net import adopt, adopt_files, apply, bring, cache, client_ids, journal, probe
from hostagent.net.adopt_files import CannotAdoptError, Change
from hostagent.net.checks import check
from hostagent.net.dhcp import Client
from hostagent.net.finding import STOP
from hostagent.net.foreign_daemons import LET_GO, RELOAD
from hostagent.net.later_boot import content
from hostagent.net.model import want
from hostagent.net.operation import Operation, Plan
from hostagent.net.plan import plan as plan_of
from hostagent.net.reachable import LostError
from hostagent.net.unfinished import arm, disarm, unfinished
from hostagent.net.verify import differences
from hostagent.netctl import adopt_objects
from hostagent.netctl.adopt_place import (
    SPARE_S,
    Adopted,
    PlannedError,
    answers,
    must_answer,
    note_done,
    note_file,
    note_undone,
    opened,
    placed,
    probes,
    reader,
    resolved,
    undone,
)
from hostagent.netctl.control import Control
from hostagent.netctl.merged import mtus, together
from hostagent.netctl.plug import POLL_S, Network

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from hostagent.net.bring import Host
    from hostagent.net.devices import Kernel, Wanted
    from hostagent.net.foreign_files import Owner
    from hostagent.net.records import Records
    from hostagent.net.result import Result
    from hostagent.netctl.adopt_place import Place, Request

FOREIGN_ROW = 46
"""Of the failure catalogue: another daemon has the card, which is what this is for."""
KNOWN_HINT = (
    "see how the server knows this host (client identifier, MAC address), and whether there are two servers"
)


def take(place: Place, request: Request) -> Any:
    """Take a card over; a `result.Result` with `files`, `pif` and `bridge` beside.

    Raises CannotAdoptError, FindingError, BusyError, GuardError, FileError before anything is touched; afterwards
    RolledBackError, all of it being undone, which says what of that failed.
    """
    earlier = resolved(place, request)
    with opened(place, "") as host:
        kernel = host.tools.netlink.look()
    nic = adopt.choose(request.nic, kernel)
    link = kernel.by_name()[nic]
    owners = place.site.owners(nic)
    owner = adopt.main_owner(link, owners, kernel)
    taken = adopt.settings(owner, link, kernel)
    alone = owner.daemon == adopt_files.NETWORKD and not adopt_files.networkd_others(nic, place.root)
    files = adopt_files.disabling(owners, reader(place.root), alone=alone)
    bridge = adopt_objects.bridge_of(place, nic)
    result = bring.empty_result(f"adopt {nic} from {owner.daemon}", "", "planned")
    result["told"] += [*earlier, *taken.told]
    with opened(place, bridge) as host:
        taking = _Taking(place, request, host, _Card(nic, bridge, owner, taken, files))
        if request.dry_run:
            bring.put_plan(result, taking.rehearsed(), taking.kernel)
        else:
            with journal.Lock(
                host.folder, f"{host.by} adopt {nic}", wait_s=request.timeout_s, sleep=host.wait
            ):
                told = unfinished(host)
                result["told"] += [told] if told else []
                _do(place, taking, result)
    return {
        **result,
        "files": [change.path for change in files.all if change.before != change.after],
        "bridge": bridge,
        "settings": taken._replace(told=())._asdict(),
    }


def _do(place: Place, taking: _Taking, result: Result) -> None:
    host, card = taking.host, taking.card
    began = host.clock()
    before = adopt_objects.snapshot(place, card.nic)
    management = place.site.management()
    try:
        taking.carry_out()
        cached = place.keep(adopt_objects.records(place, card.bridge))
        for change in card.files.late:
            host.tools.file(placed(place, change).path, change.after)
            host.tools.hold(f"wrote {change.path}")
        if card.owner.daemon not in adopt_files.LET_GO_FIRST:
            host.tools.foreign(card.owner.daemon, LET_GO, card.nic)
        taking.must_work()
    except BaseException as error:
        troubles = taking.undo()
        if taking.recorded:
            troubles += _records_back(place, before, management, card.nic)
        back = undone(taking, error, troubles) if taking.applied else None
        note_undone(taking, result, began, back or error)
        if back is not None:
            raise back from error
        raise
    taking.commit()
    result["told"] += host.soft
    note_done(taking, result, began)
    try:
        cache.mark_verified(host.folder, cached)
    except HostagentError as error:  # the card is ours by now
        result["told"].append(f"the generation could not be marked as verified: {error.found}")


def _records_back(
    place: Place, before: adopt_objects.Snapshot, management: tuple[str, str], nic: str
) -> tuple[apply.Trouble, ...]:
    """Database, inventory, listeners and cache as they were, each as far as it can be; what failed."""
    failed = []
    for back in (
        lambda: adopt_objects.restore(place, before),
        lambda: place.site.set_management(*management, ""),
        lambda: place.site.serve(*management),
        lambda: place.keep(adopt_objects.records(place, management[0])),
    ):
        try:
            back()
        except HostagentError as error:
            failed.append(apply.Trouble(Operation("records", nic, 0), error.found))
    return tuple(failed)


class _Card(NamedTuple):
    nic: str
    bridge: str
    owner: Owner
    taken: adopt.Settings
    files: adopt_files.Disabling


class _Taking(Network):
    """The `Effect` of one take-over: what it changes stays `applied` in the journal until `commit`.

    The journal names nothing of the database: that the database has it says nothing of the files that come after it.
    """

    def __init__(self, place: Place, request: Request, host: Host, card: _Card) -> None:
        super().__init__(place.site)
        self.place = place
        self.request = request
        self.host = host
        self.card = card
        self.plan = Plan(())
        self.kernel: Kernel | None = None
        self.milliseconds: tuple[float, ...] = ()
        self.recorded = False
        self._journal: journal.Journal | None = None
        self._armed = False
        self._before: list[probe.Answer] = []
        self._wanted_: Wanted | None = None

    @property
    def applied(self) -> bool:
        """Whether all steps of the plan were done."""
        return self._journal is not None

    def rehearsed(self) -> Plan:
        """The plan; nothing is done."""
        try:
            self._change(dry=True)
        except PlannedError as found:
            self.plan = found.plan
        return self.plan

    def carry_out(self) -> None:
        """Kernel and database."""
        self._change(dry=False)
        self.recorded = True

    def _change(self, *, dry: bool) -> None:
        self._dry = dry
        control = Control(self.place.database, self.place.host_uuid, self)
        card = self.card
        nics = self.place.site.nics()
        control.change(adopt_objects.taking(control, card.nic, card.bridge, card.taken, nics))

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
        """As `Effect.bring_up`, of the one card, whoever has it now; undone by `undo`, not here."""
        host, card = self.host, self.card
        kernel = self.kernel = host.tools.netlink.look()
        both = together(records, was, kernel)
        for finding in check(both, refs, down=down, becoming_management=becoming_management, kernel=kernel):
            if finding.severity == STOP and finding.row != FOREIGN_ROW:
                raise finding.error()
        links = kernel.by_name()
        wanted = want(both, refs, down=down, becoming_management=becoming_management, links=links)
        planned = plan_of(wanted, kernel, host.around(wanted, kernel))
        self.plan = adopt.adopting(planned, kernel, links[card.nic], card.taken, self._beginning())
        if card.owner.daemon == adopt_files.IFUPDOWN:
            self.plan = adopt.lasting(self.plan, links[card.nic])
        if self._dry:
            raise PlannedError(self.plan)
        self._must_be_offered()
        self._wanted_ = wanted
        self._before = answers(self.place.site.ask, probes(kernel, links[card.nic], card.taken.dns))
        arm(host, self.request.timeout_s * 2 + SPARE_S)
        self._armed = True
        self._journal, applied = apply.carry_out(
            self.plan, host.tools, host.folder, boot=host.boot, digest="",
            what=f"adopt {card.nic}", check=self._differing,
        )  # fmt: skip
        self.milliseconds = applied.milliseconds
        self._must_have_lease()
        self.must_work()
        yield mtus(both, refs, host.tools.netlink.look())

    def _beginning(self) -> Plan:
        card, place = self.card, self.place
        inventory = content(place.inventory)
        note = note_file(place.state, card.nic)
        text = json.dumps(Adopted(card.nic, card.bridge, card.owner.daemon, card.files.all)._asdict()) + "\n"
        early = [placed(place, change) for change in card.files.early]
        if card.taken.mode == "DHCP":
            path = client_ids.file_of(card.bridge, place.state)
            named = client_ids.content(card.taken.client_id, card.taken.request)
            early.append(Change(str(path), content(path), named))
        back = [
            Change(str(place.inventory), inventory, inventory),
            *(placed(place, change) for change in card.files.late),
        ]
        mark = Change(str(note), content(note), text)
        # where there is no file for it to read, it has a DHCP client that must end before the address moves
        first = RELOAD if card.files.early else LET_GO
        switch = adopt_files.switch_of(card.owner.daemon, card.nic, card.files.late)
        decides = str(place.root / switch.lstrip("/"))
        return adopt.beginning(mark, early, back, card.owner, first, decides)

    def _differing(self, kernel: Kernel) -> Any:
        wanted = self._wanted_
        return differences(wanted, kernel, self.host.around(wanted, kernel)) if wanted is not None else ()

    def _must_be_offered(self) -> None:
        """Raises CannotAdoptError where our client would get no address or another one: nothing is touched yet."""
        card, timeout_s = self.card, self.request.timeout_s
        if card.taken.mode != "DHCP":
            return
        client = Client(
            card.nic, ipv4=True, ipv6=False, client_id=card.taken.client_id, request=card.taken.request
        )
        given = self.place.offer(client, timeout_s)
        if not given:
            raise CannotAdoptError(
                f"no DHCP server offers anything on {card.nic} within {timeout_s:g} s: {card.taken.request} would be"
                " lost when its lease ends",
                hint=f"is the server there, and has it an address for this host? {KNOWN_HINT}",
            )
        if given != card.taken.request:
            raise CannotAdoptError(
                f"the DHCP server offers {given} on {card.nic}, and not {card.taken.request}, which it has now",
                hint=KNOWN_HINT,
            )

    def _must_have_lease(self) -> None:
        card = self.card
        if card.taken.mode != "DHCP":
            return
        until = self.host.clock() + self.request.timeout_s
        while True:
            found = self.place.lease(card.bridge, 4)
            if found is not None and not found.stale:
                break
            if self.host.clock() >= until:
                raise LostError(
                    f"no DHCP answer on {card.bridge} within {self.request.timeout_s:g} s",
                    hint=f"journalctl -u hostagent-dhcp-{card.bridge}",
                )
            self.host.wait(POLL_S)
        given = found.addresses[0].partition("/")[0]
        if given != card.taken.request:
            raise LostError(
                f"the DHCP server gives {given} over {card.bridge}, and not {card.taken.request} as before",
                hint=KNOWN_HINT,
            )

    def must_work(self) -> None:
        """Raises LostError unless all is as wanted, and what answered before answers."""
        kernel = self.host.tools.netlink.look()
        differing = self._differing(kernel)
        if differing:
            one = differing[0]
            raise LostError(
                f"{one.device or 'the resolver'}: {one.what} is {one.found}, wanted {one.wanted}",
                hint=f"{self.card.owner.daemon} may have changed it",
            )
        must_answer(self.host, self.place.site.ask, self._before, self.card.bridge, self.request.timeout_s)

    def undo(self) -> tuple[apply.Trouble, ...]:
        """All of it, as far as it came; what could not be undone."""
        troubles: tuple[apply.Trouble, ...] = ()
        if self._journal is not None:
            troubles = apply.take_back(self._journal, self.host.tools, self.host.folder, boot=self.host.boot)
        if self._armed:
            disarm(self.host)
        return troubles

    def commit(self) -> None:
        """Before the timer is stopped: should it end now, it waits for our lock and then finds nothing to undo."""
        if self._journal is not None:
            journal.commit(self.host.folder, self._journal)
        with contextlib.suppress(HostagentError):
            self.host.disarm()
