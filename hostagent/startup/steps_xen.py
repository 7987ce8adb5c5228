"""Steps about Xen: dom0's identity, its xenstore keys, the start-up checks, its memory."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING

from hostagent.errors import KernelError
from hostagent.startup import checks
from hostagent.startup.checks import Severity
from hostagent.startup.report import read_boot_id
from hostagent.startup.state import unknown
from hostagent.startup.step import Change, Changed, Context, Outcome, Unchanged
from hostagent.startup.steps_pool import RANDOM_UUID
from hostagent.xen import balloon, hypercall, memory, xenstored
from hostagent.xen.balloon import STATIC_MAX, TARGET
from hostagent.xen.xenstore_errors import XenstoreDeadline, XenstoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hostagent.xen.xenstore import Transaction, Xenstore

NO_HANDLE = "00000000-0000-0000-0000-000000000000"
DOM0 = "/local/domain/0"
TRY_AGAIN_S = 0.25
"""Between two tries to reach xenstored: a listening socket cannot be awaited."""
SETTLE_S = 10.0
"""What `balloon.set_target` may take beyond its deadline to leave dom0 with a safe target (5 s at the most)."""


class IdentityError(KernelError):
    """dom0's handle in the hypervisor and the inventory name different domains."""


def check_control_domain(context: Context) -> Outcome:
    """S11. Compare dom0's handle in the hypervisor with the inventory; neither is ever changed.

    Raises IdentityError: another handle than the inventory's. BindingError: the hypervisor cannot be asked.
    """
    if context.host.inventory is None:
        raise unknown("the inventory", "read-inventory")
    wanted = context.host.inventory.control_domain_uuid
    found = hypercall.domain(0).handle
    if found == NO_HANDLE:
        return Unchanged("dom0's handle is not set by the platform (normal on Debian)")
    if found != wanted:
        raise IdentityError(
            f"the hypervisor calls dom0 {found}, {context.config.paths.inventory} says {wanted}",
            hint="cloned image? Each host needs an inventory of its own: if this one is not in use yet, "
            f"move the inventory and {context.config.paths.local_database} away and restart hostagent; "
            "else correct CONTROL_DOMAIN_UUID",
        )
    return Unchanged(f"dom0 is {found}")


def write_xenstore_keys(context: Context) -> Outcome:
    """S13. Write what xenstore lacks about dom0, in one transaction; what is there stays as it is. Remember which
    xenstored it is, so that one that was started again is seen.

    Raises XenstoreUnavailable and the other errors of the xenstore client.
    """
    wanted = dom0_keys(context)
    with connect_xenstore(context) as store:
        found = store.read_many(wanted)
        missing = _missing(wanted, found)
        changes = (*missing, *_first_contact(context))
        if missing:
            store.transact(lambda transaction: _write_missing(transaction, wanted))
            context.hold("keys-written")
        xenstored.remember(store, root=context.config.paths.root, run_dir=context.config.paths.run)
    warnings = tuple(
        f"{path} is {value.decode(errors='replace')!r}, expected {wanted[path]!r}; left as it is"
        for path, value in found.items()
        if value is not None and value.decode(errors="replace") != wanted[path]
    )
    return Changed(changes, warnings=warnings) if changes else Unchanged(warnings=warnings)


def plan_xenstore_keys(context: Context) -> tuple[Change, ...]:
    wanted = dom0_keys(context)
    with connect_xenstore(context) as store:
        missing = _missing(wanted, store.read_many(wanted))
    if context.host.inventory is not None and not context.config.paths.inventory.exists():
        missing = _with_unknown_uuid(missing, context.host.inventory.control_domain_uuid)
    return (*missing, *_first_contact(context))


def _with_unknown_uuid(changes: tuple[Change, ...], uuid: str) -> tuple[Change, ...]:
    """A dry run before the first inventory: the run will make another uuid than this one."""

    def shown(text: str | None) -> str | None:
        return None if text is None else text.replace(uuid, RANDOM_UUID)

    return tuple(
        Change(change.what.replace(uuid, RANDOM_UUID), change.old, shown(change.new)) for change in changes
    )


