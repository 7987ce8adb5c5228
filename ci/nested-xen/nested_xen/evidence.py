"""What is kept of a host whose test failed: files for a person to read, whatever of them can still be had.

With ssh dead the guest agent is asked; with dom0 dead what QEMU has remains: the serial console. Bounded in
time.
"""

from __future__ import annotations

import base64
import binascii
import shlex
import shutil
from typing import TYPE_CHECKING

from nested_xen import progress, qmp
from nested_xen.errors import LabError
from nested_xen.process import run

if TYPE_CHECKING:
    from pathlib import Path

    from nested_xen.host import Host

SSH_S, AGENT_S = 15, 5
"""To find out whether ssh, or the guest agent, answers at all."""
ONE_S, ALL_S = 30, 60
"""For one command in dom0, and for all of them with what they said; a busy machine is slow."""
FROM_OUTSIDE = ("serial.log", "qemu.log")
# the journal by boot id and of all machine ids: a restored host got a new one while journald went on with
# the old; the report in /run is the live one, the other is as old as the disk has been full or read-only
FROM_DOM0 = {
    "startup-report.json": "cat /run/hostagent/startup-report.json",
    "startup-report-on-disk.json": "cat /var/lib/hostagent/startup-report.json",
    "journal.txt": "journalctl --no-pager -m -n 5000 _BOOT_ID=$(tr -d - </proc/sys/kernel/random/boot_id)",
    "failed-units.txt": "systemctl --failed --no-pager",
    "addresses.json": "ip -j -d addr",
    "routes.json": "ip -j route",
    "bridge.json": "bridge -j link",
    "dmesg.txt": "dmesg",
    "xl-list.txt": "xl list",
    "xenstore.txt": "xenstore-ls -fp",
}


def keep(host: Host, folder: Path, why: str) -> None:
    """Collect the evidence of a host in `folder`, anew, with `why` it is kept; never raises.

    `missing.txt` names what is not there and why. Takes up to SSH_S and AGENT_S (and the time to connect) to
    learn that nobody answers, and up to ALL_S for those who do.
    """
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "why.txt").write_text(f"{why}\n")
        missing = _collect(host, folder)
        (folder / "missing.txt").write_text("".join(f"{line}\n" for line in missing))
    except Exception as error:  # noqa: BLE001 - the error that led here is the one to be seen
        progress.note(f"no evidence of {host.name} is kept in {folder}: {error}")


def _collect(host: Host, folder: Path) -> list[str]:
    missing = []
    for name in FROM_OUTSIDE:
        try:
            shutil.copyfile(host.folder / name, folder / name)
        except OSError as error:
            missing.append(f"{name}: {error}")
    if host.pid is None:
        return [*missing, "everything of dom0: QEMU does not run"]
    for way in (_by_ssh, _by_agent):
        try:
            _unpack(way(host), folder)
            break
        except Exception as error:  # noqa: BLE001 - whatever it is, the next way may do
            missing.append(f"from dom0 {way.__name__.strip('_').replace('_', ' ')}: {str(error)[-300:]}")
    return missing


def _script() -> str:
    """All commands at once, each with its deadline and its file in memory (the disk may be what is broken)."""
    runs = [f"timeout {ONE_S} sh -c {shlex.quote(line)} >{name} 2>&1 &" for name, line in FROM_DOM0.items()]
    return "\n".join(
        ["cd $(mktemp -d -p /dev/shm) || exit", *runs, "wait", "tar -cz . | base64", 'rm -r "$PWD"']
    )


def _by_ssh(host: Host) -> str:
    host.exec("true", timeout_s=SSH_S)
    result = host.exec(_script(), check=False, timeout_s=ALL_S)
    if result.code != 0:
        raise LabError(f"exit code {result.code}: {result.stderr.strip()}")
    return result.stdout


def _by_agent(host: Host) -> str:
    with qmp.agent(host.sockets, deadline_s=AGENT_S) as agent:
        return agent.execute(["/bin/bash", "-c", _script()], deadline_s=ALL_S)[1]


def _unpack(text: str, folder: Path) -> None:
    try:
        archive = base64.b64decode(text)
    except binascii.Error as error:
        raise LabError(f"what came is not whole: {error}") from error
    # not tarfile: the one of Debian 12's Python has no filters yet
    run(["tar", "-xz", "--no-same-owner", "-C", folder], stdin=archive)
