# Compiled: see docs/decisions/compiled.md
"""HTTP/2 server (RFC 9113), as strict as that for HTTP/1.1.

This file has the connection's streams and windows, and decides when the connection is closed. ``endpoint`` reads and
writes frames, ``stream`` is one exchange, ``fields`` makes requests, ``hpack`` and ``frames`` encode and decode,
``bounds`` limits what a client may do. docs/decisions/http2.md has the reasons not to use the state machine of the
``h2`` library.
"""

from __future__ import annotations

from typing import Final, final

from twisted.internet.interfaces import IPushProducer, ITransport
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import classImplements

from apigw.wire.deadlines import NEVER
from apigw.wire.errors import Refused
from apigw.wire.http2.bounds import CONNECTION_WINDOW, MOST_STREAMS, STREAM_WINDOW, TooMuch
from apigw.wire.http2.field import METHOD, Field
from apigw.wire.http2.fields import read_request
from apigw.wire.http2.frames import (
    ACK,
    DEFAULT_WINDOW,
    INITIAL_WINDOW_SIZE,
    LARGEST_STREAM,
    MAX_CONCURRENT_STREAMS,
    MAX_HEADER_LIST_SIZE,
    PING,
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
from apigw.wire.http2.stream import HTTP2Stream
from apigw.wire.http2.turns import InTurns
from apigw.wire.reactor.layers import unsent
from apigw.wire.room import Place
from apigw.wire.server import Server
from apigw.wire.target import check_served

LINGER: Final = 5.0
"""Seconds that a client that still sends has to read the GOAWAY before the connection is reset."""
FAREWELL: Final = 1.0
"""Seconds between the two GOAWAY frames of a drain, if the client does not answer the PING (RFC 9113 §6.8)."""
FAREWELL_PING: Final = b"drained?"


@final
class HTTP2Channel(InTurns):
    """One connection, with up to ``MOST_STREAMS`` requests in flight."""

    version = "HTTP/2"

    def __init__(self, factory: Server, peer: bytes, secure: bool) -> None:
        super().__init__(factory, peer, secure)
        self.place = Place(self)
        self.hosts: frozenset[bytes] | None = None
        """Those that requests may be for; None for all."""
        self.deadline: float = NEVER
        self.streams: dict[int, HTTP2Stream] = {}
        self._settled = False  # the client's first SETTINGS has arrived
        self._block_due: float = NEVER
        self._idle_due = self._stalled_due = self._farewell_due = NEVER
        self._stream_send_window: int = DEFAULT_WINDOW
        self._unsent = 0  # ``unsent`` at the last check
        self._draining = False
        self._final = False  # no new streams
        self._warned = False  # the client has exceeded a bound

    @property
    def max_header_size(self) -> int:
        return self.factory.settings.max_header_size

    # From the transport.

    def makeConnection(self, transport: ITransport) -> None:
        self.transport = transport
        transport.registerProducer(self, True)  # type: ignore[attr-defined]  # every TCP transport has it
        settings = self.factory.settings
        # RFC 9113 §6.5.2 counts 32 bytes for each field besides its text.
        longest = settings.max_header_size + 32 * settings.max_header_count
        own = {MAX_CONCURRENT_STREAMS: MOST_STREAMS, INITIAL_WINDOW_SIZE: STREAM_WINDOW, MAX_HEADER_LIST_SIZE: longest}
        self.emit(settings_frame(own) + window_frame(0, CONNECTION_WINDOW - DEFAULT_WINDOW))
        self.flush()
        self.deadline = self.seconds() + settings.client_header_timeout
        self.factory.opened(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.over = True
        self.factory.closed(self)
        self._lose_streams()

    def received(self) -> None:
        """Set the deadline of an incomplete field block, in one frame or several."""
        if self.turn_over:
            self.end_turn()
        if not self.block_is_open:
            if self._block_due != NEVER:
                self._block_due = NEVER
                self._set_deadline()
        elif self._block_due == NEVER:
            self._block_due = self.seconds() + self.factory.settings.client_header_timeout
            self._set_deadline()

    # Back-pressure: the transport's buffer to the client is full, or has room again.

    def pauseProducing(self) -> None:
        # Reading is paused too, so that answers to frames cannot pile up (CVE-2019-9512).
        self.writing_paused = True
        self._unsent = unsent(self.transport)
        self._await_reader()
        self.transport.pauseProducing()
        for stream in list(self.streams.values()):
            stream.pause_producer()

    def resumeProducing(self) -> None:
        self.writing_paused = False
        self._set_deadline()
        self._push_waiting()
        for stream in list(self.streams.values()):
            stream.resume_producer()
        self.flush()
        self.read_on()

    def stopProducing(self) -> None:
        """The transport is lost. ``connectionLost`` follows."""

    # Frames from the client.

    def block_received(self, number: int, fields: list[Field], size: int, end: bool) -> None:
        if self.numbers.is_new(number):
            self.begin_request()
            if self._final or len(self.streams) >= MOST_STREAMS:
                self.emit(reset_frame(number, Code.REFUSED_STREAM))
                if not end:
                    self.numbers.closed_early(number)
                self.bounds.reset(self.seconds())
            else:
                self._open_stream(number, end, fields, size)
        elif stream := self.streams.get(number):
            try:
                stream.trailers_received(fields, size, end)
            except StreamFault as fault:
                self._stream_broken(stream, fault)
        else:
            self.numbers.check_late(number, end)

    def _open_stream(self, number: int, end: bool, fields: list[Field], size: int) -> None:
        settings = self.factory.settings
        self.bounds.streams += 1
        stream = HTTP2Stream(self, number, self._stream_send_window, end)
        self.streams[number] = stream
        if len(self.streams) == 1:
            self._set_deadline()
        try:
            request, expects_continue = read_request(
                stream, fields, size, end, settings.max_header_size, settings.max_header_count, settings.kept_oddities
            )
            if self.hosts is not None:
                check_served(self.hosts, request.authority)
        except Refused as refusal:
            stream.refuse(refusal, any(field.kind == METHOD and field.value == b"HEAD" for field in fields))
        except StreamFault as fault:
            self._stream_broken(stream, fault)
        else:
            stream.begin(request, expects_continue)
            self.factory.on_request(request)

    def data_received(self, number: int, payload: bytes, length: int, end: bool) -> None:
        self.count_received(length)
        if not payload and not end:
            self.trifle_received()
        stream = self.streams.get(number)
        if stream is None:
            self.numbers.check_late(number, end)
            return
        try:
            stream.data_received(payload, length, end)
        except StreamFault as fault:
            self._stream_broken(stream, fault)

    def window_received(self, number: int, increment: int) -> None:
        self.bounds.window_update()
        if number:
            stream = self.streams.get(number)
            if stream is not None:
                try:
                    stream.window_received(increment)
                except StreamFault as fault:
                    self._stream_broken(stream, fault)
            elif number > self.numbers.last:
                raise ConnectionFault(Code.PROTOCOL_ERROR, "WINDOW_UPDATE for a stream that is idle.")
            return
        self.widen_connection(increment)
        self._push_waiting()

    def reset_received(self, number: int, code: int) -> None:
        stream = self.streams.get(number)
        if stream is None:
            self.numbers.reset(number)
            self.trifle_received()
            return
        early = stream.request is not None and not stream.request.started
        stream.lost()
        if early:
            self.bounds.reset(self.seconds())

    def settings_received(self, settings: dict[int, int]) -> None:
        self.emit(frame(SETTINGS, ACK, 0))
        window = settings.get(INITIAL_WINDOW_SIZE, self._stream_send_window)
        if window != self._stream_send_window:
            increment = window - self._stream_send_window
            self._stream_send_window = window
            for stream in list(self.streams.values()):
                try:
                    stream.widen(increment)
                except StreamFault as fault:
                    raise ConnectionFault(fault.code, fault.reason) from None
        if not self._settled:
            self._settled = True
            self._await_request()
            if self.factory.draining:
                self.drain()

    def ping_received(self, payload: bytes, is_answer: bool) -> None:
        if not is_answer:
            self.emit(frame(PING, ACK, 0, payload))
        elif self._draining and payload == FAREWELL_PING:
            self._say_last()

    def goaway_received(self, last: int) -> None:
        # The client still reads the answers to its requests.
        self.trifle_received()
        self._final = True
        if not self.streams:
            self._close()

    def trifle_received(self) -> None:
        self.bounds.trifle(self.seconds())

    def question_received(self) -> None:
        self.bounds.question(self.seconds())

    def passed_bound(self, fault: TooMuch) -> None:
        """Refuse new streams, and answer the accepted ones. The second time, close the connection."""
        if self._warned or not self.streams:
            self.fault(fault.code)
        else:
            self._warned = self._final = True
            self.bounds = self.bounds.anew()
            self.emit(goaway_frame(self.numbers.last, fault.code))

    def _stream_broken(self, stream: HTTP2Stream, fault: StreamFault) -> None:
        stream.broken(fault)
        self.bounds.reset(self.seconds())

    # From the streams.

    def stream_closed(self, stream: HTTP2Stream) -> None:
        del self.streams[stream.number]
        self.waiting.pop(stream, None)
        if not self.streams and not self.over:
            if self._final:
                self._close()
            else:
                self._await_request()

    def _push_waiting(self) -> None:
        """Send for the waiting streams in turn, one frame each."""
        waiting = self.waiting
        while waiting and not self.writing_paused and self.send_window > 0:
            stream = next(iter(waiting))
            del waiting[stream]
            if stream.push():
                waiting[stream] = None
            else:
                stream.resume_producer()

    # Deadlines, and closing.

    def _await_request(self) -> None:
        self._idle_due = self.seconds() + self.factory.settings.keepalive_timeout
        self._set_deadline()

    def _await_reader(self) -> None:
        self._stalled_due = self.seconds() + self.factory.settings.client_body_timeout
        self._set_deadline()

    def _set_deadline(self) -> None:
        if self.over:
            return
        room = self.factory.room
        if self.streams or self.writing_paused or self.turn_over:
            self.place.leave()
        elif self._block_due != NEVER or not self.numbers.last:
            room.unfinished(self)
        else:
            room.idle(self)
        if self.writing_paused:
            self.deadline = self._stalled_due
        elif self._block_due != NEVER:
            self.deadline = self._block_due
        elif self._draining and not self._final:
            self.deadline = self._farewell_due
        elif self._settled:
            self.deadline = NEVER if self.streams else self._idle_due

    def deadline_passed(self) -> None:
        if self.writing_paused and not self.over and self.took_some():
            self._await_reader()
        elif self.over or self.writing_paused:
            self.deadline = NEVER
            self.transport.abortConnection()
        elif self._block_due <= self.deadline:
            self.fault(Code.ENHANCE_YOUR_CALM)
        elif self._draining and not self._final:
            self._say_last()
        else:
            self.emit(goaway_frame(self.numbers.last, Code.NO_ERROR))
            self._close()
        self.flush()

    def took_some(self) -> bool:
        """Whether the client has read bytes since the last call. It may be slow, but not stall."""
        before, self._unsent = self._unsent, unsent(self.transport)
        return 0 < self._unsent < before

    def drain(self) -> None:
        """Graceful shutdown: close after the streams in flight (RFC 9113 §6.8).

        The first GOAWAY announces it; requests that were already under way are still served. The second names the last
        stream, after an answered PING or ``FAREWELL``.
        """
        if self._draining or self.over:
            return
        self._draining = True
        self._farewell_due = self.seconds() + FAREWELL
        self.emit(goaway_frame(LARGEST_STREAM, Code.NO_ERROR) + frame(PING, 0, 0, FAREWELL_PING))
        self.flush()
        self._set_deadline()

    def cut(self) -> None:
        """Close now, whatever is in flight."""
        self.transport.abortConnection()

    def make_room(self) -> None:
        self.cut()

    def _say_last(self) -> None:
        if not self._final:
            self._final = True
            self.emit(goaway_frame(self.numbers.last, Code.NO_ERROR))
        if self.streams:
            self._set_deadline()
        else:
            self._close()

    def _close(self) -> None:
        """Write what is buffered, and close."""
        self.over = True
        self.deadline = self.seconds() + self.factory.settings.client_body_timeout
        self.receiving = False
        self.flush()
        self.transport.unregisterProducer()
        if self.turn_over:
            self.transport.resumeProducing()
        self.transport.loseConnection()

    def fault(self, code: Code) -> None:
        """A connection error: send GOAWAY, and half-close, so that a reset does not destroy the GOAWAY."""
        self.over = True
        self.factory.room.unfinished(self)
        self.deadline = self.seconds() + LINGER
        self.emit(goaway_frame(self.numbers.last, code))
        self.write_out()
        self.transport.unregisterProducer()
        if self.writing_paused or self.turn_over:
            self.writing_paused = self.turn_over = False
            self.transport.resumeProducing()
        half_close = getattr(self.transport, "loseWriteConnection", None)
        if half_close is not None and not self.secure:
            half_close()
        else:
            self.transport.loseConnection()
        self._lose_streams()

    def _lose_streams(self) -> None:
        for stream in list(self.streams.values()):
            stream.lost()


classImplements(HTTP2Channel, IPushProducer)
