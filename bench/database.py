"""The database and the API in one process: each figure beside a peer that does the same work without us.

Run it anywhere with hostagent's Python: python bench/database.py [--json]. It needs no Xen; in a lab's dom0 all of it
is slower, and the ratios are much the same. Exit code 1: a limit was missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import socket
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hostagent.api import roles
from hostagent.api.core import Peer
from hostagent.api.http import Response
from hostagent.api.rendered import Rendered
from hostagent.api.routes import Routes, rpc_routes
from hostagent.api.server import Server
from hostagent.api.service import Service
from hostagent.api.xenapi import XenApi
from hostagent.config import Paths
from hostagent.db.database import Database, open_database
from hostagent.lifecycle import Lifecycle
from hostagent.run import run
from hostagent.startup.state import HostState

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

VMS = 10_000
ROUNDS = 5
CALLS = 1500
COMMITS = 400
LISTENERS = 500
ROOT = Peer(trusted=True)
LIMITS = {"records_ratio": 3.0, "call_ratio": 1.5, "commit_ratio": 2.0}
"""What the result may be at the most, by name."""


def best(work: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Seconds of the fastest of several rounds."""
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def fill(database: Database) -> None:
    """A pool of ten thousand VMs, each with its metrics and one VIF."""
    with database.write() as w:
        roles.write_records(w)
        host = w.create("host", {"metrics": w.create("host_metrics", {}), "uuid": "host-uuid"})
        w.create("pool", {"master": host})
        network = w.create("network", {"name_label": "lan"})
        for number in range(VMS):
            vm = w.create(
                "VM", {"name_label": f"vm {number}", "metrics": w.create("VM_metrics", {}), "affinity": host}
            )
            w.create("VIF", {"VM": vm, "network": network, "device": "0"})


def records(
    database: Database, api: XenApi, loop: asyncio.AbstractEventLoop, session: str
) -> dict[str, float]:
    """VM.get_all_records as JSON, beside `json` writing the same data."""

    def ours() -> None:
        asyncio.run_coroutine_threadsafe(call(), loop).result()

    async def call() -> str:
        answer = await api.dispatcher.call("VM.get_all_records", [session], ROOT)
        assert isinstance(answer.value, Rendered)
        return answer.value.text

    with database.read() as view:
        data = dict(view.records("VM"))
    mine, peer = best(ours), best(lambda: json.dumps(data))
    return {"records_s": mine, "json_s": peer, "records_ratio": mine / peer}


def commits(database: Database, directory: Path) -> dict[str, float]:
    """Durable changes of one field, beside SQLite writing a row of the same size."""
    with database.read() as view:
        vm = view.refs("VM")[0]
        text = view.record_text("VM", vm)

    def ours() -> None:
        for number in range(COMMITS):
            with database.write() as w:
                w.set("VM", vm, "name_description", f"round {time.perf_counter_ns()} {number}")

    bare = sqlite3.connect(directory / "bare.db", isolation_level=None)
    bare.execute("PRAGMA journal_mode=WAL")
    bare.execute("PRAGMA synchronous=FULL")
    bare.execute("CREATE TABLE t(ref TEXT PRIMARY KEY, record TEXT)")
    bare.execute("INSERT INTO t VALUES (?, ?)", (vm, text))

    def theirs() -> None:
        for number in range(COMMITS):
            bare.execute("BEGIN IMMEDIATE")
            bare.execute("UPDATE t SET record=? WHERE ref=?", (f"{text}{number % 10}", vm))
            bare.execute("COMMIT")

    mine, peer = best(ours, 3), best(theirs, 3)
    bare.close()
    return {"commits_per_s": COMMITS / mine, "sqlite_per_s": COMMITS / peer, "commit_ratio": mine / peer}


def round_trips(path: Path, request: bytes) -> float:
    """Seconds for CALLS requests one after the other over one connection."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        began = time.perf_counter()
        for _ in range(CALLS):
            client.sendall(request)
            answer = b""
            while b"\r\n\r\n" not in answer:
                answer += client.recv(65536)
            head, _, body = answer.partition(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split()[0])
            while len(body) < length:
                body += client.recv(65536)
        return time.perf_counter() - began


def client(path: Path, body: bytes) -> float:
    """`round_trips` in a process of its own, so that client and server do not share an interpreter's lock."""
    words = [sys.executable, "-P", __file__, "--client", str(path), body.decode()]
    done = run(words, timeout_s=300, environment={"PYTHONPATH": ":".join(filter(None, sys.path))})
    return float(done.stdout)


