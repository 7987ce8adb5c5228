"""Start-up on a host with something broken: a clear error and a hint each time, nothing lost, and it heals."""

from __future__ import annotations

import json

import pytest
from nested_xen import faults

from tests.xen.agent import start

pytestmark = [pytest.mark.full, pytest.mark.destructive]

# systemd would start the agent again 2 s after an exit with 2, and forget the exit code with it
NO_RESTART = (
    "mkdir -p /run/systemd/system/hostagent.service.d; printf '[Service]\\nRestart=no\\n'"
    " >/run/systemd/system/hostagent.service.d/no-restart.conf; systemctl daemon-reload"
)
GARBAGE = "head -c 3000 /dev/urandom"
KEEP = "cp -a /etc/hostagent /root/etc-before; cp -a /var/lib/hostagent /root/state-before"
BACK = (
    "systemctl stop hostagent; rm -rf /etc/hostagent /var/lib/hostagent;"
    " cp -a /root/etc-before /etc/hostagent; cp -a /root/state-before /var/lib/hostagent;"
    " rm -rf /root/etc-before /root/state-before"
)


# A case: the step that must say so, words its error must hold, the unit's exit code (0: it goes on running), the shell
# line that does the damage, and the file that must stay as it was found.
def broken(step: str, words: tuple[str, ...], code: int, damage: str, untouched: str = "") -> object:
    return pytest.param(step, words, code, damage, untouched, id=f"{step}: {damage[:50]}")


CASES = [
    broken(
        "read-configuration",
        ("hostagent.toml",),
        1,
        f"{GARBAGE} >/etc/hostagent/hostagent.toml",
        "/etc/hostagent/hostagent.toml",
    ),
    broken(
        "read-configuration",
        ("hostagent.toml", "line 2", "log.level"),
        1,
        "printf '[log]\\nlevel = 7\\n' >/etc/hostagent/hostagent.toml",
        "/etc/hostagent/hostagent.toml",
    ),
    broken(
        "read-configuration",
        ("90-x.toml", "no-such"),
        1,
        "mkdir -p /etc/hostagent/conf.d; echo 'no-such = 1' >/etc/hostagent/conf.d/90-x.toml",
        "/etc/hostagent/conf.d/90-x.toml",
    ),
    broken(
        "read-inventory",
        ("inventory",),
        1,
        f"{GARBAGE} >/etc/hostagent/inventory",
        "/etc/hostagent/inventory",
    ),
    broken(
        "read-inventory",
        ("inventory", "INSTALLATION_UUID"),
        1,
        "sed -i /INSTALLATION_UUID/d /etc/hostagent/inventory",
        "/etc/hostagent/inventory",
    ),
    broken(
        "announce-start",
        ("pool.conf",),
        1,
        f"{GARBAGE} >/etc/hostagent/pool.conf",
        "/etc/hostagent/pool.conf",
    ),
    broken("announce-start", ("pool.conf",), 1, "rm /etc/hostagent/pool.conf"),
    broken("read-inventory", ("inventory", "local.json"), 1, "rm /etc/hostagent/inventory"),
    broken("read-pool-secret", ("ptoken", "local.json"), 2, "rm /etc/hostagent/ptoken"),
    broken("announce-start", ("pool.conf", "broken"), 0, "echo broken >/etc/hostagent/pool.conf"),
    broken("read-pool-secret", ("ptoken",), 2, f"{GARBAGE} >/etc/hostagent/ptoken", "/etc/hostagent/ptoken"),
    broken("read-pool-secret", ("ptoken",), 2, "echo short >/etc/hostagent/ptoken", "/etc/hostagent/ptoken"),
    broken("open-local-database", ("local.json", "damaged"), 0, f"{GARBAGE} >/var/lib/hostagent/local.json"),
]


@pytest.mark.parametrize(("step", "words", "code", "damage", "untouched"), CASES)
def test_a_broken_file_is_named_with_a_hint_and_kept(xen_host, step, words, code, damage, untouched):
    look = f"sha256sum {untouched}" if untouched else "true"

    run = start(
        xen_host,
        before=f"{NO_RESTART}\n{KEEP}\n{damage}\n{look} >/root/damaged",
        after=f"{look} >/root/after",
    )

    named = run.steps[step]
    said = " ".join([json.dumps(named["error"]), *named["warnings"]])
    assert named["status"] == "failed" or named["warnings"], named
    assert all(word in said for word in words), said
    assert named["error"] is None or named["error"]["hint"]
    if code:
        assert run.report["ending"] == "halted"
        assert run.unit["ExecMainStatus"] == str(code)
    else:
        assert run.unit["ActiveState"] == "active", run.unit
    assert xen_host.exec("cmp /root/damaged /root/after", check=False).code == 0
    status = xen_host.exec("hostagent status", check=False)
    assert status.code != 0
    assert step in status.stdout + status.stderr

    xen_host.exec(BACK)


