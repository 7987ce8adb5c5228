"""What the measurements of bench/ make of what they measured."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import startup, xenstore_reads

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
