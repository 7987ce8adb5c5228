"""What is wanted of the kernel for the records: devices, addresses, routes, leases, resolver. No look at the host.

Rules: networking.md 1.3 to 1.6 and 3.2 to 3.7, for the Linux bridge. A NIC or bond is a port of its bridge; a VLAN
device lies on the NIC or bond, beside that bridge, and is the port of its own. Addresses are on bridges only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.errors import BugError
from hostagent.named import NamedTuple
from hostagent.net import addressing, inet, keys, names, stack
from hostagent.net.chains import Chains, chains, lower_of, text
from hostagent.net.devices import Device, Wanted, WantedAddress
from hostagent.net.finding import DEGRADE, STOP, Finding
from hostagent.net.owners import (
    Owner,
    could_resolve,
    could_route4,
    could_route6,
    dns_owner,
    gateway_owner,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from hostagent.net.devices import Link
    from hostagent.net.records import Pif, Records


class Survey(NamedTuple):
    """What is wanted, and everything that was found on the way."""

    wanted: Wanted
    findings: tuple[Finding, ...]
    """Those with STOP name PIFs of `up` that are left out of `wanted`."""
    chains: Chains
    gateway4: Owner
    gateway6: Owner
    dns: Owner


def want(
    records: Records,
    up: Iterable[str],
    *,
    down: Iterable[str] = (),
    becoming_management: str = "",
    links: Mapping[str, Link] | None = None,
    apart: Collection[str] = (),
) -> Wanted:
    """What is wanted when the PIFs `up` are brought up and `down` are taken down, all by reference.

    What they lie on comes along with its own values; it has its addresses when it is attached itself. So do the PIFs
    that lose or gain the default route or the resolver by it, unless they are to be left `apart`. `currently_attached`
    must be true of now: of a host that has just booted, it is false everywhere. `links`, by name, are the kernel's
    where they are known: a bond does without the NICs that are not there, and no MTU is above what a NIC takes.

    Raises the first STOP of `survey` as `FindingError`, with its XenAPI code.
    """
    found = survey(records, up, down=down, becoming_management=becoming_management, links=links, apart=apart)
    for finding in found.findings:
        if finding.severity == STOP:
            raise finding.error()
    return found.wanted


def survey(
    records: Records,
    up: Iterable[str],
    *,
    down: Iterable[str] = (),
    becoming_management: str = "",
    links: Mapping[str, Link] | None = None,
    apart: Collection[str] = (),
) -> Survey:
    """As `want`, but what cannot be is left out and told: at start-up each network is its own unit of failure."""
    up, down = tuple(up), tuple(down)
    found = chains(records, up, down)
    now = [ref for ref, pif in records.pifs.items() if pif.currently_attached]
    then = found.attached
    gateway4 = gateway_owner(records, then, 4, becoming_management=becoming_management)
    gateway6 = gateway_owner(records, then, 6, becoming_management=becoming_management)
    dns = dns_owner(records, then, becoming_management=becoming_management)
    asked = {*up, *down, *found.made}
    again = [records.pifs[ref] for ref in up if ref in records.pifs and records.pifs[ref].currently_attached]
    changed = []
    for before, after, could in (
        (gateway_owner(records, now, 4), gateway4, could_route4),
        (gateway_owner(records, now, 6), gateway6, could_route6),
        (dns_owner(records, now), dns, could_resolve),
    ):
        # the records may have been changed since: what comes up again may have been the owner by those of before
        if before.ref != after.ref or any(could(pif) for pif in again if pif.ref != after.ref):
            both = (before.ref, after.ref)
            changed += [ref for ref in both if ref in then and ref not in up and ref not in apart]
    if changed:
        found = chains(records, (*up, *changed), down)
    build = stack.Stack(records, found, links, addressing.Layer(gateway4.ref, gateway6.ref, dns.ref))
    for root, uppers in found.made.items():
        build.root(root, uppers)
    refused = {ref for finding in build.findings if finding.severity == STOP for ref in finding.refs}
    if not refused.isdisjoint(up):
        # anew without them: what cannot be brought up must not displace anything either
        stops = tuple(finding for finding in build.findings if finding.severity == STOP)
        rest = survey(
            records,
            [ref for ref in up if ref not in refused],
            down=down,
            becoming_management=becoming_management,
            links=links,
            apart=apart,
        )
        return rest._replace(findings=(*stops, *rest.findings))
    findings = [
        # what only came along for the sake of the gateway stops nobody
        finding
        if finding.severity != STOP or asked.intersection(finding.refs)
        else finding._replace(severity=DEGRADE)
        for finding in (*found.findings, *build.findings, *build.layer.findings)
    ]
    wanted = Wanted(
        tuple(build.devices.values()),
        tuple(build.layer.addresses),
        tuple(build.layer.routes.values()),
        tuple(build.layer.leases),
        build.layer.dns,
        tuple(name for name in _gone(records, found) if name not in build.devices),
        _bridge_name(records, records.pifs[dns.ref]) if build.layer.dns is not None else "",
    )
    return Survey(wanted, tuple(findings), found, gateway4, gateway6, dns)


def want_network(records: Records, ref: str, *, present: bool = True) -> Wanted:
    """The bridge of a network without PIFs: the host's own, `xenapi`, has dom0's address on it (networking.md 3.6).

    With `present=False`, that it goes. A network with `managed` false wants nothing: others make its bridge.
    Raises FindingError when its bridge can have no such name. One with a PIF of this host is not for this function.
    """
    network = records.networks[ref]
    for pif in records.pifs.values():
        if pif.network == ref:
            raise BugError(
                f"network {network.uuid} is not internal: {text(pif)} is on it",
                hint="bring up the PIF instead",
            )
    if not network.managed:
        return Wanted()
    if not names.is_name(network.bridge):
        found = f"network {network.uuid} has the bridge name {network.bridge!r}, which no device can have"
        raise Finding(24, STOP, (ref,), found, "create the network anew").error()
    if not present:
        return Wanted(gone=(network.bridge,))
    read = keys.of_network(network.other_config)
    device = Device(
        network.bridge,
        "bridge",
        mtu=stack.mtu_of(None, network),
        settings=stack.BRIDGE,
        features=read.features,
        serves=(ref,),
    )
    if not read.host_internal:
        return Wanted((device,))
    return Wanted((device,), (WantedAddress(network.bridge, read.first, inet.prefix_of(read.netmask)),))


def _gone(records: Records, found: Chains) -> list[str]:
    """Devices that leaving PIFs leave behind, from the top down: VLANs, then bridges of their roots, then bonds."""
    upper: dict[str, None] = {}
    roots: dict[str, None] = {}
    for ref in found.leaving:
        pif = records.pifs[ref]
        if not pif.vlan_master_of:
            roots[ref] = None
        elif root := lower_of(records, pif):
            upper[_bridge_name(records, pif)] = None
            upper[names.vlan_device(records.pifs[root].device, records.vlans[pif.vlan_master_of].tag)[0]] = (
                None
            )
            roots[root] = None
    masters = []
    for ref in roots:
        stays = ref in found.made or ref in found.attached
        stays = stays or (records.pifs[ref].management and ref not in found.leaving)
        if not stays and found.attached.isdisjoint(found.above.get(ref, ())):
            pif = records.pifs[ref]
            upper[_bridge_name(records, pif)] = None
            if pif.bond_master_of:
                masters.append(pif.device)
    return [name for name in (*upper, *masters) if name]


def _bridge_name(records: Records, pif: Pif) -> str:
    network = records.networks.get(pif.network)
    return network.bridge if network and network.managed else ""
