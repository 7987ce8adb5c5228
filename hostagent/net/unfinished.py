"""What a kill or a power cut left of a change of the network, before the next one begins.

Who makes a change has the lock until it is over. So one that is found under the lock has nobody any more, but one that
waits for an operator's confirmation, and for that a timer runs.
"""

from __future__ import annotations

import contextlib
import zlib
from typing import TYPE_CHECKING

from hostagent.errors import BusyError, HostagentError
from hostagent.net import apply, cache, journal, later_boot, taken_back

if TYPE_CHECKING:
    from hostagent.net.bring import Host
    from hostagent.net.records import Pif, Records

COMPARED = 5
"""So many differences are told."""


def unfinished(host: Host, digest: str = "", *, insist: bool = False) -> str:
    """Resolve what a kill or a power cut left in the middle; the caller holds the lock. What was done, in words.

    It is undone; but with `digest`, the `state_of` what the database says, a whole one that the database has is kept.
    So is, at a later boot, a takeover or release of a card that was decided by then (`later_boot.py`).
    One that waits for its confirmation is left alone, and the next change is then told so (BusyError), unless the
    caller must `insist`. An undo that has troubles is told, and does not keep the next change from being made; nor is
    it done again in this boot: what it could do it has done, and doing it again takes a NIC out of its bridge and down.
    Raises FileError where the disk does not let it be resolved.
    """
    left, lost = journal.usable(host.folder)
    if left is None:
        return f"{lost}; {_compared(host)}" if lost else ""
    here = left.boot_id == host.boot
    if here and left.state == journal.APPLIED and digest and left.digest == digest:
        journal.commit(host.folder, left)
        told = f"kept, as the database has it: {left.what}"
    elif later_boot.decided(host, left):
        told = later_boot.carry_on(host, left)
    elif here and left.state == journal.WAITING and not insist and _waits(host):
        return ""
    elif here and left.state == journal.UNDO_FAILED:
        told = f"UNDOING WHAT WAS LEFT UNFINISHED HAS FAILED IN PART: {left.what}; what is there now is taken as it is"
        told += " (hint: hostagent net check; hostagent net undo tries once more)"
    else:
        unnoted = taken_back.undoing(host, left) if here else []
        troubles = apply.take_back(left, host.tools, host.folder, boot=host.boot)
        told = f"undid what was left unfinished: {left.what}"
        if troubles:
            failed = "; ".join(trouble.found for trouble in troubles)
            told = f"UNDOING WHAT WAS LEFT UNFINISHED FAILED IN PART: {left.what}; {failed}"
        told = "; ".join([told, *host.soft, *unnoted])
        host.soft.clear()  # of the next change it is no part
    if here:
        try:
            host.stand_down()
        except HostagentError as error:
            told += f"; {error.found}"
    return told


def arm(host: Host, seconds: float) -> None:
    """Start the timer of a change whose journal is yet to come; the caller holds the lock. The timer of one that is
    over, whose maker died before it stopped it, gives way. Raises BusyError, GuardError.
    """
    try:
        host.arm(seconds)
    except BusyError:
        left = journal.pending(host.folder)
        if left is not None and left.state != journal.UNDO_FAILED:
            raise
        host.stand_down()
        host.arm(seconds)


def disarm(host: Host) -> None:
    """Stop the timer of a change that was undone; where the journal does not say so, the timer is to undo it."""
    with contextlib.suppress(HostagentError):  # also where it has ended: then its undo finds nothing to do
        if journal.pending(host.folder) is None:
            host.disarm()


def state_of(records: Records) -> str:
    """A short name of what the database says when it has a change: what records want, and what is attached."""
    attached = sorted(ref for ref, pif in records.pifs.items() if pif.currently_attached)
    return f"{cache.digest(meant(records))}-{zlib.crc32(' '.join(attached).encode()):08x}"


def meant(records: Records) -> Records:
    """The records without what is written into them beside a change, at any time: what a DHCP server or a router gave,
    and the names of networks."""
    return records._replace(
        pifs={ref: _asked_for(pif) for ref, pif in records.pifs.items()},
        networks={
            ref: network._replace(name_label="") if network.name_label else network
            for ref, network in records.networks.items()
        },
    )


def _asked_for(pif: Pif) -> Pif:
    if pif.ip_mode == "DHCP":
        pif = pif._replace(ip="", netmask="", gateway="", dns="")
    if pif.ipv6_mode in ("DHCP", "Autoconf"):
        pif = pif._replace(ipv6=(), ipv6_gateway="")
        if pif.ipv6_mode == "DHCP":
            pif = pif._replace(dns="")
    return pif


def _waits(host: Host) -> bool:
    try:
        return host.waiting()
    except HostagentError:  # systemd cannot be asked: an operator can still confirm it, or undo it
        return True


def _compared(host: Host) -> str:
    """How the kernel differs from the last verified generation of the cache, in words."""
    from hostagent.net.attached import as_now
    from hostagent.net.model import want
    from hostagent.net.verify import differences

    verified = cache.read_verified(host.folder)
    if verified is None:
        return "there is no verified generation of the cache to compare the network with (hint: hostagent net check)"
    try:
        kernel = host.tools.netlink.look()
        now = as_now(verified.records, kernel)
        refs = [ref for ref, pif in now.pifs.items() if pif.management or pif.currently_attached]
        wanted = want(now, refs, links=kernel.by_name())
        found = differences(wanted, kernel, host.around(wanted, kernel))
    except HostagentError as error:
        return f"the network could not be compared with generation {verified.generation}: {error.found}"
    if not found:
        return (
            f"the network is as generation {verified.generation} of the cache, the last verified one, has it"
        )
    told = [
        f"{one.device or 'the resolver'}: {one.what} {one.found}, not {one.wanted}"
        for one in found[:COMPARED]
    ]
    more = f" and {len(found) - COMPARED} more" if len(found) > COMPARED else ""
    return (
        f"it differs from generation {verified.generation} of the cache, the last verified one:"
        f" {'; '.join(told)}{more} (hint: hostagent net emergency-reset goes back to that one)"
    )
