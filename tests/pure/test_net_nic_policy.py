"""What the platform's program says of the NICs that the host boots from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.net import nic_policy
from hostagent.net.nic_policy import Policy
from hostagent.net.nics_types import Nic


@pytest.mark.parametrize(
    ("output", "policy"),
    [
        ("", Policy()),
        ("\n", Policy()),
        ("eth0 eth1\n", Policy(frozenset(("eth0", "eth1")))),
        ("\neth2\n", Policy(pinned=frozenset(("eth2",)))),
        ("eth0\neth2 eth3\nmore\n", Policy(frozenset(("eth0",)), frozenset(("eth2", "eth3")))),
    ],
)
def test_two_lines_of_names(output, policy):
    assert nic_policy.parse(output) == policy


@given(st.text())
def test_any_output_is_read(output):
    found = nic_policy.parse(output)
    assert all(name and not name.isspace() for name in found.unmanaged | found.pinned)


def test_a_host_without_the_program_has_no_policy(tmp_path):
    assert nic_policy.read(tmp_path) == Policy()


def test_nics_are_marked_by_the_name_they_have_now():
    nics = [Nic(0, "eth0", "a"), Nic(1, "eth1", "b"), Nic(2, "eth1", "c", present=False)]
    marked = nic_policy.marked(nics, Policy(frozenset(("eth0",)), frozenset(("eth1",))))
    assert [(nic.unmanaged, nic.pinned) for nic in marked] == [(True, False), (False, True), (False, False)]
