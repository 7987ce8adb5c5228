# mypy: disable-error-code="union-attr"
# each test knows which object it has
"""Devices of another program that a change would remove: found before, and never removed in passing (row 46)."""

from __future__ import annotations

import pytest

from hostagent.net import bring, cache
from hostagent.net.affected import OccupiedError
from hostagent.net.checks import check
from hostagent.net.devices import Address, Wanted
from hostagent.net.finding import STOP, FindingError
from hostagent.net.plan import plan
from tests.pure.net_machine import Machine, records
from tests.pure.net_records import Host, kernel_of, link

NICS = (link(2, "eth0", mac="02:00:00:00:00:00"), link(3, "eth1", mac="02:00:00:00:00:01"))


def two_nics():
    host = Host()
    host.nic("eth0", currently_attached=True)
    host.nic("eth1")
    return host


def rows(host, kernel, *up, **arguments):
    found = check(host.records(), up, kernel=kernel, **arguments)
    return [(each.row, each.severity, each.refs) for each in found]


@pytest.mark.parametrize("boot", [False, True])
def test_a_bridge_of_another_program_stops_the_pif_that_would_take_it_away(boot):
    theirs = kernel_of(*NICS, link(9, "xenbr0", "bridge", group=0))

    (found,) = check(two_nics().records(), (), down=["eth0"], kernel=theirs, boot=boot)

    assert (found.row, found.severity, found.refs) == (46, STOP, ("eth0",))
    assert found.found == "xenbr0 was made by another program, and would be removed"
    assert found.hint == "take xenbr0 down where it is configured"
    assert rows(two_nics(), kernel_of(*NICS, link(9, "xenbr0", "bridge")), down=["eth0"]) == []


def test_a_vlan_and_the_bridge_below_it_are_told_with_the_pif_on_top():
    host = two_nics()
    host.change("eth0", currently_attached=False)
    host.vlan("eth0", 5, currently_attached=True)
    vlan = link(9, "eth0.5", "vlan", lower=2, vlan_id=5, group=0)
    below = link(10, "xenbr0", "bridge", group=0)

    for theirs in (vlan, below):
        assert rows(host, kernel_of(*NICS, theirs), down=["eth0.5"]) == [(46, STOP, ("eth0.5",))]


@pytest.mark.parametrize("boot", [False, True])
def test_a_bond_that_would_take_it_away_is_named_and_the_rest_is_not_stopped(boot):
    host = two_nics()
    host.nic("eth2")
    host.vlan("eth0", 5)
    host.bond("bond0", ("eth0", "eth1"))
    host.vlan("bond0", 7)
    nics = (*NICS, link(4, "eth2", mac="02:00:00:00:00:02"))
    theirs = kernel_of(*nics, link(9, "xenbr0", "bridge", group=0))

    assert rows(host, theirs, "bond0", "bond0.7", "eth2", boot=boot) == [
        (46, STOP, ("bond0", "bond0.7", "eth0", "eth0.5"))
    ]


@pytest.mark.parametrize(
    ("fields", "used", "stops"),
    [({"flags": 0}, (), False), ({}, (), True), ({"flags": 0}, (Address(9, "192.0.2.7", 24),), True)],
)
def test_a_bond_of_the_kernels_module_goes_and_one_of_another_program_does_not(fields, used, stops):
    host = two_nics()
    host.bond("bond0", ("eth0", "eth1"), currently_attached=True)
    theirs = kernel_of(*NICS, link(9, "bond0", "bond", group=0, **fields), addresses=used)

    assert rows(host, theirs, down=["bond0"]) == ([(46, STOP, ("bond0",))] if stops else [])
    if stops:
        with pytest.raises(OccupiedError, match="bond0 must go"):
            plan(Wanted(gone=("bond0",)), theirs)
    else:
        assert [step.do.verb for step in plan(Wanted(gone=("bond0",)), theirs).steps] == ["link-del"]


@pytest.mark.parametrize(
    "theirs",
    [
        link(9, "it", "bridge", group=0),
        link(9, "it", "vlan", lower=2, vlan_id=5, group=0),
        link(9, "it", "bond", group=7),
    ],
)
def test_no_plan_removes_it_whoever_did_not_look(theirs):
    with pytest.raises(OccupiedError, match="it must go, and was made by another program") as refused:
        plan(Wanted(gone=("it",)), kernel_of(*NICS, theirs))

    assert "take it down where it is configured" in refused.value.hint
    assert plan(Wanted(gone=("it",)), kernel_of(*NICS, theirs._replace(group=171))).steps


@pytest.mark.parametrize("mode", [bring.DO, bring.PLAN])
def test_without_a_daemon_too_it_stays(tmp_path, mode):
    cache.write(tmp_path, records())
    machine = Machine(tmp_path)
    machine.up()
    bring.bring(bring.Request("up", bridge="xapi5"), cache.read(tmp_path), machine.host())
    bridge = machine.kernel.look().by_name()["xapi5"].ifindex
    machine.kernel.links[bridge].group = 0
    before = machine.kernel.look()

    with pytest.raises(FindingError, match="xapi5 was made by another program") as refused:
        bring.bring(bring.Request("down", bridge="xapi5", mode=mode), cache.read(tmp_path), machine.host())

    assert (refused.value.code, refused.value.params[0]) == ("PIF_CONFIGURATION_ERROR", "upper")
    assert machine.kernel.look() == before


def test_without_a_daemon_too_guests_on_the_bridge_below_a_vlan_keep_it(tmp_path):
    """It goes along where nothing else needs it."""
    given = records(management=False, ip_mode="None")
    machine = Machine(tmp_path)
    found = cache.Found(cache.Cached(given, 7))
    bring.bring(bring.Request("up", bridge="xapi5"), found, machine.host())
    below = machine.kernel.look().by_name()["xenbr0"]
    ipv6 = {"disable_ipv6": 1}  # what only carries has none
    machine.kernel.links[below.ifindex].ipv6 = ipv6
    machine.kernel.nic("other", 30)
    machine.kernel.links[30].ipv6 = {"disable_ipv6": 0}
    machine.kernel.nic("vif3.0", 20)
    machine.kernel.links[20].master = below.ifindex

    with pytest.raises(FindingError, match=r"guests' interfaces on xenbr0: vif3\.0") as refused:
        bring.bring(bring.Request("down", bridge="xapi5"), found, machine.host())

    assert (refused.value.code, refused.value.params) == ("VIF_IN_USE", ("n0", "vif3.0"))
