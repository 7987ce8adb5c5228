# mypy: disable-error-code="union-attr,arg-type,index"
# each test knows which object it has
"""Records that follow the kernel: what is written, drift and its repair, and the thread."""

from __future__ import annotations

import threading

import pytest

from hostagent.errors import KernelError
from hostagent.net import bring, cache, reset
from hostagent.net.attached import attached
from hostagent.net.devices import Kernel
from hostagent.net.follow import Event
from hostagent.net.operation import Operation
from hostagent.netctl.generation import keep
from hostagent.netctl.reconfigure import reconfigure
from tests.pure.netctl_host import STATIC, opened
from tests.pure.netctl_kernel import a_host, a_kernel
from tests.pure.netctl_world import World


@pytest.fixture(autouse=True)
def no_power_cut(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda _: None)


# --- the thread's rounds ---


@pytest.fixture
def world(tmp_path):
    with opened(tmp_path) as site:
        site.set("PIF", site.pifs[0], currently_attached=False)
        yield World(site, tmp_path)


def test_the_records_are_as_the_kernel_has_it(world):
    world.raised(0, 1)

    world.keeper()

    assert [world.pif(n)["currently_attached"] for n in range(3)] == [True, True, False]
    metrics = world.site.record("PIF_metrics", world.pif(1)["metrics"])
    assert (metrics["carrier"], metrics["speed"]) == (True, 1000)
    assert world.site.record("host", world.site.host)["address"] == "192.0.2.7"
    assert world.served == [("xenbr0", "IPv4")]


def test_a_round_in_which_nothing_differs_writes_nothing(world):
    world.raised(0, 1)
    keeper = world.keeper()
    generation = world.site.db.generation

    assert world.again(keeper) == []
    assert world.site.db.generation == generation
    assert len(world.cached) == 1


def test_a_batch_of_events_is_one_transaction(world):
    world.raised(0, 1, 2)
    keeper = world.keeper()
    generation = world.site.db.generation
    links = world.host.look().by_name()
    world.follower.tell(*(Event(gone=False, what=links[f"eth{n}"]._replace(carrier=False)) for n in (1, 2)))
    looks = world.looks

    keeper.refresh(world.follower)

    carriers = [world.site.record("PIF_metrics", world.pif(n)["metrics"])["carrier"] for n in range(3)]
    assert carriers == [True, False, False]
    assert world.site.db.generation == generation + 1
    assert world.looks == looks


def test_lost_events_are_made_up_for_by_a_look_and_told(world, caplog):
    keeper = world.keeper()
    world.raised(1)
    world.follower.lose()

    keeper.refresh(world.follower)

    assert world.pif(1)["currently_attached"] is True
    assert "resync 1" in caplog.text


def test_a_round_waits_for_a_change_that_is_under_way(world):
    keeper = world.keeper()
    done = threading.Event()

    def round_() -> None:
        world.again(keeper)
        done.set()

    thread = threading.Thread(target=round_)
    with world.control.turn():
        thread.start()
        assert not done.wait(0.05)
    thread.join()

    assert done.is_set()


@pytest.mark.parametrize("mode", ["DHCP", "None"])
def test_what_only_carries_vlans_is_told_by_its_ipv6(mode):
    records = a_host()
    leased = records.pifs["bond0"]._replace(ip_mode=mode)
    records = records._replace(pifs={**records.pifs, "bond0": leased})
    kernel = a_kernel()

    def with_ipv6(bridge, other):
        links = {**kernel.links}
        links[12] = links[12]._replace(ipv6={"disable_ipv6": bridge})
        links[14] = links[14]._replace(ipv6={"disable_ipv6": other})
        return "bond0" in attached(records, Kernel(links))

    assert "bond0" in attached(records, kernel)
    assert with_ipv6(0, 0)
    assert not with_ipv6(1, 0)
    assert with_ipv6(1, 1)  # off for the whole host


# --- drift ---


def cut(world, number):
    """Somebody takes a NIC out of its bridge; it may be out already."""
    nic = world.host.kernel._by_name(f"eth{number}")
    if nic.master:
        world.host.kernel._release(nic)


