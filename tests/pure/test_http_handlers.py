"""HTTP handlers and who may use them: sessions, pool secret, Basic, roles, tasks; the dump given out and taken back."""

from __future__ import annotations

import base64
import io
import json
import threading
import xmlrpc.client as xmlrpc_client
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.api import jsonrpc, xmlrpc
from hostagent.api.fault import CallError
from hostagent.api.http_auth import basic_of, cookies_of
from hostagent.api.roles import Role
from hostagent.db import model as datamodel
from hostagent.db import xmldump
from hostagent.db.database import open_database
from hostagent.db.datatype import NULL_REF
from hostagent.lifecycle import Lifecycle
from tests.pure.api_server import SECRET, serve
from tests.pure.http_server import Client

DUMP = "/pool/xmldbdump"
ROOT = "root:letmein"

pytestmark = pytest.mark.usefixtures("quick_failures")


def basic(text):
    return {"Authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}


def ask(daemon, method="GET", target=DUMP, body=None, **headers):
    client = Client(daemon.socket)
    try:
        client.request(method, target, body, headers)
        response = client.getresponse()
        return response.status, response.read(), response.headers
    finally:
        client.close()


def log_in(daemon, role=Role.POOL_ADMIN):
    return daemon.core.sessions.log_in("somebody", role, database=daemon.core.database).ref


def pool_name(content):
    dump = xmldump.read(io.BytesIO(content), datamodel.load())
    return next(row.values["name_label"] for row in dump.rows if row.cls == "pool")


def dump_called(daemon, name):
    """A dump of the daemon's database, whose pool has another name."""
    _, content, _ = ask(daemon, **basic(ROOT))
    assert content.count(b'name_label="here"') == 1
    return content.replace(b'name_label="here"', b'name_label="%s"' % name.encode())


def test_root_over_the_unix_socket_needs_no_log_in_and_gets_a_dump(paths):
    status, content, headers = serve(paths, ask)

    assert (status, headers["content-type"]) == (200, "text/xml; charset=utf-8")
    assert headers["transfer-encoding"] == "chunked"
    assert pool_name(content) == "here"


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (lambda d: {}, 401),
        (lambda d: basic(ROOT), 200),
        (lambda d: basic("root:wrong"), 401),
        (lambda d: basic("eve:look"), 403),
        (lambda d: {"Authorization": "Basic !!!"}, 401),
        (lambda d: {"Authorization": "Bearer x"}, 401),
        (lambda d: {"Cookie": f"a=b; session_id={log_in(d)}"}, 200),
        (lambda d: {"Cookie": f"session_id={quote(log_in(d))}"}, 200),
        (lambda d: {"Cookie": f"session_id={log_in(d, Role.READ_ONLY)}"}, 403),
        (lambda d: {"Cookie": "session_id=OpaqueRef:unknown"}, 401),
        (lambda d: {"Cookie": f"pool_secret={SECRET}"}, 200),
        (lambda d: {"Cookie": "pool_secret=guess"}, 401),
        (lambda d: {"Cookie": "session_id=OpaqueRef:unknown", **basic(ROOT)}, 401),
    ],
)
def test_who_may_have_a_dump(paths, made, expected):
    def play(daemon):
        before = len(daemon.core.sessions)
        headers = made(daemon)
        made_here = len(daemon.core.sessions) - before
        status, content, answered = ask(daemon, **headers)
        assert len(daemon.core.sessions) == before + made_here  # a session for one request ends with it
        return status, content, answered

    status, content, headers = serve(paths, play, kind="localhost")
    assert status == expected, content
    assert (headers.get("www-authenticate") == 'Basic realm="hostagent"') == (expected == 401)


def test_a_cookie_counts_before_the_query(paths):
    def play(daemon):
        good = quote(log_in(daemon))
        by_query, _, _ = ask(daemon, target=f"{DUMP}?session_id={good}")
        bad_cookie, _, _ = ask(daemon, target=f"{DUMP}?session_id={good}", Cookie="session_id=OpaqueRef:no")
        by_secret, _, _ = ask(daemon, target=f"{DUMP}?pool_secret={quote(SECRET)}")
        return by_query, bad_cookie, by_secret

    assert serve(paths, play, kind="localhost") == (200, 401, 200)


