"""The management interface raised from records alone, and the emergency ladder when that fails.

`hostagent-network.service` runs `main` at boot: from the checksummed cache, with no daemon, database or xenstore. The
start-up step S23 does the same with the database's records. A NIC that another network daemon has is left to it.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hostagent.errors import HostagentError
from hostagent.named import NamedTuple
from hostagent.net import bring, cache, climb, emergency, journal, ladder
from hostagent.net.attached import works
from hostagent.net.cards import cards_of
from hostagent.net.chains import lower_of, members
from hostagent.net.devices import GROUP, SCOPE_LINK
from hostagent.net.remap import fitted, seen_here
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
RENAMED_S = 3.0
"""A NIC that has another name for so long keeps it: udev gives it its own a moment after it comes."""
TIMEOUT_S = 40.0
"""For the first try: carrier, and the first answers of a DHCP server."""
STATE, RUN = "var/lib/hostagent", "run/hostagent"


class Raised(NamedTuple):
    """What became of it. `outcome`: none (there is none, or it is not ours), foreign (another daemon has its NIC), up,
    down."""

    outcome: str
    told: tuple[str, ...] = ()
    operations: tuple[Any, ...] = ()
    """Those of the try that worked, as `result.Op`."""


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


def of_others(records: Records, pif: Pif, kernel: Kernel) -> str:
    """Why the bridge of a PIF is another program's, in words; empty where it is ours or not there.

    One without addresses is nobody's way to this host: that is taken over.
    """
    network = records.networks.get(pif.network)
    link = kernel.by_name().get(network.bridge) if network and network.bridge else None
    if link is None or link.group == GROUP:
        return ""
    addresses = [
        one.text for one in kernel.addresses if one.device == link.ifindex and one.scope < SCOPE_LINK
    ]
    if not addresses:
        return ""
    return (
        f"{link.name} with {', '.join(addresses)} was made by another program and is left to it"
        " (hostagent net adopt)"
    )


def left_alone(
    records: Records, pif: Pif, kernel: Kernel, owners: Callable[[str], Sequence[Owner]]
) -> Raised | None:
    """Why nothing is raised: another program has the NIC or the bridge, or there is no address to be had."""
    if others := held(nics_of(records, pif), kernel, owners):
        return Raised(FOREIGN, tuple(what for _, what in others))
    if other := of_others(records, pif, kernel):
        return Raised(FOREIGN, (other,))
    if (pif.ip_mode, pif.ipv6_mode) == ("None", "None"):  # raised, it would lose whatever address there is
        what = f"{bring.name_of(pif)} is to have no address: there is nothing to raise"
        return Raised(NONE, (f"{what} (hostagent xe pif-reconfigure-ip gives it one)",))
    return None


def on_rung(records: Records, pif: Pif, run: Path | None, kernel: Kernel) -> Raised | None:
    """That management stands on a rung of the ladder already, while no NIC of its own has carrier: trying that again
    would put its fixed address on two bridges."""
    found = emergency.standing(run, kernel)
    links = kernel.by_name()
    lit = any(links[name].carrier for name in nics_of(records, pif) if name in links)
    if found is None or found.former != records.bridge or lit:
        return None
    return Raised(UP, (found.told,))


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
    _with_nics(found.cached, nics_of(records, pif), host, nics_s)
    found, told = _fitted(found, around)
    pif = found.cached.records.pifs[pif.ref]
    if alone := left_alone(found.cached.records, pif, host.tools.netlink.look(), around.owners):
        return alone._replace(told=(*told, *alone.told))
    if stands := on_rung(found.cached.records, pif, host.run, host.tools.netlink.look()):
        return stands._replace(told=(*told, *stands.told))
    said, done = _try(found, pif, host, timeout_s)
    said = (*told, *said)
    if done is not None:
        return Raised(UP, (*said, *emergency.end(host, records.bridge)), done)
    return _climb(found, host, around, said, until)


def _fitted(found: cache.Found, around: Around) -> tuple[cache.Found, list[str]]:
    """With the names that the NICs have now; as it is where they cannot be read."""
    return (found, []) if around.seen is None else fitted(found, around.seen)


def _with_nics(cached: cache.Cached, names: Sequence[str], host: bring.Host, wait_s: float) -> None:
    """Wait for all these NICs, by their names or under other ones that stay, until the time is over."""
    macs = {one.name: one.mac.lower() for one in cached.positions}
    until = host.clock() + wait_s
    renamed: list[str] = []
    since = 0.0
    while True:
        links = host.tools.netlink.look().by_name()
        by_mac = {link.permanent_mac.lower(): link.name for link in links.values() if link.permanent_mac}
        other = [by_mac.get(macs.get(name, ""), "") for name in names if name not in links]
        now = host.clock()
        if not other or now >= until:
            return
        if other != renamed:
            renamed, since = other, now
        if all(other) and now - since >= RENAMED_S:
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
            climb.last_lease(found.cached.records, host),
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
    """Why the NICs below a PIF, or its bridge, are left to another program, in words; empty where they are not."""
    kernel = host.tools.netlink.look()
    others = held(nics_of(records, pif), kernel, owners)
    return others[0][1] if others else of_others(records, pif, kernel)


def around_of(root: Path, listed: tuple[str, ...] = ()) -> Around:
    """This host's, below `root`."""

    def owners(name: str) -> Sequence[Owner]:
        from hostagent.net import foreign

        return foreign.owners(foreign.nic(name, root), root)

    def console(text: str) -> None:
        try:
            with (root / "dev/console").open("w") as file:
                file.write(text)
        except OSError as error:
            print(f"the console could not be written: {error.strerror}", file=sys.stderr)

    return Around(owners, cards_of(root, listed), listed, console)


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
            around = around_of(root, _listed(root))._replace(seen=seen_here(root, host.tools.netlink))
            raised = raise_management(found, host, around, until=host.clock() + 4 * TIMEOUT_S, nics_s=NICS_S)
    except HostagentError as error:
        print(f"error: {error.found}\nhint: {error.hint}", file=sys.stderr)
        return 1
    for line in (*told, *raised.told):
        print(line)
    print(f"management interface: {raised.outcome}")
    return 1 if raised.outcome == DOWN else 0


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
