"""Events over a real database: from, next, inject, tokens, many that wait."""

from __future__ import annotations

import asyncio
import math
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.api import events
from hostagent.api.fault import CallError
from hostagent.api.tokens import generation_of
from hostagent.db.view import View


def test_a_change_made_by_one_client_is_seen_by_the_other(serve):
    async def play(server):
        one, two = await server.log_in(), await server.log_in()
        everything = await server.call("event.from", one, ["*"], "", 60.1)
        assert {event["operation"] for event in everything["events"]} == {"add"}
        assert {event["class"] for event in everything["events"]} == {"host", "host_metrics", "pool", "role"}
        assert everything["valid_ref_counts"]["host"] == 1
        assert everything["valid_ref_counts"]["session"] == 2
        assert "message" not in everything["valid_ref_counts"]

        waiting = asyncio.create_task(server.call("event.from", one, ["Pool"], everything["token"], 60.1))
        await asyncio.sleep(0)
        await server.call("pool.set_name_label", two, server.pool, "new")
        answer = await waiting
        (event,) = answer["events"]
        assert (event["class"], event["operation"], event["ref"]) == ("pool", "mod", server.pool)
        assert event["snapshot"] == await server.call("pool.get_record", one, server.pool)
        assert event["timestamp"] == "0.0"
        assert isinstance(event["id"], str)
        assert answer["token"] > everything["token"]

    serve(play)


def test_nothing_happened_is_an_empty_answer_with_a_token(serve):
    async def play(server):
        session = await server.log_in()
        first = await server.call("event.from", session, ["pool"], "", 0)
        second = await server.call("event.from", session, ["pool"], first["token"], 0.01)
        assert second["events"] == []
        assert second["token"] >= first["token"]

    serve(play)


@pytest.mark.parametrize("timeout", [math.inf, -math.inf, math.nan, -5.0, 1e300, "60.1", 7])
def test_a_time_that_is_none_is_a_day(serve, timeout):
    async def play(server):
        session = await server.log_in()
        first = await server.call("event.from", session, ["pool"], "", timeout)
        waiting = asyncio.create_task(server.call("event.from", session, ["pool"], first["token"], timeout))
        while not server.core.events._waiting:
            await asyncio.sleep(0)
            assert not waiting.done()
        await server.call("pool.set_name_label", session, server.pool, "x")
        assert len((await waiting)["events"]) == 1

    serve(play)


def test_an_injected_event_is_a_barrier(serve):
    async def play(server):
        session = await server.log_in()
        await server.call("pool.set_name_label", session, server.pool, "before")
        barrier = await server.call("event.inject", session, "pool", server.pool)
        answer = await server.call("event.from", session, ["pool"], barrier, 5.0)
        assert [event["operation"] for event in answer["events"]] == ["mod"]
        assert answer["token"] > barrier

    serve(play)


def test_logging_out_wakes_who_waits(serve):
    async def play(server):
        session = await server.log_in()
        first = await server.call("event.from", session, ["*"], "", 0)
        waiting = asyncio.create_task(server.fails("event.from", session, ["pool"], first["token"], 60.1))
        await asyncio.sleep(0)
        await server.call("session.logout", session)
        assert await waiting == ["SESSION_INVALID", session]

    serve(play)


@pytest.fixture
def looks(monkeypatch):
    """Since which generation, and in which thread, each look at changes was."""
    found, changes = [], View.changes

    def noted(view, since, classes):
        found.append((since, threading.get_ident()))
        return changes(view, since, classes)

    monkeypatch.setattr(View, "changes", noted)
    return found


def test_a_look_at_everything_holds_nobody_up(serve, looks, monkeypatch):
    async def play(server):
        session = await server.log_in()
        first = await server.call("event.from", session, ["*"], "", 0)
        monkeypatch.setattr(events, "NEAR", 1)
        await server.call("event.register", session, ["pool"])
        for name in ("a", "b", "c"):
            await server.call("pool.set_name_label", session, server.pool, name)
        await server.call("event.from", session, ["*"], first["token"], 0)
        await server.call("event.next", session)
        assert len(looks) >= 2
        assert threading.get_ident() not in {thread for _, thread in looks}

    serve(play)


def test_what_was_not_wanted_is_looked_at_once(serve, looks):
    async def play(server):
        session = await server.log_in()
        first = await server.call("event.from", session, ["pool"], "", 0)
        waiting = asyncio.create_task(server.call("event.from", session, ["pool"], first["token"], 60.1))
        for _ in range(3):
            with server.db.write() as w:
                w.create("network", {})
            reached = server.db.generation
            while not looks or looks[-1][0] < reached - 1:
                await asyncio.sleep(0)
        with server.db.write() as w:
            w.set("pool", server.pool, "name_label", "x")
            (gone,) = w.refs("network")[:1]
            w.destroy("network", gone)
        assert [event["operation"] for event in (await waiting)["events"]] == ["mod"]

    serve(play)


def test_a_client_that_leaves_as_something_changes_has_left(serve):
    async def play(server):
        session = await server.log_in()
        first = await server.call("event.from", session, ["pool"], "", 0)
        waiting = asyncio.create_task(server.call("event.from", session, ["pool"], first["token"], 60.1))
        while not server.core.events._waiting:
            await asyncio.sleep(0)
        (future,) = server.core.events._waiting
        future.set_result(None)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            async with asyncio.timeout(10):
                await waiting

    serve(play)


def test_many_wait_without_a_thread_each(serve):
    async def play(server):
        session = await server.log_in()
        first = await server.call("event.from", session, ["pool"], "", 0)
        waiting = [
            asyncio.create_task(server.call("event.from", session, ["pool"], first["token"], 60.1))
            for _ in range(500)
        ]
        await asyncio.sleep(0)
        assert threading.active_count() < 50
        await server.call("pool.set_name_label", session, server.pool, "new")
        answers = await asyncio.gather(*waiting)
        assert {answer["events"][0]["ref"] for answer in answers} == {server.pool}

    serve(play)


def test_deprecated_event_calls_work_in_their_way(serve):
    async def play(server):
        session = await server.log_in()
        await server.call("event.register", session, ["pool"])
        await server.call("pool.set_name_label", session, server.pool, "x")
        (event,) = await server.call("event.next", session)
        assert (event["class"], event["operation"], type(event["id"])) == ("pool", "mod", int)
        assert event["obj_uuid"] == event["snapshot"]["uuid"]
        await server.call("event.unregister", session, ["pool"])
        assert (await server.fails("event.next", session))[0] == "SESSION_NOT_REGISTERED"

    serve(play)


@given(st.text(max_size=50))
def test_any_token_is_one_or_refused(text):
    refused = ""
    try:
        generation_of(text)
    except CallError as error:
        refused = error.code
    assert refused in ("", "EVENT_FROM_TOKEN_PARSE_FAILURE")
