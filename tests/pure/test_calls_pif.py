"""PIF calls through the dispatcher: every refusal byte for byte, what they change, and when they change nothing."""

from __future__ import annotations

import pytest

from hostagent.api.fault import CallError
from hostagent.db.datatype import NULL_REF
from hostagent.errors import KernelError
from tests.pure.netctl_host import NICS, STATIC, opened

IP = ("PIF.reconfigure_ip", "Static", "192.0.2.9", "255.255.255.0", "192.0.2.1", "192.0.2.53")
IP6 = ("PIF.reconfigure_ipv6", "Static", "2001:db8::7/64", "2001:db8::1", "2001:db8::53")


@pytest.fixture
def site(tmp_path):
    with opened(tmp_path) as made:
        yield made


def reconfigure(site, pif, call=IP, **changed):
    """The parameters of a call that is right but for what is changed."""
    name, *given = call
    words = ("mode", "ip", "netmask", "gateway", "dns") if call is IP else ("mode", "ip", "gateway", "dns")
    return name, pif, *({**dict(zip(words, given, strict=True)), **changed}[word] for word in words)


BROKEN = KernelError("eth1 did not come up", hint="look at the cable")


# plug and unplug


def test_plug_brings_up_and_then_says_so(site):
    eth1 = site.pifs[1]
    site.net.mtus = {eth1: 9000}
    assert site.call("PIF.plug", eth1) == ""
    facts = site.net.last()
    assert (facts["refs"], facts["down"], facts["management"]) == ((eth1,), (), "")
    assert facts["records"].pifs[eth1].currently_attached
    assert not facts["was"].pifs[eth1].currently_attached
    record = site.record("PIF", eth1)
    assert (record["currently_attached"], record["MTU"]) == (True, 9000)
    assert site.net.kept == ["bring_up"]


def test_a_plug_that_fails_leaves_the_database_and_tells_the_kernels_words(site):
    site.net.fail["bring_up"] = BROKEN
    error = site.fails("PIF.plug", site.pifs[1])
    assert error == ["PIF_CONFIGURATION_ERROR", site.pifs[1], "eth1 did not come up; look at the cable"]


def test_a_failure_with_a_code_of_its_own_keeps_it(site):
    from hostagent.netctl.errors import RefusedError

    site.net.fail["bring_up"] = RefusedError("VLAN_IN_USE", "eth1", "5", found="it is", hint="h")
    assert site.fails("PIF.plug", site.pifs[1]) == ["VLAN_IN_USE", "eth1", "5"]


def test_what_was_done_is_undone_when_objects_have_changed_meanwhile(site):
    """A guest's interface comes onto the network of a member while the bond is made."""
    site.net.meanwhile = lambda: site.guest(site.nets[1])
    with pytest.raises(CallError) as caught:
        site.call("Bond.create", site.free, site.pifs[1:3], "", "active-backup", {})
    assert caught.value.code == "OTHER_OPERATION_IN_PROGRESS"
    assert site.net.undone == ["bring_up"]
    assert site.refs("Bond") == []


def test_what_was_done_is_undone_when_the_change_is_refused_meanwhile(site):
    site.net.meanwhile = lambda: site.set("PIF", site.pifs[1], managed=False)
    with pytest.raises(CallError) as caught:
        site.call("PIF.plug", site.pifs[1])
    assert caught.value.code == "PIF_UNMANAGED"
    assert site.net.undone == ["bring_up"]


def test_a_host_without_its_network_yet_says_that_it_boots(site):
    site.core.network = None
    assert site.fails("PIF.plug", site.pifs[1]) == ["HOST_STILL_BOOTING"]


def test_plug_of_a_bond_takes_its_members_along(site):
    eth1, eth2 = site.pifs[1:3]
    bond, master = site.bond(eth1, eth2)
    site.set("PIF", eth1, currently_attached=True, MAC="02:00:00:00:00:aa")
    site.set("network", site.record("PIF", master)["network"], MTU=9000)
    site.call("PIF.plug", master)
    assert not site.record("PIF", eth1)["currently_attached"]
    assert site.record("PIF", master)["MAC"] == "02:00:00:00:00:aa"
    assert [site.record("network", site.nets[n])["MTU"] for n in (1, 2, 3)] == [9000, 9000, 1500]
    assert site.net.last()["records"].networks[site.nets[1]].mtu == 9000
    site.set("Bond", bond, auto_update_mac=False)
    site.set("PIF", eth1, MAC="02:00:00:00:00:bb")
    site.call("PIF.plug", master)
    assert site.record("PIF", master)["MAC"] == "02:00:00:00:00:aa"


