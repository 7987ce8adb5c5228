"""Lab hosts are what they claim: distinct from one another and from their former selves, with the hardware asked for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from nested_xen import evidence, faults, machine, network, process

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from nested_xen.host import Host

pytestmark = [pytest.mark.full, pytest.mark.timeout(1200)]

CLOCK_S = 15  # a busy machine sets it late; without setting it the clock is as old as the saved state
RANDOM = 50
# the PCI NICs only: QEMU 10, as the disk backend of a Debian 13 dom0, adds a phantom NIC (enX1) with one MAC for all
FACTS = f"""
hostname; cat /etc/machine-id /sys/class/dmi/id/product_uuid /proc/sys/kernel/random/boot_id
echo $(cat /sys/class/net/enp*/address)
python3 -c 'import uuid; print(*(uuid.uuid4() for n in range({RANDOM})))'
for n in $(seq {RANDOM}); do read u </proc/sys/kernel/random/uuid; printf '%s ' $u; done
"""


@dataclass(frozen=True)
class Facts:
    """What tells a host from another one; `random` are uuids it made just now."""

    hostname: str
    machine_id: str
    product_uuid: str
    boot_id: str
    macs: frozenset[str]
    random: frozenset[str]
    ssh_key: str


def facts(host: Host) -> Facts:
    hostname, machine_id, product_uuid, boot_id, macs, made, kernel_made = (
        host.exec(FACTS).stdout.strip().splitlines()
    )
    asked = ["ssh-keyscan", "-T", "60", "-t", "ed25519", host.machine.address]
    key = process.run(network.inside(host.lab, asked), timeout_s=90).stdout.split()[-1]
    random = frozenset(made.split()) | frozenset(kernel_made.split())
    assert len(random) == 2 * RANDOM
    return Facts(hostname, machine_id, product_uuid, boot_id, frozenset(macs.split()), random, key)


def test_hosts_are_distinct_and_a_reset_one_is_not_its_former_self(
    xen_hosts_bare: Callable[[int], list[Host]],
) -> None:
    hosts = xen_hosts_bare(2)
    one, two = (facts(host) for host in hosts)
    for name in ("hostname", "machine_id", "product_uuid", "boot_id", "ssh_key"):
        assert getattr(one, name) != getattr(two, name), name
    assert not one.macs & two.macs
    assert not one.random & two.random
    for host in hosts:
        assert abs(faults.clock_offset_s(host)) < CLOCK_S

    hosts[0].exec("touch /root/left-here")
    hosts[0].reset()
    again = facts(hosts[0])
    assert not again.random & (one.random | two.random)
    assert again.machine_id not in {one.machine_id, two.machine_id}
    assert again.ssh_key not in {one.ssh_key, two.ssh_key}
    assert (again.hostname, again.product_uuid, again.macs) == (one.hostname, one.product_uuid, one.macs)
    assert abs(faults.clock_offset_s(hosts[0])) < CLOCK_S
    assert hosts[0].exec("ls /root").stdout.split() == []


def test_the_standard_host_has_the_hardware_it_should(xen_host_bare: Host) -> None:
    host = xen_host_bare
    seen = host.exec("xl info; echo ====; lsblk -dJo NAME,SERIAL,WWN,TYPE; echo ====; ip -j link").stdout
    info, disks, links = seen.split("====")
    assert "nr_cpus                : 2\n" in info
    assert 2900 < int(next(line for line in info.splitlines() if "total_memory" in line).split()[-1]) <= 3072
    known = {(disk["serial"], disk["wwn"]) for disk in json.loads(disks)["blockdevices"]}
    assert known >= {(disk.serial, disk.wwn(host.name)) for disk in host.machine.disks}
    assert {nic.mac for nic in host.machine.nics} <= {link["address"] for link in json.loads(links)}
    assert len(host.machine.nics) == 4
    assert len(host.machine.disks) == 2


def test_evidence_is_kept_of_a_living_a_deaf_and_a_dead_host(xen_host_bare: Host, tmp_path: Path) -> None:
    host = xen_host_bare
    host.exec("echo '<1>seen on the console' >/dev/kmsg")
    evidence.keep(host, tmp_path / "living", "a test")
    assert (tmp_path / "living" / "why.txt").read_text() == "a test\n"
    assert "seen on the console" in (tmp_path / "living" / "serial.log").read_text(errors="replace")
    assert "systemd" in (tmp_path / "living" / "journal.txt").read_text()
    addresses = json.loads((tmp_path / "living" / "addresses.json").read_text())
    assert host.machine.address in str(addresses)
    assert "Domain-0" in (tmp_path / "living" / "xl-list.txt").read_text()
    assert "domid" in (tmp_path / "living" / "xenstore.txt").read_text()

    host.exec("systemctl stop ssh; pkill -9 -x sshd", check=False)
    host.close_ssh()
    evidence.keep(host, tmp_path / "deaf", "ssh is dead")
    assert "ssh" in (tmp_path / "deaf" / "missing.txt").read_text()
    assert host.machine.address in (tmp_path / "deaf" / "addresses.json").read_text()

    host.power_off()
    evidence.keep(host, tmp_path / "dead", "no power")
    assert "QEMU does not run" in (tmp_path / "dead" / "missing.txt").read_text()
    assert "seen on the console" in (tmp_path / "dead" / "serial.log").read_text(errors="replace")
    host.reset()


def cards(host: Host) -> dict[str, int]:
    """MAC and PCI slot of each NIC, as dom0's sysfs has them."""
    script = "for n in /sys/class/net/enp*; do echo $(cat $n/address) $(basename $(readlink -f $n/device/..)); done"
    rows = [line.split() for line in host.exec(script).stdout.splitlines()]
    return {mac: int(place.split(":")[2].split(".")[0], 16) for mac, place in rows}


