"""Calls of the class session: log-in, log-out, who is logged in (xenapi.md 1.6)."""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from typing import TYPE_CHECKING

from hostagent.api.dispatch import Implementation
from hostagent.api.fault import CallError
from hostagent.api.roles import Role

if TYPE_CHECKING:
    from hostagent.api.core import Call

log = logging.getLogger(__name__)

FAILURE_DELAY_S = 5.0
"""A failed log-in is answered this late; other callers do not wait for it."""
FAILURES = 10
FAILURES_WITHIN_S = 60.0
"""So many failures from one address in this time, and its log-ins are refused without asking PAM."""
WAITING_LIMIT = 64

_failures: dict[str, list[float]] = {}
_waiting = {"now": 0}


async def login_with_password(call: Call, uname: str, pwd: str, _version: str, originator: str) -> str:
    """Over the Unix socket nobody asks for a password: whoever can open it is root."""
    core = call.core
    if call.peer.trusted:
        return _begin(call, uname or "root", Role.ROOT, originator)
    coordinator = core.coordinator()
    if coordinator is not None:
        raise CallError("HOST_IS_SLAVE", coordinator)
    return _begin(call, uname, await _role_of(call, uname, pwd), originator)


async def slave_local_login_with_password(call: Call, uname: str, pwd: str) -> str:
    """A session for this host's few local calls, also in emergency mode; for its administrators only."""
    role = Role.ROOT if call.peer.trusted else await _role_of(call, uname, pwd)
    if role < Role.POOL_ADMIN:
        raise CallError("SESSION_AUTHENTICATION_FAILED", uname, "only an administrator may log in locally")
    return call.core.sessions.log_in(uname, Role.ROOT, address=call.peer.address).ref


async def slave_local_login(call: Call, psecret: str) -> str:
    await _check_secret(call, psecret)
    return call.core.sessions.log_in("", Role.ROOT, pool=True, address=call.peer.address).ref


async def slave_login(call: Call, host: str, psecret: str) -> str:
    """A session of a member of the pool."""
    coordinator = call.core.coordinator()
    if coordinator is not None:
        raise CallError("HOST_IS_SLAVE", coordinator)
    await _check_secret(call, psecret)
    return call.core.sessions.log_in(
        "", Role.ROOT, pool=True, address=call.peer.address, database=call.core.db, host=host
    ).ref


def logout(call: Call) -> str:
    call.core.sessions.end(call.caller, call.core.database)
    return ""


def get_all_subject_identifiers(_call: Call) -> list[str]:
    """Nobody is logged in through a directory: there is none."""
    return []


def logout_subject_identifier(_call: Call, _subject: str) -> str:
    return ""


def _begin(call: Call, user: str, role: Role, originator: str) -> str:
    core = call.core
    session = core.sessions.log_in(
        user,
        role,
        originator=originator,
        address=call.peer.address,
        database=core.db,
        host=core.this_host(),
    )
    log.info("%s logged in from %s as %s", user or "somebody", call.peer.address or "here", role.label)
    return session.ref


async def _role_of(call: Call, user: str, password: str) -> Role:
    """What PAM and the user's groups say. Raises CallError SESSION_AUTHENTICATION_FAILED, late."""
    refused = CallError("SESSION_AUTHENTICATION_FAILED", user, "wrong user name or password")
    if _too_many_failures(call.peer.address) or _waiting["now"] >= WAITING_LIMIT:
        await _answer_late()
        raise refused
    role = await call.core.authenticate(user, password)
    if role is None:
        _failures.setdefault(call.peer.address, []).append(time.monotonic())
        log.warning("log-in of %r from %s failed", user[:64], call.peer.address or "here")
        await _answer_late()
        raise refused
    return role


async def _check_secret(call: Call, given: str) -> None:
    if not hmac.compare_digest(given.encode(), call.core.pool_secret().encode()):
        _failures.setdefault(call.peer.address, []).append(time.monotonic())
        log.warning("a log-in with a wrong pool secret came from %s", call.peer.address or "here")
        await _answer_late()
        raise CallError("SESSION_AUTHENTICATION_FAILED", "", "wrong pool secret")


async def _answer_late() -> None:
    _waiting["now"] += 1
    try:
        await asyncio.sleep(FAILURE_DELAY_S)
    finally:
        _waiting["now"] -= 1


def _too_many_failures(address: str) -> bool:
    now = time.monotonic()
    recent = [when for when in _failures.get(address, []) if now - when < FAILURES_WITHIN_S]
    if recent:
        _failures[address] = recent
    else:
        _failures.pop(address, None)
    return len(recent) >= FAILURES


CALLS = (
    Implementation("session.login_with_password", login_with_password),
    Implementation(
        "session.slave_local_login_with_password", slave_local_login_with_password, emergency=True
    ),
    Implementation("session.slave_local_login", slave_local_login, emergency=True),
    Implementation("session.slave_login", slave_login),
    Implementation("session.logout", logout),
    Implementation("session.local_logout", logout, emergency=True),
    Implementation("session.get_all_subject_identifiers", get_all_subject_identifiers, quick=True),
    Implementation("session.logout_subject_identifier", logout_subject_identifier, quick=True),
)