def _first_contact(context: Context) -> tuple[Change, ...]:
    """Our mark in xenstore, made once a boot: a xenstored without it was started again."""
    paths = context.config.paths
    if xenstored.is_remembered(root=paths.root, run_dir=paths.run):
        return ()
    return (Change(xenstored.MARK, None, read_boot_id(paths.root)),)


def dom0_keys(context: Context) -> dict[str, str]:
    """What the toolstack keeps about dom0 in xenstore (storage-memory-xenstore 1.3): path → value."""
    if context.host.inventory is None:
        raise unknown("the inventory", "read-inventory")
    uuid = context.host.inventory.control_domain_uuid
    return {
        f"{DOM0}/name": "Domain-0",
        f"{DOM0}/domid": "0",
        f"{DOM0}/vm": f"/vm/{uuid}",
        f"/vm/{uuid}/uuid": uuid,
        f"/vm/{uuid}/name": "Domain-0",
        f"/vm/{uuid}/domains/0": DOM0,
        f"/vm/{uuid}/domains/0/create-time": "0",
    }


def _missing(wanted: Mapping[str, str], found: Mapping[str, bytes | None]) -> tuple[Change, ...]:
    return tuple(Change(path, None, value) for path, value in wanted.items() if found[path] is None)


def _write_missing(transaction: Transaction, wanted: Mapping[str, str]) -> None:
    for path, value in wanted.items():
        if transaction.read(path) is None:
            transaction.write(path, value.encode())


def connect_xenstore(context: Context) -> Xenstore:
    """A connection to xenstored, which gets `xenstore.wait` seconds in all from the first try of a sequence
    on.

    Raises XenstoreUnavailable or XenstoreDeadline: it did not answer by then.
    """
    from hostagent.xen.xenstore import Xenstore

    host = context.host
    if host.xenstore_deadline is None:
        host.xenstore_deadline = time.monotonic() + context.config.xenstore_wait_s
    while True:
        try:
            return Xenstore.connect()
        except (XenstoreUnavailable, XenstoreDeadline) as error:
            if time.monotonic() > host.xenstore_deadline:
                raise
            context.progress(f"waiting for xenstored: {error.found}")
            time.sleep(TRY_AGAIN_S)


def run_startup_checks(context: Context) -> Outcome:
    """S15. Look whether dom0 has running what it needs; load the kernel modules it lacks. All checks are
    made.

    Raises CheckError when a fatal one failed. Findings that forbid enabling the host go to `host.blockers`.
    """
    wanted = checks.missing_modules(context.config.paths.root)
    changes = plan_startup_checks(context)
    refused = checks.load_modules(wanted, context.progress)
    context.hold("modules-loaded")
    findings = (*checks.run_all(context, lambda: connect_xenstore(context)), *refused.values())
    for finding in findings:
        if finding.severity is Severity.BLOCKS_ENABLING:
            context.host.blockers.append(finding.found)
    fatal = [finding for finding in findings if finding.severity is Severity.FATAL]
    if fatal:
        raise checks.CheckError(fatal, findings)
    loaded = tuple(change for change in changes if change.what.removeprefix(checks.MODULE) not in refused)
    note = f"{len(checks.CHECKS)} checks made, {len(findings)} complaints"
    warnings = tuple(f"{finding.found}; {finding.hint}" for finding in findings)
    return Changed(loaded, note, warnings) if loaded else Unchanged(note, warnings)


def plan_startup_checks(context: Context) -> tuple[Change, ...]:
    names = checks.missing_modules(context.config.paths.root)
    return tuple(Change(f"{checks.MODULE}{name}", None, "loaded") for name in names)


