"""A cached generation on the NICs of today: where a NIC has another name now, the records follow, with no database.

By the same rules of identity as the database's PIFs (`nics.py`): the permanent MAC address, then the slot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.errors import HostagentError
from hostagent.net import nics
from hostagent.net.nics_types import Nic

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from hostagent.net.apply import Netlink
    from hostagent.net.cache import Cached, Found
    from hostagent.net.records import Pif


def fitted(found: Found, seen: Callable[[], Sequence[nics.Seen]]) -> tuple[Found, list[str]]:
    """What was read, with the names that NICs have now, and what was changed; as it is where they cannot be read."""
    if not found.cached.positions:
        return found, []
    try:
        cached, told = remapped(found.cached, seen())
    except HostagentError as error:
        return found, [f"the NICs could not be told apart: {error.found}"]
    before = found.cached.records.pifs
    after = cached.records.pifs
    former = {pif.device: after[ref].device for ref, pif in before.items() if after[ref].device != pif.device}
    return found._replace(cached=cached, former=former), told


def fitted_here(found: Found, root: Path, netlink: Netlink) -> Found:
    """`fitted` to this host's NICs, with what was changed in `told`."""
    found, told = fitted(found, seen_here(root, netlink))
    return found._replace(told=(*found.told, *told))


def seen_here(root: Path, netlink: Netlink) -> Callable[[], Sequence[nics.Seen]]:
    """What looks at the NICs of this host: files below `root`, permanent MAC addresses by the kernel."""

    def seen() -> Sequence[nics.Seen]:
        from hostagent.net import nics_look

        return nics_look.look(root, netlink.look().links.values(), names_of=False)

    return seen


def remapped(cached: Cached, seen: Sequence[nics.Seen]) -> tuple[Cached, list[str]]:
    """The generation with the names of now, and what was changed, in words. Its positions change along: what is marked
    as verified then fits together. Without positions, and with MAC addresses that are there twice, names stay.
    """
    earlier = [
        Nic(one.position, one.name, one.mac, pci_path=one.slot, present=one.present)
        for one in cached.positions
    ]
    if not earlier:
        return cached, []
    now = {nic.position: nic for nic in nics.assign(earlier, seen).nics if nic.present}
    moved = {
        old.name: now[old.position]
        for old in earlier
        if old.position in now and now[old.position].name != old.name
    }
    # a name twice, e.g. of a NIC that is gone and of one that has its name now: the present one's counts
    stay = {nic.name for nic in earlier if nic.position in now and now[nic.position].name == nic.name}
    moved = {name: nic for name, nic in moved.items() if name not in stay}
    if not moved:
        return cached, []

    def follow(pif: Pif) -> Pif:
        nic = moved.get(pif.device)
        if nic is None:
            return pif
        return pif._replace(device=nic.name, mac=nic.mac if pif.physical else pif.mac)

    pifs = {ref: follow(pif) for ref, pif in cached.records.pifs.items()}
    positions = tuple(
        one._replace(name=now[one.position].name, mac=now[one.position].mac, slot=now[one.position].pci_path)
        if one.position in now
        else one
        for one in cached.positions
    )
    told = [f"{name} is called {nic.name} now ({nic.mac}): its PIF follows" for name, nic in moved.items()]
    return cached._replace(records=cached.records._replace(pifs=pifs), positions=positions), told
