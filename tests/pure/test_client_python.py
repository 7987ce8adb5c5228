"""The unchanged Python XenAPI package against our API, over a real Unix socket."""

from __future__ import annotations

import asyncio
import socket
import tempfile
import threading
import time
import uuid
from pathlib import Path
from types import SimpleNamespace

import pytest
import XenAPI

from hostagent.api import calls_session, roles
from hostagent.api.fault import CallError
from hostagent.api.service import Service
from hostagent.api.xenapi import XenApi
from hostagent.config import Paths
from hostagent.db.database import open_database
from hostagent.lifecycle import Lifecycle
from hostagent.startup.state import HostState


@pytest.fixture
def directory():
    """A path without underscores: the package writes `_` for `/` in the path of a socket."""
    path = Path(tempfile.gettempdir()) / f"xapi-{uuid.uuid4().hex}"
    path.mkdir()
    yield path
    for file in path.rglob("*"):
        if not file.is_dir():
            file.unlink()
    path.rmdir()


@pytest.fixture
def server(directory, monkeypatch):
    """The API in a thread of its own, over a database with one host in one pool."""
    monkeypatch.setattr(calls_session, "FAILURE_DELAY_S", 0.001)
    database = open_database(directory / "state.db", directory / "volatile.db")
    with database.write() as w:
        roles.write_records(w)
        host = w.create(
            "host", {"metrics": w.create("host_metrics", {}), "uuid": "host-uuid", "hostname": "h1"}
        )
        pool = w.create("pool", {"master": host})
    path = directory / "api.sock"
    made = SimpleNamespace(database=database, host=host, pool=pool, path=path)
    up, stop = threading.Event(), asyncio.Event()

    async def serve():
        lifecycle = Lifecycle()
        made.api = XenApi(
            Service(Paths(root=directory), lifecycle, time.time(), lambda _level: None, lambda _why: None),
            HostState(),
        )
        made.lifecycle, made.loop = lifecycle, asyncio.get_running_loop()
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen()
        made.api.serve_local(listener)
        up.set()
        await stop.wait()
        await made.api.stop()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    up.wait(10)
    made.api.attach(database, "host-uuid")
    made.api.start_events()
    made.lifecycle.became_ready()
    yield made
    made.loop.call_soon_threadsafe(stop.set)
    thread.join(10)
    database.close()


@pytest.fixture
def connect(server):
    """Makes sessions of the package, and closes their connections."""
    made = []

    def session():
        url = f"http://{str(server.path).replace('/', '_')}"
        made.append(XenAPI.Session(url, transport=XenAPI.UDSTransport()))
        return made[-1]

    yield session
    for one in made:
        one("close")()


@pytest.fixture
def session(connect):
    made = connect()
    made.xenapi.login_with_password("root", "", "1.0", "a test")
    yield made
    made.xenapi.session.logout()


def test_it_logs_in_and_reads_the_version_of_the_api(session, server):
    assert session.xenapi.pool.get_all() == [server.pool]
    assert session.xenapi.session.get_this_host(session.handle) == server.host
    assert session.API_version == "0.0"  # the host's record is made by a start-up step


def test_it_reads_and_writes_records(session, server):
    record = session.xenapi.host.get_record(server.host)
    assert (record["hostname"], record["enabled"], record["memory_overhead"]) == ("h1", False, "0")
    assert str(record["last_software_update"]) == "19700101T00:00:00Z"
    session.xenapi.host.set_name_label(server.host, "é < & >")
    session.xenapi.host.add_to_other_config(server.host, "k", "v")
    assert session.xenapi.host.get_name_label(server.host) == "é < & >"
    assert session.xenapi.host.get_other_config(server.host) == {"k": "v"}
    assert set(session.xenapi.host.get_all_records()) == {server.host}


def test_failures_are_lists_of_code_and_parameters(session):
    with pytest.raises(XenAPI.Failure) as missing:
        session.xenapi.host.get_record("OpaqueRef:none")
    assert missing.value.details == ["HANDLE_INVALID", "host", "OpaqueRef:none"]
    with pytest.raises(XenAPI.Failure) as unknown:
        session.xenapi.host.no_such_call()
    assert unknown.value.details == ["MESSAGE_METHOD_UNKNOWN", "host.no_such_call"]
    with pytest.raises(XenAPI.Failure) as not_built:
        session.xenapi.PBD.plug("OpaqueRef:none")
    assert not_built.value.details == ["NOT_IMPLEMENTED", "PBD.plug"]


def test_a_change_made_in_one_client_is_seen_in_the_other(session, server, connect):
    first = session.xenapi.event_from(["pool"], "", 0.0)
    assert first["valid_ref_counts"]["host"] == 1
    other = connect()
    other.xenapi.login_with_password("root", "")
    answers = []
    waiting = threading.Thread(
        target=lambda: answers.append(session.xenapi.event_from(["pool"], first["token"], 30.0))
    )
    waiting.start()
    other.xenapi.pool.set_name_label(server.pool, "new")
    waiting.join(20)
    (answer,) = answers
    (event,) = answer["events"]
    assert (event["class"], event["operation"], event["snapshot"]["name_label"]) == ("pool", "mod", "new")
    other.xenapi.session.logout()


def test_an_asynchronous_call_ends_and_its_task_can_be_read(session):
    message = session.xenapi.message.create("NAME", 3, "Host", "host-uuid", "body")
    task = session.xenapi.Async.message.destroy_many([message])
    token = ""
    while session.xenapi.task.get_status(task) == "pending":
        token = session.xenapi.event_from([f"task/{task}"], token, 10.0)["token"]
    assert session.xenapi.task.get_status(task) == "success"
    session.xenapi.task.destroy(task)
    assert session.xenapi.message.get_all() == []


def test_an_ended_session_is_refused(connect):
    session = connect()
    session.xenapi.login_with_password("root", "")
    handle = session.handle
    session.xenapi.session.logout()
    assert session.host.get_all(handle) == {
        "Status": "Failure",
        "ErrorDescription": ["SESSION_INVALID", handle],
    }


def test_while_it_boots_every_call_is_told_so(server, connect):
    server.api.core.blocked = lambda: CallError("HOST_STILL_BOOTING")
    with pytest.raises(XenAPI.Failure) as caught:
        connect().xenapi.login_with_password("root", "")
    assert caught.value.details == ["HOST_STILL_BOOTING"]
