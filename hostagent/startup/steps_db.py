"""Steps about the database and what belongs to the API: certificate, db.conf, engine, HA's gate.

A plan works on a copy of the database in a dry run, and else in a transaction that is undone.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import time
from typing import TYPE_CHECKING

from hostagent.db import local
from hostagent.db.errors import InUseError
from hostagent.dbsync import pool
from hostagent.errors import OperatorError
from hostagent.startup import network
from hostagent.startup.state import unknown
from hostagent.startup.step import Change, Changed, Context, EmergencyError, Outcome, Skipped, Unchanged
from hostagent.startup.steps_pool import HIDDEN, RANDOM_UUID

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hostagent.api.certificate import Found
    from hostagent.db.connections import Candidate, Opened
    from hostagent.db.database import Database
    from hostagent.db.dbconf import Connection
    from hostagent.db.transaction import Transaction
    from hostagent.dbsync.change import Change as RowChange
    from hostagent.hostinfo.facts import Facts

MADE, DAMAGED, SET_ASIDE = "(made)", "(damaged)", "(set aside)"


class _UndoneError(Exception):
    """Ends a plan's transaction."""


# what all of them use


def database_of(context: Context) -> Database:
    """The open database. Raises OperatorError while there is none."""
    if context.host.database is None:
        raise OperatorError(
            "the database is not known",
            hint="the daemon has it while it runs: ask it; once it is stopped, add --with-needs to open it here",
        )
    return context.host.database


def without_records(context: Context) -> Skipped | None:
    """Why a step about records does nothing on this host: those of a supporter are in its coordinator's database, which
    S26 and S27 are to reach. None where there is something to do.
    """
    role = context.host.role
    if context.host.database is not None or role is None or role.is_coordinator:
        return None
    return Skipped(f"this host is {role.word}: its records are in its coordinator's database")


def facts_of(context: Context) -> Facts:
    """What the host is: found out once per start. Raises OperatorError without an inventory."""
    from hostagent.hostinfo import facts

    host, paths = context.host, context.config.paths
    if host.facts is None:
        if host.inventory is None:
            raise unknown("the inventory", "read-inventory")
        context.progress("asking the hypervisor what this host is")
        host.facts = facts.gather(paths.root, host.inventory, agent_start=int(time.time()), run_dir=paths.run)
    return host.facts


def now() -> dt.datetime:
    """This moment, as the database writes it."""
    return dt.datetime.now(dt.UTC)


def write_rows(context: Context, work: Callable[[Transaction], Sequence[RowChange]]) -> Outcome:
    """Do the work in one durable transaction."""
    if skipped := without_records(context):
        return skipped
    with database_of(context).write() as transaction:
        changes = work(transaction)
    if not changes:
        return Unchanged()
    context.hold("rows-written")
    return Changed(tuple(Change(*change) for change in changes))


def plan_rows(context: Context, work: Callable[[Transaction], Sequence[RowChange]]) -> tuple[Change, ...]:
    """What the work would change. In a dry run the copy keeps it, so that the plans of later steps see it."""
    if without_records(context):
        return ()
    changes: Sequence[RowChange] = ()
    with contextlib.suppress(_UndoneError), to_plan_on(context).write() as transaction:
        changes = work(transaction)
        if context.host.scratch is None:
            raise _UndoneError
    return _with_unknown_uuids(context, tuple(Change(*change) for change in changes))


def _with_unknown_uuids(context: Context, changes: tuple[Change, ...]) -> tuple[Change, ...]:
    """A dry run before the first inventory: the run will make other uuids than these."""
    inventory = context.host.inventory
    if inventory is None or context.config.paths.inventory.exists():
        return changes

    def shown(text: str) -> str:
        for uuid in (inventory.installation_uuid, inventory.control_domain_uuid):
            text = text.replace(uuid, RANDOM_UUID)
        return text

    return tuple(
        Change(shown(change.what), change.old and shown(change.old), change.new and shown(change.new))
        for change in changes
    )


def to_plan_on(context: Context) -> Database:
    """The open database, or in a dry run a copy of it. Raises OperatorError."""
    host = context.host
    if host.database is not None and host.scratch is None:
        return host.database
    if host.scratch is None:
        if not context.dry_run:
            database_of(context)
        connections = _connections(context)
        host.scratch = _scratch(connections, _candidates(connections))
    return host.scratch


def _scratch(connections: Sequence[Connection], candidates: Sequence[Candidate]) -> Database:
    from hostagent.db.connections import open_scratch

    return open_scratch(connections, candidates)


# S3


