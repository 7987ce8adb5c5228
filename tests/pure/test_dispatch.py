"""XenAPI calls against a real database: generated messages, roles, emergency mode, errors byte for byte."""

from __future__ import annotations

import asyncio
import json
import threading
import xmlrpc.client
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostagent.api import calls_session, roles
from hostagent.api.dispatch import Implementation
from hostagent.api.endpoint import Endpoint
from hostagent.api.fault import CallError
from hostagent.api.http import Peer as Caller
from hostagent.api.http import Request
from hostagent.api.rendered import Rendered
from hostagent.api.roles import Role
from hostagent.api.tokens import token
from hostagent.db.datatype import NULL_REF, Kind
from tests.pure.api_server import SECRET
from tests.pure.xenapi_server import LOCAL, MODEL, REMOTE, Server

UNIX = Caller("unix", "pid 1", 0)


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
        not_built = "VM.start"
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

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(calls_session, "FAILURE_DELAY_S", 0.0)
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


def one_of_each(server, session):
    """A reference of each class that has objects."""
    refs = {
        "host": server.host,
        "pool": server.pool,
        "session": session,
        "role": roles.ref_of(Role.READ_ONLY),
    }
    with server.db.write() as w:
        for cls in MODEL.classes.values():
            if cls.counted and cls.name not in refs:
                refs[cls.name] = w.create(cls.name, {})
    return refs


def test_every_generated_getter_agrees_with_the_record(serve):
    async def play(server):
        session = await server.log_in()
        refs = one_of_each(server, session)
        checked = 0
        for owner, name in GETTERS:
            field = name.removeprefix("get_")
            if field in MODEL.cls(owner).fields:
                record = await server.call(f"{owner}.get_record", session, refs[owner])
                assert await server.call(f"{owner}.{name}", session, refs[owner]) == record[field]
                checked += 1
        assert checked > 800

    serve(play)


def another(kind, value, refs):
    """A value of the type that is not this one."""
    match kind.kind:
        case Kind.BOOL:
            return not value
        case Kind.INT:
            return value + 7
        case Kind.ENUM:
            return next(word for word in MODEL.enums[kind.name] if word != value)
        case Kind.REF:
            return refs[kind.name]
        case Kind.SET:
            return [*value, "é <&>"]
        case Kind.MAP:
            return {**value, "a key": "é <&>"}
    return f"{value} é <&>"


def changes_of(cls, field, value, refs):
    """The working messages that change a field: name, parameters, and the value that the field then has."""
    now = new = another(field.type, value, refs) if f"set_{field.name}" in cls.messages else value
    yield "set_", (new,), new
    if field.type.kind is Kind.MAP:
        yield "add_to_", ("k", "v"), {**now, "k": "v"}
        yield "remove_from_", ("k",), now
    if field.type.kind is Kind.SET:
        yield "add_", ("k",), [*now, "k"]
        yield "remove_", ("k",), now


@pytest.mark.parametrize("protocol", ["xml", "json"])
def test_every_generated_change_reaches_the_database(serve, protocol):
    """In the bytes of the protocol."""

    async def play(server):
        own: Any = None  # no call of our own is made
        door: Any = Endpoint(server.dispatcher, own)
        session = await server.log_in()
        refs = one_of_each(server, session)
        wanted = {
            message.wire_name
            for cls in MODEL.classes.values()
            for message in cls.messages.values()
            if message.generated and message.name.startswith(("set_", "add_", "remove_"))
        } & set(server.dispatcher.working())

        async def call(name, *params):
            if protocol == "xml":
                body = xmlrpc.client.dumps((session, *params), name).encode()
                answer = await door.xml(Request("POST", "/", {}, {}, body, UNIX))
                ((reply,), _) = xmlrpc.client.loads(answer.body)
                assert reply == {"Status": "Success", "Value": ""}, name
            else:
                asked = {"jsonrpc": "2.0", "id": 1, "method": name, "params": [session, *params]}
                answer = await door.json(
                    Request("POST", "/jsonrpc", {}, {}, json.dumps(asked).encode(), UNIX)
                )
                assert json.loads(answer.body) == {"jsonrpc": "2.0", "result": "", "id": 1}, name

        def value_of(cls, field):
            with server.db.read() as view:
                return view.get(cls.name, refs[cls.name], field.name)

        done = set()
        for cls in (MODEL.classes[name] for name in refs):
            for field in cls.public:
                for prefix, params, after in changes_of(cls, field, value_of(cls, field), refs):
                    name = f"{cls.name}.{prefix}{field.name}"
                    if name in wanted:
                        assert value_of(cls, field) != after
                        await call(name, refs[cls.name], *params)
                        assert value_of(cls, field) == after, name
                        done.add(name)
        assert done == wanted
        assert len(done) > 200

    serve(play)
