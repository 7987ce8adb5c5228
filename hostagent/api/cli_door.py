"""`POST /cli`: commands of the stock xe program run here, on the dispatcher of this process (xenapi.md 6.1).

A command runs in a thread and talks to the loop: its calls are made there, and so are its messages to the client.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from hostagent.api.endpoint import peer_of
from hostagent.api.fault import CallError
from hostagent.api.http import CLI_BODY_LIMIT_BYTES, RawRoute
from hostagent.api.rendered import Rendered
from hostagent.xe import thincli
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


class CliDoor:
    """The handler, with threads of its own."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="xe")

    def close(self) -> None:
        """Let the threads end: at once, or with the command that they run."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def routes(self) -> tuple[RawRoute, ...]:
        return (RawRoute("POST", "/cli", self.serve, CLI_BODY_LIMIT_BYTES),)

    async def serve(
        self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        peer, loop = peer_of(request), asyncio.get_running_loop()

        @contextlib.contextmanager
        def log_in(user: str, password: str, local: bool) -> Iterator[Api]:  # noqa: FBT001 - as thincli calls it
            yield from self._session(peer, loop, user, password, local=local)

        await thincli.serve(request.body, reader, writer, log_in, self._threads)

    def _session(
        self, peer: Peer, loop: asyncio.AbstractEventLoop, user: str, password: str, *, local: bool
    ) -> Iterator[Api]:
        """A session for one command, ended with it. Whoever comes over the Unix socket needs no password."""

        def call(name: str, *params: object) -> object:
            return asyncio.run_coroutine_threadsafe(self._call(peer, name, params), loop).result()

        if local:
            session = call("session.slave_local_login_with_password", user, password)
        else:
            session = call("session.login_with_password", user, password, API_VERSION, ORIGINATOR)
        try:
            yield SessionApi(call, str(session))
        finally:
            with contextlib.suppress(ApiError):  # the work is done, or its error is on its way
                call("session.local_logout" if local else "session.logout", session)

    async def _call(self, peer: Peer, name: str, params: tuple[object, ...]) -> object:
        """The result of a call as JSON has it. Raises ApiError."""
        try:
            value = (await self._dispatcher.call(name, params, peer)).value
        except CallError as error:
            raise ApiError(error.code, tuple(error.params)) from error
        if isinstance(value, Rendered):
            return await asyncio.to_thread(json.loads, value.text)
        return value