def prepare_tls(context: Context) -> Outcome:
    """S3. Key and certificate that can be served: made at the first start, renewed by nobody but an operator.

    Raises FileError, BusyError; CertificateError when TLS cannot be spoken with them.
    """
    from hostagent.api import certificate
    from hostagent.hostinfo import address, system

    paths = context.config.paths
    changes = plan_tls(context)
    context.progress("looking at key and certificate")
    done = certificate.ensure(
        paths.server_certificate,
        paths.server_key,
        hostname=system.read(paths.root).hostname,
        addresses=address.of_all(address.look()),
    )
    if changes:
        context.hold("pair-written")
    certificate.server_context(paths.server_certificate, paths.server_key)
    context.host.certificate = done.certificate
    note = f"SHA-256 {done.certificate.sha256}, until {done.certificate.not_after:%Y-%m-%d}"
    return Changed(changes, note, done.warnings) if changes else Unchanged(note, done.warnings)


def plan_tls(context: Context) -> tuple[Change, ...]:
    """What `prepare_tls` would make, set aside or protect. Raises FileError."""
    from hostagent.api import certificate

    paths = context.config.paths
    found = certificate.look(paths.server_certificate, paths.server_key)
    return (*_aside(context, found), *_made(context, found))


def _aside(context: Context, found: Found) -> tuple[Change, ...]:
    from hostagent.api.certificate import State

    paths = context.config.paths
    if found.state is not State.DAMAGED:
        return ()
    there = (path for path in (paths.server_certificate, paths.server_key) if path.exists())
    return tuple(Change(str(path), DAMAGED, SET_ASIDE) for path in there)


def _made(context: Context, found: Found) -> tuple[Change, ...]:
    from hostagent.api.certificate import KEY_MODE, State

    paths = context.config.paths
    made = Change(str(paths.server_certificate), None, MADE)
    if found.state is State.GOOD:
        mode = paths.server_key.stat().st_mode & 0o7777
        wrong = Change(f"{paths.server_key} mode", f"{mode:04o}", f"{KEY_MODE:04o}")
        return (wrong,) if mode & 0o077 else ()
    if found.state is State.NO_CERTIFICATE:
        return (made,)
    return (Change(str(paths.server_key), None, HIDDEN), made)


# S20, S34


def check_ha_armed(context: Context) -> Outcome:
    """S20. HA is off unless the local database says that it was armed here. No HA layer is built, and a host that was
    armed must not run guests that others may have restarted: it goes into emergency mode.
    """
    store = context.host.local
    if store is None:
        raise unknown("the local database", "open-local-database")
    if not store.get(local.HA_ARMED):
        return Unchanged("HA is off")
    raise EmergencyError(
        "HA_HEARTBEAT_DAEMON_STARTUP_FAILED",
        f"{context.config.paths.local_database} says that HA is armed, and this hostagent has no HA",
        hint="make sure that no other host runs this host's guests; then set ha.armed to false in that file "
        "and restart hostagent",
    )


def sync_ha_state(context: Context) -> Outcome:
    """S34. The local database and the pool agree whether HA is on; the local one wins on a coordinator.

    Raises EmergencyError: HA is on in the pool of this supporter, and it is not armed.
    """
    if skipped := without_records(context):
        return skipped
    changes = plan_ha_state(context)
    store = context.host.local
    armed, enabled = _ha(context)
    if armed and not enabled and store is not None:
        store.put(local.HA_ARMED, value=False)
    with database_of(context).write() as transaction:
        _agree_on_ha(transaction, context, armed=armed)
    if changes:
        context.hold("rows-written")
    return Changed(changes) if changes else Unchanged("HA is on" if armed and enabled else "HA is off")


def plan_ha_state(context: Context) -> tuple[Change, ...]:
    """What `sync_ha_state` would change. Raises EmergencyError."""
    if without_records(context):
        return ()
    armed, enabled = _ha(context)
    if enabled and not armed and context.host.role is not None and not context.host.role.is_coordinator:
        raise EmergencyError(
            "HA_POOL_IS_ENABLED_BUT_HOST_IS_DISABLED",
            "the pool has HA on, and this host is not armed",
            hint="disable HA in the pool (pool.disable_ha), or take this host out of it",
        )
    flag = Change(f"{context.config.paths.local_database}#{local.HA_ARMED.name}", "true", "false")
    rows = plan_rows(context, lambda transaction: _agree_on_ha(transaction, context, armed=armed))
    return (*((flag,) if armed and not enabled else ()), *rows)


def _ha(context: Context) -> tuple[bool, bool]:
    """Whether this host is armed, and whether its pool has HA on."""
    store = context.host.local
    if store is None:
        raise unknown("the local database", "open-local-database")
    with to_plan_on(context).read() as view:
        return store.get(local.HA_ARMED), pool.ha_enabled(view)


