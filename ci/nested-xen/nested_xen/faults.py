"""Faults of a lab host on demand: power, daemons, disks, network, clock. Nothing here knows hostagent.

Every function proves its effect before it returns, in dom0 or, for a segment, with a frame (LabError when it
did not come about). A fault that can be undone is a context manager; leaving the block undoes it and proves
that too.
"""

from __future__ import annotations

import contextlib
import shlex
import time
from enum import StrEnum
from typing import TYPE_CHECKING

from nested_xen import network, qmp, wire
from nested_xen.errors import LabError
from nested_xen.frames import Ethernet, EtherType
from nested_xen.machine import FIRST_NIC_SLOT, disk_options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nested_xen.host import Host
    from nested_xen.machine import Disk

EFFECT_S = 60
CLOCK_S = 3.6  # what setting dom0's clock and asking it may take
SILENCE_S = 1  # how long a frame is waited for that must not come
FILLER = "lab-filler"  # the file that takes the space
# errors go to dom0; by default QEMU stops the machine when a disk has no space left
REPORT = {"rerror": "report", "werror": "report"}
LIBVIRT_UNITS = ("libvirtd.service", "libvirtd.socket", "libvirtd-ro.socket", "libvirtd-admin.socket")

# power


def power_cut(host: Host) -> None:
    """Cut the power and power on again: a cold boot, to ready.

    What dom0 had not written out is lost with its memory. Of what it wrote to a disk without a flush, QEMU
    keeps new data (host page cache) but loses where in the qcow2 file it put it: a write to a never-written
    cluster (64 KiB) reads as zeros afterwards, an overwrite of flushed data stays. So the disk behaves like
    one with a volatile write cache for new clusters only; flushed data is always kept.
    """
    host.power_off()
    host.boot()


# daemons


def kill_daemon(host: Host, name: str) -> list[int]:
    """SIGKILL a daemon by unit (`libvirtd.service`) or process name (`oxenstored`); the pids that died.

    Raises LabError when nothing runs by that name. systemd may have started it anew by then (Restart=).
    """
    quoted = shlex.quote(name)
    find = f"systemctl show -p MainPID --value {quoted}" if "." in name else f"pidof {quoted}"
    pids = [int(pid) for pid in host.exec(find, check=False).stdout.split() if pid != "0"]
    if not pids:
        raise LabError(
            f"no {name} runs on {host.name}", hint="give a unit with its suffix, or a process name"
        )
    words = " ".join(map(str, pids))
    gone = f"for p in {words}; do ! grep -qs '^State:[^Z]*$' /proc/$p/status || exit 1; done"
    host.exec(f"kill -9 {words}")
    _await(host, gone, f"{name} ({words}) survives SIGKILL")
    return pids


def kill_xenstored(host: Host) -> list[int]:
    """SIGKILL xenstored (OCaml or C); what it held is lost, and nothing starts it again."""
    return kill_daemon(host, _xenstored(host))


def restart_xenstored(host: Host) -> None:
    """Kill xenstored and start it as Debian's init script does: an empty store with dom0's own first entries.

    The kernel's xenbus connection stays with the dead daemon: this is the restarted state that no reboot-free
    repair leaves. Proved by a reader on the Unix socket.
    """
    daemon, old = _xenstored(host), kill_xenstored(host)
    start = "env SYSTEMCTL_SKIP_REDIRECT=1 _SYSTEMCTL_SKIP_REDIRECT=1 /etc/init.d/xen start"
    host.exec(f"timeout {EFFECT_S} systemd-run -q --scope --collect {start} </dev/null >/dev/null 2>&1")
    _await(host, "timeout 5 xenstore-read -s /local/domain/0/domid", "xenstored does not answer")
    if host.exec(f"pidof {daemon}").stdout.split() == [str(pid) for pid in old]:
        raise LabError(f"{daemon} was not restarted")


