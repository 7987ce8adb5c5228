"""Steps about the process and its state files: settings, role, inventory, local database, secret,
notifications.
"""

from __future__ import annotations

import errno
import os
import platform
import shlex
import signal
import sys
import time
from typing import TYPE_CHECKING

from hostagent import __version__, log
from hostagent.config import ConfigError, line_of
from hostagent.db import local
from hostagent.errors import KernelError
from hostagent.files import FileError, read_bounded, write_atomic
from hostagent.startup import role, secret
from hostagent.startup.report import read_boot_id
from hostagent.startup.state import BOOT_RECORD_LIMIT_BYTES, anew, has_started, recorded_boot, unknown
from hostagent.startup.step import Change, Changed, Context, EmergencyError, Outcome, Skipped, Unchanged
from hostagent.xen import hypercall, inventory

if TYPE_CHECKING:
    from pathlib import Path

    from hostagent.db.local import LocalStore

HIDDEN = "(secret)"
RANDOM_UUID = "(a random uuid)"
HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
ENTROPY_LOOK_BYTES = 1


def parse_command_line(context: Context) -> Outcome:
    """S1. The parser refused unknown arguments (exit 2) already; record what the process was given."""
    return Unchanged(f"arguments: {shlex.join(context.host.arguments) or 'none'}")


def read_configuration(context: Context) -> Outcome:
    """S2. Tell which settings are in force, or why none could be read.

    Raises ConfigError: what `config.load` found, or a deadline for a step that does not exist.
    """
    if context.host.config_error is not None:
        raise context.host.config_error
    _refuse_unknown_steps(context)
    files = ", ".join(str(path) for path in context.host.settings_files)
    return Unchanged(f"read {files}" if files else f"no {context.config.paths.settings}: defaults")


def _refuse_unknown_steps(context: Context) -> None:
    from hostagent.startup.table import ALIASES, STEPS

    known = {step.name for step in STEPS} | set(ALIASES)
    for name in context.config.timeouts_s.keys() - known:
        key = f"timeouts.{name}"
        for path in context.host.settings_files:
            if line := line_of(path.read_text(errors="replace"), key):
                key = f"{path}: line {line}: {key}"
        raise ConfigError(f"{key}: there is no such step", hint="`hostagent startup list` shows the names")


def set_up_logging(context: Context) -> Outcome:
    """S4. Put the configured log levels in force."""
    if context.host.hooks is None:
        return Skipped("only the daemon keeps a log")
    log.set_levels(context.config.log_level, context.config.log_modules)
    parts = [
        context.config.log_level,
        *(f"{name} {level}" for name, level in context.config.log_modules.items()),
    ]
    return Unchanged(f"level {', '.join(parts)}")


def announce_start(context: Context) -> Outcome:
    """S5. Read the pool role and whether this is the first start of this boot, and say who starts.

    A host that has never started becomes its own coordinator. Raises RoleError, FileError; EmergencyError
    when the role is `broken`.
    """
    host, paths = context.host, context.config.paths
    changes = plan_role(context)
    if changes:
        role.write_role(paths.role, role.COORDINATOR)
        context.hold("role-written")
    host.role = role.read_role(paths.role)
    host.boot_id = read_boot_id(paths.root)
    host.on_system_boot = recorded_boot(paths.run) != host.boot_id
    note = (
        f"hostagent {__version__} pid {os.getpid()}, {host.role.word}, "
        f"{'first start of' if host.on_system_boot else 'again in'} boot {host.boot_id}"
    )
    if host.role == role.BROKEN:
        raise EmergencyError(
            "HOST_BROKEN",
            f"{paths.role} says `broken`: this host lost its place in the pool",
            hint="write `master`, or `slave:ADDRESS` of the coordinator, into it, and restart hostagent",
        )
    return Changed(changes, note) if changes else Unchanged(note)


def plan_role(context: Context) -> tuple[Change, ...]:
    """The role a host gets at its very first start. Raises RoleError when the role file is lost later, FileError."""
    paths = context.config.paths
    try:
        role.read_role(paths.role)
    except FileError as error:
        if error.errno != errno.ENOENT:
            raise
    else:
        return ()
    if has_started(paths):
        raise role.RoleError(
            f"{paths.role} is gone, though this host has started before",
            hint="write `master` for a host of its own, or `slave:ADDRESS` of its coordinator; start again",
        )
    if context.dry_run:
        context.host.role = role.COORDINATOR
    return (Change(str(paths.role), None, role.format_role(role.COORDINATOR)),)


def read_inventory(context: Context) -> Outcome:
    """S6. Read who this host is; a host that has never started gets an inventory with random uuids.

    Raises InventoryError, FileError.
    """
    path = context.config.paths.inventory
    changes = plan_inventory(context)
    if changes:
        write_atomic(path, inventory.new(), mode=inventory.MODE)
        context.hold("inventory-written")
    context.host.inventory = found = inventory.read(path)
    note = f"host {found.installation_uuid}, dom0 {found.control_domain_uuid}"
    return Changed(changes, note) if changes else Unchanged(note)


