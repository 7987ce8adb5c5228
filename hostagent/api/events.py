"""Events: what changed in the database, told to those who wait for it.

event.from is a query for rows above a generation (xenapi.md 4). Waiting costs a future, not a thread; what changed
between two generations is read once and shared by all who wait.
"""

from __future__ import annotations

import asyncio
import functools
import json
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, TypeVar

from hostagent.api.fault import CallError
from hostagent.api.rendered import Rendered
from hostagent.api.tokens import generation_of, subscription, token

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hostagent.api.sessions import Session
    from hostagent.api.tokens import Subscription
    from hostagent.db.database import Database
    from hostagent.db.view import Change, View

T = TypeVar("T")

DAY_S = 24 * 3600.0
PACE_S = 0.05
"""Changes that come within this time of the first one are told together (xenapi.md 4.1, pacing)."""
SHARED = 8
"""How many differences between two generations are kept for others who ask the same."""
OPERATIONS = {"add": 0, "mod": 1, "del": 2}
QUEUE_LIMIT = 10_000
NEAR = 1000
"""Changes of so many generations are read in the event loop; more, or everything there is, in a thread."""


class Events:
    """The event calls of one database; used from its event loop."""

    def __init__(self, database: Database) -> None:
        self._database = database
        model = database.model
        self._everything = frozenset(
            name for name, cls in model.classes.items() if cls.events and cls.in_database
        )
        self._by_name = model.by_event_name
        self._loop = asyncio.get_running_loop()
        self._waiting: set[asyncio.Future[None]] = set()
        self._shared: OrderedDict[tuple[int, int], list[Change]] = OrderedDict()
        self._lock = threading.Lock()
        self._registered: dict[str, Registration] = {}
        database.listen(self._changed)

    async def wait(self, session: Session, classes: Iterable[str], text: str, timeout_s: float) -> Rendered:
        """event.from: what changed since `text` (a token), as soon as there is something, or at the end of the time.

        Raises CallError: EVENT_SUBSCRIPTION_PARSE_FAILURE, EVENT_FROM_TOKEN_PARSE_FAILURE, EVENTS_LOST, SESSION_INVALID
        when the session ends meanwhile.
        """
        wanted = subscription(classes, self._by_name, self._everything)
        since = generation_of(text)
        deadline = time.monotonic() + (timeout_s if 0 <= timeout_s <= DAY_S else DAY_S)
        while True:
            rest = deadline - time.monotonic()
            look = functools.partial(self._look, wanted, since, last=rest <= 0)
            answer, seen = await self._where_it_fits(since, look)
            if answer is not None:
                return answer
            since = seen  # nothing up to there was wanted
            await self._next_change(session, since, rest)

    def _look(self, wanted: Subscription, since: int, *, last: bool) -> tuple[Rendered | None, int]:
        """What to answer, None for nothing yet, and the generation up to which it was looked."""
        with self._database.read() as view:
            _check_reach(view, since)
            found = self._select(view, wanted, since)
            answer = Rendered(self._batch(view, found, since)) if found or last or since < 0 else None
            return answer, view.generation

    async def _where_it_fits(self, since: int, look: Callable[[], T]) -> T:
        if since >= 0 and self._database.generation - since <= NEAR:
            return look()
        return await asyncio.to_thread(look)

    async def _next_change(self, session: Session, seen: int, rest_s: float) -> None:
        """Until the database has moved on from `seen`, the session ends, or the time is over."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting.add(future)
        wake = self._waker(future)
        session.waiting.append(wake)
        try:
            if self._database.generation == seen and not session.ended:
                async with asyncio.timeout(rest_s):
                    await future
                if not session.ended:
                    await asyncio.sleep(min(PACE_S, rest_s))
        except TimeoutError:
            return
        finally:
            self._waiting.discard(future)
            if wake in session.waiting:
                session.waiting.remove(wake)
        if session.ended:
            raise CallError("SESSION_INVALID", session.ref)

    def _waker(self, future: asyncio.Future[None]) -> Callable[[], None]:
        def wake() -> None:
            self._loop.call_soon_threadsafe(_finish, future)

        return wake

    def _changed(self, _generation: int) -> None:
        """From whatever thread made the change."""
        self._loop.call_soon_threadsafe(self._wake_all)

    def _wake_all(self) -> None:
        for future in self._waiting:
            _finish(future)

    def _select(self, view: View, wanted: Subscription, since: int) -> list[Change]:
        if since < 0:
            return [
                change
                for change in view.changes(since, wanted.all_classes)
                if wanted.wants(change.cls, change.ref)
            ]
        return [change for change in self._between(view, since) if wanted.wants(change.cls, change.ref)]

    def _between(self, view: View, since: int) -> list[Change]:
        key = (since, view.generation)
        with self._lock:
            found = self._shared.get(key)
        if found is None:
            found = view.changes(since, self._everything)
            with self._lock:
                self._shared[key] = found
                while len(self._shared) > SHARED:
                    self._shared.popitem(last=False)
        return found

    def _batch(self, view: View, changes: list[Change], since: int) -> str:
        told = sorted(
            changes, key=lambda change: (change.cls != "message", OPERATIONS[operation(change, since)])
        )
        events = ",".join(event_text(change, since) for change in told)
        counts = json.dumps(
            {name.lower(): count for name, count in view.counts().items()}, separators=(",", ":")
        )
        return f'{{"events":[{events}],"valid_ref_counts":{counts},"token":"{token(view.generation)}"}}'

    # event.next and its like

    def register(self, session: Session, classes: Iterable[str]) -> None:
        """event.register: hear of these classes from now on. Raises CallError EVENT_SUBSCRIPTION_PARSE_FAILURE."""
        wanted = subscription(classes, self._by_name, self._everything)
        known = self._registered.get(session.ref)
        if known is None:
            self._registered = {ref: item for ref, item in self._registered.items() if not item.session.ended}
            known = self._registered[session.ref] = Registration(session, self._database.generation)
        known.classes |= wanted.all_classes

    def unregister(self, session: Session, classes: Iterable[str]) -> None:
        """event.unregister. Raises CallError EVENT_SUBSCRIPTION_PARSE_FAILURE."""
        wanted = subscription(classes, self._by_name, self._everything)
        known = self._registered.get(session.ref)
        if known is not None:
            known.classes -= wanted.all_classes
            if not known.classes:
                del self._registered[session.ref]

    async def next(self, session: Session) -> Rendered:
        """event.next: what changed in the registered classes since the last call; waits without limit.

        Raises CallError SESSION_NOT_REGISTERED, EVENTS_LOST, SESSION_INVALID.
        """
        while True:
            known = self._registered.get(session.ref)
            if known is None:
                raise CallError("SESSION_NOT_REGISTERED", session.ref)
            answer = await self._where_it_fits(known.since, functools.partial(self._look_on, known))
            if answer is not None:
                return answer
            await self._next_change(session, known.since, DAY_S)

    def _look_on(self, known: Registration) -> Rendered | None:
        with self._database.read() as view:
            since, known.since = known.since, view.generation
            _check_reach(view, since)
            found = [change for change in self._between(view, since) if change.cls in known.classes]
        if len(found) > QUEUE_LIMIT:
            raise CallError("EVENTS_LOST")
        if not found:
            return None
        return Rendered(f"[{','.join(event_text(change, since, old=True) for change in found)}]")

    def inject(self, cls: str, ref: str) -> str:
        """event.inject: a change of an object that changes nothing; the token just below it.

        Raises HandleInvalidError.
        """
        name = self._by_name.get(cls.lower(), cls)
        if name not in self._everything or cls not in (name, name.lower()):
            raise CallError("HANDLE_INVALID", cls, ref)
        with self._database.write() as transaction:
            transaction.touch(name, ref)
            return token(transaction.generation - 1)


class Registration:
    """What a session registered for, and up to where it has been told."""

    def __init__(self, session: Session, since: int) -> None:
        self.session = session
        self.since = since
        self.classes: frozenset[str] = frozenset()


def _check_reach(view: View, since: int) -> None:
    """A token from before what is remembered, or from another life of the database. Raises CallError EVENTS_LOST."""
    if since >= 0 and not view.floor() <= since <= view.generation:
        raise CallError("EVENTS_LOST")


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def operation(change: Change, since: int) -> str:
    """What to call a change for somebody who has seen everything up to `since`."""
    if change.record is None:
        return "del"
    return "add" if change.ctime > since else "mod"


def event_text(change: Change, since: int, *, old: bool = False) -> str:
    """One event as JSON text. `old`: as event.next has it, with a number and the uuid."""
    kind = operation(change, since)
    cls, ref = change.cls.lower(), json.dumps(change.ref)
    snapshot = "" if change.record is None else f',"snapshot":{change.record}'
    if old:
        identity = "" if change.record is None else json.loads(change.record).get("uuid", "")
        head = f'{{"id":{change.mtime},"timestamp":"19700101T00:00:00Z","obj_uuid":{json.dumps(identity)}'
    else:
        head = f'{{"id":"{change.mtime}","timestamp":"0.0"'
    return f'{head},"class":"{cls}","operation":"{kind}","ref":{ref}{snapshot}}}'
