"""Whether LACP works on a bond (networking.md 5, rows 4 to 6). Of the one that carries the management interface more is
asked, for a change without it is undone (`care.py`).

The kernel's bonding carries traffic over one port where nobody answers its LACPDUs, so that a gateway that answers
proves nothing: a switch that has no such group may block the other ports, or take the addresses back and forth.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.net.bonds import LACP
from hostagent.net.chains import bond_of, lower_of

if TYPE_CHECKING:
    from hostagent.net.devices import Kernel, Wanted
    from hostagent.net.records import Records

NOBODY = "00:00:00:00:00:00"
CARRIES = 0x30
"""State bits of an end that collects and distributes (IEEE 802.1AX 6.4.2.3)."""


def management_bond(records: Records, becoming: str = "") -> str:
    """The bond below the PIF that is becoming management (a reference), else below the management PIF; its name."""
    found = [ref for ref, pif in records.pifs.items() if pif.management]
    pif = records.pifs.get(becoming or next(iter(found), ""))
    if pif is None:
        return ""
    root = records.pifs[lower_of(records, pif) or pif.ref]
    return root.device if bond_of(records, root) is not None else ""


def others(wanted: Wanted, ref: str, records: Records, becoming: str = "") -> list[str]:
    """Bonds with LACP that carry a PIF, but the one below management; their names."""
    management = management_bond(records, becoming)
    return [
        one.name
        for one in wanted.devices
        if ref in one.serves and one.settings.get("mode") == LACP and one.name != management
    ]


def idle(kernel: Kernel, name: str) -> list[str]:
    """Why no member of the bond collects and distributes, in words; empty as soon as one does. A member without carrier
    has no say."""
    bond = kernel.by_name().get(name)
    if bond is None or bond.settings.get("mode") != LACP:
        return []
    ports = [port for port in kernel.links.values() if port.master == bond.ifindex and port.carrier]
    if bond.partner in ("", NOBODY):
        hint = "make the switch's ports one LACP group, or use mode active-backup"
        return [f"no LACP partner on {port.name} (hint: {hint})" for port in ports]
    ends = [(port.port.get("ad_actor_state", 0), port.port.get("ad_partner_state", 0)) for port in ports]
    if not ports or any(own & theirs & CARRIES == CARRIES for own, theirs in ends):
        return []
    return [f"LACP lets no member of {name} carry traffic yet (hint: cat /proc/net/bonding/{name})"]


def trouble(kernel: Kernel, name: str) -> str:
    """Why the bond is no whole aggregate, in words; empty where it is one, is none by its mode, or is not there."""
    bond = kernel.by_name().get(name)
    if bond is None or bond.kind != "bond" or bond.settings.get("mode") != LACP:
        return ""
    if bond.partner in ("", NOBODY):
        return f"no LACP partner on {name}: the switch does not speak LACP there"
    groups: dict[int, list[str]] = {}
    for port in kernel.links.values():
        if port.master == bond.ifindex and port.carrier:
            groups.setdefault(port.port.get("ad_aggregator_id", 0), []).append(port.name)
    if len(groups) < 2:
        return ""
    told = "; ".join(f"aggregator {number}: {', '.join(names)}" for number, names in sorted(groups.items()))
    return (
        f"the members of {name} are in different LACP groups, and only one of them carries traffic ({told})"
    )
