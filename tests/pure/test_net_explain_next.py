"""All reasons of an explanation beside what stops, a verdict that is true to the evidence, and commands that can be
typed as they stand."""

from __future__ import annotations

import pytest

from hostagent.net.explain import STOPS, TELLS, WARNS
from hostagent.net.reason import Reason, parted, record
from tests.pure.net_host import kernel, port, records
from tests.pure.test_net_explain import SWITCH, answer, reason

ROUTER = "192.0.2.1"
ALONE = {"bond0": {"partner": "00:00:00:00:00:00"}}
LIT = {"eth2": {"flags": 1, "carrier": True}}


def with_pif(ref, known=None, **values):
    known = known or records()
    return known._replace(pifs={**known.pifs, ref: known.pifs[ref]._replace(**values)})


def has(found, words):
    return any(words in each.found for each in found.reasons)


# what stops hides nothing


def test_a_gateway_that_is_silent_is_told_beside_a_bond_without_partner():
    found = answer(look=kernel(**ALONE), gateways={ROUTER: False})

    assert reason(found, "no LACP partner").weight == STOPS
    assert reason(found, f"the gateway {ROUTER} does not answer").weight == STOPS
    assert reason(found, "owns the IPv4 default route").weight == TELLS
    assert found.verdict == "does not work"


def test_what_is_not_as_wanted_is_told_beside_what_stops():
    wide = records()
    wide = wide._replace(networks={**wide.networks, "nb": wide.networks["nb"]._replace(mtu=9000)})

    found = answer(look=kernel(**ALONE), known=wide)

    assert has(found, "and 9000 is wanted")


def test_a_bond_without_partner_whose_gateway_answers_works_with_less():
    found = answer(look=kernel(**ALONE), gateways={ROUTER: True})

    assert reason(found, "no LACP partner").weight == WARNS
    assert found.verdict == "up, with less than is wanted"


def test_what_stops_one_family_while_the_gateway_of_the_other_answers_is_part_of_it():
    assert answer(conflicts={"192.0.2.10": SWITCH}, gateways={ROUTER: True}).verdict == (
        f"works in part: {ROUTER} answers"
    )
    assert answer(conflicts={"192.0.2.10": SWITCH}).verdict == "does not work"


def test_the_gateway_of_a_lease_is_told_where_the_record_has_none():
    found = answer(known=records(ip_mode="DHCP", ip="", netmask="", gateway=""), gateways={ROUTER: False})

    told = reason(found, f"the gateway {ROUTER} does not answer")
    assert (told.weight, told.command) == (STOPS, f"ip neigh show {ROUTER}")
    assert found.verdict == "does not work"


def test_a_silent_gateway_of_a_pif_that_does_not_own_the_route_is_a_warning():
    known = with_pif(
        "nic2", ip_mode="Static", ip="198.51.100.2", netmask="255.255.255.0", gateway="198.51.100.1"
    )

    told = reason(answer("nic2", known=known, gateways={"198.51.100.1": False}), "does not answer")

    assert told.weight == WARNS


def test_one_of_two_routers_that_answers_is_enough():
    known = records(ipv6_mode="Autoconf")
    gateways = {"fe80::1": True, "fe80::2": False}

    assert reason(answer(known=known, gateways=gateways), "the gateway fe80::2").weight == WARNS


def test_a_silent_gateway_is_told_with_what_was_seen_on_the_members():
    found = answer(gateways={ROUTER: False}, tags={"eth1": (10,)}, lldp={"eth0": "sw port 3"})

    assert reason(found, "does not answer").evidence == ("LLDP on eth0: sw port 3", "tags seen on eth1: 10")


def test_what_has_no_nic_is_told_with_who_is_the_gateway_instead():
    found = answer("nic2", kernel(eth2=None))

    assert found.verdict == "not up"
    assert has(found, "not the IPv4 gateway: PIF uuid-master (bond0) is")
    plugged = reason(found, "was not brought up")
    assert (plugged.weight, plugged.evidence[0], plugged.command) == (
        TELLS,
        "PIF uuid-nic2 (eth2) has no device",
        "",
    )


def test_nobody_is_the_gateway():
    known = with_pif("master", with_pif("nic2", ip_mode="None"), ip_mode="None")

    assert not has(answer(known=known), "gateway")
    found = answer(
        look=kernel(eth0=None, eth1=None, bond0=None, xapi1=None)._replace(addresses=(), routes=())
    )
    assert has(found, "nobody is the IPv4 gateway: no PIF that is up has an IPv4 address")


