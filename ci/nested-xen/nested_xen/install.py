"""hostagent into a lab host's dom0: the same bundle and the same script an operator uses."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from nested_xen import process, progress, slot
from nested_xen.paths import PROJECT

if TYPE_CHECKING:
    from nested_xen.host import Host

BUNDLE_S = 600
INSTALL_S = 600
START_S = 600
UNPACKED = "/root/hostagent-bundle"
START = """systemctl start hostagent
until grep -q '"ending": "' /run/hostagent/startup-report.json; do sleep 1; done"""


@functools.cache
def bundle() -> Path:
    """The offline bundle of this source tree, built when it changed."""
    with progress.step("the bundle of this source tree"):
        words = [PROJECT / "scripts" / "make-bundle"]
        out = process.run(words, timeout_s=BUNDLE_S, contained=True).stdout
    return Path(out.splitlines()[-1].strip())


def bundle_digest() -> str:
    return hashlib.sha256(bundle().read_bytes()).hexdigest()[:16]


def install(host: Host) -> str:
    """Install (or upgrade) hostagent in dom0 without network; returns what the script printed."""
    host.exec(f"rm -rf {UNPACKED}; mkdir -p {UNPACKED}")
    host.put(bundle(), f"{UNPACKED}.tar")
    done = host.exec(
        f"tar -C {UNPACKED} --strip-components=1 -xf {UNPACKED}.tar && {UNPACKED}/install-dom0 --upgrade",
        timeout_s=INSTALL_S,
    )
    return done.stdout + done.stderr


def installed_state(host: Host) -> Path:
    """The saved state of a host's slot with this very bundle installed, made now if there is none."""
    base = slot.booted(host.machine, host.image, host.accel)
    return slot.prepared(
        base,
        host.machine,
        host.image,
        host.accel,
        kind="installed",
        digest=bundle_digest(),
        prepare=lambda fresh: progress.note(install(fresh).strip()),
    )


def started_state(host: Host) -> Path:
    """The saved state of a host's slot with hostagent installed and its first start-up sequence at its end."""
    base = installed_state(host)
    return slot.prepared(
        base,
        host.machine,
        host.image,
        host.accel,
        kind="started",
        digest=START,
        prepare=_start,
    )


def _start(host: Host) -> None:
    host.exec(START, timeout_s=START_S)
