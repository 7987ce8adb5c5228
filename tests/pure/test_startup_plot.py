"""The picture: well-formed for any report, every step in it, a readable axis."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.startup.plot import COLOURS, svg, tick_step
from hostagent.startup.report import Status
from tests.pure.test_startup_report import a_record, an_open_report, any_report

TEXT = "{http://www.w3.org/2000/svg}text"


@given(any_report)
def test_the_picture_of_any_report_is_well_formed(report):
    root = ET.fromstring(svg(report))  # noqa: S314 - our own output

    shown = [text.text for text in root.iter(TEXT)]
    assert {step.name for step in report.steps} <= set(shown)


def test_the_picture_names_outcome_colours_and_axis():
    picture = svg(an_open_report(a_record("b", Status.FAILED, seconds=2.0), a_record("c", seconds=1.0)))

    assert COLOURS[Status.FAILED] in picture
    assert "failed" in picture
    assert "seconds" in picture


def test_text_that_is_not_xml_is_made_harmless():
    ET.fromstring(svg(an_open_report(a_record("<&>\"'", note="\x00\x1b[31m\ud800"))))  # noqa: S314


def test_every_status_has_a_colour_of_its_own():
    assert set(COLOURS) == set(Status)
    assert len(set(COLOURS.values())) == len(Status)


@pytest.mark.parametrize(
    ("span_s", "step_s"), [(8, 1), (10, 2), (0.5, 0.1), (100, 20), (0.008, 0.001), (41, 10)]
)
def test_ticks_are_round_numbers(span_s, step_s):
    assert tick_step(span_s) == pytest.approx(step_s)


@given(st.floats(min_value=1e-3, max_value=1e6))
def test_an_axis_has_a_readable_number_of_ticks(span_s):
    assert 2 <= span_s / tick_step(span_s) <= 8.0001
