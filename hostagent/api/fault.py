"""What a call is answered with when it fails: a XenAPI code and its parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class CallError(Exception):
    """A call that is answered with an error. XenAPI: `ErrorDescription` is [code, *params]."""

    def __init__(self, code: str, *params: str) -> None:
        super().__init__(code, *params)
        self.code = code
        self.params: Sequence[str] = params

    def __str__(self) -> str:
        return " ".join((self.code, *self.params))


def parameter_count(method: str, expected: int, received: int) -> CallError:
    """Both numbers are without the session (xenapi.md 1.2)."""
    return CallError("MESSAGE_PARAMETER_COUNT_MISMATCH", method, str(expected), str(received))
