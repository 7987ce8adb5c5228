"""What can go wrong in the lab; each error says what was found and what to do."""

from __future__ import annotations


class LabError(Exception):
    """The lab could not do what was asked."""

    def __init__(self, found: str, *, hint: str = "") -> None:
        super().__init__(f"{found}\nhint: {hint}" if hint else found)
        self.found = found
        self.hint = hint


class HostError(LabError):
    """A lab host did not get where it should; it is not used again."""


class Dom0CrashedError(HostError):
    """dom0's kernel ended in a panic; Xen says so on the console."""
