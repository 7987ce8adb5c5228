"""Every attribute that is not as wanted is told, with what is there; nothing else is."""

from __future__ import annotations

import pytest

from hostagent.net.devices import Address, Device, Dns, Lease, Route, Wanted
from hostagent.net.sysctl import Ipv6
from hostagent.net.verify import Around, differences
from tests.pure.net_plans import BOND, LACP, PLAIN, VLANS, a_kernel, carry_out


def up_with(wanted):
    kernel = a_kernel()
    carry_out(kernel, wanted)
    assert differences(wanted, kernel.look()) == ()
    return kernel


def told(wanted, kernel, around=None):
    return [(d.device, d.what, d.wanted, d.found) for d in differences(wanted, kernel.look(), around)]


@pytest.mark.parametrize(
    ("device", "attribute", "value", "what"),
    [
        ("bond0", "mac", "52:54:00:00:00:77", "mac"),
        ("bond0", "mtu", 1400, "mtu"),
        ("bond0", "up", False, "up"),
        ("bond0", "master", 0, "master"),
        ("bond0", "group", 0, "group"),
        ("bond0", "kind", "bridge", "kind"),
        ("bond0.5", "vlan_id", 6, "vlan_id"),
        ("bond0.5", "lower", 1, "lower"),
        ("bond0", "settings", {}, "mode"),
    ],
)
def test_each_attribute_of_a_device(device, attribute, value, what):
    kernel = up_with(BOND)
    setattr(next(it for it in kernel.links.values() if it.name == device), attribute, value)

    assert (device, what) in [one[:2] for one in told(BOND, kernel)]


def test_addresses_and_routes_too_many_and_too_few():
    kernel = up_with(PLAIN)
    bridge = kernel.look().by_name()["xenbr0"].ifindex
    kernel.addresses = [Address(bridge, "10.0.0.9", 24), Address(bridge, "fe80::1", 64, scope=253)]
    kernel.routes = [Route(bridge, "10.9.0.0/16", "10.0.0.2", 3), Route(bridge, "10.0.0.0/24", "", 2)]

    assert told(PLAIN, kernel) == [
        ("xenbr0", "address", "none", "10.0.0.9/24"),
        ("xenbr0", "address", "10.0.0.5/24", "none"),
        ("xenbr0", "route", "none", "10.9.0.0/16 via 10.0.0.2"),
        ("xenbr0", "route", "default4 via 10.0.0.1", "none"),
    ]


def test_an_address_with_a_lifetime_is_not_the_static_one():
    kernel = up_with(PLAIN)
    kernel.addresses = [kernel.addresses[0]._replace(valid_s=99)]

    assert told(PLAIN, kernel) == [("xenbr0", "address", "10.0.0.5/24", "only for 99 s")]


def test_what_a_dhcp_client_or_router_gives_is_not_stale():
    wanted = PLAIN._replace(addresses=(), routes=(), leases=(Lease("xenbr0", 4, gateway=True, dns=True),))
    kernel = up_with(PLAIN)

    assert [one[1] for one in told(wanted, kernel)] == ["route"]  # ours; the address may be the client's


def test_a_stray_port_and_a_device_that_must_be_gone():
    kernel = up_with(VLANS)
    kernel.links[2].master = kernel.look().by_name()["xenbr0"].ifindex
    wanted = VLANS._replace(gone=("bond0", "xapi3"))

    assert told(wanted, kernel) == [
        ("xenbr0", "port", "none", "eth1"),
        ("xapi3", "device", "none", "bridge"),
    ]


def test_settings_around_the_kernel():
    wanted = Wanted((Device("eth0", "physical", link={"speed": 1000}, features={"gro": True}),))
    kernel = up_with(wanted)
    right = Around(
        {"net/ipv6/conf/eth0/disable_ipv6": "1"}, {"eth0": {"speed": 1000}}, {"eth0": {"gro": True}}
    )

    assert told(wanted, kernel, right) == []
    assert [one[1] for one in told(wanted, kernel, Around())] == [
        "net/ipv6/conf/eth0/disable_ipv6",
        "speed",
        "gro",
    ]


def test_a_kernel_without_ipv6_has_no_modes_to_compare():
    wanted = Wanted((Device("eth0", "physical"),))

    assert told(wanted, up_with(wanted), Around(ipv6=Ipv6(present=False, enabled=False))) == []


def test_who_has_the_gateway_takes_the_default_route_of_routers():
    owner = PLAIN.devices[1]._replace(ipv6="autoconf", ipv6_gateway=True)
    wanted = PLAIN._replace(devices=(PLAIN.devices[0], owner))
    path = "net/ipv6/conf/xenbr0/accept_ra_defrtr"

    assert (("xenbr0", path, "1", "0")) in told(wanted, up_with(PLAIN), Around({path: "0"}))


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("# from somebody\nsearch a.example\nnameserver 10.0.0.1\noptions edns0\n", True),
        ("nameserver 10.0.0.1\n", False),
        ("search a.example\nnameserver 10.0.0.2\n", False),
        ("", False),
    ],
)
def test_a_resolver_is_right_when_it_says_the_same_in_whatever_form(text, right):
    wanted = Wanted(dns=Dns(("10.0.0.1",), ("a.example",)))

    assert (told(wanted, a_kernel(), Around(resolver=text)) == []) is right


def test_no_servers_wanted_is_no_difference():
    assert told(Wanted(dns=Dns(())), a_kernel(), Around(resolver="nameserver 10.0.0.1\n")) == []


def test_lacp_settings_are_compared():
    kernel = up_with(LACP)
    next(it for it in kernel.links.values() if it.kind == "bond").settings["ad_lacp_rate"] = 0

    assert told(LACP, kernel) == [("bond0", "ad_lacp_rate", "1", "0")]


@pytest.mark.parametrize("mode", ["autoconf", "dhcp"])
def test_of_ipv6_addresses_of_routers_and_dhcp_only_a_static_one_is_too_much(mode):
    owner = PLAIN.devices[1]._replace(ipv6=mode)
    wanted = PLAIN._replace(devices=(PLAIN.devices[0], owner))
    kernel = up_with(wanted)
    bridge = kernel.look().by_name()["xenbr0"].ifindex
    kernel.addresses += [
        Address(bridge, "fd00::a", 64, flags=0, valid_s=1800),
        Address(bridge, "fd00::b", 64, flags=0x180),
        Address(bridge, "fd00::c", 64),
    ]

    assert told(wanted, kernel) == [("xenbr0", "address", "none", "fd00::c/64")]
