"""The list of all messages of the data model that are written by hand."""

from __future__ import annotations

from hostagent.api import (
    calls_bond,
    calls_event,
    calls_host,
    calls_management,
    calls_message,
    calls_network,
    calls_pif,
    calls_session,
    calls_task,
    calls_vlan,
)

IMPLEMENTED = (
    *calls_session.CALLS,
    *calls_task.CALLS,
    *calls_event.CALLS,
    *calls_message.CALLS,
    *calls_host.CALLS,
    *calls_pif.CALLS,
    *calls_bond.CALLS,
    *calls_vlan.CALLS,
    *calls_network.CALLS,
    *calls_management.CALLS,
)
