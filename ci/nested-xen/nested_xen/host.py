"""One lab host: a QEMU process, the ways to reach its dom0, and the states it walks through.

States: *off* (disks exist, nothing runs), *booted* (dom0 runs), *ready* (it is its own: clock, random pool,
name, keys; systemd says running; ssh answers). A host whose walk failed is `broken` with its first error and
refuses further use.

A restored host gets a new identity (machine id, ssh host key), as does one that boots for the first time; a
cold boot over the same disks keeps it, as hardware does.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import os
import re
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

from nested_xen import disks, network, process, qmp, registry
from nested_xen.errors import Dom0CrashedError, HostError, LabError
from nested_xen.image import Image, ssh_key
from nested_xen.machine import Machine, qemu_arguments

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from nested_xen.accel import Accel

log = logging.getLogger(__name__)

BOOT_S = 900  # one boot takes 55-90 s alone, many times that when the machine is busy
RESUME_S = 180  # 5-10 s alone; the first ssh session after a boot has taken over 60 on a busy machine
EXEC_S = 300
SERIAL_LOG = "serial.log"
CRASHED = b"(XEN) Hardware Dom0 crashed"
EMULATED_CRASHES = 2
"""So often may dom0's kernel panic, or QEMU itself crash, in one boot under emulation: QEMU's CPUs sometimes run code
that another of them is patching, as no real one does.
"""
RESUME = Path(__file__).with_name("resume.pl")
SNAPSHOT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class State(enum.StrEnum):
    OFF = "off"
    BOOTED = "booted"
    READY = "ready"
    BROKEN = "broken"


@dataclass
class Host:
    """A host of a lab."""

    lab: str
    machine: Machine
    image: Image
    accel: Accel
    state: State = State.OFF
    origin: Path | None = None
    """The saved state this host goes back to on `reset`; None: it was booted cold."""
    first_error: str = field(default="", repr=False)
    _powered_on_at: int = field(default=0, repr=False)
    """How long the serial log was then."""

    @property
    def name(self) -> str:
        return self.machine.name

    @property
    def folder(self) -> Path:
        """Its disks, snapshots and logs."""
        return registry.store(self.lab) / self.name

    @property
    def sockets(self) -> Path:
        """Its sockets and `pid`."""
        return registry.folder(self.lab) / self.name

    @property
    def pid(self) -> int | None:
        """The QEMU process, if it runs."""
        try:
            pid, started = (int(word) for word in (self.sockets / "pid").read_text().split())
        except (OSError, ValueError):  # "None" for when it started: it had ended by then
            return None
        return pid if process.started_at(pid) == started else None

    # walking through the states

    def restore(self, saved: Path) -> None:
        """A fresh, ready host from its slot's saved state; what this host's disks held is gone."""
        self.origin = saved
        self._restore(saved)

    def boot(self) -> None:
        """Power on over the disks as they are, to ready: a cold boot. Only its first one gives an identity."""
        with self._walk():
            if self.pid is not None:
                raise HostError(f"{self.name} is running", hint="power it off first")
            crashes = EMULATED_CRASHES if self.accel.kind == "tcg" else 0
            while True:
                self._start(incoming=False)
                self._pull_cables()
                try:
                    self.wait_booted()
                    break
                except HostError as error:
                    if not crashes or not (isinstance(error, Dom0CrashedError) or self.pid is None):
                        raise
                    crashes -= 1
                    log.warning("%s; it is switched off and on again", error.found)
                    self.power_off()
            self._become_ready(new_identity=not (self.folder / "known_hosts").exists())

    def wait_booted(self, *, deadline_s: float = BOOT_S) -> None:
        """Wait until systemd in dom0 has finished; raises HostError with the failed units when it is
        degraded, Dom0CrashedError when its kernel panicked.
        """
        with qmp.agent(self.sockets, deadline_s=deadline_s, hopeless=self._check_console) as agent:
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
        (self.sockets / "pid").unlink(missing_ok=True)
        self.state = State.OFF

    def reset(self, snapshot: str | None = None) -> None:
        """Back to the saved state this host came from, or to a snapshot of it, in seconds."""
        saved = self.origin if snapshot is None else self._snapshot_folder(snapshot)
        if saved is None:
            raise LabError(f"{self.name} was booted cold: there is no saved state to go back to")
        if not saved.exists():
            raise LabError(
                f"{self.name} has no snapshot {snapshot}" if snapshot else f"{saved} is not there any more",
                hint=f"snapshots: {', '.join(self.snapshots()) or 'none'}",
            )
        self._restore(saved)

    def snapshot(self, name: str) -> None:
        """Save the running host as it is, for `reset`; the host runs on.

        Raises LabError when there is a snapshot of that name: the disks may stand on it.
        """
        target = self._snapshot_folder(name)
        if target.exists():
            raise LabError(f"{self.name} has a snapshot {name} already", hint="give another name")
        building = target.with_name(".new")
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir(parents=True)
        with qmp.monitor(self.sockets) as monitor:
            try:
                monitor.save(building / "state")
                for disk in ("root", *(disk.name for disk in self.machine.disks)):
                    shutil.copyfile(self.folder / f"{disk}.qcow2", building / f"{disk}.qcow2")
                shutil.copyfile(self.folder / SERIAL_LOG, building / SERIAL_LOG)
                building.rename(target)
            finally:
                monitor.command("cont")

    def snapshots(self) -> list[str]:
        """Names of this host's snapshots."""
        return sorted(path.name for path in self._snapshot_folder("x").parent.glob("[!.]*"))

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
        """Copy one file out of dom0; `local` is touched only when all of it has come."""
        part = local.with_name(f"{local.name}.part")
        try:
            with part.open("wb") as file:
                words = [*self.ssh_arguments(), f"cat {shlex.quote(remote)}"]
                process.run(words, output=file, timeout_s=EXEC_S)
            part.rename(local)
        finally:
            part.unlink(missing_ok=True)

    def ssh_arguments(self) -> list[str]:
        """The ssh command line to this host; one connection is kept and shared by all calls."""
        options = {
            "IdentityFile": ssh_key(),
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": self.folder / "known_hosts",
            "StrictHostKeyChecking": "yes",
            "HostKeyAlgorithms": "ssh-ed25519",
            "ControlMaster": "auto",
            "ControlPath": self.sockets / "ssh",
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
        if (self.sockets / "ssh").exists():
            process.run([*self.ssh_arguments(), "-O", "exit"], check=False, timeout_s=10)
        (self.sockets / "ssh").unlink(missing_ok=True)

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

    def _snapshot_folder(self, name: str) -> Path:
        if not SNAPSHOT_NAME.fullmatch(name):
            raise LabError(
                f"{name!r} cannot name a snapshot", hint="letters, digits, dots and dashes, at most 64"
            )
        return self.folder / "snapshots" / name

    def _restore(self, saved: Path) -> None:
        with self._walk():
            self._load(saved)
            try:
                self._become_ready(new_identity=True)
            except HostError:  # of some hundred restored hosts one has a guest agent that answers no more
                self._load(saved)
                self._become_ready(new_identity=True)

    def _load(self, saved: Path) -> None:
        self.power_off()
        disks.over(self.machine, saved, self.folder)
        # the console goes on where it was when the state was saved
        shutil.copyfile(saved / SERIAL_LOG, self.folder / SERIAL_LOG)
        self._start(incoming=True)
        with qmp.monitor(self.sockets) as monitor:
            monitor.load(saved / "state")
        self.state = State.BOOTED

    def _start(self, *, incoming: bool) -> None:
        for socket in ("qmp", "qga"):
            (self.sockets / socket).unlink(missing_ok=True)
        words = qemu_arguments(
            self.machine,
            self.accel,
            self.image.folder,
            self.folder,
            sockets=self.sockets,
            incoming=incoming,
        )
        console = self.folder / SERIAL_LOG
        self._powered_on_at = console.stat().st_size if console.exists() else 0
        pid = process.spawn(network.inside(self.lab, words), log=self.folder / "qemu.log")
        (self.sockets / "pid").write_text(f"{pid} {process.started_at(pid)}")

    def _check_console(self) -> None:
        """Raises Dom0CrashedError when Xen has said since the last power-on that dom0 is dead."""
        console = self.folder / SERIAL_LOG
        if console.exists() and CRASHED in console.read_bytes()[self._powered_on_at :]:
            raise Dom0CrashedError(f"dom0 of {self.name} panicked as it booted", hint=self._log_hint())

    def _pull_cables(self) -> None:
        """Before dom0's kernel looks: NICs of the machine that start without carrier."""
        loose = [nic for nic in self.machine.nics if not nic.carrier]
        if loose:
            with qmp.monitor(self.sockets) as monitor:
                for nic in loose:
                    monitor.command("set_link", name=nic.id, up=False)

    def _become_ready(self, *, new_identity: bool) -> None:
        """Give dom0 its clock and, if new, randomness, name, machine id and ssh key; then ssh must answer."""
        given = self._new_identity() if new_identity else {}
        with qmp.agent(self.sockets, deadline_s=RESUME_S) as agent:
            given["time"] = f"{time.time():.3f}"  # as late as can be: what follows is the lag of the clock
            text = "".join(f"{name}={value}\n" for name, value in given.items())
            code, output = agent.execute(
                ["/usr/bin/perl", "-e", RESUME.read_text()], stdin=text, deadline_s=RESUME_S
            )
        if code != 0 or "resumed" not in output:
            raise HostError(f"{self.name} could not be made its own: {output.strip()}", hint=self._log_hint())
        self._await_ssh()
        self.state = State.READY

    def _new_identity(self) -> dict[str, str]:
        key = self.folder / "host_key"
        for old in (key, key.with_suffix(".pub")):
            old.unlink(missing_ok=True)
        process.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", key])
        public = key.with_suffix(".pub").read_text().split()
        (self.folder / "known_hosts").write_text(f"{self.machine.address} {public[0]} {public[1]}\n")
        return {
            "name": self.name,
            "entropy": secrets.token_hex(256),
            "machine_id": uuid.uuid4().hex,
            "ssh_host_key": key.read_bytes().hex(),
        }

    def _await_ssh(self) -> None:
        deadline = time.monotonic() + RESUME_S
        while (last := self.exec("true", check=False, timeout_s=RESUME_S)).code != 0:
            if time.monotonic() > deadline:
                raise HostError(f"ssh to {self.name} fails: {last.stderr.strip()}", hint=self._log_hint())
            time.sleep(0.1)

    def _log_hint(self) -> str:
        return f"read {os.fspath(self.folder / SERIAL_LOG)}"