def test_a_dom0_uuid_that_is_not_the_inventorys_is_seen_and_never_set(xen_host):
    """Debian leaves dom0's handle zero; a platform that sets it, and an image cloned from it, are played here."""
    set_handle = (
        'PYTHONPATH=$(ls -d /usr/lib/xen-4*/lib/python) /usr/bin/python3 -c "import uuid, xen.lowlevel.xc as x;'
        " x.xc().domain_sethandle(0, list(uuid.UUID('{}').bytes))\""
    )
    other = "11111111-2222-4333-8444-555555555555"
    inventory = xen_host.exec("cat /etc/hostagent/inventory").stdout

    run = start(xen_host, before=set_handle.format(other), after="xl list -v 0")

    error = run.steps["check-control-domain"]["error"]
    assert other in error["found"]
    assert "cloned" in error["hint"]
    assert run.report["result"] == "degraded"
    assert other in run.said
    assert xen_host.exec("cat /etc/hostagent/inventory").stdout == inventory

    same = inventory.partition("CONTROL_DOMAIN_UUID='")[2][:36]
    equal = start(
        xen_host,
        before=set_handle.format(same),
        after=set_handle.format("0" * 8 + "-0000-0000-0000-" + "0" * 12),
    )

    assert equal.report["result"] == "clean", equal.troubles


def test_a_full_disk_loses_nothing_and_the_agent_still_starts(take_hosts):
    (host,) = take_hosts(1, "installed")
    ours = "cat /etc/hostagent/inventory /etc/hostagent/ptoken; jq -S . /var/lib/hostagent/local.json"
    before = host.exec(ours).stdout

    with faults.full(host, "/root"):
        run = start(host, after="hostagent status; journalctl -u hostagent -n 300 -o cat")

    assert run.report["ending"] == "complete", run.troubles
    assert "No space left" in run.said
    assert host.exec(ours).stdout == before
    assert start(host).report["result"] == "clean"


def test_a_first_start_on_a_full_disk_names_it_and_the_next_one_heals(take_hosts):
    (host,) = take_hosts(1, "installed")
    host.exec(
        "systemctl stop hostagent; rm /etc/hostagent/inventory /var/lib/hostagent/local.json;"
        f" xenstore-rm /local/domain/0/vm; {NO_RESTART}"
    )

    with faults.full(host, "/root"):
        run = start(host)

    error = run.steps["read-inventory"]["error"]
    assert (run.report["ending"], run.unit["ExecMainStatus"]) == ("halted", "2")
    assert "No space left" in error["found"]
    assert "inventory" in error["found"]
    assert error["hint"]
    assert (
        host.exec(
            "ls -A /etc/hostagent | grep -v -e conf.d -e pool.conf -e ptoken -e tls", check=False
        ).stdout
        == ""
    )
    assert start(host).report["result"] == "clean"


def test_a_read_only_etc_stops_only_what_must_be_written(take_hosts):
    (host,) = take_hosts(1, "installed")
    before = host.exec("cat /etc/hostagent/inventory /etc/hostagent/ptoken").stdout

    with faults.read_only(host, "/etc"):
        healthy = start(host)
    host.exec(
        "systemctl stop hostagent; mv /etc/hostagent/inventory /var/lib/hostagent/local.json /root/;"
        f" {NO_RESTART}"
    )
    with faults.read_only(host, "/etc"):
        first = start(host)
    host.exec(
        "systemctl stop hostagent; mv /root/inventory /etc/hostagent/; mv /root/local.json /var/lib/hostagent/"
    )

    assert healthy.report["result"] == "clean", healthy.troubles
    error = first.steps["read-inventory"]["error"]
    assert first.unit["ExecMainStatus"] == "2"
    assert "inventory" in error["found"]
    assert error["hint"]
    assert start(host).report["result"] == "clean"
    assert host.exec("cat /etc/hostagent/inventory /etc/hostagent/ptoken").stdout == before


def test_without_libvirtd_start_up_says_so_and_goes_on(take_hosts):
    (host,) = take_hosts(1, "installed")

    with faults.libvirt_stopped(host):
        run = start(host)

    assert run.report["ending"] == "complete"
    warnings = " ".join(run.steps["run-startup-checks"]["warnings"])
    assert "libvirt" in warnings
    assert "systemctl start" in warnings
    assert start(host).report["result"] == "clean"


def test_with_xenstored_down_start_up_stops_and_names_it(take_hosts):
    (host,) = take_hosts(1, "installed")
    start(host)
    faults.kill_xenstored(host)

    run = start(
        host,
        before=f"{NO_RESTART}; mkdir -p /etc/hostagent/conf.d; printf '[xenstore]\\nwait = 3\\n' >/etc/hostagent/conf.d/50-wait.toml",
    )

    failed = run.steps["run-startup-checks"]
    assert failed["status"] == "failed"
    assert "xenstore" in failed["error"]["found"]
    assert failed["error"]["hint"]
    assert (run.report["ending"], run.unit["ExecMainStatus"]) == ("halted", "2")
    host.reset()


def test_a_xenstored_that_was_started_again_is_seen_and_told(take_hosts):
    """The kernel's watches are gone for good; tools look healthy, but nothing of dom0 can be plugged any more."""
    (host,) = take_hosts(1, "installed")
    start(host)
    faults.restart_xenstored(host)

    run = start(host)

    warnings = " ".join(run.steps["run-startup-checks"]["warnings"])
    assert "started again during this boot" in warnings
    assert "reboot" in warnings.lower()
    assert run.report["result"] == "degraded"
