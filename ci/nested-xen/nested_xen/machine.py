"""What a lab machine consists of, and the QEMU command line that makes it. Pure: nothing is started here.

Recipe and traps are measured: Nehalem as CPU model under TCG (PV dom0, no SMAP, libvirt works), no boot
loader (QEMU loads Xen as multiboot kernel), spare disks as scsi-hd so that they can be plugged and pulled,
virtio NICs with speed and duplex set where a bond needs them.
"""

from __future__ import annotations

import hashlib
import ipaddress
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nested_xen.accel import VCPUS

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from nested_xen.accel import Accel

SUBNET = ipaddress.ip_network("192.0.2.0/24")  # RFC 5737 TEST-NET-1: never routed
GATEWAY = SUBNET[1]
MAX_HOSTS = 4
MAX_NICS = 16  # PCI slots 0x02 to 0x11; 0x18 to 0x1d are the other devices', 0x1f is the chipset's
FIRST_NIC_SLOT = 2
SPARE_DISKS = 2
SPARE_SIZE = "2G"
XEN_ARGUMENTS = f"console=com1 com1=115200,8n1 dom0_max_vcpus={VCPUS} loglvl=all guest_loglvl=all noreboot"
LINUX_ARGUMENTS = "root=/dev/vda ro console=hvc0 clocksource=xen"
DEFAULT_SEGMENTS = ("management", "storage", "bond-a", "bond-b")
CPU_MODELS = {"tcg": "Nehalem", "kvm": "host"}
# An emulated CPU does not speculate, and what guards against that costs it dear: with XPTI every system call of dom0
# flushes QEMU's TLB.
# The kernel patches its own code when it changes its mind about the TSC, and an emulated second CPU may then run half
# of the old instruction and half of the new one: it is told at once that the TSC is of no use.
ADDED = {"tcg": ("spec-ctrl=no xpti=no", "mitigations=off tsc=unstable"), "kvm": ("", "")}
"""What accelerators add to the command lines of Xen and of dom0's kernel."""


VIRTIO, E1000E = "virtio-net-pci", "e1000e"
"""Models of NICs: the second has the settings of a real card (speed, duplex, what it advertises)."""


@dataclass(frozen=True, slots=True)
class Nic:
    """One NIC: the segment it is on, its MAC, its place on the PCI bus (None: next free)."""

    segment: str
    mac: str
    pci_slot: int | None = None
    carrier: bool = True
    """Is its cable in at power-on?"""
    model: str = VIRTIO

    @property
    def id(self) -> str:
        return "nic-" + self.mac.replace(":", "")[-6:]


@dataclass(frozen=True, slots=True)
class Disk:
    """A spare disk: bus (scsi, sata, nvme, usb, cd), name and identity."""

    name: str
    bus: str = "scsi"
    size: str = SPARE_SIZE

    @property
    def serial(self) -> str:
        return f"LAB-{self.name}"

    def wwn(self, machine: str) -> str:
        """NAA 5 identifier, unique per machine and disk."""
        digest = hashlib.sha256(f"{machine} {self.name}".encode()).hexdigest()
        return "0x5000c5" + digest[:10]


@dataclass(frozen=True, slots=True)
class Machine:
    """The hardware of one host. `name` is its slot (h1..h4), which fixes address, MACs and SMBIOS uuid."""

    name: str
    nics: tuple[Nic, ...]
    disks: tuple[Disk, ...] = field(default_factory=lambda: spare_disks())
    memory_mib: int = 3072
    dom0_mib: int = 1536
    odd: bool = False
    """True for hardware that no saved state has: always booted cold."""

    @property
    def index(self) -> int:
        return int(self.name.removeprefix("h"))

    @property
    def address(self) -> str:
        return str(SUBNET[10 + self.index])

    @property
    def uuid(self) -> uuid.UUID:
        return uuid.uuid5(uuid.NAMESPACE_DNS, f"{self.name}.hostagent-lab.invalid")


def mac(host_index: int, nic_index: int) -> str:
    """Locally administered MAC of a host's NIC."""
    return f"52:54:00:77:{host_index:02x}:{nic_index:02x}"


def spare_disks() -> tuple[Disk, ...]:
    return tuple(Disk(f"spare{number}") for number in range(SPARE_DISKS))


def standard(index: int) -> Machine:
    """The machine of slot h<index>: 4 NICs, two spare disks, 2 vCPU, 3 GiB."""
    nics = tuple(Nic(segment, mac(index, number)) for number, segment in enumerate(DEFAULT_SEGMENTS))
    return Machine(f"h{index}", nics)


