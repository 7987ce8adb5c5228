"""Sessions and tasks that nobody uses any more are forgotten."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.api import retention, sessions
from hostagent.api.core import Core
from hostagent.api.fault import CallError
from hostagent.api.roles import Role
from hostagent.api.sessions import IDLE_S, Sessions
from hostagent.api.tasks import KEPT_FINISHED_S, KEPT_PENDING_S, Tasks
from hostagent.db.database import open_database
from hostagent.db.datatype import stamp

NOW = dt.datetime(2026, 11, 21, 18, 0, tzinfo=dt.UTC)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def nobody(_user: str, _password: str) -> None:
    return None


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def core(tmp_path, clock):
    database = open_database(tmp_path / "state.db", tmp_path / "volatile.db")
    yield Core(nobody, list, Sessions(clock), database=database, tasks=Tasks(database))
    database.close()


def a_task(core, status: str, age_s: float) -> str:
    moment = stamp(NOW - dt.timedelta(seconds=age_s))
    field = "created" if status == "pending" else "finished"
    with core.database.write() as w:
        ref: str = w.create("task", {"status": status, field: moment})
    return ref


def tasks(core) -> set[str]:
    with core.database.read() as view:
        return set(view.refs("task"))


def test_old_tasks_go_by_their_own_age(core):
    kept = {
        a_task(core, "pending", KEPT_PENDING_S - 1),
        a_task(core, "success", KEPT_FINISHED_S - 1),
        a_task(core, "failure", 0),
    }
    for status in ("success", "failure", "cancelled"):
        a_task(core, status, KEPT_FINISHED_S + 1)
    a_task(core, "pending", KEPT_PENDING_S + 1)

    assert retention.forget(core, NOW) == (0, 4)

    assert tasks(core) == kept
    assert retention.forget(core, NOW) == (0, 0)


def test_a_task_that_works_stays_however_old_it_is(core):
    handle = core.tasks.begin("long")

    assert retention.forget(core, NOW + dt.timedelta(days=3650)) == (0, 0)

    assert tasks(core) == {handle.ref}


def test_idle_sessions_end(core, clock):
    core.sessions.log_in("root", Role.ROOT, database=core.database)
    clock.now = IDLE_S / 2
    used = core.sessions.log_in("root", Role.ROOT, database=core.database)
    clock.now = IDLE_S + 1

    assert retention.forget(core, NOW) == (1, 0)

    with core.database.read() as view:
        assert view.refs("session") == [used.ref]


def test_an_idle_session_has_ended_also_before_anybody_cleans_up(core, clock):
    session = core.sessions.log_in("root", Role.ROOT, database=core.database)
    core.sessions.idle_s = 60
    clock.now = 60
    assert core.sessions.find(session.ref) is session
    clock.now = 121

    with pytest.raises(CallError, match="SESSION_INVALID"):
        core.sessions.find(session.ref)
    assert core.sessions.end_idle(core.database) == 1


def test_the_last_use_of_a_session_is_noted_now_and_then(core, clock):
    def last_active():
        with core.database.read() as view:
            text = view.get("session", session.ref, "last_active")
        return dt.datetime.strptime(text, retention.STAMP).replace(tzinfo=dt.UTC)

    session = core.sessions.log_in("root", Role.ROOT, database=core.database)
    begun = last_active()
    clock.now = 400.0
    core.sessions.find(session.ref)
    retention.forget(core, NOW)
    assert last_active() == begun
    clock.now = 3400.0
    retention.forget(core, NOW)
    assert last_active() < begun  # by the clock of this test it was used 3000 s ago


def kept(core, monkeypatch, *log_ins):
    """What is left of some log-ins, each a function of the sessions, when there may be two of a kind."""
    for limit in ("POOL_LIMIT", "ANONYMOUS_LIMIT", "ORIGINATOR_LIMIT", "USER_LIMIT"):
        monkeypatch.setattr(sessions, limit, 2)
    made = [log_in(core.sessions) for log_in in log_ins]
    with core.database.read() as view:
        records = view.refs("session")
    assert {one.ref for one in made if not one.local and not one.ended} == set(records)
    return [not one.ended for one in made]


def test_too_many_sessions_of_a_kind_make_room_for_each_other_only(core, monkeypatch):
    def log_in(user="root", originator="", **more):
        return lambda known: known.log_in(
            user, Role.POOL_ADMIN, originator=originator, database=core.database, **more
        )

    def locally(user="root"):
        return lambda known: known.log_in(user, Role.ROOT)

    assert kept(
        core,
        monkeypatch,
        log_in(originator="one"),
        log_in(),
        log_in(pool=True),
        locally(),
        log_in("eve", "one"),
        log_in("eve", "two"),
        log_in("eve", "three"),
        log_in(originator="one"),
        log_in(originator="one"),
        log_in(),
        log_in(),
        locally(),
        locally(),
    ) == [False, False, True, False, False, True, True, True, True, True, True, True, True]


def test_without_a_database_local_sessions_end_too(clock):
    core = Core(nobody, list, Sessions(clock))
    core.sessions.log_in("root", Role.ROOT)
    clock.now = IDLE_S + 1

    assert retention.forget(core, NOW) == (1, 0)


@given(st.datetimes(dt.datetime(1000, 1, 1), dt.datetime(9999, 12, 31)))  # noqa: DTZ001 - zone below
def test_ages_are_counted_from_what_the_database_keeps(moment):
    when = moment.replace(microsecond=0, tzinfo=dt.UTC)

    assert retention._seconds_since(stamp(when), NOW) == (NOW - when).total_seconds()
