# Compiled: see docs/decisions/compiled.md
"""Finds the slowest of the clients that hold a pool's connections."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

from apigw.wire.interfaces import Receiver, UpstreamConnection

OVER: Final = 5.0
"""Seconds over which a rate is taken, or as many as an exchange was seen for, at least ``SEEN``. What it moved until it
was seen for the second time does not count: that fills the buffers of the kernels, however slow the client is."""
SEEN: Final = 0.5
LEAST: Final = 1024.0
"""Bytes a second. A client at this rate or above is not slow."""


class Slowest:
    """Samples the progress of exchanges, and keeps the samples for ``OVER``.

    Only exchanges that wait for their client count, to send a body or to read an answer. Waiting for the service does
    not count against the client.
    """

    def __init__(self) -> None:
        self._looks: deque[tuple[float, dict[Receiver, int]]] = deque()
        """When, and what each had moved that was seen before."""
        self._seen: dict[Receiver, int] = {}
        """What each had moved at the last look."""

    def forget(self) -> None:
        self._looks.clear()
        self._seen.clear()

    def look(self, connections: Iterable[UpstreamConnection], now: float) -> Receiver | None:
        """The one with the lowest rate, if that is below ``LEAST``."""
        looks = self._looks
        while looks and now - looks[0][0] > OVER:
            looks.popleft()
        seen, self._seen = self._seen, {}
        moved: dict[Receiver, int] = {}
        slowest: Receiver | None = None
        lowest = LEAST
        for connection in connections:
            receiver = connection.receiver
            count = None if receiver is None else receiver.moved()
            if receiver is None or count is None:
                continue
            self._seen[receiver] = count
            if receiver not in seen:
                continue
            moved[receiver] = count
            for then, before in looks:
                if receiver in before:
                    seconds = now - then
                    if seconds >= SEEN and (count - before[receiver]) / seconds < lowest:
                        lowest = (count - before[receiver]) / seconds
                        slowest = receiver
                    break
        looks.append((now, moved))
        return slowest
