"""Load shedding: decides by the lag of the reactor whether new requests are refused."""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

log = Logger()


class Shedding:
    """Refuses new requests while the reactor is late.

    They are refused from the second sample in a row above the maximum, to the first that is not. This is CoDel's
    criterion (RFC 8289 §4.2): the least delay of an interval, not the greatest, tells a queue that stands from a burst
    that drains by itself. Its interval of 100 ms is that of ``LagProbe``'s samples. So one long turn of the reactor,
    such as a collection of garbage or a machine that was paused, refuses nothing.
    """

    def __init__(self, late: Callable[[bool], object], most: Callable[[], float | None]) -> None:
        """``late`` is told when it begins and ends. ``most`` returns the maximum lag in seconds, None for none."""
        self._late = late
        self._most = most
        self._was_above = False
        self._sheds = False

    def observe(self, lag: float) -> None:
        """A sample of the lag, in seconds."""
        most = self._most()
        above = most is not None and lag > most
        sheds = above and self._was_above
        self._was_above = above
        if sheds == self._sheds:
            return
        self._sheds = sheds
        self._late(sheds)
        if sheds:
            log.warn("the reactor is late by {lag:.2f} s: new requests are refused (gateway.max_lag)", lag=lag)
        else:
            log.info("the reactor is late by {lag:.2f} s: new requests are accepted again", lag=lag)
