"""The daemon with steps of our own: phases, exit codes, and what it tells systemd."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import threading

import pytest

from hostagent import daemon, log
from hostagent.api import client
from hostagent.api.local_socket import SecondInstanceError, only_instance, socket_path
from hostagent.config import Paths
from hostagent.db.copies import write_copy
from hostagent.db.database import open_database
from hostagent.errors import OperatorError
from hostagent.sdnotify import Notifier, watchdog_interval_s
from hostagent.startup.step import Context, Outcome, Policy, Restart, Role, Step, Unchanged
from hostagent.xen import xenstored
from tests.pure.startup_tree import BOOT_ID, put

NOW = ("restart.emergency-delay=0", "restart.emergency-spread=0")


@pytest.fixture
def paths(tmp_path):
    made = Paths(etc=tmp_path / "etc", state=tmp_path / "state", run=tmp_path / "run", root=tmp_path / "root")
    made.state.mkdir()
    return made


@pytest.fixture(autouse=True)
def own_logging(monkeypatch):
    """The daemon sets up the whole process's logging; here that is pytest's."""
    monkeypatch.setattr(log, "set_up", lambda level, modules: log.set_levels(level, modules))
    yield
    log.set_levels("warning", {})


class Systemd:
    """Stands in for systemd: keeps what it is told, line by line; `heard()` waits for a line."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._changed = threading.Condition()

    def tell(self, _notifier: object, *assignments: str) -> bool:
        with self._changed:
            self.lines += assignments
            self._changed.notify_all()
        return True

    def heard(self, line: str, times: int) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self.lines.count(line) >= times, timeout=5)


@pytest.fixture
def systemd(monkeypatch):
    listener = Systemd()
    monkeypatch.setattr(Notifier, "_tell", lambda *told: listener.tell(*told))
    return listener


@pytest.fixture
def told(systemd):
    return systemd.lines


def step(run, name="one", policy=Policy.DEGRADE, **values) -> Step:
    return Step(name, "S1", Role.ANY, (), policy, 20, run, "a test", **values)


def fine(_context: Context) -> Outcome:
    return Unchanged()


def broken(_context: Context) -> Outcome:
    raise OperatorError("the disk is full", hint="df")


def end(_context: Context) -> Outcome:
    """The operator stops the daemon."""
    os.kill(os.getpid(), signal.SIGTERM)
    return Unchanged()


def ready(context: Context) -> Outcome:
    assert context.host.hooks is not None
    context.host.hooks.notify_ready()
    return Unchanged()


def ask(paths: Paths, answers: list[object], method: str = "hostagent.status"):
    """A step that calls the daemon it runs in."""

    def run(_context: Context) -> Outcome:
        answers.append(client.call(socket_path(paths), method))
        return Unchanged()

    return run


def test_a_stopped_daemon_ends_with_0_and_leaves_no_socket(paths):
    assert daemon.run(paths, steps=(step(end),)) == 0
    assert not socket_path(paths).exists()


def test_the_api_is_served_while_steps_run(paths):
    answers: list[object] = []

    daemon.run(paths, steps=(step(ask(paths, answers), "asker"), step(end, "end")))

    (status,) = answers
    assert isinstance(status, dict)
    assert (status["state"], status["pid"]) == ("starting", os.getpid())
    assert [running["name"] for running in status["running_steps"]] == ["asker"]


@pytest.mark.parametrize("xenstored_pid", [371, 1292])
def test_a_xenstored_that_restarts_under_the_daemon_shows_in_its_status(
    paths, monkeypatch, caplog, xenstored_pid
):
    looks = threading.Semaphore(0)
    look = xenstored.look

    def counted(**where):
        report = look(**where)
        looks.release()
        return report

    def restart(_context: Context) -> Outcome:
        put(paths.root / "proc/sys/kernel/random/boot_id", BOOT_ID)
        put(paths.root / "run/xenstore.pid", str(xenstored_pid))
        put(paths.root / f"proc/{xenstored_pid}/stat", f"{xenstored_pid} (oxenstored) S " + "0 " * 18 + "5 0")
        record = {"boot_id": BOOT_ID, "pid": 371, "started_ticks": 5, "marked": True}
        put(paths.run / "xenstored.json", json.dumps(record))
        while looks.acquire(blocking=False):
            pass
        looks.acquire()  # may have begun before the files stood
        looks.acquire()
        return Unchanged()

    monkeypatch.setattr(xenstored, "look", counted)
    monkeypatch.setattr(daemon, "XENSTORED_LOOK_S", 0.001)
    answers: list[object] = []

    daemon.run(paths, steps=(step(restart), step(ask(paths, answers), "asker"), step(end, "end")))

    (status,) = answers
    assert isinstance(status, dict)
    assert (status["xenstored"] or {}).get("link") == (None if xenstored_pid == 371 else "restarted")
    assert sum("xenstored: restarted" in record.getMessage() for record in caplog.records) == (
        xenstored_pid != 371
    )


