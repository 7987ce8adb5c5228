"""What calls that change the network refuse, with the codes and parameters of XenAPI (networking.md 1.7)."""

from __future__ import annotations

from hostagent.errors import CallerError, HostagentError, KernelError


class RefusedError(CallerError):
    """A change that the present objects do not allow. `code` and `params` are XenAPI's."""

    def __init__(self, code: str, *params: str, found: str, hint: str) -> None:
        super().__init__(found, hint=hint, params=params)
        self.code = code


class PifConfigurationError(KernelError):
    """The host could not be made what the objects ask for; it and the database are as they were.
    PIF_CONFIGURATION_ERROR [PIF; detail].
    """

    code = "PIF_CONFIGURATION_ERROR"

    def __init__(self, pif: str, error: HostagentError) -> None:
        super().__init__(error.found, hint=error.hint, params=(pif, f"{error.found}; {error.hint}"))
