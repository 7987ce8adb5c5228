"""Calls that make VLANs, and those of tunnels and SR-IOV, through the dispatcher: every refusal byte for byte."""

from __future__ import annotations

import pytest

from hostagent.api.fault import CallError
from hostagent.errors import KernelError
from tests.pure.netctl_host import opened


@pytest.fixture
def site(tmp_path):
    with opened(tmp_path) as made:
        yield made


def test_a_vlan_is_made_and_plugged(site):
    eth1 = site.pifs[1]
    vlan = site.call("VLAN.create", eth1, 5, site.free)
    record = site.record("VLAN", vlan)
    upper = record["untagged_PIF"]
    assert (record["tagged_PIF"], record["tag"]) == (eth1, 5)
    pif, lower = site.record("PIF", upper), site.record("PIF", eth1)
    assert (pif["device"], pif["VLAN"], pif["MAC"]) == ("eth1", 5, "fe:ff:ff:ff:ff:ff")
    assert (pif["metrics"], pif["VLAN_master_of"], pif["network"]) == (lower["metrics"], vlan, site.free)
    assert (pif["currently_attached"], pif["physical"], lower["currently_attached"]) == (True, False, False)
    assert lower["VLAN_slave_of"] == [vlan]
    facts = site.net.last()
    assert facts["refs"] == (upper,)
    assert facts["records"].vlans[vlan].untagged == upper
    assert vlan not in facts["was"].vlans
    site.call("VLAN.destroy", vlan)
    assert (site.refs("VLAN"), upper in site.refs("PIF")) == ([], False)
    assert lower["metrics"] in site.refs("PIF_metrics")
    assert site.net.names() == ["bring_up", "take_down"]
    assert vlan in site.net.last()["records"].vlans


def test_a_vlan_that_cannot_be_plugged_is_not_made(site):
    site.net.fail["bring_up"] = KernelError("no 8021q", hint="modprobe 8021q")
    error = site.fails("VLAN.create", site.pifs[1], 5, site.free)
    assert (error[0], error[2]) == ("PIF_CONFIGURATION_ERROR", "no 8021q; modprobe 8021q")


def test_what_a_caller_gave_is_short_and_printable_in_the_log(site, caplog):
    caplog.set_level("INFO")
    site.fails("network.create", {"name_label": "x", "bridge": "\x1b[31m\n" + "y" * 5000})
    line = next(one.getMessage() for one in caplog.records if "cannot be called" in one.getMessage())
    assert len(line) < 1100
    assert line.isprintable()


def test_what_has_a_tag_already_is_named(site, caplog):
    caplog.set_level("INFO")
    _, eth1, eth2, *_ = site.pifs
    _, upper, _ = site.vlan(eth1, 5)
    holder = site.record("PIF", upper)["network"]
    site.set("network", holder, name_label="printers")
    site.fails("VLAN.create", eth1, 5, site.free)
    uuid = site.record("network", holder)["uuid"]
    assert "eth1 carries VLAN 5 already, for network 'printers'" in caplog.text
    assert f"use that network ({uuid}), or VLAN.destroy first" in caplog.text
    site.net.foreign[("eth2", 7)] = "fcoe0"
    site.fails("VLAN.create", eth2, 7, site.free)
    assert "fcoe0 is that VLAN already, and was not made by hostagent" in caplog.text


@pytest.mark.parametrize("tag", [0, 4094])
def test_tags_at_the_ends(site, tag):
    assert site.call("VLAN.create", site.pifs[1], tag, site.free)


@pytest.mark.parametrize("tag", [-1, 4095])
def test_tags_that_are_none(site, tag):
    assert site.fails("VLAN.create", site.pifs[1], tag, site.free) == ["VLAN_TAG_INVALID", str(tag)]


def test_create_refuses_what_cannot_carry_vlans(site):
    eth1, eth2, eth3, eth4 = site.pifs[1:]
    site.set("PIF", eth1, managed=False)
    assert site.fails("VLAN.create", eth1, 5, site.free) == ["PIF_UNMANAGED", eth1]
    site.bond(eth2)
    assert site.fails("VLAN.create", eth2, 5, site.free) == ["CANNOT_ADD_VLAN_TO_BOND_SLAVE", eth2]
    _, upper, _ = site.vlan(eth3, 5)
    assert site.fails("VLAN.create", upper, 6, site.free) == ["PIF_IS_VLAN", upper]
    assert site.fails("VLAN.create", eth3, 5, site.free) == ["PIF_VLAN_EXISTS", eth3]
    access = site.make("PIF", device="tunnel0", host=site.host, network=site.nets[1], VLAN=-1)
    site.make("tunnel", access_PIF=access, transport_PIF=eth3)
    assert site.fails("VLAN.create", access, 5, site.free) == ["IS_TUNNEL_ACCESS_PIF", access]
    logical = site.make("PIF", device="eth8", host=site.host, network=site.nets[1], VLAN=-1)
    site.make("network_sriov", physical_PIF=eth4, logical_PIF=logical)
    assert site.fails("VLAN.create", logical, 5, site.free) == ["PIF_IS_SRIOV_LOGICAL", logical]
    site.net.foreign[("eth4", 7)] = "eth4.7-fcoe"
    assert site.fails("VLAN.create", eth4, 7, site.free) == ["VLAN_IN_USE", "eth4", "7"]
    _, far = site.other_host()
    assert site.fails("VLAN.create", far, 5, site.free) == ["NOT_IMPLEMENTED", "VLAN.create"]


