"""XenAPI calls against a real database: log-in, roles, generated messages, tasks, events, errors byte for byte."""

from __future__ import annotations

import asyncio
import json
import math
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostagent.api import calls_session, events, roles
from hostagent.api.core import Core, Peer
from hostagent.api.dispatch import Dispatcher, Implementation
from hostagent.api.events import Events
from hostagent.api.fault import CallError
from hostagent.api.rendered import Rendered
from hostagent.api.roles import Role
from hostagent.api.tasks import Tasks
from hostagent.api.tokens import generation_of, token
from hostagent.api.xenapi_calls import IMPLEMENTED
from hostagent.db.database import open_database
from hostagent.db.datatype import NULL_REF
from hostagent.db.model import load
from hostagent.db.view import View

MODEL = load()
SECRET = "aa/bb/cc"
LOCAL, REMOTE = Peer(trusted=True), Peer(address="192.0.2.7")
USERS = {"root": ("letmein", Role.POOL_ADMIN), "eve": ("look", Role.READ_ONLY)}


async def authenticate(user, password):
    known = USERS.get(user)
    return known[1] if known and known[0] == password else None


class Server:
    """A dispatcher over a database, as the daemon has it."""

    def __init__(self, directory, more=()):
        self.db = open_database(directory / "state.db", directory / "volatile.db")
        with self.db.write() as w:
            roles.write_records(w)
            self.host = w.create("host", {"metrics": w.create("host_metrics", {}), "uuid": "host-uuid"})
            self.pool = w.create("pool", {"master": self.host})
        self.core = Core(
            authenticate,
            lambda: [SECRET],
            host_uuid="host-uuid",
            database=self.db,
            tasks=Tasks(self.db),
            events=Events(self.db),
        )
        self.dispatcher = Dispatcher(self.core, (*IMPLEMENTED, *more))

    async def call(self, name, *params, peer=LOCAL):
        value = (await self.dispatcher.call(name, params, peer)).value
        return json.loads(value.text) if isinstance(value, Rendered) else value

    async def fails(self, name, *params, peer=LOCAL):
        with pytest.raises(CallError) as caught:
            await self.call(name, *params, peer=peer)
        return [caught.value.code, *caught.value.params]

    async def log_in(self, user="root", *more, peer=LOCAL):
        return await self.call("session.login_with_password", user, USERS[user][0], *more, peer=peer)


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """Run a coroutine function with a server."""
    monkeypatch.setattr(calls_session, "FAILURE_DELAY_S", 0.001)
    calls_session._failures.clear()

    def run(play, more=()):
        async def whole():
            server = Server(tmp_path, more)
            try:
                return await play(server)
            finally:
                server.db.close()

        return asyncio.run(whole())

    return run


