"""What another program has in the kernel: names and tags that are wanted, devices that would go (rows 21 and 46).

Ours carry the group `devices.GROUP`; nothing else is changed or removed in passing (networking.md 7.9).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.net import names
from hostagent.net.chains import bond_of, lower_of
from hostagent.net.devices import GROUP
from hostagent.net.finding import STOP, STOP_UNLESS_BOOT, Finding
from hostagent.net.verify import OWN_KINDS, is_stray_bond

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hostagent.net.chains import Chains
    from hostagent.net.devices import Kernel, Link
    from hostagent.net.model import Survey
    from hostagent.net.records import Network, Pif, Records


def taken(found: Survey, kernel: Kernel, links: Mapping[str, Link]) -> list[Finding]:
    """Rows 21 and 46: names and tags that somebody else has in the kernel."""
    tags = {
        (link.lower, link.vlan_id): link
        for link in kernel.links.values()
        if link.kind == "vlan" and link.group != GROUP
    }
    findings = []
    for device in found.wanted.devices:
        if device.kind == "physical":
            continue
        link = links.get(device.name)
        if link and link.kind != device.kind:
            hint = f"remove or rename {device.name} where it is configured"
            findings.append(Finding(46, STOP, device.serves, there(link, device.kind), hint))
        elif device.kind == "vlan":
            lower = links.get(device.lower)
            if lower and (link := tags.get((lower.ifindex, device.vlan_id))):
                what = f"tag {device.vlan_id} on {device.lower} is taken by {link.name}, which is not ours"
                hint = f"remove {link.name} where it is configured (FCoE?), or use another tag"
                params = (device.lower, str(device.vlan_id))
                findings.append(Finding(21, STOP, device.serves, what, hint, "VLAN_IN_USE", params))
        elif link and link.group != GROUP:
            hint = "remove it where it is configured, or take it over: hostagent net adopt"
            findings.append(Finding(46, STOP_UNLESS_BOOT, device.serves, there(link, device.kind), hint))
    return findings


def there(link: Link, kind: str) -> str:
    """How a device has the place of a wanted one of this kind, in words; empty where it is that device."""
    if link.kind != kind:
        return f"{link.name} is there already, as a {link.kind or 'NIC'}"
    return "" if link.group == GROUP else f"{link.name} is there already, made by another program"


def bridge_taken(network: Network, kernel: Kernel) -> Finding | None:
    """Row 46 of a network without PIFs: its bridge's name is somebody else's."""
    name = network.bridge
    link = kernel.by_name().get(name)
    what = there(link, "bridge") if link else ""
    hint = (
        f"remove or rename {name} where it is configured;"
        " or make the network anew with managed=false: then it is only used"
    )
    return Finding(46, STOP, (network.ref,), what, hint) if what else None


def leaving(records: Records, found: Survey, kernel: Kernel, links: Mapping[str, Link]) -> list[Finding]:
    """Row 46: devices of another program that would be removed with PIFs that go."""
    foreign = [
        link
        for name in found.wanted.gone
        if (link := links.get(name)) and link.kind in OWN_KINDS and link.group != GROUP
    ]
    if not foreign:
        return []
    used = {address.device for address in kernel.addresses} | {link.master for link in kernel.links.values()}
    used |= {link.lower for link in kernel.links.values() if link.kind == "vlan"}
    findings = []
    for link in foreign:
        if is_stray_bond(link, used=link.ifindex in used):
            continue
        refs = [ref for ref in found.chains.leaving if link.name in _left_behind(records, records.pifs[ref])]
        because = [each for ref in refs for each in causes(records, found.chains, ref)]
        what = f"{link.name} was made by another program, and would be removed"
        hint = f"take {link.name} down where it is configured"
        findings.append(Finding(46, STOP, tuple(dict.fromkeys((*because, *refs))), what, hint))
    return findings


def _left_behind(records: Records, pif: Pif) -> Iterator[str]:
    """Names of the devices that may go with a PIF, as `model.want` has them."""
    root = records.pifs[lower_of(records, pif) or pif.ref]
    for each in (pif, root):
        if network := records.networks.get(each.network):
            yield network.bridge
    if pif.vlan_master_of and pif is not root:
        yield names.vlan_device(root.device, records.vlans[pif.vlan_master_of].tag)[0]
    if root.bond_master_of:
        yield root.device


def causes(records: Records, chains: Chains, ref: str) -> list[str]:
    """PIFs by whose bring-up this one leaves: a bond and its members exclude each other."""
    root = lower_of(records, records.pifs[ref]) or ref
    return [
        each
        for made, uppers in chains.made.items()
        if _exclude_each_other(records, made, root)
        for each in (made, *uppers)
    ]


def _exclude_each_other(records: Records, made: str, root: str) -> bool:
    bonds = [bond_of(records, records.pifs[made]), bond_of(records, records.pifs[root])]
    slaves = [bond.slaves if bond else () for bond in bonds]
    return root in slaves[0] or made in slaves[1]
