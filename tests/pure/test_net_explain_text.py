"""An explanation as text: what each line says, and that it fits a screen."""

from __future__ import annotations

from hostagent.net import explain
from hostagent.net.devices import Address
from hostagent.net.reason import STOPS, TELLS, WARNS, Answer, Reason
from tests.pure.net_host import kernel, link, port, records
from tests.pure.test_net_explain import SWITCH, answer

SCREEN = 40
ALL = "all of it: hostagent pif explain uuid-master --json"
FACTS = (("chain", "eth0 > xenbr0"), ("attached", "yes"))


def one(*reasons):
    return Answer("u", "PIF u (eth0)", "does not work", FACTS, reasons)


def test_a_reason_is_told_with_its_evidence_its_words_and_what_to_type():
    reasons = (
        Reason(STOPS, "no carrier", ("ip link: NO-CARRIER", "5 times lost"), "ethtool eth0"),
        Reason(WARNS, "no DNS server", (), "", "set DNS"),
        Reason(TELLS, "it owns the route", (), "", ""),
    )

    assert explain.text(one(*reasons)).splitlines() == [
        "PIF u (eth0): does not work",
        "  chain      eth0 > xenbr0",
        "  attached   yes",
        "",
        "✗ no carrier",
        "    ip link: NO-CARRIER",
        "    5 times lost",
        "    → ethtool eth0",
        "",
        "! no DNS server",
        "    set DNS",
        "",
        "· it owns the route",
    ]


def test_the_evidence_of_a_host_and_what_to_type_are_in_the_text():
    shown = explain.text(
        answer(look=kernel(eth1={"carrier": False}), gateways={"192.0.2.1": False})
    ).splitlines()

    at = shown.index("! no carrier on eth1: cable, switch port or transceiver")
    assert shown[at + 1 : at + 3] == ["    ip link: NO-CARRIER", "    → ethtool eth1"]
    assert "    → ip neigh show 192.0.2.1" in shown


def test_nothing_is_typed_that_is_words():
    shown = explain.text(answer(known=records(dns=""))).splitlines()

    assert "    the servers there are now stay; set DNS" in shown


def worst():
    """A management bond without partner and lease, with everything on its way to look at."""
    dead = {"port": {**port(1), "link_failure_count": 9}, "carrier": False}
    alone = {"partner": "00:00:00:00:00:00"}
    bridge = {"settings": {"mcast_snooping": 1, "mcast_querier": 0}, "mtu": 9000}
    look = kernel(eth0=dead, bond0=alone, xapi1=bridge, eth2=None)
    guests = {100 + n: link(100 + n, f"vif{n}.0", "vif", master=11) for n in range(3)}
    look = look._replace(
        links={**look.links, **guests}, addresses=(Address(11, "2001:db8::1", 64, flags=0x88),)
    )
    known = records(ip_mode="DHCP", ip="", netmask="", gateway="", dns="", ipv6_mode="DHCP")
    filters = {f"net/bridge/bridge-nf-call-{name}": "1" for name in ("iptables", "ip6tables", "arptables")}
    return answer(
        look=look, known=known, tags={"eth1": (10, 20, 30)}, lldp={"eth1": "sw-1 port 7, untagged VLAN 30"},
        dhcp={"xapi1": "9 discovers, 0 offers, 0 requests, 0 refusals; last: discover"},
        conflicts={"192.0.2.10": SWITCH}, gateways={"192.0.2.1": False, "fe80::1": False},
        speeds={"eth0": 100, "eth1": 1000},
        foreign={"eth1": "ifupdown (/etc/network/interfaces)"}, keep_off={"eth1": "ifdown eth1"}, settings=filters,
        pending="up PIF x (applied)", last="up PIF x, rolled-back: no answer",
    )  # fmt: skip


def test_the_worst_fits_a_screen_with_the_gravest_whole_and_the_others_named():
    found = worst()
    whole = 1 + len(found.facts) + sum(
        2 + len(each.evidence) + bool(each.hint) + bool(each.command) for each in found.reasons
    )  # fmt: skip
    assert whole > SCREEN + 13

    shown = explain.text(found).splitlines()

    assert len(shown) <= SCREEN
    assert shown[-1] == ALL
    marks = {STOPS: "✗", WARNS: "!", TELLS: "·"}
    assert [line for line in shown if line[:1] in marks.values()] == [
        f"{marks[each.weight]} {each.found}" for each in found.reasons
    ]
    at = shown.index("✗ the gateway 192.0.2.1 does not answer")
    assert shown[at + 1 : at + 4] == [
        "    tags seen on eth1: 10, 20, 30", "    LLDP on eth1: sw-1 port 7, untagged VLAN 30",
        "    → ip neigh show 192.0.2.1",
    ]  # fmt: skip


def test_what_fits_is_shown_without_being_cut():
    ten = [Reason(WARNS, f"reason {n}", ("evidence",), "do") for n in range(9)]

    assert len(explain.text(one(*ten[:9])).splitlines()) == 3 + 9 * 4
    assert "all of it" not in explain.text(one(*ten))


def test_what_does_not_fit_any_more_is_cut_with_a_line_that_says_where_all_is():
    many = [Reason(STOPS if n < 3 else WARNS, f"reason {n}", ("evidence",), "do") for n in range(12)]

    shown = explain.text(one(*many)).splitlines()
    assert len(shown) <= SCREEN
    assert [line for line in shown if line[:2] in ("✗ ", "! ")] == [
        f"{'✗' if n < 3 else '!'} reason {n}" for n in range(12)
    ]
    assert shown[-1] == "all of it: hostagent pif explain u --json"
    assert (
        len(explain.text(one(*(Reason(WARNS, f"reason {n}", (), "") for n in range(99)))).splitlines())
        == SCREEN
    )


def test_long_evidence_is_counted_beyond_eight_lines():
    shown = explain.text(one(Reason(WARNS, "many", tuple(f"line {n}" for n in range(30)), "do"))).splitlines()

    assert shown[4:14] == ["! many", *(f"    line {n}" for n in range(8)), "    and 22 more"]
    assert shown[14] == "    → do"
    assert shown[-1] == "all of it: hostagent pif explain u --json"
