"""Names of bridges, bonds and VLAN devices."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.errors import InvalidValueError
from hostagent.net import names

device_names = st.text(alphabet="abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=15)
tags = st.integers(0, 4094)


@pytest.mark.parametrize(
    ("device", "position", "bridge"),
    [
        ("eth0", None, "xenbr0"),
        ("eth12", None, "xenbr12"),
        ("ens3", None, "brens3"),
        ("ens3", 4, "xenbr4"),
        ("eth0", 2, "xenbr2"),
    ],
)
def test_bridge_of_a_nic(device, position, bridge):
    assert names.bridge_of_nic(device, position) == bridge


def test_a_bridge_name_that_does_not_fit_is_refused_and_a_position_helps():
    with pytest.raises(InvalidValueError) as caught:
        names.bridge_of_nic("enp129s0f1np1x")

    assert caught.value.params == ("bridge", "brenp129s0f1np1x")
    assert names.bridge_of_nic("enp129s0f1np1x", 3) == "xenbr3"


@pytest.mark.parametrize("name", ["", "a" * 16, "a b", "a/b", "a:b", ".", "..", "a\n", "é" * 8, "a\x00"])
def test_what_is_no_name(name):
    assert not names.is_name(name)


@pytest.mark.parametrize(
    ("lower", "tag", "name"), [("eth0", 5, "eth0.5"), ("abcdefghij", 4094, "abcdefghij.4094")]
)
def test_a_vlan_device_that_fits_is_called_after_what_it_lies_on(lower, tag, name):
    assert names.vlan_device(lower, tag) == (name, "")


@given(device_names, tags)
def test_any_vlan_device_has_a_name_that_fits_and_is_the_same_each_time(lower, tag):
    name, altname = names.vlan_device(lower, tag)

    assert names.is_name(name)
    assert name.endswith(f".{tag}")
    assert (altname or name) == f"{lower}.{tag}"
    assert names.vlan_device(lower, tag) == (name, altname)


@given(st.lists(st.tuples(device_names, tags), unique=True, max_size=20))
def test_vlan_devices_are_told_apart(pairs):
    assert len({names.vlan_device(*pair)[0] for pair in pairs}) == len(pairs)


@given(st.text(max_size=20))
def test_any_text_is_a_name_only_as_the_kernel_has_it(text):
    if names.is_name(text):
        assert 0 < len(text.encode()) <= 15
        assert not set("/: \t\n\0") & set(text)