def _agree_on_ha(transaction: Transaction, context: Context, *, armed: bool) -> list[RowChange]:
    changes = pool.dom0_runs(transaction, facts_of(context))
    return changes if armed else [*changes, *pool.ha_off(transaction)]


# S21, S22


def read_db_conf(context: Context) -> Outcome:
    """S21. Which files hold the database: those of db.conf, or the one there is without it. Raises DbConfError."""
    context.host.connections = _read_conf(context)
    return Unchanged(", ".join(str(one.path) for one in reversed(context.host.connections)))


def _read_conf(context: Context) -> tuple[Connection, ...]:
    from hostagent.db.dbconf import read_conf

    paths = context.config.paths
    return tuple(read_conf(paths.db_conf, paths.database))


def _connections(context: Context) -> tuple[Connection, ...]:
    if not context.host.connections:
        context.host.connections = _read_conf(context)
    return context.host.connections


def _candidates(connections: Sequence[Connection]) -> tuple[Candidate, ...]:
    from hostagent.db.connections import look_at_all

    return look_at_all(connections)


def start_database(context: Context) -> Outcome:
    """S22. Open the newest good database, mend references that lead nowhere, disable every host until its start-up is
    over. What was damaged is set aside. From then on calls can use it.

    Raises DatabaseError (disk full), InUseError, NewerSchemaError, DbConfError.
    """
    host = context.host
    connections = _connections(context)
    if host.inventory is None:
        raise unknown("the inventory", "read-inventory")
    if host.database is None:
        opened = _open(context, connections)
        host.database = opened.database
        files, warnings = _file_changes(connections, opened.candidates), opened.warnings
        context.hold("database-opened")
    else:
        files, warnings = (), ()
    with host.database.write() as transaction:
        rows = _first_pass(transaction)
    context.hold("rows-written")
    host.opened_at = host.opened_at or host.database.generation
    if host.hooks is not None:
        host.hooks.api.attach(host.database, host.inventory.installation_uuid)
    network.control_of(context.config, host)
    changes = (*files, *(Change(*change) for change in rows))
    note = f"{host.database.path}, generation {host.database.generation}"
    return Changed(changes, note, warnings) if changes else Unchanged(note, warnings)


def _open(context: Context, connections: Sequence[Connection]) -> Opened:
    from hostagent.db.connections import open_newest

    try:
        return open_newest(connections, context.config.paths.volatile_database)
    except InUseError as error:
        if context.host.hooks is not None:
            raise
        raise InUseError(
            f"{error.found}: the daemon has the database while it runs",
            hint="ask it: hostagent xe, hostagent status; or stop it first: systemctl stop hostagent",
        ) from error


def plan_start_database(context: Context) -> tuple[Change, ...]:
    """What `start_database` would change. Raises NewerSchemaError, DbConfError."""
    connections = _connections(context)
    if context.host.database is not None:
        return plan_rows(context, _first_pass)
    candidates = _candidates(connections)
    scratch = _scratch(connections, candidates)
    if context.dry_run:
        context.host.scratch = scratch
    try:
        with scratch.write() as transaction:
            rows = _first_pass(transaction)
    finally:
        if not context.dry_run:
            scratch.close()
    return (*_file_changes(connections, candidates), *(Change(*change) for change in rows))


def _file_changes(connections: Sequence[Connection], candidates: Sequence[Candidate]) -> tuple[Change, ...]:
    """What opening does to files: damaged ones go aside, the preferred one is made or gets the newest contents."""
    from hostagent.db.connections import newest, to_be_replaced

    aside = tuple(Change(str(one.connection.path), DAMAGED, SET_ASIDE) for one in candidates if one.trouble)
    preferred, best = connections[-1], newest(connections, candidates)
    own = next(one for one in candidates if one.connection is preferred)
    before = None if own.generation is None else f"generation {own.generation}"
    if best is None:
        return (*aside, Change(str(preferred.path), before, MADE))
    if not to_be_replaced(connections, best):
        return aside
    return (
        *aside,
        Change(str(preferred.path), before, f"generation {best.generation} of {best.connection.path}"),
    )


def _first_pass(transaction: Transaction) -> list[RowChange]:
    from hostagent.api import roles
    from hostagent.db import model
    from hostagent.db.collect import collect
    from hostagent.dbsync.change import Change as Row

    mended = collect(transaction, model.load())
    new_roles = [role for role in roles.DESCRIPTIONS if not transaction.exists("role", roles.ref_of(role))]
    roles.write_records(transaction)
    return [
        *(Row(f"role {role.label}", None, MADE) for role in new_roles),
        *(Row(f"{one.cls} {one.ref} {one.field}".rstrip(), one.target or None, one.remedy) for one in mended),
        *pool.hosts_disabled(transaction),
    ]
