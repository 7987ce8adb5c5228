"""A card taken over from another network daemon, and given back: on the host, in its files, and in the database.

The order is what makes it safe (`hostagent net adopt`): probes of what works; the undo timer; the plan with its journal;
the same probes; then database, inventory and cache (ours is enabled); then the files that keep the other daemon off
(theirs is disabled), which is told to let go; looked at once more, and kept. Killed before that, the timer undoes all of
it, files too; without power, whoever the one deciding file names brings the card up at the next boot.
"""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any, NamedTuple

from hostagent.errors import HostagentError, KernelError, OperatorError
from hostagent.files import FileError, read_bounded
from hostagent.net import adopt, adopt_files, apply, bring, cache, client_ids, journal, probe
from hostagent.net.adopt import DEFAULTS
from hostagent.net.adopt_files import CannotAdoptError, Change
from hostagent.net.checks import check
from hostagent.net.finding import STOP
from hostagent.net.foreign_daemons import LET_GO, TAKE
from hostagent.net.model import want
from hostagent.net.plan import plan as plan_of
from hostagent.net.verify import differences
from hostagent.netctl import adopt_objects
from hostagent.netctl.control import Control
from hostagent.netctl.plug import LOCK_S, POLL_S, Network, mtus, together, unfinished

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from hostagent.db.database import Database
    from hostagent.net.bring import Host
    from hostagent.net.devices import Kernel, Lease, Link, Wanted
    from hostagent.net.dhcp_lease import Leased
    from hostagent.net.foreign_files import Owner
    from hostagent.net.operation import Plan
    from hostagent.net.records import Records
    from hostagent.netctl.plug import Site

FOLDER = "adopted"
"""Below STATE/net: of each card that was taken over, from whom, and what the files held before."""
LIMIT_BYTES = 16 << 20
SPARE_S = 60
"""What the timer gives beyond the deadline, for the steps themselves."""
DNS_PORT = 53


class LostError(KernelError):
    """What answered before does not answer over the bridge; all was undone."""

    code = "PIF_CONFIGURATION_ERROR"


class NotAdoptedError(OperatorError):
    """There is no card to give back."""


class Place(NamedTuple):
    """What of the host this works with."""

    root: Path
    state: Path
    inventory: Path
    host_uuid: str
    database: Database
    site: Site
    keep: Callable[[Records], cache.Cached]
    """Make the records the newest generation of the cache."""
    lease: Callable[[str, int], Leased | None]
    """Of our DHCP client of a bridge, by family."""


class Request(NamedTuple):
    nic: str = ""
    """Empty: the card with the default route, or the one that was taken over."""
    dry_run: bool = False
    timeout_s: float = 60.0
    """For the lock, our DHCP client's first lease, and probes, each."""


class Adopted(NamedTuple):
    """The note of a card that was taken over."""

    nic: str
    bridge: str
    daemon: str
    files: tuple[Change, ...]


