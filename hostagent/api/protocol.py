"""One HTTP connection: uvicorn's h11 protocol with deadlines, and the way out of HTTP.

What a client does wrong or too slowly is met here, before a handler exists for it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import h11
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from hostagent.api.http import HEAD_LIMIT_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    import uvicorn
    from uvicorn.server import ServerState

    from hostagent.api.app import Allowance
    from hostagent.api.http import Limits, Peer

log = logging.getLogger(__name__)

CHUNKS_FREE = 1000
CHUNK_BYTES = 256
"""A body may come in CHUNKS_FREE chunks of any size, and in one more for each so many bytes: each costs the event
loop some microseconds, however little is in it."""
UNREAD_STEP_BYTES = 64 << 10


class Parser(h11.Connection):
    """h11's connection, which refuses bodies cut into crumbs, and remembers why a request was refused."""

    def __init__(self) -> None:
        super().__init__(h11.SERVER, HEAD_LIMIT_BYTES)
        self.refusal: h11.RemoteProtocolError | None = None
        self._chunks = 0
        self._bytes = 0

    def next_event(self) -> Any:
        try:
            event = super().next_event()
            if isinstance(event, h11.Data):
                self._chunks += 1
                self._bytes += len(event.data)
                if self._chunks > CHUNKS_FREE + self._bytes // CHUNK_BYTES:
                    raise h11.RemoteProtocolError("the chunks of the body are too small")
        except h11.RemoteProtocolError as error:
            self.refusal = error
            raise
        return event

    def start_next_cycle(self) -> None:
        super().start_next_cycle()
        self._chunks = self._bytes = 0


class Connection(H11Protocol):
    """A client's connection. `closed` is called with it when it is lost."""

    def __init__(
        self,
        config: uvicorn.Config,
        state: ServerState,
        peer: Peer,
        limits: Limits,
        allowance: Allowance,
        closed: Callable[[Connection], None],
    ) -> None:
        super().__init__(config, state, app_state={"link": self})
        self.conn = Parser()
        self.peer = peer
        self.allowance = allowance
        self.gone = False
        self._limits = limits
        self._closed = closed
        self._work: asyncio.Task[Any] | None = None
        self._eof = False
        self._raw = False
        self._early = bytearray()
        self._late_head: asyncio.TimerHandle | None = None
        self._late_reader: asyncio.TimerHandle | None = None
        self._late_answer: asyncio.TimerHandle | None = None

    # --- the application's side (app.Link) ---

    def begin(self, work: asyncio.Task[Any] | None) -> None:
        self._work = work

    def end(self, work: asyncio.Task[Any] | None) -> None:
        if self._work is work:  # a request that was sent ahead has begun already
            self._work = None

    def expect_raw(self) -> None:
        self._raw = True

    def hand_over(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader = asyncio.StreamReader(loop=self.loop)
        handed = _HandedOver(self, reader)
        early = self.conn.trailing_data[0] + bytes(self._early)
        self.cycle.disconnected = True  # uvicorn has nothing more to say on it
        self.transport.set_protocol(handed)
        handed.connection_made(self.transport)
        self.flow.resume_reading()
        if early:
            reader.feed_data(early)
        return reader, asyncio.StreamWriter(self.transport, handed, reader, self.loop)

    # --- the transport's side ---

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # Any byte that the kernel does not take counts as unread, also while the connection is being closed.
        # asyncio's TLS transport pauses at the mark, the plain one above it.
        transport.set_write_buffer_limits(high=1 if self.peer.kind == "tls" else 0)
        self._late_head = self.loop.call_later(self._limits.head_s, self._cut, "no request came")

    def data_received(self, data: bytes) -> None:
        if self._raw and self.conn.their_state is not h11.SEND_BODY:
            self._early += data  # for the handler: h11 would take it for a request
        else:
            super().data_received(data)

    def handle_events(self) -> None:
        super().handle_events()
        begun = self.conn.their_state is h11.IDLE and bool(self.conn.trailing_data[0])
        if not begun:
            _cancel(self._late_head)
            self._late_head = None
        elif self._late_head is None:
            self._late_head = self.loop.call_later(self._limits.head_s, self._cut, "a head did not end")
        if self._eof and self.conn.their_state is h11.IDLE:
            self.transport.close()

    def eof_received(self) -> bool:  # type: ignore[override]
        """A client that sent a whole request may have shut down only its sending side, and still read."""
        self._eof = True
        asked = self.conn.their_state in (h11.DONE, h11.MUST_CLOSE) and self._work is not None
        if not asked or self.peer.kind == "tls":
            return False  # asyncio closes the connection, as it always does with TLS
        self._late_answer = self.loop.call_later(self._limits.eof_s, self._cut, "it has gone")
        return True

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        _cancel(self._late_reader)

    def _watch_reader(self) -> None:
        left = self.transport.get_write_buffer_size()
        self._late_reader = self.loop.call_later(self._limits.unread_s, self._check_reader, left)

    def _check_reader(self, before: int) -> None:
        if self.transport.get_write_buffer_size() > before - UNREAD_STEP_BYTES:
            self._cut("it does not read its reply")
        else:
            self._watch_reader()

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = True
        super().connection_lost(exc)  # calls resume_writing
        self._unset_keepalive_if_required()
        _cancel(self._late_head)
        _cancel(self._late_answer)
        self.app_state = {}
        if self._work is not None:
            self._work.cancel()
        self._closed(self)

    def _cut(self, why: str) -> None:
        log.info("cut %s client %s: %s", self.peer.kind, self.peer.address, why)
        self.transport.abort()

    def abort(self) -> None:
        """End it now, whatever is under way."""
        self.transport.abort()

    def shutdown(self) -> None:
        """End it with the answer that is under way, at once if none is."""
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
        else:
            self.cycle.keep_alive = False

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, with h11's status and reason; a reply half sent is broken off instead."""
        refusal = self.conn.refusal if isinstance(self.conn, Parser) else None
        text = f"{refusal or msg}\n".encode("ascii", "replace")
        status = refusal.error_status_hint if refusal else 400
        headers = [
            ("content-type", "text/plain; charset=utf-8"),
            ("content-length", str(len(text))),
            ("cache-control", "no-cache, no-store"),
            ("connection", "close"),
        ]
        try:
            output = (
                self.conn.send(
                    h11.Response(status_code=status, headers=headers, reason=STATUS_PHRASES[status])
                )
                or b""
            )
            output += self.conn.send(h11.Data(data=text)) or b""
            output += self.conn.send(h11.EndOfMessage()) or b""
        except h11.LocalProtocolError:
            self.transport.abort()
            return
        self.transport.write(output)
        self.transport.close()


class _HandedOver(asyncio.StreamReaderProtocol):
    """Streams on a connection that has left HTTP; the connection keeps its deadline and its place in the count."""

    def __init__(self, owner: Connection, reader: asyncio.StreamReader) -> None:
        super().__init__(reader, loop=owner.loop)
        self._owner = owner

    def pause_writing(self) -> None:
        super().pause_writing()
        self._owner.pause_writing()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._owner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._owner.connection_lost(exc)


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