# reasons


def test_tags_on_the_port_of_an_untagged_pif_without_an_answer():
    known = records(ip_mode="DHCP", ip="", netmask="", gateway="", dns="")
    bare = kernel()._replace(addresses=())

    found = answer(known=known, look=bare, tags={"eth0": (10, 20)})

    told = reason(found, "this PIF is untagged")
    assert told.found == "the switch port of eth0 carries tags 10, 20; this PIF is untagged"
    assert (told.weight, told.evidence) == (WARNS, ("tags seen on eth0: 10, 20",))
    assert not has(answer(known=known, tags={"eth0": (10,)}, dhcp={"xapi1": "1 discover"}), "untagged")
    assert has(answer(gateways={ROUTER: False}, tags={"eth0": (10,)}), "this PIF is untagged")
    assert not has(answer(gateways={ROUTER: True}, tags={"eth0": (10,)}), "this PIF is untagged")


def test_who_owns_the_route_and_has_no_gateway_is_told_how_to_give_one():
    told = reason(answer(known=records(gateway="")), "owns the IPv4 default route and has no gateway")

    assert (told.weight, told.command) == (WARNS, "")
    assert told.hint == (
        "give it one: hostagent xe pif-reconfigure-ip uuid=uuid-master mode=static"
        " IP=192.0.2.10 netmask=255.255.255.0 gateway=…"
    )
    six = answer(known=records(ipv6_mode="Static", ipv6=("2001:db8::2/64",)))
    assert "pif-reconfigure-ipv6" in reason(six, "owns the IPv6 default route and has no gateway").hint


@pytest.mark.parametrize(
    ("state", "what"),
    [(0x7D, "collecting 1, distributing 1"), (0x1D, "collecting 1, distributing 0"),
     (0x2D, "collecting 0, distributing 1")],
)  # fmt: skip
def test_each_bit_of_the_partner_that_lets_nothing_pass(state, what):
    """DEFAULTED, no DISTRIBUTING, no COLLECTING."""
    told = reason(answer(look=kernel(eth1={"port": port(1, partner=state)})), "does not let eth1")

    assert told.evidence == (f"LACP partner state {state:#04x} ({what})",)


def test_a_link_that_was_lost_often_is_told_with_how_often():
    def lost(times):
        look = kernel(eth1={"carrier": False, "port": {**port(1), "link_failure_count": times}})
        return reason(answer(look=look), "no carrier on eth1").evidence

    assert lost(4) == ("ip link: NO-CARRIER", "4 times lost since the bond is there")
    assert lost(3) == ("ip link: NO-CARRIER",)


def test_differences_beyond_six_are_counted():
    known = records()
    routes = ",".join(f"10.{n}.0.0/16/192.0.2.7" for n in range(9))
    networks = {**known.networks, "nb": known.networks["nb"]._replace(other_config={"static-routes": routes})}

    told = reason(answer(known=known._replace(networks=networks)), "the kernel has it otherwise")

    assert len(told.evidence) == 7
    assert told.evidence[-1].startswith("and ")
    assert told.evidence[-1].endswith(" more")


# what to type


@pytest.mark.parametrize(
    ("hint", "command", "words"),
    [
        ("hostagent xe pif-scan host-uuid=h", "hostagent xe pif-scan host-uuid=h", ""),
        ("ethtool eth0", "ethtool eth0", ""),
        ("take it over: hostagent net adopt eth0", "hostagent net adopt eth0", "take it over"),
        ("sysctl -w a.b=0 (and below /etc)", "sysctl -w a.b=0", "(and below /etc)"),
        ("hostagent xe bond-set-mode uuid=u mode=active-backup, or mode=lacp",
         "hostagent xe bond-set-mode uuid=u mode=active-backup", "or mode=lacp"),
        ("the servers there are now stay; set DNS", "", "the servers there are now stay; set DNS"),
        ("set it anew", "", "set it anew"),
        ("hostagent xe pif-scan host-uuid=…", "", "hostagent xe pif-scan host-uuid=…"),
    ],
)  # fmt: skip
def test_a_hint_is_parted_into_what_can_be_typed_and_words(hint, command, words):
    assert parted(hint) == (command, words)


