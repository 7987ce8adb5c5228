"""A link setting that costs the link is taken back alone; the rest of the plan stays."""

from __future__ import annotations

import pytest

from hostagent.net import apply, journal, link_kept
from hostagent.net.devices import UP, Device, Kernel, Wanted
from hostagent.net.plan import plan
from hostagent.net.verify import Around, differences
from tests.pure.net_apply_host import Host
from tests.pure.net_plans import a_kernel


class Cable:
    """A host whose eth0 loses its link when it is to have 10 Mb/s, for so many looks."""

    def __init__(self, looks):
        self.kernel = a_kernel()
        self.looks = looks
        self.left = 0
        self.set = []
        self.waited = 0.0

    def look(self):
        self.kernel.links[1].carrier = self.left == 0
        self.left = max(0, self.left - 1)
        return self.kernel.look()

    def ethtool(self, device, args):
        self.set.append((device, dict(args)))
        self.left = self.looks if args.get("link", {}).get("speed") == 10 else 0

    def wait(self, seconds):
        self.waited += seconds

    def carry_out(self, folder, plan_):
        tools = Host(self.kernel).tools()._replace(netlink=self, ethtool=self.ethtool, wait=self.wait)

        def check(_):
            is_ = {"speed": 10} if self.set[-1][1]["link"].get("speed") == 10 else {"speed": 1000}
            return differences(SPEED, self.kernel.look(), AROUND._replace(link={"eth0": is_}))

        return apply.carry_out(plan_, tools, folder, boot="b1", digest="d", what="speed", check=check)


SPEED = Wanted((Device("eth0", "physical", link={"speed": 10}),))
AROUND = Around(
    {"net/ipv6/conf/eth0/disable_ipv6": "1"},
    {"eth0": {"speed": "10,100,1000"}},
    link_back={"eth0": {"autoneg": "on", "advertise": 47}},
)


def speed_plan(cable):
    cable.kernel.links[1].up = True
    made = plan(SPEED, cable.kernel.look(), AROUND)
    assert [dict(one.args) for one in made.steps[-1].undo] == [{"link": {"autoneg": "on", "advertise": 47}}]
    return made


@pytest.mark.parametrize("looks", [0, 1, link_kept.LINK_AWAY - 1])
def test_a_link_setting_stays_when_the_link_comes_back(tmp_path, looks):
    cable = Cable(looks)

    _, applied = cable.carry_out(tmp_path, speed_plan(cable))

    assert [args for _, args in cable.set] == [{"link": {"speed": 10}}]
    assert applied.told == ()


def test_a_link_setting_that_costs_the_link_is_taken_back_alone_and_told(tmp_path):
    cable = Cable(1000)

    _, applied = cable.carry_out(tmp_path, speed_plan(cable))

    assert cable.set[1:] == [("eth0", {"link": {"autoneg": "on", "advertise": 47}})]
    assert cable.waited == 3.0
    assert applied.told == (
        "eth0 lost its link for 3 s with ethtool-speed=10: its link settings are as before",
    )
    assert applied.differences == ()
    assert (found := journal.pending(tmp_path)) is not None
    assert found.state == journal.APPLIED


# --- before there is a link ---


SLOW = {"link": {"speed": 10}}
BEFORE: dict[str, dict[str, int | str]] = {"link": {"autoneg": "on", "advertise": 47}}
BOTH = Wanted(tuple(Device(name, "physical", link={"speed": 10}) for name in ("eth0", "eth1")))


