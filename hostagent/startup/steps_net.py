"""The step that brings the management interface up, and what it shares with the other steps about the network.

A NIC that another network daemon configures is left to it until `hostagent net adopt` has taken it over: on such a host
the management interface is that NIC itself, and these steps change nothing of it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from hostagent.db.errors import UuidInvalidError
from hostagent.errors import HostagentError, KernelError
from hostagent.net import cache, early, emergency, journal, later_boot, nics
from hostagent.net.devices import GROUP
from hostagent.net.unfinished import state_of, unfinished
from hostagent.netctl import generation, objects_sync, observed
from hostagent.netctl.from_database import records_of
from hostagent.startup import network
from hostagent.startup.state import unknown
from hostagent.startup.step import Change, Changed, Context, Outcome, Unchanged
from hostagent.startup.steps_db import now, plan_rows, to_plan_on, without_records, write_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from hostagent.db.transaction import Transaction
    from hostagent.db.view import View
    from hostagent.dbsync.change import Change as RowChange
    from hostagent.net.devices import Kernel
    from hostagent.net.records import Pif, Records
    from hostagent.xen.inventory import Inventory

UNDONE, KEPT, SET_ASIDE = "(undone)", "(kept)", "(set aside)"
LOCK_S = 30.0


def inventory_of(context: Context) -> Inventory:
    if context.host.inventory is None:
        raise unknown("the inventory", "read-inventory")
    return context.host.inventory


def host_ref(view: View, context: Context) -> str:
    """This host's, empty before its record is made."""
    try:
        return view.by_uuid("host", inventory_of(context).installation_uuid)
    except UuidInvalidError:
        return ""


def records_in(view: View, context: Context, bridge: str) -> Records | None:
    host = host_ref(view, context)
    return records_of(view, host, bridge) if host else None


def outcome_of(changes: Sequence[Change], note: str, warnings: Sequence[str]) -> Outcome:
    told = tuple(dict.fromkeys(warnings))
    return Changed(tuple(changes), note, told) if changes else Unchanged(note, told)


# S23


def raise_management(context: Context) -> Outcome:
    """S23. Undo what an earlier run left half done, give new NICs their PIFs, bring the management interface up (or
    climb the emergency ladder), and listen for HTTPS on its address. Where another daemon has the NIC, only listen.

    Raises KernelError when the interface is down after all; NetlinkError, FileError.
    """
    config, host = context.config, context.host
    warnings: list[str] = []
    changes = list(_mend_journal(context, warnings, dry=False))
    followed = _follow_database(context, dry=False, undone=any(one.new == UNDONE for one in changes))
    warnings += [
        f"the inventory named {one.old} as the management interface, the database has {one.new}: that is taken"
        for one in followed
    ]
    changes += [*followed, *scan_nics(context, warnings, plan=False)]
    changes += _choose_management(context, dry=False)
    bridge, family = inventory_of(context).management_interface, inventory_of(context).management_address_type
    context.progress(f"bringing up {bridge or 'no management interface'}")
    waiting = _waiting(context)
    raised = early.Raised(early.FOREIGN, (waiting,)) if waiting else _raise(context, bridge)
    changes += [operation_change(op["verb"], op["device"], op["args"]) for op in raised.operations]
    told = [line for line in raised.told if line]
    try:
        where = network.serve(config, host, bridge, family.value)
    except HostagentError as error:
        where = ""
        warnings.append(f"no HTTPS for others: {error.found} ({error.hint})")
    if raised.outcome == early.DOWN:
        raise KernelError(
            f"the management interface {bridge} did not come up: {'; '.join(told)}",
            hint="hostagent net status; hostagent pif explain; the console has the tries in order",
        )
    if raised.outcome == early.UP:
        warnings += told
    else:
        warnings += [line for line in told if raised.outcome == early.FOREIGN]
    note = _where(context, bridge, family.value, where)
    return outcome_of(changes, note, warnings)


def plan_management(context: Context) -> tuple[Change, ...]:
    """What `raise_management` would change."""
    mended = _mend_journal(context, [], dry=True)
    followed = _follow_database(context, dry=True, undone=any(one.new == UNDONE for one in mended))
    scanned = scan_nics(context, [], plan=True)
    chosen = () if followed else _choose_management(context, dry=True)
    bridge = inventory_of(context).management_interface
    if picked := (*followed, *chosen):
        bridge = picked[0].new or bridge
    records = _of_database(context, bridge) or _of_cache(context)
    operations: Iterable[Any] = ()
    if not _waiting(context) and records is not None and (pif := early.management(records)) is not None:
        from hostagent.net import bring

        around = network.around(context.config)
        with network.opened(context.config, bridge) as opened:
            kernel = opened.tools.netlink.look()
            alone = early.left_alone(records, pif, kernel, around.owners)
            if not alone and not early.on_rung(records, pif, opened.run, kernel):
                request = bring.Request(bring.UP, pif=pif.ref, management=True, mode=bring.PLAN)
                found = cache.Found(cache.Cached(records, 0))
                operations = bring.bring(request, found, opened)["operations"]
    return (
        *mended,
        *followed,
        *scanned,
        *chosen,
        *(operation_change(op["verb"], op["device"], op["args"]) for op in operations),
    )