def set_dom0_memory(context: Context) -> Outcome:
    """S31. Give dom0 the configured amount of memory and wait until it has it. Without a configured amount the
    target that xenstore has stands, as somebody may just be moving dom0; only missing keys are made, from the
    driver's own target (storage-memory-xenstore 2.7).

    Raises the errors of `balloon.set_target`, which ends before this step's deadline; dom0 keeps a safe size then.
    """
    begun = time.monotonic()
    wanted_mib = context.config.dom0_memory_mib
    with connect_xenstore(context) as store:
        if wanted_mib is None:
            return _make_memory_keys(context, store)
        result = balloon.set_target(
            wanted_mib * 1024,
            store,
            timeout_s=_time_to_move(context.timeout_s - (time.monotonic() - begun)),
            root=context.config.paths.root,
            run_dir=context.config.paths.run,
            progress=context.progress,
        )
        if not result.changed:
            return Unchanged(f"dom0 has {result.after.driver_current_kib} KiB")
        context.hold("target-reached")
        _resize(context, result.after.dom0_kib)
        note = f"dom0 has {result.after.driver_current_kib} KiB, Xen {result.after.free_kib} KiB free"
        return Changed(tuple(Change(one.what, one.old, one.new) for one in result.plan.changes), note)


def plan_dom0_memory(context: Context) -> tuple[Change, ...]:
    wanted_mib = context.config.dom0_memory_mib
    with connect_xenstore(context) as store:
        if wanted_mib is None:
            found = store.read_many((TARGET, STATIC_MAX))
            return _memory_key_changes(found, _wanted_memory_keys(context, store, found))
        now = balloon.snapshot(store, root=context.config.paths.root, run_dir=context.config.paths.run)
        plan = memory.plan(now, wanted_mib * 1024)
    if context.dry_run:
        _resize(context, now.dom0_kib + plan.target_kib - now.driver_current_kib)
    return tuple(Change(one.what, one.old, one.new) for one in plan.changes)


def _resize(context: Context, dom0_kib: int) -> None:
    """The steps that follow record this size (S28.s8), and not the one of before."""
    facts = context.host.facts
    if facts is not None:
        resized = dataclasses.replace(facts.memory, dom0=dom0_kib * 1024)
        context.host.facts = dataclasses.replace(facts, memory=resized)


def _time_to_move(left_s: float) -> float:
    """How long dom0 may move: what is left of the step's time, less what stopping it safely can take."""
    return max(0.0, left_s - min(SETTLE_S, left_s / 2))


def _make_memory_keys(context: Context, store: Xenstore) -> Outcome:
    found = store.read_many((TARGET, STATIC_MAX))
    wanted = _wanted_memory_keys(context, store, found)
    if not wanted:
        return Unchanged(
            f"dom0's target stays {memory.parse_key_kib(found[TARGET])} KiB: dom0.memory is not set"
        )

    def write(transaction: Transaction) -> None:
        transaction.must_exist(DOM0)
        for path, kib in wanted.items():
            if memory.parse_key_kib(transaction.read(path)) is None:
                transaction.write(path, str(kib).encode())

    store.transact(write)
    context.hold("keys-written")
    return Changed(_memory_key_changes(found, wanted), "dom0.memory is not set: dom0 keeps its size")


def _wanted_memory_keys(
    context: Context, store: Xenstore, found: Mapping[str, bytes | None]
) -> dict[str, int]:
    """The memory keys that are missing, or no numbers (which the kernel ignores), with their values in KiB."""
    missing = [path for path in (TARGET, STATIC_MAX) if memory.parse_key_kib(found[path]) is None]
    if not missing:
        return {}
    now = balloon.snapshot(store, root=context.config.paths.root, run_dir=context.config.paths.run)
    memory.refuse_stale(now)
    values = {TARGET: now.driver_target_kib, STATIC_MAX: memory.first_static_max_kib(now)}
    return {path: values[path] for path in missing}


def _memory_key_changes(found: Mapping[str, bytes | None], wanted: Mapping[str, int]) -> tuple[Change, ...]:
    old = {path: None if value is None else value.decode(errors="replace") for path, value in found.items()}
    return tuple(Change(path, old[path], str(kib)) for path, kib in wanted.items())
