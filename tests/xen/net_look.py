"""What dom0's network is, told by readers that know nothing of hostagent: ip, bridge, /proc/net/bonding, ethtool."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from nested_xen import qmp

if TYPE_CHECKING:
    from collections.abc import Callable

    from nested_xen.host import Host

T = TypeVar("T")
GROUP, PROTOCOL = "171", "171"
"""How iproute2 shows the marks of what hostagent made."""
SOON_S = 90
READ = """
for c in "ip -j -d link" "ip -j address" "ip -j -4 route" "ip -j -6 route" "bridge -j link"; do
    $c | jq -cs 'add // []'
done
"""
KERNEL_ROUTES = ("kernel", "ra")


@dataclass(frozen=True)
class Look:
    """One look. Each entry is a row of iproute2's JSON."""

    links: dict[str, Any]
    """By name."""
    addressed: dict[str, Any]
    routes4: list[Any]
    routes6: list[Any]
    ports: dict[str, str]
    """Port → bridge, as `bridge link` has it."""

    def kind(self, name: str) -> str:
        return str(self.links[name].get("linkinfo", {}).get("info_kind", ""))

    def settings(self, name: str) -> dict[str, Any]:
        """Of a bridge, bond or VLAN: its own attributes."""
        return dict(self.links[name]["linkinfo"]["info_data"])

    def master(self, name: str) -> str:
        return str(self.links[name].get("master", ""))

    def is_up(self, name: str) -> bool:
        return "UP" in self.links[name]["flags"]

    def uplinks(self, bridge: str) -> set[str]:
        """Ports of a bridge by both readers, which must agree; guests' ports are none."""
        mine = {name for name in self.links if self.master(name) == bridge}
        assert mine == {name for name, of in self.ports.items() if of == bridge}
        return {name for name in mine if not name.startswith(("vif", "tap"))}

    def addresses(self, name: str, family: str = "inet") -> set[str]:
        """`address/prefix` of a device, without those of the link's own scope."""
        return {
            f"{each['local']}/{each['prefixlen']}"
            for each in self.addressed[name]["addr_info"]
            if each["family"] == family and each["scope"] != "link"
        }

    def address(self, name: str, text: str) -> dict[str, Any]:
        """The row of one address of a device, without prefix length."""
        (row,) = [each for each in self.addressed[name]["addr_info"] if each["local"] == text]
        return dict(row)

    def gateways(self, name: str = "", family: int = 4) -> list[str]:
        """Gateways of the default routes over a device, or over any."""
        rows = self.routes4 if family == 4 else self.routes6
        return [row["gateway"] for row in rows if row["dst"] == "default" and name in ("", row["dev"])]

    def routes(self, name: str, family: int = 4) -> set[tuple[str, str]]:
        """Destination and gateway of the routes over a device that hostagent made."""
        rows = self.routes4 if family == 4 else self.routes6
        return {
            (row["dst"], row.get("gateway", ""))
            for row in rows
            if row["dev"] == name and str(row.get("protocol")) == PROTOCOL
        }

    def made(self) -> set[str]:
        """Devices of hostagent's group."""
        return {name for name, link in self.links.items() if str(link.get("group")) == GROUP}


def look(host: Any) -> Look:
    return _parsed(host.exec(READ).stdout)


def look_from_console(host: Host) -> Look:
    """The same without network."""
    return _parsed(console(host, READ))


def _parsed(text: str) -> Look:
    links, addressed, routes4, routes6, ports = (json.loads(line) for line in text.splitlines())
    return Look(
        {link["ifname"]: link for link in links},
        {row["ifname"]: row for row in addressed},
        routes4,
        routes6,
        {port["ifname"]: port["master"] for port in ports if "master" in port},
    )


def console(host: Host, script: str, *, check: bool = True, deadline_s: float = 240) -> str:
    """Run a shell script at the host's console, which needs no network; its output, both streams."""
    with qmp.agent(host.sockets) as agent:
        code, output = agent.execute(["/bin/bash", "-c", script], deadline_s=deadline_s)
    assert code == 0 or not check, f"at the console of {host.name}: {code}: {output[-3000:]}"
    return output


def bonding(host: Any, bond: str) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """What /proc/net/bonding says of a bond, and of each member by its name."""
    own: dict[str, str] = {}
    members: dict[str, dict[str, str]] = {}
    section = own
    for line in host.exec(f"cat /proc/net/bonding/{bond}").stdout.splitlines():
        name, found, value = (part.strip() for part in line.partition(":"))
        if name == "Slave Interface":
            section = members[value] = {}
        elif found:
            section.setdefault(name, value)
    return own, members


def await_that(holds: Callable[[], T], what: str, *, deadline_s: float = SOON_S) -> T:
    """Wait until something is so, and return what was found; how long it takes does not matter."""
    end = time.monotonic() + deadline_s
    while not (found := holds()):
        assert time.monotonic() < end, f"after {deadline_s:g} s still not so: {what}"
        time.sleep(0.3)
    return found


def assert_bridge(seen: Look, bridge: str, uplinks: set[str], *, mac: str, mtu: int = 1500) -> None:
    """A bridge is whole (networking.md 3.3, steps 1 to 7), and its ports are exactly these uplinks."""
    assert seen.kind(bridge) == "bridge"
    assert seen.is_up(bridge)
    assert seen.uplinks(bridge) == uplinks
    assert seen.links[bridge]["address"] == mac
    assert seen.links[bridge]["mtu"] == mtu
    settings = seen.settings(bridge)
    assert (settings["stp_state"], settings["forward_delay"], settings["mcast_snooping"]) == (0, 0, 0)
    assert bridge in seen.made()
    for name in uplinks:
        assert seen.is_up(name)
        assert seen.addresses(name) == set()


def assert_vlan(seen: Look, lower: str, tag: int, bridge: str) -> str:
    """The VLAN device with that tag on a NIC or bond is a port of the bridge; its name."""
    found = [
        name
        for name, link in seen.links.items()
        if seen.kind(name) == "vlan" and link["link"] == lower and seen.settings(name)["id"] == tag
    ]
    assert len(found) == 1, f"tag {tag} on {lower}: {found}"
    (name,) = found
    assert seen.settings(name)["protocol"] == "802.1Q"
    assert seen.links[name]["address"] == seen.links[lower]["address"]
    assert seen.master(name) == bridge
    assert name in seen.made()
    return name
