"""What this Xen host can do: versions, guest types, memory, processors, and whether its tools fit it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hostagent.run import CommandError, run
from hostagent.xen import hypercall
from hostagent.xen.memory import RESERVE_KIB

if TYPE_CHECKING:
    from pathlib import Path

    from hostagent.xen.hypercall import HostInfo

log = logging.getLogger(__name__)

XL_INFO_TIMEOUT_S = 10.0  # 0.3 s in an emulated dom0; works without xenstored


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What guests can run here. `hap` is None when it could not be found out (only `xl` tells it)."""

    pv: bool
    hvm: bool
    hap: bool | None
    iommu: bool


@dataclass(frozen=True, slots=True)
class HostFacts:
    """The host as an operator and XenAPI's Host record want it. Sizes in KiB, clock in kHz.

    `usable_free_kib` is what new guests may have: free and soon scrubbed, less the reserve.
    `dom0_mem_fixed`: dom0's size is given on the Xen command line, so that xl does not shrink it by itself.
    """

    version: str
    changeset: str
    compiler: str
    compile_date: str
    commandline: str
    capabilities: Capabilities
    guest_types: tuple[str, ...]
    cpus: int
    sockets: int
    cores_per_socket: int
    threads_per_core: int
    numa_nodes: int
    cpu_khz: int
    hw_caps: str
    total_kib: int
    free_kib: int
    scrub_kib: int
    usable_free_kib: int
    dom0_mem_fixed: bool
    binding: str


def gather(root: Path = hypercall.ROOT) -> HostFacts:
    """Ask the hypervisor. Raises hypercall.BindingError; KernelError when the tools do not fit it."""
    host = hypercall.host()
    hap = _hap() if "hvm" in host.capabilities else False
    return host_facts(host, hap=hap, binding=str(hypercall.binding_path(root)))


def host_facts(host: HostInfo, *, hap: bool | None, binding: str) -> HostFacts:
    """The facts out of what Xen said."""
    return HostFacts(
        version=host.version,
        changeset=host.changeset,
        compiler=host.compiler,
        compile_date=host.compile_date,
        commandline=host.xen_commandline,
        capabilities=Capabilities(
            pv="pv" in host.capabilities,
            hvm="hvm" in host.capabilities,
            hap=hap,
            iommu=any(name.endswith("_directio") for name in host.capabilities),
        ),
        guest_types=host.xen_caps,
        cpus=host.nr_cpus,
        sockets=host.sockets,
        cores_per_socket=host.cores_per_socket,
        threads_per_core=host.threads_per_core,
        numa_nodes=host.nr_nodes,
        cpu_khz=host.cpu_khz,
        hw_caps=host.hw_caps,
        total_kib=host.total_kib,
        free_kib=host.free_kib,
        scrub_kib=host.scrub_kib,
        usable_free_kib=max(0, host.free_kib + host.scrub_kib - RESERVE_KIB),
        dom0_mem_fixed=any(word.startswith("dom0_mem=") for word in host.xen_commandline.split()),
        binding=binding,
    )


def _hap() -> bool | None:
    """Whether the processor has hardware-assisted paging: the C binding knows HVM, only libxl knows HAP."""
    try:
        finished = run(("xl", "info"), timeout_s=XL_INFO_TIMEOUT_S, package="xen-utils-common")
    except CommandError as error:
        log.warning("whether there is HAP is not known: %s", error)
        return None
    lines = (line.partition(":") for line in finished.stdout.splitlines())
    return any(key.strip() == "virt_caps" and "hap" in value.split() for key, _, value in lines)
