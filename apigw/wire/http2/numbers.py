"""Which streams of a connection were used: RFC 9113 §5.1.1."""

from __future__ import annotations

from collections import deque

from apigw.wire.http2.bounds import MOST_CLOSED
from apigw.wire.http2.frames import Code, ConnectionFault

MOST_GAPS = 16
"""Skipped numbers that are remembered, to say the right code for one that comes late."""


class Numbers:
    """The other side opens streams by rising numbers. What comes for a closed one is forgiven only while the other side
    cannot know that we closed it.
    """

    def __init__(self) -> None:
        self.last = 0
        """The highest that was used."""
        self._closed_early: dict[int, None] = {}
        self._gaps: deque[range] = deque(maxlen=MOST_GAPS)

    def is_new(self, number: int) -> bool:
        """Whether a field block opens this stream."""
        last = self.last
        if number <= last:
            return False
        if not number & 1:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "A client's streams have odd numbers.")
        if number > last + 2:
            self._gaps.append(range(last + 1, number))
        self.last = number
        return True

    def closed_early(self, number: int) -> None:
        """We have closed a stream that the other side has not ended."""
        self._closed_early[number] = None
        if len(self._closed_early) > MOST_CLOSED:
            del self._closed_early[next(iter(self._closed_early))]

    def reset(self, number: int) -> None:
        """The other side resets a stream that is not open."""
        if not number or number > self.last:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "RST_STREAM for a stream that is idle.")
        self._closed_early.pop(number, None)

    def check_late(self, number: int, end: bool) -> None:
        """DATA or HEADERS for a stream that is not open."""
        if number not in self._closed_early:
            was_open = 0 < number <= self.last and not any(number in gap for gap in self._gaps)
            raise ConnectionFault(Code.STREAM_CLOSED if was_open else Code.PROTOCOL_ERROR, "The stream is not open.")
        if end:
            del self._closed_early[number]
