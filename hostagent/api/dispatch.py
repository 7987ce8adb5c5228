"""From a call's name and parameters to its result: which message it is, who may call it, what runs.

The data model says what messages there are, which parameters they take, and the lowest role. Some are generated
(`generated`), some written by hand (`IMPLEMENTED`, gathered in `xenapi_calls`), the rest are answered with
NOT_IMPLEMENTED. Reads of one object run at once; what may take time, and what writes, runs in a thread: a disk may be
slow.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from hostagent.api import generated
from hostagent.api.core import Call, Peer
from hostagent.api.fault import CallError, parameter_count
from hostagent.api.roles import needed
from hostagent.api.xmlvalues import value_text
from hostagent.db import model as datamodel
from hostagent.db.datatype import DataType, Kind, UnfitError, fit
from hostagent.errors import HostagentError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence

    from hostagent.api.core import Core
    from hostagent.api.sessions import Session
    from hostagent.api.tasks import TaskHandle
    from hostagent.db.model import ClassModel, Message

log = logging.getLogger(__name__)
audit = logging.getLogger("hostagent.audit")
T = TypeVar("T")

REF = DataType(Kind.REF, "task")
QUICK_PREFIXES = ("get_",)
SLOW_READS = ("get_all_records", "get_all_where", "get_all_records_where")
THREADS = 32
WHY_MOST = 1000
"""Letters in the log of why a call failed: some are the caller's own."""
ASYNC = "Async."


