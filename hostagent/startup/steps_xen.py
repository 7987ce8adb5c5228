"""Steps about Xen: dom0's identity, its xenstore keys, the start-up checks, its memory."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from hostagent.errors import KernelError, OperatorError
from hostagent.startup import checks
from hostagent.startup.checks import Severity
from hostagent.startup.report import read_boot_id
from hostagent.startup.state import unknown
from hostagent.startup.step import Change, Changed, Context, Outcome, Unchanged
from hostagent.xen import hypercall, xenstored
from hostagent.xen.balloon import DRIVER
from hostagent.xen.xenstore_errors import XenstoreDeadline, XenstoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hostagent.xen.xenstore import Transaction, Xenstore

NO_HANDLE = "00000000-0000-0000-0000-000000000000"
DOM0 = "/local/domain/0"
TRY_AGAIN_S = 0.25
"""Between two tries to reach xenstored: a listening socket cannot be awaited."""


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
            "move the inventory away and restart hostagent; else correct CONTROL_DOMAIN_UUID",
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
        return (*_missing(wanted, store.read_many(wanted)), *_first_contact(context))


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
    """S31. Give dom0 the configured amount of memory, by default what it has, and wait until it has it.

    Raises the errors of `balloon.set_target`; dom0 keeps a safe size then.
    """
    from hostagent.xen import balloon

    root = context.config.paths.root
    with connect_xenstore(context) as store:
        result = balloon.set_target(_dom0_target_kib(context), store, root=root, progress=context.progress)
        if not result.changed:
            return Unchanged(f"dom0 has {result.after.driver_current_kib} KiB")
        context.hold("target-reached")
        note = f"dom0 has {result.after.driver_current_kib} KiB, Xen {result.after.free_kib} KiB free"
        return Changed(tuple(Change(one.what, one.old, one.new) for one in result.plan.changes), note)


def plan_dom0_memory(context: Context) -> tuple[Change, ...]:
    from hostagent.xen import balloon, memory

    with connect_xenstore(context) as store:
        now = balloon.snapshot(store, root=context.config.paths.root)
        plan = memory.plan(now, _dom0_target_kib(context))
    return tuple(Change(one.what, one.old, one.new) for one in plan.changes)


def _dom0_target_kib(context: Context) -> int:
    """What the settings say, else what dom0 has now."""
    if context.config.dom0_memory_mib is not None:
        return context.config.dom0_memory_mib * 1024
    size = context.config.paths.root / DRIVER / "info/current_kb"
    try:
        return int(size.read_text())
    except (OSError, ValueError) as error:
        raise OperatorError(
            f"dom0's size cannot be read from {size}: {error}",
            hint="is this a Debian kernel, booted under Xen?",
        ) from error
