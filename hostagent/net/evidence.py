"""What is known of the network beyond records and kernel, for `explain`: files, the wire, drivers, other daemons.

Each part is looked at for itself: what cannot be looked at is left out, and never keeps an operator from the rest.
Listening takes seconds, so it is done only where nothing shows that a PIF works: no lease, no gateway that answers.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from hostagent.errors import HostagentError
from hostagent.named import NamedTuple
from hostagent.net import history, journal, nics
from hostagent.net.chains import lower_of, members
from hostagent.net.devices import GROUP, SCOPE_LINK, UP
from hostagent.net.reason import Evidence

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from hostagent.net.devices import Kernel
    from hostagent.net.foreign_files import Owner
    from hostagent.net.probe import Answer, Probe
    from hostagent.net.records import Pif, Records
    from hostagent.net.sniff import Sniffed

ANSWER_S = 1.0
"""For a gateway on the same network to answer."""
CONFLICT_S = 0.9
LISTEN_S = 4.0
"""A switch that speaks LACP fast, and tags of a busy network, are heard in this; LACP slow and LLDP come every 30 s."""


class Asking(NamedTuple):
    """What is asked, and of whom; `of_host` makes that of this host. All raise HostagentError."""

    gateway: Callable[[Probe, float], Answer]
    holder: Callable[[str, str, float], str]
    sniff: Callable[[Sequence[str], float], Mapping[str, Sniffed]]
    speed: Callable[[str], int]
    """Of a NIC's link, in Mb/s; 0 where it is not known."""
    owners: Callable[[str], Sequence[Owner]]
    tries: Callable[[str], str]
    """What the DHCP client of a bridge has sent and heard, in words."""
    path: Callable[[str, int, str], int]
    """The largest packet that gets to an address from a source of ours, at most so many bytes, without being cut up;
    0 where that cannot be told."""
    setting: Callable[[str], str]
    """A setting below /proc/sys, empty where there is none."""


def gather(folder: Path, boot: str) -> Evidence:
    """What files tell: the change that waits, and the last one."""
    found = Evidence(missing=nics.missing_since(folder / nics.FILE))
    with contextlib.suppress(HostagentError):
        left = journal.pending(folder)
        if left is not None and left.boot_id == boot:
            found = found._replace(pending=f"{left.what} ({left.state})")
    with contextlib.suppress(HostagentError):
        for entry in history.read(folder, most=1):
            told = f": {entry.told[-1]}" if entry.told else ""
            found = found._replace(last=f"{entry.what}, {entry.outcome}{told}")
    return found


def ask_around(
    found: Evidence,
    records: Records,
    kernel: Kernel,
    pif: Pif,
    asking: Asking,
    *,
    listen: bool | None = None,
) -> Evidence:
    """The same, with what only asking tells. `listen`: on the wire, for `LISTEN_S`; None: where nothing shows that the
    PIF works."""
    network = records.networks.get(pif.network)
    links = kernel.by_name()
    root = records.pifs.get(lower_of(records, pif) or pif.ref, pif)
    nics = [nic.device for nic in members(records, root) or [root] if nic.device in links]
    found = found._replace(speeds=_speeds(asking, nics), settings=_settings(asking))
    for name in nics:
        if _is_shared(kernel, name):
            found = _foreign(found, asking, name)
    bridge = network.bridge if network and network.bridge in links else ""
    if bridge:
        if "DHCP" in (pif.ip_mode, pif.ipv6_mode):
            with contextlib.suppress(HostagentError):
                found = found._replace(dhcp={bridge: asking.tries(bridge)})
        found = _of_bridge(found, kernel, pif, bridge, asking)
    carried = [name for name in nics if links[name].flags & UP and links[name].carrier]
    if listen if listen is not None else _does_not_work(found, kernel, pif, bridge, nics):
        with contextlib.suppress(HostagentError):
            found = _heard(found, asking.sniff(carried, LISTEN_S)) if carried else found
    return found


def _does_not_work(found: Evidence, kernel: Kernel, pif: Pif, bridge: str, nics: Sequence[str]) -> bool:
    """Whether nothing shows that it works: no carrier, no bridge, no lease, no gateway that answers."""
    links = kernel.by_name()
    if not bridge or any(not links[name].carrier for name in nics):
        return True
    if pif.ip_mode == "DHCP" and (not _addresses(kernel, bridge) or not found.gateways):
        return not _addresses(kernel, bridge)
    return True not in found.gateways.values()


def _addresses(kernel: Kernel, bridge: str) -> list[str]:
    index = next((index for index, link in kernel.links.items() if link.name == bridge), 0)
    return [one.text for one in kernel.addresses if one.device == index and one.scope < SCOPE_LINK]