class _PlannedError(Exception):
    """Ends a dry run, with its plan."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan


# --- taking over ---


def take(place: Place, request: Request) -> Any:
    """Take a card over; a `bring.Result` with `files`, `pif` and `bridge` beside.

    Raises CannotAdoptError, FindingError, BusyError, GuardError, FileError before anything is touched; afterwards
    RolledBackError and LostError, all of it being undone.
    """
    with _opened(place, "") as host:
        kernel = host.tools.netlink.look()
    nic = adopt.choose(request.nic, kernel)
    link = kernel.by_name()[nic]
    owners = place.site.owners(nic)
    owner = adopt.main_owner(link, owners, kernel)
    taken = adopt.settings(owner, link, kernel)
    alone = owner.daemon == adopt_files.NETWORKD and not adopt_files.networkd_others(nic, place.root)
    files = adopt_files.disabling(owners, _reader(place.root), alone=alone)
    bridge = adopt_objects.bridge_of(place, nic)
    result = bring.empty_result(f"adopt {nic} from {owner.daemon}", "", "planned")
    result["told"] += taken.told
    with _opened(place, bridge) as host:
        taking = _Taking(place, request, host, _Card(nic, bridge, owner, taken, files))
        if request.dry_run:
            bring.put_plan(result, taking.planned())
        else:
            with journal.Lock(host.folder, f"{host.by} adopt {nic}", wait_s=request.timeout_s, sleep=host.wait):
                told = unfinished(host)
                result["told"] += [told] if told else []
                _do(place, taking, result)
    return {
        **result,
        "files": [change.path for change in files.all if change.before != change.after],
        "bridge": bridge,
        "settings": taken._replace(told=())._asdict(),
    }


def _do(place: Place, taking: _Taking, result: bring.Result) -> None:
    host, card = taking.host, taking.card
    began = host.clock()
    before = adopt_objects.snapshot(place, card.nic)
    management = place.site.management()
    try:
        taking.carry_out()
        cached = place.keep(adopt_objects.records(place, card.bridge))
        for change in card.files.late:
            _write(host, place, change)
        host.tools.foreign(card.owner.daemon, LET_GO, card.nic)
        taking.must_work()
        host.disarm()
    except BaseException:
        taking.undo()
        with contextlib.suppress(HostagentError):
            if taking.recorded:
                adopt_objects.restore(place, before)
                place.site.set_management(*management)
                place.site.serve(*management)
                place.keep(adopt_objects.records(place, management[0]))
        raise
    taking.commit()
    cache.mark_verified(host.folder, cached)
    bring.put_plan(result, taking.plan)
    for operation, spent in zip(result["operations"], taking.milliseconds, strict=True):
        operation["milliseconds"] = round(spent, 4)
    result["outcome"] = "changed"
    result["told"] += host.soft
    result["seconds"] = round(host.clock() - began, 4)


class _Card(NamedTuple):
    nic: str
    bridge: str
    owner: Owner
    taken: adopt.Settings
    files: adopt_files.Disabling


class _Taking(Network):
    """The `Effect` of one take-over: what it changes stays `applied` in the journal until `commit`."""

    def __init__(self, place: Place, request: Request, host: Host, card: _Card) -> None:
        super().__init__(place.site)
        self.place = place
        self.request = request
        self.host = host
        self.card = card
        self.plan: Any = None
        self.milliseconds: tuple[float, ...] = ()
        self.recorded = False
        self._journal: journal.Journal | None = None
        self._armed = False
        self._before: list[probe.Answer] = []
        self._wanted_: Wanted | None = None

    def planned(self) -> Plan:
        """The plan; nothing is done."""
        try:
            self._change(dry=True)
        except _PlannedError as found:
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
    ) -> Iterator[Mapping[str, int]]:
        """As `Effect.bring_up`, of the one card, whoever has it now; undone by `undo`, not here."""
        host, card = self.host, self.card
        kernel = host.tools.netlink.look()
        both = together(records, was, kernel)
        for finding in check(both, refs, down=down, becoming_management=becoming_management, kernel=kernel):
            if finding.severity == STOP:
                raise finding.error()
        links = kernel.by_name()
        wanted = want(both, refs, down=down, becoming_management=becoming_management, links=links)
        planned = plan_of(wanted, kernel, host.around(wanted, kernel))
        self.plan = adopt.adopting(planned, kernel, links[card.nic], card.taken, self._beginning())
        if self._dry:
            raise _PlannedError(self.plan)
        self._wanted_ = wanted
        self._before = answers(self.place.site.ask, probes(kernel, links[card.nic], card.taken.dns))
        host.arm(self.request.timeout_s * 2 + SPARE_S)
        self._armed = True
        self._journal, applied = apply.carry_out(
            self.plan, host.tools, host.folder, boot=host.boot, digest=cache.digest(records),
            what=f"adopt {card.nic}", check=self._differing,
        )  # fmt: skip
        self.milliseconds = applied.milliseconds
        self._must_have_lease()
        self.must_work()
        yield mtus(both, refs, host.tools.netlink.look())

    def _beginning(self) -> Plan:
        card, place = self.card, self.place
        inventory = _content(place.inventory)
        note = _note_file(place.state, card.nic)
        text = json.dumps(Adopted(card.nic, card.bridge, card.owner.daemon, card.files.all)._asdict()) + "\n"
        early = [_placed(place, change) for change in card.files.early]
        if card.taken.mode == "DHCP":
            path = client_ids.file_of(card.bridge, place.state)
            named = client_ids.content(card.taken.client_id, card.taken.request)
            early.append(Change(str(path), _content(path), named))
        back = [
            Change(str(place.inventory), inventory, inventory),
            *(_placed(place, change) for change in card.files.late),
        ]
        plan = adopt.beginning(Change(str(note), _content(note), text), early, back, card.owner)
        if card.owner.daemon == adopt_files.NETWORKD:
            return plan
        return plan._replace(steps=tuple(step for step in plan.steps if step.do.verb != "foreign"))

    def _differing(self, kernel: Kernel) -> Any:
        wanted = self._wanted_
        return differences(wanted, kernel, self.host.around(wanted, kernel)) if wanted is not None else ()

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
                    hint=f"journalctl -u hostagent-dhcp-{card.bridge}; the former network is back",
                )
            self.host.wait(POLL_S)
        given = found.addresses[0].partition("/")[0]
        if given != card.taken.request:
            raise LostError(
                f"the DHCP server gives {given} over {card.bridge}, and not {card.taken.request} as before",
                hint="see how the server knows this host (client identifier, MAC address); the former network is back",
            )

    def must_work(self) -> None:
        """Raises LostError unless all is as wanted, and what answered before answers."""
        kernel = self.host.tools.netlink.look()
        differing = self._differing(kernel)
        if differing:
            one = differing[0]
            raise LostError(
                f"{one.device or 'the resolver'}: {one.what} is {one.found}, wanted {one.wanted}",
                hint=f"{self.card.owner.daemon} may have changed it; the former network is back",
            )
        must_answer(self.host, self.place.site.ask, self._before, self.card.bridge, self.request.timeout_s)

    def undo(self) -> None:
        """All of it, as far as it came."""
        if self._journal is not None:
            troubles = apply.undo(self._journal, self.host.tools, boot=self.host.boot)
            if not troubles:
                journal.mark(self.host.folder, self._journal, journal.UNDONE)
        if self._armed:
            with contextlib.suppress(HostagentError):
                self.host.disarm()

    def commit(self) -> None:
        if self._journal is not None:
            journal.mark(self.host.folder, self._journal, journal.COMMITTED)


# --- giving back ---


def release(place: Place, request: Request) -> Any:
    """Give a card back to the daemon it was taken from; as `take`."""
    note = noted(place.state, request.nic)
    with _opened(place, note.bridge) as host:
        giving = _Giving(place, request, host, note)
        result = bring.empty_result(f"release {note.nic} to {note.daemon}", "", "planned")
        if request.dry_run:
            bring.put_plan(result, giving.planned())
        else:
            with journal.Lock(host.folder, f"{host.by} release {note.nic}", wait_s=LOCK_S, sleep=host.wait):
                told = unfinished(host)
                began = host.clock()
                giving.carry_out()
                place.keep(adopt_objects.records(place, ""))
            bring.put_plan(result, giving.plan)
            result["outcome"] = "changed"
            result["told"] += [told] if told else []
            result["seconds"] = round(host.clock() - began, 4)
    return {**result, "files": [change.path for change in giving.files], "bridge": note.bridge}


class _Giving(Network):
    """The `Effect` of giving back."""

    def __init__(self, place: Place, request: Request, host: Host, note: Adopted) -> None:
        super().__init__(place.site)
        self.place = place
        self.request = request
        self.host = host
        self.note = note
        shared = {change.path for other in _notes(place.state) if other.nic != note.nic for change in other.files}
        mine = [change for change in note.files if change.path not in shared]
        self.files = tuple(_placed(place, one) for one in adopt_files.restoring(mine, _reader(place.root)))
        self.plan: Any = None
        self._dry = False

    def planned(self) -> Plan:
        self._dry = True
        try:
            self.carry_out()
        except _PlannedError as found:
            self.plan = found.plan
        return self.plan

    def carry_out(self) -> None:
        control = Control(self.place.database, self.place.host_uuid, self)
        control.change(adopt_objects.giving(control, self.note.nic))

    @contextlib.contextmanager
    def take_down(self, records: Records, refs: Sequence[str]) -> Iterator[Mapping[str, int]]:
        """As `Effect.take_down`, of the one card, whose addresses stay on it."""
        host, note = self.host, self.note
        kernel = host.tools.netlink.look()
        nic, bridge = _pair(kernel, note)
        now = together(records, records, kernel)
        adopt.refuse_release(now, refs[0], bridge, nic, kernel)
        wanted = adopt.released(kernel, nic, bridge)
        leases: tuple[Lease, ...] = want(now, refs, links=kernel.by_name()).leases
        planned = plan_of(wanted, kernel)
        self.plan = adopt.releasing(planned, kernel, nic, bridge, note.daemon, self.files, leases)
        if self._dry:
            raise _PlannedError(self.plan)
        before = answers(self.place.site.ask, probes(kernel, bridge, ()))
        had = {one.text for one in kernel.addresses if one.device == bridge.index and one.scope < adopt.LINK_SCOPE}
        host.arm(self.request.timeout_s + SPARE_S)
        written = None
        try:
            written, _ = apply.carry_out(
                self.plan, host.tools, host.folder, boot=host.boot, digest=cache.digest(records),
                what=f"release {note.nic}", check=lambda after: differences(wanted, after),
            )  # fmt: skip
            host.tools.foreign(note.daemon, TAKE, note.nic)
            self._must_have(had)
            must_answer(host, self.place.site.ask, before, note.nic, self.request.timeout_s)
            yield {}
            host.disarm()
        except BaseException:
            if written is not None and not apply.undo(written, host.tools, boot=host.boot):
                journal.mark(host.folder, written, journal.UNDONE)
            with contextlib.suppress(HostagentError):
                host.disarm()
            raise
        journal.mark(host.folder, written, journal.COMMITTED)
        host.tools.file(str(_note_file(self.place.state, note.nic)), None)
        host.tools.file(str(client_ids.file_of(note.bridge, self.place.state)), None)

    def _must_have(self, had: set[str]) -> None:
        """The other daemon may make the IPv4 address anew: it is waited for."""
        wanted = {text for text in had if ":" not in text}
        until = self.host.clock() + self.request.timeout_s
        while True:
            kernel = self.host.tools.netlink.look()
            nic = kernel.by_name()[self.note.nic]
            missing = wanted - {one.text for one in kernel.addresses if one.device == nic.index}
            if not missing:
                return
            if self.host.clock() >= until:
                raise LostError(
                    f"{self.note.daemon} has not given {nic.name} the address {', '.join(sorted(missing))}",
                    hint=f"see its log; {self.note.bridge} is back",
                )
            self.host.wait(POLL_S)


def _pair(kernel: Kernel, note: Adopted) -> tuple[Link, Link]:
    links = kernel.by_name()
    nic, bridge = links.get(note.nic), links.get(note.bridge)
    if nic is None or bridge is None or nic.master != bridge.index:
        raise CannotAdoptError(
            f"{note.nic} is no port of {note.bridge} now", hint="hostagent net check; hostagent pif plug brings it back"
        )
    return nic, bridge


# --- probes ---


def probes(kernel: Kernel, link: Link, dns: Sequence[str]) -> list[probe.Probe]:
    """The gateway of each family, asked over the link, and the name servers."""
    found = []
    for route in kernel.routes:
        if route.device == link.index and route.destination in DEFAULTS and route.gateway:
            family = ":" in route.gateway
            mine = [a.text for a in kernel.addresses if a.device == link.index and (":" in a.text) == family]
            if mine:
                found.append(probe.Probe("gateway", route.gateway, link.name, source=mine[0]))
    return [*found, *(probe.Probe("tcp", server, port=DNS_PORT) for server in dns[:2])]


def answers(ask: Callable[[probe.Probe], probe.Answer], asked: Sequence[probe.Probe]) -> list[probe.Answer]:
    """Their answers; one that cannot be asked has none."""
    found = []
    for one in asked:
        try:
            found.append(ask(one))
        except HostagentError as error:
            found.append(probe.Answer(one, answered=False, detail=error.found))
    return found


def must_answer(
    host: Host,
    ask: Callable[[probe.Probe], probe.Answer],
    before: Sequence[probe.Answer],
    device: str,
    timeout_s: float,
) -> None:
    """Raises LostError unless what answered before answers over this device, in time."""
    again = [one._replace(device=device if one.device else "") for one in probe.worked(before)]
    until = host.clock() + timeout_s
    while lost := probe.lost(before, answers(ask, again)):
        if host.clock() >= until:
            gone = ", ".join(f"{one.probe.kind} {one.probe.target}" for one in lost)
            raise LostError(
                f"{gone} answered before, and not over {device} within {timeout_s:g} s",
                hint="look at the switch's port (one MAC address only?); the former network is back",
            )
        host.wait(POLL_S)


# --- files ---


def noted(state: Path, nic: str) -> Adopted:
    """The note of this card, or of the only one. Raises NotAdoptedError."""
    found = [one for one in _notes(state) if nic in ("", one.nic, one.bridge)]
    if len(found) == 1:
        return found[0]
    names = ", ".join(one.nic for one in _notes(state))
    raise NotAdoptedError(
        f"{nic or 'no card'} was {'not ' if nic else ''}taken over from another daemon"
        if not found
        else f"more than one card was taken over: {names}",
        hint=f"taken over: {names}" if names else "hostagent net adopt does that; there is nothing to give back",
    )


def _notes(state: Path) -> list[Adopted]:
    folder = state / cache.FOLDER / FOLDER
    found = []
    for file in sorted(folder.glob("*.json")) if folder.is_dir() else []:
        try:
            value = json.loads(read_bounded(file, limit_bytes=LIMIT_BYTES))
            changes = tuple(Change(*map(_text_or_none, one)) for one in value["files"])  # type: ignore[arg-type]
            found.append(Adopted(str(value["nic"]), str(value["bridge"]), str(value["daemon"]), changes))
        except (FileError, ValueError, KeyError, TypeError, RecursionError):
            continue
    return found


def _text_or_none(value: object) -> str | None:
    return None if value is None else str(value)


def _note_file(state: Path, nic: str) -> Path:
    return state / cache.FOLDER / FOLDER / f"{nic}.json"


def _placed(place: Place, change: Change) -> Change:
    """With the path as this process sees it."""
    return change._replace(path=str(place.root / change.path.lstrip("/")))


def _write(host: Host, place: Place, change: Change) -> None:
    host.tools.file(_placed(place, change).path, change.after)
    host.tools.hold(f"wrote {change.path}")


def _reader(root: Path) -> Callable[[str], str | None]:
    return lambda path: _content(root / path.lstrip("/"))


def _content(path: Path) -> str | None:
    try:
        return read_bounded(path, limit_bytes=LIMIT_BYTES).decode(errors="surrogateescape")
    except FileError as error:
        if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            return None
        raise


@contextlib.contextmanager
def _opened(place: Place, bridge: str) -> Iterator[Host]:
    host = place.site.open(bridge)
    try:
        yield host
    finally:
        close = getattr(host.tools.netlink, "close", None)
        if close is not None:
            close()
