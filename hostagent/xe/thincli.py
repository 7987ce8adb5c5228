"""The server's side of `/cli`: the stock xe program at the other end prints, asks, reads files, and ends as told.

The command runs in a thread; its terminal is the client. A client that leaves, is slow or sends nonsense ends its
command at the next thing that the command wants from it. Source: xenapi.md 6.1.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Protocol, TypeVar

from hostagent.xe import shell, thinwire
from hostagent.xe.arguments import arguments_of
from hostagent.xe.terminal import FILE_LIMIT_BYTES, TerminalError
from hostagent.xe.thinwire import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Sequence
    from concurrent.futures import Executor
    from contextlib import AbstractContextManager

    from hostagent.xe.session import Api

    LogIn = Callable[[str, str, bool], AbstractContextManager[Api]]

log = logging.getLogger(__name__)
T = TypeVar("T")

GREETING_S = 30.0
ANSWER_S = 600.0
"""For a person to answer; a client that transfers says every 5 minutes that it is still there."""
GONE = "the client has left"


class Reader(Protocol):
    """What of asyncio.StreamReader is used."""

    async def readexactly(self, n: int, /) -> bytes: ...

    def at_eof(self) -> bool: ...


class Writer(Protocol):
    """What of asyncio.StreamWriter is used."""

    def write(self, data: bytes, /) -> None: ...

    async def drain(self) -> None: ...


async def serve(
    body: bytes, reader: Reader, writer: Writer, log_in: LogIn, executor: Executor | None = None
) -> None:
    """Answer one request to `/cli`. The caller has read its head and body, sends no HTTP answer, and closes after.

    `log_in(user, password, local)` makes the session of the command; `executor` has a thread for it as long as it
    runs (`event-wait` can last for ever, so its threads are not shared with anything else).
    """
    channel = Channel(reader, writer)
    try:
        await channel.greet()
        try:
            words, user, password = thinwire.arguments_of(body)
        except ProtocolError as error:
            await channel.send(thinwire.command(thinwire.PRINT_ERROR, f"Error: {error}\n"))
            status = shell.FAILED
        else:
            loop = asyncio.get_running_loop()
            terminal = RemoteTerminal(channel, loop)
            try:
                status = await loop.run_in_executor(
                    executor,
                    shell.run,
                    arguments_of(words),
                    lambda local: log_in(user, password, local),
                    terminal,
                )
            finally:
                terminal.left = True
        await channel.send(thinwire.command(thinwire.EXIT, status))
    except (ProtocolError, TerminalError) as error:
        log.info("xe: %s", error)


class Channel:
    """The two streams to a client, as messages. Everything raises ProtocolError when it breaks or stalls."""

    def __init__(self, reader: Reader, writer: Writer) -> None:
        self._reader = reader
        self._writer = writer

    async def greet(self) -> None:
        await self.send(thinwire.GREETING)
        greeting = await self._within(GREETING_S, self._reader.readexactly(len(thinwire.GREETING)))
        thinwire.check_greeting(greeting)

    async def send(self, message: bytes) -> None:
        with _breaking():
            self._writer.write(message)
        await self._within(ANSWER_S, self._writer.drain())

    async def reply(self) -> thinwire.Reply:
        """The next message that is more than a sign of life."""
        while True:
            head = await self._within(ANSWER_S, self._reader.readexactly(4))
            message = await self._within(GREETING_S, self._reader.readexactly(thinwire.length_of(head)))
            reply = thinwire.reply_of(message)
            if reply.tag != thinwire.WAIT:
                return reply

    async def blob(self, reply: thinwire.Reply) -> bytes:
        """The chunks from `reply` to the end."""
        content = bytearray()
        while reply.tag == thinwire.CHUNK:
            if len(content) + reply.length > FILE_LIMIT_BYTES:
                raise ProtocolError(f"the client sends more than {FILE_LIMIT_BYTES >> 20} MiB")
            content += await self._within(ANSWER_S, self._reader.readexactly(reply.length))
            reply = await self.reply()
        if reply.tag != thinwire.END:
            raise ProtocolError("the client sent something else than a file or an answer")
        return bytes(content)

    def closed(self) -> bool:
        return self._reader.at_eof()

    async def _within(self, seconds: float, waiting: Coroutine[object, object, T]) -> T:
        with _breaking():
            async with asyncio.timeout(seconds):
                return await waiting


class RemoteTerminal:
    """A client's terminal, for a command that runs in a thread."""

    def __init__(self, channel: Channel, loop: asyncio.AbstractEventLoop) -> None:
        self._channel = channel
        self._loop = loop
        self.left = False

    def print(self, text: str) -> None:
        self._do(self._channel.send(thinwire.command(thinwire.PRINT, text)))

    def print_error(self, text: str) -> None:
        """The client prints it as it comes, without a line end of its own."""
        self._do(self._channel.send(thinwire.command(thinwire.PRINT_ERROR, f"{text}\n")))

    def error(self, code: str, params: Sequence[str]) -> None:
        self._do(self._channel.send(thinwire.command(thinwire.ERROR, code, list(params))))

    def read_file(self, name: str) -> bytes:
        return self._do(self._load(name))

    def prompt(self, text: str) -> str:
        self.print(text)
        return self._do(self._ask())

    def check(self) -> None:
        if self.left or self._channel.closed():
            raise TerminalError(GONE)

    async def _load(self, name: str) -> bytes:
        await self._channel.send(thinwire.command(thinwire.LOAD, name))
        reply = await self._channel.reply()
        if reply.tag == thinwire.FAILED:
            raise TerminalError(f"{name} cannot be read")
        if reply.tag != thinwire.OK:
            raise ProtocolError("the client did not say whether it can read the file")
        return await self._channel.blob(await self._channel.reply())

    async def _ask(self) -> str:
        await self._channel.send(thinwire.command(thinwire.PROMPT))
        answer = await self._channel.blob(await self._channel.reply())
        return answer.decode(errors="replace")

    def _do(self, what: Coroutine[object, object, T]) -> T:
        if self.left:
            what.close()
            raise TerminalError(GONE)
        try:
            return asyncio.run_coroutine_threadsafe(what, self._loop).result()
        except ProtocolError as error:
            raise TerminalError(str(error)) from error


@contextlib.contextmanager
def _breaking() -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise ProtocolError("the client does not answer") from error
    except (EOFError, OSError) as error:
        raise ProtocolError(GONE) from error
