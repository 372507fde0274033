# Compiled: see docs/decisions/compiled.md
"""A server: the shared state of the connections to all of its listeners, and their limit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from attrs import frozen

from apigw.wire.date import Dates
from apigw.wire.deadlines import Deadlines, Timed
from apigw.wire.errors import Refused
from apigw.wire.headers import Headers
from apigw.wire.http1.head import HeadReader
from apigw.wire.reactor.gate import Gate
from apigw.wire.request import Request
from apigw.wire.room import Crowd, Place, Room


def _nobody(peer: bytes) -> bool:
    return False


@frozen
class Settings:
    """Limits and timeouts of the wire. Sizes are bytes, times seconds, rates bytes a second."""

    client_header_timeout: float = 10.0
    client_body_timeout: float = 30.0
    client_least_rate: int | None = 1024
    client_request_timeout: float | None = None
    stream_idle_timeout: float = 3600.0
    keepalive_timeout: float = 75.0
    max_header_size: int = 32 * 1024
    max_header_count: int = 100
    max_connections: int = 10_000
    max_connections_per_address: int | None = None
    kept_oddities: int = 0
    """Bits of ``wire.target``: what a path may have, and is refused otherwise. ``Request.odd`` says what it has."""
    trusted: Callable[[bytes], bool] = _nobody
    """Whether a peer is a proxy, which has the connections of many clients."""


class Channel(Timed, Protocol):
    """A connection of a client, before or after its HTTP version is known."""

    peer: bytes
    """The other side's address; ``UNIX_PEER`` for a unix socket; empty while it is not known."""
    version: str
    """``HTTP/1.1``, ``HTTP/2``, or ``opening``."""
    place: Place

    def drain(self) -> None:
        """Finish what is in flight, accept nothing new, then close."""

    def cut(self) -> None:
        """Close now."""

    def make_room(self) -> None:
        """Close for another connection, after buffered data is sent."""


class Crowded(Protocol):
    """How many connections each client has, by the address of its connections."""

    def came(self, peer: bytes) -> None: ...
    def left(self, peer: bytes) -> None: ...
    def has(self, peer: bytes) -> int: ...


OnRequest = Callable[[Request], object]
OnRefused = Callable[[Refused, bytes, bool, bytes], tuple[int, Headers, bytes]]
"""Makes the answer from the refusal, the peer's address, whether it is TLS, and the protocol."""


OnTurnedAway = Callable[[str], object]
"""Called for each new connection that is closed at once, with the reason: ``full`` or ``address``."""


class Server:
    """``settings`` may be replaced while it runs."""

    def __init__(
        self,
        settings: Settings,
        deadlines: Deadlines,
        on_request: OnRequest,
        on_refused: OnRefused,
        now: Callable[[], float],
        on_turned_away: OnTurnedAway = lambda reason: None,
        gate: Gate | None = None,
        crowd: Crowded | None = None,
    ) -> None:
        """``now`` is Unix time, of which answers have their Date.

        ``gate`` and ``crowd`` count the connections of all processes, where others serve too.
        """
        self.settings = settings
        self.deadlines = deadlines
        self.on_request = on_request
        self._on_refused = on_refused
        self._on_turned_away = on_turned_away
        self.dates = Dates(now)
        self.heads = HeadReader()
        self.draining = False
        self.channels: dict[Channel, None] = {}
        self.room = Room(deadlines.seconds)
        self.crowd = Crowd() if crowd is None else crowd
        self._gate = gate
        self.on_empty: Callable[[], None] | None = None

    def opened(self, channel: Channel) -> None:
        self.channels[channel] = None
        self._count()
        self.room.unfinished(channel)
        self.deadlines.watch(channel)

    def replaced(self, channel: Channel) -> None:
        """Another channel has its connection, and is ``opened`` next."""
        self.channels.pop(channel, None)
        channel.place.end()
        self.deadlines.forget(channel)

    def closed(self, channel: Channel) -> None:
        self.replaced(channel)
        self._count()
        self.crowd.left(channel.peer)
        if not self.channels and self.on_empty is not None:
            self.on_empty()

    def refuse(self, refusal: Refused, peer: bytes, secure: bool, protocol: bytes) -> tuple[int, Headers, bytes]:
        """The answer to a request that could not be parsed."""
        status, headers, body = self._on_refused(refusal, peer, secure, protocol)
        return status, self.dates.dated(headers), body

    def drain(self) -> None:
        """Drain every connection."""
        self.draining = True
        for channel in list(self.channels):
            channel.drain()

    def cut(self) -> None:
        for channel in list(self.channels):
            channel.cut()

    def admits(self, peer: bytes) -> bool:
        """Whether a new connection is taken; another one may be closed for it."""
        settings = self.settings
        most = settings.max_connections_per_address
        if most is not None and self.crowd.has(peer) >= most and not settings.trusted(peer):
            self._on_turned_away("address")
            return False
        return self.make_room()

    def make_room(self) -> bool:
        """At the limit, close a connection for a new one. Returns whether the new one may stay."""
        if (len(self.channels) if self._gate is None else self._gate.total()) < self.settings.max_connections:
            return True
        channel = self.room.first()
        if channel is None:
            self._on_turned_away("full")
            return False
        # It counts no more, but has its deadline until it is gone.
        del self.channels[channel]
        self._count()
        channel.place.leave()
        channel.make_room()
        return True

    def _count(self) -> None:
        if self._gate is not None:
            self._gate.count(len(self.channels))
