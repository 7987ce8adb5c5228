"""Operations as people are shown them: devices by name, and no contents of files."""

from __future__ import annotations

import pytest

from hostagent.net.operation import Operation, Plan, Step
from hostagent.net.shown import args_of, names_in, words
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
