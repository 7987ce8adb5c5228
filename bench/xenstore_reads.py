"""Xenstore reads per second in dom0: ours one by one and in a pipeline, a bare socket loop, `xenstore-read`.

Run it in a dom0: /opt/hostagent/current/bin/python xenstore_reads.py [--json]. All read the same keys, which it makes
and removes. The ways take turns in short rounds so that a busy machine slows all of them alike; look at the ratios,
not at the numbers. Exit code 1: ours is slower than a process per read, or the pipeline slower than one by one.
"""

from __future__ import annotations

import argparse
import json
import socket
import struct
import sys
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from hostagent.run import run
from hostagent.xen.xenstore import SOCKET, Xenstore

if TYPE_CHECKING:
    from collections.abc import Callable

TOP = "/tool/hostagent-bench"
VALUE = b"Domain-0"
ONE_BY_ONE, PIPELINED, BY_PROCESS = "ours, one by one", "ours, pipelined", "xenstore-read"
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
        paths = [f"{TOP}/{number}" for number in range(per_round)]

        def one_by_one(count: int) -> None:
            for path in paths[:count]:
                assert store.read(path) == VALUE

        def pipelined(count: int) -> None:
            assert store.read_many(paths[:count]) == dict.fromkeys(paths[:count], VALUE)

        def by_bare_socket(count: int) -> None:
            for path in paths[:count]:
                assert bare.read(path) == VALUE

        def by_process(count: int) -> None:
            for path in paths[:count]:
                text = run(["xenstore-read", path], timeout_s=30, package="xenstore-utils").stdout
                assert text.rstrip("\n").encode() == VALUE

        ways: dict[str, tuple[Callable[[int], None], int]] = {
            "bare socket": (by_bare_socket, per_round),
            ONE_BY_ONE: (one_by_one, per_round),
            PIPELINED: (pipelined, per_round),
            BY_PROCESS: (by_process, max(1, per_round // PROCESS_SHARE)),
        }
        seconds = dict.fromkeys(ways, 0.0)
        try:
            for path in paths:
                store.write(path, VALUE)
            for _ in range(rounds):
                for name, (read, count) in ways.items():
                    started = time.monotonic()
                    read(count)
                    seconds[name] += time.monotonic() - started
        finally:
            store.remove(TOP)
    bare.close()
    speed = {name: rounds * count / seconds[name] for name, (_, count) in ways.items()}
    return [
        Way(name, rounds * count, speed[name], speed[name] / speed["bare socket"])
        for name, (_, count) in ways.items()
    ]


def good(ways: list[Way]) -> bool:
    """Is our client worth having? Only orders are judged: they hold on a busy machine too."""
    speed = {way.way: way.reads_per_s for way in ways}
    return speed[BY_PROCESS] < speed[ONE_BY_ONE] <= speed[PIPELINED]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--reads", type=int, default=1000, help="reads per way (1000)")
    parser.add_argument("--rounds", type=int, default=10, help="rounds in which the ways take turns (10)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    ways = measure(args.reads, args.rounds)
    record = json.dumps({"ways": [asdict(way) for way in ways]}, indent=2)
    if args.json:
        print(record)
        return 0 if good(ways) else 1
    print(f"{'way':<18} {'reads':>6} {'reads/s':>9} {'of bare socket':>15}")
    for way in ways:
        print(f"{way.way:<18} {way.reads:>6} {way.reads_per_s:>9.1f} {way.of_bare_socket:>14.2f}x")
    return 0 if good(ways) else 1


if __name__ == "__main__":
    sys.exit(main())