def test_after_s40_the_daemon_is_ready_although_steps_still_run(paths, told):
    answers: list[object] = []

    daemon.run(paths, steps=(step(ready), step(ask(paths, answers), "asker"), step(end, "end")))

    (status,) = answers
    assert isinstance(status, dict)
    assert (status["state"], status["error"]) == ("ready", None)


def test_systemd_hears_ready_only_from_s40_on(paths, told):
    daemon.run(paths, steps=(step(fine, "early"), step(ready, "ready"), step(fine, "late"), step(end, "end")))

    at = told.index("READY=1")
    assert "STATUS=starting: S1 early" in told[:at]
    assert "STATUS=ready: S1 late" in told[at:]
    assert told.count("READY=1") == 1
    assert told[-2:] == ["STOPPING=1", "STATUS=stopping"]


def test_systemd_grants_each_step_its_deadline_and_some_more(paths, told):
    daemon.run(paths, steps=(step(end),))

    assert "EXTEND_TIMEOUT_USEC=50000000" in told


def test_once_ready_no_step_extends_what_the_watchdog_waits(paths, told):
    daemon.run(paths, steps=(step(ready), step(end, name="later")))

    assert told.count("EXTEND_TIMEOUT_USEC=50000000") == 1


@pytest.mark.parametrize(
    ("policy", "values", "code"), [(Policy.HALT, {}, 2), (Policy.HALT, {"halt_exit": 1}, 1)]
)
def test_a_halt_ends_the_daemon_with_the_exit_code_of_its_step(paths, told, policy, values, code):
    assert daemon.run(paths, steps=(step(broken, policy=policy, **values),)) == code
    assert "READY=1" not in told


def test_a_step_that_asks_for_a_restart_ends_the_daemon_with_123(paths):
    assert daemon.run(paths, steps=(step(lambda _: Restart("role changed")),)) == 123


def test_a_restored_database_ends_the_daemon_with_123_after_the_answer(paths, monkeypatch):
    monkeypatch.setattr(daemon, "RESTART_ANSWER_S", 0.05)
    copy = paths.state / "copy.db"
    answers: list[object] = []

    def restore(context: Context) -> Outcome:
        database = context.host.database = open_database(paths.database, paths.volatile_database)
        with database.write() as w:
            w.create(
                "pool", {"name_label": "then", "master": w.create("host", {"metrics": "OpaqueRef:NULL"})}
            )
        write_copy(database, copy)
        with database.write() as w:
            w.set("pool", w.the_only("pool"), "name_label", "now")
        assert context.host.hooks is not None
        context.host.hooks.api.attach(database, "host-uuid")
        context.host.hooks.notify_ready()
        answers.append(client.call(socket_path(paths), "hostagent.db_restore", str(copy), "restore"))
        return Unchanged()

    assert daemon.run(paths, steps=(step(restore),)) == 123

    (answer,) = answers
    assert isinstance(answer, dict)
    assert answer["restarting"] is True
    database = open_database(paths.database, paths.volatile_database)
    with database.read() as view:
        assert view.get("pool", view.the_only("pool"), "name_label") == "then"
    database.close()


def test_emergency_mode_tells_ready_and_ends_with_123_after_its_delay(paths, told):
    assert daemon.run(paths, NOW, (step(broken, policy=Policy.EMERGENCY),)) == 123
    assert "READY=1" in told
    assert "STATUS=emergency mode: INTERNAL_ERROR the disk is full" in told


def test_emergency_mode_is_seen_by_callers_until_the_restart(paths):
    answers: list[object] = []
    asked = threading.Event()

    def watch(context: Context) -> Outcome:
        """Ends the daemon once it has seen emergency mode."""
        for method in ("hostagent.status", "host.is_in_emergency_mode"):
            ask(paths, answers, method)(context)
        asked.set()
        os.kill(os.getpid(), signal.SIGTERM)
        return Unchanged()

    class Watching(daemon.Daemon):
        def _enter_emergency(self) -> None:
            super()._enter_emergency()
            threading.Thread(target=watch, args=(None,)).start()

    original, daemon.Daemon = daemon.Daemon, Watching  # type: ignore[misc]
    try:
        code = daemon.run(paths, steps=(step(broken, policy=Policy.EMERGENCY),))
    finally:
        daemon.Daemon = original  # type: ignore[misc]

    status, in_emergency = answers
    assert isinstance(status, dict)
    assert (code, in_emergency, status["state"]) == (0, True, "emergency")
    assert status["error"]["found"] == "the disk is full"
    assert 0 < status["restart_in_s"] <= 180


