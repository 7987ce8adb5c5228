"""Every fault the lab can make, seen by a reader in dom0 that knows nothing of the lab, and undone again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from nested_xen import faults, process
from nested_xen.errors import LabError
from nested_xen.faults import Failing

if TYPE_CHECKING:
    from nested_xen.host import Host

pytestmark = [pytest.mark.full, pytest.mark.timeout(1200), pytest.mark.destructive]

BLOCK = 4096
CLUSTER = 65536


def write(host: Host, device: str, *, block: int = 0, flush: bool = False, text: str = "lab") -> str:
    """Write one block past dom0's page cache; what dd said when it failed, else nothing."""
    sync = ",fsync" if flush else ""
    line = f"printf {text} | LC_ALL=C dd of={device} bs={BLOCK} seek={block} count=1 oflag=direct"
    result = host.exec(f"{line} conv=sync,notrunc{sync} iflag=fullblock", check=False)
    return "" if result.code == 0 else result.stderr


def read(host: Host, device: str, *, block: int = 0) -> str:
    """Read one block past dom0's page cache; its text, or what dd said when it failed."""
    line = f"LC_ALL=C dd if={device} bs={BLOCK} skip={block} count=1 iflag=direct"
    result = host.exec(f"set -o pipefail; {line} | tr -d '\\0'", check=False)
    return result.stdout if result.code == 0 else result.stderr


def test_a_pulled_disk_is_gone_and_comes_back_as_itself(xen_host_bare: Host) -> None:
    disk = xen_host_bare.machine.disks[0]
    assert write(xen_host_bare, faults.device(xen_host_bare, disk), text="kept") == ""
    with faults.pulled(xen_host_bare, disk):
        assert disk.serial not in xen_host_bare.exec("lsblk -dno SERIAL").stdout
    seen = xen_host_bare.exec("lsblk -dno SERIAL,WWN").stdout.split()
    assert seen[seen.index(disk.serial) + 1] == disk.wwn(xen_host_bare.name)
    assert read(xen_host_bare, faults.device(xen_host_bare, disk)) == "kept"


