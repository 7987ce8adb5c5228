"""Our own call about the XenAPI itself: what of it works."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.api.methods import Json, Method, method
from hostagent.api.roles import Role

if TYPE_CHECKING:
    from hostagent.api.dispatch import Dispatcher
    from hostagent.api.service import Service


def calls(dispatcher: Dispatcher) -> tuple[Method, ...]:
    """The call, on the messages of `dispatcher`."""

    @method("hostagent.api_coverage", role=Role.READ_ONLY)
    def api_coverage(_service: Service) -> Json:
        """By class: names of the messages that work, and of those not built."""
        return dispatcher.coverage()

    return (api_coverage,)
