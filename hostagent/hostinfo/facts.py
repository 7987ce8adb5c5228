"""Everything that the records of this host are made of, as one value, and the function that finds it all out.

Sizes are in bytes here, as in XenAPI. `records` turns the value into fields.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from hostagent.errors import HostagentError
from hostagent.hostinfo import address, system
from hostagent.hostinfo.system import System
from hostagent.xen import hypercall
from hostagent.xen.featureset import Featuresets

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from hostagent.xen.facts import HostFacts
    from hostagent.xen.inventory import Inventory

KIB = 1024
LOADER = "pygrub"
PV, PVH = "pv", "pvh"
PRODUCT_KEYS = {
    "OEM_MANUFACTURER": "oem_manufacturer",
    "OEM_MODEL": "oem_model",
    "OEM_BUILD_NUMBER": "oem_build_number",
    "MACHINE_SERIAL_NUMBER": "machine_serial_number",
    "MACHINE_SERIAL_NAME": "machine_serial_name",
}
"""Key of the inventory → key of host.software_version (startup-and-pool-join.md 2.1)."""


@dataclass(frozen=True, slots=True)
class Memory:
    """The machine's memory and dom0's, in bytes; 0 where nobody could tell.

    `boot_free` is what was free when only dom0 ran, `overhead` what Xen keeps plus the reserve that guests never get
    (startup-and-pool-join.md 5.4). `estimate`: guests ran when these two were looked at, so they are not exact.
    """

    total: int = 0
    free: int = 0
    boot_free: int = 0
    overhead: int = 0
    dom0: int = 0
    estimate: bool = True


@dataclass(frozen=True, slots=True)
class Dom0:
    """dom0 as the hypervisor has it; `domain_type` is a value of XenAPI's enum."""

    vcpus: int = 0
    domain_type: str = PV


@dataclass(frozen=True, slots=True)
class Facts:
    """This host. `agent_start` is in seconds since 1970. `address` is that of the management interface, empty while
    there is none. `xen` is None on a kernel that does not run on Xen. `extra_versions` go into software_version.
    `warnings` say what is missing here, and why.
    """

    host_uuid: str
    dom0_uuid: str
    build_number: str
    agent_start: int
    system: System = field(default_factory=System)
    address: str = ""
    xen: HostFacts | None = None
    scheduler: str = ""
    loaders: tuple[str, ...] = ()
    features: Featuresets = field(default_factory=Featuresets)
    memory: Memory = field(default_factory=Memory)
    dom0: Dom0 = field(default_factory=Dom0)
    extra_versions: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    warnings: tuple[str, ...] = ()


def gather(root: Path, inventory: Inventory, *, agent_start: int, run_dir: Path | None = None) -> Facts:
    """Read the system's files and ask the hypervisor. What cannot be found out is left empty, with a warning.

    Raises nothing: a kernel without Xen gives the facts of a plain machine.
    """
    from hostagent.xen import facts, featureset

    found = system.read(root)
    warnings: list[str] = []
    xen: HostFacts | None = None
    try:
        xen = facts.gather(root)
        warnings += xen.warnings
    except HostagentError as error:
        warnings.append(f"{error.found} ({error.hint})")
    scheduler, dom0, memory = "", Dom0(found.processors.count), Memory(dom0=found.memory_kib * KIB)
    if xen is not None:
        memory = second_hand_memory(xen, found)
        if xen.binding is not None:
            try:
                scheduler, dom0, memory = _of_hypervisor(root, run_dir)
            except HostagentError as error:
                warnings.append(f"{error.found} ({error.hint})")
    return Facts(
        host_uuid=inventory.installation_uuid,
        dom0_uuid=inventory.control_domain_uuid,
        build_number=inventory.build_number,
        agent_start=agent_start,
        system=found,
        address=address.of_interface(inventory.management_interface, inventory.management_address_type.value),
        xen=xen,
        scheduler=scheduler,
        loaders=loaders(root),
        features=featureset.read(root),
        memory=memory,
        dom0=dom0,
        extra_versions={
            key: system.clean(inventory.values[name])
            for name, key in PRODUCT_KEYS.items()
            if inventory.values.get(name)
        },
        warnings=tuple(warnings),
    )


def _of_hypervisor(root: Path, run_dir: Path | None) -> tuple[str, Dom0, Memory]:
    """Scheduler, dom0 and memory. Raises BindingError, RefusedError, OperatorError (no balloon driver)."""
    from hostagent.xen import balloon
    from hostagent.xen.memory import host_memory

    listed = hypercall.domains()
    guests_kib = sum(one.mem_kib for one in listed if one.domid != 0)
    now = balloon.snapshot(None, root=root, run_dir=run_dir)
    machine = host_memory(now, guests_kib=guests_kib)
    dom0 = next(one for one in listed if one.domid == 0)
    return (
        hypercall.scheduler(),
        Dom0(dom0.online_vcpus, PVH if dom0.hvm else PV),
        Memory(
            total=machine.total_kib * KIB,
            free=(now.free_kib + now.scrub_kib) * KIB,
            boot_free=machine.boot_free_kib * KIB,
            overhead=machine.overhead_kib * KIB,
            dom0=now.dom0_kib * KIB,
            estimate=machine.estimate,
        ),
    )


def as_at_boot(found: Memory, boot_free: int) -> Memory:
    """With what was free when it was first looked at in this boot, in bytes: guests may run by now. Where the
    hypervisor could not be asked nothing is known of it.
    """
    from hostagent.xen.memory import RESERVE_KIB

    if not found.boot_free:
        return found
    overhead = found.total - boot_free + RESERVE_KIB * KIB
    return replace(found, boot_free=boot_free, overhead=overhead, estimate=False)


def second_hand_memory(xen: HostFacts, found: System) -> Memory:
    """What is known of memory when the hypervisor itself could not be asked: dom0's size is what its kernel has."""
    return Memory(
        total=(xen.total_kib or 0) * KIB,
        free=((xen.free_kib or 0) + (xen.scrub_kib or 0)) * KIB,
        dom0=found.memory_kib * KIB,
    )


def loaders(root: Path) -> tuple[str, ...]:
    """The boot loaders for paravirtualised guests that the tools of the running Xen bring."""
    version = hypercall.hypervisor_version(root)
    if version is None:
        return ()
    present = (root / f"usr/lib/xen-{version[0]}.{version[1]}/bin/{LOADER}").is_file()
    return (LOADER,) if present else ()
