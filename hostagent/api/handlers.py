"""HTTP handlers beside the RPC doors: the database as XML, given out and taken back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from hostagent.api import calls_db
from hostagent.api.fault import CallError
from hostagent.api.http import RefusedError, Response, Route
from hostagent.api.http_auth import admitted
from hostagent.api.sessions import stamp_now
from hostagent.api.tasks import FINISHED
from hostagent.db import xmldump
from hostagent.db.restore import NotRestorableError
from hostagent.errors import BusyError, CallerError, HostagentError
from hostagent.lifecycle import HostStillBootingError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from hostagent.api.core import Core
    from hostagent.api.dispatch import Dispatcher
    from hostagent.api.http import AnyRoute, Request
    from hostagent.api.service import Service
    from hostagent.db.database import Database

T = TypeVar("T")

DUMP = "/pool/xmldbdump"
DUMP_LIMIT_BYTES = 48 << 20
"""Of a dump that is sent to us; `hostagent db restore` takes larger ones."""
XML = {"content-type": "text/xml; charset=utf-8"}
WORDS = ("true", "1", "yes")


class Handlers:
    """What the handlers need: the database, and who may use them."""

    def __init__(self, dispatcher: Dispatcher, core: Core, service: Service) -> None:
        self._dispatcher = dispatcher
        self._core = core
        self._service = service

    def routes(self) -> tuple[AnyRoute, ...]:
        return (
            Route("GET", DUMP, self.get_dump, below=False),
            Route("PUT", DUMP, self.put_dump, DUMP_LIMIT_BYTES, below=False),
        )

    async def get_dump(self, request: Request) -> Response:
        """The whole database, in pieces as the client takes them."""
        async with admitted(self._dispatcher, self._core, request, "get_pool_xml_db_sync"):
            database = self._database()
            self._known_task(request)
            return Response(200, XML, self._dump(database, request.query.get("task_id", "")))

    async def _dump(self, database: Database, task: str) -> AsyncIterator[bytes]:
        done = False
        try:
            with database.read() as view, contextlib.closing(xmldump.pieces(view, database.model)) as pieces:
                while piece := await _in_thread(next, pieces, b""):
                    yield piece
            done = True
        finally:
            failure = None if done else ("INTERNAL_ERROR", "the transfer broke off")
            await _in_thread(self._finish, task, failure)

    async def put_dump(self, request: Request) -> Response:
        """Check a dump, and unless `dry_run` put it in the place of the database; the daemon then starts anew."""
        async with admitted(self._dispatcher, self._core, request, "put_pool_xml_db_sync"):
            self._database()
            task = self._known_task(request)
            try:
                await asyncio.to_thread(self._restore, request, task)
            except HostagentError as error:
                await _in_thread(self._finish, task, (error.code, *error.params))
                raise RefusedError(_status(error), f"{error.code}: {error.found}; {error.hint}") from error
            return Response(200, {"content-type": "text/plain"}, b"")

    def _restore(self, request: Request, task: str) -> None:
        """The task is finished before the database is given up, which then takes no change any more."""
        dry_run = request.query.get("dry_run", "").lower() in WORDS
        with _spooled(request.body, self._service.paths.state) as file:
            calls_db.restore_and_restart(
                self._core,
                self._service,
                file,
                dry_run=dry_run,
                dump_only=True,
                ready=lambda: self._finish(task, None),
            )
        if dry_run:
            self._finish(task, None)

    def _database(self) -> Database:
        """Raises RefusedError 503."""
        try:
            return self._core.db
        except CallError as error:
            raise RefusedError(503, str(error), {"retry-after": "5"}) from error

    def _known_task(self, request: Request) -> str:
        """The task that this request completes or fails, empty for none. Raises RefusedError 400."""
        task = request.query.get("task_id", "")
        if task:
            with self._database().read() as view:
                if not view.exists("task", task):
                    raise RefusedError(400, "there is no such task")
        return task

    def _finish(self, task: str, failure: Sequence[str] | None) -> None:
        """Complete the task, or fail it with this error, also when it seemed complete; a cancelled one stays so."""
        database = self._core.database
        if not task or database is None:
            return
        with database.write() as transaction:
            if not transaction.exists("task", task):
                return
            status = transaction.get("task", task, "status")
            if status in FINISHED and (failure is None or status != "success"):
                return
            outcome = (
                {"status": "success"}
                if failure is None
                else {"status": "failure", "error_info": list(failure)}
            )
            transaction.update("task", task, {**outcome, "progress": 1.0, "finished": stamp_now()})


def _status(error: HostagentError) -> int:
    """Whose turn it is: the client's (400), later (503), the operator's (500)."""
    if isinstance(error, HostStillBootingError | BusyError):
        return 503
    return 400 if isinstance(error, CallerError | NotRestorableError) else 500


async def _in_thread(work: Callable[..., T], *given: object) -> T:
    """As asyncio.to_thread, and over when it is over: what it works on is not taken away under it by a cancellation."""
    running = asyncio.ensure_future(asyncio.to_thread(work, *given))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


@contextlib.contextmanager
def _spooled(body: bytes, directory: Path) -> Iterator[Path]:
    """The body as a file that only root can read."""
    handle, name = tempfile.mkstemp(prefix=".dump-", dir=directory)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(body)
        yield Path(name)
    finally:
        Path(name).unlink()
