"""The DHCP server of the host's internal network, as its unit runs it, answers a client."""

from __future__ import annotations

import socket
import struct
import time
from typing import TYPE_CHECKING

from nested_xen import network, process, wire

from hostagent.net import leases_server
from hostagent.net.leases_server import Served
from tests.netns.dhcp_frames import ACK, DISCOVER, OFFER, REQUEST, SOON_S, dhcp_answer, dhcp_frame

if TYPE_CHECKING:
    from pathlib import Path

    from nested_xen.lab import Lab

SEGMENT = "storage"
LEASE_S = 12 * 3600
MASK, ROUTER, DNS, LEASE, SERVER = 1, 3, 6, 51, 54


def confined(argv: list[str]) -> list[str]:
    """The program of a unit with the capabilities that the unit leaves it."""
    (allowed,) = [word for word in argv if word.startswith("--property=CapabilityBoundingSet=")]
    kept = ["+" + name.removeprefix("CAP_").lower() for name in allowed.rpartition("=")[2].split()]
    words = ["setpriv", "--no-new-privs", f"--bounding-set={','.join(['-all', *kept])}", "--inh-caps=-all"]
    return [*words, *argv[argv.index("--") + 1 :]]


def test_a_guest_gets_an_address_of_the_range_and_no_router(segments: Lab, need, tmp_path: Path) -> None:
    need("dnsmasq", leases_server.PACKAGE)
    need("setpriv", "util-linux")
    network.give_server_address(segments.name, SEGMENT, "169.254.0.1/16")
    wanted = Served(network.SERVER_DEVICE, "169.254.0.2", "169.254.0.9", "255.255.0.0")
    folder, file, log = tmp_path / "net", tmp_path / "run.conf", tmp_path / "log"
    folder.mkdir(mode=0o700)
    leases = folder / "given.leases"
    file.write_text(leases_server.configuration(wanted, 2, leases))
    file.chmod(0o600)
    words = confined(leases_server.start_argv(wanted.bridge, file, leases))
    pid = process.spawn(network.inside(segments.name, words, segment=SEGMENT), log=log)
    try:
        until = time.monotonic() + SOON_S
        while "bound exclusively" not in log.read_text():
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.05)
        with wire.join(segments.name, SEGMENT, "guest") as port:
            port.send(dhcp_frame(port, DISCOVER))
            address, offered = dhcp_answer(port, OFFER)
            port.send(dhcp_frame(port, REQUEST, requested=address, server=offered[SERVER]))
            given, told = dhcp_answer(port, ACK)
            text = socket.inet_ntoa(given)
            assert given == address
            assert socket.inet_aton(wanted.first) <= given <= socket.inet_aton(wanted.last)
            assert (told[MASK], told[LEASE]) == (
                socket.inet_aton("255.255.0.0"),
                struct.pack("!I", LEASE_S),
            )
            assert not {ROUTER, DNS} & told.keys()
            assert f" {port.mac} {text} " in leases.read_text()
    finally:
        process.end(pid)
