"""Listening: which HTTP version a new connection speaks, how many there may be, and what they all share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from attrs import frozen
from twisted.internet import interfaces, protocol
from twisted.internet.interfaces import IAddress, IProtocolNegotiationFactory, ITransport
from twisted.python.failure import Failure
from zope.interface import implementer

from apigw.wire.date import Dates
from apigw.wire.deadlines import Deadlines, Timed
from apigw.wire.errors import Refused
from apigw.wire.headers import Headers
from apigw.wire.http1.server import HTTP1Channel
from apigw.wire.http2.server import HTTP2Channel
from apigw.wire.reactor.transport import replace_protocol
from apigw.wire.request import Request
from apigw.wire.room import Room

HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@frozen
class Settings:
    """Limits and timeouts of the wire. Sizes are bytes, times seconds, rates bytes a second."""

    client_header_timeout: float = 10.0
    client_body_timeout: float = 30.0
    client_least_rate: int | None = 1024
    keepalive_timeout: float = 75.0
    max_header_size: int = 32 * 1024
    max_header_count: int = 100
    max_connections: int = 10_000


class Channel(Timed, Protocol):
    """A connection that has found its HTTP version, or is about to."""

    version: str
    """``HTTP/1.1``, ``HTTP/2``, or ``opening``."""

    def drain(self) -> None:
        """Finish what is in flight, accept nothing new, then close."""

    def cut(self) -> None:
        """Close now."""

    def make_room(self) -> None:
        """Close for another connection. What was answered still reaches the client."""


OnRequest = Callable[[Request], object]
OnRefused = Callable[[Refused, bytes, bool, bytes], tuple[int, Headers, bytes]]
"""Given the refusal, the peer's address, whether TLS is on, and the protocol: what the client is answered."""


@implementer(IProtocolNegotiationFactory)
class ChannelFactory(protocol.ServerFactory):
    """Makes the channels of every listener of one server; ``settings`` may be replaced while it runs."""

    noisy = False

    def __init__(
        self,
        settings: Settings,
        deadlines: Deadlines,
        on_request: OnRequest,
        on_refused: OnRefused,
        now: Callable[[], float],
    ) -> None:
        """``now`` is Unix time, of which answers have their Date."""
        self.settings = settings
        self.deadlines = deadlines
        self.on_request = on_request
        self._on_refused = on_refused
        self.dates = Dates(now)
        self.draining = False
        self.channels: dict[Channel, None] = {}
        self.room = Room(deadlines.seconds)
        self.on_empty: Callable[[], None] | None = None

    def acceptableProtocols(self) -> list[bytes]:
        return [b"h2", b"http/1.1"]

    def buildProtocol(self, addr: IAddress | None) -> protocol.Protocol | None:
        if len(self.channels) >= self.settings.max_connections and not self._make_room():
            return None
        return Opening(self, str(getattr(addr, "host", "")).encode("ascii", "replace"))

    def opened(self, channel: Channel) -> None:
        self.channels[channel] = None
        self.room.unfinished(channel)
        self.deadlines.watch(channel)

    def closed(self, channel: Channel) -> None:
        self.channels.pop(channel, None)
        self.room.forget(channel)
        self.deadlines.forget(channel)
        if not self.channels and self.on_empty is not None:
            self.on_empty()

    def refuse(self, refusal: Refused, peer: bytes, secure: bool, protocol: bytes) -> tuple[int, Headers, bytes]:
        """What is answered to what is no request."""
        status, headers, body = self._on_refused(refusal, peer, secure, protocol)
        return status, self.dates.dated(headers), body

    def drain(self) -> None:
        """Tell every connection to end when its exchanges have."""
        self.draining = True
        for channel in list(self.channels):
            channel.drain()

    def cut(self) -> None:
        for channel in list(self.channels):
            channel.cut()

    def _make_room(self) -> bool:
        channel = self.room.first()
        if channel is None:
            return False
        # It counts no more, but has its deadline until it is gone.
        del self.channels[channel]
        self.room.forget(channel)
        channel.make_room()
        return True


class Opening(protocol.Protocol):
    """A connection of which nothing is known yet: ALPN or the first bytes tell the version.

    It then puts the channel in its own place as the transport's protocol.
    """

    version = "opening"

    def __init__(self, factory: ChannelFactory, peer: bytes) -> None:
        self._factory = factory
        self._peer = peer
        self._first = b""
        self.deadline = 0.0

    def makeConnection(self, transport: ITransport) -> None:
        self.transport = transport
        settings = self._factory.settings
        self._secure = interfaces.ISSLTransport.providedBy(transport)
        # A handshake is part of what must not take long; a plain connection that is silent is merely idle.
        patience = settings.client_header_timeout if self._secure else settings.keepalive_timeout
        self.deadline = self._factory.deadlines.seconds() + patience
        self._factory.opened(self)

    def dataReceived(self, data: bytes) -> None:
        if not self._first:
            self.deadline = self._factory.deadlines.seconds() + self._factory.settings.client_header_timeout
        self._first += data
        negotiated = getattr(self.transport, "negotiatedProtocol", None)
        if negotiated == b"h2" or self._first.startswith(HTTP2_PREFACE):
            self._become(HTTP2Channel(self._factory, self._peer, self._secure))
        elif not HTTP2_PREFACE.startswith(self._first):
            self._become(HTTP1Channel(self._factory, self._peer, self._secure))

    def connectionLost(self, reason: Failure = protocol.connectionDone) -> None:
        self._factory.closed(self)

    def deadline_passed(self) -> None:
        self.cut()

    def drain(self) -> None:
        self.cut()

    def make_room(self) -> None:
        self.cut()

    def cut(self) -> None:
        assert self.transport is not None
        self.transport.abortConnection()  # type: ignore[attr-defined]

    def _become(self, channel: Any) -> None:
        replace_protocol(self.transport, channel)
        channel.makeConnection(self.transport)
        self._factory.closed(self)
        first, self._first = self._first, b""
        channel.dataReceived(first)
