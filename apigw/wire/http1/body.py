# Compiled: see docs/decisions/compiled.md
"""The body of one request: its framing (RFC 9112 §6.3), and its least rate."""

from __future__ import annotations

from typing import Final

from apigw.wire.headers import Headers
from apigw.wire.http1.chunked import ChunkedBody
from apigw.wire.pace import Pace
from apigw.wire.server import Settings

MOST_DROPPED: Final = 64 * 1024
"""Maximum bytes of an unneeded body that are read to keep the connection. With more, closing it is cheaper."""


class RequestBody:
    """Separates one body from what follows it. ``complete`` is set when its last byte has been taken."""

    def __init__(self, length: int | None, settings: Settings) -> None:
        """``length`` is None for a chunked body. ``client_least_rate`` applies only to a known length."""
        self.complete = False
        self._left = 0 if length is None else length
        self._chunks: ChunkedBody | None = None
        self._least_rate: int | None = None
        if length is None:
            self._chunks = ChunkedBody(settings.max_header_size, settings.max_header_count)
        else:
            self._least_rate = settings.client_least_rate
        self._pace: Pace | None = None  # from the first piece on

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        """Split ``data`` into bytes of the body and bytes behind its end. Raises ``Refused``."""
        if self._chunks is not None:
            piece, rest = self._chunks.feed(data)
            self.complete = self._chunks.complete
            return piece, rest
        piece, rest = (data, b"") if len(data) <= self._left else (data[: self._left], data[self._left :])
        self._left -= len(piece)
        self.complete = not self._left
        return piece, rest

    def trailers(self) -> Headers | None:
        """Those of a complete body, None if there are none."""
        return self._chunks.trailers or None if self._chunks is not None else None

    def may_be_dropped(self) -> bool:
        """Whether reading the rest costs less than a new connection would."""
        return self._chunks is None and self._left <= MOST_DROPPED

    def is_slow(self, size: int, now: float) -> bool:
        """Count ``size`` received bytes. Returns whether the body is below its least rate."""
        if self._least_rate is None:
            return False
        if self._pace is None:
            self._pace = Pace(self._least_rate, now)
        return self._pace.is_slow(size, now)

    def pause(self, now: float) -> None:
        """Stop the measurement, while reading from the client is paused."""
        if self._pace is not None:
            self._pace.pause(now)

    def resume(self, now: float) -> None:
        if self._pace is not None:
            self._pace.resume(now)
