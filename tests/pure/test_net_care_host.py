"""What a host says of itself before a change: packet filter, coordinator, open connections, routers."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.net import cache, connections, host, reachable
from hostagent.net.devices import Address, Route
from hostagent.net.probe import Answer
from tests.pure.net_care import GATEWAY, PEER, Careful
from tests.pure.net_machine import records


@pytest.fixture
def machine(tmp_path):
    cache.write(tmp_path, records())
    return Careful(tmp_path)


def test_a_packet_filter_on_bridges_is_less_and_still_verified(machine, tmp_path):
    machine.remarks = ["guests' frames pass dom0's packet filter"]

    result = machine.up()

    assert (result["outcome"], result["told"]) == ("degraded", machine.remarks)
    assert cache.read_verified(machine.folder) is not None


def test_the_settings_of_the_packet_filter_are_read(tmp_path):
    assert host.filtered(tmp_path) == []
    folder = tmp_path / "proc/sys/net/bridge"
    folder.mkdir(parents=True)
    for name, value in zip(host.FILTERS, "101", strict=True):
        (folder / name).write_text(f"{value}\n")

    assert [told.split(" is 1")[0].rpartition(".")[2] for told in host.filtered(tmp_path)] == [
        "bridge-nf-call-iptables",
        "bridge-nf-call-arptables",
    ]


@pytest.mark.parametrize(
    ("content", "address"),
    [("slave:192.0.2.5\n", "192.0.2.5"), ("master\n", ""), ("slave:nobody\n", ""), (None, "")],
)
def test_the_coordinator_is_that_of_the_pool_role(tmp_path, content, address):
    if content is not None:
        (tmp_path / "etc/hostagent").mkdir(parents=True)
        (tmp_path / host.POOL).write_text(content)

    assert host.coordinator(tmp_path) == address


TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0A0200C0:0016 320200C0:D431 01 00000000:00000000 02:00000000 00000000     0        0 1 2
   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 3 1
"""
MAPPED6 = "0000000000000000FFFF00000A0200C0:0016 0000000000000000FFFF0000320200C0:D431 01"


@pytest.mark.skipif(sys.byteorder != "little", reason="the table is of a little-endian machine")
def test_open_connections_are_read_and_listening_ones_passed_over(tmp_path):
    assert connections.parse(TABLE) == [("192.0.2.10", PEER)]
    assert connections.parse(f"head\n 0: {MAPPED6}\n") == [("192.0.2.10", PEER)]
    folder = tmp_path / "proc/net"
    folder.mkdir(parents=True)
    (folder / "tcp").write_text(TABLE)
    assert connections.talking(tmp_path) == (("192.0.2.10", PEER),)


@given(
    st.text(max_size=200) | st.text("0123456789ABCDEF: \n", max_size=200).map(lambda text: "h\n0: " + text)
)
def test_any_text_is_read_as_connections_or_none(text):
    assert all(own and other for own, other in connections.parse(text))


def test_a_router_that_is_asked_by_its_link_local_address_is_asked_from_ours(machine):
    machine.up()
    index = machine.kernel.look().by_name()["xenbr0"].ifindex
    machine.kernel.addresses.append(Address(index, "fe80::10", 64, scope=253))
    machine.kernel.addresses.append(Address(index, "2001:db8::10", 64))
    machine.kernel.routes.append(Route(index, "default6", "fe80::1", 9))
    sources = []

    def ask(probe, seconds):
        sources.append((probe.target, probe.source))
        return Answer(probe, answered=True)

    wire = machine.segment.wire()._replace(ask=ask)

    found = reachable.before(machine.kernel.look(), "xenbr0", wire)

    assert found.gateways == ((4, GATEWAY), (6, "fe80::1"))
    assert ("fe80::1", "fe80::10") in sources


def test_a_device_that_is_not_there_has_no_baseline(machine):
    assert not reachable.before(machine.kernel.look(), "xenbr9", machine.segment.wire())
