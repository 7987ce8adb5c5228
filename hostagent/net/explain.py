"""Why a PIF is not up, not the gateway, without an address, or at another MTU: reasons with evidence and what to type.

Pure, over the records, a look at the kernel, and what else is known (`Evidence`): nothing is asked here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.net.attached import as_now, device_of
from hostagent.net.bonds import LACP
from hostagent.net.chains import bond_of, lower_of, members
from hostagent.net.chains import text as name_of
from hostagent.net.checks import check
from hostagent.net.devices import GUESTS_PORTS, SCOPE_LINK, UP
from hostagent.net.finding import STOP
from hostagent.net.model import survey
from hostagent.net.reason import STOPS, TELLS, WARNS, Answer, Evidence, Reason, numbers, text
from hostagent.net.verify import differences

if TYPE_CHECKING:
    from hostagent.net.devices import Kernel, Link
    from hostagent.net.model import Survey
    from hostagent.net.records import Pif, Records

__all__ = ["STOPS", "TELLS", "WARNS", "Answer", "Evidence", "Reason", "explain", "text"]

DAD_FAILED = 0x08
"""IFA_F_DADFAILED: another host has the IPv6 address."""
COLLECTING, DISTRIBUTING, DEFAULTED = 0x10, 0x20, 0x40
"""LACP state bits (IEEE 802.1AX 6.4.2.3)."""
NOBODY = "00:00:00:00:00:00"
DIFFERENCES = 6
CARRIER_LOSSES = 3
GOING_BACK = 3
"""BOND_LINK_BACK: the link is there again and waits for its updelay."""
HEADERS_BYTES = 28
"""Of IPv4 and ICMP, beside what ping is told to send."""


def explain(records: Records, kernel: Kernel, ref: str, evidence: Evidence | None = None) -> Answer:
    """Everything that stands between a PIF and what it is to be, the gravest first."""
    return _Explaining(records, kernel, records.pifs[ref], evidence or Evidence()).answer()


class _Explaining:
    def __init__(self, records: Records, kernel: Kernel, pif: Pif, evidence: Evidence) -> None:
        self.records = as_now(records, kernel)
        self.kernel = kernel
        self.pif = self.records.pifs[pif.ref]
        self.evidence = evidence
        self.links = kernel.by_name()
        self.vlans = {
            (link.lower, link.vlan_id): link for link in kernel.links.values() if link.kind == "vlan"
        }
        self.root = self.records.pifs[lower_of(self.records, pif) or pif.ref]
        self.network = self.records.networks.get(pif.network)
        self.bridge = self.network.bridge if self.network else ""
        self.nics = members(self.records, self.root) or [self.root]
        self.reasons: list[Reason] = []

    def answer(self) -> Answer:
        pif = self.pif
        if pif.bond_slave_of:
            self._member()
        else:
            self._refused()
            for nic in self.nics:
                self._nic(nic)
            self._bond()
            self._not_up()
            self._on_bridge()
            found = survey(self.records, [pif.ref], links=self.links) if not self._stopped() else None
            if found is not None:
                self._wrong(found)
                self._owner(found)
        self._address()
        self._changes()
        order = (STOPS, WARNS, TELLS)
        reasons = tuple(sorted(dict.fromkeys(self.reasons), key=lambda reason: order.index(reason.weight)))
        return Answer(name_of(pif), self._verdict(reasons), tuple(self._facts()), reasons)

    def _verdict(self, reasons: tuple[Reason, ...]) -> str:
        if self.pif.bond_slave_of:
            return "a member of a bond: it has no state of its own"
        if any(reason.weight == STOPS for reason in reasons):
            return "does not work" if self.pif.currently_attached else "not up"
        if not self.pif.currently_attached:
            return "not up, and nothing stands in the way"
        return (
            "up, with less than is wanted" if any(r.weight == WARNS for r in reasons) else "up and as wanted"
        )

    def _stopped(self) -> bool:
        return any(reason.weight == STOPS for reason in self.reasons)

    def _add(self, weight: str, found: str, *evidence: str, command: str = "") -> None:
        self.reasons.append(Reason(weight, found, tuple(line for line in evidence if line), command))

    def _member(self) -> None:
        bond = self.records.bonds.get(self.pif.bond_slave_of)
        master = self.records.pifs.get(bond.master) if bond else None
        if master is not None:
            told = f"{self.pif.device} is a member of {master.device}: look at that one"
            self._add(TELLS, told, command=f"hostagent pif explain {master.uuid}")
        self._nic(self.pif)

    def _refused(self) -> None:
        for finding in check(self.records, [self.pif.ref], kernel=self.kernel):
            if finding.row == 57 or self.pif.ref not in finding.refs:
                continue  # carrier is told with its evidence
            weight = STOPS if finding.severity == STOP else WARNS
            self._add(weight, finding.found, command=finding.hint)

    def _absent(self, nic: Pif) -> None:
        """That it stands in the way is told by the checks; here since when, and which NICs could be in its place."""
        taken = {pif.device for pif in self.records.pifs.values() if pif.physical}
        free = [
            f"{name} ({link.permanent_mac or link.mac}), {'with' if link.carrier else 'without'} carrier, is no PIF's"
            for name, link in sorted(self.links.items())
            if link.parent and not link.kind and name not in taken and not name.startswith(GUESTS_PORTS)
        ]
        self._add(
            TELLS,
            " ".join([nic.device, f"({nic.mac}) is missing", self.evidence.missing.get(nic.mac, "")]).strip(),
            *free,
        )

    def _nic(self, nic: Pif) -> None:
        link = self.links.get(nic.device)
        if link is None:
            self._absent(nic)
            return
        evidence = self._wire(nic.device)
        if not link.flags & UP:
            if self.pif.currently_attached or nic.bond_slave_of:
                told = f"{nic.device} is down"
                self._add(STOPS, told, f"ip link: {nic.device} without UP", command=self._up())
        elif not link.carrier:
            weight = WARNS if self.root.bond_master_of and self._carries() else STOPS
            failures = link.port.get("link_failure_count", 0)
            lost = f"{failures} times lost since the bond is there" if failures > CARRIER_LOSSES else ""
            told = f"no carrier on {nic.device}: cable, switch port or transceiver"
            self._add(weight, told, "ip link: NO-CARRIER", lost, command=f"ethtool {nic.device}")
        elif self.evidence.lacpdus.get(nic.device) and not nic.bond_slave_of:
            peers = [name for name, system in self.evidence.lacpdus.items()
                     if system == self.evidence.lacpdus[nic.device]]  # fmt: skip
            told = f"the switch speaks LACP on {', '.join(peers)}, and {nic.device} is in no bond"
            self._add(
                STOPS,
                told,
                *evidence,
                command="hostagent xe bond-create network-uuid=… pif-uuids=… mode=lacp",
            )
        program = self.evidence.foreign.get(nic.device)
        if program:
            told = f"{program} configures {nic.device} as well"
            off = self.evidence.keep_off.get(nic.device, "")
            self._add(
                WARNS,
                told,
                f"kept from it by: {off}" if off else "",
                command=f"hostagent net adopt {nic.device}",
            )
        tags = self.evidence.tags.get(nic.device)
        if tags and self.pif.vlan >= 0 and self.pif.vlan not in tags:
            told = (
                f"the switch port of {nic.device} carries tags {numbers(tags)}; {self.pif.vlan} was not seen"
            )
            self._add(WARNS, told, *evidence, command="have the tag allowed on the switch port")
        elif tags and self.pif.vlan < 0 and self.pif.ip_mode != "None" and self._silent():
            told = f"the switch port of {nic.device} carries tags {numbers(tags)}; this PIF is untagged"
            self._add(WARNS, told, *evidence, command="make the port's native VLAN right, or use a VLAN PIF")

    def _carries(self) -> bool:
        return any(nic.device in self.links and self.links[nic.device].carrier for nic in self.nics)

    def _silent(self) -> bool:
        """Whether nothing answers there: no lease, or a gateway that does not answer."""
        leased = self.pif.ip_mode == "DHCP" and self.bridge in self.evidence.dhcp
        return leased or self.evidence.gateways.get(self.pif.gateway) is False

    def _wire(self, device: str) -> tuple[str, ...]:
        found = []
        if device in self.evidence.lacpdus:
            found.append(f"LACPDUs of {self.evidence.lacpdus[device]} seen on {device}")
        if device in self.evidence.tags:
            found.append(f"tags seen on {device}: {numbers(self.evidence.tags[device])}")
        if device in self.evidence.lldp:
            found.append(f"LLDP on {device}: {self.evidence.lldp[device]}")
        return tuple(found)

    def _bond(self) -> None:
        bond, link = bond_of(self.records, self.root), self.links.get(self.root.device)
        if bond is None or link is None or link.kind != "bond":
            return
        for nic in self.nics:
            port = self.links.get(nic.device)
            if port is not None and port.master != link.ifindex:
                told = f"{nic.device} is not in {self.root.device}"
                self._add(
                    WARNS, told, f"ip link: {nic.device} has another master or none", command=self._up()
                )
            elif port is not None and port.port.get("mii_status") == GOING_BACK:
                seconds = link.settings.get("updelay", 0) / 1000
                told = f"{nic.device} has its link back and carries traffic again in at most {seconds:.0f} s"
                self._add(
                    TELLS, told, f"the updelay of {link.name}", command=f"cat /proc/net/bonding/{link.name}"
                )
        speeds = {nic.device: self.evidence.speeds[nic.device] for nic in self.nics
                  if nic.device in self.evidence.speeds}  # fmt: skip
        if len(set(speeds.values())) > 1:
            told = f"the members of {link.name} have links of different speed"
            table = (f"{name}: {speed} Mb/s" for name, speed in speeds.items())
            self._add(
                WARNS, told, *table, command="cable them to ports of one speed, or look at ethtool-… keys"
            )
        if link.settings.get("mode") != LACP:
            return
        if link.partner in ("", NOBODY):
            told = f"no LACP partner on {self.root.device}: the switch does not speak LACP there"
            rest = "one link at most carries traffic"
            self._add(STOPS if self.pif.management else WARNS, told, f"partner MAC {link.partner or 'none'}", rest,
                      command="configure the switch's ports as one LACP group")  # fmt: skip
            return
        groups: dict[int, list[str]] = {}
        for nic in self.nics:
            port = self.links.get(nic.device)
            if port is None or port.master != link.ifindex or not port.carrier:
                continue
            groups.setdefault(port.port.get("ad_aggregator_id", 0), []).append(nic.device)
            state = port.port.get("ad_partner_state", 0)
            if state & DEFAULTED or not state & COLLECTING or not state & DISTRIBUTING:
                told = f"the switch does not let {nic.device} carry traffic"
                why = f"LACP partner state {state:#04x} (collecting {state >> 4 & 1}, distributing {state >> 5 & 1})"
                self._add(
                    WARNS, told, why, *self._wire(nic.device), command=f"cat /proc/net/bonding/{link.name}"
                )
        if len(groups) > 1:
            told = "the members are on different switches or groups: only one of them carries traffic"
            which = "; ".join(f"aggregator {number}: {', '.join(names)}" for number, names in groups.items())
            self._add(WARNS, told, which, command="cable all members to one LACP group")

    def _not_up(self) -> None:
        if self.pif.currently_attached or self._stopped():
            return
        missing = []
        device = device_of(self.pif, self.links, self.vlans)
        if device is None:
            missing.append(f"{name_of(self.pif)} has no device")
        bridge = self.links.get(self.bridge)
        if self.bridge and bridge is None:
            missing.append(f"the bridge {self.bridge} is not there")
        elif device is not None and bridge is not None and device.master != bridge.ifindex:
            missing.append(f"{device.name} is not a port of {self.bridge}")
        told = "it was not brought up, or was taken down"
        weight = STOPS if self.pif.management else TELLS
        self._add(weight, told, *missing, command=f"hostagent pif plug {self.pif.uuid}")

    def _wrong(self, found: Survey) -> None:
        """What the kernel has that differs; the MTU with its whole chain."""
        if not self.pif.currently_attached:
            return
        wrong = [one for one in differences(found.wanted, self.kernel) if self.pif.ref in one.serves]
        for one in wrong:
            if one.what == "mtu":
                chain = [self.links[name] for name in self._chain() if name in self.links]
                limits = [f"{link.name} takes at most {link.max_mtu}" for link in chain
                          if 0 < link.max_mtu < int(one.wanted)]  # fmt: skip
                told = f"{one.device} has MTU {one.found}, and {one.wanted} is wanted"
                steps = " > ".join(f"{link.name} {link.mtu}" for link in chain)
                self._add(WARNS, told, f"MTUs from the wire: {steps}", *limits, command=self._up())
        others = [one for one in wrong if one.what != "mtu"]
        if others:
            lines = [
                f"{one.device}: {one.what} is {one.found}, wanted {one.wanted}"
                for one in others[:DIFFERENCES]
            ]
            more = f"and {len(others) - DIFFERENCES} more" if len(others) > DIFFERENCES else ""
            self._add(WARNS, "the kernel has it otherwise", *lines, more, command=self._up())

    def _on_bridge(self) -> None:
        """What of the bridge troubles guests: MTU of ports and path, filters, multicast (rows 18, 19, 49, 50)."""
        bridge = self.links.get(self.bridge)
        if bridge is None:
            return
        guests = [
            f"{link.name} {link.mtu}"
            for link in self.kernel.links.values()
            if link.name.startswith(GUESTS_PORTS) and self.kernel.links.get(link.master) is bridge
            if link.mtu != bridge.mtu
        ]
        if guests:
            told = f"guests on {bridge.name} have another MTU than its {bridge.mtu}"
            self._add(WARNS, told, ", ".join(guests), command="xl reboot DOMAIN, of those guests")
        for router, carried in self.evidence.paths.items():
            told = f"the way to {router} carries {carried} bytes, and the MTU is {bridge.mtu}"
            self._add(WARNS, told, "larger packets that may not be cut up get no answer",
                      command=f"ping -M do -s {carried - HEADERS_BYTES} {router}")  # fmt: skip
        on = {path: value for path, value in self.evidence.settings.items() if value == "1"}
        if on:
            told = "guests' frames pass dom0's packet filter, which may drop them"
            names = [path.replace("net/bridge/", "net.bridge.") for path in on]
            self._add(WARNS, told, *(f"{name} is 1" for name in names), command=f"sysctl -w {names[0]}=0")
        if bridge.settings.get("mcast_snooping") and not bridge.settings.get("mcast_querier"):
            told = (
                f"{bridge.name} snoops multicast and asks nobody: IPv6 neighbours may be lost after minutes"
            )
            self._add(WARNS, told, "mcast_snooping 1, mcast_querier 0",
                      command=f"ip link set {bridge.name} type bridge mcast_snooping 0")  # fmt: skip

    def _chain(self) -> list[str]:
        device = device_of(self.pif, self.links, self.vlans)
        names = [nic.device for nic in self.nics]
        return list(
            dict.fromkeys([*names, self.root.device, *([device.name] if device else []), self.bridge])
        )

    def _owner(self, found: Survey) -> None:
        for family, owner, mode, gateway in (
            (4, found.gateway4, self.pif.ip_mode, self.pif.gateway),
            (6, found.gateway6, self.pif.ipv6_mode, self.pif.ipv6_gateway),
        ):
            if mode == "None":
                continue
            if owner.ref == self.pif.ref:
                self._add(TELLS, f"it owns the IPv{family} default route: {owner.reason}")
                if mode == "Static" and not gateway:
                    told = f"it owns the IPv{family} default route and has no gateway"
                    call = "reconfigure-ip" if family == 4 else "reconfigure-ipv6"
                    self._add(
                        WARNS,
                        told,
                        command=f"hostagent xe pif-{call} uuid={self.pif.uuid} mode=static gateway=…",
                    )
                if self.evidence.gateways.get(gateway) is False:
                    self._add(STOPS, f"the gateway {gateway} does not answer", *self._wire(self.root.device),
                              command=f"ip neigh show {gateway}")  # fmt: skip
            elif owner.ref:
                other = name_of(self.records.pifs[owner.ref])
                told = f"not the IPv{family} gateway: {other} is, because {owner.reason}"
                self._add(
                    TELLS,
                    told,
                    command=f"hostagent xe pif-param-set uuid={self.pif.uuid} other-config:defaultroute=true",
                )
        if found.dns.ref == self.pif.ref:
            self._add(TELLS, f"it owns the name servers: {found.dns.reason}")

    def _address(self) -> None:
        bridge = self.links.get(self.bridge or self.pif.device)
        if bridge is None:
            return
        have = [address for address in self.kernel.addresses if address.device == bridge.ifindex]
        for address in have:
            if address.flags & DAD_FAILED:
                told = f"another host has {address.text}"
                self._add(
                    STOPS,
                    told,
                    "duplicate address detection failed",
                    command=f"ip -6 addr show {bridge.name}",
                )
            elif address.text in self.evidence.conflicts:
                told = f"another host has {address.text}"
                self._add(STOPS, told, f"{self.evidence.conflicts[address.text]} answers for it",
                          command=f"arping -D -I {bridge.name} {address.text}")  # fmt: skip
        for held, mac in self.evidence.conflicts.items():
            if held not in {one.text for one in have}:
                told = f"another host has {held}, which this PIF is to have"
                self._add(STOPS, told, f"{mac} answers for it", command=f"arping -D -I {bridge.name} {held}")
        for mode, family in ((self.pif.ip_mode, 4), (self.pif.ipv6_mode, 6)):
            has = any((":" in one.text) == (family == 6) and one.scope < SCOPE_LINK for one in have)
            if mode == "DHCP" and not has and self.pif.currently_attached:
                told = f"no {'DHCP' if family == 4 else 'DHCPv6'} address on {bridge.name}"
                tried = self.evidence.dhcp.get(bridge.name, "")
                wire = [line for nic in self.nics for line in self._wire(nic.device)]
                self._add(STOPS, told, tried, *wire, command=f"journalctl -u hostagent-dhcp-{bridge.name}")
            elif mode == "Autoconf" and not has and self.pif.currently_attached:
                told = f"no router advertised a prefix on {bridge.name}: it has no IPv6 address"
                weight = WARNS if any(one.scope < SCOPE_LINK for one in have) else STOPS
                self._add(weight, told, command=f"rdisc6 {bridge.name}; or give it a fixed address")

    def _changes(self) -> None:
        if self.evidence.pending:
            told = f"a change waits for its confirmation: {self.evidence.pending}"
            self._add(WARNS, told, command="hostagent net confirm")
        if self.evidence.last:
            self._add(
                TELLS,
                f"the last change of the network: {self.evidence.last}",
                command="hostagent net history",
            )

    def _facts(self) -> list[tuple[str, str]]:
        device = device_of(self.pif, self.links, self.vlans)
        bridge: Link | None = self.links.get(self.bridge)
        index = bridge.ifindex if bridge else device.ifindex if device else -1
        addresses = [f"{one.text}/{one.prefix}" for one in self.kernel.addresses if one.device == index]
        carrier = [f"{nic.device} {'has' if self.links[nic.device].carrier else 'has no'} carrier"
                   for nic in self.nics if nic.device in self.links]  # fmt: skip
        return [
            ("chain", " > ".join(self._chain())),
            ("attached", "yes" if self.pif.currently_attached else "no"),
            ("carrier", ", ".join(carrier) or "no such NIC"),
            ("IPv4", " ".join(filter(None, (self.pif.ip_mode, self.pif.ip, self.pif.netmask)))),
            ("IPv6", " ".join((self.pif.ipv6_mode, *self.pif.ipv6))),
            ("addresses", ", ".join(addresses) or "none"),
        ]

    def _up(self) -> str:
        return f"interface-reconfigure --pif-uuid {self.pif.uuid} up"
