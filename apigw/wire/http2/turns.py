# Compiled: see docs/decisions/compiled.md
"""A connection of a client, whose requests are begun a few in each turn of the reactor, as over HTTP/1.1.

One read may have thousands of HEADERS. If all of them were answered at once, no other connection would be served
meanwhile. The frames behind the last request of a turn are kept, and reading is paused, so they cannot grow.
"""

from __future__ import annotations

from apigw.wire.http2.bounds import MOST_OF_TURN
from apigw.wire.http2.connection import Connection
from apigw.wire.server import Server


class InTurns(Connection):
    """The base of ``HTTP2Channel``."""

    def __init__(self, factory: Server, peer: bytes, secure: bool) -> None:
        super().__init__(factory, peer, secure)
        self._clock = factory.deadlines.clock
        self._begun = 0  # requests begun in this turn

    def begin_request(self) -> None:
        """Count a request."""
        self._begun += 1
        self.turn_over = self._begun >= MOST_OF_TURN

    def dataReceived(self, data: bytes) -> None:
        # Once in a turn, also over TLS: what was read together is delivered together.
        self._begun = 0
        super().dataReceived(data)

    def end_turn(self) -> None:
        """Wait for the next turn, if there are frames left."""
        self.turn_over = self._pending != b""
        if self.turn_over:
            self.block_is_open = False  # what the client has sent of it waits for us
            self.transport.pauseProducing()
            self._clock.callLater(0, self._take_turn)
        self._set_deadline()

    def _take_turn(self) -> None:
        if self.over:
            return
        self.turn_over = False
        self.read_on()
        self._set_deadline()

    def read_on(self) -> None:
        """Read the frames that have waited, and then what arrives."""
        if not (self.turn_over or self.writing_paused):
            self.dataReceived(b"")
        if not (self.turn_over or self.writing_paused):
            self.transport.resumeProducing()

    def _set_deadline(self) -> None:
        """What the connection waits for has changed."""
