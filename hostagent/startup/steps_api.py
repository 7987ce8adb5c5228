"""Steps about the API: what it serves, the way into it for our own code, the listeners for this host alone."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from hostagent.api.local_socket import socket_path
from hostagent.errors import BugError, OperatorError
from hostagent.startup.step import Change, Changed, Context, Outcome, Skipped, Unchanged

if TYPE_CHECKING:
    from pathlib import Path

DOORS = (("POST", "/"), ("POST", "/RPC2"), ("POST", "/jsonrpc"), ("POST", "/json"), ("GET", "/"))
"""Where stock clients knock (xenapi.md 1.1)."""
ONLY_DAEMON = "only the daemon serves the API"
SOCKET_MODE = 0o600
XCP_MODE = 0o700
LOCALHOST_ADDRESS = "127.0.0.1"


def build_http_handlers(context: Context) -> Outcome:
    """S16. The handlers are there before any listener but the local socket, which starts with the daemon.

    Raises BugError when clients would find no handler at a door they know.
    """
    from hostagent.api.http import RefusedError

    if context.host.hooks is None:
        return Skipped(ONLY_DAEMON)
    api = context.host.hooks.api
    for method, path in DOORS:
        try:
            api.routes.find(method, path)
        except RefusedError as error:
            raise BugError(f"nothing answers {method} {path}", hint="report this") from error
    working = len(api.dispatcher.working())
    return Unchanged(f"{len(api.routes)} routes; {working} messages that need no database")


def open_internal_calls(context: Context) -> Outcome:
    """S17. Our own code can call the API as clients do: one call is made, through dispatcher and session, and answered.

    Raises BugError.
    """
    from hostagent.api.fault import CallError

    if context.host.hooks is None:
        return Skipped(ONLY_DAEMON)
    name = "host.is_in_emergency_mode"
    try:
        answer = context.host.hooks.api.call_internal(name)
    except CallError as error:
        raise BugError(f"{name}: {error}", hint="report this") from error
    if not isinstance(answer, bool):
        raise BugError(f"{name} answered {answer!r}", hint="report this")
    return Unchanged(f"{name} was answered")


# S18


def listen_local_socket(context: Context) -> Outcome:
    """S18. The socket that the daemon serves from its first moment is root's alone, and clients that were written for
    xapi find it where they look (decisions 5). What else stands there is left alone.

    Raises OperatorError: the socket is gone or others may use it.
    """
    path = socket_path(context.config.paths)
    if context.host.hooks is None and not path.is_socket():
        return Skipped("the daemon makes the socket, and does not run")
    _check(path)
    changes, warnings = plan_local_socket(context), _obstacle(context)
    if changes:
        try:
            _link(context.config.paths.xapi_socket, path)
        except OSError as error:
            hint = f"ls -ld {context.config.paths.xapi_socket.parent}"
            return Unchanged(
                str(path),
                (f"{context.config.paths.xapi_socket} could not be made: {error.strerror} ({hint})",),
            )
        context.hold("link-made")
        return Changed(changes, str(path))
    return Unchanged(str(path), warnings)


def plan_local_socket(context: Context) -> tuple[Change, ...]:
    """The link that is missing."""
    link, path = context.config.paths.xapi_socket, socket_path(context.config.paths)
    if link.is_symlink() or link.exists():
        return ()
    return (Change(str(link), None, f"link to {path}"),)


def _check(path: Path) -> None:
    hint = "who has touched it? systemctl restart hostagent makes it anew"
    try:
        found = path.lstat()
    except OSError as error:
        raise OperatorError(f"{path}: {error.strerror}", hint=hint) from error
    mode = stat.S_IMODE(found.st_mode)
    if not stat.S_ISSOCK(found.st_mode) or mode != SOCKET_MODE:
        raise OperatorError(
            f"{path} is {stat.filemode(found.st_mode)}, not a socket of root alone", hint=hint
        )


def _obstacle(context: Context) -> tuple[str, ...]:
    """A warning when something else than our link stands where xapi's clients look."""
    link, path = context.config.paths.xapi_socket, socket_path(context.config.paths)
    if link.is_symlink():
        target = link.readlink()
        what = "" if target == path else f"a link to {target}"
    elif link.exists():
        what = "a socket" if link.is_socket() else "not a link"
    else:
        what = ""
    if not what:
        return ()
    return (f"{link} is {what}: it is left alone, and clients that look there do not find this agent",)


def _link(link: Path, target: Path) -> None:
    link.parent.mkdir(mode=XCP_MODE, parents=True, exist_ok=True)
    link.symlink_to(target)


# S19


def listen_localhost(context: Context) -> Outcome:
    """S19. Programs on this host find the API at 127.0.0.1, port `api.localhost-port`.

    Raises PortTakenError, which names who holds the port, or AddressError.
    """
    from hostagent.api import tcp
    from hostagent.api.xenapi import LOCALHOST

    host, port = context.host, context.config.localhost_port
    if host.hooks is None:
        return Skipped(ONLY_DAEMON)
    if port == 0:
        return Skipped("the setting api.localhost-port is 0")
    api = host.hooks.api
    if LOCALHOST not in api.listeners:
        api.listen_localhost([tcp.listening_tcp(LOCALHOST_ADDRESS, port, context.config.paths.root)])
    return Unchanged(api.listeners[LOCALHOST])