def test_create_refuses_networks(site):
    eth1, eth2 = site.pifs[1:3]
    assert site.fails("VLAN.create", eth1, 5, "OpaqueRef:x") == ["HANDLE_INVALID", "network", "OpaqueRef:x"]
    foreign = site.make("network", bridge="br0", managed=False)
    assert site.fails("VLAN.create", eth1, 5, foreign) == ["NETWORK_UNMANAGED", foreign]
    taken = site.nets[2]
    assert site.fails("VLAN.create", eth1, 5, taken) == ["NETWORK_ALREADY_CONNECTED", taken, eth2]
    trunk = site.make("network", bridge="xapi8")
    site.guest(trunk, trunks=[5, 6])
    assert site.fails("VLAN.create", eth1, 5, trunk) == ["NETWORK_INCOMPATIBLE_WITH_TRUNKS", trunk]
    _, far = site.other_host()
    far_network = site.record("PIF", far)["network"]
    refused = ["NETWORK_INCOMPATIBLE_WITH_VLAN_ON_BRIDGE", far_network]
    assert site.fails("VLAN.create", eth1, 5, far_network) == refused
    logical = site.make("PIF", device="eth8", host=site.host, network=site.free, VLAN=-1)
    site.make("network_sriov", physical_PIF=eth2, logical_PIF=logical)
    refused = ["NETWORK_INCOMPATIBLE_WITH_VLAN_ON_SRIOV", far_network]
    assert site.fails("VLAN.create", logical, 5, far_network) == refused
    _, _, good = site.vlan(far, 5)
    assert site.call("VLAN.create", eth1, 5, good)


def test_destroy_refuses(site):
    eth1 = site.pifs[1]
    vlan, upper, network = site.vlan(eth1, 5, currently_attached=True)
    for values, code in (
        ({"management": True}, "PIF_IS_MANAGEMENT_INTERFACE"),
        ({"disallow_unplug": True}, "PIF_DOES_NOT_ALLOW_UNPLUG"),
    ):
        site.set("PIF", upper, **values)
        assert site.fails("VLAN.destroy", vlan) == [code, upper]
        site.set("PIF", upper, **dict.fromkeys(values, False))
    vif = site.guest(network)
    assert site.fails("VLAN.destroy", vlan) == ["VIF_IN_USE", network, vif]
    access = site.make("PIF", device="tunnel0", host=site.host, network=site.free, VLAN=-1)
    site.make("tunnel", access_PIF=access, transport_PIF=upper)
    assert site.fails("VLAN.destroy", vlan) == ["PIF_TUNNEL_STILL_EXISTS", upper]
    site.set("pool", site.pool, ha_enabled=True)
    other, _, _ = site.vlan(eth1, 6)
    assert site.fails("VLAN.destroy", other) == ["HA_IS_ENABLED"]


def test_a_vlan_in_the_pool_is_this_hosts_and_waits_for_no_dead_one(site):
    eth1 = site.pifs[1]
    (upper,) = site.call("pool.create_VLAN_from_PIF", eth1, site.free, 5)
    assert site.record("PIF", upper)["VLAN"] == 5
    second = site.make("network", bridge="xapi8")
    (other,) = site.call("pool.create_VLAN", "eth1", second, 6)
    assert site.record("PIF", other)["network"] == second
    host, _ = site.other_host()
    site.make("PIF", device="eth1", host=host, network=site.nets[1], VLAN=-1, physical=True)
    third = site.make("network", bridge="xapi9")
    for call in (("pool.create_VLAN_from_PIF", eth1, third, 7), ("pool.create_VLAN", "eth1", third, 7)):
        assert site.fails(*call) == ["NOT_IMPLEMENTED", "VLAN.create"]
    site.set("host_metrics", site.record("host", host)["metrics"], live=False)
    assert len(site.call("pool.create_VLAN_from_PIF", eth1, third, 7)) == 1
    assert site.fails("pool.create_VLAN", "eth9", third, 7) == ["PIF_DEVICE_NOT_FOUND"]


def test_a_record_of_a_vlan_alone(site):
    upper = site.make("PIF", device="eth1", host=site.host, network=site.free, VLAN=5)
    vlan = site.call("VLAN.pool_introduce", site.pifs[1], upper, 5, {})
    assert site.record("PIF", upper)["VLAN_master_of"] == vlan
    assert site.net.said == []


