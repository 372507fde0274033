# Compiled: see docs/decisions/compiled.md
"""Chooses the connection to close for a new one at ``max_connections``, and counts those of each address."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, final

from apigw.wire.address import client_of

GRACE: Final = 2.0
"""Seconds in which a connection may begin before it has to make room: a TLS handshake takes two round trips and a
request another, and lost packets are sent again after a second (RFC 6298 §2.1)."""


@final
class Place:
    """That of one connection in a ``Queue``, or in none."""

    def __init__(self, channel: Any) -> None:
        self.channel = channel
        self.queue: Queue | None = None
        self.since = 0.0
        """When it joined those that are unfinished."""
        self.before: Place | None = None
        self.behind: Place | None = None

    def leave(self) -> None:
        """Leave the queue, if it is in one."""
        queue = self.queue
        if queue is None:
            return
        before, behind = self.before, self.behind
        self.queue = self.before = self.behind = None
        if before is None:
            queue.first = behind
        else:
            before.behind = behind
        if behind is None:
            queue.last = before
        else:
            behind.before = before

    def end(self) -> None:
        """Leave for good: the connection is closed."""
        self.leave()
        self.channel = None


@final
class Queue:
    """Connections, the first one first. To come or go takes a few assignments, wherever in the queue it is."""

    def __init__(self) -> None:
        self.first: Place | None = None
        self.last: Place | None = None

    def add(self, place: Place) -> None:
        """Add a place at the end. It leaves the queue in which it is."""
        place.leave()
        last = self.last
        place.queue, place.before = self, last
        if last is None:
            self.first = place
        else:
            last.behind = place
        self.last = place


class Room:
    """Tracks whether each open connection is busy, idle or unfinished. Choosing one takes constant time.

    A busy connection, with a request, a body, an answer or a tunnel, is never chosen.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self.kept = Queue()
        """The idle ones: a connection that serves one request after the other comes and goes there by itself."""
        self._unfinished = Queue()

    def unfinished(self, channel: Any) -> None:
        """The connection is in its TLS handshake, has sent no complete head, or was refused."""
        place: Place = channel.place
        if place.queue is not self._unfinished:
            self._unfinished.add(place)
            place.since = self._seconds()

    def busy(self, channel: Any) -> None:
        place: Place = channel.place
        place.leave()

    def idle(self, channel: Any) -> None:
        """The connection is kept alive after an answer. No effect if it is idle already."""
        place: Place = channel.place
        if place.queue is not self.kept:
            self.kept.add(place)

    def first(self) -> Any:
        """The connection to close: the longest idle, else the longest unfinished if older than ``GRACE``, else None.

        So a flood of silent connections cannot displace newer ones that are about to send a request.
        """
        place = self.kept.first
        if place is not None:
            return place.channel
        place = self._unfinished.first
        return place.channel if place is not None and self._seconds() - place.since > GRACE else None


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
