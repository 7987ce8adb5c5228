"""The domains of this host: the hypervisor's records, joined with names and with who manages each.

The hypervisor is the source of truth: it sees what xl, libvirt and anybody else made, paused or killed.
xenstore adds the name, libxl's private files tell the toolstack. Without xenstored everything but names is
there; without the hypervisor's binding libvirt is asked, and the listing says what that leaves out.
"""

from __future__ import annotations

import enum
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from hostagent.xen import hypercall
from hostagent.xen.libvirt_link import LibvirtError, Link
from hostagent.xen.xenstore_errors import XenstoreDeadline, XenstoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from hostagent.xen.hypercall import DomainInfo
    from hostagent.xen.libvirt_link import ManagedDomain

log = logging.getLogger(__name__)

USERDATA = "var/lib/xen"
"""Where libxl keeps `userdata-d.DOMID.UUID.KIND` of each domain made through it."""


class PowerState(enum.Enum):
    """XenAPI VM.power_state, spelled as there."""

    RUNNING = "Running"
    PAUSED = "Paused"
    HALTED = "Halted"
    SUSPENDED = "Suspended"


class Manager(enum.Enum):
    """Who made a domain and looks after it."""

    XEN = "xen"
    """dom0 itself, made by the hypervisor at boot."""
    XL = "xl"
    """xl, or another program straight over libxl."""
    LIBVIRT = "libvirt"
    UNKNOWN = "unknown"
    """Not made through libxl, or libxl's files are gone."""


class Reason(enum.IntEnum):
    """Why a domain shut down (SHUTDOWN_* in xen/include/public/sched.h)."""

    POWEROFF = 0
    REBOOT = 1
    SUSPEND = 2
    CRASH = 3
    WATCHDOG = 4
    SOFT_RESET = 5


ENDINGS: dict[int, tuple[PowerState, str]] = {
    Reason.POWEROFF: (PowerState.HALTED, "powered off, being cleaned up"),
    Reason.REBOOT: (PowerState.RUNNING, "reboot pending"),
    Reason.SUSPEND: (PowerState.SUSPENDED, "suspending"),
    Reason.CRASH: (PowerState.HALTED, "crashed"),
    Reason.WATCHDOG: (PowerState.HALTED, "ended by its watchdog"),
    Reason.SOFT_RESET: (PowerState.RUNNING, "soft reset"),
}
"""Shutdown reason -> power state and what to tell (storage-memory-xenstore 3.3)."""


LIBVIRT_STATES = {
    "paused": PowerState.PAUSED,
    "suspended": PowerState.SUSPENDED,
    "shutoff": PowerState.HALTED,
    "crashed": PowerState.HALTED,
}
"""libvirt's word -> power state; every other word means Running."""


class Names(Protocol):
    """What is needed of `xenstore.Xenstore`."""

    def read_many(self, paths: Iterable[str]) -> dict[str, bytes | None]: ...


@dataclass(frozen=True, slots=True)
class Domain:
    """One domain. `name` is None when xenstore has none or cannot be asked; `note` says what is unusual."""

    domid: int
    name: str | None
    uuid: str
    power_state: PowerState
    manager: Manager
    memory_kib: int
    maxmem_kib: int
    vcpus: int
    cpu_time_ns: int
    hvm: bool
    dying: bool
    note: str


@dataclass(frozen=True, slots=True)
class Listing:
    """All domains by domid, and what could not be found out (empty: nothing)."""

    domains: tuple[Domain, ...]
    warnings: tuple[str, ...]


def list_domains(store: Names | None, *, root: Path = hypercall.ROOT) -> Listing:
    """Every domain of this host; with `store` None, or one that does not answer, without names.

    Raises hypercall.BindingError or RefusedError when the hypervisor cannot be asked and libvirt cannot either.
    """
    try:
        records = hypercall.domains()
    except (hypercall.BindingError, hypercall.RefusedError) as error:
        return _by_libvirt(error)
    names, warnings = _names(store, [record.domid for record in records])
    return Listing(join(records, names, managers(root)), warnings)


