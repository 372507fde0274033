"""New connections of clients: detects their HTTP version."""

from __future__ import annotations

from typing import Any

from twisted.internet import interfaces, protocol
from twisted.internet.interfaces import IAddress, ITransport
from twisted.python.failure import Failure

from apigw.wire.http1.server import HTTP1Channel
from apigw.wire.http2.server import HTTP2Channel
from apigw.wire.reactor.transport import arrived, replace_protocol
from apigw.wire.request import UNIX_PEER
from apigw.wire.server import Server
from apigw.wire.server import Settings as Settings

HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


GRACE = 0.5
"""Seconds that a client has for its first request, if its connection was accepted just before the end: it has been
promised service, and its request is on its way."""


class ChannelFactory(Server, protocol.ServerFactory):
    """Makes the channels of a server's listeners."""

    noisy = False

    def buildProtocol(self, addr: IAddress | None) -> protocol.Protocol | None:
        host = getattr(addr, "host", None)
        peer = UNIX_PEER if host is None else str(host).encode("ascii", "replace")
        return Opening(self, peer) if self.admits(peer) else None


class Opening(protocol.Protocol):
    """A connection whose HTTP version is not known yet. ALPN or the first bytes decide it.

    Then the channel of that version replaces this protocol.
    """

    version = "opening"

    def __init__(self, factory: ChannelFactory, peer: bytes) -> None:
        self._factory = factory
        self.peer = peer
        self._first = b""
        self.deadline = 0.0

    def makeConnection(self, transport: ITransport) -> None:
        self.transport = transport
        settings = self._factory.settings
        self._secure = interfaces.ISSLTransport.providedBy(transport)
        # A TLS handshake has the deadline of a head; a silent plain connection is idle.
        patience = settings.client_header_timeout if self._secure else settings.keepalive_timeout
        self._since = self._factory.deadlines.seconds()
        self.deadline = self._since + patience
        self._factory.opened(self)
        self._factory.crowd.came(self.peer)

    def dataReceived(self, data: bytes) -> None:
        if not self._first:
            self.deadline = self._factory.deadlines.seconds() + self._factory.settings.client_header_timeout
        self._first += data
        negotiated = getattr(self.transport, "negotiatedProtocol", None)
        if negotiated == b"h2" or self._first.startswith(HTTP2_PREFACE):
            self._become(HTTP2Channel(self._factory, self.peer, self._secure))
        elif not HTTP2_PREFACE.startswith(self._first):
            self._become(HTTP1Channel(self._factory, self.peer, self._secure))

    def connectionLost(self, reason: Failure = protocol.connectionDone) -> None:
        self._factory.closed(self)

    def deadline_passed(self) -> None:
        self.cut()

    def drain(self) -> None:
        if self not in self._factory.channels:
            return
        if arrived(self.transport):
            self._factory.deadlines.clock.callLater(0, self.drain)
            return
        until = self._since + GRACE
        if self._factory.deadlines.seconds() < until:
            self.deadline = min(self.deadline, until)
        else:
            self.cut()

    def make_room(self) -> None:
        self.cut()

    def cut(self) -> None:
        assert self.transport is not None
        self.transport.abortConnection()  # type: ignore[attr-defined]  # every TCP transport has it

    def _become(self, channel: Any) -> None:
        replace_protocol(self.transport, channel)
        channel.makeConnection(self.transport)
        self._factory.replaced(self)
        first, self._first = self._first, b""
        channel.dataReceived(first)
        if self._factory.draining:
            channel.drain()
