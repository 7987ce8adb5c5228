"""What is wanted of addresses, routes and the resolver."""

from __future__ import annotations

import pytest

from hostagent.net.devices import Dns, Lease, WantedAddress, WantedRoute
from hostagent.net.finding import DEGRADE
from hostagent.net.model import survey, want
from tests.pure.net_records import DHCP, STATIC, Host
from tests.pure.net_wanted import by_name, two_nics


@pytest.mark.parametrize(
    ("fields", "ipv6", "leases"),
    [
        ({}, "link-local", ()),
        (DHCP, "link-local", (Lease("xenbr0", 4, gateway=True, dns=True),)),
        ({"ipv6_mode": "Autoconf"}, "autoconf", ()),
        ({"ipv6_mode": "DHCP"}, "dhcp", (Lease("xenbr0", 6, gateway=True, dns=False),)),
        (
            {"ipv6_mode": "DHCP", "primary_address_type": "IPv6"},
            "dhcp",
            (Lease("xenbr0", 6, gateway=True, dns=True),),
        ),
        ({"ipv6_mode": "Static", "ipv6": ("fd00::2/64",)}, "static", ()),
    ],
)
def test_address_modes(fields, ipv6, leases):
    wanted = want(two_nics(**fields).records(), ["eth0"])

    assert by_name(wanted)["xenbr0"].ipv6 == ipv6
    assert by_name(wanted)["eth0"].ipv6 == "off"
    assert wanted.leases == leases


@pytest.mark.parametrize(
    ("mode", "heeds"), [("DHCP", True), ("Autoconf", True), ("Static", False), ("None", False)]
)
def test_routers_give_the_default_route_to_the_owner_of_the_gateway_only(mode, heeds):
    host = two_nics(ipv6_mode=mode, ipv6=("fd00::2/64",), other_config={"defaultroute": "true"})
    host.change("eth1", ipv6_mode="Autoconf")
    host.vlan("eth1", 5, ipv6_mode="DHCP", other_config={"defaultroute": "false"})

    found = by_name(want(host.records(), ["eth0", "eth1", "eth1.5"]))

    assert found["xenbr0"].ipv6_gateway is heeds
    assert found["xenbr1"].ipv6_gateway is (mode == "None")
    assert not found["eth0"].ipv6_gateway
    assert not found["xapi101"].ipv6_gateway


def test_a_vlan_that_owns_the_gateway_heeds_routers_too():
    host = two_nics()
    host.vlan("eth0", 5, ipv6_mode="Autoconf")

    found = by_name(want(host.records(), ["eth0.5"]))

    assert [name for name, device in found.items() if device.ipv6_gateway] == ["xapi101"]


def test_static_ipv6_with_a_gateway_of_the_link():
    fields = {"ipv6_mode": "Static", "ipv6": ("FD00:0::2/64", "fd00::2/64"), "ipv6_gateway": "fe80::1"}

    wanted = want(two_nics(**fields).records(), ["eth0"])

    assert wanted.addresses == (WantedAddress("xenbr0", "fd00::2", 64),)
    assert wanted.routes == (WantedRoute("xenbr0", "default6", "fe80::1"),)


@pytest.mark.parametrize("own", ["fe80::5/64", "FEBF::5/64"])
def test_a_link_local_address_of_an_old_database_is_left_out_and_told(own):
    """The kernel's look does not tell it from the interface's own: it would never be as wanted."""
    fields = {"ipv6_mode": "Static", "ipv6": (own, "fd00::2/64"), "ipv6_gateway": "fe80::1"}

    found = survey(two_nics(**fields).records(), ["eth0"])

    assert found.wanted.addresses == (WantedAddress("xenbr0", "fd00::2", 64),)
    (told,) = [finding for finding in found.findings if "link-local" in finding.found]
    assert (told.severity, told.refs) == (DEGRADE, ("eth0",))
    assert "pif-reconfigure-ipv6" in told.hint

    alone = survey(two_nics(**{**fields, "ipv6": (own,)}).records(), ["eth0"])
    assert alone.wanted.addresses == ()
    assert by_name(alone.wanted)["xenbr0"].ipv6 == "static"


def test_the_resolver_of_a_static_pif_with_its_search_list():
    fields = {
        **STATIC,
        "dns": "10.1.0.1, fd00::1,10.1.0.1",
        "other_config": {"domain": "example.org,example.net"},
    }

    wanted = want(two_nics(**fields).records(), ["eth0"])

    assert wanted.dns == Dns(("10.1.0.1", "fd00::1"), ("example.org", "example.net"))


def test_a_resolver_that_works_is_not_emptied():
    found = survey(two_nics(**{**STATIC, "dns": ""}).records(), ["eth0"])

    assert found.wanted.dns is None
    assert [finding.row for finding in found.findings] == [42]


