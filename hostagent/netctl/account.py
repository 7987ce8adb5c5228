"""What became of one change of the host's network, operation by operation, for who asked with our own calls."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hostagent.net.devices import Wanted
from hostagent.net.operation import Plan

if TYPE_CHECKING:
    from hostagent.net.finding import Finding


@dataclass(slots=True)
class Account:
    """`lock_s`: how long to wait for another change. `confirm_s`: undo it after so long unless somebody confirms; 0 for
    not at all. The rest is filled in by `plug.Network`.
    """

    lock_s: float
    confirm_s: float = 0.0
    outcome: str = ""
    """changed, waiting or rolled-back; empty while nothing was touched."""
    wanted: Wanted = field(default_factory=Wanted)
    planned: Plan = field(default_factory=lambda: Plan(()))
    milliseconds: tuple[float, ...] = ()
    findings: list[Finding] = field(default_factory=list)
    soft: tuple[str, ...] = ()
    """What tools could not do and what does not fail a change."""
