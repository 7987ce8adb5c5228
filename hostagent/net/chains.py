"""Which PIFs a change brings up, takes along and displaces: records as chains NIC, bond, VLAN (networking.md 1.3).

A chain's root is what carries it: a NIC or a bond. A bond and its members exclude each other: bringing one up takes the
other down, with the VLANs on it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.named import NamedTuple
from hostagent.net.finding import STOP, Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hostagent.net.records import Bond, Pif, Records

TAG_MOST = 4094


class Chains(NamedTuple):
    attached: frozenset[str]
    """PIFs that are up when it is done."""
    made: Mapping[str, list[str]]
    """Roots that are brought up, taken along or kept, each with the VLAN PIFs on it that are brought up."""
    leaving: Mapping[str, None]
    """PIFs that go, because they are to or because they are displaced."""
    above: Mapping[str, list[str]]
    """All VLAN PIFs by what they lie on; empty when nothing leaves."""
    findings: tuple[Finding, ...]


def lower_of(records: Records, pif: Pif) -> str:
    """The PIF that a VLAN PIF lies on; empty for every other PIF, and where the records do not say."""
    vlan = records.vlans.get(pif.vlan_master_of) if pif.vlan_master_of else None
    return vlan.tagged if vlan and vlan.tagged in records.pifs else ""


def bond_of(records: Records, pif: Pif) -> Bond | None:
    """The bond that a PIF is the master of."""
    return records.bonds.get(pif.bond_master_of[0]) if pif.bond_master_of else None


def members(records: Records, pif: Pif) -> list[Pif]:
    """The NICs of a bond's master, the one that the bond has its MAC from first."""
    bond = bond_of(records, pif)
    if not bond:
        return []
    slaves = [records.pifs[ref] for ref in bond.slaves if ref in records.pifs]
    return sorted(
        slaves, key=lambda slave: (slave.ref != bond.primary_slave, len(slave.device), slave.device)
    )


def on_top(records: Records) -> dict[str, list[str]]:
    """VLAN PIFs by the PIF they lie on."""
    found: dict[str, list[str]] = {}
    for vlan in records.vlans.values():
        if vlan.untagged in records.pifs:
            found.setdefault(vlan.tagged, []).append(vlan.untagged)
    return found


def chains(records: Records, up: Iterable[str], down: Iterable[str]) -> Chains:
    """What a change means for all chains. `up` wins over `down`. PIFs that cannot be brought up are told as STOP."""
    findings: list[Finding] = []
    pifs = records.pifs
    roots: dict[str, str] = {}
    for ref in up:
        if ref in roots:
            continue
        root, trouble = _root(records, ref)
        if trouble:
            findings.append(trouble)
        else:
            roots[ref] = root
    bonded = {slave: root for root in set(roots.values()) for slave in _slaves(records, root)}
    made: dict[str, list[str]] = {}
    tags: dict[tuple[str, int], str] = {}
    for ref, root in list(roots.items()):
        trouble = None
        if root in bonded:
            trouble = _slave_and_bond(pifs[ref], pifs[root], pifs[bonded[root]])
        elif ref != root:
            tag = records.vlans[pifs[ref].vlan_master_of].tag
            other = tags.setdefault((root, tag), ref)
            if other != ref:
                trouble = _same_tag(pifs[ref], pifs[other], tag)
        if trouble:
            findings.append(trouble)
            del roots[ref]
        else:
            uppers = made.setdefault(root, [])
            if ref != root:
                uppers.append(ref)

    leaving: dict[str, None] = {}
    for ref in down:
        if ref not in pifs or not pifs[ref].managed:
            findings.append(_unmanaged(records, ref, pifs[ref]) if ref in pifs else _unknown(ref))
        elif ref not in roots:
            leaving[ref] = None
    displacing = [root for root in made if pifs[root].bond_master_of or pifs[root].bond_slave_of]
    above: dict[str, list[str]] = {}
    if leaving or displacing:
        above = on_top(records)
        for root in displacing:
            for other in _excluded(records, root):
                leaving[other] = None
                leaving.update(dict.fromkeys(above.get(other, ())))
    # the management PIF counts as attached: a VLAN on it must not cost it its address
    coming = {*roots, *(root for root in made if pifs[root].management)}
    attached = frozenset(
        ref for ref, pif in pifs.items() if (pif.currently_attached or ref in coming) and ref not in leaving
    )
    for ref in leaving:
        # what still carries VLANs stays, without addresses of its own
        if not pifs[ref].vlan_master_of and not attached.isdisjoint(above.get(ref, ())):
            made.setdefault(ref, [])
    return Chains(attached, made, leaving, above, tuple(findings))


