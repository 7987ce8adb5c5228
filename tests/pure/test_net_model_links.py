"""What is wanted of links: MAC addresses, MTUs, names and ethtool settings."""

from __future__ import annotations

import pytest

from hostagent.net.model import survey, want
from tests.pure.net_records import STATIC, Host, link
from tests.pure.net_wanted import MAC0, by_name, two_nics

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