@dataclass(frozen=True, slots=True)
class Implementation:
    """What a message does that is not generated. `run` takes the Call and the checked parameters; a coroutine function
    runs in the event loop, a `quick` one too, any other in a thread. `emergency`: answered whatever the host's state.
    `result`: the type of what really goes over the wire, where the model says another. `span`: its number is a time in
    seconds, and one that is none (infinite, not a number) reaches it as -1.
    """

    name: str
    run: Callable[..., object]
    quick: bool = False
    emergency: bool = False
    cancellable: bool = False
    result: DataType | None = None
    span: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of a call: its type, and the value (or Rendered)."""

    kind: DataType
    value: object


class Dispatcher:
    """Runs calls of the data model. One for each daemon."""

    def __init__(self, core: Core, implemented: Iterable[Implementation]) -> None:
        self._core = core
        self._model = datamodel.load()
        self._implemented = {item.name: item for item in implemented}
        self._by_name = _names(self._model.classes.values())
        self._generated: dict[str, generated.Run | None] = {}
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="call")
        self._background: set[asyncio.Task[Any]] = set()

    async def stop(self) -> None:
        """Break off what still works, and let the threads end: at once, or with the call that they run."""
        for work in self._background:
            work.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)

    # what there is

    def working(self) -> list[str]:
        """Names of all messages that do something, sorted; asynchronous ones under both names."""
        names = [message.wire_name for message in self._messages() if self._runs(message)]
        names += [
            f"{ASYNC}{message.wire_name}"
            for message in self._messages()
            if self._runs(message) and message.asynchronous
        ]
        return sorted([*names, "system.listMethods"])

    def coverage(self) -> dict[str, dict[str, list[str]]]:
        """By class: which messages work, and which do not yet."""
        found: dict[str, dict[str, list[str]]] = {}
        for message in self._messages():
            kind = "works" if self._runs(message) else "not built"
            found.setdefault(message.cls, {"works": [], "not built": []})[kind].append(message.name)
        return found

    def _messages(self) -> Iterable[Message]:
        for cls in self._model.classes.values():
            for message in cls.messages.values():
                if message.state != "removed":
                    yield message

    def _runs(self, message: Message) -> bool:
        if message.wire_name in self._implemented:
            return True
        return self._core.database is not None and self._generate(message) is not None

    def _generate(self, message: Message) -> generated.Run | None:
        """What a generated message does; made once. Raises CallError HOST_STILL_BOOTING."""
        name = message.wire_name
        if name not in self._generated:
            cls = self._model.cls(message.cls)
            self._generated[name] = generated.implement(message, cls, self._core.db)
        return self._generated[name]

    # a call

    async def call(self, name: str, params: Sequence[object], peer: Peer) -> Answer:
        """The result of one call. Raises CallError."""
        try:
            return await self._answer(name, params, peer)
        except HostagentError as error:  # of the database: of a session, of a task
            raise CallError(error.code, *error.params) from error

    async def _answer(self, name: str, params: Sequence[object], peer: Peer) -> Answer:
        if name == "system.listMethods":
            return Answer(DataType(Kind.SET, item=DataType(Kind.STRING)), self.working())
        asynchronous = name.startswith(ASYNC)
        message = self._message(name.removeprefix(ASYNC))
        if not peer.internal:
            self._check_state(message)
        session = self._session(message, params, peer)
        given = list(params[1:]) if message.session else list(params)
        self._check_role(message, session, peer)
        arguments = self._arguments(message, given)
        if asynchronous:
            if not message.asynchronous:
                raise CallError("Fault", f"{message.wire_name} has no asynchronous form")
            self._runner(message)  # what cannot be run has no task either
            return Answer(
                REF, await asyncio.shield(self._go_on(self._start(message, arguments, session, peer)))
            )
        value = await self._run_with_task(message, arguments, session, peer)
        found = self._implemented.get(message.wire_name)
        return Answer(found.result if found and found.result else message.result, value)

    def _message(self, name: str) -> Message:
        """Raises CallError MESSAGE_METHOD_UNKNOWN, MESSAGE_REMOVED."""
        found = self._by_name.get(name)
        if found is None:
            raise CallError("MESSAGE_METHOD_UNKNOWN", name)
        if found.state == "removed":
            raise CallError("MESSAGE_REMOVED")
        return found

    def _session(self, message: Message, params: Sequence[object], peer: Peer) -> Session | None:
        if not message.session or (not params and peer.trusted and self._is_emergency(message)):
            return None  # whoever can open the Unix socket may ask what is wrong without logging in
        if not params:
            raise CallError("SESSION_INVALID", "")
        session = self._core.sessions.find(params[0])
        if session.local and not self._is_emergency(message):
            self._runner(message)  # what is not built says so, and not that the session has ended
            raise CallError("SESSION_INVALID", session.ref)
        return session

    def _is_emergency(self, message: Message) -> bool:
        found = self._implemented.get(message.wire_name)
        return found is not None and found.emergency

    def _check_state(self, message: Message) -> None:
        blocked = self._core.blocked()
        if blocked is not None and not self._is_emergency(message):
            raise blocked

    def _check_role(self, message: Message, session: Session | None, peer: Peer) -> None:
        if session is None:
            return
        if message.pool_internal and not session.pool:
            raise CallError("INTERNAL_ERROR", f"{message.wire_name} is for members of the pool")
        if session.role < needed(message.min_role):
            _note(message, session, peer, "RBAC_PERMISSION_DENIED")
            raise CallError(
                "RBAC_PERMISSION_DENIED",
                message.wire_name.lower(),
                f"{session.role.label} may not; {message.min_role or 'root'} may",
            )

    def _arguments(self, message: Message, given: list[object]) -> list[object]:
        """The parameters as they are kept, defaults filled in.

        Too many are an error unless the message has defaults (xenapi.md 1.2).
        """
        wanted = message.params
        defaults = sum(param.has_default for param in wanted)
        if len(given) < len(wanted) - defaults or (len(given) > len(wanted) and not defaults):
            raise parameter_count(message.wire_name, len(wanted), len(given))
        found = self._implemented.get(message.wire_name)
        if found is not None and found.span:
            given = [
                -1.0 if isinstance(value, float) and not math.isfinite(value) else value for value in given
            ]
        arguments: list[object] = []
        for param, value in zip(wanted, given, strict=False):
            try:
                arguments.append(fit(param.type, value, self._model.enums))
            except UnfitError as error:
                raise CallError("FIELD_TYPE_ERROR", param.name) from error
        return [*arguments, *(param.default for param in wanted[len(arguments) :])]

    # running

    async def _run_with_task(
        self, message: Message, arguments: list[object], session: Session | None, peer: Peer
    ) -> object:
        """Work that has a task goes on to its end also when the client does not wait for it."""
        implementation = self._implemented.get(message.wire_name)
        tasks = self._core.tasks
        if implementation is None or implementation.quick or not message.asynchronous or tasks is None:
            return await self._run(message, arguments, Call(self._core, session, peer))

        async def work() -> object:
            handle = await asyncio.to_thread(self._begin, message.wire_name, message, session, peer)
            try:
                return await self._run(message, arguments, Call(self._core, session, peer, handle))
            finally:
                await asyncio.to_thread(tasks.drop, handle)

        return await asyncio.shield(self._go_on(work()))

    def _go_on(self, work: Coroutine[object, object, T]) -> asyncio.Task[T]:
        """Let it run whoever waits for it, until it or the daemon ends."""
        going = asyncio.create_task(work)
        self._background.add(going)
        going.add_done_callback(self._background.discard)
        return going

    async def _start(
        self, message: Message, arguments: list[object], session: Session | None, peer: Peer
    ) -> str:
        """Begin the work and return its task."""
        handle = await asyncio.to_thread(self._begin, f"{ASYNC}{message.wire_name}", message, session, peer)
        if session is not None:
            session.tasks += 1
        self._go_on(self._in_background(message, arguments, Call(self._core, session, peer, handle)))
        return handle.ref

    def _begin(self, label: str, message: Message, session: Session | None, peer: Peer) -> TaskHandle:
        if self._core.tasks is None:
            raise CallError("HOST_STILL_BOOTING")
        implementation = self._implemented.get(message.wire_name)
        prefix = "x-http-other-config-"
        return self._core.tasks.begin(
            label,
            session=session.ref if session else "OpaqueRef:NULL",
            host=self._core.this_host(),
            other_config={
                f"http:{key[len(prefix) :]}": value
                for key, value in peer.headers.items()
                if key.startswith(prefix)
            },
            cancellable=implementation is not None and implementation.cancellable,
        )

    async def _in_background(self, message: Message, arguments: list[object], call: Call) -> None:
        tasks, handle = self._core.tasks, call.task
        if tasks is None or handle is None:
            return
        try:
            value = await self._run(message, arguments, call)
            text = "" if message.result.kind is Kind.VOID else value_text(message.result, value, self._model)
            await asyncio.to_thread(tasks.succeed, handle, text)
        except CallError as error:
            await asyncio.to_thread(tasks.fail, handle, error.code, error.params)
        finally:
            if call.session is not None:
                call.session.tasks -= 1
            # nothing happens to a finished one
            await asyncio.to_thread(tasks.fail, handle, "INTERNAL_ERROR", ["the work broke off"])

    def _runner(self, message: Message) -> tuple[Callable[..., object], bool, bool]:
        """What runs a message, whether it wants the Call, and whether it is quick. Raises CallError NOT_IMPLEMENTED."""
        implementation = self._implemented.get(message.wire_name)
        if implementation is not None:
            return implementation.run, True, implementation.quick
        run = self._generate(message)
        if run is None:
            raise CallError("NOT_IMPLEMENTED", message.wire_name)
        return run, False, message.name.startswith(QUICK_PREFIXES) and message.name not in SLOW_READS

    async def _run(self, message: Message, arguments: list[object], call: Call) -> object:
        run, wants_call, quick = self._runner(message)
        given = (call, *arguments) if wants_call else tuple(arguments)
        if inspect.iscoroutinefunction(run):
            with _outcome(message, call):
                return await run(*given)

        def work() -> object:
            with _outcome(message, call):
                return run(*given)

        if quick:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def _names(classes: Iterable[ClassModel]) -> dict[str, Message]:
    """Every message by the names that clients have for it: `Class.method`, and `Class_method` for Python's sake."""
    found: dict[str, Message] = {}
    for cls in sorted(classes, key=lambda cls: len(cls.name)):
        for message in cls.messages.values():
            found[message.wire_name] = message
            found.setdefault(f"{cls.name}_{message.name}", message)
    return found


