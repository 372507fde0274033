"""One address whose service chooses the protocol of each connection: what waits goes where the choice leads."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from support.fake_transport import FakeTransport
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import directlyProvides

from apigw.wire.alpn import ByALPN
from apigw.wire.deadlines import Deadlines
from apigw.wire.errors import ConnectFailed
from apigw.wire.http1.client import HTTP1Connection
from apigw.wire.http2.exchange import HTTP2Exchange
from apigw.wire.http2.streams import http2_pool
from apigw.wire.negotiated import Negotiated
from apigw.wire.pool import Pool, PoolSettings

from .test_pool import Endpoint


class SecureTransport(FakeTransport):
    """Over TLS, as far as those can tell who use it."""

    wrappedProtocol: Any = None
    negotiatedProtocol: bytes | None = None

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.transport = FakeTransport(clock)


class Scene:
    def __init__(self) -> None:
        self.clock = Clock()
        self.deadlines = Deadlines(self.clock)
        self.endpoint = Endpoint(self.clock)
        settings = PoolSettings(connect_timeout=5, max_connections=3)
        one = Pool(ByALPN(self.endpoint, False), partial(HTTP1Connection, self.deadlines), settings, self.deadlines)
        two = http2_pool(self.deadlines, b"https", ByALPN(self.endpoint, True), settings)
        self.pool = Negotiated(one, two)

    def ask(self) -> list[Any]:
        """What the request gets, once it gets it."""
        got: list[Any] = []
        self.deferred: Deferred[Any] = self.pool.connect()
        self.deferred.addBoth(got.append)
        return got

    def accept(self) -> SecureTransport:
        factory, attempt = self.endpoint.attempts.pop(0)
        handshake = factory.buildProtocol(None)
        transport = SecureTransport(self.clock)
        directlyProvides(transport, ISSLTransport)
        transport.wrappedProtocol = handshake
        handshake.makeConnection(transport)
        attempt.callback(handshake)
        return transport

    def choose(self, protocol: bytes | None) -> SecureTransport:
        transport = self.accept()
        transport.negotiatedProtocol = protocol
        transport.wrappedProtocol.handshakeCompleted()
        return transport


@pytest.mark.parametrize("protocol", [b"http/1.1", None])
def test_the_first_connection_shows_the_way(protocol: bytes | None) -> None:
    """It is the only one until its handshake is complete. Then HTTP/1.1 gets one for each that waits."""
    scene = Scene()
    first, second = scene.ask(), scene.ask()
    assert len(scene.endpoint.attempts) == 1
    scene.choose(protocol)
    assert isinstance(first[0], HTTP1Connection)
    assert (second, len(scene.endpoint.attempts)) == ([], 1)
    scene.choose(protocol)
    assert isinstance(second[0], HTTP1Connection)
    assert scene.pool.connections == 2


def test_streams_share_what_was_made_for_one() -> None:
    """Also where HTTP/1.1 was chosen before, so that several connections are being made at once."""
    scene = Scene()
    scene.ask()
    scene.choose(b"http/1.1")
    asked = [scene.ask(), scene.ask()]
    assert len(scene.endpoint.attempts) == 2
    scene.choose(b"h2")
    assert isinstance(asked[0][0], HTTP2Exchange)
    scene.choose(b"h2")
    assert isinstance(asked[1][0], HTTP2Exchange)
    assert isinstance(scene.pool.take(), HTTP2Exchange)


def test_a_client_that_left_meanwhile_leaves_a_free_connection() -> None:
    """Whichever protocol it was asked for."""
    for protocol, kind in ((b"http/1.1", HTTP1Connection), (b"h2", HTTP2Exchange)):
        scene = Scene()
        scene.ask()
        scene.choose(b"http/1.1")
        left = scene.ask()
        scene.deferred.cancel()
        assert left[0].check(CancelledError)
        scene.choose(protocol)
        assert isinstance(scene.pool.take(), kind)


def test_a_handshake_that_fails_is_no_connection() -> None:
    """The service's end, and the time that it takes, are both told."""
    scene = Scene()
    asked = scene.ask()
    scene.accept().wrappedProtocol.connectionLost(Failure(ConnectionLost()))
    assert asked[0].check(ConnectFailed)
    late = scene.ask()
    transport = scene.accept()
    scene.clock.advance(5)
    scene.deadlines.check()
    assert transport.disconnecting or transport.aborted
    assert late[0].check(ConnectFailed)
