"""A start-up as a picture: one bar per step on a time axis, coloured by outcome. Pure: report in, SVG text
out.
"""

from __future__ import annotations

import datetime as dt
import html
import math
import re
from typing import TYPE_CHECKING

from hostagent.startup.report import BootResult, Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hostagent.startup.report import Report, StepRecord

WIDTH_PX = 1080
LEFT_PX = 250
RIGHT_PX = 150
TOP_PX = 84
ROW_PX = 24
BAR_PX = 14
BOTTOM_PX = 62
TICKS = 8
"""About how many ticks the axis has."""
NARROWEST_PX = 2.0

COLOURS = {
    Status.CHANGED: "#2a6fdb",
    Status.UNCHANGED: "#4c9f70",
    Status.SKIPPED: "#b6bcc6",
    Status.FAILED: "#d1343b",
    Status.BLOCKED: "#d98324",
    Status.RESTART: "#8e5bd0",
    Status.RUNNING: "#e0b500",
    Status.INTERRUPTED: "#7a3b3b",
    Status.PLANNED: "#7fa9ee",
}
RESULT_COLOURS = {BootResult.CLEAN: "#2e7d4f", BootResult.DEGRADED: "#b3660e", BootResult.STOPPED: "#b3262d"}
INK, FAINT, GRID = "#20262e", "#66707d", "#e3e7ec"
UNPRINTABLE = re.compile(r"[^\t\n\r\u0020-\ud7ff\ue000-\ufffd]")
"""What XML 1.0 does not allow in text (production 2)."""


def svg(report: Report) -> str:
    """The report as an SVG document, about 1080 pixels wide; any report gives well-formed XML."""
    height = TOP_PX + ROW_PX * max(1, len(report.steps)) + BOTTOM_PX
    span_s = max(report.seconds, *(step.offset_s + step.seconds for step in report.steps), 1e-3)
    tick_s = tick_step(span_s)
    axis = _Axis(tick_s, math.ceil(span_s / tick_s - 1e-9) * tick_s)
    size = f'width="{WIDTH_PX}" height="{height}" viewBox="0 0 {WIDTH_PX} {height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="DejaVu Sans, Verdana, sans-serif">',
        f'<rect width="{WIDTH_PX}" height="{height}" fill="#ffffff"/>',
        *_heading(report),
        *_grid(axis, height),
    ]
    for number, step in enumerate(report.steps):
        parts += _row(step, axis, TOP_PX + ROW_PX * number)
    parts += [*_legend(report, height), "</svg>"]
    return "\n".join(parts) + "\n"


def tick_step(span_s: float) -> float:
    """The distance of ticks: 1, 2 or 5 times a power of ten, so that about TICKS of them cover the span."""
    rough = span_s / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))


class _Axis:
    """Seconds → pixels."""

    def __init__(self, tick_s: float, end_s: float) -> None:
        self.tick_s = tick_s
        self.end_s = end_s

    def x(self, seconds: float) -> float:
        return LEFT_PX + (WIDTH_PX - LEFT_PX - RIGHT_PX) * seconds / self.end_s

    def ticks(self) -> Iterator[float]:
        return (number * self.tick_s for number in range(round(self.end_s / self.tick_s) + 1))


def _heading(report: Report) -> list[str]:
    when = dt.datetime.fromtimestamp(report.started_at).astimezone()
    result = report.result
    word, colour = (result.value, RESULT_COLOURS[result]) if result else ("running", COLOURS[Status.RUNNING])
    moment = f"{when:%Y-%m-%d %H:%M:%S}"
    facts = f"{moment} · {len(report.steps)} steps · {report.seconds:.2f} s · boot {report.boot_id}"
    return [
        _text(24, 34, f"Start-up of hostagent {report.agent}", size=18, weight="bold"),
        f'<rect x="24" y="46" width="{14 + 8 * len(word)}" height="20" rx="10" fill="{colour}"/>',
        _text(31 + 4 * len(word), 60, word, colour="#ffffff", anchor="middle", weight="bold"),
        _text(50 + 8 * len(word), 60, facts, colour=FAINT),
    ]


def _grid(axis: _Axis, height: int) -> list[str]:
    bottom = height - BOTTOM_PX
    digits = max(0, -math.floor(math.log10(axis.tick_s)))
    lines = []
    for seconds in axis.ticks():
        x = axis.x(seconds)
        lines.append(f'<line x1="{x:.1f}" y1="{TOP_PX - 6}" x2="{x:.1f}" y2="{bottom}" stroke="{GRID}"/>')
        lines.append(_text(x, bottom + 16, f"{seconds:.{digits}f}", colour=FAINT, anchor="middle", size=11))
    lines.append(_text(axis.x(axis.end_s) + 24, bottom + 16, "seconds", colour=FAINT, size=11))
    return lines


def _row(step: StepRecord, axis: _Axis, top: int) -> list[str]:
    middle = top + ROW_PX / 2
    x = axis.x(step.offset_s)
    width = max(axis.x(step.offset_s + step.seconds) - x, NARROWEST_PX)
    colour = COLOURS[step.status]
    told = step.error["found"] if step.error else step.note or ", ".join(step.blocked_by)
    tip = f"{step.ref} {step.name}: {step.status.value}, {step.seconds:.3f} s {told}".strip()
    y = middle - BAR_PX / 2
    shape = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{BAR_PX}" rx="2" fill="{colour}"'
    if step.background:
        shape += f' fill-opacity="0.45" stroke="{colour}" stroke-dasharray="4 2"'
    label = f"{step.seconds:.2f} s" if step.seconds >= 0.005 else ""
    if step.status not in (Status.CHANGED, Status.UNCHANGED):
        label = f"{step.status.value} {label}".strip()
    if step.warnings:
        label = f"{label} ⚠".strip()
    return [
        "<g>",
        f"<title>{_escape(tip)}</title>",
        _text(24, middle + 4, step.ref, colour=FAINT, size=11),
        _text(LEFT_PX - 12, middle + 4, step.name, anchor="end"),
        f"<rect {shape}/>",
        _text(x + width + 6, middle + 4, label, colour=INK if step.troubled else FAINT, size=11),
        "</g>",
    ]


def _legend(report: Report, height: int) -> list[str]:
    present = [status for status in COLOURS if any(step.status is status for step in report.steps)]
    parts, x = [], 24
    for status in present:
        parts.append(
            f'<rect x="{x}" y="{height - 28}" width="12" height="12" rx="2" fill="{COLOURS[status]}"/>'
        )
        parts.append(_text(x + 18, height - 18, status.value, colour=FAINT))
        x += 40 + 8 * len(status.value)
    return parts


def _text(
    x: float,
    y: float,
    words: str,
    *,
    colour: str = INK,
    anchor: str = "start",
    size: int = 12,
    weight: str = "normal",
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" text-anchor="{anchor}" font-size="{size}" '
        f'font-weight="{weight}">{_escape(words)}</text>'
    )


def _escape(words: str) -> str:
    return html.escape(UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", words))
