"""Why a PIF is not up, not the gateway, without an address, or at another MTU: reasons with evidence and what to type.

Pure, over the records, a look at the kernel, and what else is known (`Evidence`): nothing is asked here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.net.attached import device_of
from hostagent.net.chains import text as name_of
from hostagent.net.checks import check
from hostagent.net.devices import SCOPE_LINK
from hostagent.net.explain_links import Links
from hostagent.net.finding import STOP
from hostagent.net.model import survey
from hostagent.net.reason import STOPS, TELLS, WARNS, Answer, Evidence, Reason, parted, text
from hostagent.net.verify import differences

if TYPE_CHECKING:
    from hostagent.net.devices import Kernel, Link
    from hostagent.net.model import Survey
    from hostagent.net.records import Records

__all__ = ["STOPS", "TELLS", "WARNS", "Answer", "Evidence", "Reason", "explain", "text"]

DAD_FAILED = 0x08
"""IFA_F_DADFAILED: another host has the IPv6 address."""
DIFFERENCES = 6


def explain(records: Records, kernel: Kernel, ref: str, evidence: Evidence | None = None) -> Answer:
    """Everything that stands between a PIF and what it is to be, the gravest first."""
    return _Explaining(records, kernel, records.pifs[ref], evidence or Evidence()).answer()


class _Explaining(Links):
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
            found = survey(self.records, [pif.ref], links=self.links)
            self._wrong(found)
            self._owner(found)
            self._gateways(found)
        self._address()
        self._changes()
        order = (STOPS, WARNS, TELLS)
        reasons = tuple(sorted(dict.fromkeys(self.reasons), key=lambda reason: order.index(reason.weight)))
        return Answer(pif.uuid, name_of(pif), self._verdict(reasons), tuple(self._facts()), reasons)

    def _verdict(self, reasons: tuple[Reason, ...]) -> str:
        if self.pif.bond_slave_of:
            return "a member of a bond: it has no state of its own"
        if any(reason.weight == STOPS for reason in reasons):
            if not self.pif.currently_attached:
                return "not up"
            answering = ", ".join(gateway for gateway, answers in self.evidence.gateways.items() if answers)
            return f"works in part: {answering} answers" if answering else "does not work"
        if not self.pif.currently_attached:
            return "not up, and nothing stands in the way"
        return (
            "up, with less than is wanted" if any(r.weight == WARNS for r in reasons) else "up and as wanted"
        )

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
            command, hint = parted(finding.hint)
            self._add(weight, finding.found, command=command, hint=hint)

    def _not_up(self) -> None:
        if self.pif.currently_attached:
            return
        stopped = any(reason.weight == STOPS for reason in self.reasons)
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
        command = "" if stopped else f"hostagent pif plug {self.pif.uuid}"
        self._add(weight, told, *missing, command=command)

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
                    static = f"uuid={self.pif.uuid} mode=static"
                    hint = (
                        f"hostagent xe pif-reconfigure-ip {static} IP={self.pif.ip} netmask={self.pif.netmask}"
                        if family == 4
                        else f"hostagent xe pif-reconfigure-ipv6 {static} IPv6={','.join(self.pif.ipv6)}"
                    )
                    self._add(WARNS, told, hint=f"give it one: {hint} gateway=…")
            elif owner.ref:
                other = name_of(self.records.pifs[owner.ref])
                told = f"not the IPv{family} gateway: {other} is, because {owner.reason}"
                self._add(
                    TELLS,
                    told,
                    command=f"hostagent xe pif-param-set uuid={self.pif.uuid} other-config:defaultroute=true",
                )
            else:
                self._add(TELLS, f"nobody is the IPv{family} gateway: {owner.reason}")
        if found.dns.ref == self.pif.ref:
            self._add(TELLS, f"it owns the name servers: {found.dns.reason}")

    def _gateways(self, found: Survey) -> None:
        """Those that do not answer, also one that is the kernel's and not the record's; it stops the one that owns the
        default route, where no other answers."""
        for family, owner in ((4, found.gateway4), (6, found.gateway6)):
            asked = {gateway: answers for gateway, answers in self.evidence.gateways.items()
                     if (":" in gateway) == (family == 6)}  # fmt: skip
            weight = WARNS if owner.ref != self.pif.ref or any(asked.values()) else STOPS
            for gateway, answers in asked.items():
                if not answers:
                    wire = [line for nic in self.nics for line in self._wire(nic.device)]
                    told = f"the gateway {gateway} does not answer"
                    self._add(weight, told, *wire, command=f"ip neigh show {gateway}")

    def _address(self) -> None:
        bridge = self.links.get(self.bridge or self.pif.device)
        if bridge is None:
            return
        have = self._addresses()
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
            has = self._has(family)
            if mode == "DHCP" and not has and self.pif.currently_attached:
                told = f"no {'DHCP' if family == 4 else 'DHCPv6'} address on {bridge.name}"
                tried = self.evidence.dhcp.get(bridge.name, "")
                wire = [line for nic in self.nics for line in self._wire(nic.device)]
                self._add(STOPS, told, tried, *wire, command=f"journalctl -u hostagent-dhcp-{bridge.name}")
            elif mode == "Autoconf" and not has and self.pif.currently_attached:
                told = f"no router advertised a prefix on {bridge.name}: it has no IPv6 address"
                weight = WARNS if any(one.scope < SCOPE_LINK for one in have) else STOPS
                self._add(weight, told, command=f"rdisc6 {bridge.name}",
                          hint="or give it a fixed address")  # fmt: skip

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
