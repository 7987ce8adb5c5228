"""What can be known before a network change is begun: rows of the failure catalogue (networking.md 5) as findings.

They need the records, and where given a look at the kernel; what needs the wire (probes, LACP, tags) is elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.net import inet, model, others
from hostagent.net.chains import lower_of, members, text
from hostagent.net.devices import GROUP, GUESTS_PORTS, PROTOCOL, SCOPE_LINK, UP
from hostagent.net.finding import DEGRADE, STOP, STOP_UNLESS_BOOT, Finding
from hostagent.net.owners import other_management

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from hostagent.net.devices import Device, Kernel, Link
    from hostagent.net.model import Survey
    from hostagent.net.records import Network, Pif, Records


def check(
    records: Records,
    up: Iterable[str],
    *,
    down: Iterable[str] = (),
    becoming_management: str = "",
    kernel: Kernel | None = None,
    boot: bool = False,
) -> tuple[Finding, ...]:
    """Findings of a change, those that stop it first. Arguments as `model.want`.

    STOP: PIFs it names are not to be brought up. DEGRADE: it is done with less. At boot,
    what could be had with less is DEGRADE, and for a change that is asked for now STOP.
    """
    up, down = tuple(up), tuple(down)
    links = kernel.by_name() if kernel else None
    found = model.survey(records, up, down=down, becoming_management=becoming_management, links=links)
    return findings_of(records, found, becoming_management=becoming_management, kernel=kernel, boot=boot)


def findings_of(
    records: Records,
    found: Survey,
    *,
    becoming_management: str = "",
    kernel: Kernel | None = None,
    boot: bool = False,
) -> tuple[Finding, ...]:
    """As `check`, for who has made the survey."""
    links = kernel.by_name() if kernel else None
    findings = [
        *found.findings,
        *_management(records, found, becoming_management),
        *_bonds(records, found),
        *_subnets(records, found),
        *_records(records, found),
    ]
    if kernel is not None and links is not None:
        findings = _renamed(records, findings, links)
        findings += _nics(records, found, kernel, links)
        findings += _ipv6(records, found, links)
        findings += others.taken(found, kernel, links)
        findings += others.leaving(records, found, kernel, links)
        findings += _unmanaged(records, found, links)
    middle = DEGRADE if boot else STOP
    settled = dict.fromkeys(
        finding._replace(severity=middle) if finding.severity == STOP_UNLESS_BOOT else finding
        for finding in findings
    )
    return tuple(sorted(settled, key=lambda finding: finding.severity != STOP))


def unplug(
    records: Records, down: Iterable[str], gone: Collection[str], kernel: Kernel
) -> tuple[Finding, ...]:
    """What PIF.unplug refuses beside the management PIF, for who has no database: a PIF that is to stay, `guests`."""
    findings = []
    for ref in down:
        pif = records.pifs.get(ref)
        if pif is not None and pif.managed and pif.disallow_unplug:
            what = f"{text(pif)} is marked as one that must stay plugged"
            hint = (
                "if nothing needs it, with the agent running: "
                f"hostagent xe pif-param-set uuid={pif.uuid} disallow-unplug=false"
            )
            findings.append(Finding(0, STOP, (ref,), what, hint, "PIF_DOES_NOT_ALLOW_UNPLUG", (ref,)))
    return (*findings, *guests(records, down, gone, kernel))


def guests(
    records: Records, down: Iterable[str], gone: Collection[str], kernel: Kernel
) -> tuple[Finding, ...]:
    """PIFs that are to be taken down and whose bridge has guests, or the bridge below a VLAN that goes along (`gone`:
    names), by the kernel: it knows guests that no database has. Bonds are made and unmade by calls that take the guests
    along, so that `check` does not ask this.
    """
    findings = []
    for ref in down:
        pif = records.pifs.get(ref)
        if pif is None or not pif.managed:
            continue
        lower = records.pifs.get(lower_of(records, pif))
        for each in (pif, lower) if lower else (pif,):
            network = records.networks.get(each.network)
            if network and (each is pif or network.bridge in gone):
                findings.append(_in_use(ref, network, f"{text(pif)} would be taken down", kernel))
    return tuple(finding for finding in findings if finding)


def network_guests(network: Network, kernel: Kernel) -> Finding | None:
    """As `guests`, of the bridge of a network without PIFs that is to be removed."""
    return _in_use(network.ref, network, f"{network.bridge} would be removed", kernel)


def _in_use(ref: str, network: Network, what: str, kernel: Kernel) -> Finding | None:
    bridge = kernel.by_name().get(network.bridge)
    ports = sorted(
        link.name
        for link in kernel.links.values()
        if bridge and link.master == bridge.ifindex and link.name.startswith(GUESTS_PORTS)
    )
    if not ports:
        return None
    found = f"{what} with guests' interfaces on {network.bridge}: {', '.join(ports)}"
    hint = "shut the guests down, or take the interfaces out: xl network-detach"
    return Finding(0, STOP, (ref,), found, hint, "VIF_IN_USE", (network.ref, ports[-1]))


def _management(records: Records, found: Survey, becoming: str) -> list[Finding]:
    """Row 14: the management PIF would go."""
    findings = []
    for ref in found.chains.leaving:
        pif = records.pifs[ref]
        if not pif.management or (becoming != ref and becoming in found.chains.attached):
            continue
        causes = others.causes(records, found.chains, ref)
        findings.append(
            Finding(
                14,
                STOP,
                (*causes, ref),
                f"{text(pif)} is the management interface and would be taken down",
                other_management(records, found.chains.attached, causes, ref),
                "PIF_IS_MANAGEMENT_INTERFACE",
                (ref,),
            )
        )
    return findings


def _bonds(records: Records, found: Survey) -> list[Finding]:
    """Row 12: members with addresses of their own, of which at most one could have become the bond's."""
    findings = []
    for root, uppers in found.chains.made.items():
        pif = records.pifs[root]
        with_ip = [
            slave for slave in members(records, pif) if slave.ip_mode != "None" or slave.ipv6_mode != "None"
        ]
        if len(with_ip) > 1:
            which = ", ".join(f"{slave.device} ({_configured(slave)})" for slave in with_ip)
            family = "ip" if with_ip[-1].ip_mode != "None" else "ipv6"
            findings.append(
                Finding(
                    12,
                    STOP_UNLESS_BOOT,
                    (root, *uppers),
                    f"more than one member of {pif.device} has an address configuration: {which}",
                    f"hostagent xe pif-reconfigure-{family} uuid={with_ip[-1].uuid} mode=none",
                    "PIF_BOND_MORE_THAN_ONE_IP",
                    (),
                )
            )
    return findings