@contextlib.contextmanager
def _outcome(message: Message, call: Call) -> Iterator[None]:
    """Note how a call ends, where it is run: its client may have gone. What it raises becomes a CallError."""
    try:
        yield
    except HostagentError as error:
        _note(message, call.session, call.peer, error.code, f"{error.found} (hint: {error.hint})")
        raise CallError(error.code, *error.params) from error
    except CallError as error:
        _note(message, call.session, call.peer, error.code)
        raise
    except asyncio.CancelledError:
        _note(message, call.session, call.peer, "broken off")
        raise
    except Exception as error:
        reference = os.urandom(4).hex()
        log.exception("call %s failed, reference %s", message.wire_name, reference)
        _note(message, call.session, call.peer, "INTERNAL_ERROR")
        raise CallError("INTERNAL_ERROR", f"look for {reference} in journalctl -u hostagent") from error
    _note(message, call.session, call.peer, "success")


def _note(message: Message, session: Session | None, peer: Peer, outcome: str, why: str = "") -> None:
    """One line in the audit log for a call that changes something: who, from where, what, outcome. `why` one failed
    is a line of its own: the error that its client gets has a place for the code and its parameters alone."""
    if message.name.startswith("get_") or message.cls in ("event",) or message.min_role == "read-only":
        return
    who = session.name if session else "no session"
    audit.info("%s from %s: %s: %s", who, peer.address or "local", message.wire_name, outcome)
    if why:
        line = "".join(letter if letter.isprintable() else "?" for letter in " ".join(why.split()))
        log.info("%s: %s", message.wire_name, line[:WHY_MOST])
