"""Bond calls through the dispatcher: every refusal byte for byte, and what moves to a bond and back."""

from __future__ import annotations

import pytest

from hostagent.db.datatype import NULL_REF
from hostagent.errors import KernelError
from hostagent.netctl import refusals_bond
from hostagent.netctl.errors import RefusedError
from hostagent.netctl.objects_bond import free_device
from tests.pure.netctl_host import STATIC, opened

LACP = {"hashing_algorithm": "tcpudp_ports", "lacp-time": "slow", "lacp-fallback-ab": "true"}
IPV6 = {"ipv6_configuration_mode": "Static", "IPv6": ["2001:db8::7/64"], "ipv6_gateway": "2001:db8::1"}


@pytest.fixture
def site(tmp_path):
    with opened(tmp_path) as made:
        yield made


def create(site, *members, network=None, mac="", mode="active-backup", properties=None):
    return ("Bond.create", network or site.free, list(members), mac, mode, properties or {})


def fields(site, pif, *names):
    record = site.record("PIF", pif)
    return [record[name] for name in names]


# create


def test_a_bond_is_made_of_nics(site):
    eth1, eth2 = site.pifs[1:3]
    site.set("PIF", eth2, currently_attached=True)
    bond = site.call(*create(site, eth1, eth2))
    record = site.record("Bond", bond)
    assert (record["primary_slave"], set(record["slaves"]), record["mode"]) == (
        eth1,
        {eth1, eth2},
        "active-backup",
    )
    assert (record["properties"], record["auto_update_mac"]) == ({}, True)
    master = record["master"]
    assert fields(
        site, master, "device", "MAC", "VLAN", "MTU", "physical", "network", "currently_attached"
    ) == [
        "bond0",
        "02:00:00:00:00:01",
        -1,
        -1,
        False,
        site.free,
        True,
    ]
    assert site.record("PIF", master)["metrics"] in site.refs("PIF_metrics")
    for member in (eth1, eth2):
        assert fields(site, member, "bond_slave_of", "currently_attached") == [bond, False]
    assert site.net.names() == ["bring_up"]
    facts = site.net.last()
    assert (facts["refs"], facts["down"], facts["management"]) == ((master,), (eth2,), "")
    assert facts["records"].bonds[bond].slaves == (eth1, eth2)
    assert facts["records"].bonds[bond].uuid == record["uuid"]


def test_a_bond_that_cannot_be_made_leaves_nothing(site):
    site.net.fail["bring_up"] = KernelError("no bonding", hint="modprobe bonding")
    error = site.fails(*create(site, *site.pifs[1:3]))
    assert (error[0], error[2]) == ("PIF_CONFIGURATION_ERROR", "no bonding; modprobe bonding")


def test_a_mac_and_lacp_are_taken(site):
    bond = site.call(
        *create(site, *site.pifs[1:3], mac="02:AA:00:00:00:01", mode="lacp", properties={"lacp-time": "fast"})
    )
    record = site.record("Bond", bond)
    assert record["auto_update_mac"] is False
    assert record["properties"] == {**LACP, "lacp-time": "fast"}
    assert fields(site, record["master"], "MAC") == ["02:aa:00:00:00:01"]


def test_the_primary_is_the_management_interface_else_the_one_with_an_address(site):
    eth0, eth1, eth2, eth3, _ = site.pifs
    site.set("PIF", eth2, **IPV6)
    first = site.call(*create(site, eth1, eth2))
    assert site.record("Bond", first)["primary_slave"] == eth2
    site.set("PIF", eth0, **{"ip_configuration_mode": "None"})
    second = site.call(*create(site, eth3, eth0, network=site.make("network", bridge="xapi9")))
    assert site.record("Bond", second)["primary_slave"] == eth0
    with site.db.read() as view:
        assert free_device(view, site.host) == "bond2"