def _of_bridge(found: Evidence, kernel: Kernel, pif: Pif, bridge: str, asking: Asking) -> Evidence:
    """Gateways that answer, how much the way to them carries, and fixed addresses that others have."""
    index = next(index for index, link in kernel.links.items() if link.name == bridge)
    mine = _addresses(kernel, bridge)
    fixed = {pif.ip} if pif.ip_mode == "Static" else set()
    fixed |= {one.partition("/")[0] for one in pif.ipv6} if pif.ipv6_mode == "Static" else set()
    conflicts, gateways, paths = {}, {}, {}
    for address in sorted(fixed - {""}):
        with contextlib.suppress(HostagentError):
            if mac := asking.holder(bridge, address, CONFLICT_S):
                conflicts[address] = mac
    asked = [
        route.gateway
        for route in kernel.routes
        if route.device == index and route.gateway and route.destination.startswith("default")
    ]
    if pif.ip_mode == "Static" and pif.gateway and mine:  # also where another PIF has the default route
        asked.append(pif.gateway)
    for gateway in dict.fromkeys(asked):
        source = next((text for text in mine if (":" in text) == (":" in gateway)), "")
        with contextlib.suppress(HostagentError):
            from hostagent.net.probe import Probe

            question = Probe("gateway", gateway, bridge, source=source)
            gateways[gateway] = asking.gateway(question, ANSWER_S).answered
            mtu = kernel.links[index].mtu
            if gateways[gateway] and source and ":" not in gateway:
                carried = asking.path(gateway, mtu, source)
                if 0 < carried < mtu:
                    paths[gateway] = carried
    return found._replace(conflicts=conflicts, gateways=gateways, paths=paths)


def _speeds(asking: Asking, nics: Sequence[str]) -> dict[str, int]:
    speeds = {}
    for name in nics if len(nics) > 1 else ():
        with contextlib.suppress(HostagentError):
            if speed := asking.speed(name):
                speeds[name] = speed
    return speeds


def _is_shared(kernel: Kernel, name: str) -> bool:
    """Whether somebody else can have a NIC: it is in no device of ours, or has addresses, which we give to no NIC."""
    link = kernel.by_name()[name]
    master = kernel.links.get(link.master)
    return master is None or master.group != GROUP or bool(_addresses(kernel, name))


def _foreign(found: Evidence, asking: Asking, name: str) -> Evidence:
    with contextlib.suppress(HostagentError):
        for owner in list(asking.owners(name))[:1]:
            files = f" ({', '.join(owner.files)})" if owner.files else ""
            found = found._replace(
                foreign={**found.foreign, name: f"{owner.daemon}{files}"},
                keep_off={**found.keep_off, name: owner.disable},
            )
    return found


FILTERS = tuple(f"net/bridge/bridge-nf-call-{table}" for table in ("iptables", "ip6tables", "arptables"))


def _settings(asking: Asking) -> dict[str, str]:
    found = {}
    for path in FILTERS:
        with contextlib.suppress(HostagentError):
            if value := asking.setting(path):
                found[path] = value
    return found


def _heard(found: Evidence, heard: Mapping[str, Sniffed]) -> Evidence:
    """What came in on each NIC, in the words of `explain`."""
    lacpdus = {name: one.lacp[-1].actor.system for name, one in heard.items() if one.lacp}
    tags = {name: tuple(tag for tag in one.vlans if tag) for name, one in heard.items()}
    lldp = {}
    for name, one in heard.items():
        for neighbour in one.neighbours[-1:]:
            switch = neighbour.system_name or neighbour.chassis
            untagged = f", untagged VLAN {neighbour.untagged_vlan}" if neighbour.untagged_vlan else ""
            lldp[name] = f"{switch} port {neighbour.port_description or neighbour.port}{untagged}"
    return found._replace(
        lacpdus=lacpdus, tags={name: seen for name, seen in tags.items() if seen}, lldp=lldp
    )


def of_host(root: Path) -> Asking:
    """What is asked of this host, below `root`; each part is imported when it is asked."""

    def gateway(question: Probe, seconds: float) -> Answer:
        from hostagent.net import probe

        return probe.ask(question, timeout_s=seconds)

    def holder(device: str, address: str, seconds: float) -> str:
        from hostagent.net import probe

        return probe.holder(device, address, timeout_s=seconds)

    def listen(devices: Sequence[str], seconds: float) -> Mapping[str, Sniffed]:
        from hostagent.net import sniff

        return sniff.sniff(devices, seconds)

    def speed(device: str) -> int:
        from hostagent.net.ethtool import Ethtool

        with Ethtool() as ethtool:
            modes = ethtool.link_modes(device)
        return max(0, modes.speed) if modes is not None else 0

    def owners(device: str) -> Sequence[Owner]:
        from hostagent.net import foreign

        return foreign.owners(foreign.nic(device, root), root)

    def tries(bridge: str) -> str:
        from hostagent.net import dhcp

        tried = dhcp.tries(dhcp.log_of(bridge))
        return (
            f"{tried.discovers} discovers, {tried.offers} offers, {tried.requests} requests,"
            f" {tried.refusals} refusals; last: {tried.last}"
        )

    def path(target: str, most: int, source: str) -> int:
        from hostagent.net import path_mtu

        return path_mtu.carries(target, most, source)

    def setting(name: str) -> str:
        from hostagent.net import sysctl

        return sysctl.read(root, name) or ""

    return Asking(gateway, holder, listen, speed, owners, tries, path, setting)
