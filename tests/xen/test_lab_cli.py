"""The command `lab` as people use it, in processes of its own with a run folder of its own, to the end: nothing left."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nested_xen
import pytest
from nested_xen import network
from nested_xen.paths import cache

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.full, pytest.mark.timeout(1800)]

UP_S = 1500
"""When there is no image and no saved state yet."""
COMMAND_S = 300
SOURCE = Path(nested_xen.__file__).parents[1]


class Command:
    """`lab` on the one host h1 of a lab of its own."""

    def __init__(self, run: Path, release: str, accel: str) -> None:
        self.run = run
        self.name = f"cli{os.getpid()}"
        self.up = ["up", "--release", release, "--accel", accel]
        self.environment = os.environ | {"HOSTAGENT_LAB_RUN": str(run), "PYTHONPATH": str(SOURCE)}

    def start(self, verb: str, *words: str) -> subprocess.Popen[str]:
        line = [sys.executable, "-m", "nested_xen", verb, "--name", self.name, *words]
        pipe = subprocess.PIPE
        return subprocess.Popen(line, env=self.environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True)

    def __call__(
        self, verb: str, *words: str, given: str = "", code: int = 0, timeout_s: float = COMMAND_S
    ) -> str:
        """Its standard output; the exit code must be `code`."""
        process = self.start(verb, *words)
        try:
            said, noted = process.communicate(given, timeout=timeout_s)
        finally:
            process.kill()
        assert process.returncode == code, f"{verb} {words}: {process.returncode}\n{said}\n{noted}"
        return said

    def json(self, verb: str, *words: str, code: int = 0, timeout_s: float = COMMAND_S) -> Any:
        """All of its standard output as JSON: nothing else may be there."""
        return json.loads(self(verb, "--json", *words, code=code, timeout_s=timeout_s))


@pytest.fixture
def command(pytestconfig: pytest.Config) -> Iterator[Command]:
    """The command, and no lab of its before and after."""
    if pytestconfig.getoption("--xen-host"):
        pytest.skip("drives the lab, not --xen-host")
    run = Path(tempfile.mkdtemp(prefix="lab-"))  # not below pytest's own: a socket's path must be short
    made = Command(run, pytestconfig.getoption("--xen-release"), pytestconfig.getoption("--xen-accel"))
    try:
        yield made
    finally:
        made("down", "--all")
        shutil.rmtree(run)


def links() -> str:
    """The links of the machine itself; those of other labs are in namespaces."""
    return subprocess.run(["ip", "-br", "link"], capture_output=True, text=True, check=True).stdout


def processes(run: Path, namespaces: set[int]) -> list[str]:
    """Processes in these network namespaces, or with this run folder in their command or environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
            if (folder / "ns" / "net").stat().st_ino in namespaces or os.fsencode(run) in words:
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return found


def namespaces() -> dict[str, int]:
    """Every lab's namespaces on this machine."""
    found = {}
    for path in network.NAMESPACES.glob("lab-*"):
        try:
            found[path.name] = path.stat().st_ino
        except FileNotFoundError:  # another worker's, just gone
            continue
    return found


def own_namespaces(lab: Command) -> set[int]:
    """Namespaces of the labs in the command's run folder, also of the ones in which it makes saved states."""
    names = [path.name for path in lab.run.iterdir() if path.is_dir()]
    return {number for name, number in namespaces().items() if name.partition("lab-")[2] in names}


def left(lab: Command, known: set[int]) -> list[str]:
    """What is left of the command's labs, whose namespaces were `known`."""
    found = [name for name, number in namespaces().items() if number in known]
    found += processes(lab.run, known)
    found += [str(path) for path in lab.run.iterdir() if path.is_dir()]
    records = (path / "record" for path in (cache() / "labs").iterdir())
    found += [str(link) for link in records if link.is_symlink() and link.readlink().parent == lab.run]
    return found


def test_the_command_drives_a_host_from_up_to_down_and_leaves_nothing(
    command: Command, tmp_path: Path
) -> None:
    before = links()
    [up] = [command.json(*command.up, timeout_s=UP_S)]
    assert [(host["name"], host["state"]) for host in up["hosts"]] == [("h1", "ready")]
    assert {"management", "storage"} <= set(up["segments"])
    [listed] = command.json("list")["labs"]
    assert listed == {key: value for key, value in up.items() if key != "seconds"}
    assert "is up already" in command.json("up", code=1)["error"]
    known = own_namespaces(command)
    assert known
    assert processes(command.run, known)

    # exec: output, input, exit code
    assert command("exec", "h1", "hostname") == "h1\n"
    assert command("exec", "h1", "cat; exit 3", given="through dom0", code=3) == "through dom0"
    assert command.json("exec", "h1", "echo a; echo b >&2; exit 4", code=4) == {
        "code": 4,
        "stdout": "a\n",
        "stderr": "b\n",
    }

    # copy: there and back, a folder, a failed one leaves the local file alone
    mine, back = tmp_path / "mine", tmp_path / "back"
    mine.write_bytes(bytes(range(256)) * 5000)
    command("copy", str(mine), "h1:/root/mine")
    command("copy", "h1:/root/mine", str(back))
    assert back.read_bytes() == mine.read_bytes()
    assert command.json("copy", "h1:/no/such", str(back), code=1)["error"]
    assert back.read_bytes() == mine.read_bytes()
    command("copy", str(SOURCE / "image" / "files"), "h1:/root/folder")
    assert command("exec", "h1", "test -d /root/folder/etc && echo there") == "there\n"

    # logs: from power-on, also of a restored host
    assert "Xen version" in command("logs", "h1")
    assert "Xen version" in command.json("logs", "h1")["serial"]

    # snapshot and reset: to the snapshot twice, and to what the host came from
    identity = "cat /etc/machine-id /etc/ssh/ssh_host_ed25519_key | sha256sum"
    first = command("exec", "h1", identity)
    command.json("snapshot", "h1", "before")
    assert "already" in command.json("snapshot", "h1", "before", code=1)["error"]
    assert (
        command("exec", "h1", "cmp /root/mine /root/mine && rm -r /root/mine && echo runs on") == "runs on\n"
    )
    command.json("reset", "h1", "--to", "before")
    assert command("exec", "h1", "stat -c %s /root/mine") == f"{mine.stat().st_size}\n"
    assert "no snapshot after" in command.json("reset", "h1", "--to", "after", code=1)["error"]
    assert command("exec", "h1", identity) != first
    command.json("snapshot", "h1", "again")  # its disks stand on those of the first one
    command.json("reset", "h1", "--to", "again")
    assert command("exec", "h1", "stat -c %s /root/mine") == f"{mine.stat().st_size}\n"
    command.json("reset", "h1")
    assert command("exec", "h1", "ls /root") == ""

    known |= own_namespaces(command)
    assert command.json("down") == {"down": [command.name]}
    assert left(command, known) == []
    assert links() == before
    assert command.json("list") == {"labs": []}


def test_after_kill_9_of_up_while_it_starts_a_host_down_leaves_nothing(command: Command) -> None:
    before = links()
    up = command.start(*command.up)
    assert up.stderr is not None
    deadline = time.monotonic() + UP_S
    while not (running := _pids_of_qemu(command)):
        assert up.poll() is None, up.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    known = own_namespaces(command)
    up.send_signal(signal.SIGKILL)
    up.communicate()
    assert known
    assert running
    command("down")
    assert left(command, known) == []
    assert links() == before


def _pids_of_qemu(lab: Command) -> list[str]:
    return [path.read_text().split()[0] for path in lab.run.glob("*/h1/pid") if path.stat().st_size]
