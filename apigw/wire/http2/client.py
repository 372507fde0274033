# Compiled: see docs/decisions/compiled.md
"""HTTP/2 client for a service: one connection, its streams, and strict checks of what is received (RFC 9113)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHandshakeListener, IPushProducer, ISSLTransport, ITransport
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import classImplements

from apigw.wire.deadlines import NEVER, Deadlines
from apigw.wire.errors import UpstreamError, UpstreamMalformed
from apigw.wire.http2.bounds import CONNECTION_WINDOW, MOST_STREAMS, STREAM_WINDOW, TooMuch
from apigw.wire.http2.connection import ServiceConnection
from apigw.wire.http2.exchange import HTTP2Exchange
from apigw.wire.http2.field import Field
from apigw.wire.http2.frames import (
    ACK,
    DEFAULT_WINDOW,
    ENABLE_PUSH,
    INITIAL_WINDOW_SIZE,
    LARGEST_STREAM,
    MAX_CONCURRENT_STREAMS,
    MAX_HEADER_LIST_SIZE,
    PING,
    PREFACE,
    SETTINGS,
    Code,
    ConnectionFault,
    StreamFault,
    frame,
    goaway_frame,
    reset_frame,
    settings_frame,
    window_frame,
)
from apigw.wire.interfaces import MAX_HEAD
from apigw.wire.reactor.layers import unsent
from apigw.wire.tls_errors import why_lost

PATIENCE: Final = 5.0
"""Seconds that a service has to answer a PING, which is sent when one of its answers is late."""
MOST_PINGS: Final = 2
"""Those that a service gets without having sent a head or a body between them. A server of gRPC ends the connection
after the fourth within five minutes (gRFC A8, ping strikes), and with it the exchanges of others. What it has got then
is known from its system, which acknowledges it."""
CLOSING_TIME: Final = 30.0
"""Seconds that the service has to read what was written, once the connection is being closed."""
_QUESTION: Final = b"alive? \0"

Told = Callable[["HTTP2Client"], object]


@final
class HTTP2Client(ServiceConnection):
    """One connection. Calls ``on_room`` after each exchange, and ``on_lost`` when it takes no further exchange."""

    def __init__(self, deadlines: Deadlines, scheme: bytes, keepalive: float, on_room: Told, on_lost: Told) -> None:
        """``keepalive``: seconds without an exchange after which the connection is closed."""
        super().__init__(deadlines, scheme)
        self.when_ready: Deferred[HTTP2Client] = Deferred()
        self.deadline: float = NEVER
        self._deadlines = deadlines
        self._keepalive = keepalive
        self._on_room = on_room
        self._on_lost = on_lost
        self._exchanges: dict[int, HTTP2Exchange] = {}
        self._touched: dict[HTTP2Exchange, None] = {}
        self._given = 0  # exchanges begun and not ended, with or without a stream
        self._next = 1
        self._most: int = MOST_STREAMS
        self.last_number = LARGEST_STREAM // 2
        """The highest number that a stream may have. After it, no further exchange begins."""
        self._initial_window: int = DEFAULT_WINDOW
        self._takes = False  # connected, and new exchanges may begin
        self._asked = False  # the service has to show that it is there
        self._pinged = False  # by the answer to a PING
        self._heard = False  # or by any frame, while it gets no PING
        self._pings = 0  # since its last head or body

    @property
    def max_header_size(self) -> int:
        return MAX_HEAD

    # The pool's side.

    @property
    def room(self) -> int:
        """The number of exchanges that may begin now."""
        return self._most - self._given if self._takes else 0

    @property
    def in_flight(self) -> int:
        """The number of exchanges that have begun and not ended."""
        return self._given

    def begin(self) -> HTTP2Exchange:
        self._given += 1
        if self._given == 1 and not self._asked:
            self.deadline = NEVER
        return HTTP2Exchange(self, self._deadlines)

    def connect_until(self, deadline: float) -> None:
        if not self.over:
            self.deadline = deadline

    def close(self) -> None:
        """Take no further exchange, and close when those in flight have ended."""
        self._take_no_more()
        self._close_if_empty()

    # The exchanges' side.

    def open(self, exchange: HTTP2Exchange) -> None:
        if not self._takes:  # this has changed since the exchange began
            self._deadlines.clock.callLater(0, exchange.lost, "the connection takes no more requests", True)
        exchange.flow.number = self._next
        exchange.flow.send_window = self._initial_window
        self._exchanges[self._next] = exchange
        self._next += 2
        self.bounds.streams += 1
        if self._next > self.last_number:
            self._take_no_more()

    def ended(self, exchange: HTTP2Exchange, code: Code | None) -> None:
        self._given -= 1
        self.waiting.pop(exchange, None)
        self._touched.pop(exchange, None)
        number = exchange.flow.number
        if number:
            del self._exchanges[number]
            if code is not None and not self.over:
                self.emit(reset_frame(number, code))
                self.flush()
        if not self._given and not self._asked:
            self.deadline = self._deadlines.seconds() + self._keepalive
        self._on_room(self)
        self._close_if_empty()

    def check_alive(self) -> None:
        if not self._asked and not self.over:
            self._asked = True
            self.deadline = self._deadlines.seconds() + PATIENCE
            self._heard = False
            if self._pings < MOST_PINGS:
                self._pings += 1
                self._pinged = True
                self.emit(frame(PING, 0, 0, _QUESTION))
                self.flush()

    # From the transport.

    def makeConnection(self, transport: ITransport) -> None:
        self.transport = transport
        transport.registerProducer(self, True)  # type: ignore[attr-defined]  # every TCP transport has it
        self._deadlines.watch(self)
        if not ISSLTransport.providedBy(transport):
            # The wrapper that endpoints put between transport and protocol is not needed after the connect.
            transport.protocol = self  # type: ignore[attr-defined]  # every TCP transport has it
            self._ready()

    def handshakeCompleted(self) -> None:
        if self.transport.negotiatedProtocol == b"h2":
            self._ready()
        else:
            self.when_ready.errback(UpstreamMalformed("it does not choose HTTP/2 by ALPN"))
            self.transport.abortConnection()

    def _ready(self) -> None:
        own = {ENABLE_PUSH: 0, INITIAL_WINDOW_SIZE: STREAM_WINDOW}
        self.emit(PREFACE + settings_frame(own) + window_frame(0, CONNECTION_WINDOW - DEFAULT_WINDOW))
        self.flush()
        self._takes = True
        self.deadline = self._deadlines.seconds() + self._keepalive
        self.when_ready.callback(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._deadlines.forget(self)
        self._end(why_lost(reason.value), None)
        if not self.when_ready.called:
            self.when_ready.errback(reason)

    def pauseProducing(self) -> None:
        self.writing_paused = True

    def resumeProducing(self) -> None:
        self.writing_paused = False
        self._go_on()
        self.flush()

    def stopProducing(self) -> None:
        """The transport is lost. ``connectionLost`` follows."""

    def deadline_passed(self) -> None:
        self.deadline = NEVER
        if self._takes and not self._asked:
            self.close()  # idle for ``keepalive``
        elif self._asked and not self._pinged and (self._heard or not unsent(self.transport)):
            self._answered()
        else:
            self._lose(UpstreamMalformed("the service does not answer"))

    # Frames from the service.

    def block_received(self, number: int, fields: list[Field], size: int, end: bool) -> None:
        self._pings = 0
        exchange = self._exchanges.get(number)
        if exchange is None or exchange.is_complete:
            self._check_late(number)
            return
        try:
            exchange.block_received(fields, size, end)
        except UpstreamError as error:
            exchange.fail(error, Code.PROTOCOL_ERROR)
        else:
            self._touched[exchange] = None

    def data_received(self, number: int, payload: bytes, length: int, end: bool) -> None:
        self._pings = 0
        self.count_received(length)
        if not payload and not end:
            self.trifle_received()
        exchange = self._exchanges.get(number)
        if exchange is None or exchange.is_complete:
            # The window of the stream bounds how much may still come of one that we have reset.
            self._check_late(number, counts=not payload)
            return
        try:
            exchange.data_received(payload, length, end)
        except UpstreamError as error:
            exchange.fail(error, Code.PROTOCOL_ERROR)
        except StreamFault as fault:
            exchange.fail(UpstreamMalformed(fault.reason), fault.code)
        else:
            self._touched[exchange] = None

    def window_received(self, number: int, increment: int) -> None:
        self.bounds.window_update()
        if number:
            exchange = self._exchanges.get(number)
            if exchange is None:
                self._check_late(number)
                return
            try:
                exchange.window_received(increment)
            except StreamFault as fault:
                if not exchange.is_complete:  # else its answer is passed on at the end of this read
                    exchange.fail(UpstreamMalformed(fault.reason), fault.code)
            return
        self.widen_connection(increment)
        self._go_on()

    def reset_received(self, number: int, code: int) -> None:
        exchange = self._exchanges.get(number)
        if exchange is None:
            self._check_late(number)
            return
        self._touched.pop(exchange, None)
        exchange.tell()
        exchange.reset_received(code)

    def settings_received(self, settings: dict[int, int]) -> None:
        self.emit(frame(SETTINGS, ACK, 0))
        self._most = min(settings.get(MAX_CONCURRENT_STREAMS, self._most), MOST_STREAMS)
        self.largest_head = settings.get(MAX_HEADER_LIST_SIZE, self.largest_head)
        window = settings.get(INITIAL_WINDOW_SIZE, self._initial_window)
        increment, self._initial_window = window - self._initial_window, window
        for exchange in list(self._exchanges.values()) if increment else ():
            try:
                exchange.widen(increment)
            except StreamFault as fault:
                raise ConnectionFault(fault.code, fault.reason) from None
        self._on_room(self)

    def ping_received(self, payload: bytes, is_answer: bool) -> None:
        if not is_answer:
            self.emit(frame(PING, ACK, 0, payload))
        elif self._asked and payload == _QUESTION:
            self._answered()

    def _answered(self) -> None:
        """The service is there, though its answer is late."""
        self._asked = self._pinged = False
        self.deadline = NEVER if self._given else self._deadlines.seconds() + self._keepalive

    def goaway_received(self, last: int) -> None:
        """Exchanges up to the stream ``last`` are still answered. Those after it were not processed (RFC 9113 §6.8)."""
        self._take_no_more()
        for number, exchange in list(self._exchanges.items()):
            if number > last:
                exchange.lost("the service takes no more requests", unsent=True)
        self._close_if_empty()

    def trifle_received(self) -> None:
        self.bounds.trifle(self._deadlines.seconds())

    def question_received(self) -> None:
        self.bounds.question(self._deadlines.seconds())

    def passed_bound(self, fault: TooMuch) -> None:
        self.fault(fault.code)

    def received(self) -> None:
        self._heard = True
        while self._touched:
            exchange = next(iter(self._touched))
            del self._touched[exchange]
            self.used = True
            exchange.tell()

    def fault(self, code: Code) -> None:
        self._take_no_more()
        self.over = True
        self.received()  # what came before is as good as if it had come in a segment of its own
        self.emit(goaway_frame(0, code))
        self.write_out()
        self._lose(UpstreamMalformed("what the service sends is not HTTP/2"))

    def _check_late(self, number: int, counts: bool = True) -> None:
        """Ignore a frame for a stream that we have ended. Raises ``ConnectionFault`` if there was no such stream."""
        if not number & 1 or number >= self._next:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "The stream does not exist.")
        if counts:
            self.trifle_received()

    # Closing.

    def _go_on(self) -> None:
        """The windows or the transport have room again: the waiting exchanges send, in turn."""
        waiting, self.waiting = self.waiting, {}
        for exchange in waiting:
            exchange.go_on()

    def _take_no_more(self) -> None:
        if self._takes:
            self._takes = False
            self._on_lost(self)

    def _close_if_empty(self) -> None:
        if not self._takes and not self._given and not self.over and self.when_ready.called:
            self.over = True
            self.deadline = self._deadlines.seconds() + CLOSING_TIME
            self.emit(goaway_frame(0, Code.NO_ERROR))
            self.write_out()
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    def _lose(self, error: UpstreamError) -> None:
        self.transport.abortConnection()
        self._end(str(error), error)

    def _end(self, why: str, error: UpstreamError | None) -> None:
        self.over = True
        self._take_no_more()
        for exchange in list(self._exchanges.values()):
            if exchange.is_complete:
                exchange.stop_sending()  # what it has is told when the client reads on
            elif error is None:
                exchange.lost(why, unsent=False)
            else:
                exchange.fail(error, None)


classImplements(HTTP2Client, IPushProducer, IHandshakeListener)