def test_only_the_owner_has_the_default_route():
    host = two_nics(**STATIC)
    host.change(
        "eth1",
        **{**STATIC, "ip": "10.2.0.2", "gateway": "10.2.0.1", "other_config": {"defaultroute": "true"}},
    )

    wanted = want(host.records(), ["eth0", "eth1"])

    assert wanted.routes == (WantedRoute("xenbr1", "default4", "10.2.0.1"),)


def test_who_loses_the_gateway_is_part_of_the_change():
    host = two_nics(currently_attached=True, **DHCP)
    host.change("eth1", **STATIC, other_config={"defaultroute": "true"})

    wanted = want(host.records(), ["eth1"])

    assert Lease("xenbr0", 4, gateway=False, dns=True) in wanted.leases
    assert wanted.routes == (WantedRoute("xenbr1", "default4", "10.1.0.1"),)


def test_who_gets_the_gateway_back_is_part_of_the_change():
    host = two_nics(currently_attached=True, **STATIC)
    host.change("eth1", currently_attached=True, **DHCP, other_config={"defaultroute": "true"})

    wanted = want(host.records(), (), down=["eth1"])

    assert wanted.routes == (WantedRoute("xenbr0", "default4", "10.1.0.1"),)
    assert wanted.gone == ("xenbr1",)


def test_nobody_else_is_touched():
    host = two_nics(currently_attached=True, management=True, **STATIC)

    wanted = want(host.records(), ["eth1"])

    assert [device.name for device in wanted.devices] == ["xenbr1", "eth1"]
    assert (wanted.routes, wanted.dns) == ((), None)


@pytest.mark.parametrize(
    "fields",
    [
        {"ip": "10.1.0.256"},
        {"ip": ""},
        {"ip": "10.1.0.255"},
        {"ip": "224.0.0.1"},
        {"netmask": "255.0.255.0"},
        {"netmask": "0.0.0.0"},  # noqa: S104
    ],
)
def test_a_bad_address_is_left_out_with_its_gateway_and_told(fields):
    found = survey(two_nics(**{**STATIC, **fields}).records(), ["eth0"])

    assert (found.wanted.addresses, found.wanted.routes) == ((), ())
    assert [finding.refs for finding in found.findings] == [("eth0",), ("eth0",)]


@pytest.mark.parametrize("gateway", ["10.2.0.1", "10.1.0.2", "fd00::1", "none"])
def test_a_gateway_that_cannot_be_reached_is_left_out_and_told(gateway):
    found = survey(two_nics(**{**STATIC, "gateway": gateway}).records(), ["eth0"])

    assert (len(found.wanted.addresses), found.wanted.routes) == (1, ())
    assert [finding.refs for finding in found.findings] == [("eth0",)]


def test_static_routes_that_can_be_are_and_the_others_are_told():
    routes = "10.8.0.0/16/10.1.0.9,10.9.0.0/33/10.1.0.9,10.7.0.0/16/10.2.0.9,fd08::/32/fd00::1"
    host = two_nics(**STATIC, network={"other_config": {"static-routes": routes}})

    found = survey(host.records(), ["eth0"])

    assert found.wanted.routes[1:] == (WantedRoute("xenbr0", "10.8.0.0/16", "10.1.0.9"),)
    assert [finding.row for finding in found.findings] == [44, 44, 44]
    assert any("element 2 (column 22" in finding.found for finding in found.findings)


def test_a_destination_has_one_route():
    keys = {"other_config": {"static-routes": "10.8.0.0/16/10.1.0.9"}}
    host = Host()
    host.nic("eth0", **STATIC, network=keys)
    host.nic("eth1", **{**STATIC, "ip": "10.1.0.3"}, network=keys)

    found = survey(host.records(), ["eth0", "eth1"])

    assert [route.device for route in found.wanted.routes if route.destination == "10.8.0.0/16"] == ["xenbr0"]
    assert [finding.row for finding in found.findings if finding.refs == ("eth1",)] == [44]


OWNER = {
    "ip_mode": "Static",
    "ip": "10.2.0.5",
    "netmask": "255.255.255.0",
    "gateway": "10.2.0.1",
    "dns": "10.2.0.9",
}


@pytest.mark.parametrize("fields", [OWNER, DHCP])
def test_what_comes_up_again_gives_back_what_it_may_have_owned_by_the_keys_of_before(fields):
    host = two_nics(**STATIC, management=True, currently_attached=True)
    host.change("eth1", **fields, currently_attached=True)
    records = host.records()

    assert {"xenbr0", "xenbr1"} <= by_name(want(records, ["eth1"])).keys()
    assert "xenbr0" not in by_name(want(records, ["eth1"], apart=["eth0"]))


@pytest.mark.parametrize(
    ("fields", "attached"), [(OWNER, False), ({**OWNER, "gateway": "", "dns": ""}, True), ({}, True)]
)
def test_what_cannot_have_owned_anything_comes_up_alone(fields, attached):
    host = two_nics(**STATIC, management=True, currently_attached=True)
    host.change("eth1", **fields, currently_attached=attached)

    assert "xenbr0" not in by_name(want(host.records(), ["eth1"]))
