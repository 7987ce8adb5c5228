"""The daemon under systemd on a real dom0: its socket, signals, READY, watchdog, restarts and emergency mode."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

import pytest

from tests.xen.agent import hold, start

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nested_xen.host import Host

SOCKET = "/run/hostagent/api.sock"
CURL = f"curl -sS --max-time 20 --unix-socket {SOCKET} http://localhost/jsonrpc"
FRAGMENT = "/etc/hostagent/conf.d/test-daemon.toml"
CURSOR = "/run/test-daemon.cursor"
MAIN_PID = "systemctl show hostagent -p MainPID --value"
WAIT_S = 120

pytestmark = [pytest.mark.destructive]


def call(host: Host, method: str, *params: object) -> dict[str, Any]:
    """What curl, which shares no code with us, gets from the daemon."""
    body = json.dumps({"jsonrpc": "2.0", "method": method, "params": params, "id": 1})
    reply = host.exec(f"{CURL} -H 'Content-Type: application/json' -d '{body}'").stdout
    answered: dict[str, Any] = json.loads(reply)
    return answered


def status(host: Host) -> tuple[dict[str, Any], int]:
    """The record and exit code of `hostagent status --json`."""
    result = host.exec("hostagent status --json", check=False)
    return json.loads(result.stdout), result.code


def unit(host: Host) -> dict[str, str]:
    names = "ActiveState,SubState,Result,ExecMainStatus,MainPID,NRestarts"
    lines = host.exec(f"systemctl show hostagent -p {names}").stdout.splitlines()
    return dict(line.split("=", 1) for line in lines)


def wait_until(host: Host, condition: str) -> None:
    """Wait on the host until a shell condition holds."""
    loop = shlex.quote(f"until {condition}; do sleep 1; done")
    host.exec(f"timeout {WAIT_S} sh -c {loop}", timeout_s=WAIT_S + 30)


def journal_of(host: Host) -> str:
    return str(host.exec("journalctl -u hostagent -o cat --no-pager").stdout)


def wait_for_line(host: Host, text: str) -> None:
    """Wait until a line of the journal that is younger than `mark` has the text.

    Of all units: with -u, the journalctl of Debian 12 also skips the first line after a cursor of another unit.
    """
    wait_until(host, f"journalctl -o cat --after-cursor=\"$(cat {CURSOR})\" | grep -qF '{text}'")


def mark(host: Host) -> None:
    """Remember the end of the journal."""
    host.exec(f"journalctl -n 0 --show-cursor | sed -n 's/^-- cursor: //p' >{CURSOR}; test -s {CURSOR}")


@pytest.fixture
def running(xen_host: Host) -> Iterator[Host]:
    """A daemon that came up clean, now or for an earlier test; what the test set is taken back."""
    found, code = status(xen_host)
    if code != 0 or found["boot_result"] is None:  # not running, or not at the end of its sequence yet
        assert start(xen_host).report["result"] == "clean"
    yield xen_host
    xen_host.exec(
        f"rm -rf {FRAGMENT} /run/systemd/system/hostagent.service.d /run/hostagent/hold; systemctl daemon-reload"
    )


def settings(host: Host, text: str) -> None:
    host.exec(f"mkdir -p /etc/hostagent/conf.d; cat > {FRAGMENT}", stdin=text)


def test_the_command_line_and_curl_get_the_same_answer_and_proc_agrees(running):
    by_us, code = status(running)
    by_curl = call(running, "hostagent.status")["result"]
    pid = by_curl["pid"]
    rss_kib = int(running.exec(f"awk '/VmRSS/{{print $2}}' /proc/{pid}/status").stdout)

    assert (code, by_us["state"], by_us["boot_result"]) == (0, "ready", "clean")
    assert {**by_us, "uptime_s": 0, "rss_bytes": 0} == {**by_curl, "uptime_s": 0, "rss_bytes": 0}
    assert unit(running)["MainPID"] == str(pid)
    assert by_curl["rss_bytes"] == pytest.approx(rss_kib * 1024, rel=0.1)
    assert by_curl["versions"]["xen"].startswith(running.exec("xl info xen_version").stdout.strip()[:4])


@pytest.mark.full
def test_at_rest_it_is_small_and_wakes_only_for_the_watchdog(running):
    pid = unit(running)["MainPID"]
    look = f"cat /proc/{pid}/task/*/status | awk '/ctxt_switches/{{n+=$2}} END{{print n}}'"
    ticks = f"awk '{{print $14+$15}}' /proc/{pid}/stat"

    said = running.exec(
        f"{look}; {ticks}; sleep 30; {look}; {ticks}; awk '/VmRSS/{{print $2}}' /proc/{pid}/status"
    )

    woken_before, cpu_before, woken_after, cpu_after, rss_kib = map(int, said.stdout.split())
    assert rss_kib < 60 * 1024
    assert woken_after - woken_before < 20
    assert cpu_after - cpu_before < 30  # of 3000 ticks


def test_the_socket_is_roots_alone(running):
    modes = running.exec(f"stat -c '%a %U %F' /run/hostagent {SOCKET}").stdout.splitlines()
    by_curl = running.exec(f"runuser -u nobody -- {CURL}", check=False)
    by_us = running.exec("runuser -u nobody -- hostagent status", check=False)

    assert modes == ["700 root directory", "600 root socket"]
    assert by_curl.code == 7  # curl: failed to connect
    assert by_us.code == 1
    assert "only root may" in by_us.stderr


@pytest.mark.full
def test_another_user_is_refused_even_if_the_modes_let_him_through(running):
    mark(running)

    refused = running.exec(
        f"chmod 755 /run/hostagent; chmod 666 {SOCKET}; runuser -u nobody -- {CURL}; echo $?;"
        f" chmod 700 /run/hostagent; chmod 600 {SOCKET}"
    )

    assert refused.stdout.split()[-1] in ("52", "56")  # curl: no reply, connection reset
    wait_for_line(running, "only root may call")
    assert status(running)[1] == 0


@pytest.mark.full
def test_what_is_no_call_gets_the_http_status_that_says_why(running):
    codes = running.exec(
        f"show() {{ {CURL} -o /dev/null -w '%{{http_code}} ' \"$@\"; }};"
        f" show; show -d x; show -H 'Content-Type: application/json' -d '{{'; "
        f"curl -s -o /dev/null -w '%{{http_code}}' --unix-socket {SOCKET} http://localhost/ -d x"
    )

    assert codes.stdout.split() == ["405", "415", "200", "404"]


@pytest.mark.full
def test_stopping_is_clean_and_status_says_how_to_start_again(running):
    running.exec("systemctl stop hostagent")

    record, code = status(running)
    shown = running.exec("hostagent status", check=False)
    after = unit(running)

    assert (after["Result"], after["ExecMainStatus"], after["ActiveState"]) == ("success", "0", "inactive")
    assert (code, record["state"]) == (3, "not running")
    assert "systemctl start hostagent.service" in shown.stdout
    assert running.exec(f"test -e {SOCKET}", check=False).code == 1


@pytest.mark.full
def test_a_reload_changes_the_log_level_and_keeps_the_process(running):
    before = unit(running)["MainPID"]
    settings(running, 'log.level = "debug"\n')

    mark(running)

    running.exec("systemctl reload hostagent")  # returns once SIGHUP is sent

    wait_for_line(running, "reload: log level is debug")
    assert unit(running)["MainPID"] == before
    assert unit(running)["ActiveState"] == "active"


@pytest.mark.full
def test_settings_that_cannot_be_read_leave_the_running_daemon_as_it_was(running):
    settings(running, "log.level = \n")

    mark(running)

    running.exec("systemctl reload hostagent")

    wait_for_line(running, FRAGMENT)
    assert status(running)[0]["state"] == "ready"


def test_systemd_hears_ready_at_s40_and_not_before(running):
    held = running.exec(
        f"{hold('notify-ready:before')}\nsystemctl show hostagent -p ActiveState --value; hostagent status --json",
        timeout_s=240,
    ).stdout
    record = json.loads(held[held.index("{") :])

    assert "held at notify-ready:before" in held
    assert "activating" in held
    assert record["state"] == "starting"
    assert record["error"]["code"] == "HOST_STILL_BOOTING"
    assert [step["name"] for step in record["running_steps"]] == ["notify-ready"]

    running.exec("rm /run/hostagent/hold")
    wait_until(running, "systemctl is-active --quiet hostagent")


@pytest.mark.full
def test_a_stop_while_a_step_works_ends_with_0_in_time(running):
    stopped = running.exec(
        f"{hold('notify-ready:before')}\nbegan=$(date +%s); systemctl stop hostagent; ended=$(date +%s)\n"
        'rm -f /run/hostagent/hold; echo "took $((ended - began))"',
        timeout_s=240,
    ).stdout

    after = unit(running)
    assert "held at notify-ready:before" in stopped
    assert int(stopped.split("took ")[1]) < 25
    assert (after["Result"], after["ExecMainStatus"]) == ("success", "0")


def test_a_killed_daemon_is_started_again_and_takes_lock_and_socket_over(running):
    before = unit(running)
    running.exec(f"kill -9 {before['MainPID']}")

    wait_until(running, f'test "$({MAIN_PID})" -gt 1 && test "$({MAIN_PID})" != {before["MainPID"]}')
    wait_until(running, "systemctl is-active --quiet hostagent")

    record, _ = status(running)
    after = unit(running)
    assert int(after["NRestarts"]) == int(before["NRestarts"]) + 1
    assert record["pid"] == int(after["MainPID"])
    assert running.exec("cat /run/hostagent/hostagent.lock").stdout.strip() == after["MainPID"]


@pytest.mark.full
def test_sigterm_ends_it_with_0_and_systemd_leaves_it_ended(running):
    running.exec(f"kill -TERM {unit(running)['MainPID']}")
    wait_until(running, "! systemctl is-active --quiet hostagent")

    after = unit(running)
    assert (after["Result"], after["ExecMainStatus"], after["ActiveState"]) == ("success", "0", "inactive")


@pytest.mark.full
def test_a_second_daemon_is_refused_with_the_pid_of_the_first(running):
    pid = unit(running)["MainPID"]

    second = running.exec("hostagent run", check=False)

    assert second.code == 1
    assert f"as pid {pid}" in second.stderr
    assert "hint: " in second.stderr
    assert status(running)[0]["pid"] == int(pid)


@pytest.mark.full
def test_a_frozen_daemon_is_ended_by_the_watchdog_and_started_again(running):
    running.exec(
        "mkdir -p /run/systemd/system/hostagent.service.d;"
        " printf '[Service]\\nWatchdogSec=15s\\n' > /run/systemd/system/hostagent.service.d/test.conf;"
        " systemctl daemon-reload"
    )
    start(running)
    frozen = unit(running)["MainPID"]
    running.exec(f"kill -STOP {frozen}")

    wait_until(running, f'test "$({MAIN_PID})" -gt 1 && test "$({MAIN_PID})" != {frozen}')
    wait_until(running, "systemctl is-active --quiet hostagent")

    assert "Watchdog timeout" in journal_of(running)
    assert status(running)[0]["pid"] != int(frozen)


@pytest.mark.full
def test_emergency_mode_answers_says_why_and_asks_to_be_started_again(running):
    settings(running, "[restart]\nemergency-delay = 60\nemergency-spread = 0\n")
    running.exec("cp /etc/hostagent/pool.conf /root/pool.conf; echo broken > /etc/hostagent/pool.conf")

    start(running)

    restarts = unit(running)["NRestarts"]  # a start by hand sets it back
    record, code = status(running)
    shown = running.exec("hostagent status", check=False).stdout
    assert unit(running)["ActiveState"] == "active"
    assert (code, record["state"], record["boot_result"]) == (2, "emergency", "stopped")
    assert record["error"]["code"] == "HOST_BROKEN"
    assert 0 <= record["restart_in_s"] <= 60
    assert record["error"]["hint"] in " ".join(shown.split())
    assert call(running, "host.is_in_emergency_mode")["result"] is True
    session = call(running, "session.slave_local_login_with_password", "root", "")["result"]
    assert call(running, "host.is_in_emergency_mode", session)["result"] is True
    for method, *params in (("session.login_with_password", "root", ""), ("pool.get_all", session)):
        assert call(running, method, *params)["error"]["message"] == "HOST_BROKEN"

    running.exec("cp /root/pool.conf /etc/hostagent/pool.conf")
    wait_until(running, f'test "$(systemctl show hostagent -p NRestarts --value)" -gt {restarts}')
    wait_until(running, "systemctl is-active --quiet hostagent")

    assert "status=123" in journal_of(running)
    assert status(running)[0]["state"] == "ready"


@pytest.mark.full
def test_unusable_settings_end_it_with_1_are_not_retried_and_status_names_the_line(running):
    settings(running, "# one\nlog.level = 5\n")

    failed = running.exec("systemctl restart hostagent", check=False, timeout_s=240)

    shown = running.exec("hostagent status", check=False)
    after = unit(running)
    assert failed.code != 0
    assert (after["ActiveState"], after["ExecMainStatus"]) == ("failed", "1")
    assert shown.code == 3
    assert f"{FRAGMENT}: line 2" in shown.stdout
    assert "hint" in shown.stdout
