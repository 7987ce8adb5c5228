"""Domains on a real host: made by xl and by libvirt, seen as `xl list` sees them, whatever daemon is down."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.xen import guests

pytestmark = [pytest.mark.full, pytest.mark.timeout(900)]


@pytest.fixture
def host(xen_host: Any) -> Any:
    """A host on which test guests can be made."""
    xen_host.exec(guests.PREPARE)
    return xen_host


def test_guests_of_xl_and_of_libvirt_are_listed_as_xl_lists_them_and_a_pause_by_xl_is_seen(host: Any) -> None:
    script = f"""
set -e
{guests.xl_guest("byxl")}
{guests.libvirt_guest("byvirt")}
xl list; echo ====
hostagent xen domains --json; echo ====
xl pause byvirt
hostagent xen domains --libvirt --json; echo ====
xl unpause byvirt; xl destroy byxl; virsh -q -c xen:///system destroy byvirt
hostagent xen domains --json; echo ====
hostagent xen domains
"""
    by_xl, running, paused, gone, table = guests.parts(host.exec(script, timeout_s=300).stdout)

    seen = {
        domain["domid"]: (domain["name"], domain["memory_kib"] // 1024, domain["vcpus"])
        for domain in guests.listed(running).values()
    }
    assert seen == guests.xl_list(by_xl)
    assert {name: domain["manager"] for name, domain in guests.listed(running).items()} == {
        "Domain-0": "xen",
        "byxl": "xl",
        "byvirt": "libvirt",
    }
    assert {domain["power_state"] for domain in guests.listed(running).values()} == {"Running"}

    found = guests.listed(paused)
    assert (found["byvirt"]["power_state"], found["byvirt"]["libvirt"]) == ("Paused", "running")
    assert (found["byxl"]["power_state"], found["byxl"]["libvirt"]) == ("Running", None)
    assert any("libvirt calls domain" in warning for warning in json.loads(paused)["warnings"])

    assert set(guests.listed(gone)) == {"Domain-0"}
    assert "Domain-0" in table
    assert "manager" in table


def test_xen_info_agrees_with_xl_info(host: Any) -> None:
    ours, theirs = guests.parts(host.exec("hostagent xen info --json; echo ====; xl info").stdout)

    info = json.loads(ours)
    xl = {
        key.strip(): value.strip() for key, _, value in (line.partition(":") for line in theirs.splitlines())
    }
    assert info["version"] == xl["xen_version"]
    assert info["total_kib"] // 1024 == int(xl["total_memory"])
    assert abs(info["free_kib"] // 1024 - int(xl["free_memory"])) <= 1
    assert info["cpus"] == int(xl["nr_cpus"])
    assert info["guest_types"] == xl["xen_caps"].split()
    assert info["commandline"] == xl["xen_commandline"]
    for name in ("pv", "hvm", "hap"):
        assert info["capabilities"][name] == (name in xl["virt_caps"].split())
    assert info["libvirtd"].startswith("answers")


@pytest.mark.destructive
def test_a_stopped_and_a_frozen_libvirtd_are_named_and_nothing_hangs(host: Any) -> None:
    script = """
systemctl stop libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket libvirtd
hostagent xen domains --libvirt --json; echo ====
systemctl start libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket libvirtd
pid=$(systemctl show -P MainPID libvirtd)
kill -STOP "$pid"
hostagent xen domains --libvirt --json; echo ====
kill -KILL "$pid"; systemctl restart libvirtd
hostagent xen info --json
"""
    stopped, frozen, again = guests.parts(host.exec(script, timeout_s=300).stdout)

    assert "libvirtd is not running" in json.loads(stopped)["warnings"][0]
    assert "did not answer within" in json.loads(frozen)["warnings"][0]
    assert set(guests.listed(stopped)) == set(guests.listed(frozen)) == {"Domain-0"}
    assert json.loads(again)["libvirtd"].startswith("answers")


@pytest.mark.destructive
def test_with_xenstored_killed_domains_are_listed_without_names_and_memory_is_refused(host: Any) -> None:
    script = f"""
{guests.xl_guest("orphan")}
daemon=$(readlink -f "/proc/$(cat /run/xenstore.pid)/exe")
kill -KILL "$(cat /run/xenstore.pid)"
timeout 60 hostagent xen domains --json; echo "exit $?"; echo ====
timeout 60 hostagent xen memory show --json; echo ====
timeout 60 hostagent xen memory set 1024M --json 2>&1; echo "exit $?"; echo ====
"$daemon" --pid-file /run/xenstore.pid < /dev/null > /dev/null 2>&1
"${{daemon%/*}}/xen-init-dom0" < /dev/null > /dev/null 2>&1
timeout 60 hostagent xen memory set 1024M --json 2>&1; echo "exit $?"; echo ====
cat /sys/devices/system/xen_memory/xen_memory0/target_kb
"""
    listing, memory, refused, stale, target = guests.parts(host.exec(script, timeout_s=300).stdout)

    records = json.loads(listing.removesuffix("exit 0\n"))
    assert [(domain["name"], domain["manager"]) for domain in records["domains"]] == [
        (None, "xen"),
        (None, "xl"),
    ]
    assert "names are not known" in records["warnings"][0]
    assert json.loads(memory)["dom0"]["xenstore"] == "dead"
    assert "cannot be told of a new target" in json.loads(refused.removesuffix("exit 1\n"))["error"]["found"]
    assert "reboot" in json.loads(stale.removesuffix("exit 1\n"))["error"]["hint"]
    assert int(target) > 1024 * 1024