def plan_inventory(context: Context) -> tuple[Change, ...]:
    """The keys of a first inventory; none when there is one. Raises InventoryError (also when it was lost), FileError.

    Keeps the new one in `host` in a dry run, for the plans of later steps; its uuids are not those of a real run.
    """
    paths = context.config.paths
    path = paths.inventory
    try:
        inventory.read(path)
    except FileError as error:
        if error.errno != errno.ENOENT:
            raise
    else:
        return ()
    if has_started(paths):
        raise inventory.InventoryError(
            f"{path} is gone, though this host has started before",
            hint=f"restore it from a backup: a new one would be another host; {anew(paths)}",
        )
    first = inventory.parse(inventory.new(), path)
    if context.dry_run:
        context.host.inventory = first
    return tuple(
        Change(f"{path}#{key}", None, RANDOM_UUID if key.endswith("_UUID") else value)
        for key, value in first.values.items()
    )


def open_local_database(context: Context) -> Outcome:
    """S7. Open the local database, set its first values, forget at boot what holds for one boot only.

    Raises FileError.
    """
    host, paths = context.host, context.config.paths
    changes = plan_local_database(context)
    host.local = store = local.open_store(paths.local_database)
    if store.set_aside:
        context.hold("damaged-set-aside")
    store.put_all(
        _first_values(store, on_system_boot=host.on_system_boot, damaged=store.set_aside is not None)
    )
    context.hold("values-written")
    if host.on_system_boot:
        write_atomic(paths.run / "boot-id", f"{host.boot_id}\n", mode=0o644)
    warnings = (
        (f"{paths.local_database} was damaged; it is kept as {store.set_aside}",) if store.set_aside else ()
    )
    return Changed(changes, warnings=warnings) if changes else Unchanged()


def plan_local_database(context: Context) -> tuple[Change, ...]:
    """What `open_local_database` would change. Raises FileError."""
    host, paths = context.host, context.config.paths
    if host.boot_id is None:
        raise unknown("the boot id", "announce-start")
    path = paths.local_database
    store = local.look(path)
    damaged = store is None
    store = store or local.LocalStore(path, {})
    values = _first_values(store, on_system_boot=host.on_system_boot, damaged=damaged)
    if context.dry_run:
        host.local = store.imagined(values)
    aside = (Change(str(path), "(damaged)", "(set aside)"),) if damaged else ()
    record = paths.run / "boot-id"
    booted = (
        (Change(str(record), recorded_boot(paths.run) or None, host.boot_id),) if host.on_system_boot else ()
    )
    return (
        *aside,
        *(Change(f"{path}#{name}", store.shown(name), str(value).lower()) for name, value in values.items()),
        *booted,
    )


def _first_values(store: LocalStore, *, on_system_boot: bool, damaged: bool) -> dict[str, bool | str]:
    values: dict[str, bool | str] = {}
    if damaged:  # it was whole once: the host has started before
        values[local.IDENTITY_MADE.name] = True
    if not store.has(local.HA_ARMED):
        values[local.HA_ARMED.name] = False
    if on_system_boot:
        for key in (local.MASTER_SCRIPTS, local.HOST_DISABLED_UNTIL_REBOOT):
            if store.get(key):
                values[key.name] = False
    return values


def read_pool_secret(context: Context) -> Outcome:
    """S8. Read the pool secret, and the pair of a rotation; make one for a host of its own that never had one. Then
    record that the host has all of its identity.

    Raises SecretError, FileError.
    """
    path = context.config.paths.pool_secret
    store = _local_database(context)
    changes, record = _secret_changes(context, store), _identity_changes(context, store)
    rotation = secret.read_rotation(context.config.paths)
    current = secret.read_secret(path)
    if changes:
        current = current or secret.new_secret()
        write_atomic(path, current.reveal(), mode=secret.MODE)
        context.hold("secret-written")
    if current is None:
        raise secret.SecretError(f"{path} is gone", hint="restore it from a backup or another member")
    context.host.secrets = secret.PoolSecrets(current, rotation)
    if record:
        store.put(local.IDENTITY_MADE, value=True)
        context.hold("identity-recorded")
    note = "a rotation is under way: old and new secret are both accepted" if rotation else ""
    return Changed((*changes, *record), note) if changes or record else Unchanged(note)


def plan_pool_secret(context: Context) -> tuple[Change, ...]:
    """A first secret, or its mode and owner mended; the record. Raises SecretError, FileError."""
    store = _local_database(context)
    return (*_secret_changes(context, store), *_identity_changes(context, store))


def _local_database(context: Context) -> LocalStore:
    if context.host.local is None:
        raise unknown("the local database", "open-local-database")
    return context.host.local


