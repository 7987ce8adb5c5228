"""The list of all messages of the data model that are written by hand."""

from __future__ import annotations

from hostagent.api import calls_event, calls_host, calls_message, calls_session, calls_task

IMPLEMENTED = (
    *calls_session.CALLS,
    *calls_task.CALLS,
    *calls_event.CALLS,
    *calls_message.CALLS,
    *calls_host.CALLS,
)
