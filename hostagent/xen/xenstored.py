"""Which xenstored is running, and whether dom0's kernel is still connected to it.

A xenstored that died and was started again looks healthy (`xl list` works) but has forgotten every watch of
dom0's kernel: `memory/target` is stored and ignored, backends stay in state 1 (measured; reference 1.11).
Nothing but a reboot mends that, so it is a condition of its own, found by evidence:

- daemon: its pid or start time differ from those recorded at first contact during this boot;
- kernel-node: `/local/domain/0/control/feature-poweroff`, which the kernel writes once at boot, is gone;
- own-mark: our own mark under `/tool/hostagent` from first contact is gone;
- probe: on request: dom0's kernel does not follow a target that is 4 KiB off. It decides when it was asked.

`remember` writes record and mark, once per boot; all else only reads (the probe restores what it changed,
unless somebody else set a target meanwhile). `look` is for those who ask again and again.
Paths below /proc, /sys and /run are read through `root`.
"""

from __future__ import annotations

import enum
import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from hostagent.files import FileError, read_bounded, write_atomic
from hostagent.xen.xenstore_errors import XenstoreDeadline, XenstoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from hostagent.xen.xenstore import Transaction, Xenstore

log = logging.getLogger(__name__)

PID_FILE = "run/xenstore.pid"  # Debian's /etc/init.d/xen
DRIVER = "sys/devices/system/xen_memory/xen_memory0"
TARGET_KIB = f"{DRIVER}/target_kb"
RECORD = "xenstored.json"
RECORD_LIMIT_BYTES = 4096
MARK = "/tool/hostagent/boot-id"
KERNEL_NODE = "/local/domain/0/control/feature-poweroff"
MEMORY_TARGET = "/local/domain/0/memory/target"  # KiB
PROBE_STEP_KIB = 4
PROBE_POLLS = 50  # one second
PROBE_POLL_S = 0.02  # target_kb has no event
STAT_START_FIELD = 19  # field 22 of /proc/PID/stat, counted after the name's closing parenthesis


class Variant(enum.Enum):
    """The implementations Debian ships; they differ in limits and conflicts (reference 1.1)."""

    OXENSTORED = "oxenstored"
    XENSTORED = "xenstored"


@dataclass(frozen=True, slots=True)
class Daemon:
    """A running xenstored; pid and `started_ticks` (1/100 s after boot) together are its identity."""

    variant: Variant
    pid: int
    started_ticks: int


class Link(enum.Enum):
    """Whether dom0's kernel and xenstored still talk to each other."""

    CONNECTED = "connected"
    SUSPECT = "suspect"
    """The evidence contradicts itself: probe, or look at it."""
    RESTARTED = "restarted"
    """The kernel's watches are dead; guests run on, but no dom0 memory or device operation works."""
    DEAD = "dead"
    """No xenstored answers."""


class Says(enum.Enum):
    """What a piece of evidence says."""

    SAME = "same"
    RESTARTED = "restarted"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Evidence:
    """One check (a name in the module's list), what it says and what was seen."""

    check: str
    says: Says
    seen: str


@dataclass(frozen=True, slots=True)
class LinkReport:
    """The verdict, the evidence for it, the daemon found, and what to do (empty: nothing)."""

    link: Link
    evidence: tuple[Evidence, ...]
    daemon: Daemon | None
    hint: str

    @property
    def trouble(self) -> dict[str, str] | None:
        """The verdict in three texts (link, seen, hint); None while all is well."""
        if self.link is Link.CONNECTED:
            return None
        seen = ", ".join(one.seen for one in self.evidence if one.says is not Says.SAME)
        return {"link": self.link.value, "seen": seen, "hint": self.hint}


class Reader(Protocol):
    """What is needed of `xenstore.Xenstore` to look without a probe."""

    def read_many(self, paths: Iterable[str]) -> dict[str, bytes | None]: ...


REBOOT_HINT = (
    "xenstored was restarted: guests keep running, but no disk, network or memory change of dom0 works any "
    "more. Shut the guests down and reboot the host; restarting xenstored again does not help"
)
HINTS = {
    Link.CONNECTED: "",
    Link.SUSPECT: "`hostagent xen xenstore status --probe` asks dom0's kernel itself",
    Link.RESTARTED: REBOOT_HINT,
    Link.DEAD: "`systemctl restart xen` starts it so that `xl` answers again; if it had run before, dom0's "
    "kernel stays disconnected: plan a reboot",
}


def running_daemon(*, root: Path = Path("/")) -> Daemon | None:
    """The xenstored of this dom0: the one in its pid file, else any by name; None when there is none."""
    try:
        named = int(read_bounded(root / PID_FILE, limit_bytes=64))
    except (FileError, ValueError):
        named = 0
    if named and (daemon := _daemon(root / "proc" / str(named))):
        return daemon
    processes = sorted((path for path in (root / "proc").glob("[0-9]*")), key=lambda path: int(path.name))
    return next((daemon for path in processes if (daemon := _daemon(path))), None)


