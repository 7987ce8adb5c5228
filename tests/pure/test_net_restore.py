"""Settings that a bond is given back, or made again with: only those that the kernel takes in that state."""

from __future__ import annotations

import pytest

from hostagent.net.restore import creatable

SHOWN = {"mode": 1, "active_slave": 2, "primary": 2, "miimon": 100, "updelay": 31000, "ad_user_port_key": 0}
SHOWN |= {"packets_per_slave": 1, "tlb_dynamic_lb": 1, "missed_max": 2}


@pytest.mark.parametrize(
    ("changed", "left_out"),
    [
        ({}, {"active_slave", "ad_user_port_key"}),  # the members join afterwards
        ({"primary": 0}, {"active_slave", "ad_user_port_key", "primary"}),
        ({"mode": 4}, {"active_slave", "primary"}),
        ({"miimon": 0}, {"active_slave", "ad_user_port_key", "updelay"}),
    ],
)
def test_what_a_bond_without_members_in_that_mode_refuses_is_left_out(changed, left_out):
    shown = SHOWN | changed
    left_out |= {"packets_per_slave", "tlb_dynamic_lb"} | ({"missed_max"} if shown["mode"] == 4 else set())

    assert creatable(shown) == {name: value for name, value in shown.items() if name not in left_out}
