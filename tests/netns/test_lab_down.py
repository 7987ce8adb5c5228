"""A lab leaves nothing behind: not after `down`, and not when the process that made it was killed."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import nested_xen
from nested_xen import lab, network, process, registry, services, wire
from nested_xen.paths import run_folder

if TYPE_CHECKING:
    from nested_xen.lab import Lab

START_S = 30
CHILD = """
import os, sys, time
from nested_xen import lab, services, wire
made = lab.create_segments(sys.argv[1], owner=os.getpid())
port = wire.join(made.name, "storage", "a")
server = services.dhcp(made.name, "storage")
print("up", server.pid, flush=True)
time.sleep(600)
"""


def devices_and_processes(name: str) -> list[str]:
    """What a machine shows of a lab: namespaces, and processes in a namespace of its or with its name."""
    namespaces = [path.name for path in network.NAMESPACES.iterdir() if path.name.startswith(f"lab-{name}")]
    processes = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(run_folder() / name) in words and int(folder.name) != os.getpid():
            processes.append(words)
    return namespaces + processes


def test_down_ends_every_process_and_removes_every_device_and_file(segments: Lab, need) -> None:
    need("dnsmasq", "dnsmasq-base")
    links_before = process.run(["ip", "-br", "link"]).stdout
    port = wire.join(segments.name, "storage", "a")
    server = services.dhcp(segments.name, "storage")
    assert len(devices_and_processes(segments.name)) == 3  # two namespaces, dnsmasq
    lab.down(segments.name)
    assert devices_and_processes(segments.name) == []
    assert not server.running
    assert not segments.folder.exists()
    assert process.run(["ip", "-br", "link"]).stdout == links_before
    port.close()
    lab.down(segments.name)


def test_the_next_lab_takes_down_one_whose_process_was_killed(
    segments: Lab, need, tmp_path: Path, own_run_folder: Path
) -> None:
    need("dnsmasq", "dnsmasq-base")
    name = f"{segments.name}-dead"
    source = Path(nested_xen.__file__).parent.parent
    words = ["env", f"PYTHONPATH={source}", sys.executable, "-c", CHILD, name]
    log = tmp_path / "child.log"
    child = process.spawn(words, log=log)
    deadline = time.monotonic() + START_S
    while "up" not in log.read_text():
        assert process.alive(child), log.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    server = int(log.read_text().split()[-1])
    assert not registry.is_stale(name)
    process.kill(child)
    assert process.alive(server)
    assert registry.is_stale(name)
    assert json.loads((own_run_folder / name / "lab.json").read_text())["owner"] == child

    other = lab.create_segments(f"{segments.name}-next", owner=os.getpid())
    try:
        assert name not in registry.names()
        assert devices_and_processes(name) == []
        assert not process.alive(server)
        assert not (own_run_folder / name).exists()
    finally:
        lab.down(other.name)
