"""Calls about networks and the management interface through the dispatcher: every refusal byte for byte."""

from __future__ import annotations

import pytest

from hostagent.errors import KernelError
from hostagent.net.finding import STOP, Finding
from tests.pure.netctl_host import STATIC, opened

NOT_DEVICES = ("a" * 16, "a b", "a/b", "é", "..", "a\tb", "lab\n")


@pytest.fixture
def site(tmp_path):
    with opened(tmp_path) as made:
        yield made


def test_a_network_gets_a_bridge_of_its_own(site):
    first = site.call("network.create", {"name_label": "a", "MTU": 0, "other_config": {"k": "v"}})
    record = site.record("network", first)
    assert (record["bridge"], record["MTU"], record["name_label"], record["managed"]) == (
        "xapi1",
        1500,
        "a",
        True,
    )
    second = site.call("network.create", {"name_label": "a", "MTU": "9000", "bridge": "lab", "tags": ["t"]})
    record = site.record("network", second)
    assert (record["bridge"], record["MTU"], record["tags"]) == ("lab", 9000, ["t"])
    foreign = site.call("network.create", {"name_label": "f", "managed": False})
    assert site.record("network", foreign)["bridge"] == ""
    assert site.net.said == []


@pytest.mark.parametrize(
    "name",
    [
        *NOT_DEVICES,
        "xenbr7",
        "xapi7",
        "vifx",
        "tap0",
        "eth0",
        "bond0",
        "lo",
        "all",
        "default",
        "-k",
        "a;b",
        "%n",
    ],
)
def test_names_that_a_bridge_cannot_have(site, name):
    assert site.fails("network.create", {"name_label": "a", "bridge": name}) == [
        "INVALID_VALUE",
        "bridge",
        name,
    ]


def test_create_refuses(site):
    site.call("network.create", {"name_label": "a", "bridge": "lab"})
    assert site.fails("network.create", {"name_label": "b", "bridge": "lab"}) == ["BRIDGE_NAME_EXISTS", "lab"]
    assert site.fails("network.create", {"name_label": "b", "MTU": 10}) == ["INVALID_VALUE", "MTU", "10"]
    assert site.fails("network.create", {"name_label": 7}) == ["FIELD_TYPE_ERROR", "name_label"]
    assert site.fails("network.create", {"bridge": 7}) == ["FIELD_TYPE_ERROR", "bridge"]
    assert site.fails("network.set_MTU", site.free, 65536) == ["INVALID_VALUE", "MTU", "65536"]
    assert site.fails("network.set_MTU", "OpaqueRef:x", 1500) == ["HANDLE_INVALID", "network", "OpaqueRef:x"]


def test_the_mtu_is_kept_for_the_next_plug(site):
    site.call("network.set_MTU", site.nets[0], 9000)
    assert site.record("network", site.nets[0])["MTU"] == 9000
    assert site.net.said == []


def test_destroy_takes_the_bridge_along(site):
    site.call("network.destroy", site.free)
    assert site.free not in site.refs("network")
    ((name, facts),) = site.net.said
    assert (name, facts["network"], site.free in facts["records"].networks) == ("detach", site.free, True)


def test_destroy_refuses(site):
    vifs = sorted(site.guest(site.free, resident=False) for _ in range(2))
    assert site.fails("network.destroy", site.free) == ["NETWORK_CONTAINS_VIF", *vifs]
    assert site.fails("network.destroy", site.nets[1]) == ["NETWORK_CONTAINS_PIF", site.pifs[1]]
    own = site.make("network", bridge="xenapi", other_config={"is_host_internal_management_network": "true"})
    assert site.fails("network.destroy", own) == ["CANNOT_DESTROY_SYSTEM_NETWORK", own]
    site.net.fail["detach"] = KernelError("the bridge is busy", hint="ip link")
    plain = site.make("network", bridge="xapi9")
    assert site.fails("network.destroy", plain) == [
        "PIF_CONFIGURATION_ERROR",
        plain,
        "the bridge is busy; ip link",
    ]


def test_attach_plugs_or_makes_a_bridge_or_has_nothing_to_do(site):
    site.call("network.attach", site.nets[1], site.host)
    assert site.record("PIF", site.pifs[1])["currently_attached"] is True
    site.call("network.attach", site.nets[1], site.host)
    site.call("network.attach", site.free, site.host)
    foreign = site.make("network", bridge="br0", managed=False)
    site.net.bridges.add("br0")
    site.call("network.attach", foreign, site.host)
    assert site.net.names() == ["bring_up", "attach"]
    assert site.net.last()["network"] == site.free


