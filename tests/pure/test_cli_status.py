"""`hostagent status`: what is shown and which exit code it has, with a daemon and without one."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.__main__ import main
from hostagent.api.client import NotRunningError
from hostagent.cli import absence
from hostagent.cli.absence import reason

ERROR = {"code": "INTERNAL_ERROR", "params": ["x"], "found": "the disk is full", "hint": "df /var"}
FAILED_STEP = {
    "name": "read-inventory",
    "ref": "S6",
    "status": "failed",
    "error": ERROR,
    "warnings": [],
    "blocked_by": [],
}
BLOCKED_STEP = {
    **FAILED_STEP,
    "name": "later",
    "status": "blocked",
    "error": None,
    "blocked_by": ["read-inventory"],
}
RUNNING = {
    "state": "ready",
    "boot_result": "clean",
    "startup_s": 12.5,
    "running_steps": [],
    "troubled_steps": [],
    "blockers": [],
    "error": None,
    "restart_in_s": None,
    "pid": 4711,
    "uptime_s": 93784.0,
    "rss_bytes": 30 << 20,
    "versions": {"hostagent": "0.1.0", "xen": "4.20.4", "python": "3.13.5", "kernel": None},
    "socket": "/run/hostagent/api.sock",
}
UNIT = {
    "LoadState": "loaded",
    "ActiveState": "inactive",
    "SubState": "dead",
    "Result": "success",
    "ExecMainCode": "1",
}


@pytest.fixture
def answering(monkeypatch):
    """Lets the daemon answer with a record."""

    def answer(record: dict[str, object]) -> None:
        monkeypatch.setattr("hostagent.api.client.call", lambda _path, _method: {**RUNNING, **record})

    return answer


@pytest.fixture
def silent(monkeypatch):
    """No daemon; systemd and the report say what they are given."""

    def silence(unit: dict[str, str], report: dict[str, object] | None = None) -> None:
        def refuse(*_: object) -> None:
            raise NotRunningError("nobody", hint="start it")

        monkeypatch.setattr("hostagent.api.client.call", refuse)
        monkeypatch.setattr(absence, "unit_facts", lambda: unit)
        monkeypatch.setattr(absence, "last_report", lambda _paths: report)

    return silence


def shown(capsys) -> str:
    return " ".join(capsys.readouterr().out.split())


def test_why_the_host_must_stay_disabled_is_shown(answering, capsys):
    answering({**RUNNING, "blockers": ["check-control-domain: dom0 is another", "no toolstack"]})

    main(["status"])

    assert "check-control-domain: dom0 is another; no toolstack" in capsys.readouterr().out


def test_a_clean_host_is_shown_in_a_few_lines_and_exits_with_0(answering, capsys):
    answering({})

    assert main(["status"]) == 0

    text = shown(capsys)
    assert "state ready start-up clean in 12.5 s up for 1 d 2 h pid 4711 memory 30.0 MiB" in text
    assert "xen 4.20.4" in text
    assert "kernel" not in text


def test_where_the_api_is_and_which_database_it_has_are_shown(answering, capsys):
    answering(
        {
            "listeners": {"local": "/run/hostagent/api.sock", "localhost": "127.0.0.1:80"},
            "database": {"path": "/var/lib/hostagent/state.db", "generation": 1042},
        }
    )

    main(["status"])

    text = shown(capsys)
    assert "API local /run/hostagent/api.sock, localhost 127.0.0.1:80" in text
    assert "database /var/lib/hostagent/state.db, generation 1042" in text


def test_before_the_database_is_open_it_is_not_shown(answering, capsys):
    answering({"listeners": {"local": "/run/hostagent/api.sock"}, "database": None})

    main(["status"])

    assert "database" not in shown(capsys)


def test_a_starting_host_shows_its_step_and_what_it_does(answering, capsys):
    step = {"name": "check", "ref": "S15", "since": 1.0, "for_s": 3.0, "doing": "waiting for xenstored"}
    answering(
        {"state": "starting", "boot_result": None, "startup_s": None, "running_steps": [step], "error": ERROR}
    )

    assert main(["status"]) == 0

    text = shown(capsys)
    assert "step S15 check (waiting for xenstored) for 3.0 s" in text
    assert "error" not in text


def test_a_degraded_host_shows_what_failed_and_exits_with_2(answering, capsys):
    answering({"boot_result": "degraded", "troubled_steps": [FAILED_STEP, BLOCKED_STEP]})

    assert main(["status"]) == 2

    text = shown(capsys)
    assert "S6 read-inventory: failed the disk is full hint: df /var" in text
    assert "needs read-inventory" in text


def test_emergency_mode_shows_its_error_the_hint_and_the_restart_and_exits_with_2(answering, capsys):
    answering({"state": "emergency", "boot_result": "stopped", "error": ERROR, "restart_in_s": 95.0})

    assert main(["status"]) == 2

    text = shown(capsys)
    assert "the disk is full (INTERNAL_ERROR) hint df /var restart in 1 min 35 s" in text


def test_a_xenstored_that_was_restarted_is_shown_with_its_hint_and_exits_with_2(answering, capsys):
    answering({"xenstored": {"link": "restarted", "seen": "pid 1292", "hint": "reboot the host"}})

    assert main(["status"]) == 2
    assert "restarted: pid 1292 hint: reboot the host" in shown(capsys)


def test_json_is_the_record_as_the_daemon_sent_it(answering, capsys):
    answering({})

    assert main(["status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == RUNNING


def test_watch_ends_when_start_up_is_over(answering, capsys):
    answering({"boot_result": "degraded"})

    assert main(["status", "--watch"]) == 2
    assert capsys.readouterr().out.count("state") == 1


def test_watch_shows_again_until_then(monkeypatch, capsys):
    records = [
        {**RUNNING, "state": "starting", "boot_result": None},
        {**RUNNING, "boot_result": None, "running_steps": []},
        RUNNING,
    ]
    monkeypatch.setattr("hostagent.api.client.call", lambda _path, _method: records.pop(0))
    monkeypatch.setattr(time, "sleep", lambda _: None)

    assert main(["status", "--watch"]) == 0
    assert records == []


def test_without_a_daemon_the_exit_code_is_3_and_the_unit_is_explained(silent, capsys):
    silent(UNIT)

    assert main(["status"]) == 3
    assert "state not running why it was stopped, or never started hint systemctl start" in shown(capsys)


def test_a_daemon_that_halted_shows_the_step_that_stopped_it_and_its_hint(silent, capsys):
    report = {"result": "stopped", "steps": [FAILED_STEP]}
    silent({**UNIT, "ActiveState": "failed", "Result": "exit-code", "ExecMainStatus": "1"}, report)

    assert main(["status"]) == 3

    text = shown(capsys)
    assert "the daemon ended: exit code 1" in text
    assert "error the disk is full (INTERNAL_ERROR) hint df /var" in text


def test_a_clean_stop_does_not_show_an_old_error(silent, capsys):
    silent(UNIT, {"result": "degraded", "steps": [FAILED_STEP]})

    main(["status"])

    assert "hint systemctl start hostagent.service" in shown(capsys)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({}, "not installed"),
        ({"LoadState": "not-found"}, "not installed"),
        ({**UNIT, "ActiveState": "activating", "SubState": "auto-restart"}, "activating (auto-restart)"),
        ({**UNIT, "ActiveState": "active"}, "nobody listens"),
        ({**UNIT, "ActiveState": "failed", "Result": "start-limit-hit"}, "too often"),
        (
            {**UNIT, "ActiveState": "failed", "Result": "signal", "ExecMainCode": "2", "ExecMainStatus": "9"},
            "signal 9",
        ),
        (
            {
                **UNIT,
                "ActiveState": "failed",
                "Result": "watchdog",
                "ExecMainCode": "2",
                "ExecMainStatus": "6",
            },
            "watchdog, signal 6",
        ),
    ],
)
def test_the_reason_tells_what_systemd_knows_and_what_to_type(facts, words):
    why, hint = reason(facts)

    assert words in why
    assert hint


@given(st.dictionaries(st.sampled_from(absence.PROPERTIES.split(",")), st.text()))
def test_whatever_systemd_says_there_is_a_reason_and_a_hint(facts):
    why, hint = reason(facts)

    assert why
    assert hint
