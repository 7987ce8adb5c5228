"""The start-up sequence on a real dom0: every built step's effect, seen by a reader that is not ours."""

from __future__ import annotations

import json
import re

import pytest

from hostagent.startup.table import STEPS
from tests.xen.agent import start

UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
OF_SUPPORTERS = {"stop-role-scripts"}

# What the host has once the agent is up, read with Debian's and Xen's own tools; one JSON object.
LOOK = r"""
pid=$(systemctl show hostagent -p MainPID --value)
inventory=/etc/hostagent/inventory
uuid=$(sed -n "s/^CONTROL_DOMAIN_UUID='\(.*\)'/\1/p" $inventory)
jq -n \
  --arg cmdline "$(tr '\0' ' ' </proc/$pid/cmdline)" \
  --arg inventory "$(cat $inventory)" --arg inventory_mode "$(stat -c %a $inventory)" \
  --arg role "$(cat /etc/hostagent/pool.conf)" \
  --arg secret_shape "$(sed -E 's/[0-9a-f]/x/g' /etc/hostagent/ptoken)" \
  --arg secret_mode "$(stat -c '%a %U' /etc/hostagent/ptoken)" \
  --arg local "$(cat /var/lib/hostagent/local.json)" \
  --arg journal "$(journalctl -u hostagent _PID=$pid -o cat)" \
  --arg xen "$(xl info xen_version)" \
  --arg handle "$(xl list -v 0 | awk '/Domain-0/{print $7}')" \
  --arg caught "$(awk '/SigCgt/{print $2}' /proc/$pid/status)" \
  --arg uuid "$uuid" \
  --arg vm "$(xenstore-read /local/domain/0/vm)" \
  --arg vm_name "$(xenstore-read /vm/$uuid/name)" --arg vm_uuid "$(xenstore-read /vm/$uuid/uuid)" \
  --arg vm_domain "$(xenstore-read /vm/$uuid/domains/0)" \
  --arg modules "$(lsmod | awk '{print $1}')" --arg builtin "$(cat /lib/modules/$(uname -r)/modules.builtin)" \
  --arg dom0_mib "$(xl list 0 | awk '/Domain-0/{print $3}')" \
  --arg target_kib "$(xenstore-read /local/domain/0/memory/target)" \
  --arg balloon_kib "$(cat /sys/devices/system/xen_memory/xen_memory0/target_kb)" \
  --arg status "$(systemctl show hostagent -p ActiveState -p StatusText)" \
  --arg complete "$(cat /run/hostagent/init-complete)" --arg boot_id "$(cat /proc/sys/kernel/random/boot_id)" \
  --arg namespaces "$(readlink /proc/1/ns/mnt /proc/$pid/ns/mnt | sort -u | wc -l)" \
  '$ARGS.named'
"""


@pytest.fixture
def seen(xen_host):
    """A clean start, and what independent readers see after it."""
    return start(xen_host), json.loads(xen_host.exec(LOOK).stdout)


@pytest.mark.both
def test_every_built_step_ran_and_left_its_effect(seen):
    run, host = seen

    assert run.report["result"] == "clean", run.troubles
    assert [step["ref"] for step in run.report["steps"]] == [step.ref for step in STEPS]
    assert {name for name, status in run.statuses.items() if status == "skipped"} == OF_SUPPORTERS
    assert "hostagent run" in host["cmdline"]  # S1
    assert re.search(r"(?m)^INSTALLATION_UUID='" + UUID + "'$", host["inventory"])  # S6
    assert host["role"].strip() == "master"  # S5
    assert json.loads(host["local"])["ha.armed"] is False  # S7
    assert re.fullmatch("/".join([UUID.replace("[0-9a-f]", "x")] * 3), host["secret_shape"])  # S8
    assert host["secret_mode"] == "600 root"
    assert f"Xen {host['xen']}"[:8] in host["journal"]  # S10
    assert host["handle"] == "00000000-0000-0000-0000-000000000000"  # S11: looked at, never set
    caught = int(host["caught"], 16)
    assert all(caught >> (number - 1) & 1 for number in (1, 2, 15))  # S12
    assert (host["vm"], host["vm_uuid"]) == (f"/vm/{host['uuid']}", host["uuid"])  # S13
    assert (host["vm_name"], host["vm_domain"]) == ("Domain-0", "/local/domain/0")
    assert run.steps["check-random-generator"]["note"].startswith("ready")  # S14
    for module in ("bridge", "bonding", "8021q", "xen_netback"):  # S15
        assert module in host["modules"].split() or f"/{module}.ko" in host["builtin"]
    assert int(host["dom0_mib"]) * 1024 == int(host["target_kib"]) == int(host["balloon_kib"])  # S31
    assert "ActiveState=active" in host["status"]  # S40, as the unit is Type=notify
    assert host["complete"].strip() == host["boot_id"]  # S52
    assert host["namespaces"] == "1"


