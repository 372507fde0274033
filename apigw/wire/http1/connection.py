# Compiled: see docs/decisions/compiled.md
"""One connection to a client: its state, how long is waited in each, and the ways in which it ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from apigw.wire.deadlines import NEVER
from apigw.wire.http1.answer import AnswerWriter
from apigw.wire.http1.states import BODY, CLOSING, DONE, ENDED, HEAD, IDLE, LINGER, OVER, PAUSED, REST, TUNNEL
from apigw.wire.reactor.transport import arrived, close_if_sent, unsent
from apigw.wire.server import Server

LINGER_FOR: Final = 5.0
"""Seconds in which a client that still sends may read the answer before the connection is reset (RFC 9112 §9.6)."""
FAREWELL_FOR: Final = 1.0
"""Seconds in which the client of a WebSocket that is cut may read why, and close."""
SILENCE_FOR: Final = 5.0
"""Seconds without a byte of the answer after which a client that has ended its side is taken for gone."""


class ClientConnection:
    """What ``HTTP1Channel`` stands on. ``_state`` is one of those of reading, and changed by ``_enter`` only."""

    transport: Any
    deadline: float

    def __init__(self, factory: Server, secure: bool) -> None:
        self.factory = factory
        self.secure = secure
        self.deadline = NEVER
        self._seconds = factory.deadlines.seconds
        self._state = IDLE
        self._full = False  # the client does not read what is written
        self._unsent = 0  # bytes that it had not read when it was last looked at
        self._reading_paused = False
        self._turn: int | None = None
        self._farewell: Callable[[], bytes] | None = None
        self._answer = AnswerWriter(factory.dates)

    def _enter(self, state: int) -> None:
        """Leave a state, and the deadline that belongs to it, for another that brings its own."""
        self._state = state
        if state == OVER:
            self.deadline = NEVER
        elif self._full or state == CLOSING:
            # The client is to read.
            self.deadline = self._seconds() + self.factory.settings.client_body_timeout
        elif state == DONE:
            self.deadline = NEVER
        elif state == IDLE:
            self.deadline = self._seconds() + self.factory.settings.keepalive_timeout
        elif state in (BODY, REST):
            self.deadline = self._seconds() + self.factory.settings.client_body_timeout
        elif state == HEAD:
            self.deadline = self._seconds() + self.factory.settings.client_header_timeout
        elif state == ENDED:
            self.deadline = self._seconds() + SILENCE_FOR
        elif state == LINGER:
            self.deadline = self._seconds() + LINGER_FOR
        else:
            # Nothing is expected of the client.
            self.deadline = NEVER

    def _is_new_turn(self) -> bool:
        """TLS hands on in many pieces what was read in one turn."""
        before, self._turn = self._turn, getattr(self.factory.deadlines.clock, "turn", None)
        return self._turn is None or self._turn != before

    def unsent(self) -> int:
        """How many bytes the client has not taken yet."""
        return unsent(self.transport)

    def stopProducing(self) -> None:
        """The transport is lost; ``connectionLost`` follows."""

    def writeConnectionLost(self) -> None:
        """Our side is ended, as it was asked to."""

    def _pause_reading(self) -> None:
        if not self._reading_paused:
            self._reading_paused = True
            self.transport.pauseProducing()

    def _resume_reading(self) -> None:
        if self._reading_paused and self._state != PAUSED and self._state < CLOSING:
            self._reading_paused = False
            self.transport.resumeProducing()

    def _reader_is_late(self) -> None:
        """The client may be slow. It has stalled when it took nothing for a whole ``client_body_timeout``."""
        left = unsent(self.transport)
        if 0 < left < self._unsent:
            self._unsent = left
            self._enter(self._state)
        else:
            self.cut()

    def _linger(self) -> None:
        """Read, and forget, what the client still sends, so that no reset destroys its answer before it is read."""
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
            # TLS says good-bye by itself, and waits for the other side to do so.
            self.transport.loseConnection()
        else:
            self.transport.loseWriteConnection()

    def _close(self) -> None:
        """Close when what was written is sent, which the client may take its time for, but not stall."""
        self._full = False
        self._enter(CLOSING)
        self._unsent = unsent(self.transport)
        self._answer.shut()
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def _close_idle(self) -> None:
        """Close, unless the next request, or a part of it, has arrived: it is read in this turn of the reactor."""
        if not self._reading_paused and arrived(self.transport):
            return
        if not close_if_sent(self.transport):
            self._close()

    def _over(self) -> None:
        """Nothing more is read or written."""
        self._enter(OVER)
        self._answer.shut()

    def cut(self) -> None:
        """Close now, whatever is in flight. Only a WebSocket's client, if it reads at all, is told first."""
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
        """What the client of a WebSocket is told when it is cut; nothing where that could not be understood."""
        self._farewell = farewell

    def make_room(self) -> None:
        """Close for another connection. What was answered still reaches the client."""
        if unsent(self.transport):
            self._close()
        else:
            self.cut()