@pytest.mark.parametrize(
    ("known", "look", "words", "hint"),
    [
        (records(dns=""), kernel(), "has no DNS server", "the servers there are now stay; set DNS"),
        (records(gateway="x"), kernel(), "is no IPv4 address", "set it anew"),
        (records(), kernel(eth1=None), "a member of bond0, is not in this host", "the bond runs without it"),
    ],
)
def test_a_hint_in_words_is_no_command(known, look, words, hint):
    told = reason(answer(known=known, look=look), words)

    assert (told.command, told.hint) == ("", hint)


def test_nothing_of_ours_to_type_has_a_placeholder_where_the_answer_is_known():
    hosts = [
        answer(look=kernel(**ALONE), gateways={ROUTER: False}, speeds={"eth0": 10, "eth1": 100}),
        answer(look=kernel(eth1={"port": port(2)}, **{"vif1.0": {"mtu": 1400}}), tags={"eth0": (9,)}),
        answer("upper", kernel(**{"vif1.0": {"mtu": 1400}}), tags={"eth0": (9,)}),
        answer("nic2", kernel(**LIT), lacpdus={"eth2": SWITCH}),
        answer("nic0"),
        answer(known=records(ipv6_mode="Autoconf")),
        answer("nic2", known=with_pif("nic2", managed=False)),
        answer("nic0", known=with_pif("nic0", ip_mode="DHCP")),
    ]
    commands = [each.command for found in hosts for each in found.reasons if each.command]
    assert len(commands) > 10
    first = {"hostagent", "ip", "ethtool", "cat", "interface-reconfigure", "rdisc6", "sysctl"}
    assert [one for one in commands if one.split()[0] not in first or "…" in one or "DOMAIN" in one] == []


def test_a_bond_for_lacp_has_the_uuids_of_the_nics_that_heard_it():
    known = with_pif("nic2", records())
    known = known._replace(pifs={**known.pifs, "nic3": known.pifs["nic2"]._replace(
        ref="nic3", uuid="uuid-nic3", device="eth3", network="n3")})  # fmt: skip
    found = answer(
        "nic2", kernel(**LIT), known, lacpdus={"eth2": SWITCH, "eth3": SWITCH, "eth0": "02:00:00:00:00:07"}
    )

    told = reason(found, "speaks LACP")
    assert told.found == "the switch speaks LACP on eth2, eth3, and eth2 is in no bond"
    assert told.command == (
        "hostagent xe bond-create network-uuid=$(hostagent xe network-create name-label=bond)"
        " pif-uuids=uuid-nic2,uuid-nic3 mode=lacp"
    )


def test_an_unmanaged_pif_is_made_ours_with_the_uuids_that_are_known():
    told = reason(answer("nic2", known=with_pif("nic2", managed=False)), "is not managed")

    assert told.hint == "others configure it; ours with"
    assert told.command == (
        "hostagent xe pif-forget uuid=uuid-nic2"
        " && hostagent xe pif-introduce host-uuid=host-1 device=eth2 managed=true"
    )


@pytest.mark.parametrize(
    ("program", "look", "command"),
    [
        ("systemd-networkd", kernel(**LIT), "hostagent net adopt eth2"),
        ("ifupdown (/etc/network/interfaces)", kernel(**LIT), "hostagent net adopt eth2"),
        ("dhcpcd (pid 12)", kernel(**LIT), "stop it"),
        ("connman", kernel(**LIT), "stop it"),
        ("systemd-networkd", kernel(eth2={**LIT["eth2"], "master": 11}), "stop it"),
    ],
)
def test_a_card_is_taken_over_only_where_that_is_not_refused(program, look, command):
    told = reason(answer("nic2", look, foreign={"eth2": program}, keep_off={"eth2": "stop it"}), "as well")

    assert told.command == command


def test_management_that_would_go_is_moved_to_the_pif_in_its_place():
    known = with_pif(
        "master", with_pif("nic0", with_pif("nic2", ip_mode="Static"), management=True), management=False
    )

    found = answer(known=known)

    told = reason(found, "is the management interface and would be taken down")
    assert told.command == "hostagent xe host-management-reconfigure pif-uuid=uuid-master"


def test_json_has_words_where_there_are_any():
    assert record(Reason(WARNS, "x", (), "", "do")) == {
        "weight": WARNS, "found": "x", "evidence": (), "command": "", "hint": "do",
    }  # fmt: skip
    assert "hint" not in record(Reason(WARNS, "x", (), "go"))