def test_management_and_both_families_of_addresses_go_to_the_bond_and_back(site):
    eth0, eth1 = site.pifs[:2]
    site.set("PIF", eth0, **IPV6, DNS="192.0.2.53", primary_address_type="IPv4", disallow_unplug=True)
    site.set("PIF", eth0, other_config={"defaultroute": "true", "ethtool-tso": "off"})
    site.set("PIF", eth1, currently_attached=True)
    used = site.make("Cluster_host", cluster=site.make("Cluster"), host=site.host, PIF=eth0)
    before = site.record("PIF", eth0)
    bond = site.call(*create(site, eth1, eth0))
    master = site.record("Bond", bond)["master"]
    moved = ("ip_configuration_mode", "IP", "netmask", "gateway", "DNS", "primary_address_type", *IPV6)
    for field in moved:
        assert site.record("PIF", master)[field] == before[field]
    assert fields(site, eth0, "ip_configuration_mode", "IP", "DNS", *IPV6) == ["None", "", "", "None", [], ""]
    assert fields(site, eth0, "management", "disallow_unplug") == [False, False]
    assert fields(site, master, "management", "disallow_unplug") == [True, True]
    assert fields(site, master, "other_config") == [{"defaultroute": "true"}]
    assert fields(site, eth0, "other_config") == [{"ethtool-tso": "off"}]
    assert site.record("Cluster_host", used)["PIF"] == master
    assert site.net.names() == ["bring_up", "listen"]
    up, listen = (facts for _, facts in site.net.said)
    assert (up["management"], up["refs"], up["down"]) == (master, (master,), (eth1, eth0))
    assert (up["records"].bridge, up["was"].bridge) == ("xapi0", "xenbr0")
    assert listen == {"bridge": "xapi0", "family": "IPv4"}
    site.net.said.clear()
    site.call("Bond.destroy", bond)
    after = site.record("PIF", eth0)
    assert {**after, "other_config": before["other_config"]} == before
    assert after["other_config"] == before["other_config"]
    assert site.record("Cluster_host", used)["PIF"] == eth0
    assert site.refs("Bond") == []
    assert master not in site.refs("PIF")
    up, listen = (facts for _, facts in site.net.said)
    assert (up["management"], up["refs"], up["down"]) == (eth0, (eth0, eth1), (master,))
    assert (listen["bridge"], site.net.bridge) == ("xenbr0", "xenbr0")


def test_when_the_listeners_cannot_move_nothing_has_moved(site):
    site.net.fail["listen"] = KernelError("port 443 is taken", hint="ss -ltnp")
    error = site.fails(*create(site, *site.pifs[:2]))
    assert (error[0], error[2]) == ("PIF_CONFIGURATION_ERROR", "port 443 is taken; ss -ltnp")
    assert (site.net.undone, site.net.kept, site.net.bridge) == (["bring_up"], [], "xenbr0")


def test_management_on_a_vlan_of_a_member_stays_on_its_bridge_and_comes_first(site):
    eth0, eth1 = site.pifs[:2]
    site.set("PIF", eth0, management=False, ip_configuration_mode="None")
    vlan, upper, network = site.vlan(eth1, 5, management=True, currently_attached=True, **STATIC)
    site.net.bridge = "xapi5"
    bond = site.call(*create(site, eth0, eth1))
    master = site.record("Bond", bond)["master"]
    assert site.record("Bond", bond)["primary_slave"] == eth0
    assert site.record("VLAN", vlan)["tagged_PIF"] == master
    assert fields(site, upper, "device", "network", "management", "IP") == [
        "bond0",
        network,
        True,
        "192.0.2.7",
    ]
    assert fields(site, upper, "metrics") == fields(site, master, "metrics")
    assert site.net.names() == ["bring_up"]
    assert site.net.last()["refs"] == (upper, master)
    site.call("Bond.destroy", bond)
    assert site.record("VLAN", vlan)["tagged_PIF"] == eth0
    assert fields(site, upper, "device", "currently_attached") == ["eth0", True]
    assert site.net.last()["refs"] == (upper, eth0, eth1)


def test_vlans_of_one_tag_become_one_and_their_guests_meet(site):
    eth1, eth2 = site.pifs[1:3]
    kept, upper, network = site.vlan(eth2, 5, **STATIC)
    gone, other, left = site.vlan(eth1, 5, site.make("network", bridge="xapi50"), currently_attached=True)
    single, _, _ = site.vlan(eth2, 6)
    vif = site.guest(left)
    bond = site.call(*create(site, eth1, eth2))
    assert set(site.refs("VLAN")) == {kept, single}
    assert gone not in site.refs("VLAN")
    assert other not in site.refs("PIF")
    assert site.record("VIF", vif)["network"] == network
    assert fields(site, upper, "currently_attached") == [True]
    facts = site.net.last()
    master = site.record("Bond", bond)["master"]
    assert (facts["refs"], facts["down"], facts["moved"]) == ((master, upper), (other,), {left: network})