def is_remembered(*, root: Path = Path("/"), run_dir: Path) -> bool:
    """Whether `remember` has done all it does for this boot."""
    record = _recorded(run_dir, _boot_id(root))
    return record is not None and bool(record.get("marked"))


def remember(store: Xenstore, *, root: Path = Path("/"), run_dir: Path) -> Daemon | None:
    """Record at first contact in this boot which daemon it is, and leave our mark in it; returns it.

    Harmless when repeated: a record of this boot is never replaced, or a restart would be forgotten. Killed
    between the two writes, the next call does the rest. Raises like writing a file or to xenstore.
    """
    boot_id = _boot_id(root)
    record = _recorded(run_dir, boot_id)
    if record is not None and record.get("marked"):
        return running_daemon(root=root)
    daemon = running_daemon(root=root)
    if record is None:
        record = {
            "boot_id": boot_id,
            "pid": daemon.pid if daemon else None,
            "started_ticks": daemon.started_ticks if daemon else None,
            "marked": False,
        }
        write_atomic(run_dir / RECORD, json.dumps(record), mode=0o600)
    store.write(MARK, boot_id.encode())
    write_atomic(run_dir / RECORD, json.dumps({**record, "marked": True}), mode=0o600)
    return daemon


def detect_restart(
    store: Xenstore | None,
    *,
    root: Path = Path("/"),
    run_dir: Path,
    probe: bool = False,
    pause: Callable[[float], None] = time.sleep,
) -> LinkReport:
    """Judge whether dom0's kernel is still connected to xenstored.

    Arguments: `store` None when there was no connection; `run_dir`, where `remember` keeps its record;
    `probe`, ask the kernel too (moves dom0's target by 4 KiB and back, up to 2 s).
    Raises nothing for a dead daemon: that is an answer.
    """
    daemon = running_daemon(root=root)
    evidence: tuple[Evidence, ...] = ()
    try:
        if store is None:
            raise XenstoreUnavailable("no connection to xenstored")
        evidence = gather(store, root=root, run_dir=run_dir)
        if probe:
            evidence += (_probe(store, root, pause),)
    except (XenstoreUnavailable, XenstoreDeadline) as error:
        evidence = evidence or (_same_daemon(daemon, _recorded(run_dir, _boot_id(root))),)
        evidence += (Evidence("answer", Says.UNKNOWN, error.found),)
        return LinkReport(Link.DEAD, evidence, daemon, HINTS[Link.DEAD])
    link = judge(evidence)
    return LinkReport(link, evidence, daemon, HINTS[link])


def gather(store: Reader, *, root: Path = Path("/"), run_dir: Path) -> tuple[Evidence, ...]:
    """The evidence that can be had without a probe, for `judge`. Raises xenstore's errors."""
    record = _recorded(run_dir, _boot_id(root))
    values = store.read_many((KERNEL_NODE, MARK))
    return (
        _same_daemon(running_daemon(root=root), record),
        _kernel_node(values[KERNEL_NODE]),
        _mark(values[MARK], record),
    )


def look(*, root: Path = Path("/"), run_dir: Path) -> LinkReport:
    """Whether the xenstored of first contact still runs; reads a few small files and never asks xenstored.

    CONNECTED also before first contact; DEAD when its process is gone. Raises FileError where /proc has no boot id.
    """
    daemon, record = running_daemon(root=root), _recorded(run_dir, _boot_id(root))
    evidence = _same_daemon(daemon, record)
    link = Link.CONNECTED
    if evidence.says is Says.RESTARTED:
        link = Link.RESTARTED
    elif daemon is None and record is not None and record.get("pid") is not None:
        link = Link.DEAD
    return LinkReport(link, (evidence,), daemon, HINTS[link])


def judge(evidence: Sequence[Evidence]) -> Link:
    """The verdict: a probe decides; else a gone kernel node that nothing contradicts, or any two signs.

    The kernel node alone is enough when there is no record, because the kernel always writes it at boot. One
    sign against others that say the same daemon is a suspicion: an operator may have removed a node.
    """
    by_check = {item.check: item.says for item in evidence}
    probed = by_check.pop("probe", Says.UNKNOWN)
    if probed is not Says.UNKNOWN:
        return Link.CONNECTED if probed is Says.SAME else Link.RESTARTED
    said = list(by_check.values())
    restarted = said.count(Says.RESTARTED)
    if not restarted:
        return Link.CONNECTED
    if restarted >= 2 or (by_check.get("kernel-node") is Says.RESTARTED and Says.SAME not in said):
        return Link.RESTARTED
    return Link.SUSPECT