def test_a_local_session_opens_no_handler(paths):
    def play(daemon):
        local = daemon.core.sessions.log_in("root", Role.ROOT)
        assert local.local
        return ask(daemon, Cookie=f"session_id={local.ref}")[0]

    assert serve(paths, play, kind="localhost") == 401


def test_in_emergency_mode_only_root_here_gets_a_dump(paths):
    def play(daemon):
        daemon.blocked = CallError("HOST_BROKEN")
        return ask(daemon, **basic(ROOT))[:2]

    assert serve(paths, play, kind="localhost") == (503, b"HOST_BROKEN\n")
    assert serve(paths, play)[0] == 200


def test_before_the_database_is_open_there_is_no_dump(paths):
    status, content, _ = serve(paths, ask, with_database=False)
    assert (status, content.split()[0]) == (503, b"HOST_STILL_BOOTING")


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_other_methods_are_not_taken_for_a_dump(paths, method):
    status = serve(paths, lambda daemon: ask(daemon, method, body=b"x")[0])
    assert status == {"POST": 500, "DELETE": 405}[method]  # a POST of any path is XML-RPC


# taken back


def test_a_dump_that_is_put_takes_the_place_and_the_daemon_is_asked_to_start_anew(paths):
    def play(daemon):
        status, content, _ = ask(daemon, "PUT", body=dump_called(daemon, "there"))
        return status, content, daemon.restarts

    status, content, restarts = serve(paths, play)
    assert (status, content, len(restarts)) == (200, b"", 1)
    assert str(paths.database) in restarts[0]

    db = open_database(paths.database, paths.volatile_database)
    with db.read() as view:
        assert view.get("pool", view.the_only("pool"), "name_label") == "there"
    db.close()
    assert [path.name for path in paths.state.iterdir() if path.name.startswith(".dump")] == []


def test_a_dry_run_changes_nothing(paths):
    def play(daemon):
        status, _, _ = ask(daemon, "PUT", f"{DUMP}?dry_run=true", dump_called(daemon, "there"))
        _, content, _ = ask(daemon)
        return status, daemon.restarts, pool_name(content)

    assert serve(paths, play) == (200, [], "here")


@pytest.mark.parametrize(
    "body", [b"", b"<a/>", b"SQLite format 3\0", b"\x1f\x8b\x08", b"<!DOCTYPE x><database/>"]
)
def test_what_is_no_dump_is_a_clean_400_and_fails_the_task(paths, body):
    def play(daemon):
        task = daemon.core.tasks.begin("restore").ref
        status, content, _ = ask(daemon, "PUT", f"{DUMP}?task_id={quote(task)}", body)
        with daemon.core.db.read() as view:
            record = view.record("task", task)
        return status, content.split(b":")[0], record["status"], record["error_info"], daemon.restarts

    status, code, outcome, error, restarts = serve(paths, play)
    assert (status, code) == (400, b"RESTORE_INCOMPATIBLE_VERSION")
    assert (outcome, error, restarts) == ("failure", ["RESTORE_INCOMPATIBLE_VERSION"], [])


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text.replace(b'<table name="pool">', b'<table name="nothing">'),
        lambda text: text.replace(b'key="schema_major_vsn" value="5"', b'key="schema_major_vsn" value="6"'),
        lambda text: text[:-20],
    ],
)
def test_a_dump_that_we_cannot_start_with_is_refused(paths, edit):
    def play(daemon):
        _, content, _ = ask(daemon)
        status = ask(daemon, "PUT", body=edit(content))[0]
        return status, pool_name(ask(daemon)[1]), daemon.restarts

    assert serve(paths, play) == (400, "here", [])


def test_while_the_host_boots_its_database_is_not_replaced(paths):
    def play(daemon):
        body = dump_called(daemon, "there")
        daemon.lifecycle._state = Lifecycle().state
        return ask(daemon, "PUT", body=body)[0], daemon.restarts

    assert serve(paths, play) == (503, [])


def test_who_may_only_read_puts_nothing(paths):
    def play(daemon):
        body = dump_called(daemon, "there")
        return ask(daemon, "PUT", body=body, **basic("eve:look"))[0], daemon.restarts

    assert serve(paths, play, kind="localhost") == (403, [])


