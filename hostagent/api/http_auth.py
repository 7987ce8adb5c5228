"""Who may use an HTTP handler: everything that is asked by a path and not by a call (xenapi.md 1.5).

In this order: the Unix socket is root; a session, in a cookie or the query; the pool secret, likewise; a name and
password (Basic), which make a session for as long as the request takes.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import logging
from typing import TYPE_CHECKING
from urllib.parse import unquote

from hostagent.api.endpoint import peer_of
from hostagent.api.fault import CallError
from hostagent.api.http import RefusedError
from hostagent.api.roles import needed
from hostagent.db import model as datamodel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from hostagent.api.core import Core
    from hostagent.api.dispatch import Dispatcher
    from hostagent.api.http import Request
    from hostagent.api.sessions import Session

audit = logging.getLogger("hostagent.audit")

API_VERSION = "2.23"
REALM = {"www-authenticate": 'Basic realm="hostagent"'}
REFUSED = "log in: session_id of a session, or a name and password"


@contextlib.asynccontextmanager
async def admitted(dispatcher: Dispatcher, core: Core, request: Request, name: str) -> AsyncIterator[None]:
    """Let the request in for the handler `name`, as the data model calls it, for the time of the block.

    Raises RefusedError: 401, 403 (the role does not do), 503 (still booting, in emergency mode, not the coordinator).
    """
    if request.peer.kind == "unix":
        with _noted(f"http/{name}", request, "root"):
            yield
        return
    blocked = core.blocked()
    if blocked is not None:
        raise RefusedError(503, str(blocked), {"retry-after": "5"})
    session, ends = await _session(dispatcher, core, request)
    try:
        if session.role < needed(datamodel.load().http[name]):
            audit.info(
                "%s from %s: http/%s: RBAC_PERMISSION_DENIED", session.name, request.peer.address, name
            )
            raise RefusedError(403, f"{session.role.label} may not use http/{name}")
        with _noted(f"http/{name}", request, session.name):
            yield
    finally:
        if ends:
            await asyncio.to_thread(core.sessions.end, session, core.database)


@contextlib.contextmanager
def _noted(what: str, request: Request, who: str) -> Iterator[None]:
    """A line in the audit log, with the outcome."""
    outcome = "failed"
    try:
        yield
        outcome = "success"
    finally:
        audit.info("%s from %s: %s %s: %s", who, request.peer.address, what, request.method, outcome)


async def _session(dispatcher: Dispatcher, core: Core, request: Request) -> tuple[Session, bool]:
    """The session of a request, and whether it was made for it."""
    cookies = cookies_of(request.headers.get("cookie", ""))
    given = cookies.get("session_id") or request.query.get("session_id")
    secret = cookies.get("pool_secret") or request.query.get("pool_secret")
    try:
        if given:
            session = core.sessions.find(given)
            if session.local:
                raise CallError("SESSION_INVALID", given)
            return session, False
        if secret:
            return await _log_in(dispatcher, core, request, "session.slave_local_login", secret), True
        if basic := basic_of(request.headers.get("authorization", "")):
            name = "session.login_with_password"
            return await _log_in(dispatcher, core, request, name, *basic, API_VERSION, "http"), True
    except CallError as error:
        if error.code in ("SESSION_INVALID", "SESSION_AUTHENTICATION_FAILED"):
            raise RefusedError(401, error.code, REALM) from error
        raise RefusedError(503, str(error)) from error
    raise RefusedError(401, REFUSED, REALM)


async def _log_in(dispatcher: Dispatcher, core: Core, request: Request, name: str, *given: str) -> Session:
    answer = await dispatcher.call(name, given, peer_of(request))
    return core.sessions.find(answer.value)


def cookies_of(header: str) -> dict[str, str]:
    """Names and values of a Cookie header (RFC 6265 4.2), %-escapes undone; of a name given twice the first counts."""
    found: dict[str, str] = {}
    for pair in header.split(";"):
        name, equals, value = pair.strip(" \t").partition("=")
        if equals and name:
            found.setdefault(name, unquote(value.removeprefix('"').removesuffix('"')))
    return found


def basic_of(header: str) -> tuple[str, str] | None:
    """Name and password of an Authorization header (RFC 7617), None for anything else."""
    scheme, _, rest = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, colon, password = base64.b64decode(rest.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return None
    return (name, password) if colon else None