def _configured(pif: Pif) -> str:
    """The addresses that it is to have; where they are not known, how it gets them."""
    found = [] if pif.ip_mode == "None" else [pif.ip or pif.ip_mode]
    return ", ".join(found if pif.ipv6_mode == "None" else [*found, *(pif.ipv6 or [pif.ipv6_mode])])


def _subnets(records: Records, found: Survey) -> list[Finding]:
    """Rows 2, 37 and 40: subnets that overlap, addresses that are there twice, among all PIFs that will be up."""
    spans = []
    for ref in found.chains.attached:
        pif = records.pifs[ref]
        for address, prefix in _addresses(pif):
            hosts = inet.BITS[inet.family(address)] - prefix
            first = inet.number(address) >> hosts << hosts
            spans.append((inet.family(address), first, -(first | ((1 << hosts) - 1)), pif.uuid, ref, address))
    spans.sort()
    concerned = {each for root, uppers in found.chains.made.items() for each in (root, *uppers)}
    findings = []
    widest = spans[0] if spans else None
    for span in spans[1:]:
        if widest and span[0] == widest[0] and span[1] <= -widest[2]:
            one, other = records.pifs[widest[4]], records.pifs[span[4]]
            if one.ref != other.ref and concerned.intersection((one.ref, other.ref)):
                findings.append(_overlap(one, widest[5], other, span[5]))
            if span[2] > widest[2]:
                continue
        widest = span
    return findings


