"""What the measurements of bench/ make of what they measured."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import network, startup, xenstore_reads

IMPORT_LOG = """\
import time: self [us] | cumulative | imported package
import time:       120 |        120 |   _io
<6>starting
import time:        37 |        600 |     encodings.aliases
import time:        37 |        600 | hostagent.daemon
import time:        37 |        600 | hostagent.daemon
"""


def test_the_modules_are_those_the_interpreter_noted_in_its_order():
    assert startup.modules_of(IMPORT_LOG) == ["_io", "encodings.aliases", "hostagent.daemon"]


@given(st.text())
def test_only_module_names_are_taken_from_the_log(text):
    for name in startup.modules_of(IMPORT_LOG + text):
        assert name.replace(".", "").replace("_", "").isalnum()


def test_the_comparison_imports_what_can_be_imported_and_passes_over_the_rest():
    compile(startup.import_code(["json", "no_such_module"]), "code", "exec")

    assert "'no_such_module'" in startup.import_code(["json", "no_such_module"])


@pytest.mark.parametrize("name", startup.LIMITS)
def test_each_limit_decides_the_exit_code(name):
    result = dict(startup.LIMITS)

    assert startup.missed(result) == []
    assert startup.missed({**result, name: result[name] + 0.01}) == [name]
    assert startup.missed({**result, name: float("nan")}) == [name]


@pytest.mark.parametrize(
    ("process", "one", "pipeline", "good"), [(1, 2, 3, True), (2, 1, 3, False), (1, 3, 2, False)]
)
def test_our_client_must_beat_a_process_and_its_pipeline_itself(process, one, pipeline, good):
    names = (xenstore_reads.BY_PROCESS, xenstore_reads.ONE_BY_ONE, xenstore_reads.PIPELINED)
    speeds = zip(names, (process, one, pipeline), strict=True)

    assert xenstore_reads.good([xenstore_reads.Way(name, 1, speed, 1.0) for name, speed in speeds]) is good


@pytest.mark.parametrize("name", [*network.LIMITS, *network.LEAST])
def test_each_limit_of_the_networks_decides_and_what_could_not_be_measured_is_missed(name):
    at_limit = {**network.LIMITS, **network.LEAST}
    worse = 0.01 if name in network.LIMITS else -0.01

    assert network.missed(at_limit) == []
    assert network.missed({**at_limit, name: at_limit[name] + worse}) == [name]
    assert network.missed({**at_limit, name: math.nan}) == [name]
    assert network.missed({other: value for other, value in at_limit.items() if other != name}) == []


def measured(count, ours, batch, **peers):
    seconds = {name: {"up": up} for name, up in {"ours": ours, **peers}.items()}
    return {"count": count, "seconds": seconds, "up_vs_ip_batch": ours / batch, "check_vs_up": 0.05}


def test_the_worst_count_is_held_against_ip_batch_and_the_cost_of_a_network_at_1000_against_that_at_100():
    found = network.summary([measured(100, 2.0, 2.0), measured(1000, 30.0, 20.0)])

    assert found == {"up_vs_ip_batch": 1.5, "check_vs_up": 0.05, "cost_growth": 1.5}


@pytest.mark.parametrize(("peers", "found"), [({"ifupdown2": 60.0}, 30.0), ({}, math.nan)])
def test_ifupdown2_is_compared_at_50_and_missed_where_it_failed(peers, found):
    result = network.summary([measured(50, 2.0, 2.0, **peers)])

    assert result["ifupdown2_vs_up"] == pytest.approx(found, nan_ok=True)


def test_an_ip_batch_that_failed_at_one_count_is_no_limit_kept():
    result = network.summary([measured(10, 1.0, 1.0), measured(50, 1.0, math.nan, ifupdown2=60.0)])

    assert network.missed(result) == ["up_vs_ip_batch"]
