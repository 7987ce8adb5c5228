"""What calls of the network find out of the kernel, and of the NICs, before they touch the database."""

from __future__ import annotations

import pytest

from hostagent.netctl.plug import Network, Site
from tests.pure.netctl_host import NICS, opened
from tests.pure.startup_network import FakeHost


@pytest.fixture
def site(tmp_path):
    with opened(tmp_path) as made:
        yield made


# host.local_management_reconfigure


def test_an_emergency_move_onto_a_bridge_without_an_address_is_refused_and_listens_where_it_did(site):
    site.core.emergency = lambda: True
    site.net.bridges.add("xapi0")

    assert site.fails("host.local_management_reconfigure", "xapi0") == ["INTERFACE_HAS_NO_IP", "xapi0"]
    assert (site.net.bridge, site.net.names()) == ("xenbr0", [])

    site.net.addressed.add(("xapi0", "IPv6"))
    assert site.fails("host.local_management_reconfigure", "xapi0") == ["INTERFACE_HAS_NO_IP", "xapi0"]
    site.net.addressed.add(("xapi0", "IPv4"))
    site.call("host.local_management_reconfigure", "xapi0")
    assert site.net.bridge == "xapi0"


def test_which_addresses_count(tmp_path):
    host = FakeHost()
    host.kernel.nic("eth0", 2)
    host.kernel.nic("eth1", 3)
    net = Network(
        Site(
            open=lambda _: host.open(tmp_path),
            owners=lambda _: (),
            management=lambda: ("", "IPv4"),
            set_management=lambda *_: None,
            serve=lambda *_: None,
            nics=lambda: NICS,
            has_bridge=lambda _: True,
            ask=host.ask,
        )
    )
    host.address("eth0", "192.0.2.1")
    host.address("eth1", "fe80::1")

    assert net.has_address("eth0", "IPv4")
    assert not net.has_address("eth0", "IPv6")
    assert not net.has_address("eth1", "IPv6")
    assert not net.has_address("eth9", "IPv4")
    host.address("eth1", "2001:db8::1")
    assert net.has_address("eth1", "IPv6")


# VLAN.create


@pytest.mark.parametrize(
    ("call", "first"),
    [
        ("VLAN.create", lambda site: (site.pifs[1], 5, site.free)),
        ("pool.create_VLAN_from_PIF", lambda site: (site.pifs[1], site.free, 5)),
        ("pool.create_VLAN", lambda site: ("eth1", site.free, 5)),
        ("PIF.create_VLAN", lambda site: ("eth1", site.free, site.host, 5)),
    ],
)
def test_the_kernel_is_asked_once_and_not_while_writers_of_the_database_wait(site, call, first):
    asked = []

    def foreign():
        with site.db.write():  # refused to a thread that has a transaction
            asked.append(call)
        return {}

    site.net.foreign_vlans = foreign

    assert site.call(call, *first(site))
    assert asked == [call]


# PIF.introduce


def test_a_nic_that_was_renamed_has_its_pif_already(site):
    site.net.found = [nic._replace(name="ens9") if nic.position == 2 else nic for nic in NICS]
    before = site.everything()

    assert site.fails("PIF.introduce", site.host, "", "ens9") == ["DUPLICATE_PIF_DEVICE_NAME", "ens9"]
    assert site.everything() == before


def test_no_two_networks_have_the_same_bridge(site):
    site.call("PIF.forget", site.pifs[2])
    site.make("PIF", device="eth3", host=site.host, network=site.nets[2], VLAN=7)

    made = site.call("PIF.introduce", site.host, "", "eth2")

    network = site.record("network", site.record("PIF", made)["network"])
    bridges = [site.record("network", ref)["bridge"] for ref in site.refs("network")]
    assert network["bridge"] == "xapi1"
    assert len(set(bridges)) == len(bridges)
