# Compiled: see docs/decisions/compiled.md
"""Which connection of a client is closed for a new one, where there may be no more of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

GRACE = 2.0
"""Seconds in which a connection may begin before it has to make room: a TLS handshake takes two round trips and a
request another, and lost packets are sent again after a second (RFC 6298 §2.1)."""


class Room:
    """Every open connection is busy, idle, or unfinished: it is told of each change, and finding one looks at one.

    A busy connection is never closed: it carries a request, a body, an answer or a tunnel.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        # Unlike those of a dict, the first of these is found at once however many before it were removed. ``kept`` are
        # the idle ones: a connection that serves one request after the other comes and goes there by itself.
        self.kept: OrderedDict[Any, bool] = OrderedDict()
        self._unfinished: OrderedDict[Any, float] = OrderedDict()

    def unfinished(self, channel: object) -> None:
        """It is in the handshake, has asked nothing yet, has sent half a head, or was refused for what it sent."""
        self.kept.pop(channel, False)
        if channel not in self._unfinished:
            self._unfinished[channel] = self._seconds()

    def busy(self, channel: object) -> None:
        self.forget(channel)

    def idle(self, channel: object) -> None:
        """It has been answered, and is kept alive. One that is idle already does not become so anew."""
        if channel in self._unfinished:
            del self._unfinished[channel]
        self.kept[channel] = True

    def forget(self, channel: object) -> None:
        if not self.kept.pop(channel, False):
            self._unfinished.pop(channel, None)

    def first(self) -> Any:
        """The one to close: the longest idle, else the longest unfinished if that is older than ``GRACE``, else None.

        Whoever opens many connections and says nothing thus cannot push out those that were opened after it.
        """
        for channel in self.kept:
            return channel
        for channel, since in self._unfinished.items():
            return channel if self._seconds() - since > GRACE else None
        return None
