"""Connections to services end after an age and a number of requests, and no request is lost with them."""

from __future__ import annotations

from typing import Any

import pytest
from support.http2_client import Pipe
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from apigw.wire.deadlines import Deadlines
from apigw.wire.http2.streams import Streams, http2_pool
from apigw.wire.pool import ENDLESS, PoolSettings, jittered

from .http2.test_client import Asker
from .test_pool import Endpoint, Setup, use


def test_the_bounds_are_a_little_less_at_random() -> None:
    """By up to a tenth, so that connections that began together do not end together."""
    drawn = [jittered(300) for _ in range(200)]
    assert min(drawn) >= 270
    assert max(drawn) <= 300
    assert max(drawn) - min(drawn) > 10


@pytest.mark.parametrize(("age", "requests", "begun"), [(1.0, ENDLESS, 1), (1000.0, 3, 3), (1000.0, 1, 1)])
def test_a_connection_past_its_age_is_closed_when_it_is_free(age: float, requests: int, begun: int) -> None:
    """Its last exchange is whole, and another connection is made for who waits."""
    setup = Setup(PoolSettings(keepalive_timeout=60, max_connections=1, max_age=age, max_requests=requests))
    connection, transport = setup.open()
    for number in range(begun):
        waiting = setup.pool.connect() if number == begun - 1 else None
        if waiting is not None and age == 1.0:
            setup.wait(1.0)
        assert not transport.closed
        assert use(connection, transport).end == "finished"
        if waiting is None:
            taken = setup.pool.take()
            assert taken is not None
    assert transport.disconnecting or transport.closed
    assert setup.pool.take() is None
    assert len(setup.endpoint.attempts) == 1
    setup.endpoint.accept()
    assert setup.pool.connections == 1


def test_an_idle_connection_ends_at_its_age() -> None:
    """Without waiting for the end of ``keepalive_timeout``."""
    setup = Setup(PoolSettings(keepalive_timeout=60, max_age=10))
    connection, transport = setup.open()
    use(connection, transport)
    setup.wait(8.5)
    assert not transport.disconnecting
    setup.wait(2.0)
    assert transport.disconnecting or transport.closed
    assert setup.pool.take() is None


class Scene:
    """Streams, and the connections that are made for them."""

    def __init__(self, settings: PoolSettings) -> None:
        self.clock = Clock()
        self.deadlines = Deadlines(self.clock)
        self.endpoint = Endpoint(self.clock)
        self.streams: Streams = http2_pool(self.deadlines, b"http", self.endpoint, settings)

    def ask(self) -> Any:
        """An exchange, on a connection that is made if there is none."""
        exchange: Any = self.streams.take()
        if exchange is None:
            given: list[Any] = []
            connecting: Deferred[Any] = self.streams.connect()
            connecting.addCallback(given.append)
            client = self.endpoint.attempts.pop()[0].buildProtocol(None)
            self.pipe = Pipe()
            self.pipe.protocol = client
            client.makeConnection(self.pipe)
            (exchange,) = given
        exchange.send(b"GET", b"/", b"main", [], 0, False, 10.0, Asker())
        exchange.finish()
        return exchange


def test_streams_of_an_old_connection_end_by_themselves() -> None:
    """New ones begin on another connection, and the old one is closed behind its last stream."""
    scene = Scene(PoolSettings(max_age=100))
    old, pipe = scene.ask(), scene.pipe
    scene.clock.advance(89)
    scene.ask()
    assert scene.pipe is pipe
    scene.clock.advance(11)
    scene.ask()
    assert scene.pipe is not pipe
    assert not pipe.disconnecting
    for exchange in list(old._client._exchanges.values()):
        exchange.abandon()
    assert pipe.disconnecting


def test_so_many_streams_and_no_more_begin_on_a_connection() -> None:
    """The last ones too are answered."""
    scene = Scene(PoolSettings(max_requests=1))
    first, pipe = scene.ask(), scene.pipe
    second = scene.ask()
    assert scene.pipe is not pipe
    assert first._client is not second._client
    assert not pipe.disconnecting
    first.abandon()
    assert pipe.disconnecting
