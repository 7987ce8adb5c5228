"""dom0 memory, the arithmetic: limits, plans, and what a stall means. Nothing here touches the host.

All sizes are KiB, as in xenstore and the balloon driver. Invariant: dom0 never shrinks below what it needs
to live, and never grows so far that Xen has less than RESERVE_KIB left. Rules and figures:
storage-memory-xenstore 2.1 to 2.7; `balloon` is the effect.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, replace

from hostagent.errors import CallerError, InvalidValueError, OperatorError

PAGE_KIB = 4
STEP_KIB = 256 * 1024  # growth at once, so that a domain that is being built is not starved (2.6)
RESERVE_KIB = 72 * 1024  # Xen warns below 64 MiB free; 8 MiB on top, as squeezed keeps (2.2)
FLOOR_KIB = 512 * 1024  # dom0 is never planned smaller than this (2.6)
HEADROOM_KIB = 256 * 1024  # kept above what dom0's processes use now (2.6)
QEMU_KIB = 64 * 1024  # growth allowed to each device model (2.6)
CEILING_SLACK_KIB = 1024  # libxl sets Xen's ceiling this far above the target (2.1)

NOT_ACCEPTED_S = 2.0  # the driver takes a new target over in under 20 ms; measured on a busy host 0.2 s
STALLED_S = 5.0  # an emulated busy host moved 64 MiB in 2.5 s

UNITS_KIB = {"": 1, "k": 1, "m": 1024, "g": 1024 * 1024}
SIZE = re.compile(r"([0-9]{1,12})\s*([kmg]?)(?:i?b)?", re.IGNORECASE)


class XenstoreState(enum.Enum):
    """Whether a target written to xenstore reaches the kernel."""

    USABLE = "usable"
    RESTARTED = "restarted"
    DEAD = "dead"


class Progress(enum.Enum):
    """What the balloon driver is doing about a target; the last three are reasons why it stands still."""

    REACHED = "reached"
    MOVING = "moving"
    IGNORED = "ignored"
    OVERRIDDEN = "overridden"
    CEILING = "ceiling lowered"
    OUT_OF_PAGES = "Xen out of pages"
    GAVE_UP = "driver gave up"


class ConstraintError(CallerError):
    """The target lies outside what dom0 can have. XenAPI MEMORY_CONSTRAINT_VIOLATION [constraint]."""

    code = "MEMORY_CONSTRAINT_VIOLATION"


class NotEnoughMemoryError(OperatorError):
    """Xen has too little free memory. XenAPI HOST_NOT_ENOUGH_FREE_MEMORY [needed; available], in bytes."""

    code = "HOST_NOT_ENOUGH_FREE_MEMORY"

    def __init__(self, found: str, *, hint: str, needed_kib: int, available_kib: int) -> None:
        super().__init__(found, hint=hint, params=(str(needed_kib * 1024), str(available_kib * 1024)))


class XenstoreStaleError(OperatorError):
    """A target cannot reach the kernel: xenstored is dead, or was started again during this boot."""


@dataclass(frozen=True, slots=True)
class Dom0Memory:
    """Everything known about dom0's memory at one moment.

    total, free, scrub: the machine's, from Xen. dom0, maxmem: dom0's pages and the ceiling Xen enforces.
    driver_*: the balloon driver's target and size; ballooned: pages it gave back and can take again.
    xenstore_target, static_max: the keys, None when absent or not a number. mem_total, mem_available: what
    dom0's kernel can use, and has left. qemus: device models running in dom0. retry_count, schedule_delay:
    the driver's own counters. autoballoon: who would shrink dom0 by itself (`autoballoon_conflicts`).
    """

    total_kib: int
    free_kib: int
    scrub_kib: int
    dom0_kib: int
    maxmem_kib: int
    driver_target_kib: int
    driver_current_kib: int
    ballooned_kib: int
    mem_total_kib: int
    mem_available_kib: int
    xenstore_target_kib: int | None = None
    static_max_kib: int | None = None
    xenstore: XenstoreState = XenstoreState.USABLE
    qemus: int = 0
    retry_count: int = 1
    schedule_delay: int = 1
    boot_id: str = ""
    autoballoon: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Limits:
    """Between what dom0's target may lie.

    floor: below it dom0's own processes may be killed. ceiling: more page frames its kernel does not have, or
    `memory/static-max` forbids. reachable: where Xen's free memory, less the reserve, ends now.
    """

    floor_kib: int
    ceiling_kib: int
    reachable_kib: int


@dataclass(frozen=True, slots=True)
class Change:
    """One value a plan changes: the key or setting, its old value (None: absent) and the new one."""

    what: str
    old: str | None
    new: str


@dataclass(frozen=True, slots=True)
class Plan:
    """How to get from `start_kib` to `target_kib`.

    `steps_kib` are the targets to write one after the other, each reached before the next; none when dom0 is
    already there. `ceiling_kib`: Xen's ceiling to set first, None when high enough. `static_max_kib`: the
    missing key to create first (libxl refuses any memory call without it), None when present. `kick`: the
    driver slept on this very target, so that writing it again would not wake it (2.4).
    """

    start_kib: int
    target_kib: int
    steps_kib: tuple[int, ...]
    ceiling_kib: int | None = None
    static_max_kib: int | None = None
    kick: bool = False
    changes: tuple[Change, ...] = ()


@dataclass(frozen=True, slots=True)
class Observation:
    """What was seen while waiting for a target: sizes, seconds since the write and since the last move."""

    driver_target_kib: int
    driver_current_kib: int
    xenstore_target_kib: int | None
    maxmem_kib: int
    free_kib: int
    since_request_s: float
    since_progress_s: float


@dataclass(frozen=True, slots=True)
class HostMemory:
    """The machine's memory as XenAPI's Host has it (there in bytes).

    boot_free: free when only dom0 ran and had all its memory; overhead: what Xen keeps, plus the reserve.
    `estimate` when guests ran, because their page tables and the like cannot be told apart then.
    """

    total_kib: int
    boot_free_kib: int
    overhead_kib: int
    estimate: bool


def limits(now: Dom0Memory) -> Limits:
    """The range for dom0's target now (2.6)."""
    frames_kib = now.driver_current_kib + now.ballooned_kib
    return Limits(
        floor_kib=_page_up(max(FLOOR_KIB, needed_kib(now))),
        ceiling_kib=_page_down(
            frames_kib if now.static_max_kib is None else min(frames_kib, now.static_max_kib)
        ),
        reachable_kib=now.driver_current_kib + _page_down(max(0, _available_kib(now))),
    )


