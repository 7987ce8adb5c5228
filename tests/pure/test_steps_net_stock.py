# mypy: disable-error-code="union-attr,attr-defined,arg-type,index"
# each test knows which outcome it has
"""The steps about the network on a stock host: nothing was adopted."""

from __future__ import annotations

import pytest

from hostagent.net.operation import Operation
from hostagent.startup import network, steps_net, steps_networks
from hostagent.xen import inventory
from tests.pure.startup_management import compared, links, on, pif


@pytest.fixture(autouse=True)
def no_power_cut(monkeypatch):
    """Hundreds of small files and rows, each made durable, take minutes on a busy disk."""
    monkeypatch.setattr("os.fsync", lambda _: None)


def test_a_stock_host_keeps_its_network_and_is_managed_where_its_address_is(stock, synced):
    before = stock.look()

    outcome = compared(synced, steps_net.plan_management, steps_net.raise_management)
    steps_networks.record_attachment(synced)
    steps_networks.raise_networks(synced)

    assert "eth0, 192.0.2.10" in outcome.note
    assert synced.host.inventory.management_interface == "eth0"
    after = stock.look()
    index = before.by_name()["eth0"].ifindex
    assert after.links[index] == before.links[index]
    assert [one for one in after.addresses if one.device == index] == list(before.addresses)
    assert set(before.routes) <= set(after.routes)
    assert not [operation for operation in stock.done if operation.device in ("eth0", "xenbr0")]


@pytest.fixture
def bridged(nics):
    """Somebody's own script has made a bridge that is called as ours would be, with the host's address."""
    nics.kernel.one(Operation("link-add", "xenbr0", 40, {"kind": "bridge", "up": True}))
    nics.kernel.one(Operation("link-set", "eth0", 2, {"master": 40}))
    nics.address("xenbr0", "192.0.2.10", gateway="192.0.2.1")
    return nics


def test_a_bridge_of_others_that_is_called_as_ours_keeps_its_address(bridged, synced):
    before = bridged.look()

    for _ in range(2):
        outcome = steps_net.raise_management(synced)
        steps_networks.record_attachment(synced)
        steps_networks.raise_networks(synced)

    assert synced.host.inventory.management_interface == "xenbr0"
    assert any("xenbr0 with 192.0.2.10 was made by another program" in told for told in outcome.warnings)
    after = bridged.look()
    assert {index: after.links[index] for index in (2, 40)} == {
        index: before.links[index] for index in (2, 40)
    }
    assert (after.addresses, after.routes) == (before.addresses, before.routes)


def test_a_management_interface_that_is_to_have_no_address_is_not_raised(adopted, nics):
    with adopted.host.database.write() as w:
        (ref,) = w.where("PIF", device="eth0")
        w.update("PIF", ref, {"ip_configuration_mode": "None", "ipv6_configuration_mode": "None"})

    steps_net.raise_management(adopted)

    assert "xenbr0" not in links(nics)


def test_nics_of_a_stock_host_that_nobody_has_get_their_bridges(stock, synced):
    steps_net.raise_management(synced)
    steps_networks.record_attachment(synced)

    outcome = compared(synced, steps_networks.plan_networks, steps_networks.raise_networks)

    assert {name for name, link in links(stock).items() if link.kind == "bridge"} == {"xenbr1", "xenbr2"}
    assert outcome.warnings == (), "that of another daemon has no settings here"
    assert [pif(synced, f"eth{n}")["currently_attached"] for n in range(3)] == [False, True, True]


def test_a_nic_that_has_settings_here_and_another_daemon_is_a_warning(stock, synced):
    steps_net.raise_management(synced)
    steps_networks.record_attachment(synced)
    with synced.host.database.write() as transaction:
        ref = next(ref for ref, record in transaction.records("PIF") if record["device"] == "eth0")
        transaction.set("PIF", ref, "ip_configuration_mode", "DHCP")

    outcome = steps_networks.raise_networks(synced)

    assert any("eth0 is configured by ifupdown" in told for told in outcome.warnings)


def test_a_nic_with_an_address_from_somewhere_is_left_alone_whoever_gave_it(nics, recorded):
    nics.address("eth1", "198.51.100.7")

    outcome = steps_networks.raise_networks(recorded)

    assert "xenbr1" not in links(nics)
    assert on(nics, "eth1") == {"198.51.100.7/24"}
    assert any("198.51.100.7" in told for told in outcome.warnings)


def test_a_management_interface_that_an_operator_has_disabled_is_not_chosen_again(stock, synced):
    network.set_management(synced.config, synced.host, "", "IPv4")

    assert not [one for one in steps_net.plan_management(synced) if "inventory" in one.what]
    assert "disabled" in steps_net.raise_management(synced).note
    network.set_management(synced.config, synced.host, "xenbr0", "IPv4")
    assert synced.host.inventory.values[network.DISABLED] == ""


def test_a_host_with_an_ipv6_address_alone_is_managed_by_it(nics, synced):
    nics.address("eth0", "2001:db8::10", 64, gateway="fe80::1")

    steps_net.raise_management(synced)

    assert synced.host.inventory.management_address_type is inventory.AddressType.IPV6