def test_plug_refuses(site):
    eth1, eth2, eth3, eth4 = site.pifs[1:]
    site.set("PIF", eth1, managed=False)
    assert site.fails("PIF.plug", eth1) == ["PIF_UNMANAGED", eth1]
    site.bond(eth2)
    assert site.fails("PIF.plug", eth2) == ["CANNOT_PLUG_BOND_SLAVE", eth2]
    access = site.make("PIF", device="tunnel0", host=site.host, network=site.free, VLAN=-1)
    site.make("tunnel", access_PIF=access, transport_PIF=eth3)
    assert site.fails("PIF.plug", access) == ["TRANSPORT_PIF_NOT_CONFIGURED", eth3]
    site.set("PIF", eth3, ip_configuration_mode="DHCP")
    assert site.fails("PIF.plug", access) == ["OPENVSWITCH_NOT_ACTIVE"]
    site.set("network", site.nets[4], managed=False, bridge="br-ext")
    assert site.fails("PIF.plug", eth4) == ["BRIDGE_NOT_AVAILABLE", "br-ext"]
    site.net.bridges.add("br-ext")
    assert site.call("PIF.plug", eth4) == ""
    logical = site.make("PIF", device="eth9", host=site.host, network=site.free, VLAN=-1)
    site.make("network_sriov", physical_PIF=eth4, logical_PIF=logical)
    assert site.fails("PIF.plug", logical) == ["PIF_IS_SRIOV_LOGICAL", logical]
    _, far = site.other_host()
    assert site.fails("PIF.plug", far) == ["NOT_IMPLEMENTED", "PIF.plug"]
    assert site.fails("PIF.plug", "OpaqueRef:x") == ["HANDLE_INVALID", "PIF", "OpaqueRef:x"]
    assert site.fails("PIF.plug", NULL_REF) == ["HANDLE_INVALID", "PIF", NULL_REF]


def test_unplug_takes_down_and_a_member_of_a_bond_is_left(site):
    eth1, eth2 = site.pifs[1:3]
    site.set("PIF", eth1, currently_attached=True)
    site.call("PIF.unplug", eth1)
    assert site.net.names() == ["take_down"]
    assert site.net.last()["refs"] == (eth1,)
    assert not site.record("PIF", eth1)["currently_attached"]
    site.bond(eth2)
    site.call("PIF.unplug", eth2)
    assert site.net.names() == ["take_down"]


def fcoe_storage(site, pif):
    sr = site.make("SR", type="lvmofcoe")
    site.make("PBD", SR=sr, host=site.host, currently_attached=True)
    site.set("PIF", pif, capabilities=["fcoe"])
    return sr


def cluster(site, pif):
    return site.make("Cluster_host", cluster=site.make("Cluster"), host=site.host, PIF=pif, enabled=True)


def test_unplug_refuses(site):
    eth0, eth1, eth2, eth3, eth4 = site.pifs
    assert site.fails("PIF.unplug", eth0) == ["PIF_IS_MANAGEMENT_INTERFACE", eth0]
    site.set("PIF", eth1, disallow_unplug=True)
    assert site.fails("PIF.unplug", eth1) == ["PIF_DOES_NOT_ALLOW_UNPLUG", eth1]
    sr = fcoe_storage(site, eth2)
    assert site.fails("PIF.unplug", eth2) == ["PIF_HAS_FCOE_SR_IN_USE", eth2, sr]
    vif = site.guest(site.nets[3])
    assert site.fails("PIF.unplug", eth3) == ["VIF_IN_USE", site.nets[3], vif]
    site.set("PIF", eth4, managed=False)
    assert site.fails("PIF.unplug", eth4) == ["PIF_UNMANAGED", eth4]


