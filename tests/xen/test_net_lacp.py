"""A bond with LACP under traffic: each of its links fails in turn, and answers come over the other one.

Its two links go to two segments, which are the two ports of one switch: that is a station here, with one MAC address on
both, for the traffic, and the partner of the LACPDUs.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest
from nested_xen import faults, wire
from nested_xen.frames import Arp, Ethernet, EtherType

from tests.xen.net_look import assert_bridge, await_that, bonding, look
from tests.xen.net_operator import PREFIX, STATIC, clean, opened
from tests.xen.net_segment import (
    ECHO_REPLY,
    ECHO_REQUEST,
    ICMP,
    PARTNER,
    Background,
    arp_of,
    checksum,
    ipv4,
    is_ipv4,
    lacp_partner,
)

if TYPE_CHECKING:
    import threading

pytestmark = [pytest.mark.destructive, pytest.mark.timeout(1800)]

BOND_A, BOND_B = 2, 3
SEGMENTS = ("bond-a", "bond-b")
ADDRESS, TESTER = STATIC.format(11), STATIC.format(200)
LACP = {"lacp-time": "fast"}
LACP_S = 240
IN_BOTH, IN_ONE = "Number of ports: 2", "Number of ports: 1"


@pytest.fixture
def net(xen_host):
    clean(xen_host)
    with opened(xen_host) as made:
        yield made
    clean(xen_host)


class Traffic:
    """Asks an address over every link, and notes over which ones the answers came."""

    def __init__(self, ports, mac):
        self.answers = []
        """Segments, in the order of the answers."""
        self._ports = ports
        self._mac = mac

    def __call__(self, over: threading.Event) -> None:
        own = self._ports[0].mac
        head = struct.pack("!BBHHH", ECHO_REQUEST, 0, 0, 0x1AC, 1)
        echo = struct.pack("!BBHHH", ECHO_REQUEST, 0, checksum(head + bytes(56)), 0x1AC, 1) + bytes(56)
        question = Ethernet(self._mac, own, EtherType.IPV4, ipv4(TESTER, ADDRESS, ICMP, echo))
        while not over.is_set():
            for port in self._ports:
                port.send(question)
            for port in self._ports:
                for frame in port.frames(deadline_s=0.2):
                    asked = arp_of(frame)
                    if asked is not None and (asked.operation, asked.target) == (1, TESTER):
                        reply = Arp(2, own, TESTER, asked.sender_mac, asked.sender)
                        port.send(Ethernet(asked.sender_mac, own, EtherType.ARP, bytes(reply)))
                    elif is_ipv4(frame, ICMP, source=ADDRESS, destination=TESTER):
                        if frame.payload[20] == ECHO_REPLY:
                            self.answers.append(port.segment)

    def await_more(self, what, segments=SEGMENTS):
        """Answers go on coming, over one of these segments."""
        before = len(self.answers)
        await_that(lambda: len([one for one in self.answers[before:] if one in segments]) > 2, what)


def told(net, device):
    return net.host.exec(f"cat /proc/net/bonding/{device}").stdout


@pytest.mark.full
def test_a_bond_with_lacp_carries_on_when_either_of_its_links_goes(net):
    one, two = net.nic(BOND_A), net.nic(BOND_B)
    _, master = net.bond([one.pif, two.pif], "lacp", **LACP)
    net.static(master, ADDRESS)
    device, bridge = net.record(master)["device"], net.bridge(master)
    switch = [wire.join(net.host.lab, segment, f"lacp-{segment}") for segment in SEGMENTS]
    stations = [wire.join(net.host.lab, segment, f"on-{segment}") for segment in SEGMENTS]
    traffic = Traffic(stations, one.mac)

    def is_link(nic, state):
        what = f"{nic.name} is {state}"
        await_that(lambda: bonding(net.host, device)[1][nic.name]["MII Status"] == state, what)

    def both_carry():
        await_that(lambda: IN_BOTH in told(net, device), "both links carry traffic", deadline_s=LACP_S)

    try:
        with lacp_partner(switch), Background(traffic):
            both_carry()
            assert bonding(net.host, device)[0]["Partner Mac Address"] == PARTNER
            traffic.await_more("traffic over the bond")
            for number, lost, left in ((BOND_A, one, SEGMENTS[1]), (BOND_B, two, SEGMENTS[0])):
                with faults.no_carrier(net.host, number):
                    is_link(lost, "down")
                    await_that(lambda: IN_ONE in told(net, device), "one link is left", deadline_s=LACP_S)
                    traffic.await_more(f"traffic with {lost.name} down", (left,))
                is_link(lost, "up")
                both_carry()
                traffic.await_more("traffic with both")
    finally:
        for port in (*switch, *stations):
            port.close()
    for nic in (one, two):
        assert int(bonding(net.host, device)[1][nic.name]["Link Failure Count"]) >= 1
    seen = look(net.host)
    assert_bridge(seen, bridge, {device}, mac=one.mac)
    assert seen.addresses(bridge) == {f"{ADDRESS}/{PREFIX}"}
