# Compiled: see docs/decisions/compiled.md
"""How a target does: failures in a row, its ejection, and the request by which it comes back (outlier detection).

in use ──── failures in a row ────▶ ejected ──── its time is over ────▶ on probation
   ▲                                   ▲                                  │      │
   └──────────────── the probe succeeds ──────────────────────────────────┘      │
                                       └──────────── the probe fails ────────────┘
"""

from __future__ import annotations

from typing import Final

LONGEST: Final = 300.0
"""Seconds that an ejection takes at most, as with Envoy's ``max_ejection_time``. One that begins later than this after
the last one takes no longer than the first."""

PROBE_LEASE: Final = 2.0
"""Seconds after which another request is let through, if the probe has not ended by then: its client may have left, or
the service may be slow."""


class Standing:
    """Of a process that is alone; workers share a subclass. Times are seconds of the reactor."""

    def __init__(self, first: float = 10.0) -> None:
        """``first``: seconds of the first ejection. Each further one takes twice as long, up to ``LONGEST``."""
        self.first = first
        self._failures = 0
        self._until = 0.0
        self._ended = 0.0
        self._length = 0.0
        self._probing_until = 0.0

    @property
    def until(self) -> float:
        """Until when it is ejected; in the past while it is on probation, 0 while it is in use."""
        return self._until

    def lately(self, now: float) -> bool:
        """Whether it is ejected, or was up to ``LONGEST`` ago."""
        return self._length > 0 and now - self._ended <= LONGEST

    def succeeded(self) -> None:
        """The row of failures has ended."""
        self._failures = 0

    def failed(self) -> int:
        """Count a failure. How many there are in a row now; 0 if it could not be counted."""
        self._failures += 1
        return self._failures

    def eject(self, now: float) -> float:
        """Eject it, unless that has been done. Until when it is."""
        if self._until <= now:
            self._length = next_length(self.first, self._length, self._ended, now)
            self._until = self._ended = now + self._length
            self._failures = 0
            self._probing_until = 0.0
        return self._until

    def take_probe(self, now: float) -> bool:
        """Whether a request may be the probe, now that the time of its ejection is over. One at a time is."""
        if now < self._probing_until:
            return False
        self._probing_until = now + PROBE_LEASE
        return True

    def readmit(self) -> None:
        """It is in use again."""
        self._until = 0.0
        self._failures = 0


def next_length(first: float, length: float, ended: float, now: float) -> float:
    """Seconds of an ejection, after one of ``length`` whose time was over at ``ended``; 0 and 0 if there was none."""
    if not length or now - ended > LONGEST:
        return min(first, LONGEST)
    return min(2 * length, LONGEST)
