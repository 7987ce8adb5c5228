"""The management interface raised from records alone, and the emergency ladder when that fails.

`hostagent-network.service` runs `main` at boot: from the checksummed cache, with no daemon, database or xenstore. The
start-up step S23 does the same with the database's records. A NIC that another network daemon has is left to it.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hostagent.errors import HostagentError
from hostagent.net import bring, cache, climb, journal, ladder
from hostagent.net.attached import works
from hostagent.net.chains import lower_of, members
from hostagent.net.devices import GROUP
from hostagent.net.remap import remapped
from hostagent.net.unfinished import unfinished

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from hostagent.net import nics
    from hostagent.net.devices import Kernel
    from hostagent.net.foreign_files import Owner
    from hostagent.net.records import Pif, Records

NONE, FOREIGN, UP, DOWN = "none", "foreign", "up", "down"
POLL_S = 0.2
NICS_S = 20.0
"""For drivers to load, and NICs to get their names."""
TIMEOUT_S = 40.0
"""For the first try: carrier, and the first answers of a DHCP server."""
STATE, RUN = "var/lib/hostagent", "run/hostagent"


class Raised(NamedTuple):
    """What became of it. `outcome`: none (there is none, or it is not ours), foreign (another daemon has its NIC), up,
    down."""

    outcome: str
    told: tuple[str, ...] = ()
    operations: tuple[Any, ...] = ()
    """Those of the try that worked, as `bring.Op`."""


class Around(NamedTuple):
    """What `raise_management` asks of the host beside `bring.Host`."""

    owners: Callable[[str], Sequence[Owner]]
    """Other network daemons that have a NIC, by its name."""
    cards: Callable[[], Sequence[ladder.Seen]]
    listed: tuple[str, ...] = ()
    """NICs that rungs 3 and 4 of the ladder may use (setting `net.emergency-nics`)."""
    console: Callable[[str], None] = lambda _: None
    seen: Callable[[], Sequence[nics.Seen]] | None = None
    """The NICs that are there, to which cached records are fitted (`remap.py`); None: their names are right."""


def management(records: Records) -> Pif | None:
    """The PIF on the bridge that the inventory names."""
    refs = {ref for ref, network in records.networks.items() if records.bridge == network.bridge != ""}
    return next((pif for pif in records.pifs.values() if pif.network in refs and not pif.bond_slave_of), None)


def nics_of(records: Records, pif: Pif) -> tuple[str, ...]:
    """The NICs below a PIF, by name."""
    root = records.pifs.get(lower_of(records, pif) or pif.ref, pif)
    return tuple(part.device for part in (members(records, root) or [root]) if part.physical)


def held(
    names: Iterable[str], kernel: Kernel, owners: Callable[[str], Sequence[Owner]]
) -> tuple[tuple[str, str], ...]:
    """NICs that another network daemon has, each with a sentence that says so.

    One that is a port of a device of ours has been taken over: it is ours, whatever old files say.
    """
    links = kernel.by_name()
    found = []
    for name in names:
        link = links.get(name)
        master = kernel.links.get(link.master) if link is not None else None
        if master is not None and master.group == GROUP:
            continue
        if by := owners(name):
            files = f" ({', '.join(by[0].files)})" if by[0].files else ""
            what = f"{name} is configured by {by[0].daemon}{files} and is left to it (hostagent net adopt)"
            found.append((name, what))
    return tuple(found)


def raise_management(
    found: cache.Found,
    host: bring.Host,
    around: Around,
    *,
    timeout_s: float = TIMEOUT_S,
    until: float = 0.0,
    nics_s: float = 0.0,
) -> Raised:
    """Bring the management interface up, or find it up; climb the ladder if it does not come up.

    `until`, on the clock of `host`: no rung is begun after it; 0: no limit. `nics_s`: how long to wait for NICs that
    are not there, early in the boot. Raises NetlinkError where the kernel cannot
    even be looked at.
    """
    records = found.cached.records
    pif = management(records)
    if pif is None:
        what = f"{records.bridge} is not made by us" if records.bridge else "there is no management interface"
        return Raised(NONE, (what,))
    _with_nics(nics_of(records, pif), host, nics_s)
    found, told = _fitted(found, around)
    pif = found.cached.records.pifs[pif.ref]
    names, kernel = nics_of(found.cached.records, pif), host.tools.netlink.look()
    if others := held(names, kernel, around.owners):
        return Raised(FOREIGN, tuple(what for _, what in others))
    said, done = _try(found, pif, host, timeout_s)
    said = (*told, *said)
    if done is not None:
        return Raised(UP, said, done)
    return _climb(found, host, around, said, until)


def _fitted(found: cache.Found, around: Around) -> tuple[cache.Found, list[str]]:
    """With the names that the NICs have now; as it is where they cannot be read."""
    if around.seen is None:
        return found, []
    try:
        cached, told = remapped(found.cached, around.seen())
    except HostagentError as error:
        return found, [f"the NICs could not be told apart: {error.found}"]
    return found._replace(cached=cached), told


def _with_nics(names: Sequence[str], host: bring.Host, wait_s: float) -> None:
    """Wait for all these NICs, until the time is over."""
    until = host.clock() + wait_s
    while True:
        kernel = host.tools.netlink.look()
        if {link.name for link in kernel.links.values()}.issuperset(names) or host.clock() >= until:
            return
        host.wait(POLL_S)


def _try(
    found: cache.Found, pif: Pif, host: bring.Host, timeout_s: float
) -> tuple[tuple[str, ...], tuple[Any, ...] | None]:
    """What was said, and the operations if the interface works now."""
    request = bring.Request(bring.UP, pif=pif.ref, management=True, timeout_s=timeout_s, boot=True)
    result = climb.attempt(found, request, host)
    said = climb.said(result)
    if not works(found.cached.records, pif, host.tools.netlink.look()):
        return said, None
    try:
        if not cache.read(host.folder).cached.verified and not found.cached.verified:
            cache.mark_verified(host.folder, found.cached)
    except HostagentError as error:
        said = (*said, f"the generation could not be marked as verified: {error.found}")
    return said, tuple(result["operations"])


def _climb(
    found: cache.Found, host: bring.Host, around: Around, said: tuple[str, ...], until: float
) -> Raised:
    verified = cache.read_verified(host.folder)
    if verified is not None:
        verified = _fitted(cache.Found(verified), around)[0].cached
    climbed = climb.climb(
        lambda: ladder.Situation(
            found.cached.records,
            verified.records if verified else None,
            tuple(around.cards()),
            around.listed,
        ),
        host,
        held=lambda records, pif: held_by(records, pif, host, around.owners),
        until=until,
    )
    if climbed.rung is not None and climbed.result is not None:
        helped = f"rung {climbed.rung.number} of the ladder: {climbed.rung.why}"
        done = tuple(climbed.result["operations"])
        return Raised(UP, (*said, helped, *climb.said(climbed.result)), done)
    around.console(climbed.message)
    return Raised(DOWN, (*said, *climbed.told))


def held_by(records: Records, pif: Pif, host: bring.Host, owners: Callable[[str], Sequence[Owner]]) -> str:
    """Why the NICs below a PIF are left to another daemon, in words; empty where they are not."""
    others = held(nics_of(records, pif), host.tools.netlink.look(), owners)
    return others[0][1] if others else ""


def around_of(root: Path, listed: tuple[str, ...] = ()) -> Around:
    """This host's, below `root`."""

    def owners(name: str) -> Sequence[Owner]:
        from hostagent.net import foreign

        return foreign.owners(foreign.nic(name, root), root)

    def cards() -> Sequence[ladder.Seen]:
        from hostagent.net import nics_look

        seen = nics_look.look(root, names_of=False)
        return [ladder.Seen(each.nic.name, each.nic.mac, each.nic.carrier) for each in seen]

    def console(text: str) -> None:
        try:
            with (root / "dev/console").open("w") as file:
                file.write(text)
        except OSError as error:
            print(f"the console could not be written: {error.strerror}", file=sys.stderr)

    return Around(owners, cards, listed, console)


