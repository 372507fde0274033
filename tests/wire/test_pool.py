"""The connections to one address: shared out, bounded, waited for in order, and given up in time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from attrs import define, field
from support.fake_transport import FakeTransport
from support.upstream import Recorder, send
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from apigw.wire.deadlines import Deadlines
from apigw.wire.errors import ConnectFailed, PoolExhausted
from apigw.wire.http1.client import HTTP1Connection
from apigw.wire.interfaces import UpstreamConnection
from apigw.wire.pool import Pool, PoolSettings

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
SETTINGS = PoolSettings(connect_timeout=5, keepalive_timeout=4, max_connections=2, max_pending=2)


@implementer(IStreamClientEndpoint)
class Endpoint:
    """Each attempt to connect waits for the test to let it succeed or fail."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.attempts: list[tuple[Any, Deferred[Any]]] = []
        self.cancelled = 0

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        def cancelled(_: object) -> None:
            self.cancelled += 1

        attempt: Deferred[Any] = Deferred(cancelled)
        self.attempts.append((protocolFactory, attempt))
        return attempt

    def accept(self) -> FakeTransport:
        factory, attempt = self.attempts.pop(0)
        protocol = factory.buildProtocol(None)
        transport = FakeTransport(self.clock).connect(protocol)
        attempt.callback(protocol)
        return transport

    def refuse(self) -> None:
        self.attempts.pop(0)[1].errback(ConnectionRefusedError())


@define
class Setup:
    settings: PoolSettings = field(default=SETTINGS)
    clock: Clock = field(factory=Clock)
    endpoint: Endpoint = field(init=False)
    pool: Pool = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.endpoint = Endpoint(self.clock)
        deadlines = Deadlines(self.clock)
        deadlines.start()
        self.pool = Pool(self.endpoint, partial(HTTP1Connection, deadlines), self.settings, deadlines)

    def open(self) -> tuple[HTTP1Connection, FakeTransport]:
        """A new connection, which is in use."""
        given = self.pool.connect()
        transport = self.endpoint.accept()
        return result(given), transport

    def wait(self, seconds: float) -> None:
        for _ in range(max(1, round(seconds * 10))):
            self.clock.advance(min(seconds, 0.1))


def result(deferred: Deferred[UpstreamConnection]) -> HTTP1Connection:
    results: list[Any] = []
    deferred.addBoth(results.append)
    assert results, "it is still waited for"
    if isinstance(results[0], Failure):
        results[0].raiseException()
    assert isinstance(results[0], HTTP1Connection)
    return results[0]


def use(connection: UpstreamConnection, transport: FakeTransport, answer: bytes = ANSWER) -> Recorder:
    """A whole exchange."""
    recorder = Recorder()
    send(connection, recorder)
    connection.finish()
    transport.deliver(answer)
    return recorder


def test_what_was_used_is_used_again() -> None:
    """Connections are kept; the one that was used last is used next, so that the others can go away."""
    setup = Setup()
    assert setup.pool.take() is None
    pairs = [setup.open(), setup.open()]
    for connection, transport in pairs:
        assert use(connection, transport).end == "finished"
    assert [setup.pool.take(), setup.pool.take(), setup.pool.take()] == [pairs[1][0], pairs[0][0], None]
    assert setup.pool.connections == 2


def test_an_upload_over_a_used_connection_may_outlast_the_idle_time() -> None:
    """A connection that carries an exchange is not idle: what was left of its idle time says nothing any more."""
    setup = Setup()
    use(*(pair := setup.open()))
    connection, transport = pair
    assert setup.pool.take() is connection
    recorder = Recorder()
    send(connection, recorder, b"POST", length=9)
    for piece in (b"abc", b"def", b"ghi"):
        setup.wait(SETTINGS.keepalive_timeout + 1)
        connection.write(piece)
    connection.finish()
    transport.deliver(ANSWER)
    assert recorder.end == "finished"
    assert not transport.aborted