def test_a_disk_fails_in_use_as_told_and_is_mended(xen_host_bare: Host) -> None:
    host, disk = xen_host_bare, xen_host_bare.machine.disks[1]
    device = faults.device(host, disk)
    assert write(host, device, text="before") == ""
    with faults.failing(host, disk):
        assert "Input/output error" in write(host, device)
        assert "Input/output error" in read(host, device)
    with faults.failing(host, disk, what=Failing.WRITES, sector=BLOCK // 512):
        assert "Input/output error" in write(host, device, block=1)
        assert write(host, device, block=2) == ""
        assert read(host, device) == "before"
    assert write(host, device, block=1, text="after") == ""
    assert read(host, device, block=1) == "after"
    faults.pull(host, disk)
    faults.plug(host, disk)
    device = faults.device(host, disk)
    with faults.failing(host, disk, what=Failing.WRITES, errno=28):
        assert "No space left" in write(host, device)
    assert write(host, device) == ""


def test_a_write_protected_disk_refuses_writes(xen_host_bare: Host) -> None:
    disk = xen_host_bare.machine.disks[0]
    with faults.write_protected(xen_host_bare, disk):
        assert "Read-only" in write(xen_host_bare, faults.device(xen_host_bare, disk))
    assert write(xen_host_bare, faults.device(xen_host_bare, disk)) == ""


def test_a_full_or_read_only_file_system_refuses_writes_and_recovers(xen_host_bare: Host) -> None:
    host = xen_host_bare
    attempt = "LC_ALL=C; export LC_ALL; mkdir -p /var/lib/lab; cp /bin/ls /var/lib/lab/ls"
    with faults.full(host, "/var/lib"):
        assert "No space left" in host.exec(attempt, check=False).stderr
    host.exec(f"{attempt} && cmp /bin/ls /var/lib/lab/ls && rm -r /var/lib/lab")
    with faults.read_only_root(host):
        assert "Read-only" in host.exec(attempt, check=False).stderr
    with faults.read_only(host, "/etc"):
        assert "Read-only" in host.exec("touch /etc/probe", check=False).stderr
        host.exec("touch /var/lib/probe")
    host.exec("touch /etc/probe && rm /etc/probe /var/lib/probe")
    assert host.exec("systemctl is-system-running", check=False).stdout == "running\n"


def test_a_frozen_host_stands_still_and_its_clock_can_be_moved(xen_host_bare: Host) -> None:
    host = xen_host_bare
    with faults.frozen(host), pytest.raises(LabError, match="did not end"):
        host.exec("true", timeout_s=3)
    host.exec("true")
    for jump_s in (86400, -86400):
        with faults.clock_jumped(host, jump_s):
            assert abs(faults.clock_offset_s(host) - jump_s) < 10
    assert abs(faults.clock_offset_s(host)) < 3


def test_daemons_die_at_once_and_libvirt_can_be_away(xen_host_bare: Host) -> None:
    host = xen_host_bare
    [libvirtd] = faults.kill_daemon(host, "libvirtd.service")
    assert host.exec(f"cat /proc/{libvirtd}/comm", check=False).code != 0
    [xenconsoled] = faults.kill_daemon(host, "xenconsoled")
    assert host.exec("pidof xenconsoled", check=False).code == 1
    assert xenconsoled != libvirtd
    with pytest.raises(LabError, match="no nonesuchd runs"):
        faults.kill_daemon(host, "nonesuchd")
    with faults.libvirt_stopped(host):
        assert host.exec("timeout 20 virsh -c xen:///system list", check=False).code == 1
    assert "Domain-0" in host.exec("virsh -c xen:///system list").stdout


def test_a_restarted_xenstored_has_forgotten_and_a_killed_one_answers_nothing(xen_host_bare: Host) -> None:
    host = xen_host_bare
    host.exec("xenstore-write /lab/before 1")
    old = host.exec("pidof oxenstored xenstored", check=False).stdout
    faults.restart_xenstored(host)
    assert host.exec("timeout 20 xenstore-read -s /lab/before", check=False).code == 1
    assert host.exec("timeout 20 xenstore-read -s /local/domain/0/name").stdout == "Domain-0\n"
    assert host.exec("pidof oxenstored xenstored", check=False).stdout not in {"", old}
    faults.kill_xenstored(host)
    assert host.exec("timeout 5 xenstore-read -s /local/domain/0/name", check=False).code != 0
    host.reset()


def test_after_a_power_cut_flushed_data_is_there_and_the_host_was_really_off(xen_host_bare: Host) -> None:
    host, disk = xen_host_bare, xen_host_bare.machine.disks[0]
    device = faults.device(host, disk)
    blocks = {"flushed": 0, "overwritten": 0, "unflushed": 2 * CLUSTER // BLOCK}
    assert write(host, device, block=blocks["flushed"], flush=True, text="flushed") == ""
    assert write(host, device, block=blocks["overwritten"], text="overwritten") == ""
    assert write(host, device, block=blocks["unflushed"], text="unflushed") == ""
    host.exec("echo synced >/root/synced; sync; echo cached >/root/cached")
    before = host.exec("cat /proc/sys/kernel/random/boot_id").stdout
    identity = "cat /etc/machine-id /etc/hostname; sha256sum </etc/ssh/ssh_host_ed25519_key"
    same = host.exec(identity).stdout
    pid = host.pid
    faults.power_cut(host)
    assert pid is not None
    assert not process.alive(pid)
    assert host.exec("cat /proc/sys/kernel/random/boot_id").stdout != before
    assert host.exec(identity).stdout == same
    device = faults.device(host, disk)
    assert read(host, device, block=blocks["overwritten"]) == "overwritten"
    assert read(host, device, block=blocks["unflushed"]) == ""
    assert host.exec("cat /root/synced").stdout == "synced\n"
    assert host.exec("cat /root/cached", check=False).stdout == ""
    assert host.exec("systemctl is-system-running", check=False).stdout == "running\n"
