"""The power goes in the middle of a start: what was written durably is there, the rest is made by the next start."""

from __future__ import annotations

import pytest

from tests.xen.agent import hold, power_on
from tests.xen.interruptions import OF_COORDINATORS, PREPARE, WHOLE, put_back

pytestmark = [pytest.mark.destructive]


@pytest.mark.full
def test_power_cut_in_the_middle_of_the_first_writes(take_hosts):
    """Everything the agent had written durably is there after the cut; what it had not, the next start makes."""
    (host,) = take_hosts(1, "installed")
    point = "read-pool-secret:secret-written"
    held = host.exec(hold(point, PREPARE[point])).stdout
    assert f"held at {point} " in held
    secret = host.exec("cat /etc/hostagent/ptoken").stdout

    host.power_off()
    host.boot()
    run = power_on(host)

    assert run.report["ending"] == "complete"
    assert run.troubles == []
    assert host.exec("cat /etc/hostagent/ptoken").stdout == secret
    assert "WHOLE" in host.exec(WHOLE).stdout


@pytest.mark.full
@pytest.mark.parametrize("point", [point for point in OF_COORDINATORS if not point.endswith(":before")])
def test_power_cut_after_every_durable_effect(take_hosts, point):
    (host,) = take_hosts(1, "installed")
    held = host.exec(hold(point, PREPARE.get(point, ""))).stdout
    assert f"held at {point} " in held

    host.power_off()
    host.boot()
    run = power_on(host)

    assert run.report["ending"] == "complete"
    assert [trouble for trouble in run.troubles if "damaged" not in str(trouble)] == []
    assert "WHOLE" in host.exec(WHOLE).stdout
    put_back(host)
