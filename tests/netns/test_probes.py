"""Probes and announcements between two network namespaces, joined by a veth pair with a bridge on our side."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from nested_xen import network, process

from hostagent.net import dhcp_lease, last_lease, probe
from hostagent.net.dhcp_lease import Leased
from hostagent.net.probe import Probe, ProbeError
from hostagent.net.reachable import ConflictError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nested_xen.lab import Lab

OURS, PEER = "02:00:00:00:00:01", "02:00:00:00:00:02"
FREE4, FREE6 = "10.9.0.77", "fd09::77"
FAR = "peer"  # the segment name of the second namespace
LONG_S = 5.0


class Two:
    """Our namespace, with the bridge xb0, and the peer's, with the device p0."""

    def __init__(self, lab: str) -> None:
        self.lab = lab

    def ours(self, function: Callable[[], Any]):
        return network.call_inside(self.lab, function)

    def peer(self, function: Callable[[], Any]):
        return network.call_inside(self.lab, function, segment=FAR)


@pytest.fixture
def two(segments: Lab) -> Two:
    lab = segments.name
    far = network.namespace(lab, FAR)
    process.run(["ip", "netns", "add", far])
    for where in (None, FAR):
        # duplicate address detection would keep the addresses silent for a second
        network.call_inside(lab, _ipv6_at_once, segment=where)
    network.batch(
        lab,
        [
            "link add xb0 type bridge forward_delay 0 mcast_snooping 0",
            f"link add v0 type veth peer name p0 netns {far}",
            "link set v0 master xb0",
            f"link set xb0 address {OURS}",
            "link set v0 up",
            "link set xb0 up",
            "address add 10.9.0.1/24 dev xb0",
            "address add fd09::1/64 dev xb0 nodad",
        ],
    )
    network.batch(
        lab,
        [
            "link set lo up",
            f"link set p0 address {PEER}",
            "link set p0 up",
            "address add 10.9.0.2/24 dev p0",
            "address add fd09::2/64 dev p0 nodad",
        ],
        segment=FAR,
    )
    return Two(lab)


def _ipv6_at_once() -> None:
    for name, value in (("disable_ipv6", "0"), ("accept_dad", "0")):
        for scope in ("all", "default"):
            with open(f"/proc/sys/net/ipv6/conf/{scope}/{name}", "w") as file:  # noqa: PTH123
                file.write(value)


@pytest.mark.parametrize(
    ("address", "source"),
    [
        pytest.param("10.9.0.2", "10.9.0.1", id="gateway4"),
        pytest.param("10.9.0.2", "", id="duplicate4"),
        pytest.param("fd09::2", "fd09::1", id="gateway6"),
        pytest.param("fd09::2", "", id="duplicate6"),
    ],
)
def test_the_holder_of_an_address_is_found(two, address, source):
    assert two.ours(lambda: probe.holder("xb0", address, source=source, timeout_s=LONG_S)) == PEER


@pytest.mark.parametrize("address", [FREE4, FREE6])
def test_a_free_address_has_no_holder(two, address):
    assert two.ours(lambda: probe.holder("xb0", address, timeout_s=0.3)) == ""


@pytest.mark.parametrize("address", ["10.9.0.1", "fd09::1"])
def test_our_own_address_is_no_conflict(two, address):
    assert two.ours(lambda: probe.holder("xb0", address, timeout_s=0.3)) == ""


def test_another_nic_of_this_host_on_the_same_segment_is_no_conflict(two):
    network.batch(
        two.lab,
        [
            "link add n0 type veth peer name n1",
            "link set n0 up",
            "link set n1 up",
            "address add 10.9.1.1/24 dev n0",
        ],
    )
    assert two.ours(lambda: probe.holder("n1", "10.9.1.1", timeout_s=1)) == ""


@pytest.mark.parametrize("address", [FREE4, FREE6])
def test_two_that_probe_for_the_same_address_see_each_other(two, address):
    begun = threading.Event()
    stop = threading.Event()

    def rival():
        begun.set()
        while not stop.is_set():
            probe.holder("p0", address, timeout_s=0.1)

    thread = threading.Thread(target=lambda: two.peer(rival))
    thread.start()
    try:
        assert begun.wait(LONG_S)
        assert two.ours(lambda: probe.holder("xb0", address, timeout_s=LONG_S)) == PEER
    finally:
        stop.set()
        thread.join()


