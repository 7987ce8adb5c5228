"""Our own calls for the database, over the Unix socket: checked, copied, replaced by another.

They run in threads, and answer also while the host boots and in emergency mode, as soon as the database is open. A
failure comes back as `{"error": …}` with all its words: what was found and the hint, for the operator who typed the
command.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

from hostagent.api.methods import Json, Method, Param, method, one_of, text
from hostagent.api.roles import Role
from hostagent.errors import HostagentError
from hostagent.lifecycle import HostStillBootingError, Phase

if TYPE_CHECKING:
    from collections.abc import Callable

    from hostagent.api.core import Core
    from hostagent.api.service import Service
    from hostagent.db.database import Database


def calls(core: Core) -> tuple[Method, ...]:
    """The calls, on the database of `core`."""

    @method("hostagent.db_status", role=Role.READ_ONLY, emergency=True)
    @_telling
    def status(_service: Service) -> Json:
        database = _open(core)
        return {"path": str(database.path), "generation": database.generation}

    @method(
        "hostagent.db_check",
        Param("how", one_of("look", "plan", "repair")),
        role=Role.POOL_ADMIN,
        emergency=True,
        slow=True,
    )
    @_telling
    def check(_service: Service, how: str) -> Json:
        from hostagent.db.health import examine

        return examine(_open(core), repair=how != "look", dry_run=how == "plan")

    @method("hostagent.db_backup", Param("file", text), role=Role.POOL_ADMIN, emergency=True, slow=True)
    @_telling
    def backup(_service: Service, file: str) -> Json:
        from hostagent.db.copies import write_copy

        database = _open(core)
        write_copy(database, Path(file))
        return {"path": str(database.path), "generation": database.generation, "file": file}

    @method(
        "hostagent.db_restore",
        Param("file", text),
        Param("how", one_of("plan", "restore")),
        role=Role.POOL_ADMIN,
        emergency=True,
        slow=True,
    )
    @_telling
    def restore(service: Service, file: str, how: str) -> Json:
        return restore_and_restart(core, service, Path(file), dry_run=how == "plan")

    return (status, check, backup, restore)


def restore_and_restart(
    core: Core,
    service: Service,
    source: Path,
    *,
    dry_run: bool,
    dump_only: bool = False,
    ready: Callable[[], None] = lambda: None,
) -> dict[str, object]:
    """`restore` on the daemon's own database; unless it is a dry run, the daemon then asks to be started again.

    Raises what `restore` raises, DbConfError, FileError; HostStillBootingError before S40: steps need the database.
    """
    from hostagent.db.dbconf import read_conf
    from hostagent.db.restore import restore

    if service.lifecycle.state.phase is Phase.STARTING and not dry_run:
        raise HostStillBootingError
    paths = service.paths
    connections = read_conf(paths.db_conf, paths.database)
    done = restore(
        source, connections, database=_open(core), dry_run=dry_run, dump_only=dump_only, ready=ready
    )
    if not dry_run:
        service.restart(f"the database was replaced; the former one is {done['former']}")
    return {**done, "restarting": not dry_run}


def _open(core: Core) -> Database:
    if core.database is None:
        raise HostStillBootingError
    return core.database


def _telling(run: Callable[..., Json]) -> Callable[..., Json]:
    @functools.wraps(run)
    def told(service: Service, *given: object) -> Json:
        try:
            return run(service, *given)
        except HostagentError as error:
            return {"error": dict(error.record())}

    return told