def custom(
    index: int,
    *,
    nics: int = len(DEFAULT_SEGMENTS),
    memory_mib: int = 3072,
    macs: Sequence[str] = (),
    pci_order: Sequence[int] = (),
    missing: Collection[int] = (),
    without_carrier: Collection[int] = (),
    e1000e: Collection[int] = (),
    sata: int = 0,
    nvme: int = 0,
    usb: int = 0,
    cd: int = 0,
) -> Machine:
    """A machine of slot h<index> with unusual hardware, beside the two spare disks; it is always booted cold.

    Arguments: `nics`, how many (at most MAX_NICS; those beyond the standard four are on segments
    `extra-<number>`); `macs` of the first NICs, the rest have their own; `pci_order[n]`, which of the slots
    0, 1, … NIC n sits in (default: in order; this is what the kernel finds and names them by); `missing` NICs
    are not there and leave their slots empty; NICs `without_carrier` start with the cable out; `e1000e`, which
    NICs are of that model and not virtio; `sata`,
    `nvme`, `usb` and `cd`: how many further disks of that bus. NIC 0 is management and must be there. Raises
    ValueError.
    """
    order = list(pci_order) or list(range(nics))
    if not 1 <= nics <= MAX_NICS or sorted(order) != list(range(nics)):
        raise ValueError(f"{nics} NICs (1 to {MAX_NICS}) in PCI order {order}: each place once")
    if 0 in missing or not set(missing) | set(without_carrier) | set(e1000e) <= set(range(nics)):
        raise ValueError(
            "NIC 0 is management and must be there; NICs that are named are among those of the machine"
        )
    names = (*DEFAULT_SEGMENTS, *(f"extra-{number}" for number in range(len(DEFAULT_SEGMENTS), nics)))
    addresses = (*macs, *(mac(index, number) for number in range(len(macs), nics)))
    cards = tuple(
        Nic(
            names[n],
            addresses[n],
            FIRST_NIC_SLOT + order[n],
            n not in without_carrier,
            E1000E if n in e1000e else VIRTIO,
        )
        for n in range(nics)
        if n not in missing
    )
    counts = {"sata": sata, "nvme": nvme, "usb": usb, "cd": cd}
    more = tuple(Disk(f"{bus}{n}", bus) for bus, count in counts.items() for n in range(count))
    return Machine(f"h{index}", cards, (*spare_disks(), *more), memory_mib, odd=True)


def qemu_arguments(
    machine: Machine, accel: Accel, boot: Path, folder: Path, *, sockets: Path, incoming: bool
) -> list[str]:
    """The QEMU command line.

    Arguments: `boot`, the folder with xen, vmlinuz and initrd.img; `folder`, the host's own, where
    root.qcow2 and the spare disks are and serial.log grows; `sockets`, where qmp and qga come to be;
    `incoming`: wait for a saved state instead of booting. Taps are named by `tap_name` and exist already.
    """
    for_xen, for_linux = ADDED[accel.kind]
    xen = f"{XEN_ARGUMENTS} {for_xen} dom0_mem={machine.dom0_mib}M,max:{machine.dom0_mib}M"
    management = machine.nics[0]
    linux = (
        f"{LINUX_ARGUMENTS} {for_linux} lab.name={machine.name} lab.mac={management.mac}"
        f" lab.address={machine.address}/{SUBNET.prefixlen} lab.gateway={GATEWAY}"
    )
    words = [
        "qemu-system-x86_64",
        "-name",
        machine.name,
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
    ]
    words += ["-machine", "q35", "-accel", accel.option, "-cpu", CPU_MODELS[accel.kind], "-smp", f"{VCPUS}"]
    words += ["-m", str(machine.memory_mib), "-uuid", str(machine.uuid), "-rtc", "base=utc"]
    words += ["-chardev", f"file,id=serial,path={folder}/serial.log,append=on", "-serial", "chardev:serial"]
    words += ["-chardev", f"socket,id=qmp,path={sockets}/qmp,server=on,wait=off", "-mon", "qmp,mode=control"]
    words += [
        "-kernel",
        f"{boot}/xen",
        "-append",
        xen,
        "-initrd",
        f"{boot}/vmlinuz {linux},{boot}/initrd.img",
    ]
    words += ["-device", "virtio-rng-pci,addr=0x1c", "-device", "virtio-serial-pci,addr=0x1d"]
    words += ["-chardev", f"socket,id=qga,path={sockets}/qga,server=on,wait=off"]
    words += ["-device", "virtserialport,chardev=qga,name=org.qemu.guest_agent.0"]
    words += ["-blockdev", _qcow2("root", folder), "-device", "virtio-blk-pci,drive=root,addr=0x1b"]
    words += ["-device", "virtio-scsi-pci,id=scsi,addr=0x1a"]
    words += (
        ["-device", "nec-usb-xhci,id=usb,addr=0x19"] if any(d.bus == "usb" for d in machine.disks) else []
    )
    for disk in machine.disks:
        device = ",".join(f"{key}={value}" for key, value in disk_options(machine, disk).items())
        words += ["-blockdev", _qcow2(disk.name, folder), "-device", device.removeprefix("driver=")]
    for number, nic in enumerate(machine.nics):
        tap = f"tap,id={nic.id},ifname={tap_name(machine.name, number)},script=no,downscript=no,vhost=off"
        words += ["-netdev", tap, "-device", _nic_device(nic, number)]
    if incoming:
        words += ["-incoming", "defer"]
    return words


def disk_options(machine: Machine, disk: Disk) -> dict[str, str]:
    """The properties of a spare disk's device, `driver` first; its block node has the disk's name."""
    base = {"id": disk.name, "drive": disk.name, "serial": disk.serial}
    match disk.bus:
        case "scsi":
            return {"driver": "scsi-hd", **base, "bus": "scsi.0", "wwn": disk.wwn(machine.name)}
        case "sata":
            return {"driver": "ide-hd", **base, "wwn": disk.wwn(machine.name)}
        case "nvme":
            return {"driver": "nvme", **base}
        case "usb":
            return {"driver": "usb-storage", **base, "bus": "usb.0"}
        case "cd":
            return {"driver": "scsi-cd", **base, "bus": "scsi.0"}
        case other:
            raise ValueError(f"no disk bus {other}")


def tap_name(host: str, nic_index: int) -> str:
    return f"{host}-nic{nic_index}"


def _nic_device(nic: Nic, number: int) -> str:
    slot = nic.pci_slot if nic.pci_slot is not None else FIRST_NIC_SLOT + number
    speed = "speed=1000,duplex=full," if nic.model == VIRTIO else ""
    return f"{nic.model},id={nic.id},netdev={nic.id},mac={nic.mac},{speed}romfile=,addr={slot:#x}"


def _qcow2(name: str, folder: Path) -> str:
    return f"driver=qcow2,node-name={name},file.driver=file,file.filename={folder}/{name}.qcow2,discard=unmap"