def test_unplug_refuses_while_the_pool_is_protected(site):
    eth3 = site.pifs[3]
    site.set("pool", site.pool, redo_log_enabled=True)
    assert site.fails("PIF.unplug", eth3) == ["REDO_LOG_IS_ENABLED"]
    site.set("pool", site.pool, ha_enabled=True)
    assert site.fails("PIF.unplug", eth3) == ["HA_IS_ENABLED"]
    vif = site.guest(site.nets[3], resident=False)
    site.set("VM", site.record("VIF", vif)["VM"], ha_restart_priority="restart")
    assert site.fails("PIF.unplug", eth3) == ["HA_IS_ENABLED"]
    site.set("pool", site.pool, ha_host_failures_to_tolerate=1)
    assert site.fails("PIF.unplug", eth3) == ["HA_CONSTRAINT_VIOLATION_NETWORK_NOT_SHARED", site.nets[3]]


# addresses


def test_addresses_of_an_unplugged_pif_are_only_noted(site):
    eth1 = site.pifs[1]
    site.call(*reconfigure(site, eth1))
    site.call(*reconfigure(site, eth1, IP6))
    record = site.record("PIF", eth1)
    assert (record["ip_configuration_mode"], record["IP"], record["netmask"], record["gateway"]) == IP[1:5]
    assert (record["ipv6_configuration_mode"], record["IPv6"], record["ipv6_gateway"]) == (
        "Static",
        ["2001:db8::7/64"],
        "2001:db8::1",
    )
    assert site.net.said == []


def test_addresses_of_an_attached_pif_are_changed_in_place(site):
    eth0 = site.pifs[0]
    site.call(*reconfigure(site, eth0))
    facts = site.net.last()
    assert (facts["refs"], facts["records"].pifs[eth0].ip, facts["was"].pifs[eth0].ip) == (
        (eth0,),
        "192.0.2.9",
        "192.0.2.7",
    )
    site.net.fail["bring_up"] = BROKEN
    error = site.fails(*reconfigure(site, eth0, ip="192.0.2.10"))
    assert error[:2] == ["PIF_CONFIGURATION_ERROR", eth0]


def test_each_family_has_its_own_dns_servers(site):
    eth1 = site.pifs[1]
    site.call(*reconfigure(site, eth1))
    site.call(*reconfigure(site, eth1, IP6))
    assert site.record("PIF", eth1)["DNS"] == "2001:db8::53,192.0.2.53"
    site.call(*reconfigure(site, eth1, dns="192.0.2.54, 192.0.2.55"))
    assert site.record("PIF", eth1)["DNS"] == "192.0.2.54,192.0.2.55,2001:db8::53"
    site.call(*reconfigure(site, eth1, IP6, mode="None", ip="", gateway="", dns=""))
    assert site.record("PIF", eth1)["DNS"] == "192.0.2.54,192.0.2.55"
    assert site.record("PIF", eth1)["IPv6"] == []


def test_what_dhcp_has_found_stays_where_dhcp_stays(site):
    eth1 = site.pifs[1]
    site.set("PIF", eth1, **{**STATIC, "ip_configuration_mode": "DHCP"})
    site.set("PIF", eth1, ipv6_configuration_mode="Autoconf", IPv6=["2001:db8::9/64"])
    site.call(*reconfigure(site, eth1, mode="DHCP", ip="", netmask="", gateway="", dns=""))
    site.call(*reconfigure(site, eth1, IP6, mode="Autoconf", ip="", gateway="", dns=""))
    assert site.record("PIF", eth1)["IP"] == "192.0.2.7"
    assert site.record("PIF", eth1)["IPv6"] == ["2001:db8::9/64"]
    site.call(*reconfigure(site, eth1, mode="None", ip="", netmask="", gateway="", dns=""))
    record = site.record("PIF", eth1)
    assert [record[field] for field in ("ip_configuration_mode", "IP", "netmask", "gateway")] == [
        "None",
        "",
        "",
        "",
    ]


