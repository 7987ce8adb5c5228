"""The devices of chains, with all their values: NIC or bond and its bridge, VLANs and theirs (networking.md 3.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.net import addressing, bonds, keys, names
from hostagent.net.chains import Chains, bond_of, members, text
from hostagent.net.devices import Device
from hostagent.net.finding import DEGRADE, STOP, STOP_UNLESS_BOOT, Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hostagent.net.devices import Link
    from hostagent.net.records import Network, Pif, Records

BRIDGE: Mapping[str, int] = {"forward_delay": 0, "stp_state": 0, "mcast_snooping": 0}
"""No 30 s of silence after a port joins, and no snooping: without a querier it kills IPv6 after minutes (3.3)."""
MTU = 1500
CARRYING = "off"
"""The IPv6 mode of a bridge that is there only for VLANs: none. One whose PIF is up has a link-local address at least,
so that the two can be told apart by the kernel (`attached`)."""


def mtu_of(pif: Pif | None, network: Network) -> int:
    """The MTU wanted for a PIF on a network: the PIF's `mtu` key, else the network's key of that name, else its field
    (networking.md 1.6, 3.2)."""
    own = keys.of_pif(pif.other_config).mtu if pif and pif.other_config else 0
    own = own or (keys.of_network(network.other_config).mtu if network.other_config else 0)
    return own or (network.mtu if keys.MTU_LEAST <= network.mtu <= keys.MTU_MOST else MTU)


def mac_of(records: Records, root: Pif) -> str:
    """The MAC of a root, its bridge, and the VLANs on it: of a bond, its primary member's where it follows that."""
    bond = bond_of(records, root)
    primary = records.pifs.get(bond.primary_slave) if bond and bond.auto_update_mac else None
    return (primary.mac if primary and primary.mac else root.mac).lower()


