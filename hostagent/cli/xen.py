"""`hostagent xen`: what the hypervisor, xenstore and libvirt say about this host, and dom0's memory."""

from __future__ import annotations

import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from hostagent.cli.parser import command, group

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from hostagent.cli.parser import Subparsers
    from hostagent.xen.memory import Dom0Memory
    from hostagent.xen.xenstore import Xenstore

STORE_DEADLINE_S = 5.0


def add_parser(subparsers: Subparsers) -> None:
    below = group(
        subparsers,
        "xen",
        summary="the hypervisor, its domains, xenstore and dom0's memory",
        description="""\
What Xen itself says about this host. `info`, `domains` and `memory show` answer also while the daemon,
xenstored or libvirtd are down; what could not be asked is named.""",
        examples="""
            hostagent xen info                     versions, guest types, processors, free memory
            hostagent xen domains                  every domain, whoever made it
            hostagent xen memory show              dom0's memory and its limits
            hostagent xen xenstore status          is xenstored well?
        """,
    )
    command(
        below,
        "info",
        show_info,
        summary="Xen's version and abilities, processors, memory, xenstored, libvirtd",
        examples="""
            hostagent xen info
            hostagent xen info --json | jq .capabilities
        """,
    )
    parser = command(
        below,
        "domains",
        show_domains,
        summary="every domain the hypervisor runs, with name, state and who manages it",
        description="""\
Lists the domains as the hypervisor has them: those made by xl, by libvirt and by anybody else. State is
XenAPI's power_state; `manager` is who made the domain and looks after it. Nothing here changes a domain.""",
        examples="""
            hostagent xen domains
            hostagent xen domains --libvirt        also what libvirt believes (it does not see xl's doings)
            hostagent xen domains --json | jq '.domains[] | select(.manager == "xl")'
        """,
    )
    parser.add_argument("--libvirt", action="store_true", help="add what libvirt believes of each domain")
    _add_memory(below)
    from hostagent.cli import xenstore

    xenstore.add_parser(below)


def _add_memory(subparsers: Subparsers) -> None:
    below = group(
        subparsers,
        "memory",
        summary="dom0's memory: show it, explain its limits, set its target",
        description="""\
dom0's size is a target that its balloon driver follows: shrinking gives pages to Xen for guests, growing
takes them back. A target is refused below what dom0 needs to live, above what its kernel has page frames for,
and where Xen would keep less than 72 MiB free.""",
        examples="""
            hostagent xen memory show
            hostagent xen memory set 1536M --dry-run
            hostagent xen memory explain
        """,
    )
    command(
        below,
        "show",
        show_memory,
        summary="dom0's memory now, its limits, and what is wrong with it",
        examples="""
            hostagent xen memory show
            hostagent xen memory show --json | jq .limits
        """,
    )
    command(
        below,
        "explain",
        explain_memory,
        summary="how the limits of dom0's memory come about, figure by figure",
        examples="hostagent xen memory explain",
    )
    parser = command(
        below,
        "set",
        set_memory,
        summary="set dom0's memory and wait until it has it",
        description="""\
Sets dom0's memory target and waits for the balloon driver. Xen's ceiling is raised if `xl mem-set` or libvirt
lowered it; a driver that gave up is woken; growth goes in steps of 256 MiB, and stops and settles if Xen
runs short of memory. Asking for the size dom0 has changes nothing. Lasts until the next boot or target.""",
        examples="""
            hostagent xen memory set 1536M
            hostagent xen memory set 1048576       a plain number is KiB
            hostagent xen memory set 1G --dry-run  what would change
        """,
    )
    parser.add_argument("size", metavar="SIZE", help="KiB, or a number with M or G (binary)")
    parser.add_argument("--dry-run", action="store_true", help="show the changes and change nothing")
    parser.add_argument(
        "--timeout", type=float, default=120.0, metavar="S", help="seconds to wait (default 120)"
    )


def show_info(args: argparse.Namespace) -> int:
    from hostagent.cli import output
    from hostagent.xen import facts

    gathered = facts.gather()
    with _xenstore() as (store, why):
        xenstored = f"answers ({store.transport})" if store else why
    if not args.json:
        for warning in gathered.warnings:
            print(f"warning: {warning}", file=sys.stderr)
    record = {**_plain(gathered), "xenstored": xenstored, "libvirtd": _libvirt_version()}
    output.emit(
        args,
        record,
        columns=(
            output.Column("version", "Xen"),
            output.Column("changeset"),
            output.Column("commandline", "Xen command line"),
            output.Column("guest_types"),
            output.Column("capabilities", show=_capabilities),
            output.Column("cpus"),
            output.Column("sockets"),
            output.Column("cpu_khz", "clock", _clock),
            output.Column("total_kib", "memory", output.size_kib),
            output.Column("free_kib", "free", output.size_kib),
            output.Column("usable_free_kib", "free for guests", output.size_kib),
            output.Column("dom0_mem_fixed", "dom0_mem given"),
            output.Column("binding", "tools"),
            output.Column("xenstored"),
            output.Column("libvirtd"),
        ),
    )
    return 0


