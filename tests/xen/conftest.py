"""Tests on real Xen hosts: fixtures and options come from the lab."""

import pytest
from nested_xen import machine, network
from nested_xen.fixtures import (  # noqa: F401 - fixtures and hooks are found by name
    lab_hosts,
    odd_host,
    pytest_addoption,
    pytest_collection_modifyitems,
    pytest_report_header,
    pytest_runtest_makereport,
    take_hosts,
    xen_host,
    xen_host_bare,
    xen_hosts,
    xen_hosts_bare,
)

from tests.xen.net_operator import clean, opened
from tests.xen.net_shapes import BOND_B


@pytest.fixture
def clean_host(xen_host):  # noqa: F811 - the fixture
    """A host whose network is as after a scan, but for the management interface; before the test and after it."""
    clean(xen_host)
    yield xen_host
    clean(xen_host)


@pytest.fixture
def net(clean_host):
    """The network of such a host, through a session."""
    with opened(clean_host) as made:
        yield made


@pytest.fixture
def two_cables(xen_host):  # noqa: F811 - the fixture
    """The NICs of a bond on one segment, as on one switch."""
    tap = machine.tap_name(xen_host.name, BOND_B)
    network.move(xen_host.lab, tap, "bond-a")
    yield
    network.move(xen_host.lab, tap, "bond-b")