def test_guests_that_belong_here_go_with_their_network(site):
    eth1, eth2 = site.pifs[1:3]
    other, _ = site.other_host()
    here = site.guest(site.nets[1])
    elsewhere = site.guest(site.nets[1])
    site.set("VM", site.record("VIF", elsewhere)["VM"], resident_on=other)
    anywhere = site.guest(site.nets[2], resident=False)
    stored = site.guest(site.nets[2], resident=False)
    sr = site.make("SR", type="ext")
    site.make("PBD", SR=sr, host=site.host)
    site.make("VBD", VM=site.record("VIF", stored)["VM"], VDI=site.make("VDI", SR=sr))
    bond = site.call(*create(site, eth1, eth2))
    networks = [site.record("VIF", vif)["network"] for vif in (here, elsewhere, anywhere, stored)]
    assert networks == [site.free, site.nets[1], site.nets[2], site.free]
    assert site.net.last()["moved"] == {site.nets[1]: site.free}
    site.call("Bond.destroy", bond)
    assert [site.record("VIF", vif)["network"] for vif in (here, stored)] == [site.nets[1], site.nets[1]]
    assert site.net.last()["moved"] == {site.free: site.nets[1]}


def test_tunnels_go_with_what_carries_them(site):
    eth1, eth2 = site.pifs[1:3]
    access = site.make("PIF", device="tunnel0", host=site.host, network=site.make("network"), VLAN=-1)
    tunnel = site.make("tunnel", access_PIF=access, transport_PIF=eth2)
    bond = site.call(*create(site, eth1, eth2))
    assert site.record("tunnel", tunnel)["transport_PIF"] == site.record("Bond", bond)["master"]
    site.call("Bond.destroy", bond)
    assert site.record("tunnel", tunnel)["transport_PIF"] == eth1


def test_create_refuses_members(site):
    eth0, eth1, eth2, eth3, eth4 = site.pifs
    assert site.fails(*create(site)) == ["PIF_BOND_NEEDS_MORE_MEMBERS"]
    assert site.fails(*create(site, eth1, "OpaqueRef:x")) == ["HANDLE_INVALID", "PIF", "OpaqueRef:x"]
    assert site.fails(*create(site, eth1, network="OpaqueRef:x")) == [
        "HANDLE_INVALID",
        "network",
        "OpaqueRef:x",
    ]
    site.set("PIF", eth2, managed=False)
    assert site.fails(*create(site, eth1, eth2)) == ["PIF_UNMANAGED", eth2]
    _, master = site.bond(eth3)
    for pif in (eth3, master):
        assert site.fails(*create(site, eth1, pif)) == ["PIF_ALREADY_BONDED", pif]
    _, upper, _ = site.vlan(eth4, 5)
    assert site.fails(*create(site, eth1, upper)) == ["PIF_VLAN_EXISTS", upper]
    access = site.make("PIF", device="tunnel0", host=site.host, network=site.nets[1], VLAN=-1)
    site.make("tunnel", access_PIF=access, transport_PIF=eth0)
    assert site.fails(*create(site, eth1, access)) == ["IS_TUNNEL_ACCESS_PIF", access]
    logical = site.make("PIF", device="eth8", host=site.host, network=site.nets[1], VLAN=-1)
    site.make("network_sriov", physical_PIF=eth4, logical_PIF=logical)
    assert site.fails(*create(site, eth1, logical)) == ["PIF_IS_SRIOV_LOGICAL", logical]
    _, far = site.other_host()
    assert site.fails(*create(site, eth1, far)) == ["PIF_CANNOT_BOND_CROSS_HOST"]
    assert site.fails(*create(site, far)) == ["NOT_IMPLEMENTED", "Bond.create"]


def test_create_refuses_members_that_do_not_go_together(site):
    eth0, eth1, eth2, eth3, eth4 = site.pifs
    site.set("PIF", eth1, **IPV6)
    assert site.fails(*create(site, eth0, eth1)) == ["PIF_BOND_MORE_THAN_ONE_IP"]
    site.vlan(eth2, 5, ip_configuration_mode="DHCP")
    site.vlan(eth3, 5, site.make("network", bridge="xapi51"), ip_configuration_mode="DHCP")
    assert site.fails(*create(site, eth2, eth3)) == ["PIF_BOND_MORE_THAN_ONE_IP"]
    for members, which in (
        ((eth0, eth1), "eth0 (192.0.2.7), eth1 (2001:db8::7/64)"),
        ((eth2, eth3), "VLAN 5 of eth2 (DHCP), VLAN 5 of eth3 (DHCP)"),
    ):
        with site.db.read() as view, pytest.raises(RefusedError) as refused:
            refusals_bond.create(view, site.free, members, "", site.host)
        assert refused.value.found.endswith(which)
    site.set("PIF", eth4, properties={"gro": "off"})
    assert site.fails(*create(site, eth3, eth4)) == ["INCOMPATIBLE_PIF_PROPERTIES"]
    site.set("PIF", eth4, properties={"gro": "on"}, primary_address_type="IPv6")
    assert site.fails(*create(site, eth3, eth4)) == ["PIF_INCOMPATIBLE_PRIMARY_ADDRESS_TYPE", eth4]


