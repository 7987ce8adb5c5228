"""One lab host: a QEMU process, the ways to reach its dom0, and the states it walks through.

States: *off* (disks exist, nothing runs), *booted* (dom0 runs), *ready* (it is its own: clock, random pool,
name, keys; systemd says running; ssh answers). A host whose walk failed is `broken` with its first error and
refuses further use.
"""

from __future__ import annotations

import contextlib
import enum
import os
import secrets
import shlex
import shutil
import tarfile
import tempfile
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from nested_xen import disks, network, process, qmp
from nested_xen.errors import HostError, LabError
from nested_xen.image import Image, ssh_key
from nested_xen.machine import Machine, qemu_arguments

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from nested_xen.accel import Accel

BOOT_S = 900  # one boot takes 55-90 s alone, many times that when the machine is busy
RESUME_S = 60
EXEC_S = 300
RESUME = Path(__file__).with_name("resume.pl")


class State(enum.StrEnum):
    OFF = "off"
    BOOTED = "booted"
    READY = "ready"
    BROKEN = "broken"


@dataclass
class Host:
    """A host of a lab. `folder` holds its disks, sockets, logs and `pid`."""

    lab: str
    machine: Machine
    image: Image
    accel: Accel
    folder: Path
    state: State = State.OFF
    saved: Path | None = None
    """The saved state this host goes back to on `reset`; None: it was booted cold."""
    first_error: str = field(default="", repr=False)

    @property
    def name(self) -> str:
        return self.machine.name

    @property
    def pid(self) -> int | None:
        """The QEMU process, if it runs."""
        try:
            pid, started = (self.folder / "pid").read_text().split()
        except (OSError, ValueError):
            return None
        return int(pid) if process.started_at(int(pid)) == int(started) else None

    # walking through the states

    def restore(self, saved: Path) -> None:
        """A fresh, ready host from a saved state; what this host's disks held is gone."""
        with self._walk():
            self.power_off()
            disks.over(self.machine, saved, self.folder)
            self.saved = saved
            self._start(incoming=True)
            with qmp.monitor(self.folder) as monitor:
                monitor.load(saved / "state")
            self.state = State.BOOTED
            self._become_ready()

    def boot(self) -> None:
        """Power on over the disks as they are, to ready: a cold boot."""
        with self._walk():
            if self.pid is not None:
                raise HostError(f"{self.name} is running", hint="power it off first")
            self._start(incoming=False)
            self._pull_cables()
            self.wait_booted()
            self._become_ready()

    def wait_booted(self, *, deadline_s: float = BOOT_S) -> None:
        """Wait until systemd in dom0 has finished; raises HostError with the failed units when it is
        degraded.
        """
        with qmp.agent(self.folder, deadline_s=deadline_s) as agent:
            _, verdict = agent.execute(
                ["/bin/systemctl", "is-system-running", "--wait"], deadline_s=deadline_s
            )
            if verdict.strip() != "running":
                _, failed = agent.execute(["/bin/systemctl", "--failed", "--no-legend", "--plain"])
                raise HostError(
                    f"{self.name} booted {verdict.strip()}: {failed.strip()}", hint=self._log_hint()
                )
        self.state = State.BOOTED

    def power_off(self) -> None:
        """Cut the power: QEMU is killed, dom0 gets no word of it. Harmless when it is off."""
        self.close_ssh()
        pid = self.pid
        if pid is not None:
            process.kill(pid)
        (self.folder / "pid").unlink(missing_ok=True)
        self.state = State.OFF

    def reset(self) -> None:
        """Back to the saved state this host came from, in seconds."""
        if self.saved is None:
            raise LabError(f"{self.name} was booted cold: there is no saved state to go back to")
        self.restore(self.saved)

    def snapshot(self, name: str) -> Path:
        """Save the running host as it is; returns a folder that `restore` takes. The host runs on."""
        target = self.folder / "snapshots" / name
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        with qmp.monitor(self.folder) as monitor:
            monitor.save(target / "state")
            for disk in ("root", *(disk.name for disk in self.machine.disks)):
                shutil.copyfile(self.folder / f"{disk}.qcow2", target / f"{disk}.qcow2")
            monitor.command("cont")
        return target

    def reboot(self) -> None:
        """A clean reboot from inside dom0, to ready."""
        with self._walk():
            boot_id = self.exec("cat /proc/sys/kernel/random/boot_id").stdout
            self.exec("systemctl reboot", check=False)
            self.close_ssh()
            deadline = time.monotonic() + BOOT_S
            while True:
                with contextlib.suppress(HostError), qmp.agent(self.folder, deadline_s=BOOT_S) as agent:
                    if agent.execute(["/bin/cat", "/proc/sys/kernel/random/boot_id"])[1] != boot_id:
                        break
                if time.monotonic() > deadline:
                    raise HostError(f"{self.name} does not come back from a reboot", hint=self._log_hint())
                time.sleep(1)
            self.wait_booted()
            self._become_ready()

    # reaching dom0

    def exec(
        self, command: str | Sequence[str], *, check: bool = True, timeout_s: float = EXEC_S, stdin: str = ""
    ) -> process.Result:
        """Run a shell line (or an argument list) as root in dom0 over ssh. Raises LabError on failure if
        `check`.
        """
        line = command if isinstance(command, str) else shlex.join(command)
        result = process.run([*self.ssh_arguments(), line], timeout_s=timeout_s, stdin=stdin, check=False)
        if check and result.code != 0:
            raise LabError(
                f"on {self.name}: `{line[:500]}` failed with {result.code}:\n"
                f"{result.stdout[-3000:]}{result.stderr[-3000:]}"
            )
        return result

    def put(self, local: Path, remote: str) -> None:
        """Copy a file, or what is in a folder, into dom0; `remote` is the target's own path."""
        target = shlex.quote(remote)
        if not local.is_dir():
            with local.open("rb") as file:
                process.run([*self.ssh_arguments(), f"cat > {target}"], timeout_s=EXEC_S, stdin=file)
            return
        with tempfile.TemporaryFile() as archive:
            with tarfile.open(fileobj=archive, mode="w") as tar:
                tar.add(local, arcname=".")
            archive.seek(0)
            unpack = f"mkdir -p {target} && tar -C {target} --no-same-owner -xf -"
            process.run([*self.ssh_arguments(), unpack], timeout_s=EXEC_S, stdin=archive)

    def get(self, remote: str, local: Path) -> None:
        """Copy one file out of dom0."""
        process.run([*self.ssh_arguments(), f"cat {shlex.quote(remote)}"], log=local, timeout_s=EXEC_S)

    def ssh_arguments(self) -> list[str]:
        """The ssh command line to this host; one connection is kept and shared by all calls."""
        options = {
            "IdentityFile": ssh_key(),
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": self.folder / "known_hosts",
            "StrictHostKeyChecking": "yes",
            "HostKeyAlgorithms": "ssh-ed25519",
            "ControlMaster": "auto",
            "ControlPath": self.folder / "ssh",
            "ControlPersist": "yes",
            "ConnectTimeout": "20",
            "ServerAliveInterval": "15",
            "ServerAliveCountMax": "8",
            "LogLevel": "ERROR",
        }
        words = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
        return network.inside(self.lab, ["ssh", "-F", "none", *words, f"root@{self.machine.address}"])

    def close_ssh(self) -> None:
        """Drop the kept ssh connection (dead after a restore or a power cut)."""
        if (self.folder / "ssh").exists():
            process.run([*self.ssh_arguments(), "-O", "exit"], check=False, timeout_s=10)
        (self.folder / "ssh").unlink(missing_ok=True)

    def serial(self) -> str:
        """What hypervisor and dom0 printed on the serial console since this host was made."""
        return (self.folder / "serial.log").read_text(errors="replace")

    # inside

    @contextlib.contextmanager
    def _walk(self) -> Iterator[None]:
        if self.state is State.BROKEN:
            raise HostError(
                f"{self.name} is broken and not used again; its first error was: {self.first_error}"
            )
        try:
            yield
        except BaseException as error:
            self.state, self.first_error = State.BROKEN, str(error)
            raise

    def _start(self, *, incoming: bool) -> None:
        words = qemu_arguments(self.machine, self.accel, self.image.folder, self.folder, incoming=incoming)
        for socket in ("qmp", "qga"):
            (self.folder / socket).unlink(missing_ok=True)
        pid = process.spawn(network.inside(self.lab, words), log=self.folder / "qemu.log")
        (self.folder / "pid").write_text(f"{pid} {process.started_at(pid)}")

    def _pull_cables(self) -> None:
        """Before dom0's kernel looks: NICs of the machine that start without carrier."""
        loose = [nic for nic in self.machine.nics if not nic.carrier]
        if loose:
            with qmp.monitor(self.folder) as monitor:
                for nic in loose:
                    monitor.command("set_link", name=nic.id, up=False)

    def _become_ready(self) -> None:
        """Give dom0 its clock, fresh randomness, name and keys; then ssh must answer."""
        key = self.folder / "host_key"
        for old in (key, key.with_suffix(".pub")):
            old.unlink(missing_ok=True)
        process.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", key])
        public = key.with_suffix(".pub").read_text().split()
        (self.folder / "known_hosts").write_text(f"{self.machine.address} {public[0]} {public[1]}\n")
        given = {
            "name": self.name,
            "entropy": secrets.token_hex(256),
            "machine_id": uuid.uuid4().hex,
            "ssh_host_key": key.read_bytes().hex(),
        }
        with qmp.agent(self.folder, deadline_s=RESUME_S) as agent:
            given["time"] = f"{time.time():.3f}"  # as late as can be: what follows is the lag of the clock
            text = "".join(f"{name}={value}\n" for name, value in given.items())
            code, output = agent.execute(
                ["/usr/bin/perl", "-e", RESUME.read_text()], stdin=text, deadline_s=RESUME_S
            )
        if code != 0 or "resumed" not in output:
            raise HostError(f"{self.name} could not be made its own: {output.strip()}", hint=self._log_hint())
        self._await_ssh()
        self.state = State.READY

    def _await_ssh(self) -> None:
        deadline = time.monotonic() + RESUME_S
        while (last := self.exec("true", check=False, timeout_s=RESUME_S)).code != 0:
            if time.monotonic() > deadline:
                raise HostError(f"ssh to {self.name} fails: {last.stderr.strip()}", hint=self._log_hint())
            time.sleep(0.1)

    def _log_hint(self) -> str:
        return f"read {os.fspath(self.folder / 'serial.log')}"