def _overlap(one: Pif, address: str, other: Pif, other_address: str) -> Finding:
    refs = (other.ref, one.ref)
    if address == other_address:
        found = f"{text(one)} and {text(other)} both have {address}"
        return Finding(40, STOP_UNLESS_BOOT, refs, found, "give one of them another address, or mode None")
    found = f"{text(one)} with {address} and {text(other)} with {other_address} are in the same subnet"
    return Finding(
        37, DEGRADE, refs, found, "answers may take the other way; clear the address that is not used"
    )


def _addresses(pif: Pif) -> list[tuple[str, int]]:
    """What the records say a PIF has: given for Static, the last result for the other modes."""
    found = []
    if (
        pif.ip_mode != "None"
        and (address := inet.address(pif.ip))
        and (prefix := inet.prefix_of(pif.netmask)) > 0
    ):
        found.append((address, prefix))
    if pif.ipv6_mode != "None":
        found += [
            each for element in pif.ipv6 if (each := inet.cidr(element)) and not each[0].startswith("fe80:")
        ]
    return found


def _records(records: Records, found: Survey) -> list[Finding]:
    """Rows 29, 62 and 63: records that contradict each other."""
    findings = []
    devices: dict[tuple[str, int], Pif] = {}
    macs: dict[str, Pif] = {}
    bridges = []
    for pif in records.pifs.values():
        other = devices.setdefault((pif.device, pif.vlan), pif)
        if other is not pif:
            what = f"{text(other)} and PIF {pif.uuid} are for the same device"
            findings.append(
                Finding(63, DEGRADE, (pif.ref, other.ref), what, f"hostagent xe pif-forget uuid={pif.uuid}")
            )
        if pif.physical and pif.mac:
            other = macs.setdefault(pif.mac.lower(), pif)
            if other is not pif:
                what = f"{text(other)} and {text(pif)} both have MAC {pif.mac}"
                findings.append(Finding(29, DEGRADE, (pif.ref, other.ref), what, _scan(records)))
        if pif.management and (network := records.networks.get(pif.network)):
            bridges.append((pif, network.bridge))
    for pif, bridge in bridges:
        if records.bridge and bridge != records.bridge:
            what = (
                f"{text(pif)} is the management interface, on {bridge}; the inventory says {records.bridge}"
            )
            findings.append(
                Finding(
                    62,
                    DEGRADE,
                    (pif.ref,),
                    what,
                    f"hostagent xe host-management-reconfigure pif-uuid={pif.uuid}",
                )
            )
    return [f for f in findings if f.row == 62 or not found.chains.attached.isdisjoint(f.refs)]


def _renamed(records: Records, findings: list[Finding], links: dict[str, Link]) -> list[Finding]:
    """Row 30 becomes row 26 where the NIC is there under another name."""
    by_mac = {link.permanent_mac: link for link in links.values() if link.permanent_mac and not link.kind}
    told = []
    for finding in findings:
        if finding.row == 30:
            for ref in finding.refs:
                pif = records.pifs[ref]
                parts = members(records, pif) or [pif]
                names = [
                    f"{part.device} of {text(part)} is now called {link.name}"
                    for part in parts
                    if part.device not in links and (link := by_mac.get(part.mac.lower()))
                ]
                if names:
                    what = "the NIC " + " and ".join(names)
                    finding = finding._replace(row=26, found=what, hint=_scan(records))
                    break
        told.append(finding)
    return told