@pytest.mark.parametrize("dry_run", ["", "&dry_run=1"])
def test_a_task_is_completed(paths, dry_run):
    def play(daemon):
        task = daemon.core.tasks.begin("transfer").ref
        got = daemon.core.tasks.begin("transfer").ref
        ask(daemon, target=f"{DUMP}?task_id={quote(got)}")
        seen = []
        daemon.core.db.listen(lambda _: seen.append(state(daemon, task)))
        before = state(daemon, got)
        status, _, _ = ask(
            daemon, "PUT", f"{DUMP}?task_id={quote(task)}{dry_run}", dump_called(daemon, "there")
        )
        return status, before, seen[-1]

    def state(daemon, task):
        with daemon.core.db.read() as view:
            record = view.record("task", task)
        return record["status"], record["progress"]

    assert serve(paths, play) == (200, ("success", 1.0), ("success", 1.0))


def test_an_unknown_task_is_told_before_anything_is_done(paths):
    def play(daemon):
        target = f"{DUMP}?task_id=OpaqueRef:x"
        return [ask(daemon, "GET", target)[0], ask(daemon, "PUT", target, b"y")[0]], daemon.restarts

    assert serve(paths, play) == ([400, 400], [])


def test_a_transfer_that_breaks_off_fails_its_task_and_lets_go_of_the_database(paths, monkeypatch):
    def broken(_view, _model):
        yield b"<database>"
        raise OSError("gone")

    monkeypatch.setattr(xmldump, "pieces", broken)

    def play(daemon):
        task = daemon.core.tasks.begin("transfer").ref
        with pytest.raises(Exception):  # noqa: B017, PT011 - whatever http.client makes of it
            ask(daemon, target=f"{DUMP}?task_id={quote(task)}")
        with daemon.core.db.read() as view:
            record = view.record("task", task)
        daemon.core.db.give_up(lambda: None, wait_s=10)  # nobody reads any more
        return record["status"], record["error_info"]

    assert serve(paths, play) == ("failure", ["INTERNAL_ERROR", "the transfer broke off"])


# parsers


@given(st.text(alphabet='ab=;, \t"%\x00é', max_size=30))
def test_any_cookie_header_is_read(header):
    assert all(name and isinstance(value, str) for name, value in cookies_of(header).items())


@given(st.dictionaries(st.text("abc_", min_size=1), st.text("xyz:/=-", max_size=9), max_size=4))
def test_cookies_are_found_again(cookies):
    assert cookies_of("; ".join(f"{name}={value}" for name, value in cookies.items())) == cookies


@given(st.text(st.characters(codec="utf-8"), max_size=20), st.text(st.characters(codec="utf-8"), max_size=20))
def test_name_and_password_are_found_again(name, password):
    header = basic(f"{name}:{password}")["Authorization"]
    expected = (name, password) if ":" not in name else tuple(f"{name}:{password}".split(":", 1))
    assert basic_of(header) == expected


@given(st.text(max_size=40))
def test_any_authorization_header_is_read(header):
    assert basic_of(header) is None or header[:6].lower() == "basic "
    assert basic_of(f"Basic {header}") is None or ":" in base64.b64decode(header.strip()).decode()


def test_the_roles_of_handlers_are_those_of_the_data_model():
    http = datamodel.load().http
    assert (http["get_pool_xml_db_sync"], http["post_cli"]) == ("pool-admin", "read-only")
    assert NULL_REF not in http


@pytest.mark.parametrize("target", ["/jsonrpc", "/RPC2"])
def test_a_large_call_is_read_in_a_thread(paths, monkeypatch, target):
    """A small one is read where all calls are, as the thread would cost more than the reading."""
    module, name = (jsonrpc, "parse") if target == "/jsonrpc" else (xmlrpc, "parse_call")
    read, threads = getattr(module, name), []

    def noted(body):
        threads.append(threading.get_ident())
        return read(body)

    monkeypatch.setattr(module, name, noted)

    def call(daemon, text):
        if target == "/jsonrpc":
            body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "host.get_all", "params": [text]})
        else:
            body = xmlrpc_client.dumps((text,), "host.get_all")
        assert b"SESSION_INVALID" in ask(daemon, "POST", target, body)[1]

    def play(daemon):
        call(daemon, "x")
        call(daemon, "x" * 100_000)

    serve(paths, play)
    assert len(set(threads)) == 2
