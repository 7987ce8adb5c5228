"""Why a PIF is not as it is to be: each reason with its evidence and the next command."""

from __future__ import annotations

import pytest

from hostagent.net import explain
from hostagent.net.devices import Address
from hostagent.net.explain import STOPS, TELLS, WARNS, Evidence
from tests.pure.net_host import MACS, kernel, port, records

SWITCH = "52:54:00:aa:aa:aa"


def answer(ref="master", look=None, known=None, **evidence):
    return explain.explain(known or records(), look or kernel(), ref, Evidence(**evidence))


def reason(found, words):
    """The reason that has these words in it."""
    (one,) = [each for each in found.reasons if words in each.found]
    return one


def test_nothing_stops_what_works():
    found = answer()

    assert [each for each in found.reasons if each.weight == STOPS] == []
    assert dict(found.facts)["chain"] == "eth0 > eth1 > bond0 > xapi1"
    assert dict(found.facts)["addresses"] == "192.0.2.10/24"


def test_the_gateway_owner_is_told_why_it_is():
    assert reason(answer(), "owns the IPv4 default route").weight == TELLS


def test_not_the_gateway_names_the_owner_and_how_to_change_it():
    told = reason(answer("nic2"), "not the IPv4 gateway")

    assert "uuid-master (bond0)" in told.found
    assert told.command == "hostagent xe pif-param-set uuid=uuid-nic2 other-config:defaultroute=true"


def test_what_nobody_brought_up_is_plugged_next():
    look = kernel(eth2={"flags": 1, "carrier": True})

    told = reason(answer("nic2", look), "was not brought up")

    assert told.evidence == ("the bridge xenbr2 is not there",)
    assert told.command == "hostagent pif plug uuid-nic2"


def test_a_member_points_to_its_bond():
    found = answer("nic0")

    assert found.verdict == "a member of a bond: it has no state of its own"
    assert reason(found, "look at that one").command == "hostagent pif explain uuid-master"


@pytest.mark.parametrize(("dark", "weight"), [(("eth1",), WARNS), (("eth0", "eth1"), STOPS)])
def test_no_carrier_stops_when_no_member_has_any(dark, weight):
    look = kernel(**{name: {"carrier": False} for name in dark})

    assert reason(answer(look=look), f"no carrier on {dark[0]}").weight == weight


def test_a_missing_member_is_told():
    assert "eth1" in reason(answer(look=kernel(eth1=None)), "not in this host").found


def test_since_when_a_nic_is_missing_and_what_could_be_in_its_place_is_told():
    look = kernel(eth1=None, eth2={"name": "eth7", "parent": "0000:00:05.0"}, eth0={"parent": "0000:00:03.0"})

    told = reason(answer(look=look, missing={MACS[1]: "since noon"}), "is missing")

    assert told.found == f"eth1 ({MACS[1]}) is missing since noon"
    assert told.evidence == (f"eth7 ({MACS[2]}), without carrier, is no PIF's",)


def test_no_lacp_partner():
    told = reason(answer(look=kernel(bond0={"partner": "00:00:00:00:00:00"})), "no LACP partner")

    assert (told.weight, told.evidence[0]) == (STOPS, "partner MAC 00:00:00:00:00:00")


def test_members_on_two_switches():
    told = reason(answer(look=kernel(eth1={"port": port(2)})), "different switches")

    assert told.evidence == ("aggregator 1: eth0; aggregator 2: eth1",)


def test_a_switch_that_lets_a_member_carry_nothing():
    told = reason(answer(look=kernel(eth1={"port": port(1, partner=0x05)})), "does not let eth1")

    assert told.evidence == ("LACP partner state 0x05 (collecting 0, distributing 0)",)


def test_lacp_on_the_wire_of_a_nic_without_bond():
    look = kernel(eth2={"flags": 1, "carrier": True})

    told = reason(answer("nic2", look, lacpdus={"eth2": SWITCH}), "speaks LACP")

    assert told.evidence == (f"LACPDUs of {SWITCH} seen on eth2",)
    assert "bond-create" in told.command


def test_a_tag_that_the_switch_does_not_carry():
    found = answer("upper", tags={"eth0": (10, 20)}, lldp={"eth0": "switch-1 port 7"})

    told = reason(found, "carries tags 10, 20; 5 was not seen")
    assert told.evidence == ("tags seen on eth0: 10, 20", "LLDP on eth0: switch-1 port 7")


def test_another_mtu_is_told_with_the_chain():
    wide = records()
    wide = wide._replace(networks={**wide.networks, "nb": wide.networks["nb"]._replace(mtu=9000)})

    told = [each for each in answer(known=wide).reasons if "and 9000 is wanted" in each.found]

    assert told
    assert told[0].evidence[0] == "MTUs from the wire: eth0 1500 > eth1 1500 > bond0 1500 > xapi1 1500"


def test_an_address_that_another_host_has():
    told = reason(answer(conflicts={"192.0.2.10": SWITCH}), "another host has 192.0.2.10")

    assert (told.weight, told.evidence) == (STOPS, (f"{SWITCH} answers for it",))


def test_duplicate_address_detection_that_failed():
    look = kernel()
    look = look._replace(addresses=(*look.addresses, Address(11, "2001:db8::1", 64, flags=0x88)))

    assert reason(answer(look=look), "another host has 2001:db8::1").weight == STOPS


def test_a_gateway_that_does_not_answer():
    assert reason(answer(gateways={"192.0.2.1": False}), "192.0.2.1 does not answer").weight == STOPS
    assert not any("does not answer" in each.found for each in answer(gateways={"192.0.2.1": True}).reasons)