@contextlib.contextmanager
def stopped(host: Host, *units: str) -> Iterator[None]:
    """Units stopped while the block runs, their sockets too if they are among `units`, then started again."""
    words = shlex.join(units)
    host.exec(f"systemctl stop {words}")
    _await(host, f"! systemctl is-active -q {words}", f"{words} still active")
    try:
        yield
    finally:
        host.exec(f"systemctl start {words}")
    _await(
        host, f"for u in {words}; do systemctl is-active -q $u || exit 1; done", f"{words} not active again"
    )


def libvirt_stopped(host: Host) -> contextlib.AbstractContextManager[None]:
    """libvirtd and the sockets that would start it are down while the block runs."""
    return stopped(host, *LIBVIRT_UNITS)


@contextlib.contextmanager
def frozen(host: Host) -> Iterator[None]:
    """The whole machine stands still while the block runs: dom0, Xen, clocks; afterwards it goes on."""
    freeze(host)
    try:
        yield
    finally:
        thaw(host)


def freeze(host: Host) -> None:
    _machine_state(host, "stop", "paused")


def thaw(host: Host) -> None:
    _machine_state(host, "cont", "running")


# file systems


@contextlib.contextmanager
def full(host: Host, folder: str) -> Iterator[None]:
    """The file system that holds `folder` has no byte left, for root neither, while the block runs."""
    filler = shlex.quote(f"{folder}/{FILLER}")
    # first the bulk at once, then what is left block by block; the last write must fail for lack of space
    host.exec(
        f"f={filler}; b=$(stat -f -c '%f*%S' {shlex.quote(folder)}); fallocate -l $(($b-4194304)) $f;"
        " dd if=/dev/zero of=$f bs=4k oflag=append conv=notrunc,fsync 2>/dev/null; :"
    )
    try:
        probe = shlex.quote(f"{folder}/{FILLER}.probe")
        said = host.exec(
            f"LC_ALL=C head -c 65536 /dev/zero >{probe}; r=$?; rm -f {probe}; exit $r", check=False
        )
        if said.code == 0 or "No space left" not in said.stderr:
            raise LabError(f"{folder} on {host.name} takes data: {said.stderr}")
        yield
    finally:
        host.exec(f"rm -f {filler} && sync -f {shlex.quote(folder)}")
    host.exec(f"echo x >{probe} && rm {probe}")


@contextlib.contextmanager
def read_only_root(host: Host) -> Iterator[None]:
    """The root file system (all of them, in fact) is forced read-only, as after an I/O error; then writable
    again.
    """
    host.exec("echo u >/proc/sysrq-trigger")
    _await(host, "! touch /var/lib/lab-probe 2>/dev/null", "the root file system is still writable")
    try:
        yield
    finally:
        host.exec("mount -o remount,rw /")
    host.exec("touch /var/lib/lab-probe && rm /var/lib/lab-probe")


@contextlib.contextmanager
def read_only(host: Host, folder: str) -> Iterator[None]:
    """One folder (`/etc`) is read-only for every process while the block runs: a read-only bind mount over
    itself.
    """
    quoted = shlex.quote(folder)
    host.exec(f"mount --bind {quoted} {quoted} && mount -o remount,bind,ro {quoted}")
    try:
        host.exec(f"! touch {quoted}/lab-probe 2>/dev/null")
        yield
    finally:
        host.exec(f"umount -l {quoted}")
    host.exec(f"touch {quoted}/lab-probe && rm {quoted}/lab-probe")


# disks


class Failing(StrEnum):
    """What a failing disk refuses."""

    READS = "read"
    WRITES = "write"
    ALL = "all"


def device(host: Host, disk: Disk) -> str:
    """The device (`/dev/sda`) that dom0 has for a spare disk, found by serial; raises LabError when it has
    none.
    """
    found = _device(host, disk)
    if found is None:
        raise LabError(f"{host.name} has no disk with serial {disk.serial}")
    return found


def pull(host: Host, disk: Disk) -> None:
    """Pull a disk out while the host runs."""
    with qmp.monitor(host.sockets) as monitor:
        monitor.command("device_del", id=disk.name)
        monitor.await_event("DEVICE_DELETED", device=disk.name)
    _await_here(lambda: _device(host, disk) is None, f"{host.name} still shows the pulled {disk.name}")