def _mend_journal(context: Context, warnings: list[str], *, dry: bool) -> tuple[Change, ...]:
    """A change that a kill or a power cut left in the middle is undone, or kept where the database has it.

    Who made it is gone when its lock is free; only one that waits for an operator's confirmation is left to its timer.
    What cannot be resolved is a warning: the management interface is brought up all the same.
    """
    folder, lost = network.folder(context.config), False
    left = None
    try:
        left = journal.pending(folder)
    except HostagentError:
        lost = True
    if left is None and not lost:
        return ()
    records = _of_database(context, inventory_of(context).management_interface)
    digest = state_of(records) if records is not None else ""
    bridge = inventory_of(context).management_interface
    if dry:
        if left is None:
            return (Change(str(folder / journal.NAME), "(damaged)", SET_ASIDE),)
        with network.opened(context.config, bridge) as opened:
            here = left.boot_id == opened.boot
            if here and left.state == journal.WAITING and opened.waiting():
                return ()
            decided = later_boot.decided(opened, left)
        if here and left.state == journal.UNDO_FAILED:
            return ()
        kept = decided or (here and left.state == journal.APPLIED and digest and left.digest == digest)
        return (Change(f"network change '{left.what}'", left.state, KEPT if kept else UNDONE),)
    try:
        with (
            network.opened(context.config, bridge) as opened,
            journal.Lock(folder, opened.by, wait_s=LOCK_S, sleep=opened.wait),
        ):
            done = unfinished(opened, digest)
    except HostagentError as error:
        warnings.append(
            f"what is left of an earlier network change was not resolved: {error.found} ({error.hint})"
        )
        return ()
    if not done:
        return ()
    context.hold("change-mended")
    kept = done.startswith("kept")
    if not kept:
        warnings.append(done)
    if left is None:
        return (Change(str(folder / journal.NAME), "(damaged)", SET_ASIDE),)
    if journal.pending(folder) is not None:  # undone in part, as the warning tells
        return ()
    return (Change(f"network change '{left.what}'", left.state, KEPT if kept else UNDONE),)


def _waiting(context: Context) -> str:
    """That a change waits for an operator's confirmation, in words: meanwhile nothing else is changed."""
    try:
        left = journal.pending(network.folder(context.config))
    except HostagentError:
        return ""
    if left is None or left.state != journal.WAITING:
        return ""
    with network.opened(context.config, "") as opened:
        if left.boot_id != opened.boot or not opened.waiting():
            return ""
    return f"{left.what} waits for its confirmation: the management interface is left as it is"


def _follow_database(context: Context, *, dry: bool, undone: bool) -> tuple[Change, ...]:
    """A move of the management interface that was broken off between inventory and database: the inventory says so, or
    names what has no address, or is not there, or what the change was to make that was just `undone`; and the database
    has another one, with its address. Its word counts: it is the last to be written.
    """
    named = inventory_of(context).management_interface
    records = _of_database(context, named) if named else None
    if records is None:
        return ()
    flagged = [pif for pif in records.pifs.values() if pif.management and _addressed(pif)]
    if len(flagged) != 1 or records.networks[flagged[0].network].bridge in ("", named):
        return ()
    bridge, family = records.networks[flagged[0].network].bridge, flagged[0].primary_address_type
    there = early.management(records)
    link = network.look(context.config).by_name().get(named)
    if there is None and link is not None and link.group != GROUP:
        return ()
    moving = inventory_of(context).values.get(network.FORMER) == bridge
    if there is not None and _addressed(there) and not undone and not moving:
        return ()
    if not dry:
        network.set_management(context.config, context.host, bridge, family)
        context.hold("inventory-written")
    return (Change(f"{context.config.paths.inventory}#MANAGEMENT_INTERFACE", named, bridge),)


def _addressed(pif: Pif) -> bool:
    return pif.ip_mode != "None" or pif.ipv6_mode != "None"


