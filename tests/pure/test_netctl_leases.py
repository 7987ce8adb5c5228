# mypy: disable-error-code="union-attr,arg-type,index"
# each test knows which object it has
"""What comes with a lease reaches the resolver, the records and the routes, whenever it changes."""

from __future__ import annotations

import pytest

from hostagent.net.devices import Address, Dns
from hostagent.net.dhcp_lease import Leased
from hostagent.net.follow import Event
from tests.pure.netctl_host import STATIC, opened
from tests.pure.netctl_world import World

LEASED = {"ip_configuration_mode": "DHCP", "IP": "", "netmask": "", "gateway": "", "DNS": ""}


@pytest.fixture(autouse=True)
def no_power_cut(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda _: None)


@pytest.fixture
def world(tmp_path):
    with opened(tmp_path) as site:
        site.set("PIF", site.pifs[0], currently_attached=False)
        yield World(site, tmp_path)


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


# --- leases that change while their address stays ---


class Two(World):
    """A host with leases on eth0 (192.0.2.0/24, the management interface) and eth1 (198.51.100.0/24)."""

    def __init__(self, site, state):
        super().__init__(site, state)
        for number in (0, 1):
            site.set("PIF", site.pifs[number], **LEASED)
        self.raised(0, 1)
        self.asked = []
        self.set_cs = 100
        for number in (0, 1):
            self.bind(number, dns=("192.0.2.53",) if number == 0 else ())
        self.kept = self.keeper()

    def bind(self, number, **lease):
        """A server answers: the client sets its address, the same one as ever."""
        self.set_cs += 100
        bridge, text = f"xenbr{number}", ("192.0.2.10", "198.51.100.10")[number]
        self.leases[bridge, 4] = Leased(4, "BOUND", (f"{text}/24",), **lease)
        index = self.host.look().by_name()[bridge].ifindex
        address = Address(index, text, 24, flags=0, valid_s=3600, set_cs=self.set_cs)
        others = [one for one in self.host.kernel.addresses if one.text != text]
        self.host.kernel.addresses = [*others, address]
        self.follower.tell(Event(gone=False, what=address))

    def round(self):
        """The bridges that are asked in a round."""
        asked = len(self.kept_leases)
        self.kept.refresh(self.follower)
        return {bridge for bridge, _ in self.kept_leases[asked:]}

    @property
    def dns(self):
        return [self.pif(number)["DNS"] for number in (0, 1)]


@pytest.fixture
def two(tmp_path):
    with opened(tmp_path) as site:
        site.set("PIF", site.pifs[0], currently_attached=False)
        yield Two(site, tmp_path)


def test_the_resolver_follows_its_owner_whose_address_stays(two):
    assert (two.resolved[-1], two.dns) == ((Dns(("192.0.2.53",)), "xenbr0"), ["192.0.2.53", ""])
    two.site.set("PIF", two.site.pifs[1], other_config={"peerdns": "true"})

    two.round()
    assert two.resolved[-1][1] == "xenbr0"  # the client of the other one has yet to ask for name servers
    assert two.dns == ["", ""]
    two.bind(1, dns=("198.51.100.53",))
    assert two.round() == {"xenbr1"}

    assert (two.resolved[-1], two.dns) == ((Dns(("198.51.100.53",)), "xenbr1"), ["", "198.51.100.53"])
    two.site.set("PIF", two.site.pifs[1], other_config={})
    two.bind(0, dns=("192.0.2.54",))
    two.round()
    assert (two.resolved[-1], two.dns) == ((Dns(("192.0.2.54",)), "xenbr0"), ["192.0.2.54", ""])


def test_a_client_that_answered_before_its_pif_owned_the_resolver_is_asked_again(two):
    two.bind(1, dns=("198.51.100.53",))
    two.round()
    assert two.dns == ["192.0.2.53", ""]
    two.site.set("PIF", two.site.pifs[1], other_config={"peerdns": "true"})

    two.round()

    assert (two.resolved[-1], two.dns) == ((Dns(("198.51.100.53",)), "xenbr1"), ["", "198.51.100.53"])


@pytest.mark.parametrize("lost", [False, True])
def test_other_name_servers_at_a_renewal_are_taken(two, lost):
    two.bind(0, dns=("192.0.2.54", "192.0.2.55"))
    if lost:  # the event of it: the look shows when the address was set
        two.follower.events.clear()
        two.follower.lose()

    assert two.round() == {"xenbr0"}

    assert two.resolved[-1] == (Dns(("192.0.2.54", "192.0.2.55")), "xenbr0")
    assert two.dns == ["192.0.2.54,192.0.2.55", ""]


def test_who_is_renewed_is_asked_and_nobody_else(two):
    two.bind(1)
    assert two.round() == {"xenbr1"}
    two.follower.lose()
    assert two.round() == set()
    bridge = two.host.look().by_name()["xenbr1"].ifindex
    advertised = Address(bridge, "fd00::5", 64, flags=0, valid_s=600)
    for when in (700, 800):
        two.follower.tell(Event(gone=False, what=advertised._replace(set_cs=when)))
        two.round()
    asked = len(two.kept_leases)
    two.follower.tell(Event(gone=False, what=advertised._replace(set_cs=900)))
    two.round()
    assert len(two.kept_leases) == asked


def test_name_servers_that_are_configuration_stay_with_a_pif_that_owns_no_resolver(world):
    world.site.set("PIF", world.site.pifs[1], **{**STATIC, "IP": "198.51.100.7"}, DNS="198.51.100.53")
    world.raised(0, 1)

    world.keeper()

    assert world.pif(1)["DNS"] == "198.51.100.53"