def test_a_client_logs_in_reads_writes_and_logs_out(serve):
    async def play(server):
        session = await server.log_in("root", "1.0", "a script", peer=REMOTE)
        (host,) = await server.call("host.get_all", session)
        assert host == server.host
        records = await server.call("host.get_all_records", session)
        assert set(records[host]) == {field.name for field in MODEL.cls("host").public}
        uuid = records[host]["uuid"]
        assert await server.call("host.get_by_uuid", session, uuid) == host
        await server.call("host.set_name_label", session, host, "rack 4")
        assert await server.call("host_get_name_label", session, host) == "rack 4"
        assert await server.call("host.get_by_name_label", session, "rack 4") == [host]
        await server.call("host.add_to_other_config", session, host, "k", "v")
        assert (await server.call("host.get_record", session, host))["other_config"] == {"k": "v"}
        assert await server.fails("host.add_to_other_config", session, host, "k", "w") == [
            "MAP_DUPLICATE_KEY",
            "host",
            "other_config",
            host,
            "k",
        ]
        assert await server.call("host.remove_from_other_config", session, host, "missing") == ""
        me = await server.call("session.get_this_host", session, session)
        assert me == host
        assert await server.call("session.logout", session) == ""
        assert await server.fails("host.get_all", session) == ["SESSION_INVALID", session]

    serve(play)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (("nonsense",), ["MESSAGE_METHOD_UNKNOWN", "nonsense"]),
        (("host.nonsense", "S"), ["MESSAGE_METHOD_UNKNOWN", "host.nonsense"]),
        (("PBD.plug", "S", "OpaqueRef:x"), ["NOT_IMPLEMENTED", "PBD.plug"]),
        (("host.set_hostname", "S", "H", "new"), ["NOT_IMPLEMENTED", "host.set_hostname"]),
        (("VMPP.get_all", "S"), ["MESSAGE_REMOVED"]),
        (("host.get_all",), ["SESSION_INVALID", ""]),
        (("host.get_all", 7), ["SESSION_INVALID", ""]),
        (("host.get_all", NULL_REF), ["SESSION_INVALID", NULL_REF]),
        (("host.get_all", "S", "more"), ["MESSAGE_PARAMETER_COUNT_MISMATCH", "host.get_all", "0", "1"]),
        (("host.get_uuid", "S"), ["MESSAGE_PARAMETER_COUNT_MISMATCH", "host.get_uuid", "1", "0"]),
        (("host.get_uuid", "S", "OpaqueRef:x"), ["HANDLE_INVALID", "host", "OpaqueRef:x"]),
        (("pool.get_uuid", "S", "H"), ["HANDLE_INVALID", "pool", "H"]),
        (("host.get_by_uuid", "S", "x"), ["UUID_INVALID", "host", "x"]),
        (("host.get_uuid", "S", 7), ["FIELD_TYPE_ERROR", "self"]),
        (("host.set_tags", "S", "H", "x"), ["FIELD_TYPE_ERROR", "value"]),
        (("Async.host.get_all", "S"), ["Fault", "host.get_all has no asynchronous form"]),
        (("Async.PBD.plug", "S", "OpaqueRef:x"), ["NOT_IMPLEMENTED", "PBD.plug"]),
        (("event.from", "S", ["nonsense/"], "", 0), ["EVENT_SUBSCRIPTION_PARSE_FAILURE", "nonsense/"]),
        (("event.from", "S", ["*"], "x", 0), ["EVENT_FROM_TOKEN_PARSE_FAILURE", "x"]),
        (("event.from", "S", ["*"], token(10**9), 0), ["EVENTS_LOST"]),
        (("event.next", "S"), ["SESSION_NOT_REGISTERED", "S"]),
        (("event.inject", "S", "POOL", "P"), ["HANDLE_INVALID", "POOL", "P"]),
        (("host.get_servertime", "S", "P"), ["HANDLE_INVALID", "host", "P"]),
        (("host.get_server_localtime", "S", "x"), ["HANDLE_INVALID", "host", "x"]),
        (("host.has_extension", "S", "x", "e"), ["HANDLE_INVALID", "host", "x"]),
        (("pool.has_extension", "S", "H", "e"), ["HANDLE_INVALID", "pool", "H"]),
        (("message.create", "S", "N", 9, "Host", "host-uuid", "b"), ["INVALID_VALUE", "priority", "9"]),
        (("message.create", "S", "N", 1, "Host", "x", "b"), ["UUID_INVALID", "Host", "x"]),
    ],
)
def test_errors_have_their_codes_and_parameters(serve, call, error):
    async def play(server):
        session = await server.log_in()
        words = {"S": session, "H": server.host, "P": server.pool}
        wanted = [words.get(word, word) for word in error]
        assert (
            await server.fails(*(words.get(word, word) if isinstance(word, str) else word for word in call))
            == wanted
        )

    serve(play)


def test_a_name_of_many_parts_is_looked_up_once(serve):
    """A name of megabytes was cut at each of its underscores, and each cut looked up."""
    asked = []

    class Counting(dict[str, object]):
        def get(self, name, default=None):
            asked.append(name)
            return super().get(name, default)

    async def play(server):
        server.dispatcher._by_name = Counting(server.dispatcher._by_name)
        assert await server.fails("_" * 1000) == ["MESSAGE_METHOD_UNKNOWN", "_" * 1000]
        assert asked == ["_" * 1000]

    serve(play)


def test_a_wrong_password_is_refused_late_and_many_are_refused_without_asking(serve, monkeypatch):
    asked = []

    async def count(user, password):
        asked.append(user)
        return await authenticate(user, password)

    async def play(server):
        server.core.authenticate = count
        for _ in range(calls_session.FAILURES):
            error = await server.fails("session.login_with_password", "root", "wrong", peer=REMOTE)
            assert error[:2] == ["SESSION_AUTHENTICATION_FAILED", "root"]
        asked.clear()
        assert (await server.fails("session.login_with_password", "root", "letmein", peer=REMOTE))[0] == (
            "SESSION_AUTHENTICATION_FAILED"
        )
        assert asked == []
        assert await server.log_in(peer=Peer(address="192.0.2.8"))

    serve(play)


WRONG = ("session.login_with_password", "root", "wrong")