def needed_kib(now: Dom0Memory) -> int:
    """What dom0 needs to live: what its processes use, headroom, its device models, its kernel's own part."""
    used_kib = max(0, now.mem_total_kib - now.mem_available_kib)
    return used_kib + HEADROOM_KIB + QEMU_KIB * now.qemus + kernel_static_kib(now)


def kernel_static_kib(now: Dom0Memory) -> int:
    """What dom0's kernel took at boot and never gives back, page metadata for its maximum above all (2.1)."""
    return max(0, now.driver_current_kib - now.mem_total_kib)


def plan(now: Dom0Memory, target_kib: int) -> Plan:
    """How dom0 gets to `target_kib`, rounded down to a whole page; nothing is changed.

    Raises XenstoreStaleError; ConstraintError (below the floor, above the ceiling); NotEnoughMemoryError.
    """
    target_kib = _page_down(target_kib)
    refuse_stale(now)
    allowed = limits(now)
    current_kib = now.driver_current_kib
    if target_kib < allowed.floor_kib and target_kib < current_kib:
        raise ConstraintError(
            f"dom0 needs {mib(allowed.floor_kib)}; {mib(target_kib)} would let its kernel kill processes "
            f"(in use now: {mib(now.mem_total_kib - now.mem_available_kib)}, device models: {now.qemus})",
            hint=f"choose at least {allowed.floor_kib} KiB; `hostagent xen memory explain` shows the sum",
            params=(f"{target_kib} KiB >= floor {allowed.floor_kib} KiB",),
        )
    if target_kib > max(allowed.ceiling_kib, current_kib):
        raise ConstraintError(
            f"dom0 can have at most {mib(allowed.ceiling_kib)} until it boots again, not {mib(target_kib)}",
            hint="give it more at boot: dom0_mem=…,max:… on the Xen command line (GRUB_CMDLINE_XEN)",
            params=(f"{target_kib} KiB <= ceiling {allowed.ceiling_kib} KiB",),
        )
    if target_kib > max(allowed.reachable_kib, current_kib):
        growth_kib = target_kib - current_kib
        available_kib = max(0, _available_kib(now))
        raise NotEnoughMemoryError(
            f"dom0 would need {mib(growth_kib)} more, and Xen has {mib(available_kib)} free besides "
            f"its reserve of {mib(RESERVE_KIB)}",
            hint=f"shut a guest down, or choose at most {allowed.reachable_kib} KiB",
            needed_kib=growth_kib,
            available_kib=available_kib,
        )
    there = current_kib == now.driver_target_kib == now.xenstore_target_kib == target_kib
    made = Plan(
        start_kib=current_kib,
        target_kib=target_kib,
        steps_kib=() if there else steps(current_kib, target_kib),
        ceiling_kib=target_kib + CEILING_SLACK_KIB if max(current_kib, now.maxmem_kib) < target_kib else None,
        static_max_kib=first_static_max_kib(now) if now.static_max_kib is None else None,
        kick=not there and now.driver_target_kib == now.xenstore_target_kib == target_kib,
    )
    return _with_changes(now, made)


