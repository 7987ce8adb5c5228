"""A finding: what stands in the way of a network change, or will be less than was asked for, told beforehand."""

from __future__ import annotations

from hostagent.errors import CallerError
from hostagent.named import NamedTuple

STOP = "stop"
"""The PIFs it names cannot be brought up: they are left out of what is wanted."""
STOP_UNLESS_BOOT = "stop-unless-boot"
"""Ends a change that is asked for now; at boot all the rest is done, as DEGRADE."""
DEGRADE = "degrade"
"""It is done without what the finding names."""


class Finding(NamedTuple):
    row: int
    """Of the failure catalogue (networking.md 5); 0: not in it."""
    severity: str
    """STOP or DEGRADE; from `model.survey` also STOP_UNLESS_BOOT, which `checks.check` decides."""
    refs: tuple[str, ...]
    """PIFs and networks that it hits; the first is the one to name."""
    found: str
    hint: str
    code: str = "PIF_CONFIGURATION_ERROR"
    params: tuple[str, ...] | None = None
    """None: PIF_CONFIGURATION_ERROR's own, [PIF; what was found]."""

    def error(self) -> FindingError:
        return FindingError(self)


class FindingError(CallerError):
    """A network change was not begun because of a finding, whose XenAPI code and parameters it has."""

    def __init__(self, finding: Finding) -> None:
        params = finding.params
        if params is None:
            params = (finding.refs[0] if finding.refs else "", finding.found)
        super().__init__(finding.found, hint=finding.hint, params=params)
        self.code = finding.code
        self.finding = finding
