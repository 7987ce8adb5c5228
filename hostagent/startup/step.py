"""What a start-up step is: the row of the table, its policy, its outcome, and the context it runs in.

Only types live here; the rows are in `table.py`, the functions in `steps_*.py`, and `runner.py` alone runs
them.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hostagent.errors import HostagentError

if TYPE_CHECKING:
    from collections.abc import Callable

    from hostagent.config import Config
    from hostagent.startup.state import HostState


class Role(enum.Enum):
    """Where a step runs; on a host of another role its outcome is skipped."""

    ANY = "any"
    COORDINATOR = "coordinator"
    SUPPORTER = "supporter"


class Policy(enum.Enum):
    """What a failure does to the rest of the sequence."""

    HALT = "halt"
    """The sequence stops and the process ends (exit 1 or 2, see `Step.halt_exit`)."""
    EMERGENCY = "emergency"
    """The local API stays with its emergency calls; the process asks to be restarted later (exit 123)."""
    DEGRADE = "degrade"
    """The sequence goes on; the failure becomes a reason why the host must stay disabled (`HostState.blockers`)."""
    BEST_EFFORT = "best-effort"
    """The sequence goes on with a warning."""


@dataclass(frozen=True, slots=True)
class Change:
    """One exact change: the object (a path, a xenstore key, …), its old value (None: absent) and the new one.

    A secret never stands here; its value is the word `(secret)`.
    """

    what: str
    old: str | None
    new: str | None


@dataclass(frozen=True, slots=True)
class Changed:
    """The step changed the host. `warnings` are for somebody to look at; they make the boot degraded."""

    changes: tuple[Change, ...]
    note: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Unchanged:
    """The step looked, and the host was already as wanted."""

    note: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Skipped:
    """The step does not apply here."""

    reason: str


@dataclass(frozen=True, slots=True)
class Restart:
    """The step asks for a new process (exit 123): the role or the schema changed."""

    reason: str


class EmergencyError(HostagentError):
    """A step found that the host must go into emergency mode, whatever the policy of its row is (reference
    1.4).
    """

    def __init__(self, code: str, found: str, *, hint: str, params: tuple[str, ...] = ()) -> None:
        super().__init__(found, hint=hint, params=params)
        self.code = code


Outcome = Changed | Unchanged | Skipped | Restart


@dataclass(frozen=True, slots=True)
class Context:
    """What a step is given.

    `config` is the parsed settings, `host` what earlier steps found out about this host (filled by them, in
    table order). `hold(point)` is the hold point of fault tests: it returns at once unless a root-owned file
    asks for a stop at exactly this point (`hold.py`). The runner holds at `before`; a step holds after each
    durable effect, at the points its row names. `progress(text)` shows what the step is doing right now.
    `timeout_s` is the step's deadline: what it waits for with a deadline of its own must end before.
    """

    config: Config
    host: HostState
    hold: Callable[[str], None]
    progress: Callable[[str], None]
    timeout_s: float
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """One row of the start-up table.

    `run` does the work and returns an outcome; it raises a HostagentError to fail. `plan` yields the exact
    changes `run` would make now and changes nothing; None only for a step that never changes anything on the
    host. `hold_points` names where fault tests can stop it, in order. `halt_exit` is the exit code of a halt whose
    cause does not pass by itself; any other cause ends the process with 2. A step that `awaits_xenstored` gets the
    setting `xenstore.wait` on top of `timeout_s`.
    """

    name: str
    ref: str
    role: Role
    needs: tuple[str, ...]
    policy: Policy
    timeout_s: float
    run: Callable[[Context], Outcome]
    why: str
    plan: Callable[[Context], tuple[Change, ...]] | None = None
    background: bool = False
    awaits_xenstored: bool = False
    halt_exit: int = 2
    hold_points: tuple[str, ...] = field(default=("before",))
