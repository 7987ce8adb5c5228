"""Operations as people are shown them: devices by name, and no contents of files."""

from __future__ import annotations

import pytest

from hostagent.net import reconfigure
from hostagent.net.operation import Operation, Plan, Step
from hostagent.net.shown import args_of, names_in, removed, words
from tests.pure.net_records import kernel_of, link

NEW = 0x10000003
ADD = Operation("link-add", "xenbr0", NEW, {"kind": "bridge"})


@pytest.mark.parametrize(
    ("args", "shown"),
    [
        ({"master": NEW}, {"master": "xenbr0"}),
        ({"master": 7, "up": True}, {"master": "bond0", "up": True}),
        ({"master": 0}, {"master": "none"}),
        ({"lower": 3}, {"lower": "eth0"}),
        ({"master": 99}, {"master": 99}),
        (
            {"settings": {"mode": 1, "primary": 3, "active_slave": 0}},
            {"settings": {"mode": 1, "primary": "eth0", "active_slave": "none"}},
        ),
        ({"mtu": 7, "settings": {"miimon": 3}}, {"mtu": 7, "settings": {"miimon": 3}}),
    ],
)
def test_indexes_are_shown_as_names_also_of_what_is_yet_to_be_made(args, shown):
    do = Operation("link-set", "eth0", 3, args)
    kernel = kernel_of(link(7, "bond0", "bond"))
    names = names_in(Plan((Step(ADD, ()), Step(do, ()))), kernel)
    assert args_of(do, names) == shown
    assert do.args == args


def test_of_a_plan_without_steps_nobody_is_asked():
    assert names_in(Plan(()), kernel_of(link(7, "bond0", "bond"))) == {}


@pytest.mark.parametrize(
    ("verb", "args", "told"),
    [
        ("file", {"path": "/etc/a", "content": "gehéim\n"}, "path=/etc/a size=8"),
        ("file", {"path": "/etc/a", "content": None}, "path=/etc/a removed"),
        (
            "link-set",
            {"up": True, "settings": {"mode": 1, "miimon": 100}},
            "up=True settings=mode:1,miimon:100",
        ),
        ("dns", {"before": "", "after": "search a\nnameserver b\n"}, "before= after=(2 lines)"),
    ],
)
def test_arguments_in_one_line(verb, args, told):
    assert words(verb, args) == told


def op(verb, device, **args):
    return {"verb": verb, "device": device, "args": args, "undo": [], "milliseconds": None}


@pytest.mark.parametrize(
    ("operations", "told"),
    [
        ([op("link-set", "eth0", up=True)], []),
        (
            [
                op("route-del", "xenbr0", destination="10.1.0.0/16"),
                op("route-del", "xenbr0", destination="10.2.0.0/16"),
                op("address-del", "xenbr0", text="192.0.2.7", prefix=24),
            ],
            ["removed: 2 routes, 1 address"],
        ),
        (
            [
                op("address-add", "xapi0", text="192.0.2.7", prefix=24),
                op("address-del", "xenbr0", text="192.0.2.7", prefix=24),
            ],
            [],
        ),
        (
            [op("lease-stop", "xenbr0", family=4), op("lease-stop", "xenbr0", family=6)],
            ["stale client removed: DHCP on xenbr0"],
        ),
        ([op("lease-stop", "xenbr0", family=4), op("link-del", "xenbr0")], []),
    ],
)
def test_what_a_change_removed_is_counted(operations, told):
    assert removed(operations) == told
    result = {"what": "up PIF x", "outcome": "changed", "operations": operations}
    printed = reconfigure.text_of(result)
    assert all(f"\n  {line}" in printed for line in told)
    assert "removed:" not in reconfigure.text_of({**result, "outcome": "planned"})