def test_a_tunnel_leaves_its_place_to_others() -> None:
    """A connection that became a tunnel does not count, and its end frees no place a second time."""
    setup = Setup()
    pairs = [setup.open(), setup.open()]
    waiting = setup.pool.connect()
    for connection, transport in pairs:
        send(connection, Recorder(), upgrade=True)
        connection.finish()
        transport.deliver(b"HTTP/1.1 101 Yes\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
        connection.give_up()
    assert (setup.pool.connections, setup.pool.tunnels) == (1, 2)
    setup.endpoint.accept()
    assert result(waiting) not in [connection for connection, _ in pairs]
    for _, transport in pairs:
        transport.disconnect()
    assert (setup.pool.connections, setup.pool.tunnels) == (1, 0)


def test_an_idle_connection_is_closed_in_time() -> None:
    """The service would close it a second later, perhaps while a request is on its way."""
    setup = Setup()
    connection, transport = setup.open()
    use(connection, transport)
    setup.wait(3.8)
    assert not transport.closed
    setup.wait(0.4)
    assert transport.closed
    assert setup.pool.connections == 0
    assert setup.pool.take() is None


OF_NO_USE: dict[str, Callable[[HTTP1Connection, FakeTransport], object]] = {
    "it is being closed": lambda connection, transport: connection.deadline_passed(),
    "an answer that nobody asked for": lambda connection, transport: transport.deliver(ANSWER),
    "something that is not read yet": lambda connection, transport: transport.announce(),
    "the service has closed it": lambda connection, transport: transport.disconnect(),
}


@pytest.mark.parametrize("careful", [False, True])
@pytest.mark.parametrize("what", OF_NO_USE)
def test_what_is_of_no_use_is_not_given_out(what: str, careful: bool) -> None:
    """What nobody asked for is not the answer to the next request. Where turns are not counted, all are careful."""
    setup = Setup()
    connection, transport = setup.open()
    use(connection, transport)
    assert connection._turns is None
    OF_NO_USE[what](connection, transport)
    assert setup.pool.take(careful) is None
    setup.wait(0)
    assert setup.pool.connections == (what == "something that is not read yet")


def test_too_many_wait_their_turn() -> None:
    """Beyond the limit exchanges wait, and are served in order as connections become free."""
    setup = Setup()
    first, second = setup.open(), setup.open()
    waiting = [setup.pool.connect(), setup.pool.connect()]
    assert setup.endpoint.attempts == []
    with pytest.raises(PoolExhausted):
        result(setup.pool.connect())
    use(*second)
    assert result(waiting[0]) is second[0]
    use(*first)
    assert result(waiting[1]) is first[0]
    assert setup.pool.connections == 2


def test_one_that_waits_gets_a_new_connection_for_one_that_was_lost() -> None:
    """A connection that cannot be used again is replaced."""
    setup = Setup()
    setup.open()
    connection, transport = setup.open()
    waiting = setup.pool.connect()
    use(connection, transport, ANSWER.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert not waiting.called
    setup.wait(0)
    transport = setup.endpoint.accept()
    assert result(waiting).transport is transport


def test_one_that_waits_in_vain() -> None:
    """It is told so in time, and only once."""
    setup = Setup()
    setup.open(), setup.open()
    waiting = setup.pool.connect()
    setup.wait(4.8)
    assert not waiting.called
    setup.wait(0.4)
    with pytest.raises(PoolExhausted):
        result(waiting)
    result_of_next = setup.pool.connect()
    assert not result_of_next.called


def test_one_that_leaves_the_queue() -> None:
    """A client that goes away does not take the place of others."""
    setup = Setup()
    first = setup.open()
    setup.open()
    waiting = [setup.pool.connect(), setup.pool.connect()]
    waiting[0].addErrback(lambda failure: failure.trap(CancelledError) and None)
    waiting[0].cancel()
    use(*first)
    assert result(waiting[1]) is first[0]
    assert not setup.pool.connect().called


def test_no_connection() -> None:
    """An upstream that does not answer the phone is reported as such, and leaves no trace."""
    setup = Setup()
    given = setup.pool.connect()
    setup.endpoint.refuse()
    with pytest.raises(ConnectFailed):
        result(given)
    assert setup.pool.connections == 0


def test_one_deadline_for_all_that_connecting_takes() -> None:
    """A name's lookup counts too, and what comes of it later is nobody's."""
    setup = Setup()
    given = setup.pool.connect()
    setup.wait(4.8)
    assert not given.called
    setup.wait(0.4)
    with pytest.raises(ConnectFailed, match="no connection within 5 s"):
        result(given)
    assert setup.endpoint.cancelled == 1
    assert setup.pool.connections == 0


def test_no_connection_for_those_that_wait() -> None:
    """Each of those that wait gets its own attempt."""
    setup = Setup()
    opened = [setup.open(), setup.open()]
    waiting = [setup.pool.connect(), setup.pool.connect()]
    for _, transport in opened:
        transport.disconnect()
    assert len(setup.endpoint.attempts) == 2
    setup.endpoint.refuse()
    setup.endpoint.refuse()
    for given in waiting:
        with pytest.raises(ConnectFailed):
            result(given)
    assert (setup.pool.connections, setup.endpoint.attempts) == (0, [])


def test_a_client_that_leaves_while_connecting() -> None:
    """The connection is made nevertheless, and serves the next."""
    setup = Setup()
    given = setup.pool.connect()
    given.addErrback(lambda failure: failure.trap(CancelledError) and None)
    given.cancel()
    transport = setup.endpoint.accept()
    taken = setup.pool.take()
    assert isinstance(taken, HTTP1Connection)
    assert taken.transport is transport


def test_a_client_that_leaves_while_connecting_in_vain() -> None:
    """Nobody is told twice."""
    setup = Setup()
    given = setup.pool.connect()
    given.addErrback(lambda failure: failure.trap(CancelledError) and None)
    given.cancel()
    setup.endpoint.refuse()
    assert setup.pool.connections == 0


def test_closing() -> None:
    """What is idle ends at once, what is in use when its exchange has ended, and who waits is still served."""
    setup = Setup()
    idle, busy = setup.open(), setup.open()
    use(*idle)
    recorder = Recorder()
    send(busy[0], recorder)
    busy[0].finish()
    setup.pool.close()
    setup.wait(0)
    assert (idle[1].closed, busy[1].closed) == (True, False)
    assert setup.pool.take() is None
    late = setup.pool.connect()
    transport = setup.endpoint.accept()
    waiting = setup.pool.connect()
    busy[1].deliver(ANSWER)
    assert recorder.end == "finished"
    assert result(waiting) is busy[0]
    for connection, its_transport in (busy, (result(late), transport)):
        use(connection, its_transport)
        setup.wait(0)
        assert its_transport.closed
    assert setup.pool.connections == 0


def test_a_queue_that_fails_at_once_does_not_overflow_the_stack() -> None:
    """However many wait, and however quickly connecting fails."""
    setup = Setup(PoolSettings(max_connections=1, max_pending=2000))
    _, transport = setup.open()
    waiting = [setup.pool.connect() for _ in range(2000)]
    refused: Any = Deferred

    def connect(factory: Any) -> Deferred[Any]:
        failed: Deferred[Any] = refused()
        failed.errback(ConnectionRefusedError())
        return failed

    setup.endpoint.connect = connect  # type: ignore[method-assign, assignment]
    transport.disconnect()
    setup.wait(1)
    for given in waiting:
        with pytest.raises(ConnectFailed):
            result(given)
    assert setup.pool.connections == 0
