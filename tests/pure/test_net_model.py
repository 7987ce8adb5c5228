"""What is wanted of the kernel: the cases that networking.md 3 spells out, whole; what goes up and down with what."""

from __future__ import annotations

import pytest

from hostagent.errors import BugError
from hostagent.net.devices import Device, Dns, Wanted, WantedAddress, WantedRoute
from hostagent.net.finding import FindingError
from hostagent.net.model import survey, want, want_network
from tests.pure.net_records import STATIC, Host
from tests.pure.net_wanted import BOND, BRIDGE, MAC0, MAC1, NIC, bridge, by_name, refusal, two_nics

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
        dns_bridge="xenbr0",
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
        dns_bridge="xapi0",
        gone=("xenbr1", "xenbr0"),
    )


def test_management_on_a_vlan_on_a_bond():
    host = two_nics()
    host.bond("bond0", ("eth0", "eth1"))
    host.vlan("bond0", 5, bridge="xapi1", management=True, **STATIC)

    assert want(host.records(), ["bond0.5"]) == Wanted(
        (
            bridge("xapi0", "bond0.5", ipv6="off"),
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
        dns_bridge="xapi1",
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