def test_a_chain_that_somebody_broke_is_told_and_not_repaired_unasked(world, caplog):
    world.raised(0, 1)
    keeper = world.keeper()
    cut(world, 1)

    world.again(keeper)

    assert world.pif(1)["currently_attached"] is False
    assert keeper.lost == {world.site.pifs[1]}
    assert "nobody asked for it" in caplog.text
    caplog.clear()
    world.again(keeper)
    assert "nobody asked for it" not in caplog.text


def test_a_foreign_address_is_told_once(world, caplog):
    world.raised(0, 1)
    keeper = world.keeper()
    world.host.address("xenbr1", "198.51.100.9")

    world.again(keeper)
    world.again(keeper)

    assert [one.found for one in keeper.drift] == ["198.51.100.9/24"]
    assert caplog.text.count("drift: xenbr1") == 1


@pytest.mark.parametrize("where", ["PIF", "pool", "setting"])
def test_drift_is_repaired_where_told_to(world, where):
    world.raised(0, 1)
    if where == "PIF":
        world.site.set("PIF", world.site.pifs[1], other_config={"repair-drift": "true"})
    if where == "pool":
        world.site.set("pool", world.site.pool, other_config={"repair-drift": "true"})
    keeper = world.keeper(repair=where == "setting")
    cut(world, 1)
    world.host.address("xenbr1", "198.51.100.9")

    world.again(keeper)

    assert world.pif(1)["currently_attached"] is True
    assert (keeper.lost, keeper.drift) == (frozenset(), ())


def test_who_breaks_it_each_time_wins_after_some_tries(world):
    world.raised(0, 1)
    keeper = world.keeper(repair=True)
    outcomes = []
    for _ in range(5):
        cut(world, 1)
        world.again(keeper)
        outcomes.append(world.pif(1)["currently_attached"])

    assert outcomes == [True, True, True, False, False]
    world.now = 601.0
    world.again(keeper)
    assert world.pif(1)["currently_attached"] is True


def test_a_repair_that_fails_is_told(world, caplog):
    world.raised(0, 1)
    keeper = world.keeper(repair=True)
    cut(world, 1)
    world.host.fails = {"eth1"}

    world.again(keeper)

    assert "was not repaired" in caplog.text


def test_what_an_undo_took_back_stays_so_until_somebody_plugs_it(world, caplog):
    world.raised(0)
    keeper = world.keeper(repair=True)
    assert world.plug(1, confirm=True)["outcome"] == "waiting"
    world.again(keeper)
    assert world.undo()["outcome"] == "undone"

    world.again(keeper)
    world.again(world.keeper(repair=True))  # another start of the agent

    assert world.pif(1)["currently_attached"] is False
    assert "nobody asked for it" not in caplog.text
    assert "up eth1 was undone" in caplog.text
    assert caplog.text.count("is not repaired") == 1
    world.plug(1)
    cut(world, 1)
    world.again(keeper)
    assert world.pif(1)["currently_attached"] is True


def test_a_repair_that_waited_for_an_undo_does_not_make_the_change_again(world, caplog):
    world.raised(0)
    keeper = world.keeper(repair=True)
    world.plug(1, confirm=True)
    world.again(keeper)
    keeper._eyes = keeper._eyes._replace(taken_back=dict)  # it looked before the undo began
    world.undo()

    world.again(keeper)

    assert world.pif(1)["currently_attached"] is False
    assert "was not repaired: up eth1 was undone" in caplog.text


def test_what_came_up_with_less_is_in_the_log(world, caplog):
    world.host.kernel.links[3].carrier = False

    told = world.plug(1)["told"]

    assert "no carrier on eth1: look at the cable, the switch port, the transceiver" in told
    assert "(eth1): no carrier on eth1" in caplog.text


