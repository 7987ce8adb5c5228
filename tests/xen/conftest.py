"""Tests on real Xen hosts: fixtures and options come from the lab."""

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
