"""DHCP: the host's name, which its clients tell the servers."""

from __future__ import annotations

import pytest

from hostagent.net import client_ids, dhcp
from hostagent.net import host as net_host
from hostagent.net.devices import Lease, Wanted
from tests.pure.net_dhcp import Host
from tests.pure.net_kernel import FakeKernel
from tests.pure.startup_tree import put

LEASE = Lease("xenbr1", 4, gateway=False, dns=False)
WANTED = Wanted(leases=(LEASE,))


@pytest.fixture
def host(monkeypatch):
    made = Host()
    monkeypatch.setattr(dhcp, "run", made.run)
    return made


def named(root, name):
    put(root / client_ids.NAME, f"{name}\n")
    return net_host._Tools(root, root / "run", "xenbr0", root / "state")


def told(root):
    """The lines of the client's file about a name."""
    lines = dhcp.file_of("xenbr1", root / "run").read_text().splitlines()
    return [line for line in lines if "host" in line and not line.startswith("#")]


@pytest.mark.parametrize("name", ["h1", "h1.example.org", "h_1"])
def test_a_client_tells_the_name_of_the_host(tmp_path, host, name):
    named(tmp_path, name).lease_start(LEASE)

    assert told(tmp_path) == [f"hostname {name}"]


@pytest.mark.parametrize(
    "name", ["", "(none)", "localhost", "localhost.localdomain", "a b", "a#", "h\xfc", "-"]
)
def test_a_host_without_a_usable_name_tells_none_and_has_its_client(tmp_path, host, name):
    named(tmp_path, name).lease_start(LEASE)

    assert told(tmp_path) == []
    assert host.did("systemd-run")


@pytest.mark.parametrize("before", ["h1", "localhost"])
def test_a_client_goes_on_with_the_name_it_was_started_with_until_it_is_started_again(tmp_path, host, before):
    named(tmp_path, before).lease_start(LEASE)
    later = named(tmp_path, "h2")
    host.ran.clear()

    assert later.around(WANTED, FakeKernel().look()).leases == (LEASE,)
    assert host.did("systemd-run") == []
    later.lease_start(LEASE._replace(gateway=True))
    assert told(tmp_path) == ["hostname h2"]


def test_a_client_with_a_name_that_does_something_else_is_found(tmp_path, host):
    named(tmp_path, "h1").lease_start(LEASE._replace(dns=True))

    (other,) = named(tmp_path, "h1").around(WANTED, FakeKernel().look()).leases

    assert other != LEASE
