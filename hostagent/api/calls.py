"""The calls of the local socket, and the list of all of them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from hostagent.api.methods import Json, Param, Role, method, one_of, text
from hostagent.config import LOG_LEVELS
from hostagent.lifecycle import Phase

if TYPE_CHECKING:
    from hostagent.api.service import Service

log = logging.getLogger(__name__)

SESSION = Param("session_id", text, optional=True)
"""XenAPI clients send a session reference first; whoever can connect here is root (xenapi.md 1.1)."""


@method("system.listMethods", role=Role.READ_ONLY, emergency=True)
def list_methods(_service: Service) -> Json:
    """Names of the calls that work, sorted."""
    return sorted(call.name for call in METHODS)


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


@method("host.is_in_emergency_mode", SESSION, role=Role.READ_ONLY, emergency=True)
def is_in_emergency_mode(service: Service, _session: str = "") -> Json:
    """XenAPI host.is_in_emergency_mode."""
    return service.lifecycle.state.phase is Phase.EMERGENCY


METHODS = (list_methods, status, startup_report, set_log_level, is_in_emergency_mode)
