"""The management interface of a host in a pool stays of the family that the pool's hosts reach each other by."""

from __future__ import annotations

import pytest

from tests.pure.netctl_host import STATIC, opened


@pytest.fixture
def site(tmp_path):
    """eth1 has addresses of both families, and IPv6 as its primary one."""
    with opened(tmp_path) as made:
        made.set("PIF", made.pifs[1], **STATIC, ipv6_configuration_mode="Static", IPv6=["2001:db8::7/64"],
                 primary_address_type="IPv6")  # fmt: skip
        yield made


def test_in_a_pool_of_several_hosts_the_family_stays(site):
    site.other_host()

    assert site.fails("host.management_reconfigure", site.pifs[1]) == [
        "PIF_INCOMPATIBLE_PRIMARY_ADDRESS_TYPE", site.pifs[1]]  # fmt: skip
    site.set("PIF", site.pifs[1], primary_address_type="IPv4")
    site.call("host.management_reconfigure", site.pifs[1])


def test_a_host_alone_may_change_it(site):
    site.call("host.management_reconfigure", site.pifs[1])

    assert site.net.family == "IPv6"
