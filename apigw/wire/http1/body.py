# Compiled: see docs/decisions/compiled.md
"""The body of one request, as its head frames it (RFC 9112 §6.3), and whether it comes fast enough."""

from __future__ import annotations

from apigw.wire.http1.chunked import ChunkedBody
from apigw.wire.pace import Pace

MOST_DROPPED = 64 * 1024
"""How much of a body that nobody reads is worth reading to keep the connection; beyond it, closing is cheaper."""


class RequestBody:
    """Takes one body off what the client sends. ``complete`` when its last byte has been taken."""

    def __init__(self, length: int | None, max_trailers: int, least_rate: int | None) -> None:
        """A body of no known length is chunked. ``least_rate``, in bytes a second, is for one whose length is known."""
        self.complete = False
        self._left = 0 if length is None else length
        self._chunks: ChunkedBody | None = ChunkedBody(max_trailers) if length is None else None
        self._least_rate = least_rate if length is not None else None
        self._pace: Pace | None = None  # from the first piece on

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        """What of the body is in ``data``, and what follows its end. Raises ``Refused``."""
        if self._chunks is not None:
            piece, rest = self._chunks.feed(data)
            self.complete = self._chunks.complete
            return piece, rest
        piece, rest = (data, b"") if len(data) <= self._left else (data[: self._left], data[self._left :])
        self._left -= len(piece)
        self.complete = not self._left
        return piece, rest

    def may_be_dropped(self) -> bool:
        """Whether reading the rest costs less than a new connection would."""
        return self._chunks is None and self._left <= MOST_DROPPED

    def is_slow(self, size: int, now: float) -> bool:
        """Note that ``size`` bytes came. Whether they come more slowly than they may."""
        if self._least_rate is None:
            return False
        if self._pace is None:
            self._pace = Pace(self._least_rate, now)
        return self._pace.is_slow(size, now)

    def pause(self, now: float) -> None:
        """The client is made to wait, and is not slow meanwhile."""
        if self._pace is not None:
            self._pace.pause(now)

    def resume(self, now: float) -> None:
        if self._pace is not None:
            self._pace.resume(now)
