# Compiled: see docs/decisions/compiled.md
"""One connection to a client: the deadline of each state, and the ways in which it is closed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from apigw.wire.deadlines import NEVER
from apigw.wire.http1.answer import AnswerWriter
from apigw.wire.http1.states import BODY, CLOSING, DONE, ENDED, HEAD, IDLE, LINGER, OVER, PAUSED, REST, TUNNEL
from apigw.wire.reactor.layers import all_is_sent, arrived, close_if_sent, unsent
from apigw.wire.request import Request, Stream
from apigw.wire.room import Place
from apigw.wire.server import Server

LINGER_FOR: Final = 5.0
"""Seconds that a client that still sends has to read the answer before the connection is reset (RFC 9112 §9.6)."""
FAREWELL_FOR: Final = 1.0
"""Seconds that the client of a WebSocket has to read the close frame, and to close."""
_UNKNOWN: Final = 2**62
"""Bytes that the client has not taken: more than there can be, so that the first check finds fewer."""
SILENCE_FOR: Final = 5.0
"""Seconds without a byte of the answer after which a client that has closed its side is considered gone."""


class ClientConnection(Stream):
    """The base of ``HTTP1Channel``. ``_state`` is a state of ``READING``; only ``_enter`` and that class set it."""

    deadline: float

    def __init__(self, factory: Server, peer: bytes, secure: bool) -> None:
        super().__init__(peer, secure)
        self.factory = factory
        self.hosts: frozenset[bytes] | None = None
        """Those that requests may be for; None for all."""
        self.deadline = NEVER
        self.place = Place(self)
        self._seconds = factory.deadlines.seconds
        self._state = IDLE
        self._patience = 0.0  # seconds for the next piece of the body
        self._body_due = NEVER  # for all of it
        self._full = False  # the transport's buffer is full
        self._unsent = 0  # ``unsent`` at the last check
        self._reading_paused = False
        self._farewell: Callable[[], bytes] | None = None
        self._answer = AnswerWriter(factory.dates)

    def _enter(self, state: int) -> None:
        """Enter a state, and set its deadline."""
        self._state = state
        if state == OVER:
            self.deadline = NEVER
        elif self._full or state == CLOSING:
            # The client has to read.
            self.deadline = self._seconds() + self.factory.settings.client_body_timeout
        elif state == DONE:
            self.deadline = NEVER
        elif state == IDLE:
            self.deadline = self._seconds() + self.factory.settings.keepalive_timeout
        elif state in (BODY, REST):
            self.deadline = min(self._seconds() + self._patience, self._body_due)
        elif state == PAUSED:
            self.deadline = self._body_due
        elif state == HEAD:
            self.deadline = self._seconds() + self.factory.settings.client_header_timeout
        elif state == ENDED:
            self.deadline = self._seconds() + SILENCE_FOR
        elif state == LINGER:
            self.deadline = self._seconds() + LINGER_FOR
        else:
            # The client has nothing to do.
            self.deadline = NEVER

    def _begin_body(self) -> None:
        """A request's head has arrived, and its body follows."""
        settings = self.factory.settings
        most = settings.client_request_timeout
        self._body_due = NEVER if most is None else self._seconds() + most
        self._patience = settings.client_body_timeout

    def _await_body(self, request: Request) -> None:
        settings = self.factory.settings
        self._patience = settings.stream_idle_timeout if request.is_stream else settings.client_body_timeout
        self._enter(BODY)

    def _answer_moved(self, request: Request | None) -> None:
        """A piece of the answer was written, which ends a silence."""
        if not self._full and request is not None:
            if self._state == ENDED:
                self._enter(ENDED)
            elif self._state == BODY and request.is_stream:
                self._await_body(request)

    def unsent(self) -> int:
        """Bytes that the client has not acknowledged yet."""
        return unsent(self.transport)

    def stopProducing(self) -> None:
        """The transport is lost. ``connectionLost`` follows."""

    def writeConnectionLost(self) -> None:
        """The half-close that ``_end_writing`` requested is done."""

    def _pause_reading(self) -> None:
        if not self._reading_paused:
            self._reading_paused = True
            self.transport.pauseProducing()

    def _resume_reading(self) -> None:
        if self._reading_paused and self._state != PAUSED and self._state < CLOSING:
            self._reading_paused = False
            self.transport.resumeProducing()

    def _reader_is_late(self) -> None:
        """Cut a client that read nothing for a whole ``client_body_timeout``. One that is merely slow goes on."""
        left = unsent(self.transport)
        if 0 < left < self._unsent:
            self._unsent = left
            self._enter(self._state)
        else:
            self.cut()

    def _linger(self) -> None:
        """Lingering close: read and drop what the client still sends, so that a reset does not destroy its answer."""
        self._enter(LINGER)
        self._resume_reading()
        if not self._full:
            self._half_close()

    def _half_close(self) -> None:
        self._enter(LINGER)
        self._end_writing()

    def _end_writing(self) -> None:
        self._answer.shut()
        self.transport.unregisterProducer()
        if self.secure:
            # TLS sends close_notify by itself, and waits for that of the other side.
            self.transport.loseConnection()
        else:
            self.transport.loseWriteConnection()

    def _close(self) -> None:
        """Close when the client has read what was written. It may be slow, but not stall."""
        self._full = False
        self._enter(CLOSING)
        # Nearly always it closes at the end of this turn, and to ask the kernel costs more than that.
        self._unsent = _UNKNOWN if all_is_sent(self.transport) else unsent(self.transport)
        self._answer.shut()
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def _close_idle(self) -> None:
        """Close, unless a part of the next request has arrived, which is read in this turn of the reactor."""
        if not self._reading_paused and arrived(self.transport):
            return
        if not close_if_sent(self.transport):
            self._close()

    def _over(self) -> None:
        """Enter ``OVER``: nothing more is read or written."""
        self._enter(OVER)
        self._answer.shut()

    def cut(self) -> None:
        """Close now, whatever is in flight. A WebSocket's client gets a close frame first, unless it does not read."""
        farewell = b"" if self._farewell is None or self._state != TUNNEL else self._farewell()
        if farewell and not unsent(self.transport):
            self.transport.write(farewell)
            self._enter(CLOSING)
            self._end_writing()
            self.deadline = self._seconds() + FAREWELL_FOR
        else:
            self._over()
            self.transport.abortConnection()

    def say_at_the_end(self, farewell: Callable[[], bytes]) -> None:
        """Set what makes a WebSocket's close frame for ``cut``: empty where none can be inserted."""
        self._farewell = farewell

    def make_room(self) -> None:
        """Close in favour of another connection. Answers that were written still reach the client."""
        if unsent(self.transport):
            self._close()
        else:
            self.cut()
