"""What is wanted of the kernel for the records: devices, addresses, routes, leases, resolver. No look at the host.

Rules: networking.md 1.3 to 1.6 and 3.2 to 3.7, for the Linux bridge. A NIC or bond is a port of its bridge; a VLAN
device lies on the NIC or bond, beside that bridge, and is the port of its own. Addresses are on bridges only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from hostagent.errors import BugError
from hostagent.net import addressing, bonds, inet, keys, names
from hostagent.net.chains import Chains, bond_of, chains, lower_of, members, text
from hostagent.net.devices import Device, Wanted, WantedAddress
from hostagent.net.finding import DEGRADE, STOP, Finding
from hostagent.net.owners import Owner, dns_owner, gateway_owner

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from hostagent.net.records import Network, Pif, Records

BRIDGE: Mapping[str, int] = {"forward_delay": 0, "stp_state": 0, "mcast_snooping": 0}
"""No 30 s of silence after a port joins, and no snooping: without a querier it kills IPv6 after minutes (3.3)."""
MTU = 1500


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
    missing: Collection[str] = (),
) -> Wanted:
    """What is wanted when the PIFs `up` are brought up and `down` are taken down, all by reference.

    What they lie on comes along with its own values; it has its addresses when it is attached itself. So do the PIFs
    that lose or gain the default route or the resolver by it. `currently_attached` must be true of now: of a host
    that has just booted, it is false everywhere. `missing`: names of NICs that are not there; bonds do without them.

    Raises the first STOP of `survey` as `FindingError`, with its XenAPI code.
    """
    found = survey(records, up, down=down, becoming_management=becoming_management, missing=missing)
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
    missing: Collection[str] = (),
) -> Survey:
    """As `want`, but what cannot be is left out and told: at start-up each network is its own unit of failure."""
    up, down = tuple(up), tuple(down)
    found = chains(records, up, down)
    now = [ref for ref, pif in records.pifs.items() if pif.currently_attached]
    then = found.attached
    gateway4 = gateway_owner(records, then, 4, becoming_management=becoming_management)
    gateway6 = gateway_owner(records, then, 6, becoming_management=becoming_management)
    dns = dns_owner(records, then, becoming_management=becoming_management)
    asked = {*up, *found.made}
    changed = []
    for before, after in (
        (gateway_owner(records, now, 4), gateway4),
        (gateway_owner(records, now, 6), gateway6),
        (dns_owner(records, now), dns),
    ):
        if before.ref != after.ref:
            changed += [ref for ref in (before.ref, after.ref) if ref in then and ref not in up]
    if changed:
        found = chains(records, (*up, *changed), down)
    build = _Build(records, found, missing, addressing.Layer(gateway4.ref, gateway6.ref, dns.ref))
    for root, uppers in found.made.items():
        build.root(root, uppers)
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
    )
    return Survey(wanted, tuple(findings), found, gateway4, gateway6, dns)


def want_network(records: Records, ref: str, *, present: bool = True) -> Wanted:
    """The bridge of a network without PIFs: the host's own, `xenapi`, has dom0's address on it (networking.md 3.6).

    With `present=False`, that it goes. A network with `managed` false wants nothing: others make its bridge.
    Raises FindingError when the network has a PIF of this host, or no name that a bridge can have.
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
        mtu=mtu_of(None, network),
        settings=BRIDGE,
        features=read.features,
        serves=(ref,),
    )
    if not read.host_internal:
        return Wanted((device,))
    return Wanted((device,), (WantedAddress(network.bridge, read.first, inet.prefix_of(read.netmask)),))


def mtu_of(pif: Pif | None, network: Network) -> int:
    """The MTU wanted for a PIF on a network: the PIF's `mtu` key, else the network's (networking.md 3.2)."""
    own = keys.of_pif(pif.other_config).mtu if pif and pif.other_config else 0
    return own or (network.mtu if keys.MTU_LEAST <= network.mtu <= keys.MTU_MOST else MTU)


def mac_of(records: Records, root: Pif) -> str:
    """The MAC of a root, its bridge, and the VLANs on it: of a bond, its primary member's where it follows that."""
    bond = bond_of(records, root)
    primary = records.pifs.get(bond.primary_slave) if bond and bond.auto_update_mac else None
    return (primary.mac if primary and primary.mac else root.mac).lower()


class _Build:
    """The devices of the chains so far; `layer` has what lies on them."""

    def __init__(
        self, records: Records, found: Chains, missing: Collection[str], layer: addressing.Layer
    ) -> None:
        self.records = records
        self.chains = found
        self.missing = missing
        self.layer = layer
        self.devices: dict[str, Device] = {}
        self.findings: list[Finding] = []

    def root(self, ref: str, uppers: list[str]) -> None:
        """A NIC or bond with its bridge, and the VLANs on it."""
        pif = self.records.pifs[ref]
        network = self.records.networks[pif.network]
        attached = ref in self.chains.attached
        serves = (ref, *uppers) if attached else tuple(uppers)
        mac = mac_of(self.records, pif)
        if network.managed:
            slaves = members(self.records, pif)
            bridge = network.bridge
            trouble = self._trouble((pif, *slaves), bridge)
            if trouble:
                self.findings.append(trouble._replace(refs=serves or (ref,)))
                return
            read = keys.of_network(network.other_config)
            ipv6 = self.layer.lay(pif, read.routes, bridge or pif.device) if attached else "off"
            mtu = mtu_of(pif, network)
            if bridge:
                self._bridge(pif, network, read, mac, mtu, ipv6, (ref,) if attached else serves)
                ipv6 = "off"
            if slaves:
                self._bond(pif, slaves, bridge, mac, mtu, ipv6, serves)
            else:
                self._nic(pif, pif, bridge, mac, mtu, ipv6, serves)
        for upper in uppers:
            self._vlan(self.records.pifs[upper], pif.device, mac)

    def _trouble(self, parts: tuple[Pif, ...], bridge: str) -> Finding | None:
        """Why a root cannot be made."""
        root, slaves = parts[0], parts[1:]
        for name in (bridge, *(part.device for part in parts)):
            if name and (trouble := self._name(root, name)):
                return trouble
        absent = [part for part in slaves or parts if part.device in self.missing]
        if absent and len(absent) == len(slaves or parts):
            words = f"{text(root)}: " + ", ".join(f"{part.device} ({part.mac})" for part in absent)
            return Finding(
                30, STOP, (root.ref,), f"{words} is not in this host", "compare: hostagent pif list"
            )
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
        self.devices[pif.device] = Device(
            pif.device,
            "bond",
            mac=mac,
            mtu=mtu,
            master=bridge,
            settings=how.settings,
            features={"gro": _gro(pif), **read.features},
            ipv6=ipv6,
            serves=serves,
        )
        for slave in slaves:
            if slave.device not in self.missing:
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
        mtu = mtu_of(pif, network)
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
    carrying = {lower_of(records, records.pifs[ref]) for ref in found.attached} if roots else set()
    masters = []
    for ref in roots:
        if ref not in found.made and ref not in found.attached and ref not in carrying:
            pif = records.pifs[ref]
            upper[_bridge_name(records, pif)] = None
            if pif.bond_master_of:
                masters.append(pif.device)
    return [name for name in (*upper, *masters) if name]


def _bridge_name(records: Records, pif: Pif) -> str:
    network = records.networks.get(pif.network)
    return network.bridge if network and network.managed else ""
