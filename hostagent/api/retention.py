"""What is forgotten in time: sessions that nobody uses, tasks that nobody asks for (xenapi.md 1.6; S29)."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from hostagent.api.tasks import FINISHED

if TYPE_CHECKING:
    from hostagent.api.core import Core
    from hostagent.db.datatype import Value
    from hostagent.db.view import View

PERIOD_S = 60.0
STAMP = "%Y%m%dT%H:%M:%SZ"


def forget(core: Core, now: dt.datetime) -> tuple[int, int]:
    """End idle sessions and destroy old tasks, how many of each; note when the other sessions were used. From any
    thread. Raises DatabaseError.
    """
    ended = core.sessions.end_idle(core.database)
    if core.database is None or core.tasks is None:
        return ended, 0
    core.sessions.note_use(core.database)
    with core.database.read() as view:
        ages = ages_of_tasks(view, now)
    return ended, len(core.tasks.clean(ages))


def ages_of_tasks(view: View, now: dt.datetime) -> list[tuple[str, float, bool]]:
    """Reference, seconds since its end or, while it is unfinished, since its beginning, and whether it has ended."""
    found = []
    for ref, record in view.records("task"):
        ended = record["status"] in FINISHED
        found.append((ref, _seconds_since(record["finished" if ended else "created"], now), ended))
    return found


def _seconds_since(stamped: Value, now: dt.datetime) -> float:
    return (now - dt.datetime.strptime(str(stamped), STAMP).replace(tzinfo=dt.UTC)).total_seconds()
