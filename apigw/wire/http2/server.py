"""HTTP/2 towards clients: RFC 9113, read as strictly as HTTP/1.1.

This file reads frames, keeps the connection's windows and limits, and decides when the connection ends. ``h2_stream``
is one exchange, ``h2_fields`` decides what is a request, ``h2_hpack`` and ``h2_frames`` are the bytes. Why this is not
built on the state machine of the ``h2`` library: docs/decisions/http2.md.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from hpack.exceptions import HPACKError
from twisted.internet.interfaces import IPushProducer, ITransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from apigw.wire.deadlines import NEVER
from apigw.wire.errors import Refused
from apigw.wire.http2.fields import read_request
from apigw.wire.http2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HAS_PRIORITY,
    HEAD_LENGTH,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    LARGEST_FRAME,
    LARGEST_STREAM,
    LARGEST_WINDOW,
    MAX_CONCURRENT_STREAMS,
    MAX_HEADER_LIST_SIZE,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Code,
    ConnectionFault,
    StreamFault,
    frame,
    goaway_frame,
    header_frames,
    read_long,
    read_settings,
    reset_frame,
    settings_frame,
    unpack_head,
    unpad,
    window_frame,
)
from apigw.wire.http2.hpack import EMPTY_TABLE, FieldDecoder
from apigw.wire.http2.stream import STREAM_WINDOW, HTTP2Stream
from apigw.wire.server import Server

MOST_STREAMS = 100
CONNECTION_WINDOW = 1024 * 1024
"""Given back as data arrives, whether or not anybody takes it: what a stream may hold is bounded by its own window, so
one whose listener has paused cannot keep the others waiting."""
MOST_CONTINUATIONS = 8
MOST_NUISANCES = 100
MOST_TRIFLES = 1000
NUISANCE_PERIOD = 10.0
MOST_FORSAKEN = 1000
OUT_HIGH = 64 * 1024
LINGER = 5.0
"""Seconds in which a client that still sends may read why, before the connection is reset."""
FAREWELL = 1.0
"""Seconds in which a client must have noticed that we drain, if it does not confirm it."""
FAREWELL_PING = b"drained?"


class Nuisance:
    """Counts what an honest client seldom does, over a sliding window."""

    def __init__(self, reason: str) -> None:
        self._reason = reason
        self._times: deque[float] = deque(maxlen=MOST_NUISANCES + 1)

    def count(self, now: float) -> None:
        """Raises ``ConnectionFault`` when there were more than ``MOST_NUISANCES`` in ``NUISANCE_PERIOD``."""
        times = self._times
        times.append(now)
        if len(times) > MOST_NUISANCES and times[0] > now - NUISANCE_PERIOD:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, self._reason)


@implementer(IPushProducer)
class HTTP2Channel(Protocol):
    """One connection, with any number of requests in flight up to ``MOST_STREAMS``."""

    transport: Any
    deadline: float = NEVER
    writing_paused = False
    send_window = DEFAULT_WINDOW
    worthwhile_frames = 0
    """DATA frames that earn the client WINDOW_UPDATE frames without suspicion."""

    version = "HTTP/2"

    def __init__(self, factory: Server, peer: bytes, secure: bool) -> None:
        self.factory = factory
        self.peer = peer
        self.secure = secure
        self.seconds = factory.deadlines.seconds
        self.streams: dict[int, HTTP2Stream] = {}
        self.waiting: dict[HTTP2Stream, None] = {}  # streams that the connection's window or the transport holds up
        self._decoder = FieldDecoder()
        self._expected = PREFACE
        self._pending = b""  # the beginning of a frame
        self._settled = False  # the client's first SETTINGS came
        self._last_stream = 0
        self._forsaken: dict[int, None] = {}  # streams that we reset before the client had ended them
        self._block: bytearray | None = None  # a field block that is not complete
        self._block_stream = self._block_flags = self._continuations = 0
        self._block_due = self._idle_due = self._stalled_due = self._farewell_due = NEVER
        self._receive_window = CONNECTION_WINDOW
        self._stream_send_window = DEFAULT_WINDOW
        self._resets = Nuisance("Too many streams are reset before their answer.")
        self._questions = Nuisance("Too many PING and SETTINGS frames.")
        self._trifles = 0
        self._trifles_since = 0.0
        self._out: list[bytes] = []
        self._out_size = 0
        self._size_update = EMPTY_TABLE
        self._receiving = False
        self._draining = False
        self._final = False  # no new streams
        self._over = False  # nothing more is read from this client

    # From the transport.

    def makeConnection(self, transport: ITransport) -> None:
        self.transport = transport
        transport.registerProducer(self, True)  # type: ignore[attr-defined]  # every TCP transport has it
        settings = self.factory.settings
        self.emit(
            settings_frame(
                {
                    MAX_CONCURRENT_STREAMS: MOST_STREAMS,
                    INITIAL_WINDOW_SIZE: STREAM_WINDOW,
                    # RFC 9113 §6.5.2 counts 32 bytes for each field besides its text.
                    MAX_HEADER_LIST_SIZE: settings.max_header_size + 32 * settings.max_header_count,
                }
            )
            + window_frame(0, CONNECTION_WINDOW - DEFAULT_WINDOW)
        )
        self.flush()
        self.deadline = self.seconds() + settings.client_header_timeout
        self.factory.opened(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._over = True
        self.factory.closed(self)
        self._lose_streams()

    def dataReceived(self, data: bytes) -> None:
        if self._over:
            return
        if self._pending:
            data = self._pending + data
            self._pending = b""
        self._receiving = True
        try:
            at = self._read_preface(data) if self._expected else 0
            end = len(data)
            while end - at >= HEAD_LENGTH:
                high, low, kind, flags, number = unpack_head(data, at)
                length = high << 8 | low
                if length > LARGEST_FRAME:
                    raise ConnectionFault(Code.FRAME_SIZE_ERROR, "A frame is larger than was allowed.")
                start = at + HEAD_LENGTH
                if end - start < length:
                    break
                at = start + length
                self._frame_received(kind, flags, number & LARGEST_STREAM, data[start:at])
                if self._over:
                    return
            if at < end:
                self._pending = data[at:]
            self._set_block_due()
        except ConnectionFault as fault:
            self._end(fault.code)
        finally:
            self._receiving = False
            self.flush()

    def _read_preface(self, data: bytes) -> int:
        expected = self._expected
        came = data[: len(expected)]
        if not expected.startswith(came):
            raise ConnectionFault(Code.PROTOCOL_ERROR, "The connection preface is malformed.")
        self._expected = expected[len(came) :]
        return len(came)

    def _set_block_due(self) -> None:
        """A request's fields must be complete in time, be it a frame that is cut short or a block of several."""
        pending = self._pending
        if self._block is None and not (pending and (len(pending) < HEAD_LENGTH or pending[3] == HEADERS)):
            if self._block_due != NEVER:
                self._block_due = NEVER
                self._set_deadline()
        elif self._block_due == NEVER:
            self._block_due = self.seconds() + self.factory.settings.client_header_timeout
            self._set_deadline()

    # The transport's buffer to the client fills and drains.

    def pauseProducing(self) -> None:
        # Nothing is read meanwhile, so that what reading makes us send cannot pile up.
        self.writing_paused = True
        self._stalled_due = self.seconds() + self.factory.settings.client_body_timeout
        self._set_deadline()
        self.transport.pauseProducing()
        for stream in list(self.streams.values()):
            stream.pause_producer()

    def resumeProducing(self) -> None:
        self.writing_paused = False
        self._set_deadline()
        self.transport.resumeProducing()
        self._push_waiting()
        for stream in list(self.streams.values()):
            stream.resume_producer()
        self.flush()

    def stopProducing(self) -> None:
        """The transport is lost; ``connectionLost`` follows."""

    # Frames in.

    def _frame_received(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if self._block is not None and (kind != CONTINUATION or number != self._block_stream):
            raise ConnectionFault(Code.PROTOCOL_ERROR, "A field block is interrupted.")
        if not self._settled and kind != SETTINGS:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "The first frame is not SETTINGS.")
        if kind == HEADERS:
            self._headers_received(flags, number, payload)
        elif kind == DATA:
            self._data_received(flags, number, payload)
        elif kind == WINDOW_UPDATE:
            self._window_received(number, payload)
        elif kind == RST_STREAM:
            self._reset_received(number, payload)
        elif kind == CONTINUATION:
            self._continuation_received(flags, payload)
        elif kind in (SETTINGS, PING, GOAWAY):
            if number:
                raise ConnectionFault(Code.PROTOCOL_ERROR, "A connection frame has a stream number.")
            if kind == SETTINGS:
                self._settings_received(flags, payload)
            elif kind == PING:
                self._ping_received(flags, payload)
            else:
                self._goaway_received(payload)
        elif kind == PUSH_PROMISE:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "A client must not send PUSH_PROMISE.")
        else:
            self._trifle()
            if kind == PRIORITY and (len(payload) != 5 or not number):
                code = Code.FRAME_SIZE_ERROR if number else Code.PROTOCOL_ERROR
                raise ConnectionFault(code, "PRIORITY of an odd length, or of no stream.")

    def _headers_received(self, flags: int, number: int, payload: bytes) -> None:
        if flags & (PADDED | HAS_PRIORITY):
            if flags & PADDED:
                payload = unpad(payload)
            if flags & HAS_PRIORITY:
                if len(payload) < 5:
                    raise ConnectionFault(Code.FRAME_SIZE_ERROR, "HEADERS are shorter than their priority.")
                payload = payload[5:]
        if flags & END_HEADERS:
            self._block_received(number, bool(flags & END_STREAM), payload)
        else:
            self._block = bytearray(payload)
            self._block_stream = number
            self._block_flags = flags
            self._continuations = 0

    def _continuation_received(self, flags: int, payload: bytes) -> None:
        block = self._block
        if block is None:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "CONTINUATION without HEADERS.")
        self._continuations += 1
        block += payload
        longest = LARGEST_FRAME + 4 * self.factory.settings.max_header_size
        if self._continuations > MOST_CONTINUATIONS or len(block) > longest:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "A field block is much too long.")
        if flags & END_HEADERS:
            self._block = None
            self._block_received(self._block_stream, bool(self._block_flags & END_STREAM), bytes(block))

    def _block_received(self, number: int, end: bool, block: bytes) -> None:
        settings = self.factory.settings
        try:
            # Whatever becomes of the stream, later blocks depend on this one.
            fields, size = self._decoder.decode(block, settings.max_header_size)
        except HPACKError as error:
            raise ConnectionFault(Code.COMPRESSION_ERROR, str(error)) from None
        if number > self._last_stream:
            if not number & 1:
                raise ConnectionFault(Code.PROTOCOL_ERROR, "A client's streams have odd numbers.")
            self._last_stream = number
            if self._final or len(self.streams) >= MOST_STREAMS:
                self.emit(reset_frame(number, Code.REFUSED_STREAM))
                if not end:
                    self.forsake(number)
                self._resets.count(self.seconds())
            else:
                self._open_stream(number, end, fields, size)
        elif stream := self.streams.get(number):
            try:
                stream.trailers_received(fields, end)
            except StreamFault as fault:
                self._stream_broken(stream, fault)
        else:
            self._check_forsaken(number, end)

    def _open_stream(self, number: int, end: bool, fields: list[tuple[bytes, bytes]], size: int) -> None:
        settings = self.factory.settings
        stream = HTTP2Stream(self, number, self._stream_send_window, not end)
        self.streams[number] = stream
        if len(self.streams) == 1:
            self._set_deadline()
        try:
            request, expects_continue = read_request(
                stream, fields, size, end, settings.max_header_size, settings.max_header_count
            )
        except Refused as refusal:
            stream.refuse(refusal, (b":method", b"HEAD") in fields)
        except StreamFault as fault:
            self._stream_broken(stream, fault)
        else:
            stream.begin(request, expects_continue)
            self.factory.on_request(request)

    def _data_received(self, flags: int, number: int, payload: bytes) -> None:
        length = len(payload)
        end = bool(flags & END_STREAM)
        self._receive_window -= length
        if self._receive_window < CONNECTION_WINDOW // 2:
            self.emit(window_frame(0, CONNECTION_WINDOW - self._receive_window))
            self._receive_window = CONNECTION_WINDOW
        if flags & PADDED:
            payload = unpad(payload)
        if not payload and not end:
            self._trifle()
        stream = self.streams.get(number)
        if stream is None:
            self._check_forsaken(number, end)
            return
        try:
            stream.data_received(payload, length, end)
        except StreamFault as fault:
            self._stream_broken(stream, fault)

    def _window_received(self, number: int, payload: bytes) -> None:
        self._trifle()
        increment = read_long(payload) & LARGEST_WINDOW
        if number:
            stream = self.streams.get(number)
            if stream is not None:
                try:
                    stream.window_received(increment)
                except StreamFault as fault:
                    self._stream_broken(stream, fault)
            elif number > self._last_stream:
                raise ConnectionFault(Code.PROTOCOL_ERROR, "WINDOW_UPDATE for a stream that is idle.")
            return
        self.send_window += increment
        if not increment or self.send_window > LARGEST_WINDOW:
            code = Code.FLOW_CONTROL_ERROR if increment else Code.PROTOCOL_ERROR
            raise ConnectionFault(code, "WINDOW_UPDATE of the connection with an increment of 0, or beyond 2^31-1.")
        self._push_waiting()

    def _reset_received(self, number: int, payload: bytes) -> None:
        read_long(payload)
        stream = self.streams.get(number)
        if stream is None:
            if not number or number > self._last_stream:
                raise ConnectionFault(Code.PROTOCOL_ERROR, "RST_STREAM for a stream that is idle.")
            self._forsaken.pop(number, None)
            self._trifle()
            return
        early = stream.request is not None and not stream.request.started
        stream.lost()
        if early:
            self._resets.count(self.seconds())

    def _settings_received(self, flags: int, payload: bytes) -> None:
        self._questions.count(self.seconds())
        if flags & ACK:
            if payload:
                raise ConnectionFault(Code.FRAME_SIZE_ERROR, "An acknowledgement of SETTINGS is not empty.")
            return
        settings = read_settings(payload)
        self.emit(frame(SETTINGS, ACK, 0))
        window = settings.get(INITIAL_WINDOW_SIZE, self._stream_send_window)
        if window != self._stream_send_window:
            increment = window - self._stream_send_window
            self._stream_send_window = window
            for stream in list(self.streams.values()):
                stream.widen(increment)
                if stream.send_window > LARGEST_WINDOW:
                    raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "A window exceeds 2^31-1.")
        if not self._settled:
            self._settled = True
            self._idle_due = self.seconds() + self.factory.settings.keepalive_timeout
            self._set_deadline()
            if self.factory.draining:
                self.drain()

    def _ping_received(self, flags: int, payload: bytes) -> None:
        self._questions.count(self.seconds())
        if len(payload) != 8:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, "PING of an odd length.")
        if not flags & ACK:
            self.emit(frame(PING, ACK, 0, payload))
        elif self._draining and payload == FAREWELL_PING:
            self._say_last()

    def _goaway_received(self, payload: bytes) -> None:
        if len(payload) < 8:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, "GOAWAY is cut short.")
        # It still reads what it has asked for.
        self._trifle()
        self._final = True
        if not self.streams:
            self._close()

    def _trifle(self) -> None:
        """A frame of no consequence by itself: it needs a reason to come, and there is no reason for many of them."""
        self._trifles += 1
        if self._trifles > MOST_TRIFLES + 2 * self.worthwhile_frames:
            now = self.seconds()
            if now - self._trifles_since < NUISANCE_PERIOD:
                raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "Too many frames without effect.")
            self._trifles = self.worthwhile_frames = 0
            self._trifles_since = now

    def _check_forsaken(self, number: int, end: bool) -> None:
        """A frame on a closed stream is forgiven only while the client cannot know that we closed it."""
        if number not in self._forsaken:
            code = Code.STREAM_CLOSED if 0 < number <= self._last_stream else Code.PROTOCOL_ERROR
            raise ConnectionFault(code, "The stream is not open.")
        if end:
            del self._forsaken[number]

    def _stream_broken(self, stream: HTTP2Stream, fault: StreamFault) -> None:
        stream.broken(fault)
        self._resets.count(self.seconds())

    # From the streams.

    def emit(self, data: bytes) -> None:
        """Send this with the next ``flush``, or before if it is much."""
        self._out.append(data)
        self._out_size += len(data)
        if self._out_size > OUT_HIGH:
            self._write_out()

    def emit_head(self, number: int, block: bytes, end: bool) -> None:
        if self._size_update:
            block = self._size_update + block
            self._size_update = b""
        self.emit(header_frames(number, block, end))

    def flush(self) -> None:
        """Send what was emitted; while frames are read, this waits until all that came are."""
        if self._out and not self._receiving:
            self._write_out()

    def forsake(self, number: int) -> None:
        """The client has not ended this stream, and may send more before it learns that we did."""
        self._forsaken[number] = None
        if len(self._forsaken) > MOST_FORSAKEN:
            del self._forsaken[next(iter(self._forsaken))]

    def stream_closed(self, stream: HTTP2Stream) -> None:
        del self.streams[stream.number]
        self.waiting.pop(stream, None)
        if not self.streams and not self._over:
            if self._final:
                self._close()
            else:
                self._idle_due = self.seconds() + self.factory.settings.keepalive_timeout
                self._set_deadline()

    def _write_out(self) -> None:
        out, self._out = self._out, []
        self._out_size = 0
        self.transport.write(b"".join(out))

    def _push_waiting(self) -> None:
        """Let the waiting streams send, a frame each in turn."""
        waiting = self.waiting
        while waiting and not self.writing_paused and self.send_window > 0:
            stream = next(iter(waiting))
            del waiting[stream]
            if stream.push():
                waiting[stream] = None
            else:
                stream.resume_producer()

    # Deadlines, and the end.

    def _set_deadline(self) -> None:
        if self._over:
            return
        room = self.factory.room
        if self.streams or self.writing_paused:
            room.busy(self)
        elif self._block_due != NEVER or not self._last_stream:
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
        if self._over or self.writing_paused:
            self.deadline = NEVER
            self.transport.abortConnection()
        elif self._block_due <= self.deadline:
            self._end(Code.ENHANCE_YOUR_CALM)
        elif self._draining and not self._final:
            self._say_last()
        else:
            self.emit(goaway_frame(self._last_stream, Code.NO_ERROR))
            self._close()
        self.flush()

    def drain(self) -> None:
        """Close when the streams in flight are over.

        RFC 9113 §6.8: the client is first told to open no more, then given the time to hear it, in which what it had
        already sent is still served; only then is the last stream named.
        """
        if self._draining or self._over:
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
            self.emit(goaway_frame(self._last_stream, Code.NO_ERROR))
        if self.streams:
            self._set_deadline()
        else:
            self._close()

    def _close(self) -> None:
        """Everything is said."""
        self._over = True
        self.deadline = self.seconds() + self.factory.settings.client_body_timeout
        self._receiving = False
        self.flush()
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def _end(self, code: Code) -> None:
        """The connection is broken: say so, and let the client read it before a reset destroys it."""
        self._over = True
        self.factory.room.unfinished(self)
        self.deadline = self.seconds() + LINGER
        self.emit(goaway_frame(self._last_stream, code))
        self._write_out()
        self.transport.unregisterProducer()
        if self.writing_paused:
            self.writing_paused = False
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
