# Compiled: see docs/decisions/compiled.md
"""Frames and field blocks of an HTTP/2 connection, for client and server (RFC 9113 §4 to §6).

A connection error ends the connection, by ``fault``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from mypy_extensions import i64

from apigw.wire.http2.bounds import CONNECTION_WINDOW, MOST_CONTINUATIONS, Bounds, TooMuch
from apigw.wire.http2.field import Field
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
    LARGEST_FRAME,
    LARGEST_STREAM,
    LARGEST_WINDOW,
    PADDED,
    PING,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Code,
    ConnectionFault,
    frame_head,
    header_frames,
    long_at,
    read_long,
    read_settings,
    unpad,
    window_frame,
)
from apigw.wire.http2.hpack import EMPTY_TABLE, FieldDecoder

OUT_HIGH: Final = 64 * 1024
"""Buffered bytes that are written at once, also while frames are being read."""


class Endpoint:
    """The base of ``HTTP2Channel`` and ``HTTP2Client``: they implement a method for each kind of frame."""

    def __init__(self, preface: bytes, seconds: Callable[[], float]) -> None:
        """``preface``: the bytes with which the other side must begin."""
        self.seconds = seconds
        self.transport: Any = None
        self.bounds = Bounds()
        self.over = False
        """Set to read nothing more."""
        self.turn_over = False
        """Set to keep the rest of what was read."""
        self.writing_paused = False
        """The transport's buffer to the other side is full."""
        self.waiting: dict[Any, None] = {}
        """Streams that wait for the connection's window or the transport."""
        self.receiving = False
        """Frames are being read. What is sent meanwhile is written together afterwards."""
        self.block_is_open = False
        """A field block has begun and not ended."""
        self.send_window: int = DEFAULT_WINDOW
        """Bytes of DATA that the other side takes, on all streams together."""
        self._expected = preface
        self._pending = b""  # the beginning of a frame
        self._has_settings = False
        self._decoder = FieldDecoder()
        self._block: bytearray | None = None
        self._block_stream = 0
        self._block_flags = 0
        self._continuations = 0
        self._blocks_are_lost = False
        self._receive_window: int = CONNECTION_WINDOW
        self._out: list[bytes] = []
        self._out_size = 0
        self._size_update: bytes = EMPTY_TABLE

    @property
    def max_header_size(self) -> int:
        """Bytes of a field block, as an HTTP/1.1 head."""
        raise NotImplementedError

    # Frames from the other side. Each method may raise ``ConnectionFault``.

    def block_received(self, number: int, fields: list[Field], size: int, end: bool) -> None:
        """A complete field block. ``size`` is that of all fields; ``fields`` beyond ``max_header_size`` may be missing.
        ``end``: END_STREAM is set.
        """

    def data_received(self, number: int, payload: bytes, length: int, end: bool) -> None:
        """``length``: bytes that count against the windows, with padding."""

    def window_received(self, number: int, increment: int) -> None: ...

    def reset_received(self, number: int, code: int) -> None: ...

    def settings_received(self, settings: dict[int, int]) -> None: ...

    def ping_received(self, payload: bytes, is_answer: bool) -> None: ...

    def goaway_received(self, last: int) -> None:
        """``last``: the highest stream that the other side has processed or may still process."""

    def trifle_received(self) -> None:
        """A frame without effect."""

    def question_received(self) -> None:
        """A SETTINGS or PING frame, valid or not."""

    def received(self) -> None:
        """All frames that have arrived are read."""

    def passed_bound(self, fault: TooMuch) -> None:
        """A bound is exceeded. Reading goes on, unless ``over`` is set."""

    def fault(self, code: Code) -> None:
        """A connection error (RFC 9113 §5.4.1)."""

    # Frames to the other side.

    def count_received(self, length: int) -> None:
        """Count DATA against the connection's window, and give it back in portions of at least half."""
        self._receive_window -= length
        if self._receive_window < CONNECTION_WINDOW // 2:
            self.emit(window_frame(0, CONNECTION_WINDOW - self._receive_window))
            self._receive_window = CONNECTION_WINDOW

    def widen_connection(self, increment: int) -> None:
        """WINDOW_UPDATE of the connection. Raises ``ConnectionFault``."""
        self.send_window += increment
        if not increment:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "WINDOW_UPDATE with an increment of 0.")
        if self.send_window > LARGEST_WINDOW:
            raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "The connection's window exceeds 2^31-1.")

    def emit(self, data: bytes) -> None:
        """Write ``data`` with the next ``flush``, or earlier if much is buffered."""
        self._out.append(data)
        self._out_size += len(data)
        if self._out_size > OUT_HIGH:
            self.write_out()

    def emit_frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        length = len(payload)
        self._out.append(frame_head(length, kind, flags, number))
        self._out.append(payload)
        self._out_size += HEAD_LENGTH + length
        if self._out_size > OUT_HIGH:
            self.write_out()

    def emit_head(self, number: int, block: bytes, end: bool) -> None:
        if self._size_update:
            block = self._size_update + block
            self._size_update = b""
        if len(block) <= LARGEST_FRAME:
            self.emit_frame(HEADERS, END_HEADERS | END_STREAM if end else END_HEADERS, number, block)
        else:
            self.emit(header_frames(number, block, end))

    def flush(self) -> None:
        """Write what was emitted: at once, or after the frames that are being read."""
        if self._out and not self.receiving:
            self.write_out()

    def write_out(self) -> None:
        out, self._out = self._out, []
        self._out_size = 0
        self.transport.write(b"".join(out))

    # From the transport.

    def dataReceived(self, data: bytes) -> None:
        if self.over:
            return
        if self._pending:
            data = self._pending + data
            self._pending = b""
        self.receiving = True
        try:
            at: i64 = self._read_preface(data) if self._expected else 0
            end: i64 = len(data)
            while end - at >= HEAD_LENGTH:
                length: i64 = long_at(data, at) >> 8
                if length > LARGEST_FRAME:
                    raise ConnectionFault(Code.FRAME_SIZE_ERROR, "A frame is larger than was allowed.")
                start: i64 = at + HEAD_LENGTH
                if end - start < length:
                    break
                kind, flags = data[at + 3], data[at + 4]
                number = int(long_at(data, at + 5) & LARGEST_STREAM)
                at = start + length
                try:
                    self._frame_received(kind, flags, number, data[start:at])
                except TooMuch as excess:
                    self.passed_bound(excess)
                if self.over:
                    return
                if self.turn_over:
                    break
            if at < end:
                self._pending = data[at:]
            pending = self._pending
            self.block_is_open = self._block is not None or (
                pending != b"" and (len(pending) < HEAD_LENGTH or pending[3] == HEADERS)
            )
            self.received()
        except ConnectionFault as fault:
            self.fault(fault.code)
        finally:
            self.receiving = False
            self.flush()

    def _read_preface(self, data: bytes) -> int:
        expected = self._expected
        came = data[: len(expected)]
        if not expected.startswith(came):
            raise ConnectionFault(Code.PROTOCOL_ERROR, "The connection preface is malformed.")
        self._expected = expected[len(came) :]
        return len(came)

    def _frame_received(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if self._block is not None and (kind != CONTINUATION or number != self._block_stream):
            raise ConnectionFault(Code.PROTOCOL_ERROR, "A field block is interrupted.")
        if not self._has_settings and kind != SETTINGS:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "The first frame is not SETTINGS.")
        if kind == HEADERS:
            self._headers_received(flags, number, payload)
        elif kind == DATA:
            length = len(payload)
            if flags & PADDED:
                payload = unpad(payload)
            self.data_received(number, payload, length, bool(flags & END_STREAM))
        elif kind == WINDOW_UPDATE:
            self.window_received(number, read_long(payload) & LARGEST_WINDOW)
        elif kind == RST_STREAM:
            self.reset_received(number, read_long(payload))
        elif kind == CONTINUATION:
            self._continuation_received(flags, payload)
        elif kind in (SETTINGS, PING, GOAWAY):
            if number:
                raise ConnectionFault(Code.PROTOCOL_ERROR, "A connection frame has a stream number.")
            if kind == SETTINGS:
                self._settings_frame_received(flags, payload)
            elif kind == PING:
                self._ping_frame_received(flags, payload)
            elif len(payload) < 8:
                raise ConnectionFault(Code.FRAME_SIZE_ERROR, "GOAWAY is cut short.")
            else:
                self.goaway_received(read_long(payload[:4]) & LARGEST_STREAM)
        elif kind == PUSH_PROMISE:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "PUSH_PROMISE was not allowed.")
        else:
            if kind == PRIORITY and (len(payload) != 5 or not number):
                code = Code.FRAME_SIZE_ERROR if number else Code.PROTOCOL_ERROR
                raise ConnectionFault(code, "PRIORITY of a wrong length, or of no stream.")
            self.trifle_received()

    def _headers_received(self, flags: int, number: int, payload: bytes) -> None:
        if flags & (PADDED | HAS_PRIORITY):
            if flags & PADDED:
                payload = unpad(payload)
            if flags & HAS_PRIORITY:
                if len(payload) < 5:
                    raise ConnectionFault(Code.FRAME_SIZE_ERROR, "HEADERS are shorter than their priority.")
                payload = payload[5:]
        if flags & END_HEADERS:
            self._whole_block(number, payload, bool(flags & END_STREAM))
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
        if not self._blocks_are_lost:
            block += payload
        if flags & END_HEADERS:
            self._block = None
        if self._continuations > MOST_CONTINUATIONS or len(block) > LARGEST_FRAME + 4 * self.max_header_size:
            # The skipped bytes are missing in the HPACK table: no later block can be decoded, only its end be found.
            self._blocks_are_lost = True
            block.clear()
            self._continuations = 0
            raise TooMuch("A field block is much too long.")
        if flags & END_HEADERS:
            self._whole_block(self._block_stream, bytes(block), bool(self._block_flags & END_STREAM))

    def _whole_block(self, number: int, block: bytes, end: bool) -> None:
        if self._blocks_are_lost:
            self.block_received(number, [], 0, end)
            return
        # Decoded even if the stream is refused: later blocks depend on the HPACK table.
        fields, size = self._decoder.decode(block, self.max_header_size)
        self.block_received(number, fields, size, end)

    def _settings_frame_received(self, flags: int, payload: bytes) -> None:
        self.question_received()
        if not flags & ACK:
            settings = read_settings(payload)
            self._has_settings = True
            self.settings_received(settings)
        elif payload:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, "An acknowledgement of SETTINGS is not empty.")
        elif not self._has_settings:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "A confirmation comes before the first SETTINGS.")

    def _ping_frame_received(self, flags: int, payload: bytes) -> None:
        self.question_received()
        if len(payload) != 8:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, "PING of a wrong length.")
        self.ping_received(payload, bool(flags & ACK))
