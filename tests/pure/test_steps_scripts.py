# mypy: disable-error-code="union-attr,attr-defined,arg-type"
# each test knows which outcome it has; modules are reached through the one that uses them
"""The steps that run the operator's scripts."""

from __future__ import annotations

import json

import pytest

from hostagent.db import local
from hostagent.errors import OperatorError
from hostagent.startup import steps_scripts
from hostagent.startup.state import HostState
from hostagent.startup.step import Unchanged
from tests.pure.startup_host import planned_then_done
from tests.pure.startup_tree import context_of, put


def a_script(directory, name, mode=0o755):
    put(directory / name, "#!/bin/sh\n")
    (directory / name).chmod(mode)


def test_start_up_scripts_run_in_order_each_with_its_deadline(paths, scripts):
    directory = paths.etc / "startup.d"
    for name, mode in (("20-b", 0o755), ("10-a", 0o700), ("README", 0o644), (".hidden", 0o755)):
        a_script(directory, name, mode)
    (directory / "30-dir").mkdir()
    context = context_of(paths, scripts_timeout_s=7.0)

    planned = steps_scripts.plan_startup_scripts(context)
    outcome = steps_scripts.run_startup_scripts(context)

    assert scripts == [("10-a", 7.0), ("20-b", 7.0)]
    assert outcome.changes == planned
    assert outcome.note == "2 of 2 succeeded"


def test_a_failed_script_is_told_and_the_next_one_runs(paths, scripts):
    a_script(paths.etc / "startup.d", "10-bad")
    a_script(paths.etc / "startup.d", "20-good")

    outcome = steps_scripts.run_startup_scripts(context_of(paths))

    assert [name for name, _ in scripts] == ["10-bad", "20-good"]
    assert len(outcome.warnings) == 1
    assert "10-bad" in outcome.warnings[0]
    assert "exit code 3: no luck" in outcome.warnings[0]


def test_a_script_that_others_can_write_is_not_run(paths, scripts):
    a_script(paths.etc / "startup.d", "10-a", 0o777)

    outcome = steps_scripts.run_startup_scripts(context_of(paths))

    assert scripts == []
    assert "is not run" in outcome.warnings[0]


def test_a_dangling_link_is_told_and_the_other_scripts_run(paths, scripts):
    a_script(paths.etc / "startup.d", "10-a")
    (paths.etc / "startup.d" / "20-gone").symlink_to("/nowhere/at-all")
    context = context_of(paths)

    planned = steps_scripts.plan_startup_scripts(context)
    outcome = steps_scripts.run_startup_scripts(context)

    assert scripts == [("10-a", 60.0)]
    assert outcome.changes == planned
    assert "20-gone is not run: No such file" in outcome.warnings[0]


def test_without_scripts_nothing_changes(paths, scripts):
    assert isinstance(steps_scripts.run_startup_scripts(context_of(paths)), Unchanged)


def with_store(paths, *, ran):
    paths.local_database.write_text(json.dumps({"master_scripts": ran}))
    return context_of(paths, HostState(local=local.open_store(paths.local_database)))


def test_a_new_coordinator_runs_its_role_scripts_once(paths, scripts):
    for name in ("20-b", "10-a"):
        a_script(paths.etc / "master.d", name)

    planned_then_done(
        with_store(paths, ran=False), steps_scripts.plan_start_role_scripts, steps_scripts.start_role_scripts
    )

    assert scripts == [("10-a", "start", 60.0), ("20-b", "start", 60.0)]
    assert json.loads(paths.local_database.read_text()) == {"master_scripts": True}


def test_a_host_that_lost_the_role_stops_its_role_scripts_in_reverse(paths, scripts):
    for name in ("10-a", "20-b"):
        a_script(paths.etc / "master.d", name)

    planned_then_done(
        with_store(paths, ran=True), steps_scripts.plan_stop_role_scripts, steps_scripts.stop_role_scripts
    )

    assert scripts == [("20-b", "stop", 60.0), ("10-a", "stop", 60.0)]


def test_a_failed_role_script_still_counts_as_run(paths, scripts):
    a_script(paths.etc / "master.d", "10-bad")
    context = with_store(paths, ran=False)

    assert len(steps_scripts.start_role_scripts(context).warnings) == 1
    assert context.host.local.get(local.MASTER_SCRIPTS) is True


def test_role_scripts_without_a_local_database_name_the_missing_step(paths):
    with pytest.raises(OperatorError) as caught:
        steps_scripts.start_role_scripts(context_of(paths))

    assert "open-local-database" in caught.value.hint
