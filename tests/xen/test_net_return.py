"""Back after a cold boot: what comes by itself (DHCP, advertisements, LACP), routes, link settings, internal networks.

Static addresses, VLANs and active-backup are in test_net_topologies.py; management is in test_net_management.py.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any

import pytest
from nested_xen import services, wire

from tests.xen.agent import power_on
from tests.xen.net_look import assert_bridge, await_that, bonding, look
from tests.xen.net_operator import PREFIX, STATIC, opened
from tests.xen.net_segment import PARTNER, PREFIX6, lacp_partner, ping_from_servers, router6

pytestmark = [pytest.mark.destructive, pytest.mark.timeout(2400)]

STORAGE, BOND_A, BOND_B = 1, 2, 3
SEGMENTS = ("bond-a", "bond-b")
ON_BOND = "203.0.113.11"
ROUTE = ("10.20.0.0/16", STATIC.format(3))
LACP: dict[str, Any] = {"lacp-time": "fast"}
LACP_S = 240


def gro(host, nic):
    """What ethtool says of it: on or off."""
    found = re.search(r"^generic-receive-offload: (\w+)", host.exec(f"ethtool -k {nic}").stdout, re.MULTILINE)
    return found[1] if found else ""


@pytest.mark.full
def test_what_comes_by_itself_and_what_was_set_is_there_again_after_a_cold_boot(take_hosts):
    (host,) = take_hosts(1, "installed")
    with services.dhcp(host.lab, "storage") as server, router6(host.lab, "storage", leases=False):
        with opened(host) as net:
            nic, one, two = (net.nic(number) for number in (STORAGE, BOND_A, BOND_B))
            net.api.PIF.reconfigure_ip(nic.pif, "DHCP", "", "", "", "")
            net.api.PIF.reconfigure_ipv6(nic.pif, "Autoconf", "", "", "")
            net.api.network.add_to_other_config(nic.network, "static-routes", "/".join(ROUTE))
            net.api.PIF.add_to_other_config(nic.pif, "ethtool-gro", "off")
            assert gro(host, nic.name) == "on"
            net.api.PIF.plug(nic.pif)
            await_that(lambda: look(host).addresses(nic.bridge), "an address by DHCP")
            await_that(lambda: look(host).addresses(nic.bridge, "inet6"), "an address by autoconfiguration")
            _, master = net.bond([one.pif, two.pif], "lacp", **LACP)
            net.static(master, ON_BOND)
            device, on_bond = net.record(master)["device"], net.bridge(master)
            kept = net.network("kept", persist="true")
            internal = net.api.network.get_bridge(kept)
            net.api.network.attach(kept, net.me)
            before = look(host)
            assert internal in before.links
            assert gro(host, nic.name) == "off"
        host.exec("sync")
        host.power_off()
        host.boot()
        assert power_on(host).report["ending"] == "complete"

        await_that(lambda: look(host).addresses(nic.bridge), "an address by DHCP", deadline_s=240)
        [lease] = server.leases()
        assert lease.mac == nic.mac
        await_that(lambda: look(host).addresses(nic.bridge, "inet6"), "an address by autoconfiguration")
        await_that(lambda: ROUTE in look(host).routes(nic.bridge), "the static route over it")
        seen = look(host)
        assert_bridge(seen, nic.bridge, {nic.name}, mac=nic.mac)
        assert seen.addresses(nic.bridge) == {f"{lease.address}/{PREFIX}"} == before.addresses(nic.bridge)
        [own6] = seen.addresses(nic.bridge, "inet6")
        assert ipaddress.ip_interface(own6).network == ipaddress.ip_network(f"{PREFIX6}/64")
        assert gro(host, nic.name) == "off"
        ping_from_servers(host.lab, "storage", lease.address)
        ping_from_servers(host.lab, "storage", own6.partition("/")[0])

    ports = [wire.join(host.lab, segment, f"lacp-{segment}") for segment in SEGMENTS]
    try:
        with lacp_partner(ports):
            await_that(
                lambda: "Number of ports: 2" in host.exec(f"cat /proc/net/bonding/{device}").stdout,
                "LACP has both links again",
                deadline_s=LACP_S,
            )
            own, members = bonding(host, device)
    finally:
        for port in ports:
            port.close()
    assert own["Bonding Mode"] == "IEEE 802.3ad Dynamic link aggregation"
    assert (own["Partner Mac Address"], own["LACP rate"]) == (PARTNER, "fast")
    assert members.keys() == {one.name, two.name}
    seen = look(host)
    assert_bridge(seen, on_bond, {device}, mac=one.mac)
    assert seen.addresses(on_bond) == {f"{ON_BOND}/{PREFIX}"}

    with opened(host) as net:
        record = net.record(nic.pif)
        assert (record["IP"], record["IPv6"]) == (lease.address, [own6])
        assert net.attached(master)
    # a network that is to persist is there before its first guest (networking.md 1.6)
    assert seen.kind(internal) == "bridge"
    assert seen.uplinks(internal) == set()