def recover(host: bring.Host) -> tuple[str, ...]:
    """Undo what a power cut or a kill left in the middle, also where nothing is raised afterwards; what was undone."""
    try:
        with journal.Lock(host.folder, f"{host.by} recover", wait_s=TIMEOUT_S, sleep=host.wait):
            told = unfinished(host)
    except HostagentError as error:  # the host is to have its network all the same
        told = f"what may be left of an earlier change was not resolved: {error.found}"
    return (told,) if told else ()


def main(root: Path = Path("/"), *, open_host: Callable[[Path, str], bring.Host] | None = None) -> int:
    """What hostagent-network.service runs; 0 also where there is nothing of ours to raise."""
    from hostagent.net.reconfigure import host_uuid

    try:
        opened = open_host or _open_host
        try:
            found = cache.read(root / STATE / cache.FOLDER, host_uuid(root))
        except cache.CacheError as error:
            print(f"nothing to raise: {error.found}")
            told = recover(opened(root, ""))
            raised = Raised(NONE, told)
        else:
            host = opened(root, found.cached.records.bridge)
            told = (*found.told, *recover(host))
            around = around_of(root, _listed(root))._replace(seen=lambda: _seen(root, host))
            raised = raise_management(found, host, around, until=host.clock() + 4 * TIMEOUT_S, nics_s=NICS_S)
    except HostagentError as error:
        print(f"error: {error.found}\nhint: {error.hint}", file=sys.stderr)
        return 1
    for line in (*told, *raised.told):
        print(line)
    print(f"management interface: {raised.outcome}")
    return 1 if raised.outcome == DOWN else 0


def _seen(root: Path, host: bring.Host) -> Sequence[nics.Seen]:
    from hostagent.net import nics_look

    return nics_look.look(root, host.tools.netlink.look().links.values(), names_of=False)


def _listed(root: Path) -> tuple[str, ...]:
    """The setting; settings that cannot be read cost the ladder its upper rungs, not the host its network."""
    from hostagent.config import ConfigError, Paths, load

    try:
        return load(Paths(etc=root / "etc/hostagent"))[0].emergency_nics
    except ConfigError as error:
        print(f"settings: {error.found}", file=sys.stderr)
        return ()


def _open_host(root: Path, bridge: str) -> bring.Host:
    from hostagent.net.host import open_host

    host = open_host(root, state=root / STATE, run=root / RUN, management=bridge)
    return host._replace(by="hostagent-network", clock=time.monotonic)


if __name__ == "__main__":
    sys.exit(main())