@pytest.mark.parametrize(
    ("call", "changed", "error"),
    [
        (IP, {"ip": ""}, ["INVALID_IP_ADDRESS_SPECIFIED", "IP"]),
        (IP, {"ip": "192.0.2.256"}, ["INVALID_IP_ADDRESS_SPECIFIED", "IP"]),
        (IP, {"ip": "224.0.0.1"}, ["INVALID_IP_ADDRESS_SPECIFIED", "IP"]),
        (IP, {"ip": "0.0.0.1"}, ["INVALID_IP_ADDRESS_SPECIFIED", "IP"]),
        (IP, {"ip": "2001:db8::1"}, ["INVALID_IP_ADDRESS_SPECIFIED", "IP"]),
        (IP, {"mode": "DHCP", "ip": "x"}, ["INVALID_IP_ADDRESS_SPECIFIED", "IP"]),
        (IP, {"netmask": ""}, ["INVALID_IP_ADDRESS_SPECIFIED", "netmask"]),
        (IP, {"netmask": "255.0.255.0"}, ["INVALID_IP_ADDRESS_SPECIFIED", "netmask"]),
        (IP, {"netmask": "0.0.0.255"}, ["INVALID_IP_ADDRESS_SPECIFIED", "netmask"]),
        (IP, {"gateway": "no"}, ["INVALID_IP_ADDRESS_SPECIFIED", "gateway"]),
        (IP, {"dns": "192.0.2.1,x"}, ["INVALID_IP_ADDRESS_SPECIFIED", "DNS"]),
        (IP6, {"ip": ""}, ["INVALID_CIDR_ADDRESS_SPECIFIED", "IPv6"]),
        (IP6, {"ip": "2001:db8::7"}, ["INVALID_CIDR_ADDRESS_SPECIFIED", "IPv6"]),
        (IP6, {"ip": "2001:db8::7/129"}, ["INVALID_CIDR_ADDRESS_SPECIFIED", "IPv6"]),
        (IP6, {"ip": "2001:db8::7/٤"}, ["INVALID_CIDR_ADDRESS_SPECIFIED", "IPv6"]),
        (IP6, {"ip": "ff02::1/64"}, ["INVALID_CIDR_ADDRESS_SPECIFIED", "IPv6"]),
        (IP6, {"ip": "192.0.2.7/24"}, ["INVALID_CIDR_ADDRESS_SPECIFIED", "IPv6"]),
        (IP6, {"ip": "fe80::5/64"}, ["INVALID_CIDR_ADDRESS_SPECIFIED", "IPv6"]),
        (IP6, {"ip": "FEBF::5/64"}, ["INVALID_CIDR_ADDRESS_SPECIFIED", "IPv6"]),
        (IP6, {"mode": "DHCP", "ip": "fe80::5/64"}, ["INVALID_CIDR_ADDRESS_SPECIFIED", "IPv6"]),
        (IP6, {"gateway": "::"}, ["INVALID_IP_ADDRESS_SPECIFIED", "gateway"]),
        (IP6, {"dns": "x"}, ["INVALID_IP_ADDRESS_SPECIFIED", "DNS"]),
        (IP, {"mode": "Autoconf"}, ["FIELD_TYPE_ERROR", "mode"]),
    ],
)
def test_addresses_that_are_none(site, call, changed, error):
    assert site.fails(*reconfigure(site, site.pifs[1], call, **changed)) == error


def test_the_gateway_of_an_ipv6_address_may_be_link_local(site):
    eth1 = site.pifs[1]

    site.call(*reconfigure(site, eth1, IP6, gateway="fe80::1"))

    assert site.record("PIF", eth1)["ipv6_gateway"] == "fe80::1"


def test_protection_holds_addresses_but_not_dns(site):
    eth0, eth1 = site.pifs[:2]
    same = {"ip": "192.0.2.7"}
    for field, code in (("redo_log_enabled", "REDO_LOG_IS_ENABLED"), ("ha_enabled", "HA_IS_ENABLED")):
        site.set("pool", site.pool, **{field: True})
        assert site.fails(*reconfigure(site, eth0)) == [code]
        assert site.fails(*reconfigure(site, eth1, IP6)) == [code]
        assert site.fails("PIF.set_primary_address_type", eth1, "IPv6") == [code]
    site.call(*reconfigure(site, eth0, **same, dns="192.0.2.99"))
    assert site.record("PIF", eth0)["DNS"] == "192.0.2.99"
    site.set("PIF", eth1, ipv6_configuration_mode="Static", IPv6=[IP6[2]], ipv6_gateway=IP6[3])
    site.call(*reconfigure(site, eth1, IP6, dns="2001:db8::99"))
    site.set("pool", site.pool, ha_enabled=False, redo_log_enabled=False)
    used = cluster(site, eth0)
    assert site.fails(*reconfigure(site, eth0)) == ["CLUSTERING_ENABLED", used]
    assert site.fails(*reconfigure(site, eth0, IP6)) == ["CLUSTERING_ENABLED", used]
    site.call(*reconfigure(site, eth0, **same, dns=""))