def _daemon(process: Path) -> Daemon | None:
    """The daemon in a /proc/PID directory; None when it is another program or has just gone."""
    try:
        stat = (process / "stat").read_text(errors="replace")
        name, _, rest = stat.partition("(")[2].rpartition(")")
        return Daemon(Variant(name), int(process.name), int(rest.split()[STAT_START_FIELD]))
    except (OSError, ValueError, IndexError):
        return None


def _boot_id(root: Path) -> str:
    path = root / "proc/sys/kernel/random/boot_id"
    return read_bounded(path, limit_bytes=128).decode("ascii", "replace").strip()


def _recorded(run_dir: Path, boot_id: str) -> dict[str, object] | None:
    """What `remember` recorded during this boot; None when nothing, or nothing legible."""
    try:
        record = json.loads(read_bounded(run_dir / RECORD, limit_bytes=RECORD_LIMIT_BYTES))
    except (FileError, ValueError) as error:
        log.debug("no record of xenstored: %s", error)
        return None
    return record if isinstance(record, dict) and record.get("boot_id") == boot_id else None


def _same_daemon(daemon: Daemon | None, record: dict[str, object] | None) -> Evidence:
    if daemon is None:
        return Evidence("daemon", Says.UNKNOWN, "no xenstored process")
    now = f"{daemon.variant.value} pid {daemon.pid}, started {daemon.started_ticks / 100:.2f} s after boot"
    if record is None or record.get("pid") is None:
        return Evidence("daemon", Says.UNKNOWN, f"{now}; no record of an earlier one in this boot")
    if (record.get("pid"), record.get("started_ticks")) == (daemon.pid, daemon.started_ticks):
        return Evidence("daemon", Says.SAME, now)
    return Evidence("daemon", Says.RESTARTED, f"{now}; at first contact it was pid {record.get('pid')}")


def _kernel_node(value: bytes | None) -> Evidence:
    if value is None:
        return Evidence(
            "kernel-node", Says.RESTARTED, f"{KERNEL_NODE}, which the kernel wrote at boot, is gone"
        )
    return Evidence("kernel-node", Says.SAME, f"{KERNEL_NODE} is there")


def _mark(value: bytes | None, record: dict[str, object] | None) -> Evidence:
    if record is None or not record.get("marked"):
        return Evidence("own-mark", Says.UNKNOWN, "no mark of ours was left during this boot")
    if value == str(record["boot_id"]).encode():
        return Evidence("own-mark", Says.SAME, f"our mark {MARK} is there")
    return Evidence("own-mark", Says.RESTARTED, f"our mark {MARK} is gone")


def _probe(store: Xenstore, root: Path, pause: Callable[[float], None]) -> Evidence:
    """Move dom0's target by one page and see whether the kernel follows; puts back what was there.

    A target that somebody else sets meanwhile stands.
    """
    try:
        before_kib = _kernel_target_kib(root)
    except (FileError, ValueError) as error:
        return Evidence("probe", Says.UNKNOWN, f"dom0's balloon driver shows no target: {error}")
    stored = store.read(MEMORY_TARGET)
    if stored not in (None, str(before_kib).encode()):
        return Evidence(
            "probe",
            Says.UNKNOWN,
            f"not asked: {MEMORY_TARGET} is {stored!r} while the kernel's target is {before_kib} KiB",
        )
    before, wanted = str(before_kib).encode(), str(before_kib - PROBE_STEP_KIB).encode()
    followed = ours = False
    try:
        if ours := _replace(store, stored, wanted):
            followed = _follows(root, int(wanted), pause)
    finally:
        if ours := ours and _replace(store, wanted, before):
            followed = _follows(root, before_kib, pause) and followed
            if stored is None:
                _replace(store, before, None)
    if followed:
        return Evidence("probe", Says.SAME, f"dom0's kernel followed a target of {int(wanted)} KiB and back")
    if not ours:
        return Evidence("probe", Says.UNKNOWN, f"somebody else set {MEMORY_TARGET} meanwhile: theirs stands")
    return Evidence(
        "probe",
        Says.RESTARTED,
        f"dom0's kernel stayed at {before_kib} KiB when the target was {int(wanted)} KiB",
    )


def _replace(store: Xenstore, old: bytes | None, new: bytes | None) -> bool:
    """Change dom0's target from `old` to `new` (None: absent); False when it is another one by now."""

    def body(transaction: Transaction) -> bool:
        if transaction.read(MEMORY_TARGET) != old:
            return False
        if new is None:
            transaction.remove(MEMORY_TARGET)
        else:
            transaction.write(MEMORY_TARGET, new)
        return True

    return store.transact(body)


def _kernel_target_kib(root: Path) -> int:
    return int(read_bounded(root / TARGET_KIB, limit_bytes=64))


def _follows(root: Path, wanted_kib: int, pause: Callable[[float], None]) -> bool:
    for _ in range(PROBE_POLLS):
        if _kernel_target_kib(root) == wanted_kib:
            return True
        pause(PROBE_POLL_S)
    return False