def _nics(records: Records, found: Survey, kernel: Kernel, links: dict[str, Link]) -> list[Finding]:
    """Rows 26, 27, 46 and 57: another NIC under the name, somebody else's NIC, no carrier."""
    by_device = {pif.device: pif for pif in records.pifs.values() if pif.physical}
    by_mac = {link.permanent_mac: link for link in links.values() if link.permanent_mac and not link.kind}
    wanted = {device.name for device in found.wanted.devices}
    foreign: dict[int, list[str]] = {}
    for address in kernel.addresses:
        if address.scope != SCOPE_LINK:
            foreign.setdefault(address.device, []).append(f"{address.text}/{address.prefix}")
    for route in kernel.routes:
        if route.protocol != PROTOCOL and route.destination in ("default4", "default6"):
            foreign.setdefault(route.device, []).append(f"the default route over {route.gateway or 'it'}")
    findings = []
    for device in found.wanted.devices:
        link = links.get(device.name)
        if device.kind != "physical" or link is None:
            continue
        pif = by_device.get(device.name)
        if pif and link.permanent_mac and pif.mac and link.permanent_mac != pif.mac.lower():
            findings.append(_another_nic(records, pif, device, link, by_mac))
        master = kernel.links.get(link.master)
        if master and master.group != GROUP and master.name not in wanted:
            what = f"{link.name} is a port of {master.name}, which is not ours"
            hint = f"take it out of {master.name} where that is configured"
            findings.append(Finding(46, STOP, device.serves, what, hint))
        elif device.master and link.ifindex in foreign and not link.master:
            what = f"{link.name} has {', '.join(foreign[link.ifindex])}, given by another program"
            hint = f"take the NIC over with its address: hostagent net adopt {link.name}"
            findings.append(Finding(46, STOP_UNLESS_BOOT, device.serves, what, hint))
        if link.flags & UP and not link.carrier:
            what, hint = (
                f"no carrier on {link.name}: cable, switch port or transceiver",
                f"ethtool {link.name}",
            )
            findings.append(Finding(57, DEGRADE, device.serves, what, hint))
    return findings


def _ipv6(records: Records, found: Survey, links: dict[str, Link]) -> list[Finding]:
    """Row 66: IPv6 that the host does not have.

    Told by the loopback device: it is in each look at the kernel, and switching IPv6 off for all devices switches it
    off there too.
    """
    loopback = links.get("lo")
    if loopback is None or loopback.ipv6.get("disable_ipv6") == 0:
        return []
    if loopback.ipv6:
        why = "IPv6 is switched off for the whole host (net.ipv6.conf.all.disable_ipv6, or lo's)"
        hint = "sysctl -w net.ipv6.conf.all.disable_ipv6=0 (and below /etc/sysctl.d)"
    else:
        why = "this kernel has no IPv6"
        hint = "take ipv6.disable=1 off its command line"
    return [
        Finding(
            66,
            STOP_UNLESS_BOOT,
            (ref,),
            f"{text(pif)} is to have IPv6, and {why}",
            f"{hint}; or hostagent xe pif-reconfigure-ipv6 uuid={pif.uuid} mode=none",
        )
        for root, uppers in found.chains.made.items()
        for ref in (root, *uppers)
        if ref in found.chains.attached and (pif := records.pifs[ref]).ipv6_mode != "None"
    ]


def _scan(records: Records) -> str:
    return f"hostagent xe pif-scan host-uuid={records.host_uuid or '…'}"


def _another_nic(
    records: Records, pif: Pif, device: Device, link: Link, by_mac: Mapping[str, Link]
) -> Finding:
    if now := by_mac.get(pif.mac.lower()):
        what = f"the NIC of {text(pif)} is now called {now.name}; {link.name} is another one ({link.permanent_mac})"
        return Finding(26, STOP, device.serves, what, _scan(records))
    what = f"{link.name} has MAC {link.permanent_mac}, and {text(pif)} {pif.mac}: another NIC is in its place"
    return Finding(27, STOP_UNLESS_BOOT, device.serves, what, _scan(records))


def _unmanaged(records: Records, found: Survey, links: dict[str, Link]) -> list[Finding]:
    """A network whose bridge others make is only looked at."""
    findings = []
    for root, uppers in found.chains.made.items():
        for ref in ((root,) if root in found.chains.attached else ()) + tuple(uppers):
            network = records.networks[records.pifs[ref].network]
            if not network.managed and network.bridge not in links:
                what = f"the bridge {network.bridge} of an unmanaged network is not there"
                hint = "make it where it is configured"
                findings.append(
                    Finding(0, STOP, (ref,), what, hint, "BRIDGE_NOT_AVAILABLE", (network.bridge,))
                )
    return findings
