"""The items that bring the database up to date, and what is in it, for tests of steps."""

from __future__ import annotations

from hostagent.api import roles
from hostagent.db import model
from hostagent.startup import steps_dbsync
from hostagent.startup.step import Change

DBSYNC = (
    (steps_dbsync.make_host_metrics, steps_dbsync.plan_host_metrics),
    (steps_dbsync.make_localhost, steps_dbsync.plan_localhost),
    (steps_dbsync.refresh_info, steps_dbsync.plan_info),
    (steps_dbsync.record_memory, steps_dbsync.plan_memory),
    (steps_dbsync.record_processors, steps_dbsync.plan_processors),
    (steps_dbsync.record_dom0, steps_dbsync.plan_dom0),
    (steps_dbsync.make_root_user, steps_dbsync.plan_root_user),
    (steps_dbsync.record_pool, steps_dbsync.plan_pool),
    (steps_dbsync.record_address, steps_dbsync.plan_address),
    (steps_dbsync.clean_halted_vms, steps_dbsync.plan_halted_vms),
    (steps_dbsync.cancel_old_tasks, steps_dbsync.plan_old_tasks),
    (steps_dbsync.write_licence, steps_dbsync.plan_licence),
)
FIRST = "(made)"
ROLES = tuple(Change(f"role {role.label}", None, FIRST) for role in roles.DESCRIPTIONS)


def rows(context):
    """Everything in the database but generations."""
    with context.host.database.read() as view:
        known = (cls.name for cls in model.load().classes.values() if cls.in_database)
        return {name: dict(view.records(name, internal=True)) for name in known}
