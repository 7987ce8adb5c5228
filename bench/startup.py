"""Start-up of the agent in dom0: wall time against a Python that only imports the same modules, memory and CPU at rest.

Run it as root in a dom0 with hostagent installed: /opt/hostagent/current/bin/python startup.py [--json]. Both start in
turn under systemd (`systemd-run --wait` for the imports), so that a busy machine slows both alike; the ratio counts.
libvirtd's time to ready stands beside them for scale.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

from hostagent.run import run

UNIT = "hostagent"
REPORT = Path("/var/lib/hostagent/startup-report.json")
END_S = 300
REST_S = 30.0
LIMIT_RATIO = 2.0
LIMIT_RSS_MIB = 60


def timed(argv: list[str]) -> float:
    return run(argv, timeout_s=END_S).seconds


def start_agent() -> float:
    """Seconds from `systemctl start` until systemd was told READY=1."""
    run(["systemctl", "stop", UNIT], timeout_s=60)
    run(["systemctl", "reset-failed", UNIT], timeout_s=60, check=False)
    return timed(["systemctl", "start", UNIT])


def imported_modules() -> list[str]:
    """What the running agent has imported, asked of the same interpreter."""
    code = (
        "import sys; import hostagent.daemon, hostagent.startup.table, hostagent.xen.balloon, hostagent.xen.xenstore,"
        " hostagent.xen.hypercall, hostagent.xen.facts, uvicorn, uvicorn.protocols.http.h11_impl, pyxs;"
        " print('\\n'.join(n for n in sys.modules if n != '__main__'))"
    )
    return run([sys.executable, "-I", "-c", code], timeout_s=60).stdout.split()


def import_only(modules: list[str]) -> float:
    """Seconds for systemd to start an interpreter that imports the same modules and ends."""
    code = f"import importlib\nfor name in {modules!r}:\n    importlib.import_module(name)"
    return timed(["systemd-run", "--quiet", "--wait", "--collect", sys.executable, "-I", "-c", code])


def start_libvirtd() -> float:
    run(["systemctl", "stop", "libvirtd.service"], timeout_s=60)
    return timed(["virsh", "-c", "xen:///system", "list"])


def at_rest() -> dict[str, float]:
    """Resident memory and CPU share of the agent over some seconds in which nobody asks it anything."""
    deadline = time.monotonic() + END_S
    while json.loads(REPORT.read_text())["ending"] is None and time.monotonic() < deadline:
        time.sleep(0.5)
    shown = run(["systemctl", "show", UNIT, "-p", "MainPID", "--value"], timeout_s=60).stdout
    pid = int(shown)
    before = cpu_seconds(pid)
    time.sleep(REST_S)
    status = Path(f"/proc/{pid}/status").read_text()
    rss_kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))
    return {"rss_mib": rss_kib / 1024, "cpu_percent": (cpu_seconds(pid) - before) / REST_S * 100}


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
        "ratio_limit": LIMIT_RATIO,
        "libvirtd_to_first_answer_s": start_libvirtd(),
        "rss_mib_limit": LIMIT_RSS_MIB,
        **at_rest(),
    }
    if args.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:28} {value:8.2f}")
    return 0 if result["ratio"] <= LIMIT_RATIO and result["rss_mib"] <= LIMIT_RSS_MIB else 1


if __name__ == "__main__":
    sys.exit(main())
