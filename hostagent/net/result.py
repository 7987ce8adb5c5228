"""What a change of the network gives, as the daemon's answer and `--json` have it. Types alone: `empty_result` of
`bring.py` makes one, so that nothing of this is imported on the way of `interface-reconfigure`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hostagent.errors import ErrorRecord


class Op(TypedDict):
    verb: str
    device: str
    args: Mapping[str, Any]
    undo: list[tuple[str, str, Mapping[str, Any]]]
    milliseconds: float | None


class Result(TypedDict):
    what: str
    outcome: str
    """unchanged, changed, degraded, waiting, rolled-back; of --plan planned; of --check right or differs; of undo
    and confirm also undone, undo-failed, confirmed, nothing."""
    operations: list[Op]
    differences: list[dict[str, str]]
    told: list[str]
    """What is less than was asked for, and what was found on the way."""
    undo_troubles: list[str]
    """Of rolled-back: what undoing it could not do. Empty: the network is as before."""
    seconds: float
    source: str
    error: ErrorRecord | None