def show_domains(args: argparse.Namespace) -> int:
    from hostagent.cli import output
    from hostagent.xen import domains

    with _xenstore() as (store, why):
        listing = domains.list_domains(store)
    warnings = [f"{warning} ({why})" if why else warning for warning in listing.warnings]
    rows = [_plain(domain) for domain in listing.domains]
    columns = [
        output.Column("domid"),
        output.Column("name"),
        output.Column("power_state", "state"),
        output.Column("manager"),
        output.Column("memory_kib", "memory", output.size_kib),
        output.Column("vcpus"),
        output.Column("cpu_time_ns", "cpu time", _seconds),
        output.Column("uuid"),
        output.Column("note"),
    ]
    if args.libvirt:
        warnings += _add_libvirt(rows)
        columns.insert(4, output.Column("libvirt", "libvirt says"))
    if args.json:
        output.emit(args, {"domains": rows, "warnings": warnings})
        return 0
    output.emit(args, rows, columns=columns, empty="no domains")
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return 0


def show_memory(args: argparse.Namespace) -> int:
    from hostagent.cli import output
    from hostagent.xen import balloon, memory

    with _xenstore() as (store, _why):
        now = balloon.snapshot(store, run_dir=_run_dir(args))
    limits = memory.limits(now)
    warnings = _memory_warnings(now)
    if args.json:
        output.emit(args, {"dom0": _plain(now), "limits": _plain(limits), "warnings": warnings})
        return 0
    rows = {
        "dom0 has": now.driver_current_kib,
        "target": now.driver_target_kib,
        "target in xenstore": now.xenstore_target_kib,
        "Xen's ceiling": now.maxmem_kib,
        "at least": limits.floor_kib,
        "at most until it boots again": limits.ceiling_kib,
        "at most now": min(limits.reachable_kib, limits.ceiling_kib),
        "its kernel can use": now.mem_total_kib,
        "available in dom0": now.mem_available_kib,
        "Xen free": now.free_kib,
        "machine": now.total_kib,
    }
    output.emit(args, rows, columns=[output.Column(name, name, _kib) for name in rows])
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return 0


def explain_memory(args: argparse.Namespace) -> int:
    from hostagent.cli import output
    from hostagent.xen import balloon, memory

    with _xenstore() as (store, _why):
        now = balloon.snapshot(store, run_dir=_run_dir(args))
    limits = memory.limits(now)
    reserve = memory.RESERVE_KIB
    rows = [
        ("floor", limits.floor_kib, "never below; the larger of the next two"),
        ("- fixed minimum", memory.FLOOR_KIB, "any dom0"),
        ("- needed", memory.needed_kib(now), "the sum of the next four"),
        ("-- in use", now.mem_total_kib - now.mem_available_kib, "/proc/meminfo: MemTotal - MemAvailable"),
        ("-- headroom", memory.HEADROOM_KIB, "kept above what is in use"),
        ("-- device models", now.qemus * memory.QEMU_KIB, f"{now.qemus} qemu, 64 MiB each"),
        ("-- kernel", memory.kernel_static_kib(now), "dom0's size - MemTotal: page tables and the like"),
        ("ceiling", limits.ceiling_kib, "until dom0 boots again; the smaller of the next two"),
        (
            "  page frames",
            now.driver_current_kib + now.ballooned_kib,
            "held and given back (xen_memory0/info)",
        ),
        ("- static-max", now.static_max_kib, "xenstore /local/domain/0/memory/static-max"),
        ("reachable", limits.reachable_kib, "now: dom0's size + Xen's free memory - reserve"),
        ("- dom0's size", now.driver_current_kib, "xen_memory0/info/current_kb"),
        ("- Xen free", now.free_kib + now.scrub_kib, "free and waiting to be scrubbed"),
        ("- reserve", reserve, "64 MiB where Xen warns + 8 MiB"),
    ]
    output.emit(
        args,
        [{"figure": name, "kib": kib, "meaning": meaning} for name, kib, meaning in rows],
        columns=(output.Column("figure"), output.Column("kib", "size", _kib), output.Column("meaning")),
    )
    return 0


