"""HTTPS goes where management goes: judged by ss in dom0 and by TLS handshakes from the segment; over IPv6, too."""

from __future__ import annotations

import ssl

import pytest
from nested_xen import machine, network
from nested_xen.machine import GATEWAY

from tests.xen.net_look import await_that, look
from tests.xen.net_moves import (
    MANAGEMENT,
    SECOND,
    adopt,
    assert_reachable,
    assert_whole,
    second_cable,
    unplugged_second_cable,
)
from tests.xen.net_operator import STATIC, clean, opened
from tests.xen.net_segment import PREFIX6, SERVER6, ping_from_servers, router6

pytestmark = [pytest.mark.destructive, pytest.mark.timeout(2400)]

STORAGE = 1
NETMASK = str(machine.SUBNET.netmask)
FIRST6, SECOND6 = f"{PREFIX6}11", f"{PREFIX6}12"
ELSEWHERE6 = "2001:db8:99::1"
"""Of the router, and on no segment: it is reached through a gateway only."""


@pytest.fixture
def host(xen_host):
    """Its management interface is hostagent's, and its second NIC is cabled to the same segment."""
    clean(xen_host)
    adopt(xen_host)
    second_cable(xen_host)
    yield xen_host
    unplugged_second_cable(xen_host)
    clean(xen_host)


def listening(host):
    """The addresses on which somebody listens on the port of HTTPS."""
    rows = host.exec("ss -Hltn sport = 443").stdout.splitlines()
    return {row.split()[3].rpartition(":")[0].strip("[]") for row in rows}


def serves(host, address, segment=None):
    """A TLS handshake from the segment: the host's own certificate."""
    shown = network.call_inside(
        host.lab, lambda: ssl.get_server_certificate((address, 443), timeout=60), segment=segment
    )
    assert shown.split()[2] in host.exec("cat /etc/hostagent/tls/server.pem").stdout


def inventory(host):
    lines = host.exec("grep ^MANAGEMENT_ /etc/hostagent/inventory").stdout.splitlines()
    found = dict(line.split("=", 1) for line in lines)
    return found["MANAGEMENT_INTERFACE"].strip("'"), found["MANAGEMENT_ADDRESS_TYPE"].strip("'")


@pytest.mark.full
def test_it_follows_management_to_another_nic_and_back_and_into_a_bond(host):
    own, other = host.machine.address, str(machine.SUBNET[110 + host.machine.index])
    with opened(host) as net:
        first, second = net.nic(MANAGEMENT), net.nic(SECOND)
        assert listening(host) == {own}
        serves(host, own)

        net.api.PIF.reconfigure_ip(second.pif, "Static", other, NETMASK, str(GATEWAY), "")
        net.api.host.management_reconfigure(second.pif)
        assert listening(host) == {other}
        serves(host, other)
        assert inventory(host) == (second.bridge, "IPv4")

        net.api.host.management_reconfigure(first.pif)
        assert listening(host) == {own}
        serves(host, own)
        net.no_address(second.pif)

        bond, master = net.bond([first.pif, second.pif], "active-backup")
        assert listening(host) == {own}
        serves(host, own)
        assert inventory(host) == (net.bridge(master), "IPv4")
        net.api.Bond.destroy(bond)
        assert listening(host) == {own}
        serves(host, own)
    assert_whole(host)


@pytest.mark.full
def test_management_goes_to_a_pif_that_has_only_ipv6_and_back(host):
    own = host.machine.address
    with router6(host.lab, "management", leases=False), opened(host) as net:
        first, second = net.nic(MANAGEMENT), net.nic(SECOND)
        # what answers before the move must answer after it: the router, which both can ask
        net.api.PIF.reconfigure_ipv6(first.pif, "Static", f"{FIRST6}/64", SERVER6, "")
        ping_from_servers(host.lab, "management", FIRST6)
        assert look(host).gateways(first.bridge, 6) == [SERVER6]
        net.api.PIF.reconfigure_ipv6(second.pif, "Static", f"{SECOND6}/64", SERVER6, "")
        net.api.PIF.set_primary_address_type(second.pif, "IPv6")

        net.api.host.management_reconfigure(second.pif)
        assert listening(host) == {SECOND6}
        serves(host, SECOND6, "management")
        assert inventory(host) == (second.bridge, "IPv6")
        await_that(lambda: net.api.host.get_address(net.me) == SECOND6, "the host's record has it")
        seen = look(host)
        assert seen.gateways(family=6) == [SERVER6] == seen.gateways(second.bridge, 6)
        assert seen.addresses(second.bridge) == set()
        assert net.record(second.pif)["management"] is True

        net.api.host.management_reconfigure(first.pif)
        assert listening(host) == {own}
        serves(host, own)
        assert inventory(host) == (first.bridge, "IPv4")
        assert look(host).gateways(first.bridge, 6) == [SERVER6]
        net.api.PIF.set_primary_address_type(second.pif, "IPv4")
        net.api.PIF.reconfigure_ipv6(second.pif, "None", "", "", "")
        net.api.PIF.reconfigure_ipv6(first.pif, "None", "", "", "")
    assert_reachable(host)
    assert look(host).gateways(family=6) == []
    assert_whole(host)


@pytest.mark.full
def test_an_ipv6_gateway_is_fixed_or_the_one_that_a_router_says_it_is(xen_host):
    host = xen_host
    clean(host)
    answers = f"ping -6 -n -c 1 -W 5 {ELSEWHERE6}"

    def routed_by(gateway, bridge):
        assert look(host).gateways(family=6) == [gateway] == look(host).gateways(bridge, 6)
        taken = host.exec(f"ip -6 route get {ELSEWHERE6}").stdout
        assert f"via {gateway} dev {bridge} " in taken
        await_that(lambda: host.exec(answers, check=False).code == 0, f"{ELSEWHERE6} answers over {gateway}")

    with router6(host.lab, "storage", leases=False), opened(host) as net:
        network.batch(host.lab, [f"address replace {ELSEWHERE6}/128 dev lo nodad"], segment="storage")
        nic = net.nic(STORAGE)
        assert host.exec(answers, check=False).code != 0
        net.static(nic.pif, STATIC.format(11))
        net.api.PIF.reconfigure_ipv6(nic.pif, "Static", f"{FIRST6}/64", SERVER6, "")
        net.api.PIF.plug(nic.pif)
        routed_by(SERVER6, nic.bridge)
        assert net.record(nic.pif)["ipv6_gateway"] == SERVER6

        net.api.PIF.reconfigure_ipv6(nic.pif, "Autoconf", "", "", "")
        (router,) = await_that(lambda: look(host).gateways(nic.bridge, 6), "a default route by advertisement")
        assert router.startswith("fe80:")
        routed_by(router, nic.bridge)
        await_that(lambda: net.record(nic.pif)["ipv6_gateway"] == router, "the record has the router")

        net.api.PIF.reconfigure_ipv6(nic.pif, "None", "", "", "")
        assert look(host).gateways(family=6) == []
    clean(host)