def _identity_changes(context: Context, store: LocalStore) -> tuple[Change, ...]:
    """The record that this host has role, inventory and secret; none before it has an inventory."""
    if store.get(local.IDENTITY_MADE) or context.host.inventory is None:
        return ()
    name = local.IDENTITY_MADE.name
    return (Change(f"{context.config.paths.local_database}#{name}", store.shown(name), "true"),)


def _secret_changes(context: Context, store: LocalStore) -> tuple[Change, ...]:
    host, paths = context.host, context.config.paths
    path = paths.pool_secret
    if host.role is None:
        raise unknown("the role", "announce-start")
    if secret.read_secret(path) is None:
        if not host.role.is_coordinator:
            raise secret.SecretError(
                f"{path} is gone, and this host is {host.role.word}",
                hint="copy the file from the coordinator (mode 0600); a new secret would lock this host out",
            )
        if store.get(local.IDENTITY_MADE):
            raise secret.SecretError(
                f"{path} is gone, though this host has started before",
                hint="restore it from a backup or another member (mode 0600): a new one would lock the others out; "
                f"{anew(paths)}",
            )
        return (Change(str(path), None, HIDDEN), Change(f"{path} mode", None, f"{secret.MODE:04o}"))
    found = path.stat()
    mode = found.st_mode & 0o7777
    wrong_mode = (Change(f"{path} mode", f"{mode:04o}", f"{secret.MODE:04o}"),)
    wrong_owner = (Change(f"{path} owner", str(found.st_uid), str(os.geteuid())),)
    return (
        *(wrong_mode if mode != secret.MODE else ()),
        *(wrong_owner if found.st_uid != os.geteuid() else ()),
    )


def log_version(context: Context) -> Outcome:
    """S10. Say which versions start together."""
    xen = hypercall.hypervisor_version(context.config.paths.root)
    return Unchanged(
        f"hostagent {__version__}, Xen {'.'.join(map(str, xen)) if xen else 'not running'}, "
        f"Linux {platform.release()}, Python {platform.python_version()} ({sys.executable})"
    )


def set_signal_handlers(context: Context) -> Outcome:
    """S12. See in /proc that the kernel knows the handlers which the daemon installed before the sequence.

    Raises KernelError: a handler is not installed after all.
    """
    if context.host.hooks is None:
        return Skipped("only the daemon handles signals")
    caught = caught_signals(context.config.paths.root)
    missing = [number.name for number in HANDLED if number not in caught]
    if missing:
        raise KernelError(
            f"no handler stands for {', '.join(missing)}", hint="a defect of hostagent: report it"
        )
    return Unchanged(", ".join(number.name for number in HANDLED))


def caught_signals(root: Path) -> frozenset[int]:
    """The signals this process catches, as the kernel has them (proc_pid_status(5), SigCgt)."""
    status = (root / "proc/self/status").read_text()
    mask = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigCgt:"))
    return frozenset(number for number in range(1, 65) if mask >> (number - 1) & 1)


def check_random_generator(context: Context) -> Outcome:
    """S14. Nothing secret is made before the kernel's random generator is ready; wait for it, and say how
    long.
    """
    try:
        os.getrandom(ENTROPY_LOOK_BYTES, os.GRND_NONBLOCK)
        return Unchanged("ready")
    except BlockingIOError:
        context.progress("the kernel's random generator is not ready yet: waiting for it")
        begun = time.monotonic()
        os.getrandom(ENTROPY_LOOK_BYTES)
        return Unchanged(f"ready after {time.monotonic() - begun:.1f} s")


def notify_ready(context: Context) -> Outcome:
    """S40. Tell systemd that the API can be used; boot does not wait for what follows."""
    hooks = context.host.hooks
    if hooks is None:
        return Skipped("only the daemon becomes ready")
    return Unchanged(
        "told systemd READY=1" if hooks.notify_ready() else "nobody asked: not started by systemd"
    )


def notify_complete(context: Context) -> Outcome:
    """S52. Leave the file that others wait for, and say so in `systemctl status`. Raises FileError."""
    changes = plan_complete(context)
    if changes:
        write_atomic(context.config.paths.init_complete, f"{_boot_id(context)}\n", mode=0o644)
        context.hold("file-written")
    if context.host.hooks is not None:
        context.host.hooks.notify_status("start-up complete")
    return Changed(changes) if changes else Unchanged()


def plan_complete(context: Context) -> tuple[Change, ...]:
    """The init-complete file, which names the boot it stands for."""
    path, boot_id = context.config.paths.init_complete, _boot_id(context)
    try:
        old = read_bounded(path, limit_bytes=BOOT_RECORD_LIMIT_BYTES).decode(errors="replace").strip()
    except FileError as error:
        if error.errno != errno.ENOENT:
            raise
        old = None
    return () if old == boot_id else (Change(str(path), old, boot_id),)


def _boot_id(context: Context) -> str:
    return context.host.boot_id or read_boot_id(context.config.paths.root)