def http(body: bytes) -> bytes:
    head = f"POST /jsonrpc HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def small_calls(path: Path, bare_path: Path, session: str, ref: str) -> dict[str, float]:
    """A getter over the Unix socket, beside the same HTTP server answering a constant."""
    body = json.dumps(
        {"jsonrpc": "2.0", "method": "VM.get_name_label", "params": [session, ref], "id": 1}
    ).encode()
    pairs = [(client(path, body), client(bare_path, body)) for _ in range(ROUNDS)]
    ratio = statistics.median(ours / bare for ours, bare in pairs)
    return {
        "calls_per_s": CALLS / min(ours for ours, _ in pairs),
        "bare_per_s": CALLS / min(bare for _, bare in pairs),
        "call_ratio": ratio,
    }


async def event_latency(api: XenApi, database: Database, session: str) -> dict[str, float]:
    """From a change to the last of many listeners having it."""

    async def listen(token: str) -> None:
        await api.dispatcher.call("event.from", [session, ["pool"], token, 60.0], ROOT)

    with database.read() as view:
        pool = view.the_only("pool")
    first = await api.dispatcher.call("event.from", [session, ["pool"], "", 0.0], ROOT)
    assert isinstance(first.value, Rendered)
    token = json.loads(first.value.text)["token"]
    threads = threading.active_count()
    waiting = [asyncio.create_task(listen(token)) for _ in range(LISTENERS)]
    await asyncio.sleep(0.2)
    began = time.perf_counter()
    with database.write() as w:
        w.set("pool", pool, "name_label", f"at {began}")
    await asyncio.gather(*waiting)
    return {
        "listeners": LISTENERS,
        "event_latency_s": time.perf_counter() - began,
        "threads_more": threading.active_count() - threads,
    }


def serve(
    directory: Path, database: Database
) -> tuple[XenApi, asyncio.AbstractEventLoop, Callable[[], None]]:
    """Our API on directory/api.sock and a constant on directory/bare.sock, in a thread of their own."""
    up, ending = threading.Event(), asyncio.Event()
    made: dict[str, Any] = {}

    async def run() -> None:
        lifecycle = Lifecycle()
        api = XenApi(
            Service(Paths(root=directory), lifecycle, time.time(), lambda _level: None, lambda _why: None),
            HostState(),
        )
        bare = Server(Routes(rpc_routes(constant)))
        api.serve_local(listening(directory / "api.sock"))
        bare.start("bare", [listening(directory / "bare.sock")], "unix")
        lifecycle.became_ready()
        made.update(api=api, loop=asyncio.get_running_loop())
        up.set()
        await ending.wait()
        await asyncio.gather(api.stop(), bare.stop_all())

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    up.wait()
    made["api"].attach(database, "host-uuid")
    made["api"].start_events()

    def stop() -> None:
        made["loop"].call_soon_threadsafe(ending.set)
        thread.join()

    return made["api"], made["loop"], stop


async def constant(_request: object) -> Response:
    return Response(200, {"content-type": "application/json"}, b'{"jsonrpc":"2.0","result":"vm 0","id":1}')


def listening(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    return listener


def measure(directory: Path) -> dict[str, float]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    database = open_database(directory / "state.db", directory / "volatile.db")
    began = time.perf_counter()
    fill(database)
    found = {"fill_s": time.perf_counter() - began}
    api, loop, stop = serve(directory, database)
    try:

        def within(work: Awaitable[Any]) -> Any:
            return asyncio.run_coroutine_threadsafe(work, loop).result()  # type: ignore[arg-type]

        answer = within(api.dispatcher.call("session.login_with_password", ["root", ""], ROOT))
        session = str(answer.value)
        with database.read() as view:
            ref = view.refs("VM")[0]
        found |= {"rss_more_mib": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024}
        found |= small_calls(directory / "api.sock", directory / "bare.sock", session, ref)
        found |= within(event_latency(api, database, session))
        found |= commits(database, directory)
        found |= records(database, api, loop, session)
    finally:
        stop()
        database.close()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--client", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.client:
        path, body = arguments.client
        print(round_trips(Path(path), http(body.encode())))
        return 0
    # on a disk: /tmp may be memory, where syncing a file costs nothing
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        found = measure(Path(name))
    missed = [key for key, limit in LIMITS.items() if found[key] > limit]
    if arguments.json:
        print(json.dumps(found | {"missed": missed}))
    else:
        for key, value in found.items():
            limit = f"   at most {LIMITS[key]:g}" if key in LIMITS else ""
            print(f"{key:18} {value:10.3f}{limit}{'   MISSED' if key in missed else ''}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
