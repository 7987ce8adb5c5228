"""Calls of the API with a session: over the local socket, or HTTPS to another host; standard library only.

Values are as JSON has them. A session lasts for one command: made on entering, ended on leaving.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from typing import TYPE_CHECKING, Protocol

from hostagent.api import client
from hostagent.errors import OperatorError
from hostagent.xe.arguments import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from hostagent.xe.arguments import Options
    from hostagent.xe.terminal import Terminal

    RawCall = Callable[..., object]

API_VERSION = "2.23"
ORIGINATOR = "hostagent-xe"
CONNECT_S = 30.0
ANSWER_S = 24 * 3600.0
"""A call may copy a disk; xapi itself ends tasks after this time (xenapi.md 4.3)."""
HERE = ("", "127.0.0.1")
"""Servers that mean the local socket whatever the port is, as the stock program has it (many `~/.xe` name both)."""
HERE_WITHOUT_PORT = ("::1", "localhost")
"""Servers that mean it unless a port is given: then it is the way to a tunnel."""


class ApiError(Exception):
    """What a call was answered: the code and parameters of a XenAPI error."""

    def __init__(self, code: str, params: tuple[str, ...] = ()) -> None:
        super().__init__(" ".join((code, *params)))
        self.code = code
        self.params = params


class UnreachableError(OperatorError):
    """The server cannot be reached, is not whom we trust, or does not answer as a XenAPI server does."""


class Api(Protocol):
    """Calls in one session, which is not among the parameters."""

    def call(self, method: str, *params: object) -> object:
        """The result of a call. Raises ApiError, HostagentError when there is no answer."""


class SessionApi:
    """Calls made by a function that takes the session as the first parameter."""

    def __init__(self, raw: RawCall, session: str) -> None:
        self._raw = raw
        self._session = session

    def call(self, method: str, *params: object) -> object:
        return self._raw(method, self._session, *params)


class TracedApi:
    """Tells each call and how it ended, for `--debug`; parameters may be secrets and are not told."""

    def __init__(self, api: Api, terminal: Terminal) -> None:
        self._api = api
        self._terminal = terminal

    def call(self, method: str, *params: object) -> object:
        try:
            result = self._api.call(method, *params)
        except ApiError as error:
            self._terminal.print_error(f"debug: {method} ({len(params)} parameters): {error.code}")
            raise
        self._terminal.print_error(f"debug: {method} ({len(params)} parameters): done")
        return result


@contextlib.contextmanager
def connect(options: Options, socket_path: Path, *, local: bool) -> Iterator[Api]:
    """A session with the server that the options name. `local` makes one that needs no coordinator (emergencies).

    Raises ApiError when the log-in is refused, UnreachableError and what `client.call` raises, UsageError.
    """
    path = server_socket(options, socket_path)
    if path is not None:
        yield from _session(_over_socket(path), options, local=local)
        return
    with contextlib.closing(_connection(options)) as connection:
        yield from _session(_over_http(connection, options), options, local=local)


def server_socket(options: Options, standard: Path) -> Path | None:
    """The Unix socket that the options mean (none, this host, or a path as the server); None for another host."""
    if options.server.startswith("/"):
        return type(standard)(options.server)
    here = options.server in HERE or (options.server in HERE_WITHOUT_PORT and options.port is None)
    return standard if here else None


def _session(raw: RawCall, options: Options, *, local: bool) -> Iterator[Api]:
    name, password = options.username, options.password or ""
    if local:
        session = raw("session.slave_local_login_with_password", name, password)
    else:
        session = raw("session.login_with_password", name, password, API_VERSION, ORIGINATOR)
    try:
        yield SessionApi(raw, str(session))
    finally:
        with contextlib.suppress(ApiError, OperatorError):  # the work is done, or its error is on its way
            raw("session.local_logout" if local else "session.logout", session)


def _over_socket(path: Path) -> RawCall:
    def call(method: str, *params: object) -> object:
        try:
            return client.call(path, method, *params, timeout_s=ANSWER_S)
        except client.CallFailedError as error:
            raise ApiError(error.code, error.params) from error

    return call


def _connection(options: Options) -> http.client.HTTPConnection:
    host = options.server.removeprefix("[").removesuffix("]")
    if not (host and host.isprintable() and " " not in host):
        raise UsageError(f"a server is a name or an address, not {options.server!r}")
    if options.nossl:
        return http.client.HTTPConnection(host, options.port or 80, timeout=CONNECT_S)
    import ssl

    try:
        context = ssl.create_default_context(cafile=options.ca or None)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"--ca {options.ca}: {error}") from error
    if not options.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return http.client.HTTPSConnection(host, options.port or 443, timeout=CONNECT_S, context=context)


def _over_http(connection: http.client.HTTPConnection, options: Options) -> RawCall:
    headers = {"Content-Type": "application/json", "User-Agent": ORIGINATOR}
    if options.traceparent:
        headers["traceparent"] = options.traceparent

    def call(method: str, *params: object) -> object:
        body = json.dumps({"jsonrpc": "2.0", "method": method, "params": params, "id": 1})
        try:
            if connection.sock is None:
                _open(connection)
            connection.request("POST", "/jsonrpc", body, headers)
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            raise _unreachable(options, error) from error
        if response.status != 200:
            raise UnreachableError(
                f"{options.server} answered HTTP {response.status}", hint="is it a XenAPI server?"
            )
        return result_of(content, options.server)

    return call


def _open(connection: http.client.HTTPConnection) -> None:
    connection.connect()
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.sock.settimeout(ANSWER_S)


def result_of(content: bytes, server: str) -> object:
    """The result in a JSON-RPC answer; also of errors that are a bare array (xenapi.md 1.3, early errors).

    Raises ApiError, UnreachableError.
    """
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        answer = None
    match answer:
        case {"error": {"message": str(code), "data": list(params)}}:
            raise ApiError(code, tuple(str(param) for param in params))
        case {"error": [str(code), *params]}:
            raise ApiError(code, tuple(str(param) for param in params))
        case {"result": result}:
            return result
    raise UnreachableError(
        f"{server} answered with something that is not JSON-RPC", hint="is it a XenAPI server?"
    )


def _unreachable(options: Options, error: Exception) -> UnreachableError:
    import ssl

    if isinstance(error, ssl.SSLCertVerificationError):
        return UnreachableError(
            f"the certificate of {options.server} is not trusted: {error.verify_message}",
            hint="give the pool's CA or the host's own certificate with --ca FILE (or XE_CA); "
            "--no-verify trusts whoever answers",
        )
    why = str(error) or type(error).__name__
    return UnreachableError(
        f"{options.server} cannot be reached: {why}", hint="check -s and -p, and the network between"
    )