def test_a_tunnel_is_refused_for_what_is_wrong_with_its_pif_or_network_first(site):
    eth0, eth1, eth2, eth3, _ = site.pifs
    own = site.nets[1]
    assert site.fails("tunnel.create", eth1, site.free) == ["TRANSPORT_PIF_NOT_CONFIGURED", eth1]
    site.set("PIF", eth1, ipv6_configuration_mode="Autoconf")
    assert site.fails("tunnel.create", eth1, site.free) == ["TRANSPORT_PIF_NOT_CONFIGURED", eth1]
    assert site.fails("tunnel.create", eth0, own) == ["NETWORK_ALREADY_CONNECTED", own, eth1]
    _, far = site.other_host()
    network = site.record("PIF", far)["network"]
    assert site.fails("tunnel.create", eth0, network) == ["NETWORK_INCOMPATIBLE_WITH_TUNNEL", network]
    site.bond(eth2)
    assert site.fails("tunnel.create", eth2, site.free) == ["CANNOT_ADD_TUNNEL_TO_BOND_SLAVE", eth2]
    access = site.make("PIF", device="tunnel0", host=site.host, network=site.make("network"), VLAN=-1)
    site.make("tunnel", access_PIF=access, transport_PIF=eth0)
    assert site.fails("tunnel.create", access, site.free) == ["IS_TUNNEL_ACCESS_PIF", access]
    logical = site.make("PIF", device="eth3", host=site.host, network=site.make("network"), VLAN=-1)
    site.make("network_sriov", physical_PIF=eth3, logical_PIF=logical)
    assert site.fails("tunnel.create", logical, site.free) == ["CANNOT_ADD_TUNNEL_TO_SRIOV_LOGICAL", logical]
    _, upper, _ = site.vlan(logical, 5, ip_configuration_mode="DHCP")
    assert site.fails("tunnel.create", upper, site.free) == [
        "CANNOT_ADD_TUNNEL_TO_VLAN_ON_SRIOV_LOGICAL",
        upper,
    ]
    _, upper, _ = site.vlan(eth3, 6, ip_configuration_mode="DHCP")
    assert site.fails("tunnel.create", upper, site.free) == ["OPENVSWITCH_NOT_ACTIVE"]
    site.set("network", site.free, managed=False)
    assert site.fails("tunnel.create", eth0, site.free) == ["NETWORK_UNMANAGED", site.free]
    site.set("PIF", eth0, managed=False)
    assert site.fails("tunnel.create", eth0, site.free) == ["PIF_UNMANAGED", eth0]


def test_what_this_backend_cannot_do_says_so(site):
    eth1, eth2 = site.pifs[1:3]
    assert site.fails("tunnel.create", site.pifs[0], site.free) == ["OPENVSWITCH_NOT_ACTIVE"]
    assert site.fails("tunnel.create", "OpaqueRef:x", site.free) == ["HANDLE_INVALID", "PIF", "OpaqueRef:x"]
    access = site.make("PIF", device="tunnel0", host=site.host, network=site.free, VLAN=-1)
    tunnel = site.make("tunnel", access_PIF=access, transport_PIF=eth1)
    assert site.fails("tunnel.destroy", tunnel) == ["OPENVSWITCH_NOT_ACTIVE"]
    assert site.fails("network_sriov.create", access, site.nets[0]) == ["PIF_IS_NOT_PHYSICAL", access]
    assert site.fails("network_sriov.create", eth1, site.free) == ["PIF_IS_NOT_SRIOV_CAPABLE", eth1]
    for pif in (eth1, eth2):
        site.set("PIF", pif, capabilities=["sriov"])
    own = site.nets[1]
    assert site.fails("network_sriov.create", eth1, own) == ["NETWORK_ALREADY_CONNECTED", own, eth1]
    _, far = site.other_host()
    network = site.record("PIF", far)["network"]
    assert site.fails("network_sriov.create", eth1, network) == ["NETWORK_INCOMPATIBLE_WITH_SRIOV", network]
    logical = site.make("PIF", device="eth1", host=site.host, network=site.make("network"), VLAN=-1)
    sriov = site.make("network_sriov", physical_PIF=eth1, logical_PIF=logical)
    assert site.fails("network_sriov.create", eth1, site.free) == ["NETWORK_SRIOV_ALREADY_ENABLED", eth1]
    gate = ["LICENCE_RESTRICTION", "Network_sriov"]
    assert site.fails("network_sriov.create", eth2, site.make("network")) == gate
    for call in ("network_sriov.destroy", "network_sriov.get_remaining_capacity"):
        assert site.fails(call, sriov) == gate
        with pytest.raises(CallError, match="HANDLE_INVALID network_sriov OpaqueRef:x"):
            site.call(call, "OpaqueRef:x")