def first_static_max_kib(now: Dom0Memory) -> int:
    """`memory/static-max` of a dom0 that has none: what its kernel can have, and Xen lets it have (2.7)."""
    return _page_down(min(now.maxmem_kib, now.driver_current_kib + now.ballooned_kib))


def steps(current_kib: int, target_kib: int) -> tuple[int, ...]:
    """The targets on the way: at most STEP_KIB up at once, down in one."""
    ups = range(_page_down(current_kib) + STEP_KIB, target_kib, STEP_KIB)
    return (*ups, target_kib)


def classify(wanted_kib: int, start_kib: int, seen: Observation) -> Progress:
    """What the driver is doing about a target written while dom0 had `start_kib` (2.4).

    A growing dom0 that leaves Xen less than the reserve counts as out of pages at once: the plan left more,
    so somebody else is taking memory, and waiting would drain Xen to zero.
    """
    if seen.xenstore_target_kib != wanted_kib:
        return Progress.OVERRIDDEN
    if seen.driver_target_kib != wanted_kib:
        return Progress.IGNORED if seen.since_request_s >= NOT_ACCEPTED_S else Progress.MOVING
    if seen.driver_current_kib == wanted_kib:
        return Progress.REACHED
    growing = wanted_kib > start_kib
    if growing and seen.driver_current_kib >= seen.maxmem_kib:
        return Progress.CEILING
    if growing and seen.free_kib < RESERVE_KIB:
        return Progress.OUT_OF_PAGES
    return Progress.GAVE_UP if seen.since_progress_s >= STALLED_S else Progress.MOVING


def settle_kib(start_kib: int, current_kib: int, free_kib: int) -> int:
    """The target at which a dom0 that ran Xen out of pages stops: it gives the reserve back, not more.

    `free_kib` includes what waits for scrubbing.
    """
    return max(_page_down(start_kib), _page_down(current_kib - max(0, RESERVE_KIB - free_kib)))


def host_memory(now: Dom0Memory, *, guests_kib: int) -> HostMemory:
    """The machine's figures; `guests_kib` is what all domains but dom0 hold (2.2)."""
    boot_free_kib = now.free_kib + now.scrub_kib + now.dom0_kib + guests_kib
    return HostMemory(
        total_kib=now.total_kib,
        boot_free_kib=boot_free_kib,
        overhead_kib=now.total_kib - boot_free_kib + RESERVE_KIB,
        estimate=guests_kib > 0,
    )


