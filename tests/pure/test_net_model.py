"""What is wanted of the kernel: the cases that networking.md 3 spells out, whole, and what holds for any host."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from hostagent.errors import BugError
from hostagent.net.devices import Device, Dns, Lease, Wanted, WantedAddress, WantedRoute
from hostagent.net.finding import STOP, FindingError
from hostagent.net.model import survey, want, want_network
from tests.pure.net_records import DHCP, STATIC, Change, Host, changes, kernel_of, link

BRIDGE = {"forward_delay": 0, "stp_state": 0, "mcast_snooping": 0}
NIC = {"gro": True, "lro": False}
BOND = {"mode": 1, "miimon": 100, "updelay": 31000, "downdelay": 200}
MAC0, MAC1 = "02:00:00:00:00:00", "02:00:00:00:00:01"


def by_name(wanted: Wanted) -> dict[str, Device]:
    return {device.name: device for device in wanted.devices}


def bridge(name: str, serves: str, mac: str = MAC0, ipv6: str = "link-local", mtu: int = 1500) -> Device:
    return Device(name, "bridge", mac=mac, mtu=mtu, settings=BRIDGE, ipv6=ipv6, serves=(serves,))


def two_nics(**fields: Any) -> Host:
    host = Host()
    host.nic("eth0", **fields)
    host.nic("eth1")
    return host


def refusal(host: Host, *up: str) -> FindingError:
    with pytest.raises(FindingError) as caught:
        want(host.records(), up)
    return caught.value


# the cases of the reference, whole


def test_a_plain_pif():
    host = Host()
    host.nic("eth0", management=True, **STATIC)

    assert want(host.records(), ["eth0"]) == Wanted(
        (
            bridge("xenbr0", "eth0"),
            Device("eth0", "physical", MAC0, 1500, "xenbr0", features=NIC, serves=("eth0",)),
        ),
        (WantedAddress("xenbr0", "10.1.0.2", 24),),
        (WantedRoute("xenbr0", "default4", "10.1.0.1"),),
        dns=Dns(("10.1.0.1",)),
    )


def test_a_vlan_brings_its_nic_and_the_bridge_of_that_without_an_address():
    host = Host()
    host.nic("eth0", **STATIC)
    host.vlan("eth0", 5, bridge="xapi1")

    assert want(host.records(), ["eth0.5"]) == Wanted(
        (
            bridge("xenbr0", "eth0.5", ipv6="off"),
            Device("eth0", "physical", MAC0, 1500, "xenbr0", features=NIC, serves=("eth0.5",)),
            bridge("xapi1", "eth0.5"),
            Device("eth0.5", "vlan", MAC0, 1500, "xapi1", "eth0", 5, serves=("eth0.5",)),
        )
    )


def test_a_vlan_on_an_attached_nic_leaves_that_its_address():
    host = Host()
    host.nic("eth0", currently_attached=True, **STATIC)
    host.vlan("eth0", 5, bridge="xapi1")

    wanted = want(host.records(), ["eth0.5"])

    assert wanted.addresses == (WantedAddress("xenbr0", "10.1.0.2", 24),)
    assert wanted.routes == (WantedRoute("xenbr0", "default4", "10.1.0.1"),)
    assert by_name(wanted)["xenbr0"].serves == ("eth0",)
    assert by_name(wanted)["eth0"].serves == ("eth0", "eth0.5")


def test_a_vlan_on_the_management_nic_leaves_that_its_address_whatever_the_record_says_of_attached():
    host = Host()
    host.nic("eth0", management=True, **STATIC)
    host.vlan("eth0", 5)

    wanted = want(host.records(), ["eth0.5"])

    assert wanted.addresses == (WantedAddress("xenbr0", "10.1.0.2", 24),)
    assert wanted.routes == (WantedRoute("xenbr0", "default4", "10.1.0.1"),)


def test_a_bond_takes_the_bridges_of_its_members_away():
    host = two_nics()
    host.bond("bond0", ("eth1", "eth0"), **STATIC)

    assert want(host.records(), ["bond0"]) == Wanted(
        (
            bridge("xapi0", "bond0", MAC1),
            Device(
                "bond0", "bond", MAC1, 1500, "xapi0", settings=BOND, features={"gro": True}, serves=("bond0",)
            ),
            Device("eth1", "physical", "", 1500, "bond0", features=NIC, serves=("bond0",)),
            Device("eth0", "physical", "", 1500, "bond0", features=NIC, serves=("bond0",)),
        ),
        (WantedAddress("xapi0", "10.1.0.2", 24),),
        (WantedRoute("xapi0", "default4", "10.1.0.1"),),
        dns=Dns(("10.1.0.1",)),
        gone=("xenbr1", "xenbr0"),
    )


def test_management_on_a_vlan_on_a_bond():
    host = two_nics()
    host.bond("bond0", ("eth0", "eth1"))
    host.vlan("bond0", 5, bridge="xapi1", management=True, **STATIC)

    assert want(host.records(), ["bond0.5"]) == Wanted(
        (
            bridge("xapi0", "bond0.5", ipv6="link-local"),
            Device(
                "bond0",
                "bond",
                MAC0,
                1500,
                "xapi0",
                settings=BOND,
                features={"gro": True},
                serves=("bond0.5",),
            ),
            Device("eth0", "physical", "", 1500, "bond0", features=NIC, serves=("bond0.5",)),
            Device("eth1", "physical", "", 1500, "bond0", features=NIC, serves=("bond0.5",)),
            bridge("xapi1", "bond0.5"),
            Device("bond0.5", "vlan", MAC0, 1500, "xapi1", "bond0", 5, serves=("bond0.5",)),
        ),
        (WantedAddress("xapi1", "10.1.0.2", 24),),
        (WantedRoute("xapi1", "default4", "10.1.0.1"),),
        dns=Dns(("10.1.0.1",)),
        gone=("xenbr0", "xenbr1"),
    )


def test_an_internal_network_is_a_bridge_and_nothing_else():
    host = Host()
    ref = host.network("xapi4", mtu=9000)

    wanted = want_network(host.records(), ref)

    assert wanted == Wanted((Device("xapi4", "bridge", mtu=9000, settings=BRIDGE, serves=(ref,)),))
    assert want_network(host.records(), ref, present=False) == Wanted(gone=("xapi4",))


@pytest.mark.parametrize(
    ("given_keys", "address", "prefix"),
    [({}, "169.254.0.1", 16), ({"ip_begin": "172.30.0.1", "netmask": "255.255.255.0"}, "172.30.0.1", 24)],
)
def test_the_host_internal_management_network_has_dom0s_address(given_keys, address, prefix):
    host = Host()
    ref = host.network("xenapi", other_config={"is_host_internal_management_network": "true", **given_keys})

    assert want_network(host.records(), ref).addresses == (WantedAddress("xenapi", address, prefix),)


def test_a_network_with_a_pif_is_not_internal():
    host = two_nics()

    with pytest.raises(BugError):
        want_network(host.records(), "net-xenbr0")


def test_a_network_that_others_manage_wants_nothing():
    host = Host()

    assert want_network(host.records(), host.network("br0", managed=False)) == Wanted()


# bond and members, up and down


def bonded_with_vlans() -> Host:
    host = two_nics()
    host.vlan("eth0", 7, bridge="xapi7")
    host.bond("bond0", ("eth0", "eth1"))
    host.vlan("bond0", 5, bridge="xapi5")
    return host


def test_a_bond_takes_the_vlans_on_its_members_away_too():
    assert want(bonded_with_vlans().records(), ["bond0"]).gone == ("xapi7", "eth0.7", "xenbr0", "xenbr1")


def test_a_member_takes_the_bond_away_with_the_vlans_on_it():
    wanted = want(bonded_with_vlans().records(), ["eth0"])

    assert wanted.gone == ("xapi5", "bond0.5", "xapi0", "bond0")
    assert [device.name for device in wanted.devices] == ["xenbr0", "eth0"]


@pytest.mark.parametrize("up", [("bond0", "eth0"), ("bond0.5", "eth0.7"), ("eth1", "bond0.5")])
def test_a_bond_and_its_member_cannot_be_up_together(up):
    error = refusal(bonded_with_vlans(), *up)

    assert error.code == "CANNOT_PLUG_BOND_SLAVE"
    assert error.params in (("eth0",), ("eth1",))


def test_what_cannot_be_brought_up_displaces_nothing():
    host = two_nics()
    host.bond("bond0", ("eth0", "eth1"), mode="balance-slb")

    found = survey(host.records(), ["bond0"])

    assert found.wanted == Wanted()
    assert [finding.code for finding in found.findings] == ["VALUE_NOT_SUPPORTED"]


def test_down_takes_the_bridge_and_leaves_the_nic():
    host = two_nics(currently_attached=True)

    assert want(host.records(), (), down=["eth0"]) == Wanted(gone=("xenbr0",))


def test_down_of_a_bond_takes_bridge_and_bond():
    host = two_nics()
    host.bond("bond0", ("eth0", "eth1"), currently_attached=True)

    assert want(host.records(), (), down=["bond0"]) == Wanted(gone=("xapi0", "bond0"))


@pytest.mark.parametrize(
    ("attached", "up", "gone"),
    [
        ((), (), ("xapi1", "eth0.5", "xenbr0")),
        (("eth0",), (), ("xapi1", "eth0.5")),
        ((), ("eth0",), ("xapi1", "eth0.5")),
        (("eth0.6",), (), ("xapi1", "eth0.5")),
    ],
)
def test_down_of_a_vlan_takes_the_nics_bridge_only_when_nobody_else_has_it(attached, up, gone):
    host = two_nics()
    host.vlan("eth0", 5, bridge="xapi1", currently_attached=True)
    host.vlan("eth0", 6)
    for ref in attached:
        host.change(ref, currently_attached=True)

    assert want(host.records(), up, down=["eth0.5"]).gone == gone


def test_down_of_what_carries_a_vlan_keeps_its_bridge_without_the_address():
    host = Host()
    host.nic("eth0", currently_attached=True, **STATIC)
    host.vlan("eth0", 5, currently_attached=True)

    wanted = want(host.records(), (), down=["eth0"])

    assert by_name(wanted)["xenbr0"].ipv6 == "off"
    assert by_name(wanted)["eth0"].serves == ("eth0.5",)
    assert (wanted.addresses, wanted.routes, wanted.gone) == ((), (), ())


def test_down_of_a_vlan_never_takes_the_management_bridge():
    host = Host()
    host.nic("eth0", management=True, **STATIC)
    host.vlan("eth0", 5, bridge="xapi1", currently_attached=True)

    assert want(host.records(), (), down=["eth0.5"]).gone == ("xapi1", "eth0.5")


# MAC, MTU, names


def test_a_vlan_and_its_bridge_have_the_mac_of_what_they_lie_on_not_the_records():
    host = Host()
    host.nic("eth0", mac="02:AA:00:00:00:01")
    host.vlan("eth0", 5, bridge="xapi1")

    devices = by_name(want(host.records(), ["eth0.5"]))

    assert {device.mac for device in devices.values()} == {"02:aa:00:00:00:01"}


@pytest.mark.parametrize(("follows", "mac"), [(True, MAC0), (False, "02:00:00:00:00:99")])
def test_a_bond_that_follows_its_primary_member_has_its_mac(follows, mac):
    host = two_nics()
    host.bond("bond0", ("eth0", "eth1"), mac="02:00:00:00:00:99")
    host.bonds["bond-bond0"] = host.bonds["bond-bond0"]._replace(auto_update_mac=follows)

    devices = by_name(want(host.records(), ["bond0"]))

    assert (devices["bond0"].mac, devices["xapi0"].mac) == (mac, mac)


def test_an_mtu_goes_down_the_chain_and_a_vlan_has_its_own():
    host = two_nics()
    host.bond("bond0", ("eth0", "eth1"), network={"mtu": 9000})
    host.vlan("bond0", 5, bridge="xapi1", network={"mtu": 4000})

    devices = by_name(want(host.records(), ["bond0.5"]))

    assert {name: device.mtu for name, device in devices.items()} == {
        **dict.fromkeys(("xapi0", "bond0", "eth0", "eth1"), 9000),
        **dict.fromkeys(("xapi1", "bond0.5"), 4000),
    }


def test_the_mtu_key_wins_over_the_network():
    host = two_nics(other_config={"mtu": "3000"}, network={"mtu": 9000})

    assert by_name(want(host.records(), ["eth0"]))["xenbr0"].mtu == 3000


def test_a_vlan_goes_no_further_than_what_it_lies_on_and_that_is_told():
    host = two_nics()
    host.vlan("eth0", 5, bridge="xapi1", network={"mtu": 9000})

    found = survey(host.records(), ["eth0.5"])

    assert by_name(found.wanted)["xapi1"].mtu == 1500
    assert [(finding.row, finding.refs) for finding in found.findings] == [(17, ("eth0.5",))]
    assert "9000" in found.findings[0].found


def test_no_mtu_is_above_what_the_nic_takes():
    host = two_nics(network={"mtu": 9000})

    found = survey(host.records(), ["eth0"], links={"eth0": link(2, "eth0", max_mtu=3498)})

    assert {device.mtu for device in found.wanted.devices} == {3498}
    assert [finding.row for finding in found.findings] == [16]


def test_a_long_name_has_a_short_vlan_device_that_tells_the_long_one():
    host = Host()
    host.nic("enp129s0f1np1")
    host.vlan("enp129s0f1np1", 4094, bridge="xapi1")

    device = want(host.records(), ["enp129s0f1np1.4094"]).devices[-1]

    assert len(device.name) <= 15
    assert (device.lower, device.altname) == ("enp129s0f1np1", "enp129s0f1np1.4094")


def test_without_a_bridge_the_address_is_on_the_device():
    host = Host()
    host.nic("eth0", bridge="", **STATIC)

    wanted = want(host.records(), ["eth0"])

    assert [device.name for device in wanted.devices] == ["eth0"]
    assert wanted.devices[0].ipv6 == "link-local"
    assert wanted.addresses[0].device == "eth0"


# the IP layer


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


# ethtool


def test_ethtool_keys_go_to_the_device_they_are_for():
    host = Host()
    keys = {"ethtool-speed": "1000", "ethtool-duplex": "full", "ethtool-autoneg": "off", "ethtool-tso": "off"}
    host.nic(
        "eth0", other_config=keys, network={"other_config": {"ethtool-tx": "off"}}, properties={"gro": "off"}
    )
    host.vlan("eth0", 5, bridge="xapi1", other_config={"ethtool-sg": "off"})

    devices = by_name(want(host.records(), ["eth0", "eth0.5"]))

    assert devices["eth0"].link == {"speed": 1000, "duplex": "full", "autoneg": "off"}
    assert devices["eth0"].features == {"gro": False, "lro": False, "tso": False}
    assert devices["xenbr0"].features == {"tx": False}
    assert devices["eth0.5"].features == {"sg": False}
    assert devices["xapi1"].features == {}


def test_members_have_their_own_keys_and_the_bonds_gro():
    host = two_nics(other_config={"ethtool-lro": "on"}, properties={"gro": "on"})
    host.change("eth1", other_config={"ethtool-gro": "on"})
    host.bond("bond0", ("eth0", "eth1"))
    host.change("bond0", properties={"gro": "off"})

    devices = by_name(want(host.records(), ["bond0"]))

    assert devices["eth0"].features == {"gro": False, "lro": True}
    assert devices["eth1"].features == {"gro": True, "lro": False}
    assert devices["bond0"].features == {"gro": False}


def test_link_settings_of_what_has_no_cable_are_told():
    host = two_nics()
    host.vlan("eth0", 5, other_config={"ethtool-speed": "1000"})

    found = survey(host.records(), ["eth0.5"])

    assert [finding.refs for finding in found.findings] == [("eth0.5",)]
    assert "ethtool-speed" in found.findings[0].found


# bonds


def bond_settings(
    mode: str, properties: dict[str, str] | None = None, keys: dict[str, str] | None = None, nics: int = 2
):
    host = Host()
    refs = tuple(host.nic(f"eth{count}") for count in range(nics))
    host.bond("bond0", refs, mode=mode, bond_properties=properties, other_config=keys or {})
    found = survey(host.records(), ["bond0"])
    return by_name(found.wanted)["bond0"].settings, [finding.found for finding in found.findings]


LACP = {"mode": 4, "xmit_hash_policy": 1, "ad_lacp_rate": 0, "ad_user_port_key": 0}


@pytest.mark.parametrize(
    ("mode", "properties", "keys", "differs"),
    [
        ("active-backup", {}, {}, BOND),
        ("lacp", {}, {}, LACP),
        ("lacp", {"hashing_algorithm": "tcpudp_ports"}, {}, LACP),
        ("lacp", {}, {"bond-hashing-algorithm": "src_mac"}, {"xmit_hash_policy": 5}),
        (
            "lacp",
            {"lacp-time": "fast", "lacp-aggregation-key": "17"},
            {},
            {"ad_lacp_rate": 1, "ad_user_port_key": 17},
        ),
        ("lacp", {"lacp-time": "fast"}, {"bond-lacp-time": "slow"}, LACP),
        ("balance-slb", {}, {"bond-mode": "active-backup"}, BOND),
        ("active-backup", {}, {"bond-miimon": "70"}, {"miimon": 70, "updelay": 30940, "downdelay": 140}),
        (
            "active-backup",
            {},
            {"bond-updelay": "0", "bond-downdelay": "250"},
            {"updelay": 0, "downdelay": 200},
        ),
        (
            "lacp",
            {"lacp-fallback-ab": "true"},
            {"bond-use_carrier": "1", "bond-rebalance-interval": "9"},
            LACP,
        ),
    ],
)
def test_settings_of_a_bond(mode, properties, keys, differs):
    settings, told = bond_settings(mode, properties, keys)

    assert settings == {**BOND, **(LACP if settings["mode"] == 4 else {}), **differs}
    assert told == []


def test_properties_of_the_bond_record_are_read_by_their_own_name():
    assert bond_settings("lacp", {"hashing_algorithm": "src_mac"})[0]["xmit_hash_policy"] == 5


@pytest.mark.parametrize(
    ("properties", "keys"),
    [
        ({"lacp-fallback-ab": "false"}, {}),
        ({}, {"bond-use_carrier": "0"}),
        ({}, {"bond-miimon": "0"}),
        ({}, {"bond-updelay": "soon"}),
        ({"lacp-time": "medium"}, {}),
        ({"hashing_algorithm": "all"}, {}),
        ({"lacp-aggregation-key": "1024"}, {}),
        ({}, {"bond-colour": "red"}),
    ],
)
def test_a_property_that_has_no_effect_is_told(properties, keys):
    settings, told = bond_settings("lacp", properties, keys)

    assert settings == {**BOND, **LACP}
    assert len(told) == 1


def test_a_primary_member_is_a_key_of_active_backup_and_names_a_member():
    host = two_nics()
    host.bond("bond0", ("eth0", "eth1"), other_config={"bond-primary": "eth1"})
    assert by_name(want(host.records(), ["bond0"]))["bond0"].primary == "eth1"

    host.change("bond0", other_config={"bond-primary": "eth7"})
    found = survey(host.records(), ["bond0"])
    assert by_name(found.wanted)["bond0"].primary == ""
    assert ["eth7" in finding.found for finding in found.findings] == [True]

    host.change("bond0", other_config={"bond-primary": "eth1", "bond-mode": "lacp"})
    found = survey(host.records(), ["bond0"])
    assert by_name(found.wanted)["bond0"].primary == ""
    assert ["only active-backup" in finding.found for finding in found.findings] == [True]


def test_balance_slb_is_refused_with_the_reason():
    host = two_nics()
    host.bond("bond0", ("eth0", "eth1"), mode="balance-slb")
    host.vlan("bond0", 5)

    for ref in ("bond0", "bond0.5"):
        error = refusal(host, ref)
        assert (error.code, error.params[:2]) == ("VALUE_NOT_SUPPORTED", ("mode", "balance-slb"))
        assert "balance-slb" in error.params[2]


def test_one_member_has_nothing_to_balance():
    assert bond_settings("balance-slb", nics=1) == (BOND, [])
    assert bond_settings("lacp", nics=1)[0]["mode"] == 4


def test_a_bond_does_without_the_member_that_is_not_there():
    host = two_nics()
    host.bond("bond0", ("eth0", "eth1"))

    found = survey(host.records(), ["bond0"], links={"eth1": link(3, "eth1")})

    assert [device.name for device in found.wanted.devices] == ["xapi0", "bond0", "eth1"]
    assert [(finding.row, finding.refs) for finding in found.findings] == [(30, ("bond0", "eth0"))]


def test_nothing_comes_up_on_nics_that_are_not_there():
    host = two_nics()
    host.bond("bond0", ("eth0", "eth1"))

    with pytest.raises(FindingError, match="not in this host"):
        want(host.records(), ["bond0"], links=kernel_of().by_name())


# refusals


def test_records_that_do_not_hold_together_are_refused():
    host = Host()
    host.nic("eth0", managed=False)
    host.vlan("eth0", 5)
    host.nic("eth1")
    host.vlan("eth1", 5)
    host.vlan("eth1", 9)
    host.vlan("eth1", 6)
    host.vlan("eth1.6", 7)
    host.vlan("eth1", 4095)
    host.vlans["vlan-eth1.9"] = host.vlans["vlan-eth1.9"]._replace(tag=5)
    host.nic("eth2", vlan_master_of="lost")
    host.nic("eth3", bond_master_of=("lost",))
    host.nic("eth4", bridge="much-too-long-a-name")

    assert refusal(host, "eth0").code == "PIF_UNMANAGED"
    assert refusal(host, "eth0.5").params == ("eth0",)
    assert refusal(host, "eth1.5", "eth1.9").code == "PIF_VLAN_EXISTS"
    assert refusal(host, "eth1.6.7").code == "PIF_IS_VLAN"
    assert refusal(host, "eth1.4095").params == ("4095",)
    assert refusal(host, "nobody").code == "HANDLE_INVALID"
    with pytest.raises(FindingError, match="not managed"):
        want(host.records(), (), down=["eth0"])
    for ref in ("eth2", "eth3", "eth4"):
        error = refusal(host, ref)
        assert (error.code, error.params[0]) == ("PIF_CONFIGURATION_ERROR", ref)


def test_one_bridge_cannot_be_two_pifs():
    host = two_nics()
    host.vlan("eth0", 5, bridge="xenbr1")

    assert "xenbr1" in refusal(host, "eth1", "eth0.5").found


def test_a_network_that_others_manage_is_left_alone():
    host = two_nics(network={"managed": False}, **STATIC)

    assert want(host.records(), ["eth0"]) == Wanted(dns=None)


# any host


def check_any(change: Change) -> None:
    found = survey(
        change.records, change.up, down=change.down, becoming_management=change.becoming_management
    )
    wanted = found.wanted
    devices = by_name(wanted)
    assert len(devices) == len(wanted.devices)
    assert not devices.keys() & set(wanted.gone)
    assert len(set(wanted.gone)) == len(wanted.gone)
    seen: set[str] = set()
    for device in wanted.devices:
        assert 0 < len(device.name.encode()) <= 15
        assert device.serves
        if device.lower in devices:
            assert device.lower in seen
            assert device.mtu <= devices[device.lower].mtu
        if device.master:
            assert device.master in seen
        seen.add(device.name)
    slaves = {
        device.name for device in wanted.devices if device.master and devices[device.master].kind == "bond"
    }
    assert not slaves & {device.lower for device in wanted.devices}
    ipv6 = {device.name for device in wanted.devices if device.ipv6 != "off"}
    carrying = {device.master for device in wanted.devices} | {
        device.name for device in wanted.devices if not device.master
    }
    assert ipv6 <= carrying
    assert {address.device for address in wanted.addresses} <= ipv6
    assert {lease.device for lease in wanted.leases} <= ipv6
    destinations = [route.destination for route in wanted.routes]
    assert len(set(destinations)) == len(destinations)
    assert len([route for route in wanted.routes if route.destination == "default4"]) <= 1
    for family in (4, 6):
        owners = [lease.device for lease in wanted.leases if lease.gateway and lease.family == family]
        assert len(owners) + (f"default{family}" in destinations) <= 1
    assert sum(lease.dns for lease in wanted.leases) + (wanted.dns is not None) <= 1


@given(changes())
def test_any_host_has_devices_in_order_names_that_fit_and_one_owner_of_everything(change):
    check_any(change)


@given(changes())
def test_every_pif_asked_for_is_served_or_stopped_or_displaced_nothing(change):
    found = survey(
        change.records, change.up, down=change.down, becoming_management=change.becoming_management
    )
    stopped = {ref for finding in found.findings if finding.severity == STOP for ref in finding.refs}
    served = {ref for device in found.wanted.devices for ref in device.serves}

    for ref in change.up:
        managed_by_others = not change.records.networks[change.records.pifs[ref].network].managed
        assert ref in served or ref in stopped or managed_by_others
        assert not (
            ref in stopped
            and ref in found.chains.attached
            and not change.records.pifs[ref].currently_attached
        )


@given(changes())
def test_want_raises_exactly_when_something_stops(change):
    arguments: dict[str, Any] = {"down": change.down, "becoming_management": change.becoming_management}
    found = survey(change.records, change.up, **arguments)

    if any(finding.severity == STOP for finding in found.findings):
        with pytest.raises(FindingError):
            want(change.records, change.up, **arguments)
    else:
        assert want(change.records, change.up, **arguments) == found.wanted
