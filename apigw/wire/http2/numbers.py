# Compiled: see docs/decisions/compiled.md
"""The stream identifiers that a connection has used (RFC 9113 §5.1.1)."""

from __future__ import annotations

from collections import deque
from typing import Final, final

from apigw.wire.http2.bounds import MOST_CLOSED
from apigw.wire.http2.frames import Code, ConnectionFault

MOST_GAPS: Final = 16
"""Ranges of skipped numbers that are remembered, for the right error code when one is used later."""


@final
class Numbers:
    """Checks the numbers of streams, which must increase. A frame for a closed stream is allowed only if the other side
    may not have noticed that we closed it.
    """

    def __init__(self) -> None:
        self.last = 0
        """The highest number used."""
        self._closed_early: dict[int, None] = {}
        self._gaps: deque[range] = deque(maxlen=MOST_GAPS)

    def is_new(self, number: int) -> bool:
        """Whether a field block on this stream opens it. Raises ``ConnectionFault`` for an even number."""
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
        """Count a stream that we closed before the other side ended it."""
        self._closed_early[number] = None
        if len(self._closed_early) > MOST_CLOSED:
            del self._closed_early[next(iter(self._closed_early))]

    def reset(self, number: int) -> None:
        """Check RST_STREAM for a stream that is not open. Raises ``ConnectionFault``."""
        if not number or number > self.last:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "RST_STREAM for a stream that is idle.")
        self._closed_early.pop(number, None)

    def check_late(self, number: int, end: bool) -> None:
        """Check DATA or HEADERS for a stream that is not open. Raises ``ConnectionFault``."""
        if number not in self._closed_early:
            was_open = 0 < number <= self.last and not any(number in gap for gap in self._gaps)
            raise ConnectionFault(Code.STREAM_CLOSED if was_open else Code.PROTOCOL_ERROR, "The stream is not open.")
        if end:
            del self._closed_early[number]
