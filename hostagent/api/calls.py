"""Our own calls about the daemon, which only the Unix socket serves, and the list of them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from hostagent.api.methods import Json, Param, method, one_of
from hostagent.api.roles import Role
from hostagent.config import LOG_LEVELS

if TYPE_CHECKING:
    from hostagent.api.service import Service

log = logging.getLogger(__name__)


@method("hostagent.status", role=Role.READ_ONLY, emergency=True)
def status(service: Service) -> Json:
    """What the daemon is doing (`Service.status`)."""
    return service.status()


@method("hostagent.startup_report", role=Role.READ_ONLY, emergency=True)
def startup_report(service: Service) -> Json:
    """The report of this daemon's start-up as far as it got; null before its first step."""
    from hostagent.startup.report import as_json

    report = service.lifecycle.state.report
    return None if report is None else as_json(report)


@method("hostagent.set_log_level", Param("level", one_of(*LOG_LEVELS)), role=Role.POOL_ADMIN, emergency=True)
def set_log_level(service: Service, level: str) -> Json:
    """Change the general log level until the next reload or restart."""
    service.set_log_level(level)
    log.warning("log level is now %s", level)
    return ""


METHODS = (status, startup_report, set_log_level)
