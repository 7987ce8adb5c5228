"""Cached records on NICs that have other names now."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hostagent.net.cache import Cached, Position
from hostagent.net.nics import Seen
from hostagent.net.nics_types import Nic
from hostagent.net.remap import remapped
from tests.pure.net_records import Host

MACS = [f"02:00:00:00:00:0{number}" for number in range(3)]


def cached():
    made = Host()
    for number in range(3):
        made.nic(f"eth{number}")
    made.vlan("eth0", 5)
    places = tuple(Position(n, f"eth{n}", MACS[n], f"0000:00:0{n}.0") for n in range(3))
    return Cached(made.records("xenbr0"), 7, positions=places)


def seen(*names, macs=MACS):
    return [
        Seen(Nic(-1, name, mac, pci_path=f"0000:00:0{slot}.0"))
        for slot, (name, mac) in enumerate(zip(names, macs, strict=True))
    ]


def devices(found):
    return {ref: pif.device for ref, pif in found.records.pifs.items()}


def test_names_that_are_right_stay():
    assert remapped(cached(), seen("eth0", "eth1", "eth2")) == (cached(), [])


def test_swapped_names_are_followed_with_vlans_and_positions():
    found, told = remapped(cached(), seen("eth1", "eth0", "eth2"))

    assert devices(found) == {"eth0": "eth1", "eth0.5": "eth1", "eth1": "eth0", "eth2": "eth2"}
    assert [one.name for one in found.positions] == ["eth1", "eth0", "eth2"]
    assert len(told) == 2
    assert remapped(found, seen("eth1", "eth0", "eth2")) == (found, [])


def test_a_card_in_the_slot_of_one_that_is_gone_takes_its_place():
    found, _ = remapped(cached(), seen("enp1s0", "eth1", "eth2", macs=["02:00:00:00:00:09", *MACS[1:]]))

    assert devices(found)["eth0"] == "enp1s0"
    assert found.records.pifs["eth0"].mac == "02:00:00:00:00:09"


def test_one_mac_address_twice_and_no_positions_change_nothing():
    assert remapped(cached(), seen("a", "b", "c", macs=[MACS[0]] * 3))[1] == []
    bare = cached()._replace(positions=())
    assert remapped(bare, seen("eth1", "eth0", "eth2")) == (bare, [])


@given(st.permutations(["eth0", "eth1", "eth2", "enp9s0"]))
def test_whatever_they_are_called_each_pif_keeps_its_card(names):
    found, _ = remapped(cached(), seen(*names[:3]))

    assert [found.records.pifs[f"eth{n}"].device for n in range(3)] == names[:3]
