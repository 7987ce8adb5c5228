"""Calls of the class session: log-in, log-out, who is logged in (xenapi.md 1.6)."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from hostagent.api.dispatch import Implementation
from hostagent.api.fault import CallError
from hostagent.api.roles import Role

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from hostagent.api.core import Call

log = logging.getLogger(__name__)
audit = logging.getLogger("hostagent.audit")
T = TypeVar("T")

FAILURE_DELAY_S = 5.0
"""A failed log-in is answered this late; other callers do not wait for it."""
FAILURES = 10
FAILURES_WITHIN_S = 60.0
"""So many failures from one origin in this time, and its log-ins are refused without asking PAM."""
TURNS = 4
"""Log-ins of one origin that are checked at a time; the others wait, so that PAM's threads are left to the rest."""
ORIGINATOR_CHARACTERS = 256
"""More of it is not kept: sessions live in memory, and there may be hundreds."""
NETWORK_BITS = 64
"""An IPv6 network of this size is one origin: its users can take any address of it."""


@dataclass(slots=True)
class _Origin:
    """Where log-ins come from. `failures` are moments of the monotonic clock, `asking` the log-ins under way."""

    failures: list[float] = field(default_factory=list)
    asking: int = 0
    turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(TURNS))

    def recent(self) -> int:
        """How many have failed of late; older ones are forgotten."""
        now = time.monotonic()
        self.failures = [when for when in self.failures if now - when < FAILURES_WITHIN_S]
        return len(self.failures)


_failures: dict[str, _Origin] = {}
_looked_through = {"at": 0.0}


async def login_with_password(call: Call, uname: str, pwd: str, _version: str, originator: str) -> str:
    """Over the Unix socket nobody asks for a password: whoever can open it is root."""
    core = call.core
    if call.peer.trusted:
        return await _begin(call, uname or "root", Role.ROOT, originator)
    coordinator = core.coordinator()
    if coordinator is not None:
        raise CallError("HOST_IS_SLAVE", coordinator)
    return await _begin(call, uname, await _role_of(call, uname, pwd), originator)


async def slave_local_login_with_password(call: Call, uname: str, pwd: str) -> str:
    """A session for this host's few local calls, also in emergency mode; for its administrators only."""
    role = Role.ROOT if call.peer.trusted else await _role_of(call, uname, pwd)
    if role < Role.POOL_ADMIN:
        raise CallError("SESSION_AUTHENTICATION_FAILED", uname, "only an administrator may log in locally")
    return call.core.sessions.log_in(uname, Role.ROOT).ref


async def slave_local_login(call: Call, psecret: str) -> str:
    await _check_secret(call, psecret)
    return call.core.sessions.log_in("", Role.ROOT, pool=True).ref


async def slave_login(call: Call, host: str, psecret: str) -> str:
    """A session of a member of the pool."""
    coordinator = call.core.coordinator()
    if coordinator is not None:
        raise CallError("HOST_IS_SLAVE", coordinator)
    await _check_secret(call, psecret)
    session = await asyncio.to_thread(
        call.core.sessions.log_in,
        "",
        Role.ROOT,
        pool=True,
        database=call.core.db,
        host=host,
    )
    return session.ref


def logout(call: Call) -> str:
    call.core.sessions.end(call.caller, call.core.database)
    return ""


def get_all_subject_identifiers(_call: Call) -> list[str]:
    """Nobody is logged in through a directory: there is none."""
    return []


def logout_subject_identifier(_call: Call, _subject: str) -> str:
    return ""


async def _begin(call: Call, user: str, role: Role, originator: str) -> str:
    core = call.core
    session = await asyncio.to_thread(
        core.sessions.log_in,
        user,
        role,
        originator=originator[:ORIGINATOR_CHARACTERS],
        database=core.db,
        host=core.this_host(),
    )
    audit.info("%s from %s: logged in as %s", session.name, call.peer.address or "local", role.label)
    return session.ref


async def _role_of(call: Call, user: str, password: str) -> Role:
    """What PAM and the user's groups say. Raises CallError SESSION_AUTHENTICATION_FAILED, late."""

    async def role() -> Role | None:
        return await call.core.authenticate(user, password)

    return await _tried(call, user, role, "wrong user name or password")


async def _check_secret(call: Call, given: str) -> None:
    """Raises CallError SESSION_AUTHENTICATION_FAILED, late."""

    async def right() -> bool | None:
        known = [hmac.compare_digest(given.encode(), secret.encode()) for secret in call.core.pool_secrets()]
        return any(known) or None

    await _tried(call, "", right, "wrong pool secret")


async def _tried(call: Call, user: str, check: Callable[[], Awaitable[T | None]], told: str) -> T:
    """What `check` finds; None is a failure, and so is a client that does not wait for its answer. An origin that has
    failed too often is refused without a check. Raises CallError SESSION_AUTHENTICATION_FAILED, late.
    """
    origin = _origin(call.peer.address)
    found: T | None = None
    origin.asking += 1
    try:
        async with origin.turns:
            if origin.recent() < FAILURES:
                try:
                    found = await check()
                finally:
                    if found is None:
                        origin.failures.append(time.monotonic())
                        log.warning("log-in of %r from %s: %s", user[:64], call.peer.address or "here", told)
    finally:
        origin.asking -= 1
    if found is None:
        await asyncio.sleep(FAILURE_DELAY_S)
        raise CallError("SESSION_AUTHENTICATION_FAILED", user, told)
    return found


def _origin(address: str) -> _Origin:
    """Who counts as one at this address. Those of whom nothing is to be remembered are forgotten now and then."""
    now = time.monotonic()
    if now - _looked_through["at"] >= FAILURES_WITHIN_S:
        _looked_through["at"] = now
        for key in [key for key, known in _failures.items() if not known.asking and not known.recent()]:
            del _failures[key]
    if ":" in address:
        network = ipaddress.ip_network((address.partition("%")[0], NETWORK_BITS), strict=False)
        return _failures.setdefault(str(network), _Origin())
    return _failures.setdefault(address, _Origin())


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
