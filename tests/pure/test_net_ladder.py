"""The emergency ladder: its rungs, their order, and whose wire it never touches."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.net import ladder
from hostagent.net.dhcp_lease import Leased
from hostagent.net.ladder import CONSOLE, DHCP, PLAIN, RESTORE, RETRY, Rung, Seen, Situation
from hostagent.net.records import Bond, Network, Pif, Records, Vlan

NETWORKS = {
    name: Network(name, name, name, bridge)
    for name, bridge in {"n0": "xenbr0", "n1": "xenbr1", "nb": "xapi0", "nv": "xapi1"}.items()
}
FIXED = {
    "ip_mode": "Static",
    "ip": "10.0.0.7",
    "netmask": "255.255.255.0",
    "gateway": "10.0.0.1",
    "dns": "10.0.0.1",
}
CARDS = (
    Seen("eth0", "02:00:00:00:00:00", carrier=True),
    Seen("eth1", "02:00:00:00:00:01", carrier=True, tags=(5, 7)),
    Seen("eth2", "02:00:00:00:00:02", carrier=False),
)


def records(**management):
    """Management on VLAN 5 of a bond of eth0 and eth1; eth2 has no PIF."""
    pifs = [
        Pif("p0", "u0", "eth0", "n0", mac="02:00:00:00:00:00", physical=True, bond_slave_of="b",
            other_config={"ethtool-gro": "off", "mtu": "9000"}),
        Pif("p1", "u1", "eth1", "n1", mac="02:00:00:00:00:01", physical=True, bond_slave_of="b"),
        Pif("pb", "ub", "bond0", "nb", bond_master_of=("b",), vlan_slave_of=("v",)),
        Pif("pv", "uv", "bond0", "nv", vlan=5, management=True, vlan_master_of="v", **management),
    ]  # fmt: skip
    return Records(
        "host",
        {pif.ref: pif for pif in pifs},
        NETWORKS,
        {"b": Bond("b", "b", "pb", ("p0", "p1"))},
        {"v": Vlan("v", "v", "pb", "pv", 5)},
        "xapi1",
    )


STATIC = records(**FIXED)


def numbers(situation):
    return [rung.number for rung in ladder.rungs(situation)]


def test_without_a_list_it_is_the_same_again_the_last_good_and_the_console():
    situation = Situation(STATIC, records(ip_mode="DHCP"), CARDS)

    assert numbers(situation) == [RETRY, RESTORE, CONSOLE]
    *_, last = ladder.rungs(situation)
    assert (last.records, last.cards) == (None, ())


def test_the_same_records_are_not_restored():
    assert numbers(Situation(STATIC, STATIC, CARDS)) == [RETRY, CONSOLE]
    assert numbers(Situation(STATIC, None, CARDS)) == [RETRY, CONSOLE]


def test_listed_cards_with_carrier_are_tried_plain_and_then_by_dhcp_with_the_tags_heard():
    found = list(ladder.rungs(Situation(STATIC, None, CARDS, listed=("eth2", "eth1", "eth0"))))

    assert [(rung.number, rung.card, rung.tag) for rung in found] == [
        (RETRY, "", -1),
        (PLAIN, "eth1", -1),
        (PLAIN, "eth0", -1),
        (DHCP, "eth1", -1),
        (DHCP, "eth1", 5),
        (DHCP, "eth1", 7),
        (DHCP, "eth0", -1),
        (CONSOLE, "", -1),
    ]
    assert found[-1].cards == ("eth1", "eth0")
    assert all(rung.timeout_s > 0 and rung.action for rung in found)


def test_the_plain_card_has_the_fixed_address_on_its_own_bridge_and_nothing_else():
    (plain,) = [
        rung for rung in ladder.rungs(Situation(STATIC, None, CARDS, ("eth0",))) if rung.number == PLAIN
    ]

    tried = plain.records
    assert tried is not None
    (pif,) = tried.pifs.values()
    assert {name: getattr(pif, name) for name in FIXED} == FIXED
    assert (pif.ref, pif.management, pif.bond_slave_of, pif.vlan) == ("p0", True, "", -1)
    assert pif.other_config == {"ethtool-gro": "off"}
    assert [network.bridge for network in tried.networks.values()] == ["xenbr0"]
    assert (tried.bridge, dict(tried.bonds), dict(tried.vlans)) == ("xenbr0", {}, {})


def test_a_tag_is_tried_on_a_bridge_of_its_own():
    (tagged,) = [rung for rung in ladder.rungs(Situation(STATIC, None, CARDS, ("eth1",))) if rung.tag == 7]

    tried = tagged.records
    assert tried is not None
    (vlan,) = tried.vlans.values()
    upper, lower = tried.pifs[vlan.untagged], tried.pifs[vlan.tagged]
    assert (upper.device, upper.vlan, upper.ip_mode, upper.management) == ("eth1", 7, "DHCP", True)
    assert (lower.ref, lower.ip_mode, lower.management) == ("p1", "None", False)
    assert upper.vlan_master_of == vlan.ref
    assert lower.vlan_slave_of == (vlan.ref,)
    assert tried.bridge == tried.networks[upper.network].bridge == "xentemp"


def test_a_card_without_records_gets_some():
    cards = (Seen("enp129s0f1np1", "02:00:00:00:00:09", carrier=True),)
    *_, dhcp, _ = ladder.rungs(Situation(STATIC, None, cards, ("enp129s0f1np1",)))

    assert dhcp.records is not None
    (pif,) = dhcp.records.pifs.values()
    assert (pif.device, pif.mac, pif.physical) == ("enp129s0f1np1", "02:00:00:00:00:09", True)
    assert dhcp.records.networks[pif.network].bridge == dhcp.records.bridge == "brenp129s0f1np1"


def test_a_card_outside_the_bond_comes_first():
    cards = (*CARDS[:2], CARDS[2]._replace(carrier=True))
    situation = Situation(STATIC, None, cards, ("eth0", "eth1", "eth2"))

    assert [card.name for card in ladder.usable(situation)] == ["eth2", "eth0", "eth1"]


def test_a_management_network_that_used_dhcp_has_the_address_of_its_last_lease():
    lease = Leased(4, "BOUND", ("10.1.2.3/20",), ("10.1.0.1",), ("10.1.0.53", "10.1.0.54"))

    found = ladder.fixed_address(records(ip_mode="DHCP"), lease)

    assert found is not None
    assert found[:5] == ("Static", "10.1.2.3", "255.255.240.0", "10.1.0.1", "10.1.0.53,10.1.0.54")
    assert ladder.fixed_address(records(ip_mode="DHCP"), None) is None
    assert PLAIN not in numbers(Situation(records(ip_mode="DHCP"), None, CARDS, ("eth0",)))


def test_a_fixed_ipv6_address_alone_is_enough():
    found = ladder.fixed_address(
        records(ipv6_mode="Static", ipv6=("fd00::7/64",), ipv6_gateway="fd00::1"), None
    )

    assert found is not None
    assert (found.ip_mode, found.ipv6, found.ipv6_gateway) == ("None", ("fd00::7/64",), "fd00::1")


def test_the_inventory_names_management_where_no_pif_is_marked():
    unmarked = STATIC._replace(pifs={ref: pif._replace(management=False) for ref, pif in STATIC.pifs.items()})

    found = ladder.management(unmarked)

    assert found is not None
    assert found.ref == "pv"
    assert ladder.management(unmarked._replace(bridge="")) is None
    assert numbers(Situation(unmarked._replace(bridge=""), None, CARDS)) == [CONSOLE]


def climb(situation):
    tried: list[tuple[int, str, int]] = []
    while (rung := ladder.choose(situation, tried)) is not None:
        tried.append(rung.key)
    return tried


def test_it_is_climbed_once_to_the_end():
    situation = Situation(STATIC, records(ip_mode="DHCP"), CARDS, ("eth0", "eth1"))

    assert climb(situation) == [rung.key for rung in ladder.rungs(situation)]


def test_a_card_that_gets_carrier_late_is_not_a_step_down():
    tried = [(RETRY, "", -1), (PLAIN, "eth0", -1), (DHCP, "eth0", -1)]
    situation = Situation(STATIC, None, CARDS, ("eth0", "eth1"))

    rung = ladder.choose(situation, tried)

    assert rung is not None
    assert rung.key == (DHCP, "eth1", -1)


SITUATIONS = st.builds(
    Situation,
    st.sampled_from([STATIC, records(ip_mode="DHCP"), records()]),
    st.sampled_from([None, STATIC]),
    st.lists(
        st.builds(
            Seen,
            st.sampled_from(["eth0", "eth1", "eth2", "eth3"]),
            st.just("02:00:00:00:00:00"),
            st.booleans(),
            st.lists(st.integers(0, 4094), max_size=12, unique=True).map(tuple),
        ),
        unique_by=lambda card: card.name,
    ).map(tuple),
    st.lists(st.sampled_from(["eth0", "eth1", "eth2", "eth9"])).map(tuple),
)


@given(SITUATIONS)
def test_it_always_ends_at_the_console_and_uses_listed_cards_only(situation):
    tried = climb(situation)

    assert tried[-1][0] == CONSOLE
    assert len(tried) == len(set(tried))
    assert [number for number, *_ in tried] == sorted(number for number, *_ in tried)
    assert {card for number, card, _ in tried if card} <= set(situation.listed)
    for rung in ladder.rungs(situation):
        if rung.number in (PLAIN, DHCP):
            assert rung.records is not None
            assert {pif.device for pif in rung.records.pifs.values()} == {rung.card}
            assert ladder.management(rung.records) is not None


@pytest.mark.parametrize(
    ("prefix", "mask"),
    [(0, "0.0.0.0"), (8, "255.0.0.0"), (23, "255.255.254.0"), (32, "255.255.255.255")],  # noqa: S104
)
def test_a_netmask(prefix, mask):
    assert ladder.netmask_of(prefix) == mask


def test_the_console_says_what_was_tried_and_what_to_type():
    failed = [(Rung(RETRY, STATIC, "the same once more"), "no carrier on bond0")]

    text = ladder.console_message(failed, Situation(STATIC, None, CARDS, ("eth1",)))

    assert "rung 1 (the same once more): no carrier on bond0" in text
    assert "eth0 02:00:00:00:00:00: carrier, not listed for emergencies" in text
    assert "eth1 02:00:00:00:00:01: carrier, VLAN tags seen: 5, 7\n" in text
    assert "hostagent net status" in text
    assert "none is" not in text
    assert "none is" in ladder.console_message([], Situation(STATIC, None, CARDS))