def test_an_odd_machine_boots_with_the_hardware_asked_for(odd_host: Callable[..., Host]) -> None:
    order = [3, 0, 2, 1, *range(15, 3, -1)]
    host = odd_host(
        nics=16,
        pci_order=order,
        missing={5},
        without_carrier={2},
        macs=[machine.mac(1, 0), "02:00:00:00:00:aa"],
        memory_mib=4096,
        sata=1,
        nvme=1,
        usb=1,
        cd=1,
    )
    macs = [machine.mac(1, 0), "02:00:00:00:00:aa", *(machine.mac(1, n) for n in range(2, 16))]
    assert cards(host) == {macs[n]: 2 + order[n] for n in range(16) if n != 5}
    ethernet = host.exec("lspci -n -d ::0200 | wc -l; lspci -s 1f.2; xl info total_memory; lsusb").stdout
    assert ethernet.split()[0] == "15"
    assert "SATA" in ethernet
    assert "QEMU USB HARDDRIVE" in ethernet
    assert 3900 < int(host.exec("xl info total_memory").stdout) <= 4096

    disks = json.loads(host.exec("lsblk -dJo NAME,SERIAL,TRAN,TYPE").stdout)["blockdevices"]
    by_serial = {disk["serial"]: (disk["tran"], disk["type"]) for disk in disks}
    assert by_serial["LAB-sata0"] == ("sata", "disk")
    assert by_serial["LAB-nvme0"] == ("nvme", "disk")
    assert by_serial["LAB-usb0"] == ("usb", "disk")
    assert [disk["type"] for disk in disks].count("rom") == 1

    names = {link["address"]: link["ifname"] for link in json.loads(host.exec("ip -j link").stdout)}
    devices = " ".join(names[macs[n]] for n in (1, 2))
    host.exec(f"for d in {devices}; do ip link set $d up; done; sleep 1")
    carriers = host.exec(f"for d in {devices}; do cat /sys/class/net/$d/carrier; done").stdout.split()
    assert carriers == ["1", "0"]


def test_a_machine_with_one_nic_and_little_memory_boots(odd_host: Callable[..., Host]) -> None:
    host = odd_host(nics=1, memory_mib=2048)
    assert cards(host) == {machine.mac(1, 0): 2}
    assert int(host.exec("xl info total_memory").stdout) <= 2048
