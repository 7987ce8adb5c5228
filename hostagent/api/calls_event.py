"""Calls of the class event (xenapi.md 4.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.api.dispatch import Implementation
from hostagent.api.fault import CallError
from hostagent.db.datatype import parse

if TYPE_CHECKING:
    from hostagent.api.core import Call
    from hostagent.api.events import Events
    from hostagent.api.rendered import Rendered


def _events(call: Call) -> Events:
    if call.core.events is None:
        raise CallError("HOST_STILL_BOOTING")
    return call.core.events


async def wait(call: Call, classes: list[str], token: str, timeout: float) -> Rendered:
    return await _events(call).wait(call.caller, classes, token, timeout)


async def wait_for_next(call: Call) -> Rendered:
    return await _events(call).next(call.caller)


def register(call: Call, classes: list[str]) -> str:
    _events(call).register(call.caller, classes)
    return ""


def unregister(call: Call, classes: list[str]) -> str:
    _events(call).unregister(call.caller, classes)
    return ""


def get_current_id(call: Call) -> int:
    return call.core.db.generation


def inject(call: Call, cls: str, ref: str) -> str:
    return _events(call).inject(cls, ref)


CALLS = (
    Implementation("event.from", wait, result=parse("an event batch"), span=True),
    Implementation("event.next", wait_for_next),
    Implementation("event.register", register, quick=True),
    Implementation("event.unregister", unregister, quick=True),
    Implementation("event.get_current_id", get_current_id, quick=True),
    Implementation("event.inject", inject),
)