def test_a_vms_networks_are_attached_once_each_and_detached_where_nobody_else_needs_them(site):
    vif = site.guest(site.free, resident=False)
    vm = site.record("VIF", vif)["VM"]
    for device, network in enumerate((site.free, site.nets[1]), 1):
        site.make("VIF", VM=vm, network=network, device=str(device))

    site.call("network.attach_for_vm", site.host, vm)
    assert sorted(site.net.names()) == ["attach", "bring_up"]

    site.net.bridges.add(site.record("network", site.free)["bridge"])
    other = site.guest(site.free, resident=True)
    site.call("network.detach_for_vm", site.host, vm)
    assert "detach" not in site.net.names()

    site.set("VIF", other, currently_attached=False)
    in_use = Finding(0, STOP, (site.free,), "has vif7.0", "wait", "VIF_IN_USE", (site.free, "vif7.0"))
    site.net.fail["detach"] = in_use.error()
    site.call("network.detach_for_vm", site.host, vm)  # a guest that the database does not know needs it
    site.net.fail["detach"] = in_use._replace(code="HANDLE_INVALID").error()
    assert site.fails("network.detach_for_vm", site.host, vm) == ["HANDLE_INVALID", site.free, "vif7.0"]
    site.net.fail.clear()
    site.net.said.clear()

    site.call("network.detach_for_vm", site.host, vm)
    assert site.net.names().count("detach") == 1  # the other one has a PIF
    assert site.net.last()["network"] == site.free
    for call in ("network.attach_for_vm", "network.detach_for_vm"):
        assert site.fails(call, site.host, "OpaqueRef:x") == ["HANDLE_INVALID", "VM", "OpaqueRef:x"]
        assert site.fails(call, "OpaqueRef:x", vm) == ["HANDLE_INVALID", "host", "OpaqueRef:x"]


def test_attach_refuses(site):
    foreign = site.make("network", bridge="br0", managed=False)
    assert site.fails("network.attach", foreign, site.host) == ["BRIDGE_NOT_AVAILABLE", "br0"]
    host, far = site.other_host()
    network = site.record("PIF", far)["network"]
    assert site.fails("network.attach", network, site.host) == [
        "HOST_CANNOT_ATTACH_NETWORK",
        site.host,
        network,
    ]
    shared = site.make("network", bridge="xapi9", other_config={"assume_network_is_shared": "true"})
    assert site.fails("network.attach", shared, site.host) == [
        "HOST_CANNOT_ATTACH_NETWORK",
        site.host,
        shared,
    ]
    assert site.fails("network.attach", site.free, host) == ["NOT_IMPLEMENTED", "network.attach"]
    assert site.fails("network.attach", site.free, "OpaqueRef:x") == ["HANDLE_INVALID", "host", "OpaqueRef:x"]
    site.bond(site.pifs[2])
    assert site.fails("network.attach", site.nets[2], site.host) == ["CANNOT_PLUG_BOND_SLAVE", site.pifs[2]]


def test_the_default_locking_mode_changes_under_nobody(site):
    vif = site.guest(site.free)
    refused = ["VIF_IN_USE", site.free, vif]
    assert site.fails("network.set_default_locking_mode", site.free, "disabled") == refused
    site.set("VIF", vif, locking_mode="locked")
    site.call("network.set_default_locking_mode", site.free, "disabled")
    assert site.record("network", site.free)["default_locking_mode"] == "disabled"


def test_purposes_exclude_each_other_in_the_whole_pool(site):
    site.call("network.add_purpose", site.free, "nbd")
    site.call("network.add_purpose", site.nets[0], "nbd")
    for network in (site.free, site.nets[1]):
        refused = ["NETWORK_INCOMPATIBLE_PURPOSES", "insecure_nbd", "nbd"]
        assert site.fails("network.add_purpose", network, "insecure_nbd") == refused
    for network in (site.free, site.nets[0]):
        site.call("network.remove_purpose", network, "nbd")
    site.call("network.add_purpose", site.nets[1], "insecure_nbd")
    assert site.record("network", site.nets[1])["purpose"] == ["insecure_nbd"]


def test_a_record_of_a_network_alone(site):
    given = ("l", "d", 1400, {"k": "v"}, "xenbr0", True, ["nbd"])
    record = site.record("network", site.call("network.pool_introduce", *given))
    assert (record["name_label"], record["MTU"], record["bridge"], record["purpose"]) == (
        "l",
        1400,
        "xenbr0",
        ["nbd"],
    )


# the management interface


def test_the_management_interface_moves(site):
    eth0, eth1 = site.pifs[:2]
    site.set("PIF", eth1, ipv6_configuration_mode="Autoconf", primary_address_type="IPv6")
    site.call("host.management_reconfigure", eth1)
    assert [site.record("PIF", pif)["management"] for pif in (eth0, eth1)] == [False, True]
    assert site.record("PIF", eth0)["IP"] == "192.0.2.7"
    up, listen = (facts for _, facts in site.net.said)
    assert (up["refs"], up["management"], up["records"].bridge) == ((eth1,), eth1, "xenbr1")
    assert listen == {"bridge": "xenbr1", "family": "IPv6"}
    assert site.net.kept == ["listen", "bring_up"]
    assert site.call("host.get_management_interface", site.host) == eth1


