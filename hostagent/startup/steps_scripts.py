"""Steps that run the operator's own scripts: at every start, and when the coordinator role comes or goes.

A script is an executable plain file in its directory that root owns and nobody else can write; scripts run in
the order of their names (`stop` in the reverse order), each with a deadline. One that fails is reported and
the next one runs. A start that was cut off runs them again, so they must be safe to repeat.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from hostagent.db import local
from hostagent.hold import GROUP_OR_WORLD_WRITE
from hostagent.run import CommandError, run
from hostagent.startup.state import unknown
from hostagent.startup.step import Change, Changed, Context, Outcome, Unchanged

if TYPE_CHECKING:
    from pathlib import Path

    from hostagent.db.local import LocalStore


def run_startup_scripts(context: Context) -> Outcome:
    """S43. Run ETC/startup.d/* without arguments."""
    directory = context.config.paths.etc / "startup.d"
    scripts, refused = list_scripts(directory)
    failed = _run_all(context, scripts, "")
    warnings = (*refused, *failed)
    if not scripts:
        return Unchanged(f"no scripts in {directory}", warnings)
    note = f"{len(scripts) - len(failed)} of {len(scripts)} succeeded"
    return Changed(_runs(scripts, ""), note, warnings)


def plan_startup_scripts(context: Context) -> tuple[Change, ...]:
    return _runs(list_scripts(context.config.paths.etc / "startup.d")[0], "")


def start_role_scripts(context: Context) -> Outcome:
    """S44. Run ETC/master.d/* with `start`, once after this host became coordinator and once a boot."""
    return _switch(context, to_coordinator=True)


def plan_start_role_scripts(context: Context) -> tuple[Change, ...]:
    return _plan_switch(context, to_coordinator=True)


def stop_role_scripts(context: Context) -> Outcome:
    """S45. Run ETC/master.d/* with `stop`, last one first, once after this host lost the role."""
    return _switch(context, to_coordinator=False)


def plan_stop_role_scripts(context: Context) -> tuple[Change, ...]:
    return _plan_switch(context, to_coordinator=False)


def list_scripts(directory: Path) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """The scripts of a directory in order, and what else stands there but will not be run, with the reason."""
    scripts, refused = [], []
    for path in sorted(directory.iterdir()) if directory.is_dir() else []:
        try:
            found = path.stat()
        except OSError as error:
            refused.append(f"{path} is not run: {error.strerror}; mend or remove it")
            continue
        if path.name.startswith(".") or not stat.S_ISREG(found.st_mode) or not found.st_mode & stat.S_IXUSR:
            continue
        if found.st_uid not in (0, os.geteuid()) or found.st_mode & GROUP_OR_WORLD_WRITE:
            refused.append(
                f"{path} is not run: others than root can write it; chown root {path}, chmod go-w {path}"
            )
            continue
        scripts.append(path)
    return tuple(scripts), tuple(refused)


def _runs(scripts: tuple[Path, ...], word: str) -> tuple[Change, ...]:
    return tuple(Change(str(path), None, f"run {word}".strip()) for path in scripts)


def _run_all(context: Context, scripts: tuple[Path, ...], word: str) -> tuple[str, ...]:
    """Run the scripts one after the other; what went wrong with each."""
    failed = []
    for number, path in enumerate(scripts, start=1):
        context.progress(f"script {number} of {len(scripts)}: {path}")
        try:
            run([str(path), *word.split()], timeout_s=context.config.scripts_timeout_s)
        except CommandError as error:
            failed.append(error.found)
    return tuple(failed)


def _switch(context: Context, *, to_coordinator: bool) -> Outcome:
    store = _store(context)
    if store.get(local.MASTER_SCRIPTS) == to_coordinator:
        return Unchanged("the scripts of this role have run before")
    scripts, refused = _role_scripts(context, to_coordinator=to_coordinator)
    changes = _switch_changes(context, store, scripts, to_coordinator=to_coordinator)
    failed = _run_all(context, scripts, _word(to_coordinator=to_coordinator))
    context.hold("scripts-run")
    store.put(local.MASTER_SCRIPTS, to_coordinator)
    context.hold("flag-written")
    note = f"{len(scripts) - len(failed)} of {len(scripts)} scripts succeeded" if scripts else "no scripts"
    return Changed(changes, note, (*refused, *failed))


def _plan_switch(context: Context, *, to_coordinator: bool) -> tuple[Change, ...]:
    store = _store(context)
    if store.get(local.MASTER_SCRIPTS) == to_coordinator:
        return ()
    scripts, _ = _role_scripts(context, to_coordinator=to_coordinator)
    return _switch_changes(context, store, scripts, to_coordinator=to_coordinator)


def _switch_changes(
    context: Context, store: LocalStore, scripts: tuple[Path, ...], *, to_coordinator: bool
) -> tuple[Change, ...]:
    name = local.MASTER_SCRIPTS.name
    flag = f"{context.config.paths.local_database}#{name}"
    return (
        *_runs(scripts, _word(to_coordinator=to_coordinator)),
        Change(flag, store.shown(name), str(to_coordinator).lower()),
    )


def _role_scripts(context: Context, *, to_coordinator: bool) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    scripts, refused = list_scripts(context.config.paths.etc / "master.d")
    return (scripts if to_coordinator else scripts[::-1]), refused


def _word(*, to_coordinator: bool) -> str:
    return "start" if to_coordinator else "stop"


def _store(context: Context) -> LocalStore:
    if context.host.local is None:
        raise unknown("the local database", "open-local-database")
    return context.host.local
