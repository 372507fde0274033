# Compiled: see docs/decisions/compiled.md
"""Chooses the connection to close for a new one at ``max_connections``, and counts those of each address."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from apigw.wire.address import client_of

GRACE: Final = 2.0
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


class Crowd:
    """How many connections each client has, by its address. Those of this machine and of a unix socket do not count."""

    def __init__(self) -> None:
        self._open: dict[bytes, int] = {}

    def came(self, peer: bytes) -> None:
        client = counted(peer)
        if client is not None:
            self._open[client] = self._open.get(client, 0) + 1

    def left(self, peer: bytes) -> None:
        client = counted(peer)
        if client is not None:
            left = self._open.get(client, 0) - 1
            if left > 0:
                self._open[client] = left
            else:
                self._open.pop(client, None)

    def has(self, peer: bytes) -> int:
        client = counted(peer)
        return 0 if client is None else self._open.get(client, 0)


_LOOPBACK = (b"4\x7f", b"6" + bytes(8))
"""127.0.0.0/8, and the /64 of ::1, in which nothing else can be (RFC 4291 §2.5.3)."""


@lru_cache(4096)
def counted(peer: bytes) -> bytes | None:
    """The client of whom a connection is, as connections are counted; None if it does not count."""
    client = client_of(peer.decode("ascii"))
    return None if client is None or client.startswith(_LOOPBACK) else client
