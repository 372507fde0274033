"""Load shedding: decides by the lag of the reactor whether new requests are refused."""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

log = Logger()


SAMPLES = 3
"""In a row. They are 100 ms apart, CoDel's interval, and what they are late."""


class Shedding:
    """Refuses new requests while the reactor is late.

    They are refused from the third sample in a row above the maximum, to the first that is not. This is CoDel's
    criterion (RFC 8289 §3.1): the least delay in an interval, not the greatest, tells a queue that stands from a burst
    that drains by itself. One long turn of the reactor, such as a collection of garbage or a pause of the machine, may
    make the next one long too, which has all that arrived in it. A third one means that more arrives than is done.
    """

    def __init__(self, late: Callable[[bool], object], most: Callable[[], float | None]) -> None:
        """``late`` is told when it begins and ends. ``most`` returns the maximum lag in seconds, None for none."""
        self._late = late
        self._most = most
        self._in_a_row = 0
        self._sheds = False

    def observe(self, lag: float) -> None:
        """A sample of the lag, in seconds."""
        most = self._most()
        self._in_a_row = self._in_a_row + 1 if most is not None and lag > most else 0
        sheds = self._in_a_row >= SAMPLES
        if sheds == self._sheds:
            return
        self._sheds = sheds
        self._late(sheds)
        if sheds:
            log.warn("the reactor is late by {lag:.2f} s: new requests are refused (gateway.max_lag)", lag=lag)
        else:
            log.info("the reactor is late by {lag:.2f} s: new requests are accepted again", lag=lag)
