# Compiled: see docs/decisions/compiled.md
"""New connections of clients: detects their HTTP version."""

from __future__ import annotations

from typing import Any, Final, final

from twisted.internet.interfaces import IAddress, IProtocolFactory, ISSLTransport, ITransport
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import classImplements

from apigw.wire.errors import Refused
from apigw.wire.http1.server import HTTP1Channel
from apigw.wire.http2.server import HTTP2Channel
from apigw.wire.reactor.layers import arrived, replace_protocol
from apigw.wire.request import UNIX_PEER
from apigw.wire.room import Place
from apigw.wire.server import Server
from apigw.wire.server import Settings as Settings

HTTP2_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


GRACE: Final = 0.5
"""Seconds that a client has for its first request, if its connection was accepted just before the end: it has been
promised service, and its request is on its way."""


def peer_of(addr: IAddress | None) -> bytes:
    """The address of a peer in text, or ``UNIX_PEER``. On a listener for both, that of IPv4 comes mapped into IPv6."""
    host = getattr(addr, "host", None)
    if host is None:
        return UNIX_PEER
    text = str(host)
    if text.startswith("::ffff:") and "." in text:
        text = text[7:]
    return text.encode("ascii", "replace")


class ChannelFactory(Server):
    """Makes the channels of a server's listeners."""

    noisy = False

    def doStart(self) -> None:
        """A port opens."""

    def doStop(self) -> None:
        """A port has closed."""

    def buildProtocol(self, addr: IAddress | None) -> Any:
        peer = peer_of(addr)
        return Opening(self, peer) if self.admits(peer) else None


@final
class Opening:
    """A connection whose HTTP version is not known yet. ALPN or the first bytes decide it.

    Then the channel of that version replaces this protocol.
    """

    version = "opening"
    transport: Any

    def __init__(self, factory: ChannelFactory, peer: bytes) -> None:
        self._factory = factory
        self.peer = peer
        self.place = Place(self)
        self._first = b""
        self.deadline = 0.0
        self._since = 0.0
        self._secure = False

    def makeConnection(self, transport: ITransport) -> None:
        self.transport = transport
        factory = self._factory
        settings = factory.settings
        self._secure = ISSLTransport.providedBy(transport)
        # A TLS handshake has the deadline of a head; a silent plain connection is idle.
        patience: float = settings.client_header_timeout if self._secure else settings.keepalive_timeout
        self._since = factory.deadlines.seconds()
        self.deadline = self._since + patience
        factory.opened(self)
        factory.crowd.came(self.peer)

    def dataReceived(self, data: bytes) -> None:
        factory = self._factory
        if self._first:
            data = self._first + data
        h2 = self._secure and getattr(self.transport, "negotiatedProtocol", None) == b"h2"
        if h2 or data.startswith(HTTP2_PREFACE):
            self._become(HTTP2Channel(factory, self.peer, self._secure), data)
        elif not HTTP2_PREFACE.startswith(data):
            self._become(HTTP1Channel(factory, self.peer, self._secure), data)
        else:
            if not self._first:
                self.deadline = factory.deadlines.seconds() + factory.settings.client_header_timeout
            self._first = data

    def came_without_tls(self, transport: ITransport, data: bytes) -> None:
        """The client speaks HTTP without TLS, where TLS is spoken. Nothing of it is served, and it is told so."""
        self.transport = transport
        self._secure = False
        channel = HTTP1Channel(self._factory, self.peer, False)
        self._replace(channel)
        refusal = Refused(400, "The client does not speak TLS, which this port needs: use https://.")
        refusal.began_with = data
        channel.refuse(refusal)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
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
        self.transport.abortConnection()

    def _become(self, channel: Any, first: bytes) -> None:
        if self._secure:
            channel.hosts = getattr(self.transport, "hosts", None)
        self._replace(channel)
        channel.dataReceived(first)
        if self._factory.draining:
            channel.drain()

    def _replace(self, channel: Any) -> None:
        replace_protocol(self.transport, channel)
        self._factory.replaced(self)
        channel.makeConnection(self.transport)


classImplements(ChannelFactory, IProtocolFactory)
