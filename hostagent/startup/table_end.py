"""Rows of the start-up table from readiness on: the operator's scripts, the last word about the host."""

from __future__ import annotations

from hostagent.startup import steps_dbsync, steps_pool, steps_scripts
from hostagent.startup.step import Policy, Role, Step

READY = (
    Step(
        name="notify-ready",
        ref="S40",
        role=Role.ANY,
        needs=(),
        policy=Policy.BEST_EFFORT,
        timeout_s=10,
        run=steps_pool.notify_ready,
        why="API usable; boot must not hang on what follows",
    ),
)

SCRIPTS = (
    Step(
        name="run-startup-scripts",
        ref="S43",
        role=Role.ANY,
        needs=(),
        policy=Policy.BEST_EFFORT,
        timeout_s=900,
        run=steps_scripts.run_startup_scripts,
        plan=steps_scripts.plan_startup_scripts,
        why="after readiness: the operator's scripts may use the API and may take long",
    ),
    Step(
        name="start-role-scripts",
        ref="S44",
        role=Role.COORDINATOR,
        needs=("open-local-database",),
        policy=Policy.BEST_EFFORT,
        timeout_s=900,
        run=steps_scripts.start_role_scripts,
        plan=steps_scripts.plan_start_role_scripts,
        hold_points=("before", "scripts-run", "flag-written"),
        why="after readiness, as S43; the local database knows whether they ran since this boot",
    ),
    Step(
        name="stop-role-scripts",
        ref="S45",
        role=Role.SUPPORTER,
        needs=("open-local-database",),
        policy=Policy.BEST_EFFORT,
        timeout_s=900,
        run=steps_scripts.stop_role_scripts,
        plan=steps_scripts.plan_stop_role_scripts,
        hold_points=("before", "scripts-run", "flag-written"),
        why="as S44, on the host that lost the role",
    ),
)

END = (
    Step(
        name="enable-host",
        ref="5.5",
        role=Role.ANY,
        needs=("open-local-database", "find-localhost"),
        policy=Policy.DEGRADE,
        timeout_s=60,
        run=steps_dbsync.enable_host,
        plan=steps_dbsync.plan_enable_host,
        hold_points=("before", "rows-written"),
        why="every reason against it is known by now; before others hear that start-up is over",
    ),
    Step(
        name="notify-complete",
        ref="S52",
        role=Role.ANY,
        needs=(),
        policy=Policy.BEST_EFFORT,
        timeout_s=10,
        run=steps_pool.notify_complete,
        plan=steps_pool.plan_complete,
        hold_points=("before", "file-written"),
        why="last: other units and the lab wait for it",
    ),
)
