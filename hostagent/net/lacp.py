"""Whether LACP works on the bond that carries the management interface (networking.md 5, rows 4 and 5).

The kernel's bonding carries traffic over one port where nobody answers its LACPDUs, so that a gateway that answers
proves nothing: a switch that has no such group may block the other ports, or take the addresses back and forth.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.net.bonds import LACP
from hostagent.net.chains import bond_of, lower_of

if TYPE_CHECKING:
    from hostagent.net.devices import Kernel
    from hostagent.net.records import Records

NOBODY = "00:00:00:00:00:00"


def management_bond(records: Records, becoming: str = "") -> str:
    """The bond below the PIF that is becoming management (a reference), else below the management PIF; its name."""
    found = [ref for ref, pif in records.pifs.items() if pif.management]
    pif = records.pifs.get(becoming or next(iter(found), ""))
    if pif is None:
        return ""
    root = records.pifs[lower_of(records, pif) or pif.ref]
    return root.device if bond_of(records, root) is not None else ""


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
