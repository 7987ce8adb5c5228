"""The vocabulary of tests that start the agent on a host: shell lines that wait for events, and what they return."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from typing import Any

REPORT = "/run/hostagent/startup-report.json"
SEQUENCE_S = 240
EACH_START = re.compile(
    r"host \S+\.enabled"  # disabled by S22, enabled at the end
    r"|host \S+\.other_config:agent_start_time"
    r"|host_metrics\.memory_free"  # as the moment has it
    r"|VM_metrics\.(memory_actual|state)"  # not kept over a restart
)
"""Objects of the changes that each start makes, also on a host that is as it should be."""

# Waiting starts no process: on an emulated host each costs the agent, which is waited for, a piece of its start.
WAIT = f"""
exec 9<> <(:)
nap() {{ read -rt 0.2 -u 9 || :; }}
until_true() {{ # SECONDS COMMAND
    local end=$((SECONDS + $1))
    until "$2"; do [ "$SECONDS" -lt "$end" ] || return 1; nap; done
}}
ended() {{
    local text=
    [ -s {REPORT} ] && {{ IFS= read -rd '' text <{REPORT}; [[ $text == *'"ending": "'* ]]; }}
}}
is_held() {{ [ -s /run/hostagent/held ]; }}
wait_for_end() {{ until_true {SEQUENCE_S} ended || echo "no end"; }}
"""
SHOW = f"""
echo "=== unit"; systemctl show hostagent -p ActiveState -p SubState -p ExecMainStatus -p Result -p MainPID -p StatusText
echo "=== report"; cat {REPORT} 2>/dev/null
"""


@dataclass(frozen=True)
class Start:
    """One start of the agent: systemd's view of the unit, and the start-up report."""

    unit: dict[str, str]
    report: dict[str, Any]
    said: str

    @property
    def steps(self) -> dict[str, dict[str, Any]]:
        return {step["name"]: step for step in self.report["steps"]}

    @property
    def statuses(self) -> dict[str, str]:
        return {name: step["status"] for name, step in self.steps.items()}

    @property
    def changes(self) -> list[dict[str, Any]]:
        """Without those that each start makes."""
        return [
            change
            for step in self.report["steps"]
            for change in step["changes"]
            if not EACH_START.fullmatch(change["what"])
        ]

    @property
    def changed(self) -> set[str]:
        """The steps that changed something which not each start changes."""
        return {
            step["name"]
            for step in self.report["steps"]
            if step["status"] == "changed"
            and not all(EACH_START.fullmatch(change["what"]) for change in step["changes"])
        }

    @property
    def troubles(self) -> list[Any]:
        """What an operator would have to look at: warnings, failures, blocked steps."""
        return [
            (step["name"], step["status"], step["warnings"], step["error"])
            for step in self.report["steps"]
            if step["warnings"] or step["status"] in ("failed", "blocked", "interrupted", "running")
        ]


def start(host: Any, *, before: str = "", after: str = "") -> Start:
    """Stop the agent, run `before` on the host, start it and wait for the end of its sequence, run `after`."""
    return _started(host, f"systemctl stop hostagent\n{before}\n{START}\n{after}")


START = f"""
{WAIT}
rm -f {REPORT}
systemctl reset-failed hostagent 2>/dev/null
systemctl start hostagent 2>&1; wait_for_end
"""


def power_on(host: Any) -> Start:
    """After a cold boot: systemd has started the agent already; wait for the end of its sequence."""
    return _started(host, f"{WAIT}\nwait_for_end")


def kill_at(host: Any, point: str, *, before: str = "") -> Start:
    """Start the agent, kill -9 it while it is held at `step:point`, and let systemd start it again to the end."""
    script = f"""
{hold(point, before)}
kill -9 "$pid"; rm -f /run/hostagent/hold; echo "killed $pid"
wait_for_end
"""
    return _started(host, script)


def hold(point: str, before: str = "") -> str:
    """Shell lines that start the agent and return with it held at `step:point`; `$pid` is its process."""
    return f"""
{WAIT}
systemctl stop hostagent
{before}
rm -f {REPORT} /run/hostagent/held
mkdir -p -m 700 /run/hostagent; echo {shlex.quote(point)} > /run/hostagent/hold
systemctl reset-failed hostagent 2>/dev/null
systemctl start --no-block hostagent
until_true 120 is_held || echo "not held"
echo "held at $(cat /run/hostagent/held)"
pid=$(systemctl show hostagent -p MainPID --value)
"""


def _started(host: Any, script: str) -> Start:
    text = host.exec(script + SHOW, check=False, timeout_s=2 * SEQUENCE_S).stdout
    said, _, rest = text.partition("=== unit\n")
    unit, _, report = rest.partition("=== report\n")
    assert report.strip(), f"the agent left no report:\n{text}"
    return Start(dict(line.split("=", 1) for line in unit.splitlines()), json.loads(report), said)
