"""The places at which a start is interrupted, how a host comes to each, and what must be whole afterwards.

`PREPARE` says what makes a point be reached at all, where a healthy host would pass it by.
"""

from __future__ import annotations

import shlex

from hostagent.startup.step import Role
from hostagent.startup.table import STEPS

CONTROL_UUID = r"""uuid=$(sed -n "s/^CONTROL_DOMAIN_UUID='\(.*\)'/\1/p" /etc/hostagent/inventory)"""
SUPPORTER = "echo slave:192.0.2.99 >/etc/hostagent/pool.conf"
SCRIPTS = (
    "mkdir -p /etc/hostagent/master.d; printf '#!/bin/sh\\n' >/etc/hostagent/master.d/10-x;"
    " chmod 755 /etc/hostagent/master.d/10-x"
)
# what a host that was the coordinator has noted: without it there is nothing to stop
WAS_COORDINATOR = (
    "noted=$(jq '.master_scripts = true' /var/lib/hostagent/local.json);"
    " printf '%s\\n' \"$noted\" >/var/lib/hostagent/local.json"
)
DATABASE_OF_STOPPED = """\
from pathlib import Path
from hostagent.db.database import open_database
database = open_database(Path('/var/lib/hostagent/state.db'), Path('/run/hostagent/volatile.db'))
with database.write() as w:
    {statement}
database.close()
"""
# a PIF that nobody brings up, of a NIC that is not there; more fields
PIF_OF_NOTHING = (
    "w.create('PIF', {{'device': '{device}', 'host': w.refs('host')[0], 'VLAN': {tag}, 'physical': {physical},"
    " 'managed': False, 'network': w.create('network', {{'name_label': 'left over', 'managed': False}}){more}}})"
)


def pif_of_nothing(device, tag=-1, more=""):
    return PIF_OF_NOTHING.format(device=device, tag=tag, physical=tag < 0, more=more)


# step -> what is done to the records of a host that is as it should be, so that the step has rows to write
RECORDS = {
    "make-host-metrics": "[w.destroy('host_metrics', ref) for ref in w.refs('host_metrics')]",
    "make-localhost": "[w.destroy('host', ref) for ref in w.refs('host')]",
    "record-memory": "[w.set('host', ref, 'boot_free_mem', 0) for ref in w.refs('host')]",
    "record-processors": "[w.destroy('host_cpu', ref) for ref in w.refs('host_cpu')]",
    "record-dom0": "[w.destroy('VM', ref) for ref in w.refs('VM')]",
    "make-root-user": "[w.destroy('user', ref) for ref in w.refs('user')]",
    "record-pool": "[w.destroy('pool', ref) for ref in w.refs('pool')]",
    "record-address": "[w.set('host', ref, 'address', '192.0.2.77') for ref in w.refs('host')]",
    "mend-bonds-and-vlans": "w.create('VLAN', {'tag': 7, 'tagged_PIF': "
    + pif_of_nothing("none0")
    + ", 'untagged_PIF': "
    + pif_of_nothing("stale", 7)
    + "})",
    "record-attachment": pif_of_nothing("none1", more=", 'currently_attached': True"),
    "recreate-vlans": f"{pif_of_nothing('none2')}; {pif_of_nothing('none2', 8)}",
    "make-internal-network": "[w.destroy('network', ref) for ref in w.where('network', bridge='xenapi')]",
    "clean-halted-vms": "w.create('VM', {'name_label': 'left over', 'domid': 7})",
    "write-licence": "[w.set('host', ref, 'edition', '') for ref in w.refs('host')]",
    "sync-ha-state": "[w.set('pool', ref, 'ha_enabled', True) for ref in w.refs('pool')]",
}
NOT_OURS = "the only NIC of these hosts is another daemon's; the tests of an adopted host come there"
NEVER = {
    **{
        f"{step}:{point}": NOT_OURS
        for step in ("raise-management", "raise-networks")
        for point in ("plan-begun", "plan-applied")
    },
    "raise-networks:rows-written": NOT_OURS,
    "raise-management:change-mended": NOT_OURS,
    "cancel-old-tasks:rows-written": "tasks go with the daemon that made them, before the step looks",
}


def records(statement: str) -> str:
    """A shell line that does it to the database of an agent that is stopped."""
    code = DATABASE_OF_STOPPED.format(statement=statement)
    return f"/opt/hostagent/current/bin/python -I -B -c {shlex.quote(code)}"