def test_why_a_call_is_refused_is_in_the_log_on_one_line(site, caplog):
    caplog.set_level("INFO")
    eth0, eth1, *_ = site.pifs
    site.set("PIF", eth1, **IPV6)
    site.fails(*create(site, eth0, eth1))
    (told,) = [record.getMessage() for record in caplog.records if record.name == "hostagent.api.dispatch"]
    assert told == (
        "Bond.create: several members, or VLANs of the same tag on them, have addresses of their own:"
        " eth0 (192.0.2.7), eth1 (2001:db8::7/64) (hint: take them away from all but one:"
        " PIF.reconfigure_ip mode=None, PIF.reconfigure_ipv6 mode=None)"
    )
    caplog.clear()
    site.fails("PIF.introduce", site.host, "two\nlines", "eth9", True)  # noqa: FBT003 - as the call has it
    (told,) = [record.getMessage() for record in caplog.records if record.name == "hostagent.api.dispatch"]
    assert told.startswith("PIF.introduce: 'two lines' is no MAC address")


def test_create_and_destroy_refuse_while_something_needs_the_members(site):
    eth0, eth1, eth2, eth3, _ = site.pifs
    _, upper, _ = site.vlan(eth1, 5)
    _, master = site.bond(eth3)
    site.set("PIF", master, management=True)
    bond = site.refs("Bond")[0]
    site.set("pool", site.pool, ha_enabled=True)
    refused = ["HA_CANNOT_CHANGE_BOND_STATUS_OF_MGMT_IFACE"]
    assert site.fails(*create(site, eth2, eth0)) == refused
    assert site.fails("Bond.destroy", bond) == refused
    site.set("PIF", upper, management=True)
    assert site.fails(*create(site, eth1, eth2)) == refused
    site.set("pool", site.pool, ha_enabled=False)
    sr = site.make("SR", type="lvmofcoe")
    site.make("PBD", SR=sr, host=site.host, currently_attached=True)
    for pif in (eth2, eth3):
        site.set("PIF", pif, capabilities=["fcoe"])
    assert site.fails(*create(site, eth1, eth2)) == ["PIF_HAS_FCOE_SR_IN_USE", eth2, sr]
    assert site.fails("Bond.destroy", bond) == ["PIF_HAS_FCOE_SR_IN_USE", eth3, sr]
    site.set("PIF", master, managed=False)
    for call in (
        ("Bond.destroy", bond),
        ("Bond.set_mode", bond, "lacp"),
        ("Bond.set_property", bond, "x", "y"),
    ):
        assert site.fails(*call) == ["PIF_UNMANAGED", master]
    assert site.fails("Bond.destroy", NULL_REF) == ["HANDLE_INVALID", "Bond", NULL_REF]


def test_create_refuses_networks(site):
    eth1, eth2 = site.pifs[1:3]
    host, _ = site.other_host()
    far = site.make("PIF", device="eth1", host=host, network=site.free, VLAN=-1, physical=True)
    assert site.fails(*create(site, eth1, eth2)) == ["NETWORK_INCOMPATIBLE_WITH_BOND", site.free]
    site.make("Bond", master=far)
    assert site.call(*create(site, eth1, eth2))
    taken = site.nets[4]
    assert site.fails(*create(site, site.pifs[3], network=taken)) == [
        "NETWORK_ALREADY_CONNECTED",
        taken,
        site.pifs[4],
    ]
    foreign = site.make("network", bridge="br0", managed=False)
    assert site.fails(*create(site, site.pifs[3], network=foreign)) == ["NETWORK_UNMANAGED", foreign]


