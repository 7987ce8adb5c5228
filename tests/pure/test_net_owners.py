"""Who owns the default route and the resolver, and why."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from hostagent.net.owners import dns_owner, gateway_owner
from tests.pure.net_records import DHCP, STATIC, Host, changes

ASKS: dict[str, Any] = {"other_config": {"defaultroute": "true", "peerdns": "true"}}


def three(**eth1: Any) -> Host:
    host = Host()
    host.nic("eth0", **STATIC)
    host.nic("eth1", **{**DHCP, **eth1})
    host.nic("eth10", **STATIC)
    return host


@pytest.mark.parametrize(
    ("eth1", "becoming", "owner", "reason"),
    [
        ({}, "", "eth0", "first PIF"),
        ({"management": True}, "", "eth1", "is the management interface"),
        ({"management": True}, "eth10", "eth10", "becoming the management interface"),
        (ASKS, "eth10", "eth1", "=true"),
        ({"other_config": {"defaultroute": "false", "peerdns": "no"}}, "", "eth0", "first PIF"),
        ({"ip_mode": "None", "management": True}, "eth1", "eth0", "first PIF"),
        ({**ASKS, "bond_slave_of": "bond"}, "", "eth0", "first PIF"),
        ({**ASKS, "managed": False}, "", "eth0", "first PIF"),
    ],
)
def test_the_order_of_the_reference(eth1, becoming, owner, reason):
    records = three(**eth1).records()

    gateway = gateway_owner(records, records.pifs, 4, becoming_management=becoming)
    dns = dns_owner(records, records.pifs, becoming_management=becoming)

    assert (gateway.ref, dns.ref) == (owner, owner)
    assert reason in gateway.reason
    assert reason in dns.reason


def test_each_key_is_for_its_own_owner():
    records = three(other_config={"defaultroute": "true"}).records()

    assert gateway_owner(records, records.pifs, 4).ref == "eth1"
    assert dns_owner(records, records.pifs).ref == "eth0"


def test_of_several_that_ask_the_first_has_it_and_how_many_ask_is_told():
    host = three(**ASKS)
    host.change("eth10", **ASKS)

    owner = gateway_owner(host.records(), host.pifs, 4)

    assert owner.ref == "eth1"
    assert "first of 2" in owner.reason


def test_only_what_is_up_owns():
    records = three(**ASKS).records()

    assert gateway_owner(records, ["eth10"], 4).ref == "eth10"
    assert gateway_owner(records, [], 4).ref == ""
    assert "no PIF" in gateway_owner(records, [], 4).reason


def test_each_family_has_its_owner():
    host = three(management=True)
    host.change("eth10", ipv6_mode="Autoconf")

    assert gateway_owner(host.records(), host.pifs, 4).ref == "eth1"
    assert gateway_owner(host.records(), host.pifs, 6).ref == "eth10"


def test_the_resolver_goes_by_the_primary_family():
    host = three()
    host.change("eth0", primary_address_type="IPv6")

    assert dns_owner(host.records(), host.pifs).ref == "eth1"


def test_untagged_comes_before_tagged_and_two_before_ten():
    host = Host()
    for device in ("eth10", "eth2"):
        host.nic(device)
        host.vlan(device, 3, **STATIC)
    host.change("eth10", **STATIC)

    assert gateway_owner(host.records(), host.pifs, 4).ref == "eth10"
    assert gateway_owner(host.records(), ["eth10.3", "eth2.3"], 4).ref == "eth2.3"


@given(changes())
def test_any_owner_is_up_and_has_an_address_of_the_family(change):
    for family in (4, 6):
        owner = gateway_owner(
            change.records, change.up, family, becoming_management=change.becoming_management
        )
        assert owner.reason
        if owner.ref:
            pif = change.records.pifs[owner.ref]
            assert owner.ref in change.up
            assert (pif.ip_mode if family == 4 else pif.ipv6_mode) != "None"