def set_memory(args: argparse.Namespace) -> int:
    from hostagent.cli import output
    from hostagent.xen import balloon, memory

    target_kib = memory.parse_size_kib(args.size)
    with _xenstore() as (store, why):
        if store is None:
            raise memory.XenstoreStaleError(
                f"dom0's kernel cannot be told of a new target: {why}",
                hint="see `hostagent xen xenstore status` and `systemctl status xen`",
            )
        if args.dry_run:
            plan = memory.plan(balloon.snapshot(store, run_dir=_run_dir(args)), target_kib)
            output.emit(args, plan.changes, columns=("what", "old", "new"), empty="nothing would change")
            return 0
        result = balloon.set_target(
            target_kib,
            store,
            timeout_s=args.timeout,
            run_dir=_run_dir(args),
            progress=_progress(args),
        )
    if args.json:
        output.emit(args, {"changed": result.changed, **_plain(result)})
    elif result.changed:
        sizes = (
            f"{memory.mib(result.before.driver_current_kib)} -> {memory.mib(result.after.driver_current_kib)}"
        )
        free = f"{memory.mib(result.before.free_kib)} -> {memory.mib(result.after.free_kib)}"
        extras = [f"driver woken {result.kicks} times"] if result.kicks else []
        extras += [f"Xen's ceiling raised to {memory.mib(result.ceiling_kib)}"] if result.ceiling_kib else []
        print(
            f"changed: dom0 {sizes}, Xen free {free}, {result.seconds:.1f} s",
            *extras,
            sep="; ",
        )
    else:
        print(f"unchanged: dom0 has {memory.mib(result.after.driver_current_kib)}")
    return 0


@contextmanager
def _xenstore() -> Iterator[tuple[Xenstore | None, str]]:
    """A connection to a xenstored that answers, or None and why there is none."""
    from hostagent.xen.xenstore import Xenstore, XenstoreDeadline, XenstoreUnavailable

    with ExitStack() as stack:
        why = ""
        store: Xenstore | None = None
        try:
            store = stack.enter_context(Xenstore.connect(deadline_s=STORE_DEADLINE_S))
            store.read("domid")  # a frozen daemon accepts connections too
        except (XenstoreUnavailable, XenstoreDeadline) as error:
            store, why = None, error.found
        yield store, why


def _libvirt_version() -> str:
    from hostagent.xen.libvirt_link import LibvirtError, Link

    try:
        with Link() as link:
            return f"answers (libvirt {link.version()})"
    except LibvirtError as error:
        return f"{error.found}; {error.hint}"


def _add_libvirt(rows: list[dict[str, object]]) -> list[str]:
    """Put libvirt's word into each row; what is worth a warning: no answer, or a state that is not so."""
    from hostagent.xen.libvirt_link import LibvirtError, Link

    try:
        with Link() as link:
            states = {domain.uuid: domain.state for domain in link.domains() if domain.domid is not None}
    except LibvirtError as error:
        return [f"libvirt could not be asked: {error.found} ({error.hint})"]
    warnings = []
    for row in rows:
        state = row["libvirt"] = states.get(str(row["uuid"]))
        if state is not None and (state == "paused") != (row["power_state"] == "Paused"):
            warnings.append(
                f"libvirt calls domain {row['domid']} {state}; the hypervisor: {row['power_state']}"
            )
    return warnings


def _memory_warnings(now: Dom0Memory) -> list[str]:
    from hostagent.xen.memory import XenstoreState, mib

    warnings = []
    if now.xenstore is XenstoreState.DEAD:
        warnings.append("xenstored does not answer: dom0's memory cannot be changed")
    if now.xenstore is XenstoreState.RESTARTED:
        warnings.append(
            "xenstored was restarted, dom0's kernel no longer listens: reboot before changing memory"
        )
    if now.driver_current_kib != now.driver_target_kib:
        warnings.append(
            f"dom0 is not at its target of {mib(now.driver_target_kib)}; if it stays so, "
            "`hostagent xen memory set` wakes the driver"
        )
    if now.xenstore_target_kib not in (None, now.driver_target_kib):
        warnings.append("xenstore and the balloon driver disagree about the target: somebody wrote to sysfs")
    for who in now.autoballoon:
        path = {"xl": "/etc/xen/xl.conf", "libvirt": "/etc/libvirt/libxl.conf"}[who]
        warnings.append(
            f"{who} will shrink dom0 by itself when a guest starts: put dom0_mem= on the Xen command line, "
            f"or autoballoon off in {path}"
        )
    return warnings


def _run_dir(args: argparse.Namespace) -> Path:
    from hostagent.config import Paths

    return Paths.from_arguments(args).run


def _plain(value: object) -> dict[str, object]:
    from hostagent.cli import output

    plain = output.as_plain(value)
    assert isinstance(plain, dict)  # noqa: S101 - a dataclass becomes a dict
    return plain


def _progress(args: argparse.Namespace) -> Callable[[str], None]:
    if args.json or not sys.stderr.isatty():
        return lambda _text: None
    return lambda text: print(text, file=sys.stderr)


def _kib(value: object) -> str:
    from hostagent.xen.memory import mib

    return f"{mib(value)} ({value} KiB)" if isinstance(value, int) else "-"


def _seconds(value: object) -> str:
    return f"{value / 1e9:.1f} s" if isinstance(value, int) else ""


def _clock(khz: object) -> str:
    return f"{khz} kHz" if isinstance(khz, int) else "unknown"


def _capabilities(value: object) -> str:
    words = {True: "yes", False: "no", None: "unknown"}
    items = value.items() if isinstance(value, dict) else ()
    return ", ".join(f"{name} {words[has]}" for name, has in items)