def test_a_sequence_that_breaks_off_ends_the_daemon_with_2(paths, monkeypatch):
    monkeypatch.setattr(threading, "excepthook", lambda _: None)

    def crash(*_: object, **__: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(daemon, "run_sequence", crash)

    assert daemon.run(paths, steps=()) == 2


def test_a_defect_outside_the_steps_ends_the_daemon_with_2_and_a_traceback(paths, monkeypatch, caplog):
    def broken(_self: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(daemon.Daemon, "_handle_signals", broken)

    with pytest.raises(SystemExit) as ended:
        daemon.run(paths, steps=())

    assert ended.value.code == daemon.BUG_EXIT
    assert "a defect" in caplog.text


def test_a_run_directory_that_cannot_be_used_is_not_final(paths, caplog):
    paths.run.write_text("a file")

    with pytest.raises(SystemExit) as ended:
        daemon.run(paths, steps=())

    assert ended.value.code == daemon.BUG_EXIT
    assert "hint: is" in caplog.text


def test_a_second_daemon_is_refused_and_the_first_keeps_its_socket(paths):
    with only_instance(paths), pytest.raises(SecondInstanceError):
        daemon.run(paths, steps=(step(end),))


def test_unusable_settings_do_not_keep_the_sequence_from_telling_it(paths):
    paths.etc.mkdir()
    paths.settings.write_text("log = = 1\n")
    found: list[object] = []

    def look(context: Context) -> Outcome:
        found.append(context.host.config_error)
        return Unchanged()

    daemon.run(paths, steps=(step(look), step(end, "end")))

    assert found != [None]


def test_a_reload_reads_the_log_level_anew_and_tells_systemd(paths, systemd):
    paths.etc.mkdir()
    paths.settings.write_text('log.level = "info"\n')
    levels: list[int] = []

    def reload(_context: Context) -> Outcome:
        levels.append(logging.getLogger().level)
        paths.settings.write_text('log.level = "debug"\n')
        os.kill(os.getpid(), signal.SIGHUP)
        assert systemd.heard("READY=1", 2)
        levels.append(logging.getLogger().level)
        return Unchanged()

    daemon.run(paths, steps=(step(ready, "ready"), step(reload, "reload"), step(end, "end")))

    assert levels == [logging.INFO, logging.DEBUG]
    assert systemd.lines.index("RELOADING=1") > systemd.lines.index("READY=1")


def test_a_reload_before_s40_does_not_tell_systemd_that_the_host_is_ready(paths, told):
    def reload(_context: Context) -> Outcome:
        os.kill(os.getpid(), signal.SIGHUP)
        return Unchanged()

    daemon.run(paths, steps=(step(reload, "reload"), step(end, "end")))

    assert "RELOADING=1" not in told
    assert "READY=1" not in told


def test_a_reload_with_broken_settings_keeps_the_level(paths, systemd):
    paths.etc.mkdir()

    def reload(_context: Context) -> Outcome:
        paths.settings.write_text("log.level = \n")
        os.kill(os.getpid(), signal.SIGHUP)
        assert systemd.heard("READY=1", 2)
        return Unchanged()

    assert daemon.run(paths, steps=(step(ready, "ready"), step(reload, "reload"), step(end, "end"))) == 0
    assert logging.getLogger().level == logging.INFO


@pytest.mark.parametrize(
    ("usec", "pid", "interval"),
    [
        ("60000000", None, 30.0),
        pytest.param("60000000", str(os.getpid()), 30.0, id="60000000-own-30.0"),
        ("60000000", "1", None),
        ("0", None, None),
        ("", None, None),
        ("soon", None, None),
    ],
)
def test_the_watchdog_is_fed_at_half_its_limit_if_it_is_ours(monkeypatch, usec, pid, interval):
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    if pid:
        monkeypatch.setenv("WATCHDOG_PID", pid)

    assert watchdog_interval_s() == interval


def test_the_main_loop_feeds_the_watchdog(paths, systemd, monkeypatch):
    monkeypatch.setenv("WATCHDOG_USEC", "2000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    fed: list[bool] = []

    def wait(_context: Context) -> Outcome:
        fed.append(systemd.heard("WATCHDOG=1", 5))
        return Unchanged()

    daemon.run(paths, steps=(step(wait), step(end, "end")))

    assert fed == [True]


def test_a_watchdog_switched_off_in_the_settings_is_switched_off_in_systemd(paths, told, monkeypatch):
    monkeypatch.setenv("WATCHDOG_USEC", "2000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)

    daemon.run(paths, ("service.watchdog=false",), (step(end),))

    assert "WATCHDOG_USEC=0" in told
    assert "WATCHDOG=1" not in told


def test_without_systemd_nothing_is_told(monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)

    assert not Notifier().ready("x")


def test_a_line_break_cannot_smuggle_a_second_assignment(monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notifier = Notifier()
    sent: list[str] = []
    notifier.listening = True
    notifier._send = sent.append

    notifier.status("a\nREADY=1")

    assert sent == ["STATUS=a READY=1"]


def test_a_stale_socket_of_a_killed_daemon_does_not_stop_the_next(paths):
    paths.run.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(socket_path(paths)))

    assert daemon.run(paths, steps=(step(end),)) == 0