def test_a_flood_of_wrong_passwords_locks_nobody_else_out(serve, monkeypatch):
    """All wait for their late answer at once, from one network; PAM is left to others."""
    asking = {"now": 0, "most": 0}

    async def slowly(user, password):
        asking["now"] += 1
        asking["most"] = max(asking.values())
        await asyncio.sleep(0)
        asking["now"] -= 1
        return await authenticate(user, password)

    async def play(server):
        server.core.authenticate = slowly
        monkeypatch.setattr(calls_session, "FAILURE_DELAY_S", 3600.0)
        peers = [Peer(address=f"2001:db8::{number:x}") for number in range(1, 100)]
        flood = [asyncio.create_task(server.call(*WRONG, peer=peer)) for peer in peers]
        async with asyncio.timeout(30):
            while sum(len(origin.failures) for origin in calls_session._failures.values()) < (
                calls_session.FAILURES
            ):
                await asyncio.sleep(0)
            assert await server.log_in(peer=Peer(address="2001:db8:1::1"))
            assert await server.log_in(peer=REMOTE)
        for one in flood:
            one.cancel()
        await asyncio.gather(*flood, return_exceptions=True)
        assert asking["most"] <= calls_session.TURNS
        assert len(calls_session._failures["2001:db8::/64"].failures) < (
            calls_session.FAILURES + calls_session.TURNS
        )

    serve(play)


def test_wrong_pool_secrets_are_counted_too(serve):
    async def play(server):
        for _ in range(calls_session.FAILURES + 5):
            await server.fails("session.slave_local_login", "wrong", peer=REMOTE)
        assert len(calls_session._failures[REMOTE.address].failures) == calls_session.FAILURES
        assert (await server.fails("session.slave_local_login", SECRET, peer=REMOTE))[0] == (
            "SESSION_AUTHENTICATION_FAILED"
        )

    serve(play)


def test_who_leaves_before_the_answer_has_failed(serve):
    async def never(_user, _password):
        await asyncio.Event().wait()

    async def play(server):
        server.core.authenticate = never
        for _ in range(calls_session.FAILURES):
            one = asyncio.create_task(server.call(*WRONG, peer=REMOTE))
            await asyncio.sleep(0)
            one.cancel()
            await asyncio.gather(one, return_exceptions=True)
        assert (await server.fails(*WRONG, peer=REMOTE))[0] == "SESSION_AUTHENTICATION_FAILED"

    serve(play)


def test_of_a_long_originator_the_beginning_is_kept(serve):
    async def play(server):
        session = await server.log_in("eve", "1.0", "o" * 100_000, peer=REMOTE)
        kept = await server.call("session.get_originator", session, session)
        assert kept == "o" * calls_session.ORIGINATOR_CHARACTERS

    serve(play)


def test_old_failures_are_forgotten(serve, monkeypatch):
    async def play(server):
        monkeypatch.setattr(calls_session, "FAILURES_WITHIN_S", 0.0)
        for number in range(1, 20):
            await server.fails(*WRONG, peer=Peer(address=f"192.0.2.{number}"))
        assert len(calls_session._failures) == 1

    serve(play)


def test_a_reader_sees_everything_and_changes_nothing(serve):
    async def play(server):
        session = await server.log_in("eve", peer=REMOTE)
        assert await server.call("pool.get_all", session)
        error = await server.fails("pool.set_name_label", session, server.pool, "x")
        assert error[:2] == ["RBAC_PERMISSION_DENIED", "pool.set_name_label"]
        other = await server.log_in("root", peer=REMOTE)
        task = await server.call("task.create", other, "theirs", "")
        for name, *more in (("destroy",), ("cancel",), ("set_status", "success"), ("set_progress", 1)):
            error = await server.fails(f"task.{name}", session, task, *more)
            assert error[:2] == ["RBAC_PERMISSION_DENIED", f"task.{name}/any"]
        own = await server.call("task.create", session, "mine", "")
        assert await server.call("task.destroy", session, own) == ""
        error = await server.fails("secret.get_all_records", session)
        assert error[:2] == ["RBAC_PERMISSION_DENIED", "secret.get_all_records"]

    serve(play)


def test_a_member_sends_log_ins_to_its_coordinator_but_not_those_of_its_own_root(serve):
    async def play(server):
        server.core.coordinator = lambda: "192.0.2.1"
        assert await server.fails("session.login_with_password", "root", "letmein", peer=REMOTE) == [
            "HOST_IS_SLAVE",
            "192.0.2.1",
        ]
        assert await server.call("session.login_with_password", "", "", peer=LOCAL)

    serve(play)


