"""libvirt's view of this host: a connection to xen:///system that never hangs and survives libvirtd.

libvirtd may be absent, may exit when idle (its socket starts it again), may crash or freeze. libvirt-python
calls block in C, so each is made by a worker thread and awaited with a deadline; while a call hangs, further
ones wait for it instead of piling up. libvirt sees only domains it made itself, and keeps calling one
"running" that `xl` has paused: `hypercall` and `domains` have the truth.
"""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Future, wait
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hostagent.errors import OperatorError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

log = logging.getLogger(__name__)

T = TypeVar("T")

URI = "xen:///system"
SOCKETS = (Path("/run/libvirt/libvirt-sock"), Path("/run/libvirt/virtxend-sock"))
DEADLINE_S = 30.0  # a call that starts an idle libvirtd took 4 to 17 s on an emulated, busy host
WITHOUT_XEN = "state driver is not active"  # VIR_ERR_INTERNAL_ERROR like many others: only the text tells
NO_DOMAIN = 42  # VIR_ERR_NO_DOMAIN
STATES = {1: "running", 2: "blocked", 3: "paused", 4: "shutdown", 5: "shutoff", 6: "crashed", 7: "suspended"}


class LibvirtError(OperatorError):
    """libvirt cannot be asked now: not installed, not running, frozen, or it refused."""


@dataclass(frozen=True, slots=True)
class ManagedDomain:
    """A domain as libvirt has it; `domid` None when it is defined but not running. dom0 is among them."""

    name: str
    uuid: str
    domid: int | None
    state: str
    persistent: bool
    memory_kib: int
    maxmem_kib: int
    vcpus: int
    cpu_time_ns: int
    hvm: bool


@dataclass(frozen=True, slots=True)
class Node:
    """The machine as libvirt has it; memory in KiB but exact to the MiB only, clock in kHz."""

    total_kib: int
    free_kib: int
    cpus: int
    cpu_khz: int
    numa_nodes: int
    sockets: int
    cores_per_socket: int
    threads_per_core: int


class Link:
    """One connection to libvirtd, opened at the first call and again after it went away. A context manager.

    May be shared by threads; calls take turns.
    """

    def __init__(
        self,
        *,
        uri: str = URI,
        sockets: tuple[Path, ...] = SOCKETS,
        deadline_s: float = DEADLINE_S,
        library: Any = None,
    ) -> None:
        self._uri = uri
        self._sockets = sockets
        self._deadline_s = deadline_s
        self._library = library
        self._connection: Any = None
        self._turn = threading.Lock()
        self._hanging: Future[Any] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def domains(self) -> tuple[ManagedDomain, ...]:
        """Every domain libvirt knows, running or only defined, by name. Raises LibvirtError."""
        return self._call("list domains", self._list_domains)

    def node(self) -> Node:
        """The machine: processors and memory. Raises LibvirtError."""
        return self._call("describe the machine", _node)

    def version(self) -> str:
        """The version of libvirt's library in the daemon, "9.0.0". Raises LibvirtError."""
        number: int = self._call("ask for the version", lambda connection: connection.getLibVersion())
        return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"

    def close(self) -> None:
        """Let the connection go; the next call opens a new one."""
        with self._turn:
            connection, self._connection = self._connection, None
            if connection is not None and self._hanging is None:
                self._await("close", lambda: connection.close(), 1.0)

    def _call(self, doing: str, verb: Callable[[Any], T]) -> T:
        """Do it over the open connection; once more over a new one if libvirtd had gone away."""
        with self._turn:
            library = self._import()
            reused = self._connection is not None
            try:
                return self._attempt(library, doing, verb)
            except library.libvirtError as error:
                alive = self._is_alive()
                self._connection = None
                if not reused or alive:
                    raise _failure(doing, error) from error
                log.info("libvirtd went away (%s): connecting again", error)
            try:
                return self._attempt(library, doing, verb)
            except library.libvirtError as error:
                self._connection = None
                raise _failure(doing, error) from error

    def _attempt(self, library: Any, doing: str, verb: Callable[[Any], T]) -> T:
        if self._connection is None:
            if not any(path.exists() for path in self._sockets):
                raise LibvirtError(
                    f"libvirtd is not running: there is no {self._sockets[0]}",
                    hint="systemctl start libvirtd.socket (package libvirt-daemon-system)",
                )
            self._connection = self._await("connect", lambda: library.open(self._uri), self._deadline_s)
        return self._await(doing, lambda: verb(self._connection), self._deadline_s)

    def _is_alive(self) -> bool:
        """Whether the connection still stands after an error; asks the library only, not libvirtd."""
        connection = self._connection
        return connection is not None and connection.isAlive() == 1

    def _await(self, doing: str, work: Callable[[], T], deadline_s: float) -> T:
        if self._hanging is not None and not wait([self._hanging], deadline_s).done:
            raise LibvirtError(
                f"libvirtd has still not answered an earlier call, so it was not asked to {doing}",
                hint="systemctl restart libvirtd (guests keep running)",
            )
        self._hanging = None
        future: Future[T] = Future()
        threading.Thread(
            target=_fulfil, args=(future, work, self._library.libvirtError), name="libvirt", daemon=True
        ).start()
        try:
            return future.result(deadline_s)
        except FutureTimeout as error:
            self._hanging = future
            self._connection = None
            raise LibvirtError(
                f"libvirtd did not answer within {deadline_s:g} s (asked to {doing})",
                hint="systemctl restart libvirtd (guests keep running)",
            ) from error

    def _list_domains(self, connection: Any) -> tuple[ManagedDomain, ...]:
        managed = []
        for domain in connection.listAllDomains():
            try:
                managed.append(_managed(domain))
            except self._library.libvirtError as error:
                if error.get_error_code() != NO_DOMAIN:  # else it has ended since it was listed
                    raise
        return tuple(sorted(managed, key=lambda domain: domain.name))

    def _import(self) -> Any:
        if self._library is None:
            try:
                import libvirt
            except ImportError as error:
                raise LibvirtError(
                    f"libvirt-python cannot be loaded: {error}", hint="apt-get install python3-libvirt"
                ) from error
            libvirt.registerErrorHandler(_keep_quiet, None)
            self._library = libvirt
        return self._library


