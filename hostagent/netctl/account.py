"""What became of one change of the host's network, operation by operation, for who asked with our own calls."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hostagent.net.change import Course

if TYPE_CHECKING:
    from hostagent.net.finding import Finding


@dataclass(slots=True)
class Account:
    """`lock_s`: how long to wait for another change. `confirm_s`: undo it after so long unless somebody confirms; 0 for
    not at all. The rest is filled in by `plug.Network`. Who gives one waits for what follows the change and announces
    addresses (`bring.finish`).
    """

    lock_s: float
    confirm_s: float = 0.0
    course: Course = field(default_factory=Course)
    findings: list[Finding] = field(default_factory=list)