def test_the_pool_secret_opens_sessions_of_the_pool(serve):
    async def play(server):
        session = await server.call("session.slave_login", server.host, SECRET, peer=REMOTE)
        assert await server.call("session.get_pool", session, session) is True
        assert (await server.fails("session.slave_login", server.host, "wrong", peer=REMOTE))[0] == (
            "SESSION_AUTHENTICATION_FAILED"
        )

    serve(play)


def test_in_emergency_mode_only_the_local_calls_answer(serve):
    async def play(server):
        earlier = await server.log_in()
        server.core.blocked = lambda: CallError("HOST_STILL_BOOTING", server.host)
        for call in (("pool.get_all", earlier), ("session.login_with_password", "root", "letmein")):
            assert await server.fails(*call) == ["HOST_STILL_BOOTING", server.host]
        local = await server.call("session.slave_local_login_with_password", "root", "letmein", peer=REMOTE)
        assert await server.call("host.is_in_emergency_mode", local) is False  # it only boots
        server.core.emergency = lambda: True
        assert await server.call("host.is_in_emergency_mode", local) is True
        assert await server.call("session.local_logout", local) == ""
        server.core.blocked = lambda: None
        again = await server.call("session.slave_local_login", SECRET, peer=REMOTE)
        assert await server.fails("pool.get_all", again) == ["SESSION_INVALID", again]
        not_built = "host.management_disable"
        assert await server.fails(not_built, again) == ["NOT_IMPLEMENTED", not_built]

    serve(play)


def test_what_is_listed_works(serve):
    async def play(server):
        names = await server.call("system.listMethods")
        assert {
            "session.login_with_password",
            "event.from",
            "pool.get_all_records",
            "Async.message.destroy_many",
        } <= set(names)
        assert "PBD.plug" not in names
        assert "host.set_hostname" not in names
        assert len([name for name in names if name.endswith(".get_all_records")]) == 60
        coverage = server.dispatcher.coverage()
        assert "plug" in coverage["PBD"]["not built"]
        assert "get_record" in coverage["PBD"]["works"]

    serve(play)


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


def test_a_database_that_is_gone_is_an_error_of_the_call(serve):
    async def play(server):
        session = await server.log_in()
        server.db.give_up(lambda: None, wait_s=1.0)
        for name, *params in (
            ("Async.message.destroy_many", session, []),
            ("pool.get_all", session),
            ("session.login_with_password", "root", "letmein"),
        ):
            assert (await server.fails(str(name), *params))[0] == "INTERNAL_ERROR"

    serve(play)


@pytest.mark.parametrize(
    "call",
    [
        ("session.login_with_password", "root", "letmein"),
        ("session.slave_login", "H", SECRET),
        ("task.create", "S", "l", "d"),
        ("task.set_progress", "S", "T", 0.5),
        ("Async.message.destroy_many", "S", []),
        ("message.destroy_many", "S", []),
        ("event.inject", "S", "pool", "P"),
    ],
)
def test_nobody_waits_for_a_slow_disk_but_who_writes(serve, call):
    began, release = threading.Event(), threading.Event()

    async def play(server):
        session = await server.log_in()
        task = await server.call("task.create", session, "l", "d")
        words = {"S": session, "H": server.host, "P": server.pool, "T": task}

        def write_slowly():
            with server.db.write():
                began.set()
                return release.wait(10)

        slow = asyncio.create_task(asyncio.to_thread(write_slowly))
        await asyncio.to_thread(began.wait, 10)
        params = [words.get(word, word) if isinstance(word, str) else word for word in call[1:]]
        waiting = asyncio.create_task(server.call(call[0], *params))
        for _ in range(50):
            await asyncio.sleep(0)
            assert await server.call("pool.get_all", session) == [server.pool]
        assert not waiting.done()
        release.set()
        assert await slow  # it was let go, and did not give up
        await waiting

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


def test_a_defect_is_told_by_a_reference_and_nothing_else(serve, caplog):
    def broken(_call, *_arguments):
        raise ValueError("the password is 1234")

    async def play(server):
        session = await server.log_in()
        error = await server.fails("host.disable", session, server.host)
        assert error[0] == "INTERNAL_ERROR"
        assert "1234" not in error[1]
        assert error[1].split()[2] in caplog.text

    serve(play, [Implementation("host.disable", broken)])


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


