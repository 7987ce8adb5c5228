"""What a segment carries, and what it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from nested_xen import network, wire
from nested_xen.errors import LabError
from nested_xen.frames import (
    BROADCAST,
    Arp,
    Ethernet,
    EtherType,
    Lacpdu,
    LacpEnd,
    LacpState,
    arp_request,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nested_xen.lab import Lab
    from nested_xen.wire import Port

SOON_S = 5
QUIET_S = 0.3


@pytest.fixture
def ports(segments: Lab) -> Iterator[tuple[Port, Port]]:
    with wire.join(segments.name, "storage", "a") as a, wire.join(segments.name, "storage", "b") as b:
        yield a, b


def to(port: Port, sender: Port, payload: bytes = b"hello", *vlans: int) -> Ethernet:
    return Ethernet(port.mac, sender.mac, EtherType.LOCAL, payload, vlans)


def lacpdu(port: Port) -> Ethernet:
    actor = LacpEnd(port.mac, 9, 1, LacpState.ACTIVITY | LacpState.AGGREGATION)
    return Lacpdu(actor, LacpEnd("00:00:00:00:00:00", 0, 0, LacpState(0))).frame(port.mac)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda a, b: to(b, a), id="unicast"),
        pytest.param(lambda a, b: Ethernet(BROADCAST, a.mac, EtherType.LOCAL, b"all"), id="broadcast"),
        pytest.param(lambda a, b: to(b, a, b"tagged", 0x2064), id="vlan"),
        pytest.param(lambda a, b: to(b, a, b"stacked", 100, 200), id="two-vlans"),
        pytest.param(lambda a, b: to(b, a, bytes(9000)), id="jumbo"),
        pytest.param(lambda a, b: lacpdu(a), id="lacpdu"),
        pytest.param(lambda a, b: Ethernet("01:80:c2:00:00:0e", a.mac, EtherType.LLDP, b"lldp"), id="lldp"),
        pytest.param(lambda a, b: arp_request(a.mac, "198.51.100.7", "198.51.100.8"), id="arp"),
    ],
)
def test_a_frame_crosses_a_segment_unchanged_and_once(ports, make) -> None:
    a, b = ports
    sent = make(a, b)
    a.send(sent)
    [seen] = b.capture(lambda frame: frame.source == a.mac, deadline_s=SOON_S)
    assert bytes(seen) == bytes(sent)
    b.expect_none(lambda frame: True, during_s=QUIET_S)
    a.expect_none(lambda frame: True, during_s=0.05)


def test_a_bridge_port_without_the_mask_drops_a_lacpdu(segments: Lab, ports) -> None:
    a, b = ports
    network.batch(segments.name, ["link set q-a type bridge_slave group_fwd_mask 0"])
    a.send(lacpdu(a))
    b.expect_none(lambda frame: frame.type == EtherType.SLOW, during_s=QUIET_S)


def test_a_cut_segment_carries_nothing_until_it_is_mended(segments: Lab, ports) -> None:
    a, b = ports
    network.set_segment_up(segments.name, "storage", up=False)
    a.send(to(b, a))
    b.expect_none(lambda frame: True, during_s=QUIET_S)
    network.set_segment_up(segments.name, "storage", up=True)
    a.send(to(b, a, b"again"))
    [seen] = b.capture(lambda frame: frame.type == EtherType.LOCAL, deadline_s=SOON_S)
    assert seen.payload.startswith(b"again")


def test_a_port_without_carrier_hears_nothing(ports) -> None:
    a, b = ports
    b.set_carrier(up=False)
    a.send(to(b, a))
    b.set_carrier(up=True)
    b.expect_none(lambda frame: True, during_s=QUIET_S)


def test_a_port_hears_only_the_segment_it_is_on(segments: Lab, ports) -> None:
    a, b = ports
    b.move("bond-a")
    a.send(to(b, a))
    b.expect_none(lambda frame: True, during_s=QUIET_S)
    b.move("storage")
    a.send(to(b, a))
    b.capture(lambda frame: frame.source == a.mac, deadline_s=SOON_S)


def test_only_a_segments_own_server_answers_for_its_address(segments: Lab) -> None:
    network.give_server_address(segments.name, "storage", "198.51.100.1/24")
    with wire.join(segments.name, "storage", "a") as port:
        port.send(arp_request(port.mac, "198.51.100.7", "198.51.100.1"))
        [answer] = port.capture(
            lambda frame: frame.type == EtherType.ARP and frame.destination == port.mac, deadline_s=SOON_S
        )
        assert Arp.parse(answer).sender == "198.51.100.1"
        port.send(arp_request(port.mac, "198.51.100.7", "192.0.2.1"))
        port.expect_none(lambda frame: True, during_s=QUIET_S)
        port.move("management")
        port.send(arp_request(port.mac, "192.0.2.7", "198.51.100.1"))
        port.expect_none(lambda frame: frame.type == EtherType.ARP, during_s=QUIET_S)


def test_what_did_not_come_is_said_with_what_came(ports) -> None:
    a, b = ports
    a.send(to(b, a))
    with pytest.raises(LabError, match=r"0 of 1 awaited frames on storage within 0\.2 s; 1 others"):
        b.capture(lambda frame: frame.type == EtherType.ARP, deadline_s=0.2)


def test_a_segment_can_be_recorded_for_people(segments: Lab, ports, tmp_path: Path) -> None:
    a, b = ports
    with wire.recorded(segments.name, "storage", tmp_path / "storage.pcap"):
        a.send(to(b, a, b"for the record"))
        b.capture(lambda frame: frame.source == a.mac, deadline_s=SOON_S)
    assert b"for the record" in (tmp_path / "storage.pcap").read_bytes()
