# mypy: disable-error-code="union-attr,arg-type,index"
# each test knows which object it has
"""Records that follow the kernel: what is observed, what is written, drift and its repair, and what events mean."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.errors import KernelError
from hostagent.net.attached import attached
from hostagent.net.devices import Address, Dns, Kernel, Route
from hostagent.net.dhcp_lease import Leased
from hostagent.net.follow import Event
from hostagent.netctl import observed
from hostagent.netctl.control import Control
from hostagent.netctl.observed import Speed, observe
from hostagent.netctl.plug import Network, Site
from hostagent.netctl.status import Eyes, Keeper, taken_in
from tests.pure.net_kernel import FakeKernel
from tests.pure.net_records import DHCP, STATIC, Host, link
from tests.pure.netctl_host import opened
from tests.pure.startup_network import FakeHost, Silence


@pytest.fixture(autouse=True)
def no_power_cut(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda _: None)


# --- what is observed, pure ---


def a_kernel(*, carrier=True, addresses=(), routes=()):
    """eth0 in xenbr0; eth1 and eth2 in bond0, in xapi0; VLAN 5 on bond0, in xapi101."""
    return Kernel(
        {
            one.ifindex: one
            for one in (
                link(2, "eth0", mac="02:00:00:00:00:00", master=10, carrier=carrier),
                link(3, "eth1", mac="02:00:00:00:00:01", master=11),
                link(4, "eth2", mac="02:00:00:00:00:02", master=11, carrier=carrier),
                link(10, "xenbr0", "bridge", carrier=carrier),
                link(11, "bond0", "bond", master=12),
                link(12, "xapi0", "bridge", mtu=9000),
                link(13, "bond0.5", "vlan", master=14, lower=11, vlan_id=5),
                link(14, "xapi101", "bridge"),
            )
        },
        tuple(addresses),
        tuple(routes),
    )


def a_host(**management):
    made = Host()
    made.nic("eth0", **{"management": True, **management})
    made.nic("eth1")
    made.nic("eth2")
    made.bond("bond0", ("eth1", "eth2"), mode="lacp")
    made.vlan("bond0", 5)
    return made.records("xenbr0")


def test_attached_is_the_whole_chain():
    seen = observe(a_host(), a_kernel())

    assert {ref for ref, values in seen.pifs.items() if values["currently_attached"]} == {
        "eth0",
        "bond0",
        "bond0.5",
    }
    assert {ref for ref, values in seen.pifs.items() if values["management"]} == {"eth0"}
    assert (seen.pifs["bond0"]["MTU"], seen.pifs["bond0.5"]["MTU"]) == (9000, 1500)


@pytest.mark.parametrize("missing", [11, 13, 14])
def test_a_chain_with_a_part_missing_is_not_attached(missing):
    kernel = a_kernel()
    links = {index: one for index, one in kernel.links.items() if index != missing}

    assert observe(a_host(), Kernel(links)).pifs["bond0.5"]["currently_attached"] is False


@pytest.mark.parametrize(("carrier", "links_up", "speed"), [(True, 2, 2000), (False, 1, 1000)])
def test_a_bond_has_the_carrier_of_its_members_and_the_speed_that_its_mode_adds_up_to(
    carrier, links_up, speed
):
    seen = observe(a_host(), a_kernel(carrier=carrier), speed=lambda _: Speed(1000, duplex=True))

    assert seen.metrics["bond0"] == {"carrier": True, "speed": speed, "duplex": True}
    assert seen.metrics["eth0"]["carrier"] is carrier
    assert seen.bonds["bond-bond0"] == {"links_up": links_up}
    assert "bond0.5" not in seen.metrics  # those of what it lies on


def test_addresses_of_dhcp_follow_the_kernel_and_go_with_it():
    kernel = a_kernel(
        addresses=[Address(10, "192.0.2.33", 24), Address(10, "fe80::1", 64, scope=253)],
        routes=[Route(10, "default4", "192.0.2.1", protocol=16, metric=1024)],
    )

    values = observe(a_host(**DHCP), kernel, servers=lambda bridge: "192.0.2.53").pifs["eth0"]
    found = (values["IP"], values["netmask"], values["gateway"])
    assert found == ("192.0.2.33", "255.255.255.0", "192.0.2.1")
    assert values["DNS"] == "192.0.2.53"
    assert observe(a_host(**DHCP), a_kernel()).pifs["eth0"]["IP"] == ""
    assert "IPv6" not in values


def test_what_an_operator_set_is_not_overwritten_by_what_is_there():
    kernel = a_kernel(addresses=[Address(10, "198.51.100.1", 24)])

    values = observe(a_host(**STATIC), kernel, servers=lambda _: "192.0.2.53").pifs["eth0"]

    assert set(values) == {"currently_attached", "management", "MTU"}


def test_addresses_from_router_advertisements_are_recorded():
    kernel = a_kernel(
        addresses=[Address(10, "2001:db8::7", 64), Address(10, "fe80::1", 64, scope=253)],
        routes=[Route(10, "default6", "fe80::9", protocol=9, metric=1024)],
    )

    values = observe(a_host(ipv6_mode="Autoconf"), kernel, family="IPv6")

    assert values.pifs["eth0"]["IPv6"] == ["2001:db8::7/64"]
    assert values.pifs["eth0"]["ipv6_gateway"] == "fe80::9"
    assert values.address == "2001:db8::7"


def test_the_device_with_the_default_route_needs_an_address():
    routes = [Route(10, "default4", "192.0.2.1"), Route(12, "default4", "198.51.100.1", metric=5)]
    kernel = a_kernel(addresses=[Address(12, "198.51.100.7", 24)], routes=routes)

    assert observed.default_device(kernel) == "xapi0"
    assert observed.default_device(a_kernel(routes=routes)) == ""
    assert observed.default_device(a_kernel()) == ""


# --- events, pure ---


def test_events_that_tell_all_are_taken_in():
    kernel = a_kernel(routes=[Route(10, "default4", "192.0.2.1")])
    down = kernel.links[2]._replace(carrier=False)
    events = [
        Event(gone=False, what=down),
        Event(gone=False, what=Address(10, "192.0.2.9", 24)),
        Event(gone=True, what=Route(10, "default4", "192.0.2.1")),
        Event(gone=False, what=Route(10, "default4", "192.0.2.2")),
    ]

    after = taken_in(kernel, events)

    assert after.links[2].carrier is False
    assert after.addresses == (Address(10, "192.0.2.9", 24),)
    assert after.routes == (Route(10, "default4", "192.0.2.2"),)


def test_events_after_which_routes_may_be_gone_without_a_word_need_a_look():
    kernel = a_kernel(addresses=[Address(10, "192.0.2.9", 24)])

    assert taken_in(kernel, [Event(gone=True, what=kernel.links[13])]) is None
    assert taken_in(kernel, [Event(gone=False, what=kernel.links[2]._replace(flags=0))]) is None
    assert taken_in(kernel, [Event(gone=True, what=Address(10, "192.0.2.9", 24))]) is None


@given(
    st.lists(
        st.one_of(
            st.builds(
                Address,
                st.sampled_from([10, 12]),
                st.sampled_from(["192.0.2.1", "::1"]),
                st.just(24),
                valid_s=st.integers(0, 3),
            ),
            st.builds(
                Route,
                st.sampled_from([10, 12]),
                st.just("default4"),
                st.sampled_from(["192.0.2.1", "192.0.2.2"]),
            ),
        ),
        max_size=8,
    )
)
def test_what_is_told_twice_is_there_once(whats):
    events = [Event(gone=False, what=what) for what in whats]

    once, twice = taken_in(a_kernel(), events), taken_in(a_kernel(), [*events, *events])

    assert once == twice
    told = {(what.device, what.text): what for what in whats if isinstance(what, Address)}
    assert set(once.addresses) == set(told.values())  # the latest word counts
    assert set(once.routes) == {what for what in whats if isinstance(what, Route)}


# --- the thread's rounds ---


class World:
    """A host with a database, NICs eth0 to eth4 of it in the kernel, and what the keeper told others."""

    def __init__(self, site, state):
        self.site = site
        self.host = FakeHost(FakeKernel())
        self.leases = {}
        self.kept_leases, self.resolved, self.served, self.cached = [], [], [], []
        self.follower = Silence()
        self.looks = 0
        self.now = 0.0
        self.management = "xenbr0", "IPv4"
        for number in range(5):
            self.host.kernel.nic(f"eth{number}", number + 2, up=True)
            made = self.host.kernel.links[number + 2]
            made.permanent_mac = made.mac = f"02:00:00:00:00:0{number}"
        self.network = Network(
            Site(
                open=lambda _: self.host.open(state),
                owners=lambda _: (),
                management=lambda: self.management,
                set_management=lambda *_: None,
                serve=lambda *_: None,
                nics=lambda: (),
                has_bridge=lambda _: False,
                ask=self.host.ask,
            )
        )
        self.control = Control(site.db, "host-uuid", self.network)

    def look(self):
        self.looks += 1
        return self.host.look()

    def keeper(self, **settings):
        made = Keeper(
            self.control,
            Eyes(
                follow=lambda: self.follower,
                look=self.look,
                speed=lambda _: Speed(1000, duplex=True),
                leased=lambda bridge, family: self.leases.get((bridge, family)),
                keep_lease=lambda bridge, lease: self.kept_leases.append((bridge, lease)),
                resolve=lambda dns, bridge: self.resolved.append((dns, bridge)),
                serve=lambda bridge, family: self.served.append((bridge, family)),
                carry_out=self.host.execute,
                keep=self.cached.append,
                **settings,
            ),
            clock=lambda: self.now,
        )
        self.follower.lose()
        made.refresh(self.follower)
        return made

    def raised(self, *numbers):
        with self.site.db.read() as view:
            records = self.control.records(view)
        with self.network.bring_up(records, [self.site.pifs[n] for n in numbers], was=records):
            pass

    def pif(self, number):
        return self.site.record("PIF", self.site.pifs[number])

    def again(self, keeper):
        """A round after something happened that needs a look."""
        self.follower.lose()
        return keeper.refresh(self.follower)


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


def test_lost_events_are_made_up_for_by_a_look(world):
    keeper = world.keeper()
    world.raised(1)
    world.follower.lose()

    keeper.refresh(world.follower)

    assert world.pif(1)["currently_attached"] is True


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


# --- leases ---


def test_a_lease_is_recorded_kept_and_gives_the_host_its_name_servers(world):
    world.site.set("PIF", world.site.pifs[0], ip_configuration_mode="DHCP", IP="", netmask="", gateway="")
    world.raised(0)
    lease = Leased(4, "BOUND", ("192.0.2.33/24",), ("192.0.2.1",), ("192.0.2.53",), ("example.org",))
    world.leases["xenbr0", 4] = lease
    keeper = world.keeper()
    world.host.address("xenbr0", "192.0.2.33", gateway="192.0.2.1")

    world.again(keeper)

    assert (world.pif(0)["IP"], world.pif(0)["DNS"]) == ("192.0.2.33", "192.0.2.53")
    assert world.kept_leases[-1] == ("xenbr0", lease)
    assert world.resolved[-1] == (Dns(("192.0.2.53",), ("example.org",)), "xenbr0")
    assert world.site.record("host", world.site.host)["address"] == "192.0.2.33"
    asked = len(world.kept_leases)
    world.again(keeper)
    assert len(world.kept_leases) == asked


def test_a_lease_without_name_servers_leaves_the_recorded_ones(world):
    world.site.set("PIF", world.site.pifs[0], ip_configuration_mode="DHCP", DNS="192.0.2.99")
    world.raised(0)
    world.leases["xenbr0", 4] = Leased(4, "BOUND", ("192.0.2.33/24",))
    world.host.address("xenbr0", "192.0.2.33")

    world.keeper()

    assert world.pif(0)["DNS"] == "192.0.2.99"
    assert world.resolved == []


def test_static_routes_of_a_leased_address_come_with_it(world):
    world.site.set("PIF", world.site.pifs[0], ip_configuration_mode="DHCP", IP="", netmask="", gateway="")
    routes = {"static-routes": "198.51.100.0/24/192.0.2.9"}
    world.site.set("network", world.site.nets[0], other_config=routes)
    world.raised(0)
    keeper = world.keeper()
    assert not world.host.look().routes
    world.host.address("xenbr0", "192.0.2.33")

    world.again(keeper)

    (route,) = world.host.look().routes
    assert (route.destination, route.gateway) == ("198.51.100.0/24", "192.0.2.9")


def test_what_only_carries_vlans_is_told_by_its_ipv6():
    records = a_host()
    leased = records.pifs["bond0"]._replace(ip_mode="DHCP")
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
