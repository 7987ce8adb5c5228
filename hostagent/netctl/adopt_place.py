"""What taking a card over and giving it back share: the place, the note that is kept, and probes of what must go on."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Protocol

from hostagent.errors import HostagentError, KernelError, OperatorError
from hostagent.files import FileError, read_bounded
from hostagent.named import NamedTuple
from hostagent.net import bring, cache, journal, probe
from hostagent.net.adopt import DEFAULTS
from hostagent.net.adopt_files import Change
from hostagent.net.apply import RolledBackError, Trouble
from hostagent.net.change import ROLLED_BACK
from hostagent.net.foreign_daemons import ForeignError
from hostagent.net.later_boot import LIMIT_BYTES, content
from hostagent.net.noted import note_change
from hostagent.net.reachable import LostError
from hostagent.net.unfinished import unfinished
from hostagent.netctl.generation import keep
from hostagent.netctl.plug import POLL_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from hostagent.config import Paths
    from hostagent.db.database import Database
    from hostagent.net.bring import Host
    from hostagent.net.devices import Kernel, Link
    from hostagent.net.dhcp import Client
    from hostagent.net.dhcp_lease import Leased
    from hostagent.net.operation import Plan
    from hostagent.net.records import Records
    from hostagent.net.result import Result
    from hostagent.netctl.plug import Site

FOLDER = "adopted"
"""Below STATE/net: of each card that was taken over, from whom, and what the files held before."""
SPARE_S = 120
"""What the timer gives beyond the deadline, for the steps themselves: a daemon may take 90 s to start anew."""
DNS_PORT = 53


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
    offer: Callable[[Client, float], str]
    """The address that a DHCP server offers within so many seconds; empty for none (`dhcp_offer.offered`)."""


def place_of(paths: Paths, host_uuid: str, database: Database, site: Site) -> Place:
    """The place, on this host."""
    from hostagent.net import dhcp

    def kept(records: Records) -> cache.Cached:
        return keep(paths.state / cache.FOLDER, records)

    def offer(client: Client, timeout_s: float) -> str:
        from hostagent.net.dhcp_offer import offered

        return offered(client, paths.run, timeout_s)

    return Place(paths.root, paths.state, paths.inventory, host_uuid, database, site, kept, dhcp.lease, offer)


class Request(NamedTuple):
    nic: str = ""
    """Empty: the card with the default route, or the one that was taken over."""
    dry_run: bool = False
    timeout_s: float = 60.0
    """For the lock, a DHCP server's offer, our DHCP client's first lease, and probes, each."""


def resolved(place: Place, request: Request) -> list[str]:
    """Resolve what a kill or a power cut left of an earlier change, before files and kernel are looked at: what they
    say then is what is to be kept for the way back. What was done, in words; nothing for a dry run.

    Raises BusyError, FileError.
    """
    if request.dry_run:
        return []
    with (
        opened(place, "") as host,
        journal.Lock(host.folder, f"{host.by} recover", wait_s=request.timeout_s, sleep=host.wait),
    ):
        told = unfinished(host)
    return [told] if told else []


class Adopted(NamedTuple):
    """The note of a card that was taken over."""

    nic: str
    bridge: str
    daemon: str
    files: tuple[Change, ...]


class PlannedError(Exception):
    """Ends a dry run, with its plan."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan


# --- probes ---


def probes(kernel: Kernel, link: Link, dns: Sequence[str]) -> list[probe.Probe]:
    """The gateway of each family, asked over the link, and the name servers."""
    found = []
    for route in kernel.routes:
        if route.device == link.ifindex and route.destination in DEFAULTS and route.gateway:
            family = ":" in route.gateway
            mine = [
                a.text for a in kernel.addresses if a.device == link.ifindex and (":" in a.text) == family
            ]
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
                hint="look at the switch's port (one MAC address only?)",
            )
        host.wait(POLL_S)


# --- what is told of it ---


class Doing(Protocol):
    """A take-over or a release, as far as it came."""

    host: Host
    plan: Plan
    kernel: Kernel | None
    milliseconds: tuple[float, ...]


def note_done(doing: Doing, result: Result, began: float) -> None:
    """It is done: its operations with their times, into the result and the history. The caller holds the lock."""
    result["outcome"] = "changed"
    _note(doing, result, began, doing.milliseconds)


def undone(doing: Doing, error: BaseException, troubles: tuple[Trouble, ...]) -> RolledBackError | None:
    """What is raised instead of the error, all steps having been undone: it says too whether all is as before, which
    `troubles` of the undo deny. None where the error itself does, or is none of the network's.
    """
    if isinstance(error, RolledBackError):
        error.add(troubles)
        return None
    if isinstance(error, KernelError | ForeignError) or (troubles and isinstance(error, HostagentError)):
        return RolledBackError(
            error.found, hint=error.hint, troubles=troubles, milliseconds=doing.milliseconds
        )
    for trouble in troubles:
        error.add_note(f"undoing it failed: {trouble.found}")
    return None


def note_undone(doing: Doing, result: Result, began: float, error: BaseException) -> None:
    """It was undone, into the history; nothing where nothing was touched."""
    spent = error.milliseconds if isinstance(error, RolledBackError) else doing.milliseconds
    if not spent:
        return
    result["outcome"] = ROLLED_BACK
    if isinstance(error, HostagentError):
        result["error"] = error.record()
    else:
        result["told"].append(type(error).__name__)
    _note(doing, result, began, spent)


def _note(doing: Doing, result: Result, began: float, spent: tuple[float, ...]) -> None:
    bring.put_plan(result, doing.plan, doing.kernel)
    bring.put_times(result, spent)
    result["seconds"] = round(doing.host.clock() - began, 4)
    note_change(doing.host, None, result)


# --- files ---


def noted(state: Path, nic: str) -> Adopted:
    """The note of this card, or of the only one. Raises NotAdoptedError."""
    found = [one for one in notes(state) if nic in ("", one.nic, one.bridge)]
    if len(found) == 1:
        return found[0]
    names = ", ".join(one.nic for one in notes(state))
    raise NotAdoptedError(
        f"{nic or 'no card'} was {'not ' if nic else ''}taken over from another daemon"
        if not found
        else f"more than one card was taken over: {names}",
        hint=f"taken over: {names}"
        if names
        else "hostagent net adopt does that; there is nothing to give back",
    )


def notes(state: Path) -> list[Adopted]:
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


def note_file(state: Path, nic: str) -> Path:
    return state / cache.FOLDER / FOLDER / f"{nic}.json"


def placed(place: Place, change: Change) -> Change:
    """With the path as this process sees it."""
    return change._replace(path=str(place.root / change.path.lstrip("/")))


def reader(root: Path) -> Callable[[str], str | None]:
    return lambda path: content(root / path.lstrip("/"))


@contextlib.contextmanager
def opened(place: Place, bridge: str) -> Iterator[Host]:
    host = place.site.open(bridge)
    try:
        yield host
    finally:
        close = getattr(host.tools.netlink, "close", None)
        if close is not None:
            close()