def join(
    records: Iterable[DomainInfo], names: dict[int, str], known: dict[tuple[int, str], Manager]
) -> tuple[Domain, ...]:
    """Records with their names (by domid) and managers (by domid and uuid, since domids are used again)."""
    return tuple(_domain(record, names.get(record.domid), known) for record in records)


def power_state(record: DomainInfo) -> tuple[PowerState, str]:
    """The XenAPI power state, and what is unusual about it ("" if nothing).

    A dying domain counts as halted: what it was before, the hypervisor no longer knows.
    """
    if record.dying:
        return PowerState.HALTED, "dying: its memory is not all free yet"
    if record.shutdown:
        reason = record.shutdown_reason
        unknown = (PowerState.HALTED, f"shut down for reason {reason}")
        return ENDINGS.get(Reason.POWEROFF if reason is None else reason, unknown)
    return (PowerState.PAUSED, "") if record.paused else (PowerState.RUNNING, "")


def managers(root: Path = hypercall.ROOT) -> dict[tuple[int, str], Manager]:
    """(domid, uuid) -> who made it, by the files libxl and libvirt keep while it lives.

    Both leave a libxl-json; only libvirt leaves its own XML beside it (seen with libvirt 9.0 and 11.3).
    """
    found: dict[tuple[int, str], Manager] = {}
    for path in sorted((root / USERDATA).glob("userdata-d.*.*.*")):
        _, domid, uuid, kind = path.name.split(".", 3)
        if not domid.isdigit():
            continue
        if kind == "libvirt-xml":
            found[int(domid), uuid] = Manager.LIBVIRT
        elif kind == "libxl-json":
            found.setdefault((int(domid), uuid), Manager.XL)
    return found


def of_libvirt(managed: ManagedDomain) -> Domain:
    """A running domain as libvirt has it, where the hypervisor cannot be asked."""
    return Domain(
        domid=-1 if managed.domid is None else managed.domid,
        name=managed.name,
        uuid=managed.uuid,
        power_state=LIBVIRT_STATES.get(managed.state, PowerState.RUNNING),
        manager=Manager.XEN if managed.domid == 0 else Manager.LIBVIRT,
        memory_kib=managed.memory_kib,
        maxmem_kib=managed.maxmem_kib,
        vcpus=managed.vcpus,
        cpu_time_ns=managed.cpu_time_ns,
        hvm=managed.hvm,
        dying=False,
        note="as libvirt says",
    )


def _by_libvirt(cause: hypercall.BindingError | hypercall.RefusedError) -> Listing:
    try:
        with Link() as link:
            managed = link.domains()
    except LibvirtError:
        raise cause from None
    warning = f"{cause.found} ({cause.hint}); libvirt was asked instead, which does not see what xl does"
    return Listing(tuple(of_libvirt(domain) for domain in managed if domain.domid is not None), (warning,))


def _domain(record: DomainInfo, name: str | None, known: dict[tuple[int, str], Manager]) -> Domain:
    state, note = power_state(record)
    manager = Manager.XEN if record.domid == 0 else known.get((record.domid, record.handle), Manager.UNKNOWN)
    return Domain(
        domid=record.domid,
        name=name,
        uuid=record.handle,
        power_state=state,
        manager=manager,
        memory_kib=record.mem_kib,
        maxmem_kib=record.maxmem_kib,
        vcpus=record.online_vcpus,
        cpu_time_ns=record.cpu_time_ns,
        hvm=record.hvm,
        dying=record.dying,
        note=note,
    )


def _names(store: Names | None, domids: list[int]) -> tuple[dict[int, str], tuple[str, ...]]:
    if store is None:
        return {}, ("names are not known: xenstored does not answer",)
    paths = {f"/local/domain/{domid}/name": domid for domid in domids}
    try:
        values = store.read_many(paths)
    except (XenstoreUnavailable, XenstoreDeadline) as error:
        return {}, (f"names are not known: {error.found}",)
    return {
        paths[path]: value.decode("utf-8", "backslashreplace") for path, value in values.items() if value
    }, ()