def test_messages_are_made_found_and_destroyed(serve):
    async def play(server):
        session = await server.log_in()
        first = await server.call("message.create", session, "ONE", 1, "Host", "host-uuid", "b")
        second = await server.call("message.create", session, "TWO", 5, "Host", "host-uuid", "b")
        records = await server.call("message.get", session, "Host", "host-uuid", "19700101T00:00:00Z")
        assert set(records) == {first, second}
        assert await server.call("message.get_since", session, "20380101T00:00:00Z") == {}
        answer = await server.dispatcher.call("message.get_all_records", [session], LOCAL)
        assert isinstance(answer.value, Rendered)  # no work for the event loop
        assert json.loads(answer.value.text) == records
        assert await server.call("message.get_record", session, first) == records[first]
        assert await server.call("message.get_by_uuid", session, records[first]["uuid"]) == first
        one = 'field "name" = "ONE"'
        assert set(await server.call("message.get_all_records_where", session, one)) == {first}
        await server.call("message.destroy_all", session, {"priority": "5"})
        assert await server.call("message.get_all", session) == [first]

    serve(play)


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ('field "name__label" = "a"', ["a"]),
        ("not (field 'name__label' = 'a')", ["b"]),
        ('field "name__label" = "a" or field "MTU" = "9000"', ["a", "b"]),
        ('true and field "MTU" = "9000"', ["b"]),
        ("false", []),
        ("field \"tags\" = \"('x' 'y')\"", ["a"]),
    ],
)
def test_expressions_choose_records(serve, expression, found):
    async def play(server):
        session = await server.log_in()
        with server.db.write() as w:
            w.create("network", {"name_label": "a", "tags": ["x", "y"]})
            w.create("network", {"name_label": "b", "MTU": 9000})
        records = await server.call("network.get_all_records_where", session, expression)
        assert sorted(record["name_label"] for record in records.values()) == found
        assert set(await server.call("network.get_all_where", session, expression)) == set(records)

    serve(play)


@given(st.text('()"= \\abfieldnotrue', max_size=60))
def test_any_text_is_an_expression_or_refused(text):
    from hostagent.api import where

    refused = ""
    try:
        where.test(text, MODEL.cls("network"))
    except CallError as error:
        refused = error.code
    assert refused in ("", "INTERNAL_ERROR")


@given(st.text(max_size=50))
def test_any_token_is_one_or_refused(text):
    refused = ""
    try:
        generation_of(text)
    except CallError as error:
        refused = error.code
    assert refused in ("", "EVENT_FROM_TOKEN_PARSE_FAILURE")


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
NAMES = sorted(message.wire_name for cls in MODEL.classes.values() for message in cls.messages.values())


async def outcome_of(server, name, *params):
    try:
        await server.call(name, *params)
    except CallError as error:
        return [error.code, *error.params]
    return ["success"]


@settings(max_examples=40, deadline=None)
@given(calls=st.lists(st.tuples(st.sampled_from(NAMES), st.lists(JUNK, max_size=4)), min_size=5, max_size=25))
def test_any_parameters_get_a_result_or_a_xenapi_error(tmp_path_factory, calls):
    async def play():
        server = Server(tmp_path_factory.mktemp("fuzz"))
        session = await server.log_in()
        try:
            for name, params in calls:
                if name in ("event.next", "event.from", "session.logout", "session.local_logout"):
                    continue
                outcome = await outcome_of(server, name, session, *params)
                assert outcome[0] in {*MODEL.errors, "success", "NOT_IMPLEMENTED", "EVENTS_LOST", "Fault"}, (
                    outcome
                )
                assert "journalctl" not in str(outcome), (name, params, outcome)
        finally:
            server.db.close()

    calls_session.FAILURE_DELAY_S = 0.0
    asyncio.run(play())


GETTERS = [
    (cls.name, message.name)
    for cls in MODEL.classes.values()
    if cls.counted and cls.name not in ("VMPP", "VIF_metrics", "VBD_metrics")
    for message in cls.messages.values()
    if message.generated
    and message.name.startswith("get_")
    and len(message.params) == 1
    and message.state != "removed"
]


def test_every_generated_getter_agrees_with_the_record(serve):
    async def play(server):
        session = await server.log_in()
        refs = {}
        with server.db.write() as w:
            for cls in MODEL.classes.values():
                if cls.counted and cls.name not in ("session", "host", "pool", "role"):
                    refs[cls.name] = w.create(cls.name, {})
        refs |= {
            "host": server.host,
            "pool": server.pool,
            "session": session,
            "role": roles.ref_of(Role.READ_ONLY),
        }
        checked = 0
        for owner, name in GETTERS:
            field = name.removeprefix("get_")
            if field in MODEL.cls(owner).fields:
                record = await server.call(f"{owner}.get_record", session, refs[owner])
                assert await server.call(f"{owner}.{name}", session, refs[owner]) == record[field]
                checked += 1
        assert checked > 800

    serve(play)
