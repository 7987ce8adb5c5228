"""What NICs, bond and bridge of a PIF tell of it, as reasons of `explain`: carrier, LACP, tags, MTU, other programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.net.adopt_files import DAEMONS
from hostagent.net.attached import as_now
from hostagent.net.bonds import LACP
from hostagent.net.chains import bond_of, lower_of, members
from hostagent.net.devices import GUESTS_PORTS, SCOPE_LINK, UP
from hostagent.net.reason import STOPS, TELLS, WARNS, Evidence, Reason, numbers

if TYPE_CHECKING:
    from hostagent.net.devices import Address, Kernel, Link
    from hostagent.net.records import Pif, Records

COLLECTING, DISTRIBUTING, DEFAULTED = 0x10, 0x20, 0x40
"""LACP state bits (IEEE 802.1AX 6.4.2.3)."""
NOBODY = "00:00:00:00:00:00"
CARRIER_LOSSES = 3
GOING_BACK = 3
"""BOND_LINK_BACK: the link is there again and waits for its updelay."""
HEADERS_BYTES = 28
"""Of IPv4 and ICMP, beside what ping is told to send."""


class Links:
    """Reasons are collected in `reasons`."""

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

    def _add(self, weight: str, found: str, *evidence: str, command: str = "", hint: str = "") -> None:
        self.reasons.append(Reason(weight, found, tuple(line for line in evidence if line), command, hint))

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
            self._lacp_without_bond(nic, evidence)
        self._other_program(nic, link)
        tags = self.evidence.tags.get(nic.device)
        if tags and self.pif.vlan >= 0 and self.pif.vlan not in tags:
            told = (
                f"the switch port of {nic.device} carries tags {numbers(tags)}; {self.pif.vlan} was not seen"
            )
            self._add(WARNS, told, *evidence, hint="have the tag allowed on the switch port")
        elif tags and self.pif.vlan < 0 and self.pif.ip_mode != "None" and self._silent():
            told = f"the switch port of {nic.device} carries tags {numbers(tags)}; this PIF is untagged"
            self._add(WARNS, told, *evidence, hint="make the port's native VLAN right, or use a VLAN PIF")

    def _lacp_without_bond(self, nic: Pif, evidence: tuple[str, ...]) -> None:
        uuids = {pif.device: pif.uuid for pif in self.records.pifs.values() if pif.physical}
        system = self.evidence.lacpdus[nic.device]
        peers = [name for name, one in self.evidence.lacpdus.items() if one == system and name in uuids]
        told = f"the switch speaks LACP on {', '.join(peers)}, and {nic.device} is in no bond"
        members_of = ",".join(uuids[name] for name in peers)
        network = "$(hostagent xe network-create name-label=bond)"
        command = f"hostagent xe bond-create network-uuid={network} pif-uuids={members_of} mode=lacp"
        self._add(
            STOPS,
            told,
            *evidence,
            command=command,
            hint="with all NICs of that group, on a network of its own",
        )

    def _other_program(self, nic: Pif, link: Link) -> None:
        """One that can be let go by `net adopt` where the NIC is in nothing yet; else what keeps it off."""
        program, off = (of.get(nic.device, "") for of in (self.evidence.foreign, self.evidence.keep_off))
        if not program:
            return
        can_be_taken = not link.master and program.partition(" ")[0] in DAEMONS
        self._add(
            WARNS,
            f"{program} configures {nic.device} as well",
            f"kept from it by: {off}" if off else "",
            command=off if off and not can_be_taken else f"hostagent net adopt {nic.device}",
        )

    def _carries(self) -> bool:
        return any(nic.device in self.links and self.links[nic.device].carrier for nic in self.nics)

    def _answers(self) -> bool:
        return any(self.evidence.gateways.values())

    def _silent(self) -> bool:
        """Whether nothing answers there: no lease, or no gateway that answers."""
        if self.pif.ip_mode == "DHCP" and self.bridge in self.links and not self._has(4):
            return True
        return bool(self.evidence.gateways) and not self._answers()

    def _has(self, family: int) -> bool:
        """An address that reaches beyond the link."""
        return any((":" in one.text) == (family == 6) and one.scope < SCOPE_LINK for one in self._addresses())

    def _addresses(self) -> list[Address]:
        bridge = self.links.get(self.bridge or self.pif.device)
        return [one for one in self.kernel.addresses if bridge and one.device == bridge.ifindex]

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
                WARNS, told, *table, hint="cable them to ports of one speed, or look at their ethtool- keys"
            )
        if link.settings.get("mode") != LACP:
            return
        if link.partner in ("", NOBODY):
            told = f"no LACP partner on {self.root.device}: the switch does not speak LACP there"
            rest = "one link at most carries traffic"
            weight = STOPS if self.pif.management and not self._answers() else WARNS
            self._add(weight, told, f"partner MAC {link.partner or 'none'}", rest,
                      hint="configure the switch's ports as one LACP group")  # fmt: skip
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
            self._add(WARNS, told, which, hint="cable all members to one LACP group")

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
            self._add(WARNS, told, ", ".join(guests), hint="they have the bridge's from their next reboot on")
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

    def _up(self) -> str:
        return f"interface-reconfigure --pif-uuid {self.pif.uuid} up"
