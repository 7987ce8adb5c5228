"""dom0 memory, the effect: read everything, write a target, watch the balloon driver, mend a stall.

The target goes through xenstore, which the kernel obeys within milliseconds; Xen's ceiling is raised first
when it is in the way. `memory` has the arithmetic and decides what a stall means. The driver tells nobody
when it moves, so its sysfs files are polled while a change is under way, and only then.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from hostagent.errors import BusyError, KernelError, OperatorError
from hostagent.xen import hypercall, memory, xenstored
from hostagent.xen.memory import Dom0Memory, Progress, XenstoreState, mib
from hostagent.xen.xenstore_errors import XenstoreDeadline, XenstoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from hostagent.xen.hypercall import DomainInfo, HostInfo
    from hostagent.xen.memory import Observation, Plan

log = logging.getLogger(__name__)

HOME = "/local/domain/0"
TARGET = xenstored.MEMORY_TARGET
STATIC_MAX = f"{HOME}/memory/static-max"
DRIVER = xenstored.DRIVER
RUN_DIR = "run/hostagent"  # where `xenstored.remember` keeps its record, unless told otherwise
SETTLE_ROUNDS = 4
POLL_S = 0.1
TIMEOUT_S = 120.0  # an emulated, busy host moved 64 MiB in 2.5 s; a real one moves GiB per second
LARGEST_CONF_CHARS = 65536


class Store(Protocol):
    """What is needed of `xenstore.Xenstore`."""

    def read(self, path: str) -> bytes | None: ...

    def read_many(self, paths: Iterable[str]) -> dict[str, bytes | None]: ...

    def transact(self, body: Callable[[Writer], None]) -> None: ...


class Writer(Protocol):
    """What is needed of `xenstore.Transaction`."""

    def must_exist(self, path: str) -> None: ...

    def write(self, path: str, value: bytes) -> None: ...


class Hypervisor(Protocol):
    """What is needed of `hypercall`."""

    def host(self) -> HostInfo: ...

    def domain(self, domid: int) -> DomainInfo: ...

    def set_ceiling(self, domid: int, maxmem_kib: int) -> None: ...


class TargetNotReachedError(KernelError):
    """The balloon driver did not do what was asked; dom0 was left with a target equal to its size."""


class TargetOverriddenError(BusyError):
    """Somebody else set another target meanwhile; theirs was left standing."""


@dataclass(frozen=True, slots=True)
class Result:
    """What `set_target` did: the plan, everything before and after, and how it went.

    `kicks` counts wake-ups of a sleeping driver, `ceiling_kib` is Xen's ceiling if it had to be raised.
    """

    plan: Plan
    before: Dom0Memory
    after: Dom0Memory
    kicks: int
    ceiling_kib: int | None
    seconds: float

    @property
    def changed(self) -> bool:
        return bool(self.plan.changes)


def set_target(
    target_kib: int,
    store: Store,
    *,
    timeout_s: float = TIMEOUT_S,
    root: Path = hypercall.ROOT,
    run_dir: Path | None = None,
    progress: Callable[[str], None] = log.info,
) -> Result:
    """Give dom0 this much memory and wait until it has it; harmless and quick when it already does.

    `run_dir`: where the record of xenstored is, by default /run/hostagent below `root`.
    After a failure dom0's target equals its size, somebody else's target excepted: nothing moves later.

    Raises what `memory.plan` refuses with; NotEnoughMemoryError when Xen runs out of pages on the way;
    TargetNotReachedError; TargetOverriddenError; xenstore's errors.
    """
    return Balloon(store, root=root, run_dir=run_dir, progress=progress).set_target(
        target_kib, timeout_s=timeout_s
    )


def snapshot(store: Store | None, *, root: Path = hypercall.ROOT, run_dir: Path | None = None) -> Dom0Memory:
    """Everything about dom0's memory now; with `store` None, or one that does not answer, without its keys.

    Raises hypercall.BindingError, and OperatorError when the kernel has no balloon driver.
    """
    return Balloon(store, root=root, run_dir=run_dir).snapshot()


class Balloon:
    """The balloon of this dom0: its driver below `root`, its keys in `store`, its ceiling in `hypervisor`."""

    def __init__(
        self,
        store: Store | None,
        *,
        root: Path = hypercall.ROOT,
        run_dir: Path | None = None,
        hypervisor: Hypervisor = hypercall,
        progress: Callable[[str], None] = log.info,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._store = store
        self._root = root
        self._run_dir = run_dir or root / RUN_DIR
        self._hypervisor = hypervisor
        self._progress = progress
        self._clock = clock
        self._pause = pause
        self._kicks = 0
        self._raised_kib: int | None = None

    def snapshot(self) -> Dom0Memory:
        """See `snapshot`."""
        host = self._hypervisor.host()
        domain = self._hypervisor.domain(0)
        state, keys = self._keys()
        meminfo = self._meminfo()
        return Dom0Memory(
            total_kib=host.total_kib,
            free_kib=host.free_kib,
            scrub_kib=host.scrub_kib,
            dom0_kib=domain.mem_kib,
            maxmem_kib=domain.maxmem_kib,
            driver_target_kib=self._driver("target_kb"),
            driver_current_kib=self._driver("info/current_kb"),
            ballooned_kib=self._driver("info/low_kb") + self._driver("info/high_kb"),
            mem_total_kib=meminfo["MemTotal"],
            mem_available_kib=meminfo["MemAvailable"],
            xenstore_target_kib=memory.parse_key_kib(keys.get(TARGET)),
            static_max_kib=memory.parse_key_kib(keys.get(STATIC_MAX)),
            xenstore=state,
            qemus=self._count_qemus(),
            retry_count=self._driver("retry_count"),
            schedule_delay=self._driver("schedule_delay"),
            boot_id=self._text("proc/sys/kernel/random/boot_id").strip(),
            autoballoon=memory.autoballoon_conflicts(
                host.xen_commandline, self._text("etc/xen/xl.conf"), self._text("etc/libvirt/libxl.conf")
            ),
        )

    def set_target(self, target_kib: int, *, timeout_s: float = TIMEOUT_S) -> Result:
        """See `set_target`."""
        started = self._clock()
        before = self.snapshot()
        plan = memory.plan(before, target_kib)
        self.apply(plan, timeout_s=timeout_s)
        after = self.snapshot() if plan.changes else before
        seconds = self._clock() - started
        log.info(
            "dom0 memory: %s -> %s, Xen free %s -> %s, %.2f s",
            mib(before.driver_current_kib),
            mib(after.driver_current_kib),
            mib(before.free_kib),
            mib(after.free_kib),
            seconds,
        )
        return Result(plan, before, after, self._kicks, self._raised_kib, seconds)

    def apply(self, plan: Plan, *, timeout_s: float = TIMEOUT_S) -> None:
        """Do the plan, step by step, mending what can be mended; raises as the module's `set_target`."""
        expires = self._clock() + timeout_s
        if plan.ceiling_kib is not None:
            self._raise_ceiling(plan.ceiling_kib)
        if plan.static_max_kib is not None:
            self._write({STATIC_MAX: plan.static_max_kib})
        for step_kib in plan.steps_kib:
            self._step(plan, step_kib, expires)

    def wait(self, wanted_kib: int, start_kib: int, expires: float) -> tuple[Progress, Observation]:
        """Watch the driver until it is there, stands still or time is up (MOVING); what was last seen."""
        began = moved = self._clock()
        last_kib = -1
        while True:
            now = self._clock()
            current_kib = self._driver("info/current_kb")
            if current_kib != last_kib:
                last_kib, moved = current_kib, now
            seen = self._observe(current_kib, since_request_s=now - began, since_progress_s=now - moved)
            verdict = memory.classify(wanted_kib, start_kib, seen)
            if verdict is not Progress.MOVING or now >= expires:
                return verdict, seen
            self._pause(POLL_S)

    def kick(self, target_kib: int, start_kib: int, expires: float) -> tuple[Progress, Observation]:
        """Wake a driver that gave up: one page less, then the target itself (2.4); what `wait` saw of it."""
        self._kicks += 1
        self._progress(f"balloon driver sleeps below its target: waking it for {mib(target_kib)}")
        self._write({TARGET: target_kib - memory.PAGE_KIB})
        verdict, seen = self.wait(target_kib - memory.PAGE_KIB, start_kib, expires)
        if verdict is not Progress.REACHED:
            return verdict, seen
        self._write({TARGET: target_kib})
        return self.wait(target_kib, start_kib, expires)

    def settle(self, start_kib: int) -> int:
        """Set the target to dom0's size, less what Xen lacks of its reserve; wait for it, return it.

        A dom0 that still grew between the looks at Xen's pages and at its own size has taken more than was seen: it is
        looked at again once it stands still.
        """
        target_kib = -1
        for _ in range(SETTLE_ROUNDS):
            host = self._hypervisor.host()
            free_kib = host.free_kib + host.scrub_kib
            wanted_kib = memory.settle_kib(start_kib, self._driver("info/current_kb"), free_kib)
            if wanted_kib == target_kib:
                break
            target_kib = wanted_kib
            self._write({TARGET: target_kib})
            self.wait(target_kib, target_kib, self._clock() + memory.STALLED_S)
        return target_kib

    def _step(self, plan: Plan, step_kib: int, expires: float) -> None:
        self._progress(f"dom0 memory: {mib(self._driver('info/current_kb'))} -> {mib(step_kib)}")
        self._refuse_drain(plan, step_kib)
        if plan.kick:
            verdict, seen = self.kick(step_kib, plan.start_kib, expires)
        else:
            self._write({TARGET: step_kib})
            verdict, seen = self.wait(step_kib, plan.start_kib, expires)
        if verdict is Progress.CEILING:
            self._raise_ceiling(step_kib + memory.CEILING_SLACK_KIB)
            verdict, seen = self.kick(step_kib, plan.start_kib, expires)
        elif verdict is Progress.GAVE_UP and not plan.kick:
            verdict, seen = self.kick(step_kib, plan.start_kib, expires)
        if verdict is not Progress.REACHED:
            raise self._failure(plan, step_kib, verdict, seen)

    def _refuse_drain(self, plan: Plan, step_kib: int) -> None:
        """Look again at Xen's free memory before each step up: a guest may have been started meanwhile."""
        host = self._hypervisor.host()
        growth_kib = step_kib - self._driver("info/current_kb")
        available_kib = host.free_kib + host.scrub_kib - memory.RESERVE_KIB
        if growth_kib > max(0, available_kib):
            raise self._out_of_pages(plan, available_kib + memory.RESERVE_KIB)

    def _failure(self, plan: Plan, step_kib: int, verdict: Progress, seen: Observation) -> Exception:
        numbers = (
            f"wanted {mib(step_kib)}, dom0 has {mib(seen.driver_current_kib)}, "
            f"Xen's ceiling {mib(seen.maxmem_kib)}, Xen free {mib(seen.free_kib)}"
        )
        if verdict is Progress.OVERRIDDEN:
            other = (
                "was removed"
                if seen.xenstore_target_kib is None
                else f"is now {seen.xenstore_target_kib} KiB"
            )
            return TargetOverriddenError(
                f"somebody else changed dom0's memory target meanwhile: it {other} ({numbers})",
                hint="xl mem-set, libvirt or xl's autoballoon did it; `hostagent xen memory` shows who may",
                params=("host", "dom0 memory target"),
            )
        if verdict is Progress.OUT_OF_PAGES:
            return self._out_of_pages(plan, seen.free_kib)
        if verdict is Progress.IGNORED:
            self._write({TARGET: seen.driver_target_kib})
            return memory.XenstoreStaleError(
                f"dom0's kernel ignores xenstore: its target stays {mib(seen.driver_target_kib)} ({numbers})",
                hint="was xenstored started again during this boot? then only a reboot helps",
            )
        settled_kib = self.settle(min(plan.start_kib, step_kib))
        return TargetNotReachedError(
            f"dom0's balloon driver stands still: {verdict.value} ({numbers})",
            hint=f"dom0 keeps {mib(settled_kib)}; `hostagent xen memory` shows all figures",
        )

    def _out_of_pages(self, plan: Plan, free_kib: int) -> memory.NotEnoughMemoryError:
        settled_kib = self.settle(plan.start_kib)
        return memory.NotEnoughMemoryError(
            f"Xen has only {mib(free_kib)} free while dom0 grows from {mib(plan.start_kib)} towards "
            f"{mib(plan.target_kib)}: dom0 stopped at {mib(settled_kib)}",
            hint="a guest was started meanwhile; shut one down and try again",
            needed_kib=plan.target_kib - settled_kib,
            available_kib=max(0, free_kib - memory.RESERVE_KIB),
        )

    def _raise_ceiling(self, maxmem_kib: int) -> None:
        self._progress(f"Xen's ceiling of dom0 is in the way: raising it to {mib(maxmem_kib)}")
        self._hypervisor.set_ceiling(0, maxmem_kib)
        self._raised_kib = maxmem_kib

    def _observe(self, current_kib: int, *, since_request_s: float, since_progress_s: float) -> Observation:
        host = self._hypervisor.host()
        return memory.Observation(
            driver_target_kib=self._driver("target_kb"),
            driver_current_kib=current_kib,
            xenstore_target_kib=memory.parse_key_kib(self._usable_store().read(TARGET)),
            maxmem_kib=self._hypervisor.domain(0).maxmem_kib,
            free_kib=host.free_kib + host.scrub_kib,
            since_request_s=since_request_s,
            since_progress_s=since_progress_s,
        )

    def _write(self, values: dict[str, int]) -> None:
        def body(transaction: Writer) -> None:
            transaction.must_exist(HOME)
            for path, kib in values.items():
                transaction.write(path, str(kib).encode())

        self._usable_store().transact(body)

    def _usable_store(self) -> Store:
        if self._store is None:
            raise memory.XenstoreStaleError("there is no xenstored", hint="see `systemctl status xen`")
        return self._store

    def _keys(self) -> tuple[XenstoreState, dict[str, bytes | None]]:
        if self._store is None:
            return XenstoreState.DEAD, {}
        try:
            keys = self._store.read_many((TARGET, STATIC_MAX))
            evidence = xenstored.gather(self._store, root=self._root, run_dir=self._run_dir)
        except (XenstoreUnavailable, XenstoreDeadline) as error:
            log.debug("no memory keys: %s", error)
            return XenstoreState.DEAD, {}
        restarted = xenstored.judge(evidence) is xenstored.Link.RESTARTED
        return XenstoreState.RESTARTED if restarted else XenstoreState.USABLE, keys

    def _driver(self, name: str) -> int:
        """A number of the balloon driver (kernel document ABI/stable/sysfs-devices-system-xen_memory)."""
        try:
            return int((self._root / DRIVER / name).read_text())
        except (OSError, ValueError) as error:
            raise OperatorError(
                f"dom0's kernel has no usable balloon driver: {self._root / DRIVER / name}: {error}",
                hint="is this a Debian kernel, booted under Xen? `cat /proc/xen/capabilities`",
            ) from error

    def _meminfo(self) -> dict[str, int]:
        """/proc/meminfo, KiB (proc(5) writes kB and means KiB)."""
        lines = (line.split() for line in self._text("proc/meminfo").splitlines())
        found = {
            words[0].rstrip(":"): int(words[1]) for words in lines if len(words) >= 2 and words[1].isdigit()
        }
        if not {"MemTotal", "MemAvailable"} <= found.keys():
            raise OperatorError("/proc/meminfo has no MemAvailable", hint="is /proc mounted?")
        return found

    def _count_qemus(self) -> int:
        """Device models in dom0; Debian runs Xen's own, `xen-qemu-system-i386`, cut to 15 characters."""
        names = (self._text(path) for path in (self._root / "proc").glob("[0-9]*/comm"))
        return sum("qemu-system" in name for name in names)

    def _text(self, path: Path | str) -> str:
        """A small text file, empty when absent."""
        try:
            with (self._root / path).open(errors="replace") as file:
                return file.read(LARGEST_CONF_CHARS)
        except OSError:
            return ""
