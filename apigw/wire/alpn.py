"""An endpoint whose connections speak what the server chooses by ALPN (RFC 7301), known after the handshake."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHandshakeListener, IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from apigw.wire.reactor.connecting import OneConnection
from apigw.wire.reactor.layers import replace_protocol


class OtherProtocol(Exception):
    """The server has chosen the other protocol. ``transport`` is the connection, for ``take_over``."""

    def __init__(self, transport: Any) -> None:
        super().__init__("the service chooses another protocol by ALPN")
        self.transport = transport


@implementer(IHandshakeListener)
class Handshake(Protocol):
    """The protocol of a connection until its TLS handshake is complete. ``ended`` fires with the transport."""

    transport: Any = None

    def __init__(self) -> None:
        self.connecting: Deferred[Any] | None = None
        self.ended: Deferred[Any] = Deferred(lambda _: self._cancel())

    def handshakeCompleted(self) -> None:
        if not self.ended.called:
            self.ended.callback(self.transport)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.failed(reason)

    def failed(self, reason: Failure) -> None:
        if not self.ended.called:
            self.ended.errback(reason)

    def _cancel(self) -> None:
        if self.transport is not None:
            self.transport.abortConnection()
        elif self.connecting is not None:
            self.connecting.cancel()


@implementer(IStreamClientEndpoint)
class ByALPN:
    """``endpoint`` is over TLS, and offers both versions. Connecting fails with ``OtherProtocol`` if the server chooses
    the one that is not wanted.
    """

    def __init__(self, endpoint: IStreamClientEndpoint, http2: bool) -> None:
        self._endpoint = endpoint
        self._http2 = http2

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        handshake = Handshake()
        handshake.connecting = self._endpoint.connect(OneConnection(handshake))
        handshake.connecting.addCallbacks(lambda _: None, handshake.failed)
        return handshake.ended.addCallback(self._shaken, protocolFactory)

    def _shaken(self, transport: Any, factory: Any) -> Any:
        if (transport.negotiatedProtocol == b"h2") is not self._http2:
            raise OtherProtocol(transport)
        connection = factory.buildProtocol(None)
        take_over(transport, connection)
        return connection


def take_over(transport: Any, protocol: Any) -> None:
    """Make ``protocol`` that of a connection whose handshake is complete."""
    replace_protocol(transport, protocol)
    protocol.makeConnection(transport)
    protocol.handshakeCompleted()
