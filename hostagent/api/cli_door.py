"""`POST /cli`: commands of the stock xe program run here, on the dispatcher of this process (xenapi.md 6.1).

A command runs in a thread and talks to the loop: its calls are made there, and so are its messages to the client. It
gets its thread once it is logged in: wrong passwords are answered late, and threads are few.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hostagent.api.endpoint import peer_of
from hostagent.api.fault import CallError
from hostagent.api.http import RawRoute
from hostagent.api.rendered import Rendered
from hostagent.xe import shell, thincli, thinwire
from hostagent.xe.arguments import arguments_of
from hostagent.xe.session import API_VERSION, ApiError, SessionApi

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hostagent.api.core import Peer
    from hostagent.api.dispatch import Dispatcher
    from hostagent.api.http import Request
    from hostagent.xe.session import Api

THREADS = 32
"""Commands at a time; more wait for their turn. `event-wait` can keep one for ever."""
ORIGINATOR = "cli"


@dataclass(frozen=True, slots=True)
class _LoggedIn:
    """The session of a command and what ends it, or why it has none."""

    session: str = ""
    log_out: str = "session.logout"
    error: ApiError | None = None


class CliDoor:
    """The handler, with threads of its own."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="xe")

    def close(self) -> None:
        """Let the threads end: at once, or with the command that they run."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def routes(self) -> tuple[RawRoute, ...]:
        return (RawRoute("POST", "/cli", self.serve, thinwire.BODY_LIMIT_BYTES),)

    async def serve(
        self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        peer, loop = peer_of(request), asyncio.get_running_loop()
        early = await self._log_in(peer, request.body)
        taken = False

        def call(name: str, *params: object) -> object:
            return asyncio.run_coroutine_threadsafe(self._call(peer, name, *params), loop).result()

        @contextlib.contextmanager
        def session(_user: str, _password: str, _local: bool) -> Iterator[Api]:  # noqa: FBT001 - as thincli calls it
            """In the command's thread: it ends its session, also when its client has gone meanwhile."""
            nonlocal taken
            taken = True
            if early.error is not None:
                raise early.error
            try:
                yield SessionApi(call, early.session)
            finally:
                with contextlib.suppress(ApiError):  # the work is done, or its error is on its way
                    call(early.log_out, early.session)

        try:
            await thincli.serve(request.body, reader, writer, session, self._threads)
        finally:
            if early.session and not taken:
                with contextlib.suppress(ApiError):
                    await self._call(peer, early.log_out, early.session)

    async def _log_in(self, peer: Peer, body: bytes) -> _LoggedIn:
        """A session for the command of a request, unless it is none. Whoever comes over the Unix socket needs no
        password.
        """
        try:
            words, user, password = thinwire.arguments_of(body)
        except thinwire.ProtocolError:
            return _LoggedIn()
        known = await asyncio.to_thread(shell.commands)
        command = known.get(arguments_of(words).command)
        if command is None:
            return _LoggedIn()
        try:
            if command.local:
                session = await self._call(peer, "session.slave_local_login_with_password", user, password)
                return _LoggedIn(str(session), "session.local_logout")
            session = await self._call(
                peer, "session.login_with_password", user, password, API_VERSION, ORIGINATOR
            )
            return _LoggedIn(str(session))
        except ApiError as error:
            return _LoggedIn(error=error)

    async def _call(self, peer: Peer, name: str, *params: object) -> object:
        """The result of a call as JSON has it. Raises ApiError."""
        try:
            value = (await self._dispatcher.call(name, params, peer)).value
        except CallError as error:
            raise ApiError(error.code, tuple(error.params)) from error
        if isinstance(value, Rendered):
            return await asyncio.to_thread(json.loads, value.text)
        return value
