"""Odd machines of the lab: their QEMU command line, without starting one."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nested_xen import machine
from nested_xen.accel import Accel

TCG = Accel("tcg", "test")


def devices(made: machine.Machine) -> list[str]:
    words = machine.qemu_arguments(
        made, TCG, Path("/boot"), Path("/disks/h1"), sockets=Path("/run/h1"), incoming=False
    )
    return [after for word, after in itertools.pairwise(words) if word == "-device"]


def nic_slots(made: machine.Machine) -> dict[str, int]:
    """MAC and PCI slot of each NIC, as QEMU is told."""
    found = [re.search(r"^virtio-net-pci.*mac=([^,]*),.*addr=(0x\w+)", device) for device in devices(made)]
    return {match[1]: int(match[2], 16) for match in found if match}


def test_a_custom_machine_without_wishes_has_the_standard_hardware() -> None:
    odd = machine.custom(1)
    assert devices(odd) == devices(machine.standard(1))
    assert odd.odd
    assert not machine.standard(1).odd


@given(st.integers(1, machine.MAX_NICS).flatmap(lambda n: st.permutations(range(n))))
def test_no_two_devices_share_a_pci_slot_in_any_order(order: list[int]) -> None:
    made = machine.custom(1, nics=len(order), pci_order=order, sata=2, nvme=2, usb=2, cd=2)
    slots = [int(found[1], 16) for device in devices(made) if (found := re.search(r"addr=(0x\w+)", device))]
    assert len(set(slots)) == len(slots)
    assert 0x1F not in slots
    assert nic_slots(made) == {machine.mac(1, n): 2 + place for n, place in enumerate(order)}


def test_a_missing_nic_leaves_its_slot_empty_and_the_others_where_they_were() -> None:
    whole, lacking = nic_slots(machine.custom(1)), nic_slots(machine.custom(1, missing={2}))
    assert lacking == {mac: slot for mac, slot in whole.items() if mac != machine.mac(1, 2)}


def test_given_macs_come_first_and_the_rest_keep_theirs() -> None:
    made = machine.custom(1, macs=["02:00:00:00:00:aa", "02:00:00:00:00:bb"])
    assert [nic.mac for nic in made.nics] == [
        "02:00:00:00:00:aa",
        "02:00:00:00:00:bb",
        machine.mac(1, 2),
        machine.mac(1, 3),
    ]


def test_a_nic_of_another_model_sits_where_it_would_and_has_its_mac() -> None:
    made = machine.custom(1, e1000e={1})
    (other,) = [device for device in devices(made) if device.startswith("e1000e")]
    assert f"mac={machine.mac(1, 1)},romfile=,addr=0x3" in other
    assert "speed" not in other
    assert nic_slots(made).keys() == {machine.mac(1, n) for n in (0, 2, 3)}


@pytest.mark.parametrize(
    "wish",
    [
        {"nics": 0},
        {"nics": 17},
        {"pci_order": [0, 1, 1, 2]},
        {"pci_order": [0]},
        {"missing": {0}},
        {"missing": {4}},
        {"without_carrier": {9}},
        {"e1000e": {4}},
    ],
)
def test_what_cannot_be_built_is_refused(wish: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="NIC"):
        machine.custom(1, **wish)  # type: ignore[arg-type]


def test_every_disk_has_an_identity_of_its_own() -> None:
    made = [machine.custom(index, sata=1, nvme=1, usb=1, cd=1) for index in (1, 2)]
    wwns = [disk.wwn(one.name) for one in made for disk in one.disks]
    assert len(set(wwns)) == len(wwns)
    assert all(re.fullmatch(r"0x5000c5[0-9a-f]{10}", wwn) for wwn in wwns)