def _choose_management(context: Context, *, dry: bool) -> tuple[Change, ...]:
    """On a host that never had one, the management interface is the device with the default route; and where the bridge
    that is named is not there, and its NIC is another daemon's: a takeover was broken off before that let go of it.
    """
    found = inventory_of(context)
    kernel = network.look(context.config)
    present = found.management_interface
    if found.values.get(network.DISABLED) == "true" or present in kernel.by_name():
        return ()
    if present and _is_ours(context, present, kernel):
        return ()
    device = observed.default_device(kernel)
    if not device or device == present:
        return ()
    family = "IPv4" if observed.management_address(kernel, device, "IPv4") else "IPv6"
    changes = [Change(f"{context.config.paths.inventory}#MANAGEMENT_INTERFACE", present, device)]
    if family != found.management_address_type.value:
        what = f"{context.config.paths.inventory}#MANAGEMENT_ADDRESS_TYPE"
        changes.append(Change(what, found.management_address_type.value, family))
    if not dry:
        network.set_management(context.config, context.host, device, family)
        context.hold("inventory-written")
    return tuple(changes)


def _is_ours(context: Context, bridge: str, kernel: Kernel) -> bool:
    """Whether a network of this host has that bridge, which is not there, and it is ours to make."""
    records = _of_database(context, bridge) or _of_cache(context)
    if records is None or (pif := early.management(records := records._replace(bridge=bridge))) is None:
        return False
    alone = early.left_alone(records, pif, kernel, network.around(context.config).owners)
    return alone is None or alone.outcome != early.FOREIGN


def _of_database(context: Context, bridge: str) -> Records | None:
    """None where there is no database, or no record of this host in it."""
    if without_records(context) or (context.host.database is None and not context.dry_run):
        return None
    with to_plan_on(context).read() as view:
        return records_in(view, context, bridge)


def _of_cache(context: Context) -> Records | None:
    try:
        found = cache.read(network.folder(context.config), inventory_of(context).installation_uuid)
    except cache.CacheError:
        return None
    return found.cached.records


def _raise(context: Context, bridge: str) -> early.Raised:
    config = context.config
    records = _of_database(context, bridge)
    told: tuple[str, ...] = ()
    if records is not None and early.management(records) is not None:
        found = cache.Found(generation.keep(network.folder(config), records))
    else:
        try:
            found = cache.read(network.folder(config), inventory_of(context).installation_uuid)
        except cache.CacheError:
            return early.Raised(early.NONE, (f"{bridge} is not made by us" if bridge else "",))
        told = found.told
        if found.cached.records.bridge != bridge:
            return early.Raised(early.NONE, told)
    with network.opened(config, bridge) as host:
        opened = network.holding(host, context.hold)
        until = opened.clock() + context.timeout_s - early.TIMEOUT_S
        raised = early.raise_management(found, opened, network.around(config), until=until)
    return raised._replace(told=(*told, *raised.told))


def _where(context: Context, bridge: str, family: str, listening: str) -> str:
    if not bridge:
        off = inventory_of(context).values.get(network.DISABLED) == "true"
        return "management is disabled" if off else "no management interface: nothing has a default route"
    kernel = network.look(context.config)
    bridge = emergency.in_place_of(context.config.paths.run, bridge, kernel)
    address = observed.management_address(kernel, bridge, family)
    if not address:
        return f"{bridge} has no {family} address yet; HTTPS listens once it has one"
    return f"{bridge}, {address}" + (f"; HTTPS on {listening}" if listening else "")


def operation_change(verb: str, device: str, args: object) -> Change:
    told = json.dumps(args, sort_keys=True, default=dict)
    old = "(there)" if verb.endswith("-del") else None
    return Change(f"{verb} {device or 'resolver'}", old, told if args else None)


# NICs and PIFs


def scan_nics(context: Context, warnings: list[str], *, plan: bool) -> tuple[Change, ...]:
    """Every NIC has its PIF; positions are kept in a file. Skipped while the host has no record, and where it is not
    known which NICs the host boots from: one of them in a bridge would cost it its root disk.
    """
    if _of_database(context, "") is None:
        return ()
    try:
        found = network.assigned(context.config, network.look(context.config))
        warnings += found.problems
        stored = _positions(context, found.changes)
        if not plan:
            network.keep_positions(context.config, found)
        present = network.with_policy(context.config, found.nics)
    except HostagentError as error:
        warnings.append(f"{error.found} ({error.hint})")
        return ()
    bridge, moment = inventory_of(context).management_interface, now()

    def work(transaction: Transaction) -> list[RowChange]:
        host = host_ref(transaction, context)
        return objects_sync.scan(transaction, host, present, bridge, moment) if host else []

    return (*stored, *rows_of(context, work, plan=plan))


def rows_of(
    context: Context, work: Callable[[Transaction], list[RowChange]], *, plan: bool
) -> tuple[Change, ...]:
    if plan:
        return plan_rows(context, work)
    outcome = write_rows(context, work)
    return outcome.changes if isinstance(outcome, Changed) else ()


def _positions(context: Context, changes: Iterable[Any]) -> tuple[Change, ...]:
    path = network.folder(context.config) / nics.FILE
    return tuple(
        Change(f"{path}#{one.position} {one.what}", one.before or None, one.after or None) for one in changes
    )
