"""Which accelerator QEMU can use for Xen here: real KVM when it truly runs Xen, else emulation (TCG).

A /dev/kvm that exists may still be unable to run Xen (an instruction its host does not emulate), so it is
tried: Xen must print its banner within a few seconds. The answer is cached per kernel and QEMU version; a
negative one, which a busy moment can bring about, for an hour only.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nested_xen import process, progress
from nested_xen.errors import LabError
from nested_xen.paths import cache

if TYPE_CHECKING:
    from nested_xen.image import Image

PROBE_S = 8
NEGATIVE_S = 3600
VCPUS = 2


@dataclass(frozen=True, slots=True)
class Accel:
    """The accelerator taken, and why.

    `crowded`: the machine has fewer cores than its hosts have CPUs. Then one thread emulates all CPUs of a host, for
    each of two would spend its core waiting for the other one's lock: two hosts on two cores boot in 120 s that way, in
    277 s with a thread a CPU; a host alone in 114 s and 70 s.
    """

    kind: str
    why: str
    crowded: bool = False
    beside: int = 0
    """Hosts of other labs that run at the same time."""

    @property
    def option(self) -> str:
        """QEMU's -accel."""
        threads = "single" if self.crowded else "multi"
        return f"tcg,thread={threads},tb-size=512" if self.kind == "tcg" else self.kind

    def alone(self) -> Accel:
        """The same for a host that is the only one of its lab that runs."""
        return dataclasses.replace(self, crowded=_crowded(1 + self.beside))


def choose(wanted: str, image: Image, hosts: int = 1, beside: int = 0) -> Accel:
    """`auto` probes KVM with the image's own Xen; `kvm` insists (LabError when it cannot); `tcg` is taken as
    is. `hosts`: how many will run at a time; `beside`: how many of other labs.
    """
    crowded = _crowded(hosts + beside)
    if wanted == "tcg":
        return Accel("tcg", "asked for", crowded, beside)
    why_not = _kvm_problem(image)
    if why_not is None:
        return Accel("kvm", "Xen starts under /dev/kvm")
    if wanted == "kvm":
        raise LabError(f"KVM cannot be used: {why_not}", hint="use --accel tcg: slower, works everywhere")
    return Accel("tcg", f"emulation, as {why_not}", crowded, beside)


def _crowded(hosts: int) -> bool:
    return hosts > 1 and hosts * VCPUS > len(os.sched_getaffinity(0))


def qemu_version() -> str:
    return process.run(["qemu-system-x86_64", "--version"]).stdout.splitlines()[0]


def _kvm_problem(image: Image) -> str | None:
    if not Path("/dev/kvm").exists():
        return "there is no /dev/kvm"
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "/dev/kvm may not be opened"
    memory = cache() / "accel.json"
    key = f"{os.uname().release} {qemu_version()}"
    known, problem = remembered(memory, key, time.time())
    if known:
        return f"{problem} (remembered in {memory}; remove it to try again)" if problem else None
    with progress.step("probing KVM with Xen"):
        problem = _try_kvm(image)
    memory.write_text(json.dumps({"key": key, "problem": problem, "at": time.time()}))
    return problem


def remembered(memory: Path, key: str, now: float) -> tuple[bool, str | None]:
    """Is there a verdict for this kernel and QEMU that still holds at `now`, and what problem does it name?"""
    try:
        verdict = json.loads(memory.read_text())
        same, problem, at = verdict["key"] == key, verdict["problem"], float(verdict["at"])
    except (OSError, ValueError, KeyError, TypeError):
        return False, None
    return (True, problem) if same and (problem is None or 0 <= now - at < NEGATIVE_S) else (False, None)


def _try_kvm(image: Image) -> str | None:
    with tempfile.TemporaryDirectory(prefix="hostagent-kvm-") as folder:
        serial = Path(folder, "serial.log")
        words = [
            "qemu-system-x86_64",
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-machine",
            "q35",
        ]
        words += ["-accel", "kvm", "-cpu", "host", "-m", "512", "-no-reboot", "-serial", f"file:{serial}"]
        words += ["-kernel", str(image.folder / "xen"), "-append", "console=com1 com1=115200,8n1"]
        pid = process.spawn(words, log=Path(folder, "qemu.log"), outlives_us=False)
        try:
            deadline = time.monotonic() + PROBE_S
            while time.monotonic() < deadline:
                if serial.exists() and b"Xen version" in serial.read_bytes():
                    return None
                if not process.alive(pid):
                    return "QEMU ends at once under /dev/kvm"
                time.sleep(0.1)
            return f"Xen prints nothing under /dev/kvm within {PROBE_S} s"
        finally:
            process.kill(pid)
