"""Steps about PIF records and the other networks: what the kernel has, bonds and VLANs, NICs, idle bridges.

As in `steps_net.py`, a NIC that another network daemon configures is left to it.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

from hostagent.dbsync.change import Change as Row
from hostagent.errors import HostagentError
from hostagent.net import early, emergency, keys, nics
from hostagent.net.devices import GROUP
from hostagent.net.shown import args_of, names_in
from hostagent.netctl import objects_sync, observed
from hostagent.netctl.plug import Network
from hostagent.startup import network
from hostagent.startup.state import unknown
from hostagent.startup.step import Change, Context, Outcome, Skipped, Unchanged
from hostagent.startup.steps_db import database_of, now, plan_rows, to_plan_on, without_records, write_rows
from hostagent.startup.steps_net import (
    host_ref,
    inventory_of,
    operation_change,
    outcome_of,
    records_in,
    rows_of,
    scan_nics,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from hostagent.db.transaction import Transaction
    from hostagent.net.devices import Kernel
    from hostagent.net.operation import Plan
    from hostagent.net.records import Records
    from hostagent.netctl.control import Control

log = logging.getLogger(__name__)

NOSYNC = "nosync"
SYNC_PIFS = "sync_pif_params"
SYNC_VLANS = "sync_vlans"
CLEAN_PERIOD_S = 5400.0

# S28.s12, s13, m8


def mend_bonds_and_vlans(context: Context) -> Outcome:
    """S28.s12. Bonds and VLANs of this host are whole; from the coordinator nothing is copied (that is the pool's)."""
    warnings: list[str] = []
    skipped = _not_synced(context, SYNC_VLANS)
    if skipped:
        return skipped
    changes = rows_of(context, lambda transaction: _mend(transaction, context, warnings), plan=False)
    return outcome_of(changes, "", warnings)


def plan_bonds_and_vlans(context: Context) -> tuple[Change, ...]:
    if _not_synced(context, SYNC_VLANS):
        return ()
    return plan_rows(context, lambda transaction: _mend(transaction, context, []))


def _mend(transaction: Transaction, context: Context, warnings: list[str]) -> list[Row]:
    changes, told = objects_sync.mend(transaction, host_ref(transaction, context))
    warnings += told
    return changes


def record_attachment(context: Context) -> Outcome:
    """S28.s13. NICs have their PIFs, and PIFs say what the kernel has: attached, management, addresses of DHCP, MTU,
    carrier. In the daemon they follow it from then on.
    """
    skipped = _not_synced(context, SYNC_PIFS)
    if skipped:
        return skipped
    warnings: list[str] = []
    changes = [*scan_nics(context, warnings, plan=False), *rows_of(context, _observing(context), plan=False)]
    _follow(context)
    return outcome_of(changes, "", warnings)


def plan_attachment(context: Context) -> tuple[Change, ...]:
    if _not_synced(context, SYNC_PIFS):
        return ()
    return (*scan_nics(context, [], plan=True), *plan_rows(context, _observing(context)))


def _observing(context: Context) -> Callable[[Transaction], list[Row]]:
    kernel, moment = network.look(context.config), now()
    bridge = inventory_of(context).management_interface
    speed = network.speed_of(context.config)

    def work(transaction: Transaction) -> list[Row]:
        records = records_in(transaction, context, bridge)
        if records is None:
            return []
        return observed.write(transaction, observed.observe(records, kernel, speed=speed), moment)

    return work


def _follow(context: Context) -> None:
    """The daemon's records follow the kernel from now on."""
    host = context.host
    control = network.control_of(context.config, host)
    if host.hooks is None or control is None or host.keeper is not None:
        return
    host.keeper = network.keeper(context.config, host, control)
    host.keeper.start()


def recreate_vlans(context: Context) -> Outcome:
    """S28.m8. Every PIF with a VLAN tag has its VLAN object."""
    return write_rows(context, objects_sync.recreate_vlans)


def plan_vlans(context: Context) -> tuple[Change, ...]:
    return plan_rows(context, objects_sync.recreate_vlans)


def _not_synced(context: Context, key: str) -> Skipped | None:
    """Why an item is left out: an operator's wish in other_config of the pool or of this host."""
    if skipped := without_records(context):
        return skipped
    with to_plan_on(context).read() as view:
        configs = [record["other_config"] for _, record in view.records("pool")]
        if host := host_ref(view, context):
            configs.append(view.get("host", host, "other_config"))
    wanted = any(isinstance(config, dict) and config.get(key) == NOSYNC for config in configs)
    return Skipped(f"other_config has {key}={NOSYNC}") if wanted else None


# S42


def start_network_jobs(context: Context) -> Outcome:
    """S42. Every 90 minutes bridges go that nobody needs any more: those of internal networks whose last guest has
    left, and of networks that are gone.
    """
    host = context.host
    if host.scheduler is None:
        return Skipped("only the daemon has periodic jobs")
    control = network.control_of(context.config, host)
    if control is None:
        return Skipped("without a database there is no telling which bridges are needed")
    look = network.look
    host.scheduler.every(
        "clean up bridges", CLEAN_PERIOD_S, lambda: clean_bridges(control, look(context.config))
    )
    return Unchanged(f"every {CLEAN_PERIOD_S / 60:g} min")


def clean_bridges(control: Control, kernel: Kernel) -> tuple[str, ...]:
    """Remove bridges of ours that are empty and not needed; which. Raises BusyError, RolledBackError, NetlinkError."""
    busy = {link.master for link in kernel.links.values()}
    empty = [
        link.name
        for link in kernel.links.values()
        if link.kind == "bridge" and link.group == GROUP and link.ifindex not in busy
    ]
    if not empty or not isinstance(control.effect, Network):
        return ()
    with control.turn():
        with control.database.read() as view:
            idle = objects_sync.idle_bridges(view, control.host(view), empty)
            records = control.records(view) if idle else None
        return control.effect.remove_bridges(idle, records) if idle else ()


# S46


def make_internal_network(context: Context) -> Outcome:
    """S46. There is the network between host and guests, `xenapi`; its bridge is made when the first guest needs it."""
    return write_rows(context, objects_sync.internal_network)


def plan_internal_network(context: Context) -> tuple[Change, ...]:
    return plan_rows(context, objects_sync.internal_network)


# S47


def raise_networks(context: Context) -> Outcome:
    """S47. Bring up the other networks, each for itself: one that fails is a warning and stops no other. Of networks
    without a PIF, the bridges of those that persist are made (networking.md 1.6, 3.10). What is right is not touched;
    NICs that another daemon has are left to it, which is a warning for those that have settings here; so is what
    management stands on after rung 3 or 4 of the ladder; the management interface was S23's.
    """
    if skipped := without_records(context):
        return skipped
    control = network.control_of(context.config, context.host)
    if control is None:
        database_of(context)
        raise unknown("the inventory", "read-inventory")
    effect = Network(network.site(context.config, context.host, context.hold), boot=True)
    warnings: list[str] = []
    with control.turn():
        records, refs = _to_raise(context, effect, warnings)
        done, operations = _raise_all(context, effect, records, refs, warnings)
        bridges, made = _make_bridges(context, effect, records, warnings)
        changes = rows_of(context, lambda transaction: _mark_up(transaction, done), plan=False)
    count = len(done) + len(bridges)
    note = f"{count} networks" if count else "nothing to bring up"
    return outcome_of((*operations, *made, *changes), note, warnings)


def plan_networks(context: Context) -> tuple[Change, ...]:
    """What `raise_networks` would change."""
    if without_records(context):
        return ()
    effect = Network(network.site(context.config, context.host), boot=True)
    records, refs = _to_raise(context, effect, [])
    operations: list[Change] = []
    done: list[str] = []
    kernel = network.look(context.config)
    for group in _groups(effect, records, refs):
        try:
            operations += _operations(effect.planned(records, group), kernel)
            done += group
        except HostagentError:  # the run warns of it
            continue
    for ref in _persisting(records):
        with contextlib.suppress(HostagentError):  # as above
            operations += _operations(effect.planned_bridge(records, ref), kernel)
    return (*operations, *plan_rows(context, lambda transaction: _mark_up(transaction, done)))


def _to_raise(context: Context, effect: Network, warnings: list[str]) -> tuple[Records, list[str]]:
    """The records, and the PIFs to bring up: managed, not in a bond, physical or a bond or with addresses."""
    with to_plan_on(context).read() as view:
        records = records_in(view, context, effect.management_bridge())
    if records is None:
        raise unknown("the record of this host", "make-localhost")
    kernel = network.look(context.config)
    links = kernel.by_name()
    owners = network.around(context.config).owners
    management = early.management(records)
    since = nics.missing_since(network.folder(context.config) / nics.FILE)
    left = emergency.left(context.config.paths.run, records, kernel)
    refs = []
    for ref, pif in records.pifs.items():
        wanted = pif.physical or pif.bond_master_of or pif.ip_mode != "None" or pif.ipv6_mode != "None"
        if not wanted or not pif.managed or pif.bond_slave_of or (management and ref == management.ref):
            continue
        names = early.nics_of(records, pif)
        if names and not any(name in links for name in names):
            what = " ".join([", ".join(names), "is missing", since.get(pif.mac, "")]).strip()
            warnings.append(f"PIF {pif.uuid}: the NIC {what}")
        elif ref in left:
            warnings.append(left[ref])
        elif others := early.held(names, kernel, owners):
            told = [what for _, what in others]
            if pif.physical and (pif.ip_mode, pif.ipv6_mode) == ("None", "None"):
                log.info("%s", "; ".join(told))
            else:
                warnings += told
        else:
            refs.append(ref)
    return records, refs


def _groups(effect: Network, records: Records, refs: Sequence[str]) -> list[list[str]]:
    """All in one, if nothing speaks against any of them; else each for itself."""
    try:
        effect.planned(records, refs)
    except HostagentError:
        return [[ref] for ref in refs]
    return [list(refs)] if refs else []


def _raise_all(
    context: Context, effect: Network, records: Records, refs: Sequence[str], warnings: list[str]
) -> tuple[list[str], list[Change]]:
    """Those that are up, and what was done for it. One plan for all is fastest; where it fails, one for each."""
    done: list[str] = []
    operations: list[Change] = []
    kernel = network.look(context.config)
    groups = _groups(effect, records, refs)
    while groups:
        group = groups.pop(0)
        context.progress(f"{len(done)} of {len(refs)} networks")
        try:
            planned = effect.planned(records, group)
            with effect.bring_up(records, group, was=records):
                operations += _operations(planned, kernel)
            done += group
        except HostagentError as error:
            if len(group) > 1:
                groups = [[ref] for ref in group]
            else:
                warnings.append(f"PIF {records.pifs[group[0]].uuid} is not up: {error.found} ({error.hint})")
    return done, operations


def _persisting(records: Records) -> list[str]:
    """Networks that no PIF is on, and whose bridge is to be there all the same."""
    with_pif = {pif.network for pif in records.pifs.values()}
    return [
        ref
        for ref, one in records.networks.items()
        if ref not in with_pif and one.managed and one.bridge and keys.of_network(one.other_config).persist
    ]


def _make_bridges(
    context: Context, effect: Network, records: Records, warnings: list[str]
) -> tuple[list[str], list[Change]]:
    """The networks that persist and have their bridge, and what was done for it."""
    done: list[str] = []
    operations: list[Change] = []
    kernel = network.look(context.config)
    for ref in _persisting(records):
        try:
            planned = effect.planned_bridge(records, ref)
            with effect.attach(records, ref, was=records):
                operations += _operations(planned, kernel)
            done.append(ref)
        except HostagentError as error:
            warnings.append(
                f"network {records.networks[ref].uuid} has no bridge: {error.found} ({error.hint})"
            )
    return done, operations


def _operations(planned: Plan, kernel: Kernel) -> list[Change]:
    names = names_in(planned, kernel)
    return [operation_change(step.do.verb, step.do.device, args_of(step.do, names)) for step in planned.steps]


def _mark_up(transaction: Transaction, refs: Iterable[str]) -> list[Row]:
    changes = []
    for ref in refs:
        record = transaction.record("PIF", ref)
        if transaction.set("PIF", ref, "currently_attached", True):  # noqa: FBT003 - a field's value
            changes.append(Row(f"{objects_sync.pif_name(record)}.currently_attached", "false", "true"))
    return changes