PREPARE = {
    "prepare-tls:pair-written": "rm -rf /etc/hostagent/tls",
    "listen-local-socket:link-made": "rm -f /var/lib/xcp/xapi",
    **{f"{step}:rows-written": records(statement) for step, statement in RECORDS.items()},
    "raise-management:rows-written": records("[w.destroy('PIF', ref) for ref in w.refs('PIF')]"),
    "raise-management:inventory-written": "sed -i \"s/^MANAGEMENT_INTERFACE=.*/MANAGEMENT_INTERFACE=''/\""
    " /etc/hostagent/inventory",
    "announce-start:role-written": "rm -f /etc/hostagent/pool.conf /var/lib/hostagent/local.json",
    # another identity: what the former one left in xenstore until the next boot goes with it
    "read-inventory:inventory-written": "rm -f /etc/hostagent/inventory /var/lib/hostagent/local.json"
    " /var/lib/hostagent/state.db*; xenstore-rm /local/domain/0/vm",
    "open-local-database:damaged-set-aside": "echo '{\"ha.armed\": fal' >/var/lib/hostagent/local.json",
    "open-local-database:values-written": "rm -f /var/lib/hostagent/local.json",
    "read-pool-secret:secret-written": "rm -f /etc/hostagent/ptoken /var/lib/hostagent/local.json",
    "read-pool-secret:identity-recorded": "rm -f /var/lib/hostagent/local.json",
    "write-xenstore-keys:keys-written": f"{CONTROL_UUID}; xenstore-rm /vm/$uuid; xenstore-rm /local/domain/0/vm",
    "run-startup-checks:modules-loaded": "modprobe -r bonding 8021q",
    "record-memory:figure-kept": "rm -f /run/hostagent/boot_time_memory",
    "set-dom0-memory:keys-written": "xenstore-rm /local/domain/0/memory/target /local/domain/0/memory/static-max",
    "set-dom0-memory:target-reached": "mkdir -p /etc/hostagent/conf.d;"
    " printf '[dom0]\\nmemory = 1400\\n' >/etc/hostagent/conf.d/60-memory.toml",
    "start-role-scripts:scripts-run": f"{SCRIPTS}; rm -f /var/lib/hostagent/local.json",
    "start-role-scripts:flag-written": f"{SCRIPTS}; rm -f /var/lib/hostagent/local.json",
    "stop-role-scripts:before": SUPPORTER,
    "stop-role-scripts:scripts-run": f"{SCRIPTS}; {SUPPORTER}; {WAS_COORDINATOR}",
    "stop-role-scripts:flag-written": f"{SCRIPTS}; {SUPPORTER}; {WAS_COORDINATOR}",
    "notify-complete:file-written": "rm -f /run/hostagent/init-complete",
}
POINTS_OF = {
    f"{step.name}:{point}": step
    for step in STEPS
    for point in step.hold_points
    if f"{step.name}:{point}" not in NEVER
}
POINTS = list(POINTS_OF)
OF_COORDINATORS = [point for point, step in POINTS_OF.items() if step.role is not Role.SUPPORTER]

# Nothing half written, nothing lost: every file of ours parses, and no temporary file is left.
WHOLE = r"""
set -e
cd /etc/hostagent
test "$(stat -c %a ptoken)" = 600; grep -Exq '[0-9a-f-]{36}/[0-9a-f-]{36}/[0-9a-f-]{36}' ptoken
grep -Eq "^INSTALLATION_UUID='[0-9a-f-]{36}'" inventory; grep -Eq "^CONTROL_DOMAIN_UUID='[0-9a-f-]{36}'" inventory
grep -Exq 'master|slave:.*' pool.conf
jq -e . /var/lib/hostagent/local.json >/dev/null
test "$(stat -c %a tls/server.key)" = 600; grep -q 'BEGIN CERTIFICATE' tls/server.pem
test "$(readlink /var/lib/xcp/xapi)" = /run/hostagent/api.sock
uuid=$(sed -n "s/^CONTROL_DOMAIN_UUID='\(.*\)'/\1/p" inventory)
test "$(xenstore-read /vm/$uuid/name)" = Domain-0; test "$(xenstore-read /local/domain/0/vm)" = /vm/$uuid
find /etc/hostagent /var/lib/hostagent /run/hostagent \( -name '*.tmp*' -o -name '.*.new' -o -name '*~' \) | tee /dev/stderr | wc -l | grep -qx 0
echo WHOLE
"""


def put_back(host):
    """The host as a coordinator with its usual settings, for the next case on it."""
    host.exec(
        "rm -rf /run/hostagent/hold /etc/hostagent/conf.d /etc/hostagent/master.d; echo master >/etc/hostagent/pool.conf"
    )
