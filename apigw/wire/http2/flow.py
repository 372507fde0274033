# Compiled: see docs/decisions/compiled.md
"""The windows of one stream (RFC 9113 §6.9), and the bytes that wait for them, for client and server."""

from __future__ import annotations

from typing import Final, final

from apigw.wire.http2.bounds import STREAM_WINDOW, WORTHWHILE
from apigw.wire.http2.endpoint import Endpoint
from apigw.wire.http2.frames import DATA, END_STREAM, LARGEST_FRAME, LARGEST_WINDOW, Code, StreamFault, window_frame

GIVE_BACK: Final = STREAM_WINDOW // 4
"""Bytes. Smaller amounts of window are not given back."""
UNSENT_HIGH: Final = 64 * 1024
"""Bytes that wait. With more, the source is paused, until at most ``UNSENT_LOW`` are left."""
UNSENT_LOW: Final = 16 * 1024

# What ``Flow.send`` did.
NOTHING: Final = 0
"""There is nothing to send."""
BLOCKED: Final = 1
"""A window or the transport has no room."""
SENT: Final = 2
LAST: Final = 3
"""The frame with END_STREAM is sent."""


@final
class Flow:
    """``send_window`` is what the other side takes, and may be negative. ``unsent`` is the number of waiting bytes."""

    def __init__(self, connection: Endpoint, number: int, send_window: int) -> None:
        self.number = number
        self.send_window = send_window
        self.unsent = 0
        self.trailers: bytes | None = None
        """The field block that is sent behind the last of these bytes."""
        self.taken = 0
        """Bytes that have arrived and been passed on, and whose window was not given back yet."""
        self._connection = connection
        self._receive_window = STREAM_WINDOW
        self._whole = b""  # what waits, from ``_at`` on: usually all of an answer, which is not copied
        self._at = 0
        self._more: bytearray | None = None  # what waits, if it came in several pieces

    # From the other side.

    def received(self, length: int, padding: int) -> None:
        """A DATA frame of ``length`` bytes. Raises ``StreamFault``."""
        self._receive_window -= length
        if self._receive_window < 0:
            raise StreamFault(Code.FLOW_CONTROL_ERROR, "More DATA than the stream's window allows.")
        self.taken += padding

    def give_back(self) -> None:
        """Open the other side's window again by what was ``taken``."""
        if self.taken >= GIVE_BACK:
            self._receive_window += self.taken
            self._connection.emit(window_frame(self.number, self.taken))
            self.taken = 0

    def window_received(self, increment: int) -> None:
        """WINDOW_UPDATE. Raises ``StreamFault``."""
        if not increment:
            raise StreamFault(Code.PROTOCOL_ERROR, "WINDOW_UPDATE with an increment of 0.")
        self.widen(increment)

    def widen(self, increment: int) -> None:
        """It may be negative, by a new setting (RFC 9113 §6.9.2). Raises ``StreamFault``."""
        self.send_window += increment
        if self.send_window > LARGEST_WINDOW:
            raise StreamFault(Code.FLOW_CONTROL_ERROR, "A window exceeds 2^31-1.")

    # To the other side.

    def add(self, data: bytes) -> None:
        """``data`` waits to be sent."""
        if not self.unsent:
            self._whole = data
            self._at = 0
        else:
            if self._more is None:
                self._more = bytearray(self._whole[self._at :])
                self._whole = b""
            self._more += data
        self.unsent += len(data)

    def clear(self) -> None:
        self.unsent = 0
        self._whole = b""
        self._more = None

    def may_send(self) -> bool:
        """Whether both windows and the transport have room."""
        connection = self._connection
        return self.send_window > 0 and connection.send_window > 0 and not connection.writing_paused

    def send(self, ending: bool) -> int:
        """Send one DATA frame, of what waits, as far as there is room. ``ending``: nothing comes after it."""
        connection = self._connection
        length = size = self.unsent
        if length:
            if not self.may_send():
                return BLOCKED
            size = min(length, self.send_window, connection.send_window, LARGEST_FRAME)
        elif not ending:
            return NOTHING
        last = ending and size == length
        ends = last and self.trailers is None
        piece = self._take(size)
        self.send_window -= size
        connection.send_window -= size
        if size == length or size >= WORTHWHILE:
            connection.bounds.data_frames += 1
        if size or ends:
            connection.emit_frame(DATA, END_STREAM if ends else 0, self.number, piece)
        if last and self.trailers is not None:
            connection.emit_head(self.number, self.trailers, True)
        return LAST if last else SENT

    def _take(self, size: int) -> bytes:
        more = self._more
        self.unsent -= size
        if more is None:
            at = self._at
            self._at = end = at + size
            if self.unsent:
                return self._whole[at:end]
            whole, self._whole = self._whole, b""
            return whole[at:] if at else whole
        if not self.unsent:
            self._more = None
            return bytes(more)
        piece = bytes(more[:size])
        del more[:size]
        return piece