def _slaves(records: Records, root: str) -> tuple[str, ...]:
    bond = bond_of(records, records.pifs[root])
    return bond.slaves if bond else ()


def _excluded(records: Records, root: str) -> list[str]:
    """What cannot be up together with this root."""
    pif = records.pifs[root]
    bond = records.bonds.get(pif.bond_slave_of) if pif.bond_slave_of else None
    others = (bond.master,) if bond else _slaves(records, root)
    return [ref for ref in others if ref in records.pifs]


def _root(records: Records, ref: str) -> tuple[str, Finding | None]:
    """The root of a PIF's chain, or why the PIF cannot be brought up."""
    pif = records.pifs.get(ref)
    if pif is None:
        return "", _unknown(ref)
    root = pif
    if pif.vlan_master_of:
        lower = lower_of(records, pif)
        if not lower:
            return "", _broken(pif, "the records do not say what it lies on")
        root = records.pifs[lower]
        if root.vlan_master_of:
            return "", Finding(
                0,
                STOP,
                (ref,),
                f"{text(pif)} lies on a VLAN",
                "put it on the NIC or bond",
                "PIF_IS_VLAN",
                (lower,),
            )
        tag = records.vlans[pif.vlan_master_of].tag
        if not 0 <= tag <= TAG_MOST:
            return "", Finding(
                0,
                STOP,
                (ref,),
                f"{text(pif)} has the tag {tag}",
                f"use 0 to {TAG_MOST}",
                "VLAN_TAG_INVALID",
                (str(tag),),
            )
    chain = [pif, root]
    if root.bond_master_of:
        bond = bond_of(records, root)
        if bond is None or not bond.slaves or any(slave not in records.pifs for slave in bond.slaves):
            return "", _broken(pif, f"the records do not say which NICs {root.device} is made of")
        chain += members(records, root)
    for part in chain:
        if not part.managed:
            return "", _unmanaged(records, ref, part)
        if part.network not in records.networks and part in (pif, root):
            return "", _broken(part, "the records do not have its network")
    return root.ref, None


def _unknown(ref: str) -> Finding:
    what, hint = f"there is no PIF {ref}", "list them: hostagent pif list"
    return Finding(0, STOP, (ref,), what, hint, "HANDLE_INVALID", ("PIF", ref))


def _unmanaged(records: Records, ref: str, part: Pif) -> Finding:
    hint = (
        f"others configure it; ours with: hostagent xe pif-forget uuid={part.uuid} && "
        f"hostagent xe pif-introduce host-uuid={records.host_uuid or '…'} device={part.device} managed=true"
    )
    return Finding(31, STOP, (ref,), f"{text(part)} is not managed", hint, "PIF_UNMANAGED", (part.ref,))


def _broken(pif: Pif, found: str) -> Finding:
    return Finding(
        0, STOP, (pif.ref,), f"{text(pif)}: {found}", f"compare the records: hostagent pif show {pif.uuid}"
    )


def _slave_and_bond(pif: Pif, slave: Pif, master: Pif) -> Finding:
    return Finding(
        0,
        STOP,
        (pif.ref,),
        f"{text(pif)} cannot be up together with {master.device}, of which {slave.device} is a member",
        f"use the bond's PIF, or take {master.device} down first",
        "CANNOT_PLUG_BOND_SLAVE",
        (slave.ref,),
    )


def _same_tag(pif: Pif, other: Pif, tag: int) -> Finding:
    return Finding(
        22,
        STOP,
        (pif.ref,),
        f"{text(pif)} and PIF {other.uuid} both have tag {tag} on {pif.device}",
        "destroy one of the two VLANs",
        "PIF_VLAN_EXISTS",
        (other.ref,),
    )


def text(pif: Pif) -> str:
    """A PIF as a sentence names it."""
    return f"PIF {pif.uuid} ({pif.device}{f' tag {pif.vlan}' if pif.vlan >= 0 else ''})"