def test_the_management_interface_keeps_an_address_of_its_family(site):
    eth0 = site.pifs[0]
    nothing = {"mode": "None", "ip": "", "netmask": "", "gateway": "", "dns": ""}
    assert site.fails(*reconfigure(site, eth0, **nothing)) == ["PIF_IS_MANAGEMENT_INTERFACE", eth0]
    site.call(*reconfigure(site, eth0, IP6, mode="None", ip="", gateway="", dns=""))
    assert site.fails("PIF.set_primary_address_type", eth0, "IPv6") == ["PIF_IS_MANAGEMENT_INTERFACE", eth0]
    site.set("PIF", eth0, primary_address_type="IPv6")
    error = site.fails(*reconfigure(site, eth0, IP6, mode="None", ip="", gateway="", dns=""))
    assert error == ["PIF_IS_MANAGEMENT_INTERFACE", eth0]


def test_unmanaged_pifs_and_members_of_bonds_get_no_addresses(site):
    eth1, eth2 = site.pifs[1:3]
    site.set("PIF", eth1, managed=False)
    for call in (reconfigure(site, eth1), reconfigure(site, eth1, IP6)):
        assert site.fails(*call) == ["PIF_UNMANAGED", eth1]
    assert site.fails("PIF.set_primary_address_type", eth1, "IPv6") == ["PIF_UNMANAGED", eth1]
    assert site.fails("PIF.set_property", eth1, "gro", "off") == ["PIF_UNMANAGED", eth1]
    site.bond(eth2)
    assert site.fails(*reconfigure(site, eth2)) == ["CANNOT_PLUG_BOND_SLAVE", eth2]


def test_the_primary_family_changes(site):
    eth1 = site.pifs[1]
    site.call("PIF.set_primary_address_type", eth1, "IPv6")
    assert site.net.said == []
    site.set("PIF", eth1, currently_attached=True)
    site.call("PIF.set_primary_address_type", eth1, "IPv4")
    assert site.net.last()["refs"] == (eth1,)
    assert site.record("PIF", eth1)["primary_address_type"] == "IPv4"


# properties and marks


def test_a_property_reaches_members_and_vlans(site):
    eth1, eth2 = site.pifs[1:3]
    _, master = site.bond(eth1, eth2)
    site.set("PIF", master, currently_attached=True)
    _, low, _ = site.vlan(master, 5, currently_attached=True)
    _, high, _ = site.vlan(master, 10)
    site.call("PIF.set_property", master, "gro", "off")
    for pif in (eth1, eth2, master, low, high):
        assert site.record("PIF", pif)["properties"] == {"gro": "off"}
    assert site.net.last()["refs"] == (master, low)


def test_properties_that_cannot_be_set(site):
    eth1, eth2, eth3 = site.pifs[1:4]
    assert site.fails("PIF.set_property", eth1, "gro", "maybe") == ["INVALID_VALUE", "gro", "maybe"]
    assert site.fails("PIF.set_property", eth1, "lro", "on") == ["INVALID_VALUE", "lro", "on"]
    site.bond(eth2)
    _, upper, _ = site.vlan(eth3, 5)
    for pif in (eth2, upper):
        assert site.fails("PIF.set_property", pif, "gro", "on") == ["CANNOT_CHANGE_PIF_PROPERTIES", pif]


def test_disallow_unplug(site):
    eth1 = site.pifs[1]
    site.call("PIF.set_disallow_unplug", eth1, True)  # noqa: FBT003
    used = cluster(site, eth1)
    assert site.fails("PIF.set_disallow_unplug", eth1, False) == ["CLUSTERING_ENABLED", used]  # noqa: FBT003
    site.set("Cluster_host", used, enabled=False)
    site.call("PIF.set_disallow_unplug", eth1, False)  # noqa: FBT003
    assert site.record("PIF", eth1)["disallow_unplug"] is False


