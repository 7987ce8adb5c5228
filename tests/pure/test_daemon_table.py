# mypy: disable-error-code="no-any-return,index,call-overload"
# answers of the daemon are JSON
"""The daemon with the steps of the table, but those that talk to Xen: from nothing to a host that clients can use."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import threading

import pytest

from hostagent import daemon, log
from hostagent.api import client
from hostagent.api.local_socket import socket_path
from hostagent.db import local
from hostagent.db.database import open_database
from hostagent.sdnotify import Notifier
from hostagent.startup import report as reports
from hostagent.startup import steps_xen, table_db, table_net
from hostagent.startup.runner import run_one
from hostagent.startup.state import begin
from hostagent.startup.step import Context, Outcome, Policy, Role, Step, Unchanged
from hostagent.startup.table import STEPS
from tests.pure.host_samples import facts as sample
from tests.pure.startup_tree import make_paths, put
from tests.xen.agent import Start
from tests.xen.interruptions import NEVER, POINTS, PREPARE, RECORDS

NO_XEN = tuple(step for step in STEPS if step.run.__module__ != steps_xen.__name__)
NO_PORT = ("api.localhost-port=0",)
NOW = ("restart.emergency-delay=0", "restart.emergency-spread=0")


@pytest.fixture(autouse=True)
def own_logging(monkeypatch):
    """The daemon sets up the whole process's logging; here that is pytest's."""
    monkeypatch.setattr(log, "set_up", lambda level, modules: log.set_levels(level, modules))
    monkeypatch.setattr(Notifier, "_tell", lambda *_: True)
    monkeypatch.setattr(daemon, "_leave", lambda code: pytest.fail(f"{code}: {threading.enumerate()}"))
    yield
    log.set_levels("warning", {})


@pytest.fixture
def paths(tmp_path, monkeypatch):
    made = make_paths(tmp_path)
    put(made.root / "proc/sys/kernel/hostname", "h1\n")
    monkeypatch.setattr("hostagent.hostinfo.address.look", dict)

    seconds = itertools.count(1_800_000_000)

    def gather(_root, inventory, *, agent_start, run_dir):
        return sample(
            host_uuid=inventory.installation_uuid,
            dom0_uuid=inventory.control_domain_uuid,
            agent_start=next(seconds),  # two starts here may be in the same second
        )

    monkeypatch.setattr("hostagent.hostinfo.facts.gather", gather)
    return made


@pytest.fixture
def start(paths):
    """One life of the daemon: its exit code, its report, and what `ask` returned once start-up had come to its end."""

    def run(ask=None, overrides=NO_PORT):
        answers = []

        def end(_context: Context) -> Outcome:
            if ask is not None:
                answers.append(ask())
            os.kill(os.getpid(), signal.SIGTERM)
            return Unchanged()

        last = Step("end", "end", Role.ANY, (), Policy.BEST_EFFORT, 30, end, "a test")
        code = daemon.run(paths, overrides, (*NO_XEN, last))
        record = json.loads(json.dumps(reports.as_json(reports.load(paths))))
        return code, Start({}, record, ""), answers[0] if answers else None

    return run


@pytest.fixture
def call(paths):
    return lambda method, *params: client.call(socket_path(paths), method, *params)


def test_a_first_start_ends_with_a_host_that_clients_can_use(start, call, paths):
    def ask():
        session = call("session.login_with_password", "root", "", "1.0", "a test")
        records = call("host.get_all_records", session)
        pools = call("pool.get_all_records", session)
        events = call("event.from", session, ["VM"], "", 0.0)
        return records, pools, events, call("hostagent.status")

    code, run, (hosts, pools, events, status) = start(ask)

    assert code == 0
    assert run.troubles == []
    assert {name for name, status in run.statuses.items() if status == "skipped"} == {
        "listen-localhost",
        "stop-role-scripts",
    }
    ((ref, host),) = hosts.items()
    assert (host["hostname"], host["enabled"]) == ("h1", True)
    assert [pool["master"] for pool in pools.values()] == [ref]
    assert [event["snapshot"]["is_control_domain"] for event in events["events"]] == [True]
    assert status["listeners"] == {"local": str(socket_path(paths))}
    assert status["database"]["path"] == str(paths.database)
    assert status["database"]["generation"] > 0
    assert paths.xapi_socket.readlink() == socket_path(paths)


def test_a_second_start_changes_only_what_each_start_changes(start):
    _, first, _ = start()
    assert "make-localhost" in first.changed

    _, second, _ = start()

    assert second.changes == []
    assert second.changed == set()
    changed = {name for name, status in second.statuses.items() if status == "changed"}
    assert {"start-database", "enable-host"} <= changed


def test_a_host_that_must_not_take_guests_stays_disabled(start, call, paths):
    start()
    local.open_store(paths.local_database).put(local.HOST_AUTO_ENABLE, value=False)

    def ask():
        session = call("session.login_with_password", "root", "", "1.0", "a test")
        return [host["enabled"] for host in call("host.get_all_records", session).values()]

    _, run, enabled = start(ask)

    assert enabled == [False]
    assert "host_auto_enable" in run.steps["enable-host"]["note"]


def test_a_supporter_starts_without_a_database(start, call, paths):
    start()
    paths.role.write_text("slave:192.0.2.99\n")

    code, run, status = start(lambda: call("hostagent.status"))

    assert code == 0
    assert run.troubles == []
    skipped = {name for name, status in run.statuses.items() if status == "skipped"}
    assert {
        "start-database",
        "make-localhost",
        "sync-ha-state",
        "start-measurements",
        "enable-host",
    } <= skipped
    assert status["database"] is None


def test_a_host_on_which_ha_was_armed_goes_into_emergency_mode(start, paths):
    start()
    local.open_store(paths.local_database).put(local.HA_ARMED, value=True)

    code, run, _ = start(overrides=(*NO_PORT, *NOW))

    assert code == 123
    assert run.steps["check-ha-armed"]["error"]["code"] == "HA_HEARTBEAT_DAEMON_STARTUP_FAILED"
    assert "start-database" not in run.steps


def test_a_db_conf_that_cannot_be_understood_is_final(start, paths):
    put(paths.db_conf, "[/a]\nmode\n")

    code, run, _ = start()

    assert (code, run.steps["read-db-conf"]["status"]) == (1, "failed")


def test_a_database_that_another_process_has_is_tried_again(start, paths):
    with contextlib.closing(open_database(paths.database, paths.run / "other.db")):
        code, run, _ = start()

    assert (code, run.steps["start-database"]["status"]) == (2, "failed")


# --- one step by hand ---

OF_DAEMON = {
    "build-http-handlers",
    "open-internal-calls",
    "listen-local-socket",
    "listen-localhost",
    "start-scheduler",
    "start-collection",
    "start-change-notifier",
    "start-measurements",
    "start-network-jobs",
}
OF_DATABASE = [
    step.name
    for step in (
        *table_db.DATABASE,
        *table_db.SCHEDULER,
        *table_net.MANAGEMENT,
        *table_db.RECORDS,
        *table_net.RECORDS,
        *table_db.POOL_RECORDS,
        *table_net.POOL_RECORDS,
        *table_db.LICENCE,
        *table_db.COLLECTION,
        *table_db.DOM0,
        *table_db.NEWS,
        *table_net.JOBS,
        *table_net.NETWORKS,
    )
]


@pytest.fixture
def by_hand(paths):
    """What `hostagent startup run` does: the records of the steps by name."""

    def run(name, **options):
        config, host = begin(paths)
        try:
            report = run_one(name, STEPS, config, host, aliases={}, **options)
        finally:
            host.close()
        return {step.name: step for step in report.steps}

    return run


@pytest.mark.parametrize("name", [step.name for step in table_db.API] + OF_DATABASE)
def test_by_hand_a_step_does_its_work_or_is_the_daemons(start, by_hand, name):
    start()

    status = by_hand(name, with_needs=True)[name].status.value

    assert (status == "skipped") == (name in OF_DAEMON)
    assert status in ("skipped", "changed", "unchanged")


def test_while_the_daemon_runs_its_database_is_refused_by_hand_and_planned_on_a_copy(start, by_hand, paths):
    start()
    with contextlib.closing(open_database(paths.database, paths.volatile_database)) as database:
        generation = database.generation
        needed = by_hand("record-dom0", with_needs=True)
        alone = by_hand("record-dom0")["record-dom0"]
        planned = by_hand("refresh-host-info", dry_run=True)["refresh-host-info"]
        assert database.generation == generation

    assert "the daemon has the database while it runs" in needed["start-database"].error["found"]
    assert "record-dom0" not in needed
    assert alone.status.value == "failed"
    assert "ask it" in alone.error["hint"]
    assert [change.what.partition(":")[2] for change in planned.changes] == ["agent_start_time"]


# --- what the fault tests on real hosts rely on ---


@pytest.mark.parametrize("name", RECORDS)
def test_what_fault_tests_do_to_the_records_gives_their_step_rows_to_write(start, paths, name):
    start()
    with contextlib.closing(open_database(paths.database, paths.volatile_database)) as database:
        with database.write() as w:
            exec(RECORDS[name], {"w": w})  # noqa: S102 - our own text

    code, run, _ = start()

    assert (code, run.troubles) == (0, [])
    assert name in run.changed


def test_every_point_of_a_record_is_prepared_or_reached_by_each_start(start):
    start()
    _, again, _ = start()
    idle = {name for name, status in again.statuses.items() if status != "changed"}

    unprepared = {point for point in POINTS if point.endswith(":rows-written")} - PREPARE.keys()

    assert {point.partition(":")[0] for point in unprepared} & idle == set()
    assert NEVER.keys().isdisjoint(PREPARE)