def test_an_undone_change_in_place_is_not_made_by_the_repair_of_another(world, caplog):
    world.site.set("PIF", world.site.pifs[1], **{**STATIC, "IP": "198.51.100.7"})
    world.raised(0, 1)
    _, untagged, _ = world.site.vlan(world.site.pifs[1], 5)
    keeper = world.keeper(repair=True)
    reconfigure(world.control, world.network, bring.Request(bring.UP, untagged))
    world.site.set("PIF", world.site.pifs[1], IP="198.51.100.8")
    assert world.plug(1, confirm=True)["outcome"] == "waiting"
    world.undo()
    world.host.execute([Operation("link-del", "xapi5", world.host.look().by_name()["xapi5"].ifindex)])

    world.again(keeper)

    assert not any(one.text == "198.51.100.8" for one in world.host.look().addresses)
    assert "xapi5" not in world.host.look().by_name()
    assert "(eth1) is not repaired: up eth1 was undone" in caplog.text
    assert "drift: xenbr1" not in caplog.text


def test_what_the_emergency_reset_brought_back_stays_so_until_somebody_plugs_it(world, caplog):
    world.raised(0)
    keeper = world.keeper(repair=True)
    with world.site.db.read() as view:
        good = world.control.records(view)
    world.site.set("PIF", world.site.pifs[0], IP="192.0.2.8")
    world.plug(0)
    world.again(keeper)
    with world.site.db.read() as view:
        keep(world.state / cache.FOLDER, world.control.records(view))

    found = cache.Found(cache.Cached(cache.still(good), 1, verified=True))
    reset.reset(found, world.host.open(world.state, run=world.run), list)
    world.again(keeper)

    assert {one.text for one in world.host.look().addresses} == {"192.0.2.7"}
    assert "drift:" not in caplog.text
    assert "from an earlier generation" in caplog.text
    world.plug(0)
    assert {one.text for one in world.host.look().addresses} == {"192.0.2.8"}
    world.host.address("xenbr0", "198.51.100.9")
    world.again(keeper)
    assert {one.text for one in world.host.look().addresses} == {"192.0.2.8"}


def test_what_only_the_records_have_otherwise_waits_for_the_next_plug(world, caplog):
    world.raised(0)
    keeper = world.keeper(repair=True)
    world.site.set("network", world.site.nets[0], MTU=9000)

    world.again(keeper)
    world.again(keeper)

    assert world.host.look().by_name()["xenbr0"].mtu == 1500
    assert (keeper.drift, {one.what for one in keeper.due}) == ((), {"mtu"})
    assert "drift" not in caplog.text
    world.host.address(
        "xenbr0", "198.51.100.9"
    )  # by another program: to take it off would bring the MTU along
    world.again(keeper)
    assert world.host.look().by_name()["xenbr0"].mtu == 1500
    assert "drift: xenbr0: address" in caplog.text
    assert "its records were changed since it came up" in caplog.text
    world.plug(0)
    world.again(keeper)
    assert world.host.look().by_name()["xenbr0"].mtu == 9000
    assert (keeper.drift, keeper.due) == ((), ())


def test_what_another_program_changed_before_the_records_stays_drift(world):
    world.raised(0, 1)
    keeper = world.keeper()
    world.host.address("xenbr1", "198.51.100.9")
    world.again(keeper)
    world.site.set("network", world.site.nets[1], MTU=1400)

    world.again(keeper)

    assert {one.what for one in keeper.drift} == {"address"}
    assert {one.what for one in keeper.due} == {"mtu"}


# --- failures around, and the thread ---


def test_what_cannot_be_served_or_cached_stops_nothing(world, caplog):
    def fail(*_):
        raise KernelError("no room", hint="make some")

    world.raised(0)
    keeper = world.keeper()
    keeper._eyes = keeper._eyes._replace(serve=fail, keep=fail)
    world.site.set("network", world.site.nets[3], name_label="other")

    world.again(keeper)

    assert caplog.text.count("no room") == 2
    assert world.pif(0)["currently_attached"] is True


def test_the_thread_follows_events_and_changes_of_the_database_until_it_is_stopped(world):
    world.raised(0)
    written = threading.Event()
    keeper = world.keeper()
    cached = len(world.cached)

    def keep(records) -> None:
        world.cached.append(records)
        written.set()

    keeper._eyes = keeper._eyes._replace(keep=keep)
    keeper.start()
    keeper.start()
    world.site.set("network", world.site.nets[3], other_config={"mtu": "9000"})

    assert written.wait(10)
    keeper.stop()

    assert len(world.cached) > cached
    assert world.follower.closed
