"""A path to the gateway that is narrower than the MTU: told when a PIF is brought up, and no failure (row 19)."""

from __future__ import annotations

import pytest

from hostagent.errors import KernelError
from hostagent.net import bring, cache, history, reachable, reconfigure
from tests.pure.net_care import GATEWAY, Careful, readdressed
from tests.pure.net_machine import records


@pytest.fixture
def machine(tmp_path):
    cache.write(tmp_path, records())
    return Careful(tmp_path)


def test_a_narrow_path_is_told_and_less_than_was_asked_for(machine):
    machine.segment.carried = 1400

    result = machine.up()

    assert result["outcome"] == "degraded"
    (told,) = result["told"]
    assert told.startswith(
        f"the way to the gateway {GATEWAY} carries 1400 bytes, and the MTU of xenbr0 is 1500: "
    )
    assert machine.segment.measured == [(GATEWAY, 1500, "192.0.2.10")]
    assert reconfigure.EXITS[result["outcome"]] == 4
    assert history.read(machine.folder)[0].told == tuple(result["told"])


def test_a_narrow_path_keeps_nothing_from_being_what_is_gone_back_to(machine):
    machine.segment.carried = 1400
    machine.up()

    assert cache.read_verified(machine.folder) == cache.read(machine.folder).cached


@pytest.mark.parametrize("carried", [1500, 0, KernelError("no", hint="")])
def test_a_path_that_carries_all_or_is_not_known_is_not_told(machine, carried):
    machine.segment.carried = carried

    result = machine.up()

    assert (result["outcome"], result["told"]) == ("changed", [])
    assert machine.segment.measured != []


def test_nothing_is_measured_at_boot_or_where_nothing_changes_or_without_a_gateway(machine):
    machine.segment.carried = 1400
    machine.up(boot=True)
    machine.up()
    machine.up(mode=bring.PLAN)
    assert machine.segment.measured == []

    assert machine.up(which=readdressed(gateway=""))["outcome"] == "changed"
    assert machine.segment.measured == []


def test_the_gateway_of_the_record_is_measured_where_another_pif_has_the_default_route(machine):
    machine.up()
    machine.segment.carried = 1400
    kernel = machine.kernel.look()._replace(routes=())

    told = reachable.narrow(records().pifs["nic"], kernel, "xenbr0", machine.segment.wire())

    assert told.startswith(f"the way to the gateway {GATEWAY} carries 1400 bytes")
