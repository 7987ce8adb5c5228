# mypy: disable-error-code="union-attr,attr-defined,arg-type"
# each test knows which outcome it has; hooks are fakes
"""The steps about the API: handlers, calls from inside, the local socket and its link, the port on 127.0.0.1."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import threading
from typing import Any

import pytest

from hostagent.api import roles, tcp
from hostagent.api.fault import CallError
from hostagent.api.local_socket import listening_socket, socket_path
from hostagent.api.routes import Routes
from hostagent.api.service import Service
from hostagent.api.xenapi import XenApi, address_text
from hostagent.config import Paths
from hostagent.db.database import open_database
from hostagent.errors import BugError, HostagentError, OperatorError
from hostagent.lifecycle import Lifecycle
from hostagent.startup import steps_api
from hostagent.startup.report import BootResult
from hostagent.startup.runner import find, run_sequence
from hostagent.startup.state import HostState
from hostagent.startup.step import Change, Changed, Skipped, Unchanged
from hostagent.startup.table import STEPS
from tests.pure.startup_tree import Hooks, context_of


@pytest.fixture
def context(paths):
    """A step in the daemon."""
    return context_of(paths, HostState(hooks=Hooks()))


@pytest.fixture
def api():
    """The real API in a loop of its own, on no listener; the host is still starting."""
    up, stop = threading.Event(), asyncio.Event()
    made: list[Any] = []

    async def serve():
        service = Service(Paths(), Lifecycle(), 0.0, lambda _level: None, lambda _why: None)
        made.extend((XenApi(service, HostState()), asyncio.get_running_loop()))
        up.set()
        await stop.wait()
        await made[0].stop()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert up.wait(10)
    yield made[0]
    made[1].call_soon_threadsafe(stop.set)
    thread.join(10)


@pytest.fixture
def database(paths):
    found = open_database(paths.database, paths.volatile_database)
    with found.write() as w:
        roles.write_records(w)
        w.create("host", {"metrics": w.create("host_metrics", {}), "uuid": "host-uuid", "hostname": "h1"})
    yield found
    found.close()


# --- handlers and calls from inside ---


@pytest.mark.parametrize(
    "step", [steps_api.build_http_handlers, steps_api.open_internal_calls, steps_api.listen_localhost]
)
def test_only_the_daemon_serves(paths, step):
    assert step(context_of(paths)) == Skipped("only the daemon serves the API")


def test_the_doors_of_clients_are_there_before_the_database(context, api):
    context.host.hooks.api = api

    note = steps_api.build_http_handlers(context).note

    routes, _, messages = note.partition(" routes; ")
    assert int(routes) >= 5
    assert int(messages.split()[0]) == len(api.dispatcher.working()) > 10


def test_a_door_without_a_handler_is_a_defect(context):
    context.host.hooks.api.routes = Routes(())

    with pytest.raises(BugError, match="nothing answers POST /"):
        steps_api.build_http_handlers(context)


def test_a_call_from_inside_is_answered_while_the_host_starts(context, api):
    context.host.hooks.api = api

    assert steps_api.open_internal_calls(context) == Unchanged("host.is_in_emergency_mode was answered")
    assert len(api.core.sessions) == 0


def test_a_call_from_inside_that_is_not_answered_as_it_should_is_a_defect(context):
    context.host.hooks.api.answers = {"host.is_in_emergency_mode": "yes"}
    with pytest.raises(BugError, match="answered 'yes'"):
        steps_api.open_internal_calls(context)

    def refuse(_name):
        raise CallError("HOST_STILL_BOOTING", "x")

    context.host.hooks.api.call_internal = refuse
    with pytest.raises(BugError, match="HOST_STILL_BOOTING x"):
        steps_api.open_internal_calls(context)


def test_our_own_code_calls_as_root_while_clients_are_still_refused(api, database):
    with pytest.raises(CallError, match="HOST_STILL_BOOTING"):
        api.call_internal("host.get_all")
    api.attach(database, "host-uuid")

    (host,) = api.call_internal("host.get_all")
    assert api.call_internal("host.get_record", host)["hostname"] == "h1"
    api.call_internal("host.set_name_label", host, "one")

    with database.read() as view:
        assert view.get("host", host, "name_label") == "one"
        assert view.refs("session") == []
    assert len(api.core.sessions) == 0
    with pytest.raises(CallError, match="HANDLE_INVALID host x"):
        api.call_internal("host.get_record", "x")
    assert len(api.core.sessions) == 0


def test_a_host_that_boots_is_not_in_emergency_mode(api):
    assert api.call_internal("host.is_in_emergency_mode") is False
    api._service.lifecycle.entered_emergency(BugError("why", hint="none").record(), 0.0)
    assert api.call_internal("host.is_in_emergency_mode") is True


def test_the_event_loop_does_not_wait_for_itself(api):
    caught = []

    def call():
        try:
            api.call_internal("host.is_in_emergency_mode")
        except RuntimeError as error:
            caught.append(str(error))

    api._in_loop(call)

    assert "cannot wait for itself" in caught[0]


def test_events_flow_once_they_are_started(api, database):
    with pytest.raises(CallError, match=r"^HOST_STILL_BOOTING$"):
        api.start_events()
    api.attach(database, "host-uuid")
    with pytest.raises(CallError, match=r"^HOST_STILL_BOOTING$"):
        api.call_internal("event.from", ["host"], "", 0.0)
    api.start_events()

    batch = api.call_internal("event.from", ["host"], "", 0.0)

    assert [event["snapshot"]["hostname"] for event in batch["events"]] == ["h1"]


def test_the_api_tells_where_it_is_and_what_it_has(api, database, paths):
    assert api.serving() == {"listeners": {}, "database": None}
    api.attach(database, "host-uuid")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(paths.run / "x.sock"))
    listener.listen()

    api.listen_localhost([listener])

    assert api.serving() == {
        "listeners": {"localhost": str(paths.run / "x.sock")},
        "database": {"path": str(paths.database), "generation": database.generation},
    }


def test_addresses_are_written_as_people_write_them():
    assert address_text(("127.0.0.1", 80)) == "127.0.0.1:80"
    assert address_text(("::1", 443, 0, 0)) == "[::1]:443"
    assert address_text("/run/x") == "/run/x"


# --- the local socket ---


@pytest.fixture
def listening(paths):
    with listening_socket(socket_path(paths)):
        yield


def test_clients_of_xapi_find_the_socket_where_they_look(context, paths, listening):
    link = paths.xapi_socket
    planned = steps_api.plan_local_socket(context)
    assert not link.parent.exists()
    held: list[str] = []

    outcome = steps_api.listen_local_socket(context_of(paths, context.host, held=held))

    assert (
        outcome.changes
        == planned
        == (Change(str(paths.root / "var/lib/xcp/xapi"), None, f"link to {socket_path(paths)}"),)
    )
    assert held == ["link-made"]
    assert link.is_socket()
    assert link.readlink() == socket_path(paths)
    assert link.parent.stat().st_mode & 0o777 == 0o700
    assert steps_api.plan_local_socket(context) == ()
    assert steps_api.listen_local_socket(context) == Unchanged(str(socket_path(paths)))


@pytest.mark.parametrize("what", ["not a link", "a socket", "a link to /nowhere"])
def test_what_else_stands_there_is_left_alone(context, paths, listening, what):
    link = paths.xapi_socket
    link.parent.mkdir(parents=True)
    if what == "a socket":
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(link))
    elif what == "not a link":
        link.write_text("of somebody else")
    else:
        link.symlink_to("/nowhere")
    before = link.lstat()

    outcome = steps_api.listen_local_socket(context)

    assert steps_api.plan_local_socket(context) == ()
    assert isinstance(outcome, Unchanged)
    assert f"{link} is {what}: it is left alone" in outcome.warnings[0]
    assert (link.lstat().st_ino, link.lstat().st_mode) == (before.st_ino, before.st_mode)


def test_a_link_that_cannot_be_made_is_a_warning(context, paths, listening):
    paths.xapi_socket.parent.parent.mkdir(parents=True)
    paths.xapi_socket.parent.write_text("a file")

    outcome = steps_api.listen_local_socket(context)

    assert isinstance(outcome, Unchanged)
    assert "could not be made" in outcome.warnings[0]


def test_a_socket_that_others_may_use_or_that_is_gone_ends_the_start(context, paths):
    with pytest.raises(OperatorError, match="No such file"):
        steps_api.listen_local_socket(context)
    with listening_socket(socket_path(paths)):
        socket_path(paths).chmod(0o666)
        with pytest.raises(OperatorError, match="srw-rw-rw-"):
            steps_api.listen_local_socket(context)
    assert not paths.xapi_socket.is_symlink()
    socket_path(paths).write_text("")
    socket_path(paths).chmod(0o600)
    with pytest.raises(OperatorError, match="not a socket"):
        steps_api.listen_local_socket(context)


def test_by_hand_the_link_is_made_while_the_daemon_runs(paths):
    assert isinstance(steps_api.listen_local_socket(context_of(paths)), Skipped)
    with listening_socket(socket_path(paths)):
        assert isinstance(steps_api.listen_local_socket(context_of(paths)), Changed)


# --- 127.0.0.1 ---


def test_the_port_of_the_settings_is_listened_on_once(context, paths, monkeypatch):
    asked = []

    def listen(*given):
        asked.append(given)
        return "127.0.0.1:8080"

    monkeypatch.setattr(tcp, "listening_tcp", listen)
    here = context_of(paths, context.host, localhost_port=8080)

    assert steps_api.listen_localhost(here) == Unchanged("['127.0.0.1:8080']")
    assert steps_api.listen_localhost(here) == Unchanged("['127.0.0.1:8080']")

    assert asked == [("127.0.0.1", 8080, paths.root)]


def test_no_port_no_listener(context, paths):
    outcome = steps_api.listen_localhost(context_of(paths, context.host, localhost_port=0))

    assert outcome == Skipped("the setting api.localhost-port is 0")


def test_who_holds_the_port_is_told_and_the_host_takes_guests_all_the_same(context, monkeypatch):
    def refuse(*_given):
        raise tcp.PortTakenError("port 80 on 127.0.0.1 is taken by apache2, pid 42", hint="stop it")

    monkeypatch.setattr(tcp, "listening_tcp", refuse)

    with pytest.raises(HostagentError, match="apache2, pid 42"):
        steps_api.listen_localhost(context)
    assert context.host.hooks.api.listeners == {}

    row = dataclasses.replace(find("S19", STEPS, {}), needs=())
    report = run_sequence([row], context.config, context.host)
    assert (report.result, report.blockers) == (BootResult.DEGRADED, ())
