"""What the hypervisor itself says: a thin, typed face of `xen.lowlevel.xc`, and the only user of it.

The C binding comes with Debian's xen-utils-X.Y, outside the default import path, and belongs to one Xen
version and one Python version; the one of the *running* Xen is taken, by /sys/hypervisor/version. Hypercalls
need no xenstored and no libvirtd: everything here works, and returns at once, when both are dead.
"""

from __future__ import annotations

import functools
import importlib.machinery
import importlib.util
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from hostagent.errors import KernelError, OperatorError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path("/")
SCHEDULERS = {5: "credit", 6: "credit2", 7: "arinc653", 8: "rtds", 9: "null"}
"""XEN_SCHEDULER_* of xen/include/public/domctl.h → its name on the Xen command line."""
PAGE_DOMAINS = 256  # domains asked for per hypercall; any number works, the list goes on while a page is full
ESRCH = 3


class BindingError(OperatorError):
    """The hypervisor cannot be asked from here: no Xen, not dom0, package missing or of another version."""


class RefusedError(KernelError):
    """The hypervisor refused a call, as it does to tools of another version."""


class NoSuchDomainError(KernelError):
    """There is no domain with this domid now."""


@dataclass(frozen=True, slots=True)
class DomainInfo:
    """One domain as the hypervisor has it. `handle` is its uuid (all zeros for dom0 on Debian).

    `maxmem_kib` is the ceiling Xen enforces; a domain without one shows 16 TiB less one page.
    `shutdown_reason` is a SHUTDOWN_* number of xen/include/public/sched.h, None while it is not shut down.
    """

    domid: int
    handle: str
    online_vcpus: int
    mem_kib: int
    maxmem_kib: int
    cpu_time_ns: int
    running: bool
    paused: bool
    blocked: bool
    shutdown: bool
    crashed: bool
    dying: bool
    shutdown_reason: int | None
    hvm: bool


@dataclass(frozen=True, slots=True)
class HostInfo:
    """The machine and its Xen, as Xen has them. Free memory that waits for scrubbing is not in `free_kib`.

    `xen_caps` are the guest types of the build ("xen-3.0-x86_64", "hvm-3.0-x86_32p", …), `capabilities` what
    the processor offers besides ("pv", "hvm", "hvm_directio", …).
    """

    total_kib: int
    free_kib: int
    scrub_kib: int
    nr_cpus: int
    nr_nodes: int
    threads_per_core: int
    cores_per_socket: int
    sockets: int
    cpu_khz: int
    hw_caps: str
    version: str
    changeset: str
    compiler: str
    compile_date: str
    xen_caps: tuple[str, ...]
    capabilities: tuple[str, ...]
    xen_commandline: str


class Binding(Protocol):
    """The calls of `xen.lowlevel.xc.xc` that are used here."""

    def domain_getinfo(self, first_dom: int, max_doms: int) -> Sequence[Mapping[str, object]]: ...

    def domain_setmaxmem(self, dom: int, maxmem_kb: int) -> int: ...

    def physinfo(self) -> Mapping[str, object]: ...

    def sched_id_get(self) -> int: ...

    def xeninfo(self) -> Mapping[str, object]: ...


def is_dom0(root: Path = ROOT) -> bool:
    """Whether this system is the control domain; systemd-detect-virt cannot tell when Xen is nested."""
    try:
        return "control_d" in (root / "proc/xen/capabilities").read_text().split()
    except OSError:
        return False


def hypervisor_version(root: Path = ROOT) -> tuple[int, int] | None:
    """Major and minor number of the running Xen; None when this kernel does not run on Xen."""
    directory = root / "sys/hypervisor"
    try:
        if (directory / "type").read_text().strip() != "xen":
            return None
        major, minor = ((directory / "version" / name).read_text() for name in ("major", "minor"))
        return int(major), int(minor)
    except (OSError, ValueError):
        return None


def binding_path(
    root: Path = ROOT, *, suffixes: Sequence[str] = importlib.machinery.EXTENSION_SUFFIXES
) -> Path:
    """The file of the binding that belongs to the running Xen and this Python.

    Raises BindingError: no Xen, package missing, or built for another Python.
    """
    version = hypervisor_version(root)
    if version is None:
        raise BindingError(
            "this system does not run on Xen",
            hint="boot the Xen entry of the boot loader (package xen-system-amd64)",
        )
    package = f"xen-utils-{version[0]}.{version[1]}"
    directory = root / f"usr/lib/xen-{version[0]}.{version[1]}/lib/python/xen/lowlevel"
    for suffix in suffixes:
        if (path := directory / f"xc{suffix}").is_file():
            return path
    present = sorted(path.name for path in directory.glob("xc.*.so"))
    if present:
        raise BindingError(
            f"{directory} holds {', '.join(present)}, made for another Python than this one ({suffixes[0]})",
            hint="hostagent must run on the distribution's own python3: install it again",
        )
    raise BindingError(
        f"{package}, the tools of the running Xen, is not installed: {directory} has no xc binding",
        hint=f"apt-get install {package}; if Xen was just upgraded, reboot into the new one",
    )


def domains() -> list[DomainInfo]:
    """Every domain the hypervisor has, dom0 first, by domid; in pages, so that the number has no limit.

    Raises BindingError, RefusedError.
    """
    found: list[DomainInfo] = []
    first = 0
    while True:
        page = _page(first, PAGE_DOMAINS)
        found += page
        if len(page) < PAGE_DOMAINS:
            return found
        first = page[-1].domid + 1