@pytest.mark.both
def test_a_second_start_changes_nothing(xen_host):
    start(xen_host)
    state = (
        "cd /etc/hostagent && find . -type f | sort | xargs sha256sum; jq -S . /var/lib/hostagent/local.json;"
        " xenstore-ls -f / | grep -v -e domain/0/control -e domain/0/device -e domain/0/backend;"
        " cat /sys/devices/system/xen_memory/xen_memory0/target_kb"
    )
    before = xen_host.exec(state).stdout

    again = start(xen_host)

    assert again.report["result"] == "clean", again.troubles
    assert again.changes == []
    assert again.changed == set()
    assert set(again.statuses.values()) <= {"changed", "unchanged", "skipped"}
    assert xen_host.exec(state).stdout == before


@pytest.mark.full
@pytest.mark.destructive
def test_scripts_and_settings_of_the_operator_take_effect(xen_host):
    xen_host.exec("rm -rf /root/etc-before; cp -a /etc/hostagent /root/etc-before")
    run = start(
        xen_host,
        before=r"""
mkdir -p /etc/hostagent/startup.d /etc/hostagent/master.d /etc/hostagent/conf.d
for d in startup.d master.d; do for n in 10-first 20-second; do
    printf '#!/bin/sh\necho %s "$@" >>/root/scripts-ran\n' "$d/$n" >/etc/hostagent/$d/$n; chmod 755 /etc/hostagent/$d/$n
done; done
printf '#!/bin/sh\necho broken >&2; exit 3\n' >/etc/hostagent/startup.d/15-fails; chmod 755 /etc/hostagent/startup.d/15-fails
rm -f /root/scripts-ran /var/lib/hostagent/local.json
printf '[log]\nlevel = "debug"\n' >/etc/hostagent/conf.d/50-test.toml
""",
        after="echo '=== ran'; cat /root/scripts-ran; echo '=== debug'; journalctl -u hostagent -o json -p 7..7 -n 1",
    )

    ran = run.said.partition("=== ran\n")[2].partition("=== debug")[0].split("\n")
    assert ran[:2] == ["startup.d/10-first", "startup.d/20-second"]  # S43, past the one that fails
    assert ran[2:4] == ["master.d/10-first start", "master.d/20-second start"]  # S44
    assert '"PRIORITY":"7"' in run.said.partition("=== debug")[2]  # S2 and S4
    assert run.report["result"] == "degraded"
    assert any("15-fails" in text for text in run.steps["run-startup-scripts"]["warnings"])

    lost = start(
        xen_host,
        before="rm /root/scripts-ran; echo slave:192.0.2.99 >/etc/hostagent/pool.conf",
        after="cat /root/scripts-ran",
    )

    assert lost.said.split("\n")[-3:-1] == ["master.d/20-second stop", "master.d/10-first stop"]  # S45
    assert lost.statuses["start-role-scripts"] == "skipped"

    xen_host.exec("rm -rf /etc/hostagent; mv /root/etc-before /etc/hostagent")


@pytest.mark.full
@pytest.mark.destructive
def test_dom0_is_brought_to_the_memory_its_settings_name(xen_host):
    """Every reader but ours: the hypervisor, the kernel's driver, xenstore."""
    read = (
        "xl list 0 | awk '/Domain-0/{print $3 * 1024}'; xenstore-read /local/domain/0/memory/target;"
        " cat /sys/devices/system/xen_memory/xen_memory0/target_kb"
        " /sys/devices/system/xen_memory/xen_memory0/info/current_kb"
    )
    conf = "/etc/hostagent/conf.d/60-memory.toml"
    before = xen_host.exec(read).stdout.split()

    run = start(
        xen_host,
        before=f"mkdir -p /etc/hostagent/conf.d; printf '[dom0]\\nmemory = 1400\\n' >{conf}",
        after=f"echo '=== sizes'; {read}",
    )
    back = start(xen_host, before=f"printf '[dom0]\\nmemory = {int(before[0]) // 1024}\\n' >{conf}")
    after = xen_host.exec(f"{read}; rm {conf}").stdout.split()

    assert run.report["result"] == "clean", run.troubles
    assert run.statuses["set-dom0-memory"] == "changed"
    assert run.said.partition("=== sizes\n")[2].split() == [str(1400 * 1024)] * 4
    assert (back.report["result"], after) == ("clean", before), back.troubles


def test_a_dry_run_names_exactly_what_the_run_then_does(xen_host):
    script = r"""
uuid=$(sed -n "s/^CONTROL_DOMAIN_UUID='\(.*\)'/\1/p" /etc/hostagent/inventory)
systemctl stop hostagent
xenstore-rm /vm/$uuid; xenstore-rm /local/domain/0/vm
for how in --dry-run ''; do hostagent startup run write-xenstore-keys $how --json; echo '======'; xenstore-ls -f /vm | sort; echo '======'; done
"""

    planned, unseen, done, seen, _ = xen_host.exec(script).stdout.split("======\n")

    plan = [step["changes"] for step in json.loads(planned)["steps"] if step["name"] == "write-xenstore-keys"]
    effect = [step["changes"] for step in json.loads(done)["steps"] if step["name"] == "write-xenstore-keys"]
    assert plan == effect != [[]]
    present = dict(line.split(" = ", 1) for line in seen.splitlines())
    for change in effect[0]:
        if change["what"].startswith("/vm/"):
            assert change["what"] not in unseen
            assert present[change["what"]] == f'"{change["new"]}"'
