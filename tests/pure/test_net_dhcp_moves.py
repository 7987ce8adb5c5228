"""DHCP: its lease when the management interface moves to another bridge."""

from __future__ import annotations

import pytest

from hostagent.net import client_ids, dhcp, last_lease
from hostagent.net import host as net_host
from hostagent.net.devices import Address, Lease, Wanted
from hostagent.net.operation import Operation
from hostagent.net.reachable import ConflictError
from tests.pure.net_dhcp import FOUND4, LEASE4, Host
from tests.pure.net_kernel import FakeKernel


@pytest.fixture
def host(monkeypatch):
    made = Host()
    monkeypatch.setattr(dhcp, "run", made.run)
    return made


class Kernel(FakeKernel):
    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


BEFORE, AFTER = (Lease(bridge, 4, gateway=True, dns=True) for bridge in ("xenbr0", "xapi0"))


@pytest.fixture
def tools(tmp_path, host, monkeypatch):
    kernel = Kernel()
    for index, bridge in ((40, "xenbr0"), (41, "xapi0")):
        kernel.one(Operation("link-add", bridge, index, {"kind": "bridge", "up": True}))
    kernel.addresses.append(Address(40, "10.9.0.4", 24, flags=0, valid_s=3600))
    kernel.addresses.append(Address(40, "192.0.2.4", 24))
    monkeypatch.setattr(net_host, "Netlink", lambda: kernel)
    made = net_host._Tools(tmp_path, tmp_path / "run", "xenbr0", tmp_path / "state")
    made.lease_start(BEFORE)
    host.ran.clear()
    host.dumps = [LEASE4]
    return made, kernel


def test_a_lease_that_moves_with_management_is_asked_for_there_and_not_given_back(tools, host, tmp_path):
    made, kernel = tools
    file = client_ids.file_of("xenbr0", tmp_path / "state")
    file.parent.mkdir(parents=True)
    file.write_text(client_ids.content("ff:00:01", ""))
    made.around(Wanted(leases=(AFTER,)), kernel.look())

    made.lease_stop(BEFORE)
    made.lease_start(AFTER)

    assert not any("--release" in line for line in host.ran)
    assert [one.text for one in kernel.addresses] == ["192.0.2.4"]
    text = dhcp.file_of("xapi0", tmp_path / "run").read_text()
    assert "clientid ff:00:01\n" in text
    assert f"request {FOUND4.addresses[0].partition('/')[0]}\n" in text

    made.lease_stop(AFTER)  # undone
    made.lease_start(BEFORE)

    assert not any("--release" in line for line in host.ran)


def test_the_bridge_that_takes_management_over_keeps_its_last_lease_as_the_former_did(tools, tmp_path):
    made, kernel = tools
    former = dhcp.file_of("xenbr0", tmp_path / "run").read_text()
    made.around(Wanted(leases=(AFTER,)), kernel.look())
    made.lease_stop(BEFORE)
    made.lease_start(AFTER)

    assert "lastleaseextend" in former
    assert "lastleaseextend" in dhcp.file_of("xapi0", tmp_path / "run").read_text()


def test_a_client_that_does_something_else_equals_no_wanted_lease_and_is_started_again_as_it_was():
    (other,) = net_host._other("xapi0", "noipv6\noption domain_name_servers\n").values()

    assert other._replace(hostname="") == AFTER
    assert other != AFTER


@pytest.mark.parametrize("leases", [(), (AFTER._replace(gateway=False),), (BEFORE, AFTER)])
def test_a_lease_that_nobody_takes_over_is_given_back(tools, host, leases):
    made, kernel = tools
    made.around(Wanted(leases=leases), kernel.look())

    made.lease_stop(BEFORE)

    assert any("--release" in line for line in host.ran)


def test_a_last_lease_whose_address_another_host_has_is_told_and_the_client_asks_all_the_same(
    tmp_path, host, monkeypatch
):
    def taken(bridge, state):
        assert (bridge, state) == ("xenbr0", tmp_path / "state")
        raise ConflictError("another host has it", hint="see to the server")

    monkeypatch.setattr(last_lease, "put", taken)
    host.version = "dhcpcd 9.4.1\n"
    made = net_host._Tools(tmp_path, tmp_path / "run", "xenbr0", tmp_path / "state")

    made.lease_start(BEFORE)

    assert host.did("systemd-run")
    assert made.soft == ["another host has it (hint: see to the server)"]