def domain(domid: int) -> DomainInfo:
    """One domain. Raises NoSuchDomainError."""
    page = _page(domid, 1)
    if not page or page[0].domid != domid:
        raise NoSuchDomainError(f"there is no domain {domid}", hint="`hostagent xen domains` lists them")
    return page[0]


def host() -> HostInfo:
    """The machine and its Xen now. Raises BindingError, RefusedError."""
    binding = _binding()
    try:
        return host_info(binding.physinfo(), binding.xeninfo())
    except RuntimeError as error:
        raise _failure("physinfo", error) from error


def scheduler() -> str:
    """The name of Xen's scheduler. Raises BindingError, RefusedError."""
    try:
        number = _binding().sched_id_get()
    except RuntimeError as error:
        raise _failure("sched_id_get", error) from error
    return SCHEDULERS.get(number, str(number))


def set_ceiling(domid: int, maxmem_kib: int) -> None:
    """Let Xen give the domain at most this much memory; what it has already stays with it.

    Raises NoSuchDomainError, KernelError.
    """
    try:
        _binding().domain_setmaxmem(domid, maxmem_kib)
    except RuntimeError as error:
        if _errno(error) == ESRCH:
            raise NoSuchDomainError(f"there is no domain {domid}", hint="it may have ended") from error
        raise _failure("domain_setmaxmem", error) from error


def domain_info(record: Mapping[str, object]) -> DomainInfo:
    """A record of `domain_getinfo` (KiB, ns, 255 for "no reason", 16 handle bytes) as a value."""
    shutdown = bool(record["shutdown"])
    return DomainInfo(
        domid=_int(record, "domid"),
        handle=str(uuid.UUID(bytes=bytes(cast("list[int]", record["handle"])))),
        online_vcpus=_int(record, "online_vcpus"),
        mem_kib=_int(record, "mem_kb"),
        maxmem_kib=_int(record, "maxmem_kb"),
        cpu_time_ns=_int(record, "cpu_time"),
        running=bool(record["running"]),
        paused=bool(record["paused"]),
        blocked=bool(record["blocked"]),
        shutdown=shutdown,
        crashed=bool(record["crashed"]),
        dying=bool(record["dying"]),
        shutdown_reason=_int(record, "shutdown_reason") if shutdown else None,
        hvm=bool(record["hvm"]),
    )


def host_info(physical: Mapping[str, object], xen: Mapping[str, object]) -> HostInfo:
    """The records of `physinfo` (KiB, kHz) and `xeninfo` as one value."""
    cpus = _int(physical, "nr_cpus")
    per_socket = _int(physical, "threads_per_core") * _int(physical, "cores_per_socket")
    return HostInfo(
        total_kib=_int(physical, "total_memory"),
        free_kib=_int(physical, "free_memory"),
        scrub_kib=_int(physical, "scrub_memory"),
        nr_cpus=cpus,
        nr_nodes=_int(physical, "nr_nodes"),
        threads_per_core=_int(physical, "threads_per_core"),
        cores_per_socket=_int(physical, "cores_per_socket"),
        sockets=max(1, cpus // max(1, per_socket)),
        cpu_khz=_int(physical, "cpu_khz"),
        hw_caps=str(physical["hw_caps"]),
        version=f"{xen['xen_major']}.{xen['xen_minor']}{xen['xen_extra']}",
        changeset=str(xen["xen_changeset"]),
        compiler=str(xen["cc_compiler"]),
        compile_date=str(xen["cc_compile_date"]),
        xen_caps=tuple(str(xen["xen_caps"]).split()),
        capabilities=tuple(str(physical["virt_caps"]).split()),
        xen_commandline=str(xen["xen_commandline"]),
    )


def _page(first: int, count: int) -> list[DomainInfo]:
    """Up to `count` domains from `first` on. Xen 4.20's binding ends with [], that of 4.17 raises ESRCH."""
    try:
        return [domain_info(record) for record in _binding().domain_getinfo(first, count)]
    except RuntimeError as error:
        if _errno(error) == ESRCH:
            return []
        raise _failure("domain_getinfo", error) from error


@functools.cache
def _binding() -> Binding:
    """One open handle per process. Raises BindingError."""
    path = binding_path()
    if not is_dom0():
        raise BindingError(
            "this is not dom0: /proc/xen/capabilities does not say control_d",
            hint="hostagent runs in the control domain of a Xen host",
        )
    spec = importlib.util.spec_from_file_location("xen.lowlevel.xc", path)
    if spec is None or spec.loader is None:
        raise BindingError(
            f"{path} is not a Python extension", hint="apt-get install --reinstall its package"
        )
    try:
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return cast("Binding", module.xc())
    except ImportError as error:
        raise BindingError(f"{path} could not be loaded: {error}", hint="apt-get -f install") from error
    except RuntimeError as error:
        raise BindingError(f"the hypervisor cannot be reached: {error}", hint="run as root") from error


def _int(record: Mapping[str, object], key: str) -> int:
    return cast("int", record[key])


def _errno(error: RuntimeError) -> int | None:
    """The number in the binding's own error, which derives from RuntimeError and carries (errno, text)."""
    return error.args[0] if error.args and isinstance(error.args[0], int) else None


def _failure(call: str, error: RuntimeError) -> RefusedError:
    hint = (
        "EACCES is what Xen answers to tools of another version: are xen-utils and the running Xen the same?"
        if _errno(error) == 13
        else "`xl dmesg` may say why"
    )
    return RefusedError(f"hypercall {call} failed: {error}", hint=hint)