def test_dhcp_without_an_answer():
    known = records(ip_mode="DHCP", ip="", netmask="", gateway="", dns="")
    look = kernel()._replace(addresses=())

    told = reason(answer(look=look, known=known, dhcp={"xapi1": "3 discovers, 0 offers"}), "no DHCP address")

    assert (told.weight, told.evidence[0]) == (STOPS, "3 discovers, 0 offers")
    assert told.command == "journalctl -u hostagent-dhcp-xapi1"


def test_autoconfiguration_without_a_router():
    known = records(ipv6_mode="Autoconf")

    told = reason(answer(known=known), "no router advertised a prefix on xapi1")

    assert told.weight == WARNS
    known = records(ipv6_mode="Autoconf", ip_mode="None")
    alone = answer(known=known, look=kernel()._replace(addresses=()))
    assert reason(alone, "no router advertised").weight == STOPS
    with_it = kernel()._replace(addresses=(*kernel().addresses, Address(11, "2001:db8::7", 64)))
    assert not any("advertised" in each.found for each in answer(look=with_it, known=known).reasons)


def test_tries_for_ipv6_do_not_make_an_ipv4_network_silent():
    known = records(ipv6_mode="DHCP")

    found = answer(known=known, dhcp={"xapi1": "3 discovers"}, tags={"eth0": (10,)})

    assert not any("this PIF is untagged" in each.found for each in found.reasons)


def test_a_foreign_program_and_a_change_that_waits():
    found = answer(
        foreign={"eth0": "systemd-networkd"}, pending="up PIF x (applied)", last="up PIF x, waiting"
    )

    assert reason(found, "systemd-networkd configures eth0").command == "hostagent net adopt eth0"
    assert reason(found, "waits for its confirmation").command == "hostagent net confirm"
    assert reason(found, "the last change").command == "hostagent net history"


def test_a_foreign_program_is_told_with_what_keeps_it_off():
    found = answer(foreign={"eth0": "ifupdown (/etc/network/interfaces)"}, keep_off={"eth0": "ifdown eth0"})

    assert reason(found, "ifupdown (/etc/network/interfaces) configures eth0").evidence == (
        "kept from it by: ifdown eth0",
    )


def test_a_link_that_waits_for_its_updelay_is_told_when_it_carries_again():
    waiting = {"port": {**port(1), "mii_status": 3}}
    look = kernel(eth1=waiting, bond0={"settings": {"mode": 1, "updelay": 31000}})

    told = reason(answer(look=look), "again in")

    assert (told.weight, told.found) == (
        TELLS,
        "eth1 has its link back and carries traffic again in at most 31 s",
    )


@pytest.mark.parametrize(
    ("speeds", "told"), [({"eth0": 1000, "eth1": 100}, True), ({"eth0": 1000, "eth1": 1000}, False)]
)
def test_members_of_different_speed_are_shown(speeds, told):
    found = [each for each in answer(speeds=speeds).reasons if "different speed" in each.found]

    assert [each.evidence for each in found] == ([("eth0: 1000 Mb/s", "eth1: 100 Mb/s")] if told else [])


def test_guests_with_another_mtu_than_their_bridge_are_listed():
    told = reason(answer("upper", kernel(**{"vif1.0": {"mtu": 1400}})), "another MTU")

    assert (told.weight, told.evidence) == (WARNS, ("vif1.0 1400",))
    assert not any("guests on" in each.found for each in answer("upper").reasons)


def test_a_path_that_carries_less_than_the_mtu():
    told = reason(answer(paths={"192.0.2.1": 1472}), "the way to 192.0.2.1")

    assert told.found == "the way to 192.0.2.1 carries 1472 bytes, and the MTU is 1500"
    assert told.command == "ping -M do -s 1444 192.0.2.1"


def test_an_address_that_was_not_taken_because_another_host_has_it():
    told = reason(
        answer(look=kernel()._replace(addresses=()), conflicts={"192.0.2.10": SWITCH}), "another host"
    )

    assert (told.weight, told.found) == (STOPS, "another host has 192.0.2.10, which this PIF is to have")
    assert told.command == "arping -D -I xapi1 192.0.2.10"


def test_a_packet_filter_on_bridges_is_told_with_its_values():
    settings = {"net/bridge/bridge-nf-call-iptables": "1", "net/bridge/bridge-nf-call-ip6tables": "0"}

    told = reason(answer(settings=settings), "packet filter")

    assert told.evidence == ("net.bridge.bridge-nf-call-iptables is 1",)
    assert told.command == "sysctl -w net.bridge.bridge-nf-call-iptables=0"


def test_snooping_without_a_querier():
    def told(**settings):
        found = answer(look=kernel(xapi1={"settings": settings}))
        return [each for each in found.reasons if "snoops multicast" in each.found]

    assert told(mcast_snooping=1, mcast_querier=0)
    assert not told(mcast_snooping=1, mcast_querier=1)
    assert not told(mcast_snooping=0, mcast_querier=0)


def test_the_gravest_comes_first_and_all_fits_the_screen():
    look = kernel(eth0={"carrier": False}, eth1={"carrier": False}, bond0={"partner": ""})
    found = answer(look=look, foreign={"eth0": "ifupdown"})
    order = [each.weight for each in found.reasons]

    assert order == sorted(order, key=(STOPS, WARNS, TELLS).index)
    assert found.verdict == "does not work"
    text = explain.text(found)
    assert text.startswith("PIF uuid-master (bond0): does not work\n  chain ")
    assert "✗ no carrier on eth0" in text
    assert len(text.splitlines()) <= 50
