"""The error tree: who must act comes first, the XenAPI code second.

Every concrete error carries `code` and `params` as XenAPI defines them (xenapi data model, error list), a
sentence that says what was found, and a hint that says what to do. Drivers raise these `from` the OS error;
only the wire layer and the command line turn them into text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import TypedDict

    class ErrorRecord(TypedDict):
        """An error as reports and JSON answers carry it."""

        code: str
        params: list[str]
        found: str
        hint: str


class HostagentError(Exception):
    """Something asked for was not done.

    `found` says what was found, as one sentence without a full stop; `hint` what the operator can do next.
    `params` are the XenAPI parameters; by default the sentence itself, as INTERNAL_ERROR has it.
    """

    code = "INTERNAL_ERROR"

    def __init__(self, found: str, *, hint: str, params: tuple[str, ...] | None = None) -> None:
        super().__init__(found)
        self.found = found
        self.hint = hint
        self.params = (found,) if params is None else params

    def record(self) -> ErrorRecord:
        return {"code": self.code, "params": list(self.params), "found": self.found, "hint": self.hint}


class CallerError(HostagentError):
    """The caller must change the request: bad value, bad state, no permission."""


class InvalidValueError(CallerError):
    """A value outside what its field allows. XenAPI INVALID_VALUE [field; value]."""

    code = "INVALID_VALUE"

    def __init__(self, field: str, value: str, found: str, *, hint: str) -> None:
        super().__init__(found, hint=hint, params=(field, value))


class OperatorError(HostagentError):
    """The operator must mend the host: missing package, full disk, broken file, dead daemon."""


class BusyError(HostagentError):
    """Try again: somebody else holds what is needed. XenAPI OTHER_OPERATION_IN_PROGRESS [class; object]."""

    code = "OTHER_OPERATION_IN_PROGRESS"


class KernelError(HostagentError):
    """The kernel or the hypervisor did not do what was asked."""


class BugError(HostagentError):
    """We did something wrong; the log has the rest."""
