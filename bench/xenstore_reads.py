"""Xenstore reads per second in dom0: ours one by one and in a pipeline, a bare socket loop, `xenstore-read`.

Run it in a dom0: /opt/hostagent/current/bin/python xenstore_reads.py [--json]. The ways take turns in short
rounds so that a busy machine slows all of them alike; look at the ratios, not at the numbers.
"""

from __future__ import annotations

import argparse
import json
import socket
import struct
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from hostagent.run import run
from hostagent.xen.xenstore import SOCKET, Xenstore

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = "/local/domain/0/name"
READ = 2  # XS_READ, xen/include/public/io/xs_wire.h
PROCESS_SHARE = 20  # a process per read takes so long that it gets this part of the reads of the others


@dataclass(frozen=True, slots=True)
class Way:
    """One way to read: its reads per second, and its ratio to the bare socket's (above 1: faster)."""

    way: str
    reads: int
    reads_per_s: float
    of_bare_socket: float


class BareSocket:
    """The least that reads a value: frame a request, block until the reply is whole; no deadline."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(SOCKET))

    def close(self) -> None:
        self._socket.close()

    def read(self, path: str) -> bytes:
        body = path.encode() + b"\0"
        self._socket.sendall(struct.pack("=IIII", READ, 0, 0, len(body)) + body)
        size = struct.unpack("=IIII", self._exactly(16))[3]
        return self._exactly(size)

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self._socket.recv(size - len(data))
            if not more:
                raise ConnectionResetError
            data += more
        return data


def measure(reads: int, rounds: int) -> list[Way]:
    """Each way's speed over `reads` reads, in `rounds` rounds in which the ways take turns."""
    per_round = max(1, reads // rounds)
    bare = BareSocket()
    with Xenstore.connect() as store:
        expected = store.read(KEY)
        paths = [KEY] + [f"{KEY}-{number}" for number in range(1, per_round)]

        def one_by_one(count: int) -> None:
            for _ in range(count):
                assert store.read(KEY) == expected

        def pipelined(count: int) -> None:
            assert store.read_many(paths[:count])[KEY] == expected

        def by_bare_socket(count: int) -> None:
            for _ in range(count):
                assert bare.read(KEY) == expected

        def by_process(count: int) -> None:
            for _ in range(count):
                text = run(["xenstore-read", KEY], timeout_s=30, package="xen-utils-common").stdout
                assert text.rstrip("\n").encode() == expected

        ways: dict[str, tuple[Callable[[int], None], int]] = {
            "bare socket": (by_bare_socket, per_round),
            "ours, one by one": (one_by_one, per_round),
            "ours, pipelined": (pipelined, per_round),
            "xenstore-read": (by_process, max(1, per_round // PROCESS_SHARE)),
        }
        seconds = dict.fromkeys(ways, 0.0)
        for _ in range(rounds):
            for name, (read, count) in ways.items():
                started = time.monotonic()
                read(count)
                seconds[name] += time.monotonic() - started
    bare.close()
    speed = {name: rounds * count / seconds[name] for name, (_, count) in ways.items()}
    return [
        Way(name, rounds * count, speed[name], speed[name] / speed["bare socket"])
        for name, (_, count) in ways.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--reads", type=int, default=1000, help="reads per way (1000)")
    parser.add_argument("--rounds", type=int, default=10, help="rounds in which the ways take turns (10)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    ways = measure(args.reads, args.rounds)
    record = json.dumps({"key": KEY, "ways": [asdict(way) for way in ways]}, indent=2)
    if args.json:
        print(record)
        return
    print(f"{'way':<18} {'reads':>6} {'reads/s':>9} {'of bare socket':>15}")
    for way in ways:
        print(f"{way.way:<18} {way.reads:>6} {way.reads_per_s:>9.1f} {way.of_bare_socket:>14.2f}x")


if __name__ == "__main__":
    main()