# records come and go


def test_forget_takes_the_record_and_its_measurements(site):
    eth1 = site.pifs[1]
    metrics = site.record("PIF", eth1)["metrics"]
    site.set("PIF", eth1, currently_attached=True)
    site.call("PIF.forget", eth1)
    assert eth1 not in site.refs("PIF")
    assert metrics not in site.refs("PIF_metrics")
    assert site.net.last()["refs"] == (eth1,)
    assert eth1 in site.net.last()["records"].pifs
    site.call("PIF.forget", site.pifs[2])
    assert site.net.names() == ["take_down"]


def test_forget_refuses(site):
    eth0, eth1, eth2, eth3, eth4 = site.pifs
    assert site.fails("PIF.forget", eth0) == ["PIF_IS_MANAGEMENT_INTERFACE", eth0]
    _, master = site.bond(eth1)
    for pif in (eth1, master):
        assert site.fails("PIF.forget", pif) == ["PIF_ALREADY_BONDED", pif]
    _, upper, _ = site.vlan(eth2, 5)
    assert site.fails("PIF.forget", eth2) == ["PIF_VLAN_STILL_EXISTS", eth2]
    assert site.fails("PIF.forget", upper) == ["PIF_IS_VLAN", upper]
    access = site.make("PIF", device="tunnel0", host=site.host, network=site.free, VLAN=-1)
    tunnel = site.make("tunnel", access_PIF=access, transport_PIF=eth3)
    assert site.fails("PIF.forget", eth3) == ["PIF_TUNNEL_STILL_EXISTS", eth3]
    site.set("tunnel", tunnel, transport_PIF=eth0)
    logical = site.make("PIF", device="eth3", host=site.host, network=site.free, VLAN=-1)
    site.make("network_sriov", physical_PIF=eth3, logical_PIF=logical)
    assert site.fails("PIF.forget", eth3) == ["PIF_SRIOV_STILL_EXISTS", eth3]
    assert site.fails("PIF.forget", logical) == ["CANNOT_FORGET_SRIOV_LOGICAL", logical]
    site.set("PIF", eth4, disallow_unplug=True)
    assert site.fails("PIF.forget", eth4) == ["PIF_DOES_NOT_ALLOW_UNPLUG", eth4]
    site.set("PIF", eth4, disallow_unplug=False)
    used = cluster(site, eth4)
    assert site.fails("PIF.forget", eth4) == ["CLUSTERING_ENABLED", used]
    site.set("Cluster_host", used, enabled=False)
    site.set("pool", site.pool, ha_enabled=True)
    assert site.fails("PIF.forget", eth4) == ["HA_IS_ENABLED"]
    site.set("pool", site.pool, ha_enabled=False)
    site.set("PIF", eth4, currently_attached=True)
    vif = site.guest(site.nets[4])
    assert site.fails("PIF.forget", eth4) == ["VIF_IN_USE", site.nets[4], vif]
    sr = fcoe_storage(site, eth4)
    assert site.fails("PIF.forget", eth4) == ["PIF_HAS_FCOE_SR_IN_USE", eth4, sr]


def test_a_forgotten_nic_is_introduced_on_its_network_again(site):
    eth1 = site.pifs[1]
    site.call("PIF.forget", eth1)
    made = site.call("PIF.introduce", site.host, NICS[1].mac.upper(), "eth1")
    record = site.record("PIF", made)
    assert (record["network"], record["MAC"], record["managed"]) == (site.nets[1], NICS[1].mac, True)
    site.call("PIF.forget", made)
    left = site.call("PIF.introduce", site.host, "", "eth1", False)  # noqa: FBT003
    record = site.record("PIF", left)
    network = site.record("network", record["network"])
    assert (record["managed"], network["bridge"], network["managed"]) == (False, "", False)


