"""NICs keep their positions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.net.nics import Change, Rule, assign, in_firmware_order, parse_rules
from tests.pure.net_nics import OTHER_SLOT, SLOT, A, B, C, D, known, seen

if TYPE_CHECKING:
    from hostagent.net.nics_types import Nic


def places(assignment):
    return {nic.position: (nic.name, nic.mac, nic.present) for nic in assignment.nics}


def test_the_first_list_is_in_the_firmwares_order():
    found = [
        seen("usb0", D),
        seen("eth10", C, "0000:05:00.1"),
        seen("eth9", B, "0000:05:00.0"),
        seen("eno1", A, "0000:81:00.0", onboard=1),
    ]

    assert [nic.name for nic in assign((), found).nics] == ["eno1", "eth9", "eth10", "usb0"]
    assert [nic.position for nic in assign((), found).nics] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param(seen("b", B, SLOT, onboard=1), seen("a", A, SLOT, onboard=2), id="onboard"),
        pytest.param(seen("b", B, "0000:9f:00.0"), seen("a", A, "0001:00:00.0"), id="domain"),
        pytest.param(seen("b", B, "0000:09:00.0"), seen("a", A, "0000:10:00.0"), id="bus"),
        pytest.param(seen("b", B, "0000:0a:00.0"), seen("a", A, "0000:10:00.0"), id="bus-is-hexadecimal"),
        pytest.param(seen("b", B, SLOT, port=0), seen("a", A, SLOT, port=1), id="port"),
        pytest.param(seen("eth2", B), seen("eth10", A), id="name-by-number"),
        pytest.param(seen("z", B, SLOT), seen("a", A), id="pci-before-others"),
    ],
)
def test_what_comes_first_in_the_firmwares_order(first, second):
    assert in_firmware_order([second, first]) == [first, second]


def test_a_known_mac_keeps_its_position_whatever_it_is_called_and_wherever_it_is():
    earlier = (known(0, "eth0", A, SLOT), known(1, "eth1", B, OTHER_SLOT))

    now = assign(earlier, [seen("eth0", B, SLOT), seen("enp4s0", A, OTHER_SLOT)])

    assert places(now) == {0: ("enp4s0", A, True), 1: ("eth0", B, True)}
    assert Change(0, "renamed", "eth0", "enp4s0") in now.changes
    assert Change(0, "moved", SLOT, OTHER_SLOT) in now.changes
    assert now.problems == ()


def test_what_is_in_the_slot_of_a_vanished_nic_takes_its_place():
    earlier = (known(0, "eth0", A, SLOT), known(1, "eth1", B, OTHER_SLOT))

    now = assign(earlier, [seen("eth1", B, OTHER_SLOT), seen("eth2", C, SLOT)])

    assert places(now) == {0: ("eth2", C, True), 1: ("eth1", B, True)}
    assert now.changes == (Change(0, "replaced", A, C), Change(0, "renamed", "eth0", "eth2"))


def test_a_long_vanished_nic_is_replaced_too():
    now = assign((known(3, "eth0", A, SLOT, present=False),), [seen("eth0", B, SLOT)])

    assert places(now) == {3: ("eth0", B, True)}


def test_a_new_nic_comes_after_the_highest_position_though_one_is_free():
    earlier = (known(0, "eth0", A, SLOT, present=False), known(5, "eth1", B, OTHER_SLOT))

    now = assign(earlier, [seen("eth1", B, OTHER_SLOT), seen("eth2", C, "0000:00:07.0")])

    assert places(now) == {0: ("eth0", A, False), 5: ("eth1", B, True), 6: ("eth2", C, True)}


def test_a_vanished_nic_keeps_its_position_and_has_no_link():
    earlier = (known(0, "eth0", A, SLOT)._replace(carrier=True, speed=1000, duplex=True),)

    now = assign(earlier, [])

    assert now.nics == (known(0, "eth0", A, SLOT, present=False),)
    assert now.changes == (Change(0, "missing", "eth0", ""),)
    assert assign(now.nics, []).changes == ()
    assert assign(now.nics, [seen("eth0", A, SLOT)]).changes == (Change(0, "back", "", "eth0"),)


def test_ports_of_one_function_are_replaced_together_in_the_order_of_their_macs():
    earlier = (known(0, "p1", B, SLOT), known(1, "p0", A, SLOT))

    now = assign(earlier, [seen("q0", D, SLOT, port=0), seen("q1", C, SLOT, port=1)])

    assert places(now) == {0: ("q0", D, True), 1: ("q1", C, True)}


def test_ports_are_not_replaced_when_there_are_more_or_fewer_of_them():
    earlier = (known(0, "p0", A, SLOT),)

    now = assign(earlier, [seen("q0", C, SLOT, port=0), seen("q1", D, SLOT, port=1)])

    assert places(now) == {0: ("p0", A, False), 1: ("q0", C, True), 2: ("q1", D, True)}


def test_nics_without_a_slot_do_not_replace_each_other():
    now = assign((known(0, "eth0", A),), [seen("eth0", B)])

    assert places(now) == {0: ("eth0", A, False), 1: ("eth0", B, True)}


def test_with_a_mac_twice_the_list_stays_and_the_devices_are_named():
    earlier = (known(0, "eth0", A, SLOT), known(1, "eth1", B, OTHER_SLOT))
    found = [seen("eth5", A, SLOT), seen("eth6", A, OTHER_SLOT), seen("lan", B, OTHER_SLOT), seen("x", C, "")]

    now = assign(earlier, found)

    assert places(now) == {0: ("eth0", A, True), 1: ("lan", B, True)}
    assert now.problems == (f"the MAC address {A} is on this host more than once: eth5, eth6",)


def test_with_a_mac_twice_and_no_list_only_those_nics_get_no_position():
    now = assign((), [seen("eth0", A), seen("eth1", A), seen("eth2", B)])

    assert places(now) == {0: ("eth2", B, True)}
    assert len(now.problems) == 1


def test_with_a_position_twice_the_list_stays():
    earlier = (known(0, "eth0", A, SLOT), known(0, "eth1", B, OTHER_SLOT))

    now = assign(earlier, [seen("lan", A, SLOT), seen("new", C)])

    assert [(nic.position, nic.name) for nic in now.nics] == [(0, "lan"), (0, "eth1")]
    assert now.problems == ("position 0 is in the list of NICs more than once",)


def test_a_nic_without_an_address_of_its_own_is_told_and_the_others_go_on():
    now = assign((known(0, "eth0", A),), [seen("eth0", A), seen("odd", ""), seen("eth1", B)])

    assert places(now) == {0: ("eth0", A, True), 1: ("eth1", B, True)}
    assert now.problems == ("odd has no MAC address of its own",)


def test_rules_place_nics_while_there_is_no_list():
    rules = parse_rules(f'3:mac="{A.upper()}"\n1:pci="{SLOT}"\n0:label="NIC 2"\nnonsense\n7:mac=""\n')
    found = [seen("a", A), seen("b", B, SLOT), seen("c", C, OTHER_SLOT, label="NIC 2"), seen("d", D)]

    assert rules == (Rule(3, "mac", A), Rule(1, "pci", SLOT), Rule(0, "label", "NIC 2"))
    assert {p: n for p, (n, _, _) in places(assign((), found, rules)).items()} == {
        0: "c",
        1: "b",
        3: "a",
        4: "d",
    }
    assert [nic.position for nic in assign((known(0, "d", D),), found, rules).nics] == [0, 1, 2, 3]


def test_a_nic_that_two_rules_are_for_has_one_position():
    rules = (Rule(4, "mac", A), Rule(2, "pci", SLOT))

    assert places(assign((), [seen("a", A, SLOT)], rules)) == {4: ("a", A, True)}


MACS = st.sampled_from([A, B, C, D, ""])
SLOTS = st.sampled_from(["", SLOT, OTHER_SLOT])
FOUND = st.lists(st.builds(seen, st.sampled_from(["x", "y", "eth1", "eth2"]), MACS, SLOTS), max_size=6)


@given(st.lists(FOUND, max_size=4))
def test_over_any_history_positions_are_unique_and_a_nic_that_is_there_has_but_one(history):
    nics_now: tuple[Nic, ...] = ()
    for found in history:
        before = nics_now
        now = assign(before, found)
        nics_now = now.nics
        positions = [nic.position for nic in nics_now]
        assert positions == sorted(set(positions))
        assert set(positions) >= {nic.position for nic in before}
        macs = [nic.mac for nic in nics_now]
        assert len(macs) == len(set(macs))
        assert "" not in macs
        assert assign(nics_now, found).nics == nics_now  # looking again changes nothing
        if not now.problems:
            assert {each.nic.mac for each in found} == {nic.mac for nic in nics_now if nic.present}


@given(st.text(max_size=200))
def test_any_text_is_rules_or_nothing(text):
    rules = parse_rules(text)

    assert len({rule.position for rule in rules}) == len(rules)
