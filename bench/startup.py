"""Start-up of the agent in dom0: wall time and memory against a Python that only imports the same modules, CPU at rest.

Run it as root in a dom0 with hostagent installed: /opt/hostagent/current/bin/python startup.py [--json]. Both start in
turn under systemd (`systemd-run --wait` for the imports), so that a busy machine slows both alike; the ratio counts.
libvirtd's time to ready stands beside them for scale. Exit code 1: a limit was missed.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import time
from pathlib import Path

from hostagent.run import run

UNIT = "hostagent"
REPORT = Path("/run/hostagent/startup-report.json")
PYTHON = "/opt/hostagent/current/bin/python"
DROP_IN = Path("/run/systemd/system/hostagent.service.d/bench.conf")
IMPORT_LOG = Path("/run/hostagent-bench-imports")
IMPORT_LINE = re.compile(r"import time: +\d+ \| +\d+ \| +([\w.]+)", re.ASCII)
END_S = 300
REST_S = 30.0
LIMITS = {"ratio": 2.0, "rss_ratio": 2.0, "rss_mib": 60.0, "cpu_percent": 1.0}
"""What the result may be at the most, by name."""


def timed(argv: list[str]) -> float:
    return run(argv, timeout_s=END_S).seconds


def start_agent() -> float:
    """Seconds from `systemctl start` until systemd was told READY=1."""
    run(["systemctl", "stop", UNIT], timeout_s=60)
    run(["systemctl", "reset-failed", UNIT], timeout_s=60, check=False)
    return timed(["systemctl", "start", UNIT])


def imported_modules() -> list[str]:
    """What the agent has imported when its sequence has ended, in that order: its interpreter notes every import
    (`python -X importtime`) in one start with a drop-in of ours.
    """
    DROP_IN.parent.mkdir(parents=True, exist_ok=True)
    DROP_IN.write_text(
        "[Service]\nExecStart=\n"
        f"ExecStart={PYTHON} -I -X importtime /usr/bin/hostagent run\n"
        f"StandardError=truncate:{IMPORT_LOG}\n"
    )
    try:
        run(["systemctl", "daemon-reload"], timeout_s=60)
        start_agent()
        wait_for_end()
        run(["systemctl", "stop", UNIT], timeout_s=60)
        return modules_of(IMPORT_LOG.read_text(errors="replace"))
    finally:
        DROP_IN.unlink()
        run(["systemctl", "daemon-reload"], timeout_s=60)
        IMPORT_LOG.unlink(missing_ok=True)


def modules_of(import_log: str) -> list[str]:
    """The names in what `python -X importtime` writes; other lines between them are passed over."""
    found = (IMPORT_LINE.fullmatch(line.rstrip()) for line in import_log.splitlines())
    return list(dict.fromkeys(match[1] for match in found if match))


def import_code(modules: list[str]) -> str:
    """Python that imports them and prints its resident memory in KiB; a name that was tried in vain is tried again."""
    return (
        "import contextlib, importlib\n"
        f"for name in {modules!r}:\n"
        "    with contextlib.suppress(ImportError):\n"
        "        importlib.import_module(name)\n"
        "status = open('/proc/self/status').read()\n"
        "print(status.partition('VmRSS:')[2].split()[0])"
    )


def import_only(modules: list[str]) -> float:
    """Seconds for systemd to start an interpreter that imports the same modules and ends."""
    return timed(["systemd-run", "--quiet", "--wait", "--collect", PYTHON, "-I", "-c", import_code(modules)])


def imports_rss_mib(modules: list[str]) -> float:
    return int(run([PYTHON, "-I", "-c", import_code(modules)], timeout_s=END_S).stdout) / 1024


def start_libvirtd() -> float:
    run(["systemctl", "stop", "libvirtd.service"], timeout_s=60)
    return timed(["virsh", "-c", "xen:///system", "list"])


def wait_for_end() -> None:
    """Until the start-up sequence has an ending. Raises TimeoutError."""
    deadline = time.monotonic() + END_S
    while json.loads(REPORT.read_text())["ending"] is None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"the start-up sequence did not end within {END_S} s; see {REPORT}")
        time.sleep(0.5)


def at_rest() -> dict[str, float]:
    """Resident memory and CPU share of the agent over some seconds in which nobody asks it anything."""
    wait_for_end()
    pid = int(run(["systemctl", "show", UNIT, "-p", "MainPID", "--value"], timeout_s=60).stdout)
    before = cpu_seconds(pid)
    time.sleep(REST_S)
    status = Path(f"/proc/{pid}/status").read_text()
    rss_kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))
    return {"rss_mib": rss_kib / 1024, "cpu_percent": (cpu_seconds(pid) - before) / REST_S * 100}


def missed(result: dict[str, float]) -> list[str]:
    """The names of what is above its limit."""
    return [name for name, limit in LIMITS.items() if not result[name] <= limit]


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100  # clock ticks; USER_HZ is 100 on Linux


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="how often each starts (default: %(default)s)")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    modules = imported_modules()
    pairs = [(start_agent(), import_only(modules)) for _ in range(args.rounds)]
    result = {
        "agent_to_ready_s": statistics.median(agent for agent, _ in pairs),
        "imports_alone_s": statistics.median(alone for _, alone in pairs),
        "ratio": statistics.median(agent / alone for agent, alone in pairs),
        "libvirtd_to_first_answer_s": start_libvirtd(),
        "imports_rss_mib": imports_rss_mib(modules),
        **at_rest(),
    }
    result["rss_ratio"] = result["rss_mib"] / result["imports_rss_mib"]
    above = missed(result)
    if args.json:
        print(json.dumps({**result, "limits": LIMITS, "missed": above}))
    else:
        for name, value in result.items():
            print(f"{name:28} {value:8.2f}" + (f"  at most {LIMITS[name]:g}" if name in LIMITS else ""))
    return 1 if above else 0


if __name__ == "__main__":
    sys.exit(main())
