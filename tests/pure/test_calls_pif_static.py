"""Static addresses that no host can have are refused when they are said, not when the PIF is plugged."""

from __future__ import annotations

import pytest

from tests.pure.netctl_host import opened


@pytest.fixture
def site(tmp_path):
    with opened(tmp_path) as made:
        yield made


@pytest.mark.parametrize(
    ("address", "netmask", "gateway", "named"),
    [
        ("192.0.2.0", "255.255.255.0", "", "IP"),
        ("192.0.2.255", "255.255.255.0", "", "IP"),
        ("192.0.2.9", "255.255.255.0", "203.0.113.1", "gateway"),
        ("192.0.2.9", "255.255.255.0", "192.0.2.9", "gateway"),
        ("192.0.2.9", "255.255.255.255", "192.0.2.1", "gateway"),
    ],
)
def test_ipv4_that_cannot_be(site, address, netmask, gateway, named):
    assert site.fails("PIF.reconfigure_ip", site.pifs[2], "Static", address, netmask, gateway, "") == [
        "INVALID_IP_ADDRESS_SPECIFIED", named]  # fmt: skip


@pytest.mark.parametrize("gateway", ["2001:db8:1::1", "2001:db8::7"])
def test_ipv6_gateway_that_cannot_be(site, gateway):
    assert site.fails("PIF.reconfigure_ipv6", site.pifs[2], "Static", "2001:db8::7/64", gateway, "") == [
        "INVALID_IP_ADDRESS_SPECIFIED", "gateway"]  # fmt: skip


@pytest.mark.parametrize("gateway", ["", "2001:db8::1", "fe80::1"])
def test_ipv6_gateways_that_can_be(site, gateway):
    site.call("PIF.reconfigure_ipv6", site.pifs[2], "Static", "2001:db8::7/64", gateway, "")


def test_both_addresses_of_a_link_of_two(site):
    site.call("PIF.reconfigure_ip", site.pifs[2], "Static", "192.0.2.0", "255.255.255.254", "192.0.2.1", "")
