"""What this Xen host can do: versions, guest types, memory, processors, and whether its tools fit it.

The hypervisor is asked. Where it cannot be, the kernel's /sys/hypervisor and libvirt tell as much as they know,
and warnings say what was in the way.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hostagent.run import CommandError, run
from hostagent.xen import hypercall
from hostagent.xen.libvirt_link import LibvirtError, Link, Node
from hostagent.xen.memory import RESERVE_KIB

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hostagent.errors import HostagentError
    from hostagent.xen.hypercall import HostInfo

log = logging.getLogger(__name__)

XL_INFO_TIMEOUT_S = 10.0  # 0.3 s in an emulated dom0; works without xenstored


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What guests can run here; None when it could not be found out (of HAP only `xl` tells)."""

    pv: bool
    hvm: bool
    hap: bool | None
    iommu: bool | None


@dataclass(frozen=True, slots=True)
class HostFacts:
    """The host as an operator and XenAPI's Host record want it. Sizes in KiB, clock in kHz.

    `usable_free_kib` is what new guests may have: free and soon scrubbed, less the reserve.
    `dom0_mem_fixed`: dom0's size is given on the Xen command line, so that xl does not shrink it by itself.
    `binding` is the file through which the hypervisor was asked. It is None, as is all that is not known, when
    the hypervisor could not be asked; `warnings` say why then.
    """

    version: str | None
    changeset: str | None
    compiler: str | None
    compile_date: str | None
    commandline: str | None
    capabilities: Capabilities
    guest_types: tuple[str, ...]
    cpus: int | None
    sockets: int | None
    cores_per_socket: int | None
    threads_per_core: int | None
    numa_nodes: int | None
    cpu_khz: int | None
    hw_caps: str | None
    total_kib: int | None
    free_kib: int | None
    scrub_kib: int | None
    usable_free_kib: int | None
    dom0_mem_fixed: bool | None
    binding: str | None
    warnings: tuple[str, ...] = ()


def gather(root: Path = hypercall.ROOT, *, link: Callable[[], Link] = Link) -> HostFacts:
    """Ask the hypervisor, else libvirt and the kernel. Raises hypercall.BindingError when there is no Xen."""
    try:
        host = hypercall.host()
        binding = str(hypercall.binding_path(root))
    except (hypercall.BindingError, hypercall.RefusedError) as error:
        if hypercall.hypervisor_version(root) is None:
            raise
        return _second_hand(root, link, error)
    hap = _hap() if "hvm" in host.capabilities else False
    return host_facts(host, hap=hap, binding=binding)


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


def second_hand(root: Path, node: Node | None, warnings: tuple[str, ...]) -> HostFacts:
    """What /sys/hypervisor (kernel document ABI/stable/sysfs-hypervisor-xen) and libvirt know."""
    version = [_sys(root, f"version/{name}") for name in ("major", "minor", "extra")]
    guest_types = tuple((_sys(root, "properties/capabilities") or "").split())
    return HostFacts(
        version=f"{version[0]}.{version[1]}{version[2] or ''}",
        changeset=_sys(root, "properties/changeset"),
        compiler=_sys(root, "compilation/compiler"),
        compile_date=_sys(root, "compilation/compile_date"),
        commandline=None,
        capabilities=Capabilities(
            pv=any(name.startswith("xen-") for name in guest_types),
            hvm=any(name.startswith("hvm-") for name in guest_types),
            hap=None,
            iommu=None,
        ),
        guest_types=guest_types,
        cpus=node.cpus if node else None,
        sockets=node.sockets if node else None,
        cores_per_socket=node.cores_per_socket if node else None,
        threads_per_core=node.threads_per_core if node else None,
        numa_nodes=node.numa_nodes if node else None,
        cpu_khz=node.cpu_khz if node else None,
        hw_caps=None,
        total_kib=node.total_kib if node else None,
        free_kib=node.free_kib if node else None,
        scrub_kib=None,
        usable_free_kib=max(0, node.free_kib - RESERVE_KIB) if node else None,
        dom0_mem_fixed=None,
        binding=None,
        warnings=warnings,
    )


def _second_hand(root: Path, link: Callable[[], Link], cause: HostagentError) -> HostFacts:
    warning = f"{cause.found} ({cause.hint}); libvirt and the kernel were asked instead, which know less"
    try:
        with link() as opened:
            node = opened.node()
    except LibvirtError as error:
        return second_hand(root, None, (warning, f"{error.found} ({error.hint})"))
    return second_hand(root, node, (warning,))


def _sys(root: Path, name: str) -> str | None:
    """A value of /sys/hypervisor, None when absent or hidden."""
    try:
        text = (root / "sys/hypervisor" / name).read_text(errors="replace").strip()
    except OSError:
        return None
    return None if text == "<denied>" else text


def _hap() -> bool | None:
    """Whether the processor has hardware-assisted paging: the C binding knows HVM, only libxl knows HAP."""
    try:
        finished = run(("xl", "info"), timeout_s=XL_INFO_TIMEOUT_S, package="xen-utils-common")
    except CommandError as error:
        log.warning("whether there is HAP is not known: %s", error)
        return None
    lines = (line.partition(":") for line in finished.stdout.splitlines())
    return any(key.strip() == "virt_caps" and "hap" in value.split() for key, _, value in lines)
