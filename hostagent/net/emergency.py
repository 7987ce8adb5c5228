"""What stands in for the management interface after rung 3 or 4 of the emergency ladder: noted until that works again.

The note is RUN/net/emergency.json. While it stands, nobody brings up what the records say of that NIC: they know of no
address there. It says nothing once the bridge that it names has no address any more.
"""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

from hostagent.errors import HostagentError
from hostagent.files import read_bounded, write_atomic
from hostagent.named import NamedTuple
from hostagent.net import journal
from hostagent.net.attached import works
from hostagent.net.chains import text as name_of
from hostagent.net.change import Change, Course, carried_out
from hostagent.net.devices import GROUP, SCOPE_LINK, Device, Wanted
from hostagent.net.finding import STOP, Finding
from hostagent.net.management import chain
from hostagent.net.model import want
from hostagent.net.plan import plan as plan_of
from hostagent.net.records import Records
from hostagent.net.unfinished import unfinished
from hostagent.net.verify import is_uplink

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from hostagent.net.bring import Host
    from hostagent.net.devices import Kernel, Link
    from hostagent.net.ladder import Rung

FILE = "net/emergency.json"
LIMIT_BYTES = 4096
LOCK_S = 30.0


class Standing(NamedTuple):
    """A rung that management stands on."""

    number: int
    why: str
    card: str
    bridge: str
    former: str
    """The bridge of the management interface that it stands in for."""

    @property
    def told(self) -> str:
        return (
            f"management stands on rung {self.number} of the ladder: {self.why};"
            f" {self.card} is left as it is (hint: hostagent net emergency-reset goes back to {self.former})"
        )


def begin(host: Host, rung: Rung, former: str) -> None:
    """Note the rung that helped. Raises FileError, BusyError."""
    if host.run is None or rung.records is None:
        return
    found = Standing(rung.number, rung.why, rung.card, rung.records.bridge, former)
    path = host.run / FILE
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    write_atomic(path, json.dumps(found._asdict()))


def standing(run: Path | None, kernel: Kernel) -> Standing | None:
    """What is noted, while its bridge has an address; a note that cannot be read is none."""
    found = _read(run)
    link = kernel.by_name().get(found.bridge) if found is not None else None
    has = link is not None and any(
        one.device == link.ifindex and one.scope < SCOPE_LINK for one in kernel.addresses
    )
    return found if has else None


def in_place_of(run: Path | None, bridge: str, kernel: Kernel) -> str:
    """The bridge that has the address of management: the rung's, while that stands in for this one."""
    found = standing(run, kernel)
    return found.bridge if found is not None and found.former == bridge else bridge


def left(run: Path | None, records: Records, kernel: Kernel) -> dict[str, str]:
    """PIFs, by reference, that are not to be touched while a rung stands, and why: those over its NIC, and the
    management interface, whose fixed address would be on two bridges; it would come along with VLANs on its NIC."""
    found = standing(run, kernel)
    if found is None:
        return {}
    alone = {found.card, found.former}
    for pif in records.pifs.values():
        network = records.networks.get(pif.network)
        fixed = "Static" in (pif.ip_mode, pif.ipv6_mode) and not pif.vlan_master_of
        if fixed and network is not None and network.bridge == found.former:
            alone.add(pif.device)
    return {ref: found.told for ref, pif in records.pifs.items() if not alone.isdisjoint(chain(records, pif))}


def want_beside(
    run: Path | None,
    records: Records,
    up: Sequence[str],
    kernel: Kernel,
    *,
    down: Sequence[str] = (),
    becoming: str = "",
) -> Wanted:
    """As `model.want`, whatever stands in for management. An operator may bring up the management interface again, and
    what lies on the rung's NIC; but beside that nothing that would bring its fixed address along, onto a second bridge.
    Raises FindingError.
    """
    found, alone = standing(run, kernel), left(run, records, kernel)
    if found is not None and not becoming and all(_bridge(records, ref) != found.former for ref in up):
        for ref in up:
            if ref in alone and found.card not in chain(records, records.pifs[ref]):
                pif = name_of(records.pifs[ref])
                what = (
                    f"{pif} lies on the management interface's NIC, and management stands on {found.bridge}"
                )
                hint = f"first back to {found.former}: hostagent net emergency-reset"
                raise Finding(0, STOP, (ref,), what, hint).error()
    return want(records, up, down=down, becoming_management=becoming, links=kernel.by_name(), apart=alone)


def _bridge(records: Records, ref: str) -> str:
    network = records.networks.get(records.pifs[ref].network)
    return network.bridge if network is not None else ""


