"""What start-up knows about this host: filled by the steps in table order, read by later steps and the
daemon.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from hostagent.config import Config, ConfigError, Paths, load
from hostagent.errors import HostagentError, OperatorError
from hostagent.files import FileError, read_bounded

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from hostagent.api.certificate import Certificate
    from hostagent.api.xenapi import XenApi
    from hostagent.db.database import Database
    from hostagent.db.dbconf import Connection
    from hostagent.db.local import LocalStore
    from hostagent.hostinfo.facts import Facts
    from hostagent.netctl.control import Control
    from hostagent.netctl.status import Keeper
    from hostagent.scheduler import Scheduler
    from hostagent.startup.role import PoolRole
    from hostagent.startup.secret import PoolSecrets
    from hostagent.xen.inventory import Inventory


BOOT_RECORD_LIMIT_BYTES = 4096


class DaemonHooks(Protocol):
    """What the daemon does for steps, because only it can. Each is called from a step's worker thread."""

    def notify_ready(self) -> bool:
        """Tell systemd READY=1; False when nobody listens (no NOTIFY_SOCKET)."""

    def notify_status(self, text: str) -> None:
        """Show one line in `systemctl status` (STATUS=)."""

    @property
    def api(self) -> XenApi:
        """The API the daemon serves."""


@dataclass(slots=True)
class HostState:
    """Found so far. None means: the step that finds it has not run (or failed).

    `blockers` are reasons why the host must stay disabled (steps add theirs, the runner adds each failed or blocked
    step whose policy is degrade); `xenstore_deadline` is when (monotonic seconds)
    waiting for xenstored ends for the whole sequence; `emergency` is the error of emergency mode; `scratch` is the
    copy of the database on which a dry run makes its plans; `opened_at` is the generation of the database when it was
    handed to the API: what came later is of this run.
    """

    arguments: tuple[str, ...] = ()
    settings_files: tuple[Path, ...] = ()
    config_error: ConfigError | None = None
    hooks: DaemonHooks | None = None
    boot_id: str | None = None
    on_system_boot: bool = False
    role: PoolRole | None = None
    inventory: Inventory | None = None
    local: LocalStore | None = None
    secrets: PoolSecrets | None = None
    certificate: Certificate | None = None
    facts: Facts | None = None
    connections: tuple[Connection, ...] = ()
    database: Database | None = None
    scratch: Database | None = None
    opened_at: int | None = None
    scheduler: Scheduler | None = None
    network: Control | None = None
    keeper: Keeper | None = None
    emergency: HostagentError | None = None
    blockers: list[str] = field(default_factory=list)
    xenstore_deadline: float | None = None

    def close(self) -> None:
        """End what follows the network, close the databases that are open. A second time is no error."""
        if self.keeper is not None:
            self.keeper.stop()
        for database in (self.database, self.scratch):
            if database is not None:
                database.close()


def begin(
    paths: Paths,
    *,
    overrides: Sequence[str] = (),
    arguments: Sequence[str] = (),
    hooks: DaemonHooks | None = None,
) -> tuple[Config, HostState]:
    """What every sequence starts from: the settings, and a state that knows nothing yet.

    Unusable settings do not raise here: the step `read-configuration` fails with that error, so that the
    report tells it and the process ends with the step's exit code. Until then the defaults hold.
    """
    host = HostState(arguments=tuple(arguments), hooks=hooks)
    try:
        config, host.settings_files = load(paths, overrides)
    except ConfigError as error:
        host.config_error = error
        config = Config(paths=paths)
    return config, host


def learn(config: Config, host: HostState) -> None:
    """Read, without changing anything, what earlier steps would have found: for a step that is run alone.

    What cannot be read stays None; the step that needs it says so.
    """
    from hostagent.db import local
    from hostagent.startup import role, secret
    from hostagent.startup.report import read_boot_id
    from hostagent.xen import inventory

    paths = config.paths
    host.boot_id = read_boot_id(paths.root)
    host.on_system_boot = recorded_boot(paths.run) != host.boot_id
    with contextlib.suppress(HostagentError):
        host.role = role.read_role(paths.role)
    with contextlib.suppress(HostagentError):
        host.inventory = inventory.read(paths.inventory)
    with contextlib.suppress(HostagentError):
        host.local = local.look(paths.local_database)
    with contextlib.suppress(HostagentError):
        if current := secret.read_secret(paths.pool_secret):
            host.secrets = secret.PoolSecrets(current, secret.read_rotation(paths))


def recorded_boot(run: Path) -> str:
    """The boot in which the step `open-local-database` last succeeded; empty if none did."""
    try:
        return (
            read_bounded(run / "boot-id", limit_bytes=BOOT_RECORD_LIMIT_BYTES)
            .decode(errors="replace")
            .strip()
        )
    except FileError:
        return ""


def has_started(paths: Paths) -> bool:
    """Whether this host has had its role, inventory and secret before, so that one of them missing now is lost.

    A local database that is damaged counts as yes. Raises FileError when it cannot be read.
    """
    from hostagent.db import local

    store = local.look(paths.local_database)
    return store is None or store.get(local.IDENTITY_MADE)


def anew(paths: Paths) -> str:
    """The hint that goes with a lost file: how to make a new one after all."""
    return f"on a host of its own: remove {paths.local_database} too, and the next start makes a new one"


def unknown(what: str, step: str) -> OperatorError:
    """The error of a step that needs what an earlier step finds."""
    return OperatorError(
        f"{what} is not known", hint=f"run `hostagent startup run {step}` first, or add --with-needs"
    )