def test_a_move_that_fails_is_undone(site):
    site.set("PIF", site.pifs[1], **STATIC)
    site.net.fail["listen"] = KernelError("no address", hint="wait")
    error = site.fails("host.management_reconfigure", site.pifs[1])
    assert error == ["PIF_CONFIGURATION_ERROR", site.pifs[1], "no address; wait"]
    assert (site.net.undone, site.net.bridge) == (["bring_up"], "xenbr0")


def test_the_move_refuses(site):
    eth1, eth2, eth3 = site.pifs[1:4]
    move = "host.management_reconfigure"
    assert site.fails(move, eth1) == ["PIF_HAS_NO_NETWORK_CONFIGURATION", eth1]
    site.set("PIF", eth1, primary_address_type="IPv6", **STATIC)
    assert site.fails(move, eth1) == ["PIF_HAS_NO_V6_NETWORK_CONFIGURATION", eth1]
    site.bond(eth2)
    assert site.fails(move, eth2) == ["CANNOT_PLUG_BOND_SLAVE", eth2]
    site.set("PIF", eth3, managed=False)
    assert site.fails(move, eth3) == ["PIF_UNMANAGED", eth3]
    assert site.fails("pool.management_reconfigure", site.free) == ["PIF_NOT_PRESENT", site.host, site.free]
    site.set("pool", site.pool, ha_enabled=True)
    assert site.fails(move, eth1) == ["HA_IS_ENABLED"]
    assert site.fails("pool.management_reconfigure", site.free) == ["HA_IS_ENABLED"]
    assert site.fails("host.management_disable") == ["HA_IS_ENABLED"]
    site.set("pool", site.pool, ha_enabled=False)
    other, far = site.other_host()
    assert site.fails(move, far) == ["NOT_IMPLEMENTED", move]
    pool = "pool.management_reconfigure"
    assert site.fails(pool, site.nets[1]) == ["NOT_IMPLEMENTED", pool]
    assert site.fails("host.get_management_interface", other) == ["HOST_HAS_NO_MANAGEMENT_IP"]
    site.set("pool", site.pool, master=other)
    assert site.fails("host.management_disable") == ["SLAVE_REQUIRES_MANAGEMENT_INTERFACE"]


def test_bad_keys_of_a_network_are_refused_when_they_are_set_and_others_may_stand(site):
    network, place = site.free, "element 1, column 1: 10.8.0.0/33/10.1.1.1"
    refused = ["INVALID_VALUE", "other_config:static-routes", place]
    add = "network.add_to_other_config"
    assert site.fails(add, network, "static-routes", "10.8.0.0/33/10.1.1.1") == refused
    whole = {"static-routes": "10.8.0.0/33/10.1.1.1", "colour": "red"}
    assert site.fails("network.set_other_config", network, whole) == refused
    assert site.fails("network.create", {"name_label": "n", "other_config": whole}) == refused
    site.call(add, network, "ethtool-colour", "red")
    site.call(add, network, "static-routes", "10.8.0.0/16/10.1.1.1")
    site.call("network.remove_from_other_config", network, "static-routes")
    assert site.record("network", network)["other_config"] == {"ethtool-colour": "red"}
    site.set("network", network, other_config={"mtu": "9k"})
    site.call(add, network, "persist", "true")
    site.call("network.set_other_config", network, {"mtu": "9k"})
    site.call("network.remove_from_other_config", network, "mtu")
    assert site.fails(add, network, "mtu", "9k") == ["INVALID_VALUE", "other_config:mtu", "9k"]


def test_bad_keys_of_a_pif_are_refused_when_they_are_set(site):
    eth1 = site.pifs[1]
    add = "PIF.add_to_other_config"
    refused = ["INVALID_VALUE", "other_config:ethtool-speed", "fast"]
    assert site.fails(add, eth1, "ethtool-speed", "fast") == refused
    assert site.fails("PIF.set_other_config", eth1, {"ethtool-speed": "fast"}) == refused
    site.call(add, eth1, "ethtool-speed", "1000")


def test_a_pool_of_one_moves_with_its_host(site):
    site.set("PIF", site.pifs[1], **STATIC)
    site.call("pool.management_reconfigure", site.nets[1])
    assert site.net.bridge == "xenbr1"


def test_management_is_switched_off_and_set_by_hand(site):
    site.call("host.management_disable")
    assert (site.net.bridge, site.net.names()) == ("", ["listen"])
    assert site.record("PIF", site.pifs[0])["management"] is False
    assert site.fails("host.get_management_interface", site.host) == ["HOST_HAS_NO_MANAGEMENT_IP"]
    assert site.fails("host.local_management_reconfigure", "xenbr0") == ["NOT_IN_EMERGENCY_MODE"]
    site.core.emergency = lambda: True
    assert site.fails("host.local_management_reconfigure", "xenbr1") == ["INTERFACE_HAS_NO_IP", "xenbr1"]
    site.call("host.local_management_reconfigure", "xenbr0")
    assert (site.net.bridge, site.record("PIF", site.pifs[0])["management"]) == ("xenbr0", True)