@pytest.mark.parametrize(
    ("mode", "name", "value"),
    [
        ("lacp", "hashing_algorithm", "md5"),
        ("lacp", "lacp-time", "soon"),
        ("lacp", "lacp-fallback-ab", "yes"),
        ("lacp", "lacp-aggregation-key", "1024"),
        ("lacp", "lacp-aggregation-key", "-1"),
        ("lacp", "lacp-aggregation-key", ""),
        ("lacp", "colour", "red"),
        ("active-backup", "lacp-time", "slow"),
        ("active-backup", "hashing_algorithm", "src_mac"),
    ],
)
def test_bad_properties(site, mode, name, value):
    pifs = site.pifs[1:3]
    assert site.fails(*create(site, *pifs, mode=mode, properties={name: value})) == [
        "INVALID_VALUE",
        name,
        value,
    ]
    bond, _ = site.bond(*pifs, mode=mode)
    assert site.fails("Bond.set_property", bond, name, value) == ["INVALID_VALUE", name, value]


def test_a_bad_mac_and_a_mode_that_cannot_be_had(site):
    pifs = site.pifs[1:3]
    assert site.fails(*create(site, *pifs, mac="01:00:00:00:00:01")) == ["MAC_INVALID", "01:00:00:00:00:01"]
    site.net.modes_refused["balance-slb"] = "the kernel has none"
    refused = ["VALUE_NOT_SUPPORTED", "mode", "balance-slb", "the kernel has none"]
    assert site.fails("Bond.create", site.free, pifs, "") == refused  # what the model's default is
    bond, _ = site.bond(*pifs)
    assert site.fails("Bond.set_mode", bond, "balance-slb") == refused
    assert site.fails("Bond.set_mode", bond, "x") == ["FIELD_TYPE_ERROR", "value"]


# what changes later


def test_the_mode_brings_and_takes_its_properties(site):
    bond, master = site.bond(*site.pifs[1:3])
    site.call("Bond.set_mode", bond, "lacp")
    assert (site.record("Bond", bond)["properties"], site.net.said) == (LACP, [])
    site.set("PIF", master, currently_attached=True)
    site.call("Bond.set_property", bond, "lacp-aggregation-key", "7")
    facts = site.net.last()
    assert (facts["refs"], facts["records"].bonds[bond].properties["lacp-aggregation-key"]) == (
        (master,),
        "7",
    )
    site.call("Bond.set_mode", bond, "active-backup")
    assert site.record("Bond", bond)["properties"] == {}
    assert site.net.last()["was"].bonds[bond].mode == "lacp"
    site.net.fail["bring_up"] = KernelError("the kernel says no", hint="dmesg")
    assert site.fails("Bond.set_mode", bond, "lacp")[:2] == ["PIF_CONFIGURATION_ERROR", master]


def test_a_bond_that_was_down_leaves_its_members_down(site):
    bond, master = site.bond(*site.pifs[1:3])
    site.call("Bond.destroy", bond)
    assert site.net.said == []
    assert master not in site.refs("PIF")
    assert fields(site, site.pifs[1], "bond_slave_of", "currently_attached") == [NULL_REF, False]


def test_a_bond_without_its_primary_gives_back_to_another_member(site):
    eth1, eth2 = site.pifs[1:3]
    bond, master = site.bond(eth2, eth1)
    site.set("PIF", master, **STATIC)
    site.set("Bond", bond, primary_slave=NULL_REF)
    site.call("Bond.destroy", bond)
    assert fields(site, eth1, "IP") == ["192.0.2.7"]


def test_row_11_members_of_several_speeds_are_shown_and_nothing_is_changed(site):
    eth1, eth2 = site.pifs[1:3]
    speeds = {"eth1": 1000, "eth2": 100}
    site.net.found = [nic._replace(carrier=True, speed=speeds.get(nic.name, 0)) for nic in site.net.found]
    code, pif, told = site.fails("Bond.create", site.free, [eth1, eth2], "", "lacp", {})
    assert (code, pif) == ("PIF_CONFIGURATION_ERROR", eth1)
    assert "eth1 1000 Mb/s, eth2 100 Mb/s" in told
    assert site.net.said == []
    assert site.call("Bond.create", site.free, [eth1, eth2], "", "active-backup", {})


def test_a_link_that_is_down_has_no_speed_to_compare(site):
    eth1, eth2 = site.pifs[1:3]
    up = {"eth1": 1000}
    site.net.found = [
        nic._replace(carrier=nic.name in up, speed=up.get(nic.name, 100)) for nic in site.net.found
    ]
    assert site.call("Bond.create", site.free, [eth1, eth2], "", "lacp", {})


def test_a_network_that_is_not_ours_is_refused_before_what_is_wrong_with_the_members(site):
    foreign = site.make("network", bridge="br0", managed=False)
    assert site.fails("Bond.create", foreign, [], "", "lacp", {}) == ["NETWORK_UNMANAGED", foreign]