def autoballoon_conflicts(xen_commandline: str, xl_conf: str, libxl_conf: str) -> tuple[str, ...]:
    """Who would shrink dom0 by itself when a guest starts: "xl", "libvirt"; () when nobody.

    Arguments: the Xen command line; the texts of /etc/xen/xl.conf and /etc/libvirt/libxl.conf ("" if absent).
    Both default to "auto": on unless dom0_mem is on the Xen command line (2.4; xl.conf(5)).
    """
    fixed = any(word.startswith("dom0_mem=") for word in xen_commandline.split())
    configured = {"xl": _autoballoon(xl_conf), "libvirt": _autoballoon(libxl_conf)}
    return tuple(
        who for who, setting in configured.items() if setting == "on" or (setting == "auto" and not fixed)
    )


def parse_size_kib(text: str) -> int:
    """A size as an operator types it: a plain number is KiB, `1536M` and `2G` are binary.

    Raises InvalidValueError.
    """
    match = SIZE.fullmatch(text.strip())
    if match is None:
        raise InvalidValueError(
            "memory_target", text, f"{text!r} is not a size", hint="say KiB as a number, or 1536M, or 2G"
        )
    return int(match[1]) * UNITS_KIB[match[2].lower()]


def parse_key_kib(value: bytes | None) -> int | None:
    """A memory key of xenstore: decimal KiB; None when absent or garbage, which the kernel ignores."""
    return int(value) if value is not None and re.fullmatch(rb"\d{1,15}", value) else None


def mib(kib: int) -> str:
    """KiB as MiB for people; odd values keep their KiB so that nothing looks equal that is not."""
    return f"{kib // 1024} MiB" if kib % 1024 == 0 else f"{kib / 1024:.1f} MiB"


def refuse_stale(now: Dom0Memory) -> None:
    """Raises XenstoreStaleError when what is written to xenstore does not reach dom0's kernel."""
    match now.xenstore:
        case XenstoreState.DEAD:
            raise XenstoreStaleError(
                "xenstored does not answer, so dom0's kernel would not learn of a new target",
                hint="see `systemctl status xen`; starting it again needs a reboot before memory can change",
            )
        case XenstoreState.RESTARTED:
            raise XenstoreStaleError(
                "xenstored was started again during this boot, and dom0's kernel no longer listens to it",
                hint="shut the guests down and reboot this host",
            )
        case XenstoreState.USABLE:
            return


def _with_changes(now: Dom0Memory, made: Plan) -> Plan:
    wanted = (
        ("Xen ceiling of dom0 (KiB)", now.maxmem_kib, made.ceiling_kib),
        ("/local/domain/0/memory/static-max", now.static_max_kib, made.static_max_kib),
        (
            "/local/domain/0/memory/target",
            now.xenstore_target_kib,
            made.target_kib if now.xenstore_target_kib != made.target_kib else None,
        ),
        (
            "dom0 memory (KiB)",
            now.driver_current_kib,
            made.target_kib if now.driver_current_kib != made.target_kib else None,
        ),
    )
    changes = tuple(
        Change(what, None if old is None else str(old), str(new))
        for what, old, new in wanted
        if new is not None
    )
    return replace(made, changes=changes)


def _available_kib(now: Dom0Memory) -> int:
    return now.free_kib + now.scrub_kib - RESERVE_KIB


def _autoballoon(conf: str) -> str:
    """The `autoballoon` setting of an xl.conf or libxl.conf: on, off or auto; the last line counts."""
    found = re.findall(r"^\s*autoballoon\s*=\s*[\"']?(\w+)", conf, re.MULTILINE)
    return (
        {"1": "on", "on": "on", "0": "off", "off": "off"}.get(found[-1].lower(), "auto") if found else "auto"
    )


def _page_down(kib: int) -> int:
    return kib - kib % PAGE_KIB


def _page_up(kib: int) -> int:
    return kib + -kib % PAGE_KIB