def plug(host: Host, disk: Disk, *, writable: bool = True) -> None:
    """Plug a pulled disk in again: same data, same serial and WWN; `writable=False`: write-protected."""
    with qmp.monitor(host.sockets) as monitor:
        node = disk.name
        if not writable:
            node = f"{disk.name}-ro"
            monitor.command("blockdev-add", driver="raw", file=disk.name, node_name=node, read_only=True)
        monitor.command("device_add", **{**disk_options(host.machine, disk), **REPORT, "drive": node})
    _await_here(lambda: _device(host, disk) is not None, f"{host.name} does not see the plugged {disk.name}")
    host.exec("udevadm settle")  # lsblk and the links in /dev/disk know it only then


@contextlib.contextmanager
def pulled(host: Host, disk: Disk) -> Iterator[None]:
    """A disk is out while the block runs."""
    pull(host, disk)
    try:
        yield
    finally:
        plug(host, disk)


@contextlib.contextmanager
def write_protected(host: Host, disk: Disk) -> Iterator[None]:
    """A disk is pulled and plugged in again write-protected; afterwards it is as before."""
    pull(host, disk)
    plug(host, disk, writable=False)
    try:
        flag = host.exec(f"cat /sys/block/{device(host, disk).rpartition('/')[2]}/ro").stdout.strip()
        if flag != "1":
            raise LabError(f"{disk.name} of {host.name} is not write-protected")
        yield
    finally:
        pull(host, disk)
        with qmp.monitor(host.sockets) as monitor:
            monitor.command("blockdev-del", node_name=f"{disk.name}-ro")
        plug(host, disk)


@contextlib.contextmanager
def failing(
    host: Host, disk: Disk, *, what: Failing = Failing.ALL, errno: int = 5, sector: int | None = None
) -> Iterator[None]:
    """A disk fails under whoever uses it, without leaving the bus; afterwards it is whole again.

    Arguments: `errno` 5 (EIO) or 28 (ENOSPC, a full thin-provisioned disk; the disk must have been pulled and
    plugged before, else QEMU stops the machine instead of telling dom0); `sector`: only requests that touch
    this 512-byte sector fail.
    """
    node = f"{disk.name}-failing"
    kinds = {Failing.ALL: ["read", "write", "flush"]}.get(what, [what.value])
    where = {} if sector is None else {"sector": sector}
    rules = [{"event": "none", "iotype": kind, "errno": errno, "once": False, **where} for kind in kinds]
    with qmp.monitor(host.sockets) as monitor:
        monitor.command(
            "blockdev-add", driver="blkdebug", image=disk.name, node_name=node, inject_error=rules
        )
        _use_node(monitor, disk, node)
    try:
        yield
    finally:
        with qmp.monitor(host.sockets) as monitor:
            _use_node(monitor, disk, disk.name)
            monitor.command("blockdev-del", node_name=node)


# network


@contextlib.contextmanager
def cut(host: Host, segment: str) -> Iterator[None]:
    """A segment carries nothing while the block runs; the carrier of its NICs stays up, as behind a switch.

    Proved by a frame from one port of ours to another, which every station of the segment may see.
    """
    network.set_segment_up(host.lab, segment, up=False)
    try:
        if _carries(host.lab, segment):
            raise LabError(f"the cut segment {segment} carries frames")
        yield
    finally:
        network.set_segment_up(host.lab, segment, up=True)
    _await_here(lambda: _carries(host.lab, segment), f"the mended segment {segment} carries nothing")


@contextlib.contextmanager
def no_carrier(host: Host, nic: int) -> Iterator[None]:
    """The cable of one NIC (by its place in the machine) is out while the block runs."""
    set_carrier(host, nic, up=False)
    try:
        yield
    finally:
        set_carrier(host, nic, up=True)


