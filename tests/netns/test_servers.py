"""Servers on a segment answer real protocols, and end when told."""

from __future__ import annotations

import socket
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from nested_xen import network, process, services, wire
from nested_xen.errors import LabError

from tests.netns.dhcp_frames import ACK, DISCOVER, OFFER, REQUEST, SOON_S, dhcp_answer, dhcp_frame

if TYPE_CHECKING:
    from nested_xen.lab import Lab


def test_a_dhcp_client_is_offered_a_lease_and_gets_it(segments: Lab, need) -> None:
    need("dnsmasq", "dnsmasq-base")
    options = ["option:mtu,9000", "option:router,198.51.100.254"]
    with (
        services.dhcp(segments.name, "storage", lease_s=600, options=options) as server,
        wire.join(segments.name, "storage", "client") as port,
    ):
        port.send(dhcp_frame(port, DISCOVER))
        address, offered = dhcp_answer(port, OFFER)
        assert services.POOL[0] <= socket.inet_ntoa(address) <= services.POOL[1]
        assert offered[51] == struct.pack("!I", 600)
        assert server.leases() == []
        port.send(dhcp_frame(port, REQUEST, requested=address, server=offered[54]))
        given, options_given = dhcp_answer(port, ACK)
        assert given == address
        assert options_given[3] == socket.inet_aton("198.51.100.254")
        [lease] = server.leases()
        assert (lease.mac, lease.address) == (port.mac, socket.inet_ntoa(address))
        assert abs(lease.expires - time.time() - 600) < 60
    assert not server.running


def test_dns_knows_the_names_it_was_given(segments: Lab, need) -> None:
    need("dnsmasq", "dnsmasq-base")
    with services.dhcp(segments.name, "storage", names={"nfs.lab.invalid": "198.51.100.1"}) as server:
        name = b"\x03nfs\x03lab\x07invalid\x00"
        query = struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0) + name + struct.pack("!HH", 1, 1)

        def ask() -> bytes:
            with socket.socket(type=socket.SOCK_DGRAM) as client:
                client.settimeout(SOON_S)
                client.sendto(query, (server.address, 53))
                return client.recv(512)

        assert network.call_inside(segments.name, ask, segment="storage").endswith(
            socket.inet_aton("198.51.100.1")
        )


@pytest.mark.parametrize(
    ("kind", "programs"),
    [
        ("nfs", [("ganesha.nfsd", "nfs-ganesha"), ("rpcbind", "rpcbind")]),
        ("iscsi", [("tgtd", "tgt")]),
        ("dhcp", [("dnsmasq", "dnsmasq-base")]),
    ],
)
def test_a_server_starts_again_after_stop_and_after_a_crash(segments: Lab, need, kind, programs) -> None:
    for program, package in programs:
        need(program, package)
    start = getattr(services, kind)
    for end in ("stop", "kill"):
        server = start(segments.name, "storage")
        assert server.running
        getattr(server, end)()
        assert not server.running
        left = process.run(["ip", "netns", "pids", network.namespace(segments.name, "storage")]).stdout
        assert left.split() == []
    with start(segments.name, "storage"):
        pass


def test_two_segments_have_servers_on_the_same_port(segments: Lab, need) -> None:
    need("dnsmasq", "dnsmasq-base")
    with services.dhcp(segments.name, "storage") as one, services.dhcp(segments.name, "bond-a") as two:
        assert one.running
        assert two.running
        assert one.address == two.address


def test_a_server_that_cannot_start_says_why(segments: Lab, need) -> None:
    need("dnsmasq", "dnsmasq-base")
    with pytest.raises(LabError, match="bad dhcp-option"):
        services.dhcp(segments.name, "storage", options=["option:nonsense,1"])
    with pytest.raises(LabError, match="a lease of 5 s"):
        services.dhcp(segments.name, "storage", lease_s=5)


def test_the_machine_itself_gets_no_port_and_no_file(segments: Lab, need) -> None:
    need("ganesha.nfsd", "nfs-ganesha")
    need("rpcbind", "rpcbind")

    def seen() -> tuple[set[Path], str, str]:
        listening = process.run(["ss", "-Hlntu"]).stdout
        return set(Path("/run").iterdir()), process.run(["ip", "-br", "address"]).stdout, listening

    before = seen()
    with services.nfs(segments.name, "storage"):
        assert f":{services.NFS_PORT}" in network.call_inside(
            segments.name, lambda: seen()[2], segment="storage"
        )
        assert seen() == before