def end(host: Host, bridge: str) -> list[str]:
    """Management works on this bridge: the rung's loses its addresses, and the note goes. What is told."""
    found = _read(host.run)
    if found is None:
        return []
    told = [] if found.bridge == bridge else aside([found.bridge], host)
    return [*told, *_forget(host)]


def changed(host: Host, records: Records, refs: Collection[str], becoming: str = "") -> list[str]:
    """These PIFs were brought up because it was asked for; the caller holds the lock. Ends what stands in for
    management where that works now, and forgets it where its NIC is now what the records say. What is told."""
    found = _read(host.run)
    if found is None:
        return []
    kernel = host.tools.netlink.look()
    for ref in refs:
        bridge = _bridge(records, ref)
        if (ref == becoming or bridge == found.former) and works(records, records.pifs[ref], kernel):
            told = [] if bridge == found.bridge else _tried(found.bridge, host)
            return [*told, *_forget(host)]
    if any(found.card in chain(records, records.pifs[ref]) for ref in refs):
        return _forget(host)
    return []


def aside(bridges: Sequence[str], host: Host) -> list[str]:
    """Take addresses, routes and DHCP clients off bridges of ours; NICs and guests stay on them. What is told.

    A fixed address on a bridge without carrier keeps its routes, and the kernel goes on sending there. Nothing is given
    back to a DHCP server: the address may be wanted again. What fails is told: the next rung is tried all the same.
    """
    if not any(bare(host.tools.netlink.look(), bridge) for bridge in bridges):
        return []
    try:
        with journal.Lock(host.folder, f"{host.by} emergency", wait_s=LOCK_S, sleep=host.wait):
            told = unfinished(host)
            return [*filter(None, [told]), *(line for bridge in bridges for line in _tried(bridge, host))]
    except HostagentError as error:
        return [_failed(", ".join(bridges), error)]


def _tried(bridge: str, host: Host) -> list[str]:
    try:
        return [f"{bridge} has lost its addresses"] if _strip(bridge, host) else []
    except HostagentError as error:
        return [_failed(bridge, error)]


def _failed(what: str, error: HostagentError) -> str:
    return f"the addresses of {what} could not be taken off: {error.found} (hint: {error.hint})"


def _strip(bridge: str, host: Host) -> bool:
    """Whether there was anything to take off. The caller holds the lock. Raises RolledBackError, NetlinkError and the
    errors of `plan`."""
    kernel = host.tools.netlink.look()
    wanted = bare(kernel, bridge)
    if wanted is None:
        return False
    tools = host.tools._replace(lease_stop=host.tools.lease_leave or host.tools.lease_stop)
    planned = plan_of(wanted, kernel, host.around(wanted, kernel))
    records = Records("", {}, {}, {}, {})
    change = Change(f"no address on {bridge}", records, kernel, wanted, planned)
    with carried_out(change, host._replace(tools=tools), Course()):
        return bool(planned.steps)


def bare(kernel: Kernel, bridge: str) -> Wanted | None:
    """A bridge of ours as it is, with its uplinks, and without addresses; None where it is not there or not ours."""
    link = kernel.by_name().get(bridge)
    if link is None or link.kind != "bridge" or link.group != GROUP:
        return None
    uplinks = [one for one in kernel.links.values() if one.master == link.ifindex and is_uplink(one)]
    bonds = {one.ifindex for one in uplinks if one.kind == "bond"}
    members = [one for one in kernel.links.values() if one.master in bonds]
    below = [_as_it_is(kernel, one) for one in (*members, *uplinks)]
    return Wanted((*below, Device(bridge, "bridge", ipv6="link-local")))


def _as_it_is(kernel: Kernel, link: Link) -> Device:
    lower = kernel.links.get(link.lower) if link.kind == "vlan" else None
    return Device(
        link.name,
        link.kind or "physical",
        master=kernel.links[link.master].name,
        lower=lower.name if lower is not None else "",
        vlan_id=link.vlan_id,
    )


def _read(run: Path | None) -> Standing | None:
    if run is None:
        return None
    try:
        found = Standing(**json.loads(read_bounded(run / FILE, limit_bytes=LIMIT_BYTES)))
    except (HostagentError, ValueError, TypeError):
        return None
    texts = (found.why, found.card, found.bridge, found.former)
    return found if type(found.number) is int and all(isinstance(one, str) for one in texts) else None


def _forget(host: Host) -> list[str]:
    if host.run is not None:
        with contextlib.suppress(OSError):
            (host.run / FILE).unlink(missing_ok=True)
    return []
