"""dom0's memory on a real host: set by hostagent, read back by xl, sysfs and xenstore-read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.xen import guests

pytestmark = [pytest.mark.full, pytest.mark.timeout(900), pytest.mark.destructive]

MIB = 1024
DRIVER = "/sys/devices/system/xen_memory/xen_memory0"
READ_BACK = f"""
echo "$(cat {DRIVER}/target_kb) $(cat {DRIVER}/info/current_kb) \
$(xenstore-read /local/domain/0/memory/target) $(xl list 0 | awk 'NR == 2 {{print $3 * 1024}}')"
echo ====
"""
DRAIN = """
import dataclasses
from hostagent.errors import HostagentError
from hostagent.xen import balloon, memory
from hostagent.xen.xenstore import Xenstore

class WithoutLook(balloon.Balloon):
    def _refuse_drain(self, plan, step_kib):
        "The look before each step is left out, as if a guest had started right after it."

with Xenstore.connect() as store:
    now = balloon.snapshot(store)
    plan = memory.plan(dataclasses.replace(now, free_kib=now.free_kib + 2**30), 1536 * 1024)
    try:
        WithoutLook(store).apply(plan)
    except HostagentError as error:
        print(error.code, error.found)
"""


@pytest.fixture
def host(xen_host: Any) -> Any:
    """A host on which test guests can be made; dom0 has 1536 MiB."""
    xen_host.exec(guests.PREPARE)
    return xen_host


def everywhere(kib: int) -> str:
    """What READ_BACK prints when the driver, xenstore and Xen agree."""
    return f"{kib} {kib} {kib} {kib}\n"


def test_memory_goes_down_and_up_and_every_reader_agrees(host: Any) -> None:
    script = f"""
set -e
hostagent xen memory set 1100M --dry-run --json; echo ====
hostagent xen memory set 1100M --json; echo ====
{READ_BACK}
hostagent xen memory set 1100M --json; echo ====
hostagent xen memory set 1536M --json; echo ====
{READ_BACK}
xenstore-read /local/domain/0/memory/static-max; echo ====
xl mem-set 0 1500 && echo libxl works
"""
    planned, down, low, again, up, high, static_max, libxl, *_ = guests.parts(
        host.exec(script, timeout_s=300).stdout
    )

    assert low == everywhere(1100 * MIB)
    assert high == everywhere(1536 * MIB)
    assert json.loads(planned) == json.loads(down)["plan"]["changes"]
    assert json.loads(down)["after"]["free_kib"] - json.loads(down)["before"]["free_kib"] == 436 * MIB
    assert (json.loads(again)["changed"], json.loads(again)["plan"]["steps_kib"]) == (False, [])
    assert json.loads(up)["plan"]["steps_kib"] == [1356 * MIB, 1536 * MIB]
    assert int(static_max) == 1536 * MIB
    assert libxl == "libxl works\n"


def test_a_dom0_stalled_by_a_ceiling_that_xl_lowered_is_raised_woken_and_brought_to_its_target(
    host: Any,
) -> None:
    script = f"""
set -e
hostagent xen memory set 1536M > /dev/null
xl mem-set 0 1400
sleep 3
xenstore-write /local/domain/0/memory/target 1572864
sleep 8
cat {DRIVER}/info/current_kb; echo ====
hostagent xen memory show 2>&1; echo ====
hostagent xen memory set 1536M --json; echo ====
{READ_BACK}
"""
    stalled, shown, result, after, *_ = guests.parts(host.exec(script, timeout_s=300).stdout)

    assert int(stalled) < 1536 * MIB
    assert "dom0 is not at its target" in shown
    assert json.loads(result)["ceiling_kib"] == 1537 * MIB
    assert json.loads(result)["kicks"] == 1
    assert after == everywhere(1536 * MIB)


@pytest.mark.parametrize(
    ("size", "code"), [("256M", "MEMORY_CONSTRAINT_VIOLATION"), ("64G", "MEMORY_CONSTRAINT_VIOLATION")]
)
def test_a_target_outside_the_limits_is_refused_and_nothing_moves(host: Any, size: str, code: str) -> None:
    before, refusal, after = guests.parts(
        host.exec(
            f"cat {DRIVER}/target_kb; echo ====; hostagent xen memory set {size} --json 2>&1; echo exit $?; "
            f"echo ====; cat {DRIVER}/target_kb"
        ).stdout
    )

    assert json.loads(refusal.removesuffix("exit 1\n"))["error"]["code"] == code
    assert before == after


def test_a_dom0_that_runs_xen_out_of_pages_settles_and_xen_keeps_its_reserve(host: Any) -> None:
    script = f"""
set -e
hostagent xen memory set 1100M > /dev/null
free=$(xl info | awk '/^free_memory/ {{print $3}}')
{guests.xl_guest("eater").replace("memory=256", "memory=$((free - 300))")}
hostagent xen memory set 1536M --json 2>&1 || true; echo ====
/opt/hostagent/current/bin/python - <<'EOF'
{DRAIN}
EOF
echo ====
cat {DRIVER}/target_kb {DRIVER}/info/current_kb; echo ====
xl info | awk '/^free_memory/ {{print $3}}'; echo ====
xl destroy eater
hostagent xen memory set 1536M > /dev/null
{READ_BACK}
"""
    refused, drained, sizes, free, recovered, *_ = guests.parts(host.exec(script, timeout_s=400).stdout)

    assert json.loads(refused)["error"]["code"] == "HOST_NOT_ENOUGH_FREE_MEMORY"
    assert drained.startswith("HOST_NOT_ENOUGH_FREE_MEMORY")
    target_kib, current_kib = (int(line) for line in sizes.split())
    assert target_kib == current_kib < 1536 * MIB
    assert int(free) >= 72
    assert recovered == everywhere(1536 * MIB)