class Stack:
    """The devices of the chains so far; `layer` has what lies on them."""

    def __init__(
        self, records: Records, found: Chains, links: Mapping[str, Link] | None, layer: addressing.Layer
    ) -> None:
        self.records = records
        self.chains = found
        self.links = links
        self.layer = layer
        self.devices: dict[str, Device] = {}
        self.findings: list[Finding] = []

    def root(self, ref: str, uppers: list[str]) -> None:
        """A NIC or bond with its bridge, and the VLANs on it."""
        pif = self.records.pifs[ref]
        network = self.records.networks[pif.network]
        attached = ref in self.chains.attached
        serves = (ref, *uppers) if attached else tuple(uppers)
        if not serves:  # it only stays, for VLANs that are up
            serves = tuple(each for each in self.chains.above.get(ref, ()) if each in self.chains.attached)
        mac = mac_of(self.records, pif)
        if network.managed:
            slaves = members(self.records, pif)
            bridge = network.bridge
            trouble = self._trouble((pif, *slaves), bridge)
            if trouble:
                self.findings.append(trouble._replace(refs=serves))
                return
            read = keys.of_network(network.other_config)
            ipv6 = self.layer.lay(pif, read.routes, bridge or pif.device) if attached else CARRYING
            mtu = self._mtu(pif, mtu_of(pif, network), [part.device for part in slaves or [pif]], serves)
            if bridge:
                self._bridge(pif, network, read, mac, mtu, ipv6, (ref,) if attached else serves)
                ipv6 = "off"
            if slaves:
                self._bond(pif, slaves, bridge, mac, mtu, ipv6, serves)
            else:
                self._nic(pif, pif, bridge, mac, mtu, ipv6, serves)
            if attached:
                self._heed_routers(pif, bridge or pif.device)
        for upper in uppers:
            self._vlan(self.records.pifs[upper], pif.device, mac)

    def _heed_routers(self, pif: Pif, device: str) -> None:
        if self.layer.heeds_routers(pif):
            self.devices[device] = self.devices[device]._replace(ipv6_gateway=True)

    def _trouble(self, parts: tuple[Pif, ...], bridge: str) -> Finding | None:
        """Why a root cannot be made."""
        root, slaves = parts[0], parts[1:]
        for name in (bridge, *(part.device for part in parts)):
            if name and (trouble := self._name(root, name)):
                return trouble
        absent = [part for part in slaves or parts if not self._is_there(part)]
        if absent and len(absent) == len(slaves or parts):
            words = f"{text(root)}: " + ", ".join(f"{part.device} ({part.mac})" for part in absent)
            return Finding(30, STOP, (root.ref,), f"{words} is not in this host", self._gone_hint(root))
        for part in absent:
            found = f"{part.device} ({part.mac}), a member of {root.device}, is not in this host"
            self.findings.append(
                Finding(30, DEGRADE, (root.ref, part.ref), found, "the bond runs without it")
            )
        if bond := bond_of(self.records, root):
            read = bonds.settings_of(bond, keys.of_pif(root.other_config).bond)
            for finding in read.findings:
                if finding.severity == STOP:
                    return finding
        return None

    def _gone_hint(self, root: Pif) -> str:
        refs = (root.ref, *self.chains.above.get(root.ref, ()))
        if any(self.records.pifs[ref].management for ref in refs):
            return "hostagent net emergency-reset --nic NIC"
        return f"hostagent xe pif-scan host-uuid={self.records.host_uuid or '…'}"

    def _is_there(self, nic: Pif) -> bool:
        return self.links is None or nic.device in self.links

    def _mtu(self, pif: Pif, mtu: int, carriers: Iterable[str], refs: tuple[str, ...]) -> int:
        """The MTU as far as what carries it goes."""
        for name in carriers:
            if (lower := self.devices.get(name)) and lower.mtu < mtu:
                found = f"{text(pif)} is to have MTU {mtu}, and {name}, on which it lies, has {lower.mtu}"
                hint = f"lower its network's MTU to {lower.mtu}, or raise that of the network of {name}"
                self.findings.append(Finding(17, STOP_UNLESS_BOOT, refs, found, hint))
                mtu = lower.mtu
            elif not lower and self.links and (link := self.links.get(name)) and 0 < link.max_mtu < mtu:
                found = f"{text(pif)} is to have MTU {mtu}, and {name} takes at most {link.max_mtu}"
                hint = f"lower the network's MTU to {link.max_mtu}"
                self.findings.append(Finding(16, STOP_UNLESS_BOOT, refs, found, hint))
                mtu = link.max_mtu
        return mtu

    def _name(self, pif: Pif, name: str) -> Finding | None:
        if not names.is_name(name):
            found = f"{text(pif)} needs a device called {name!r}, which no device can be"
            return Finding(
                24,
                STOP,
                (pif.ref,),
                found,
                f"names have 1 to {names.LENGTH} bytes, no blanks, no '/', no ':'",
            )
        if name in self.devices:
            found = f"{text(pif)} needs {name}, which is another PIF's as well"
            return Finding(
                63, STOP, (pif.ref, *self.devices[name].serves), found, "one network has one PIF on a host"
            )
        return None

    def _bridge(
        self,
        pif: Pif,
        network: Network,
        read: keys.NetworkKeys,
        mac: str,
        mtu: int,
        ipv6: str,
        serves: tuple[str, ...],
    ) -> None:
        if read is not keys.NO_NETWORK_KEYS:
            self._tell(read.problems, (pif.ref, network.ref), f"network {network.uuid}")
            if read.link:
                self._no_link(pif, network.bridge, read.link)
        self.devices[network.bridge] = Device(
            network.bridge,
            "bridge",
            mac=mac,
            mtu=mtu,
            settings=BRIDGE,
            features=read.features,
            ipv6=ipv6,
            serves=serves,
        )

    def _bond(
        self, pif: Pif, slaves: list[Pif], bridge: str, mac: str, mtu: int, ipv6: str, serves: tuple[str, ...]
    ) -> None:
        read = keys.of_pif(pif.other_config)
        self._tell(read.problems, (pif.ref,), text(pif))
        if read.link:
            self._no_link(pif, pif.device, read.link)
        bond = bond_of(self.records, pif)
        how = bonds.settings_of(bond, read.bond) if bond else bonds.BondSettings({}, ())
        self.findings += how.findings
        primary = how.primary if how.primary in [slave.device for slave in slaves] else ""
        if how.primary != primary:
            found = f"{text(pif)}: bond-primary={how.primary!r} is no member of {pif.device}"
            self.findings.append(Finding(9, DEGRADE, (pif.ref,), found, "name the device of a member"))
        self.devices[pif.device] = Device(
            pif.device,
            "bond",
            mac=mac,
            mtu=mtu,
            master=bridge,
            settings=how.settings,
            primary=primary,
            features={"gro": _gro(pif), **read.features},
            ipv6=ipv6,
            serves=serves,
        )
        for slave in slaves:
            if self._is_there(slave):
                # no MAC: the bond gives its members theirs
                self._nic(slave, pif, pif.device, "", mtu, "off", serves)

    def _nic(
        self, nic: Pif, root: Pif, master: str, mac: str, mtu: int, ipv6: str, serves: tuple[str, ...]
    ) -> None:
        read = keys.of_pif(nic.other_config)
        self._tell(read.problems, (root.ref, nic.ref), text(nic))
        self.devices[nic.device] = Device(
            nic.device,
            "physical",
            mac=mac,
            mtu=mtu,
            master=master,
            link=read.link,
            features={"gro": _gro(root), "lro": False, **read.features},
            ipv6=ipv6,
            serves=serves,
        )

    def _vlan(self, pif: Pif, lower: str, mac: str) -> None:
        network = self.records.networks[pif.network]
        if not network.managed:
            return
        tag = self.records.vlans[pif.vlan_master_of].tag
        name, altname = names.vlan_device(lower, tag)
        bridge = network.bridge
        for each in (bridge, name):
            if each and (trouble := self._name(pif, each)):
                self.findings.append(trouble)
                return
        mtu = self._mtu(pif, mtu_of(pif, network), (lower,), (pif.ref,))
        on_network = keys.of_network(network.other_config)
        ipv6 = self.layer.lay(pif, on_network.routes, bridge or name)
        serves = (pif.ref,)
        if bridge:
            self._bridge(pif, network, on_network, mac, mtu, ipv6, serves)
            ipv6 = "off"
        read = keys.of_pif(pif.other_config)
        if read is not keys.NO_PIF_KEYS:
            self._tell(read.problems, serves, text(pif))
            if read.link:
                self._no_link(pif, name, read.link)
        self.devices[name] = Device(
            name,
            "vlan",
            mac=mac,
            mtu=mtu,
            master=bridge,
            lower=lower,
            vlan_id=tag,
            altname=altname,
            features=read.features,
            ipv6=ipv6,
            serves=serves,
        )
        self._heed_routers(pif, bridge or name)

    def _tell(self, problems: tuple[keys.KeyProblem, ...], refs: tuple[str, ...], whose: str) -> None:
        for problem in problems:
            row = 44 if problem.key == "static-routes" else 0
            self.findings.append(Finding(row, DEGRADE, refs, f"{whose}: {problem.found}", problem.hint))

    def _no_link(self, pif: Pif, device: str, link: Mapping[str, int | str]) -> None:
        which = ", ".join(f"ethtool-{name}" for name in link)
        found = f"{which} has no effect on {device}, which has no cable"
        self.findings.append(Finding(0, DEGRADE, (pif.ref,), found, "set it on the PIF of the NIC"))


def _gro(pif: Pif) -> bool:
    """Whether a NIC merges what it receives. It does so before bridges and VLANs, whose own switch changes nothing."""
    return pif.properties.get("gro", "on") != "off"