class Cold:
    """A host whose NICs are down, as at a cold boot. `comes`: of each, after how many looks with which settings its
    link comes; None for never."""

    def __init__(self, comes):
        self.kernel = a_kernel()
        self.comes = comes
        self.set: dict[str, list[object]] = {"eth0": [], "eth1": []}
        self.looks = {"eth0": 0, "eth1": 0}
        self.waited = 0.0

    def look(self):
        for link in self.kernel.links.values():
            after = self.comes.get(link.name, {}).get((self.set[link.name] or [BEFORE])[-1] == SLOW)
            link.carrier = link.up and after is not None and self.looks[link.name] >= after
            self.looks[link.name] += link.up
        return self.kernel.look()

    def execute(self, operations):
        self.kernel.execute(operations)

    def ethtool(self, device, args):
        self.set[device].append(dict(args))
        self.looks[device] = 0

    def wait(self, seconds):
        self.waited += seconds

    def carry_out(self, folder, wanted):
        around = Around(
            {f"net/ipv6/conf/{name}/disable_ipv6": "1" for name in self.set},
            {name: {"speed": "10,100,1000"} for name in self.set},
            link_back=dict.fromkeys(self.set, BEFORE["link"]),
        )
        tools = Host(self.kernel).tools()._replace(netlink=self, ethtool=self.ethtool, wait=self.wait)

        def check(_):
            is_ = {
                name: {"speed": 10 if said[-1] == SLOW else 1000} for name, said in self.set.items() if said
            }
            return differences(wanted, self.kernel.look(), around._replace(link=is_))

        made = plan(wanted, self.kernel.look(), around)
        return apply.carry_out(made, tools, folder, boot="b1", digest="d", what="speed", check=check)[1]


NEVER: dict[bool, int] = {}
COMES_S = link_kept.LINK_COMES * link_kept.LINK_POLL_S
WITH_BOTH = {True: 0, False: 0}
TOLD = "{} gets no link with ethtool-speed=10: its link settings are as before"


def test_a_link_that_never_comes_with_its_settings_has_those_of_before_and_that_is_told(tmp_path):
    cold = Cold({"eth0": {False: 4}})

    applied = cold.carry_out(tmp_path, SPEED)

    assert cold.set["eth0"] == [SLOW, BEFORE]
    assert applied.told == (TOLD.format("eth0"),)
    assert applied.differences == ()
    assert cold.waited == COMES_S + 4 * link_kept.LINK_POLL_S  # no longer than until it comes


@pytest.mark.parametrize("looks", [0, 1, link_kept.LINK_COMES])
def test_a_link_that_comes_with_its_settings_is_waited_for_no_longer(tmp_path, looks):
    cold = Cold({"eth0": {True: looks, False: 0}})

    applied = cold.carry_out(tmp_path, SPEED)

    assert (cold.set["eth0"], applied.told) == ([SLOW], ())
    assert cold.waited == looks * link_kept.LINK_POLL_S


def test_a_nic_without_a_cable_has_the_settings_that_are_wanted(tmp_path):
    cold = Cold({"eth0": NEVER})

    applied = cold.carry_out(tmp_path, SPEED)

    assert cold.set["eth0"] == [SLOW, BEFORE, SLOW]
    assert (applied.told, applied.differences, cold.waited) == ((), (), 2 * COMES_S)


@pytest.mark.parametrize(
    ("one", "other", "told", "waited"),
    [
        ({False: 0}, {False: 0}, ("eth0", "eth1"), COMES_S),
        ({False: 0}, NEVER, ("eth0",), 2 * COMES_S),
        (WITH_BOTH, {False: 8}, ("eth1",), COMES_S + 2.0),
        (NEVER, NEVER, (), 2 * COMES_S),
    ],
)
def test_links_are_watched_together(tmp_path, one, other, told, waited):
    cold = Cold({"eth0": one, "eth1": other})

    applied = cold.carry_out(tmp_path, BOTH)

    assert applied.told == tuple(TOLD.format(name) for name in told)
    assert cold.waited == waited


def test_a_nic_that_was_up_without_a_link_is_watched_too(tmp_path):
    """What is on the wire is being found out yet, or its cable is out."""
    cold = Cold({"eth0": {False: 9}})
    cold.kernel.links[1].up = True

    assert cold.carry_out(tmp_path, SPEED).told == (TOLD.format("eth0"),)


class Believing(Cold):
    """Its driver says that there is a link while the NIC is down."""

    def look(self):
        links = {
            index: link._replace(carrier=link.carrier or not link.flags & UP)
            for index, link in super().look().links.items()
        }
        return Kernel(links)


def test_what_a_driver_says_of_the_link_of_a_nic_that_is_down_is_not_believed(tmp_path):
    cold = Believing({"eth0": {False: 0}})

    assert cold.carry_out(tmp_path, SPEED).told == (TOLD.format("eth0"),)