def test_introduce_refuses(site):
    host = site.host
    missing = "COULD_NOT_FIND_NETWORK_INTERFACE_WITH_SPECIFIED_DEVICE_NAME_AND_MAC_ADDRESS"
    for mac in ("nonsense", "02:00:00:00:00", "03:00:00:00:00:01", "00:00:00:00:00:00"):
        assert site.fails("PIF.introduce", host, mac, "eth1") == ["MAC_INVALID", mac]
    assert site.fails("PIF.introduce", host, "", "eth1") == ["DUPLICATE_PIF_DEVICE_NAME", "eth1"]
    assert site.fails("PIF.introduce", host, "", "eth9") == [missing, "eth9", ""]
    site.call("PIF.forget", site.pifs[1])
    other = NICS[2].mac
    assert site.fails("PIF.introduce", host, other, "eth1") == [missing, "eth1", other]
    site.net.found[1] = NICS[1]._replace(present=False)
    assert site.fails("PIF.introduce", host, "", "eth1") == [missing, "eth1", ""]
    assert site.fails("PIF.introduce", "OpaqueRef:x", "", "eth1") == ["HANDLE_INVALID", "host", "OpaqueRef:x"]
    far, _ = site.other_host()
    assert site.fails("PIF.introduce", far, "", "eth1") == ["NOT_IMPLEMENTED", "PIF.introduce"]
    assert site.fails("PIF.scan", far) == ["NOT_IMPLEMENTED", "PIF.scan"]


def test_scan_makes_what_is_new_and_flags_the_management_interface(site):
    site.call("PIF.forget", site.pifs[3])
    site.set("PIF", site.pifs[0], management=False)
    site.call("PIF.scan", site.host)
    site.call("PIF.scan", site.host)
    devices = [site.record("PIF", pif)["device"] for pif in site.refs("PIF")]
    assert sorted(devices) == [nic.name for nic in NICS]
    assert site.record("PIF", site.pifs[0])["management"] is True
    assert site.net.said == []


def test_destroy_and_create_vlan_in_their_deprecated_forms(site):
    eth1 = site.pifs[1]
    assert site.fails("PIF.destroy", eth1) == ["PIF_IS_PHYSICAL", eth1]
    assert site.fails("PIF.create_VLAN", "eth1", site.free, site.host, 4095) == ["VLAN_TAG_INVALID", "4095"]
    assert site.fails("PIF.create_VLAN", "eth9", site.free, site.host, 5) == ["PIF_DEVICE_NOT_FOUND"]
    upper = site.call("PIF.create_VLAN", "eth1", site.free, site.host, 5)
    record = site.record("PIF", upper)
    assert (record["VLAN"], record["device"], record["currently_attached"]) == (5, "eth1", True)
    site.call("PIF.destroy", upper)
    assert (site.refs("VLAN"), site.net.names()) == ([], ["bring_up", "take_down"])


def test_records_alone_come_and_go_without_a_device(site):
    given = ("eth7", site.free, site.host, "02:00:00:00:00:07", 1500, -1, True, "None", "", "", "", "")
    pif = site.call("PIF.db_introduce", *given, NULL_REF, NULL_REF, False, {"k": "v"})  # noqa: FBT003
    record = site.record("PIF", pif)
    assert (record["device"], record["other_config"], record["managed"]) == ("eth7", {"k": "v"}, True)
    assert record["currently_attached"] is False
    site.call("PIF.db_forget", pif)
    assert pif not in site.refs("PIF")
    assert site.net.said == []


def test_a_host_that_does_not_answer_is_not_scanned(site):
    host, _ = site.other_host()
    site.set("host_metrics", site.record("host", host)["metrics"], live=False)
    assert site.fails("PIF.scan", host) == ["HOST_OFFLINE", host]
    site.set("host_metrics", site.record("host", host)["metrics"], live=True)
    assert site.fails("PIF.scan", host) == ["NOT_IMPLEMENTED", "PIF.scan"]


@pytest.mark.parametrize("call", ["PIF.reconfigure_ip", "PIF.reconfigure_ipv6"])
def test_a_wrong_address_is_told_before_that_the_pif_is_the_management_interface(site, call):
    eth0 = site.pifs[0]
    site.set("PIF", eth0, primary_address_type="IPv6" if call.endswith("v6") else "IPv4")
    empty = [""] if call.endswith("v6") else ["", ""]
    refused = ["INVALID_IP_ADDRESS_SPECIFIED", "gateway"]
    assert site.fails(call, eth0, "None", *empty, "nonsense", "") == refused
    assert site.fails(call, eth0, "None", *empty, "", "") == ["PIF_IS_MANAGEMENT_INTERFACE", eth0]
