"""`kill -9` in the middle of every built step; the next start must find a whole host.

The cases come from the table of steps, so a new step or hold point is covered without being named here.
"""

from __future__ import annotations

import pytest

from tests.xen.agent import hold, kill_at, start
from tests.xen.interruptions import POINTS, PREPARE, WHOLE, put_back

pytestmark = [pytest.mark.full, pytest.mark.destructive]


@pytest.mark.parametrize("point", POINTS)
def test_killed_in_the_middle_of_a_step_the_next_start_is_clean(xen_host, point):
    identity = xen_host.exec("cat /etc/hostagent/inventory /etc/hostagent/ptoken").stdout

    run = kill_at(xen_host, point, before=PREPARE.get(point, ""))

    assert f"held at {point} " in run.said, run.said
    assert "killed" in run.said
    assert run.report["ending"] == "complete", run.troubles
    assert [trouble for trouble in run.troubles if "damaged" not in str(trouble)] == []
    assert "WHOLE" in xen_host.exec(WHOLE).stdout
    if not point.endswith(":before"):
        again = start(xen_host)
        assert (again.report["result"], again.changes) == ("clean", []), again.troubles
    if point not in ("read-inventory:inventory-written", "read-pool-secret:secret-written"):
        assert xen_host.exec("cat /etc/hostagent/inventory /etc/hostagent/ptoken").stdout == identity
    put_back(xen_host)


def test_killed_while_it_writes_its_first_inventory_it_keeps_the_one_it_wrote(xen_host):
    point = "read-inventory:inventory-written"
    xen_host.exec(hold(point, PREPARE[point]))
    # S23 adds the management interface, which the first inventory does not name yet
    identity = "grep -v ^MANAGEMENT_INTERFACE= /etc/hostagent/inventory"
    written = xen_host.exec(identity).stdout

    xen_host.exec("kill -9 $(systemctl show hostagent -p MainPID --value); rm /run/hostagent/hold")
    run = start(xen_host)

    assert run.report["result"] == "clean", run.troubles
    assert xen_host.exec(identity).stdout == written