def _node(connection: Any) -> Node:
    """virNodeInfo (MiB and MHz in Python; sockets are those of one NUMA node) and the free memory in bytes."""
    _model, memory_mib, cpus, mhz, nodes, sockets, cores, threads = connection.getInfo()
    return Node(
        total_kib=memory_mib * 1024,
        free_kib=connection.getFreeMemory() // 1024,
        cpus=cpus,
        cpu_khz=mhz * 1000,
        numa_nodes=nodes,
        sockets=sockets * nodes,
        cores_per_socket=cores,
        threads_per_core=threads,
    )


def _managed(domain: Any) -> ManagedDomain:
    state, maxmem_kib, memory_kib, vcpus, cpu_time_ns = domain.info()
    return ManagedDomain(
        name=domain.name(),
        uuid=domain.UUIDString(),
        domid=domain.ID() if domain.ID() >= 0 else None,
        state=STATES.get(state, "unknown"),
        persistent=bool(domain.isPersistent()),
        memory_kib=memory_kib,
        maxmem_kib=maxmem_kib,
        vcpus=vcpus,
        cpu_time_ns=cpu_time_ns,
        hvm=domain.OSType() == "hvm",
    )


def _fulfil(future: Future[T], work: Callable[[], T], library_error: type[Exception]) -> None:
    """The worker: hands what the call returned, or libvirt's error, to the one who waits."""
    try:
        future.set_result(work())
    except library_error as error:
        future.set_exception(error)
    finally:
        future.cancel()


def _keep_quiet(_context: object, _error: object) -> None:
    """Errors arrive as exceptions; the library would print each to stderr as well."""


def _failure(doing: str, error: Exception) -> LibvirtError:
    if WITHOUT_XEN in str(error):
        return LibvirtError(
            f"libvirtd runs without its Xen driver: {error}",
            hint="systemctl restart libvirtd: it was started before xenstored (guests keep running)",
        )
    return LibvirtError(
        f"libvirtd could not {doing}: {error}",
        hint="see `systemctl status libvirtd` and `journalctl -u libvirtd`",
    )