def set_carrier(host: Host, nic: int, *, up: bool) -> None:
    """Pull one NIC's cable or put it back.

    Raises LabError also when the NIC is administratively down: such a one shows no carrier either way.
    """
    given = host.machine.nics[nic]
    with qmp.monitor(host.sockets) as monitor:
        monitor.command("set_link", name=given.id, up=up)
    slot = FIRST_NIC_SLOT + nic if given.pci_slot is None else given.pci_slot
    card = f"/sys/bus/pci/devices/0000:00:{slot:02x}.0/virtio*/net/*"
    # the kernel refuses to read the file of a NIC that is administratively down
    _await_by_agent(
        host,
        f'test "$(cat {card}/carrier)" = {up:d}',
        f"NIC {nic} of {host.name} does not see its carrier {'back' if up else 'drop'}"
        " (it must be there, and administratively up)",
    )


# clock


@contextlib.contextmanager
def clock_jumped(host: Host, seconds: float) -> Iterator[None]:
    """dom0's wall clock is ahead by `seconds` (or behind, when negative) while the block runs, then right
    again.
    """
    jump_clock(host, seconds)
    try:
        yield
    finally:
        jump_clock(host, 0)


def jump_clock(host: Host, seconds: float) -> None:
    """Set dom0's wall clock to the lab's time plus `seconds`."""
    host.exec(f"date -s @{time.time() + seconds:.3f} >/dev/null")
    off = clock_offset_s(host)
    if abs(off - seconds) > CLOCK_S:
        raise LabError(f"the clock of {host.name} is off by {off:.1f} s, not {seconds:.1f} s")


def clock_offset_s(host: Host) -> float:
    """How far dom0's clock is ahead of the lab's, in seconds; exact to half the time the question takes."""
    before = time.time()
    theirs = float(host.exec("date +%s.%N").stdout)
    return theirs - (before + time.time()) / 2


# inside


def _xenstored(host: Host) -> str:
    found = host.exec(
        "pidof -q oxenstored && echo oxenstored; pidof -q xenstored && echo xenstored; :"
    ).stdout
    if not found:
        raise LabError(f"no xenstored runs on {host.name}")
    return found.split()[0]


def _machine_state(host: Host, command: str, wanted: str) -> None:
    with qmp.monitor(host.sockets) as monitor:
        monitor.command(command)
        state = monitor.command("query-status")["status"]
    if state != wanted:
        raise LabError(f"{host.name} is {state} after {command}, not {wanted}")


def _device(host: Host, disk: Disk) -> str | None:
    rows = host.exec("lsblk -dnpo NAME,SERIAL").stdout.splitlines()
    return next((row.split()[0] for row in rows if row.split()[1:] == [disk.serial]), None)


def _use_node(monitor: qmp.Monitor, disk: Disk, node: str) -> None:
    monitor.command("qom-set", path=f"/machine/peripheral/{disk.name}", property="drive", value=node)


def _carries(lab: str, segment: str) -> bool:
    """Does a frame get from one port on a segment to another?"""
    with wire.join(lab, segment, "proof-from") as sender, wire.join(lab, segment, "proof-to") as receiver:
        sender.send(Ethernet(receiver.mac, sender.mac, EtherType.LOCAL, b"proof"))
        return any(frame.source == sender.mac for frame in receiver.frames(deadline_s=SILENCE_S))


def _await(host: Host, command: str, problem: str) -> None:
    """Wait until a shell line succeeds in dom0."""
    _await_here(lambda: host.exec(command, check=False).code == 0, problem)


def _await_by_agent(host: Host, command: str, problem: str) -> None:
    """The same without network: the NIC in question may be the one that ssh uses."""
    with qmp.agent(host.sockets) as agent:
        _await_here(lambda: agent.execute(["/bin/sh", "-c", command])[0] == 0, problem)


def _await_here(holds: Callable[[], bool], problem: str) -> None:
    deadline = time.monotonic() + EFFECT_S
    while not holds():
        if time.monotonic() > deadline:
            raise LabError(f"{problem} after {EFFECT_S} s")
        time.sleep(0.1)
