# Compiled: see docs/decisions/compiled.md
"""What a circuit knows: its state, and the outcomes that it has counted.

Here it is in this process; ``upstream.shared_record`` has the one that several workers share.
"""

from __future__ import annotations

from collections import deque
from enum import IntEnum
from math import ceil, inf

from apigw.config.model import CircuitBreaker

Permit = int
"""Permission to send one request, returned with its outcome. Permits since the last transition are not below the number
of that transition."""


class State(IntEnum):
    """The state. Its value is that of the metric; ``str`` is the metric's label."""

    CLOSED = 0
    OPEN = 1
    HALF_OPEN = 2

    def __str__(self) -> str:
        return ("closed", "open", "half-open")[self]


# Looking up the members on the class takes as long as the rest of ``Breaker.admit``.
CLOSED, OPEN, HALF_OPEN = State


class Outcomes:
    """Successes and failures of the last ``window`` seconds in one-second buckets, for seconds with outcomes."""

    def __init__(self, window: float) -> None:
        self._seconds = max(1, ceil(window))
        self._buckets: deque[list[int]] = deque()
        self.clear()

    def clear(self) -> None:
        self._buckets.clear()
        self._latest = [0, 0, 0]
        self._second = -inf
        self.total = self.failures = 0

    def add(self, failed: bool, now: float) -> None:
        if now >= self._second + 1:
            self.expire(now)
            second = int(now)
            self._second = float(second)
            self._latest = [second, 0, 0]
            self._buckets.append(self._latest)
        self._latest[1] += 1
        self.total += 1
        if failed:
            self._latest[2] += 1
            self.failures += 1

    def expire(self, now: float) -> None:
        buckets = self._buckets
        oldest = int(now) - self._seconds
        if self._second <= oldest:
            self.clear()
        while buckets and buckets[0][0] <= oldest:
            _, total, failures = buckets.popleft()
            self.total -= total
            self.failures -= failures


class Record:
    """``state`` and ``generation`` are right after ``look``; the other attributes between ``begin`` and ``end``.

    In between nobody else has them. Times are seconds of the clock.
    """

    def __init__(self, config: CircuitBreaker) -> None:
        self.state: State = CLOSED
        self.generation: Permit = 0
        """The number of the last transition."""
        self.last: Permit = 0
        """The last number that was given out."""
        self.why = "new"
        """The reason of the last transition."""
        self.since: float | None = None
        """When that was."""
        self.forced = False
        """Whether an operator opened or closed the circuit, and did not free it."""
        self.opened = 0
        """How often it opened."""
        self.open_for = config.open_for
        """How long it stays open, if it is."""
        self.closed_at: float | None = None
        """When it was last closed for its successes."""
        self.passed = 0
        """Probes that have succeeded since it is half-open."""
        self.probes: dict[Permit, float] = {}
        """Probes that have a place, and until when; in the order in which they end."""
        self.checked_until = 0.0
        """Until when the health check of a half-open circuit is under way."""
        self.failures = 0
        """Of the outcomes in the window, all since the last transition."""
        self.total = 0
        """Number of outcomes in the window."""
        self._outcomes = Outcomes(config.window)

    def look(self) -> None:
        """See whether somebody else has changed the state."""

    def begin(self, now: float) -> bool:
        """Read everything as it is at ``now``, to decide by it and change it. False if others have it for too long."""
        outcomes = self._outcomes
        outcomes.expire(now)
        self.failures, self.total = outcomes.failures, outcomes.total
        return True

    def end(self, changed: bool) -> None:
        """After ``begin``. ``changed``: whether anything was; of the outcomes it is known."""

    def add(self, failed: bool, now: float) -> bool:
        """Count an outcome of a closed circuit. Returns whether it may be one too many."""
        outcomes = self._outcomes
        outcomes.add(failed, now)
        return outcomes.failures > 0

    def forget(self) -> None:
        """Forget the outcomes and the probes: there was a transition."""
        self._outcomes.clear()
        self.failures = self.total = self.passed = 0
        self.probes.clear()

    def used(self, now: float) -> None:
        """Say that the circuit is in use. Called twice a second where others share it."""
