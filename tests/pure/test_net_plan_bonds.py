"""Plans with bonds and with the VLANs that move to and from them."""

from __future__ import annotations

import pytest

from hostagent.net.devices import GROUP, Wanted
from hostagent.net.model import want
from hostagent.net.verify import differences
from tests.pure.net_plans import (
    BOND,
    PLAIN,
    TWO,
    VLANS,
    a_kernel,
    bridge,
    carry_out,
    every_kill_can_be_undone,
    every_prefix_can_be_undone,
    nic,
    vlan,
)
from tests.pure.net_records import STATIC, Host


@pytest.mark.parametrize("named", [True, False])
def test_vlans_that_move_to_a_bond_leave_none_behind_on_its_members(named):
    kernel = a_kernel()
    carry_out(kernel, VLANS)
    wanted = BOND if named else BOND._replace(gone=("xenbr0", "xenbr1"))

    every_prefix_can_be_undone(kernel, wanted)
    carry_out(kernel, wanted)

    assert "eth0.5" not in kernel.look().by_name()
    assert differences(wanted, kernel.look()) == ()


def test_a_bond_over_a_nic_with_a_vlan_takes_that_over_by_the_records():
    before = Host()
    before.nic("eth0", **STATIC)
    before.vlan("eth0", 5, bridge="xapi5")
    kernel = a_kernel()
    carry_out(kernel, want(before.records(), ["eth0", "eth0.5"]))
    after = Host()
    after.nic("eth0", currently_attached=True)
    after.nic("eth1")
    after.bond("bond0", ("eth0", "eth1"), bridge="xapi2", **STATIC)
    after.vlan("bond0", 5, bridge="xapi5", currently_attached=True)
    wanted = want(after.records(), ["bond0", "bond0.5"], links=kernel.look().by_name())
    assert "eth0.5" not in wanted.gone

    every_prefix_can_be_undone(kernel, wanted)
    carry_out(kernel, wanted)

    assert {name for name in kernel.look().by_name() if name[:3] not in ("eth", "lo")} == {
        "bond0",
        "bond0.5",
        "xapi2",
        "xapi5",
    }
    assert "eth0.5" not in kernel.look().by_name()
    assert differences(wanted, kernel.look()) == ()


def test_a_vlan_of_ours_on_a_member_is_told_and_goes_and_a_foreign_one_stays():
    kernel = a_kernel()
    carry_out(kernel, BOND)
    kernel._link_add("eth0.7", 90, {"kind": "vlan", "lower": 1, "vlan_id": 7, "group": GROUP})
    kernel._link_add("fcoe", 91, {"kind": "vlan", "lower": 1, "vlan_id": 9})

    assert [(d.device, d.what, d.found) for d in differences(BOND, kernel.look())] == [
        ("eth0", "vlan", "eth0.7")
    ]
    made = carry_out(kernel, BOND)

    assert [(step.do.verb, step.do.device) for step in made.steps] == [("link-del", "eth0.7")]


def test_a_vlan_that_moves_between_nics_is_deleted_where_it_was():
    kernel = a_kernel()
    carry_out(kernel, VLANS)
    moved = Wanted((nic("eth1", "xenbr1"), bridge("xenbr1", 2), bridge("xapi3"), vlan("eth1", 5, "xapi3")))

    every_prefix_can_be_undone(kernel, moved)
    carry_out(kernel, moved)

    assert "eth0.5" not in kernel.look().by_name()
    assert differences(moved, kernel.look()) == ()


def test_the_bond_that_loading_the_module_makes_makes_way():
    kernel = a_kernel()
    kernel._link_add("bond0", 5, {"kind": "bond"})

    every_prefix_can_be_undone(kernel, BOND)
    carry_out(kernel, BOND)

    assert kernel.look().by_name()["bond0"].group == GROUP
    assert [one.device for one in kernel.log if one.verb == "link-del"] == ["bond0"]
    assert differences(BOND, kernel.look()) == ()


def test_a_bond_of_others_that_is_in_use_is_taken_over_as_it_is():
    kernel = a_kernel()
    kernel._link_add("bond0", 5, {"kind": "bond", "settings": {"mode": 1}})
    kernel._link_set(kernel.links[1], {"master": 5})

    carry_out(kernel, BOND)

    assert kernel.look().by_name()["bond0"].ifindex == 5
    assert differences(BOND, kernel.look()) == ()


def test_a_primary_member_is_named_and_becomes_an_index():
    def with_primary(name):
        devices = [d._replace(primary=name) if d.kind == "bond" else d for d in BOND.devices]
        return BOND._replace(devices=tuple(devices))

    kernel = a_kernel()
    carry_out(kernel, TWO)
    every_prefix_can_be_undone(kernel, with_primary("eth1"))
    carry_out(kernel, with_primary("eth1"))
    assert kernel.look().by_name()["bond0"].settings["primary"] == 2
    assert differences(with_primary("eth1"), kernel.look()) == ()

    every_prefix_can_be_undone(kernel, with_primary("eth0"))
    made = carry_out(kernel, with_primary("eth0"))
    assert [dict(step.do.args) for step in made.steps] == [{"settings": {"primary": 1}}]
    assert [(d.what, d.wanted) for d in differences(with_primary("eth1"), kernel.look())] == [
        ("primary", "2")
    ]

    kernel = a_kernel()
    carry_out(kernel, BOND)
    every_prefix_can_be_undone(kernel, with_primary("eth1"))
    assert differences(with_primary("eth7"), kernel.look()) == ()


@pytest.mark.parametrize("slice_", [4, 200])
def test_many_vlans_go_together_and_come_back(monkeypatch, slice_):
    monkeypatch.setattr("hostagent.net.draft.SLICE", slice_)
    tags = range(10, 20)
    many = PLAIN._replace(
        devices=(
            *PLAIN.devices,
            *(bridge(f"xapi{tag}") for tag in tags),
            *(vlan("eth0", tag, f"xapi{tag}") for tag in tags),
        )
    )
    fewer = PLAIN._replace(gone=tuple(f"{what}{tag}" for tag in tags for what in ("eth0.", "xapi")))
    kernel = a_kernel()
    carry_out(kernel, many)
    kernel._link_add("fcoe", 91, {"kind": "vlan", "lower": 1, "vlan_id": 9})

    every_prefix_can_be_undone(kernel, fewer)
    every_kill_can_be_undone(kernel, fewer)
    made = carry_out(kernel, fewer)

    verbs = [step.do.verb for step in made.steps]
    assert (verbs.count("group-del"), verbs.count("link-del")) == (-(-len(tags) // slice_), len(tags))
    assert set(kernel.look().by_name()) == {"eth0", "eth1", "xenbr0", "fcoe"}
    assert differences(fewer, kernel.look()) == ()
