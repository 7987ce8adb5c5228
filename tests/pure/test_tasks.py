"""Asynchronous calls and work that goes on: tasks, their end, and the audit log."""

from __future__ import annotations

import asyncio
import threading

import pytest

from hostagent.api.dispatch import Implementation
from tests.pure.xenapi_server import REMOTE


def test_an_asynchronous_call_is_a_task_that_ends_with_its_result(serve):
    async def play(server):
        session = await server.log_in()
        message = await server.call("message.create", session, "N", 3, "Host", "host-uuid", "body")
        task = await server.call("Async.message.destroy_many", session, [message])
        answer = await server.call("event.from", session, [f"task/{task}"], "", 5.0)
        while (await server.call("task.get_status", session, task)) == "pending":
            answer = await server.call("event.from", session, ["task"], answer["token"], 5.0)
        record = await server.call("task.get_record", session, task)
        assert (record["status"], record["result"], record["progress"], record["resident_on"]) == (
            "success",
            "",
            1.0,
            server.host,
        )
        failing = await server.call("Async.message.destroy_many", session, ["OpaqueRef:x"])
        token = ""
        while (await server.call("task.get_status", session, failing)) == "pending":
            token = (await server.call("event.from", session, ["task"], token, 5.0))["token"]
        assert await server.call("task.get_error_info", session, failing) == [
            "HANDLE_INVALID",
            "message",
            "OpaqueRef:x",
        ]
        await server.call("task.destroy", session, failing)
        assert await server.fails("task.get_record", session, failing) == ["HANDLE_INVALID", "task", failing]

    serve(play)


def test_work_stops_when_its_task_is_cancelled(serve):
    release = asyncio.Event()

    async def work(call, *_arguments):
        await release.wait()
        call.task.check()

    async def play(server):
        session = await server.log_in()
        task = await server.call("Async.host.disable", session, server.host)
        await server.call("task.cancel", session, task)
        assert await server.call("task.get_status", session, task) == "cancelling"
        release.set()
        token = ""
        while (await server.call("task.get_status", session, task)) == "cancelling":
            token = (await server.call("event.from", session, ["task"], token, 5.0))["token"]
        assert await server.call("task.get_status", session, task) == "cancelled"

    serve(play, [Implementation("host.disable", work, cancellable=True)])


def audited(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "hostagent.audit"]


@pytest.fixture
def noted(caplog):
    caplog.set_level("INFO", "hostagent.audit")
    return caplog


def test_work_of_a_client_that_leaves_goes_on_and_is_noted(serve, noted):
    begun, release = asyncio.Event(), asyncio.Event()

    async def work(call, *_arguments):
        begun.set()
        await release.wait()
        return ""

    async def play(server):
        session = await server.log_in()
        waiting = asyncio.create_task(server.call("host.disable", session, server.host, peer=REMOTE))
        await begun.wait()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        (task,) = (await server.call("task.get_all_records", session)).values()
        assert (task["name_label"], task["status"]) == ("host.disable", "pending")
        release.set()
        while await server.call("task.get_all", session):
            await asyncio.sleep(0)
        (line,) = [line for line in audited(noted) if "host.disable" in line]
        assert line.endswith("from 192.0.2.7: host.disable: success")

    serve(play, [Implementation("host.disable", work)])


def test_a_change_of_a_client_that_leaves_is_noted(serve, noted):
    begun, release = threading.Event(), threading.Event()

    def work(_call, *_arguments):
        begun.set()
        release.wait(30)

    async def play(server):
        session = await server.log_in()
        waiting = asyncio.create_task(server.call("secret.introduce", session, "u", "v", peer=REMOTE))
        await asyncio.to_thread(begun.wait, 30)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        release.set()
        await server.dispatcher.stop()
        await asyncio.to_thread(server.dispatcher._threads.shutdown)
        assert "from 192.0.2.7: secret.introduce: success" in audited(noted)[-1]

    serve(play, [Implementation("secret.introduce", work)])


def test_log_ins_and_what_was_not_allowed_are_in_the_audit_log(serve, noted):
    async def play(server):
        session = await server.log_in("eve", peer=REMOTE)
        await server.fails("pool.set_name_label", session, server.pool, "x", peer=REMOTE)
        logged_in, refused = audited(noted)
        assert logged_in.endswith("of eve from 192.0.2.7: logged in as read-only")
        assert refused.endswith("of eve from 192.0.2.7: pool.set_name_label: RBAC_PERMISSION_DENIED")
        assert session not in noted.text

    serve(play)


def test_work_that_goes_on_is_broken_off_at_the_end(serve):
    async def never(_call, *_arguments):
        await asyncio.Event().wait()

    async def play(server):
        session = await server.log_in()
        task = await server.call("Async.host.disable", session, server.host)
        assert await server.call("task.get_name_label", session, task) == "Async.host.disable"
        await asyncio.sleep(0)
        await server.dispatcher.stop()
        assert await server.call("task.get_error_info", session, task) == [
            "INTERNAL_ERROR",
            "the work broke off",
        ]

    serve(play, [Implementation("host.disable", never)])