@contextlib.contextmanager
def listening(device: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as wire:
        wire.bind((device, 3))  # ETH_P_ALL
        wire.settimeout(LONG_S)
        yield wire


def test_announcements_reach_the_peer(two):
    """Gratuitous ARP and unsolicited advertisements, each three times, and the peer's own tables follow."""
    # the peer has our addresses at a MAC that is gone
    network.batch(
        two.lab,
        [
            "neigh replace 10.9.0.1 lladdr 02:00:00:00:00:99 dev p0 nud stale",
            "neigh replace fd09::1 lladdr 02:00:00:00:00:99 dev p0 nud stale",
        ],
        segment=FAR,
    )
    heard: list[tuple[str, str]] = []

    def listen(wire):
        until = time.monotonic() + LONG_S
        while len(heard) < 6 and time.monotonic() < until:
            frame = wire.recv(2048)
            arp, neighbour = probe.parse_arp(frame), probe.parse_neighbour(frame)
            if arp is not None and arp.sender == arp.target == socket.inet_aton("10.9.0.1"):
                heard.append(("arp", probe.text_of(arp.sender_mac)))
            if (
                neighbour is not None
                and neighbour.kind == probe.ADVERTISEMENT
                and neighbour.source == neighbour.target
            ):
                heard.append(("na", probe.text_of(neighbour.link_address)))

    def watch():
        with listening("p0") as wire:
            sent = two.ours(lambda: probe.announce("xb0", ["10.9.0.1", "fd09::1"], spacing_s=0.01))
            assert sent == 6
            listen(wire)

    two.peer(watch)

    assert sorted(heard) == [("arp", OURS)] * 3 + [("na", OURS)] * 3
    table = process.run(["ip", "-n", network.namespace(two.lab, FAR), "neigh", "show", "dev", "p0"]).stdout
    known = {line.split()[0]: line.split()[2] for line in table.splitlines() if "lladdr" in line}
    assert known["10.9.0.1"] == known["fd09::1"] == OURS


def test_a_gateway_that_goes_is_lost(two):
    asked = Probe("gateway", "10.9.0.2", "xb0", source="10.9.0.1")
    before = [two.ours(lambda: probe.ask(asked, timeout_s=LONG_S))]
    network.batch(two.lab, ["address del 10.9.0.2/24 dev p0"], segment=FAR)
    after = [two.ours(lambda: probe.ask(asked, timeout_s=0.3))]

    assert (before[0].answered, before[0].detail) == (True, PEER)
    assert [gone.probe for gone in probe.lost(before, after)] == [asked]


def test_a_tcp_peer_answers_by_accepting_and_by_refusing(two):
    def serve():
        server = socket.create_server(("10.9.0.2", 0))
        return server, server.getsockname()[1]

    server, port = two.peer(serve)
    with server:
        asked = Probe("tcp", "10.9.0.2", port=port, source="10.9.0.1")
        accepted = two.ours(lambda: probe.ask(asked, timeout_s=LONG_S))
    refused = two.ours(lambda: probe.ask(asked, timeout_s=LONG_S))
    silent = two.ours(lambda: probe.ask(asked._replace(target=FREE4), timeout_s=0.3))

    assert (accepted.answered, accepted.detail) == (True, "connected")
    assert (refused.answered, refused.detail) == (True, "refused")
    assert silent.answered is False


@pytest.mark.parametrize(("device", "said"), [("nothere", "No such device"), ("xb0", "Network is down")])
def test_a_device_that_cannot_be_probed_is_an_error(two, device, said):
    network.batch(two.lab, ["link set xb0 down"])

    with pytest.raises(ProbeError, match=f"{device} could not be probed: {said}"):
        two.ours(lambda: probe.holder(device, "10.9.0.2", timeout_s=0.3))


# --- the address of the last lease ---


def put(two, folder, address):
    """Have the bridge have it; how long each of its addresses lasts then, in seconds, as `ip` says."""
    lease = Leased(4, "BOUND", (f"{address}/24",), ("10.9.0.2",), (), (), "10.9.0.2", 120)
    dhcp_lease.keep_last("xb0", lease, folder)
    two.ours(lambda: last_lease.put("xb0", folder))
    return lifetimes(two)


def lifetimes(two):
    where = network.namespace(two.lab)
    [found] = json.loads(process.run(["ip", "-n", where, "-j", "-4", "address", "show", "xb0"]).stdout)
    return {one["local"]: one["valid_life_time"] for one in found["addr_info"]}


def test_the_address_of_the_last_lease_is_there_for_a_while(two, tmp_path):
    for_ever = lifetimes(two)
    seen = put(two, tmp_path, FREE4)
    assert last_lease.LASTS_S - LONG_S <= seen.pop(FREE4) <= last_lease.LASTS_S
    assert seen == for_ever


def test_an_address_that_is_there_keeps_its_lifetime(two, tmp_path):
    before = lifetimes(two)
    assert put(two, tmp_path, "10.9.0.1") == before


def test_an_address_that_another_host_has_by_now_is_not_taken_from_it(two, tmp_path):
    before = lifetimes(two)
    with pytest.raises(ConflictError, match=f"another host, {PEER}, has 10.9.0.2"):
        put(two, tmp_path, "10.9.0.2")
    assert lifetimes(two) == before
