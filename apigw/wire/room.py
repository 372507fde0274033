# Compiled: see docs/decisions/compiled.md
"""Chooses the connection to close for a new one at ``max_connections``."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

GRACE = 2.0
"""Seconds in which a connection may begin before it has to make room: a TLS handshake takes two round trips and a
request another, and lost packets are sent again after a second (RFC 6298 §2.1)."""


class Room:
    """Tracks whether each open connection is busy, idle or unfinished. Choosing one takes constant time.

    A busy connection, with a request, a body, an answer or a tunnel, is never chosen.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        # Unlike those of a dict, the first of these is found at once however many before it were removed. ``kept`` are
        # the idle ones: a connection that serves one request after the other comes and goes there by itself.
        self.kept: OrderedDict[Any, bool] = OrderedDict()
        self._unfinished: OrderedDict[Any, float] = OrderedDict()

    def unfinished(self, channel: object) -> None:
        """The connection is in its TLS handshake, has sent no complete head, or was refused."""
        self.kept.pop(channel, False)
        if channel not in self._unfinished:
            self._unfinished[channel] = self._seconds()

    def busy(self, channel: object) -> None:
        self.forget(channel)

    def idle(self, channel: object) -> None:
        """The connection is kept alive after an answer. No effect if it is idle already."""
        if channel in self._unfinished:
            del self._unfinished[channel]
        self.kept[channel] = True

    def forget(self, channel: object) -> None:
        if not self.kept.pop(channel, False):
            self._unfinished.pop(channel, None)

    def first(self) -> Any:
        """The connection to close: the longest idle, else the longest unfinished if older than ``GRACE``, else None.

        So a flood of silent connections cannot displace newer ones that are about to send a request.
        """
        for channel in self.kept:
            return channel
        for channel, since in self._unfinished.items():
            return channel if self._seconds() - since > GRACE else None
        return None
