"""What a WebSocket is once the handshake is over: bytes both ways, until either side has had enough."""

from __future__ import annotations

import pytest
from attrs import define, field
from support.fake_transport import HIGH_WATER
from support.http1_server import Client, Echo, Server
from support.upstream import Upstream
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure

from apigw.wire.channel import Settings
from apigw.wire.http1.client import CLOSING_TIME
from apigw.wire.http1.connection import FAREWELL_FOR
from apigw.wire.tunnel import CLOSE, Frames, join

HANDSHAKE = b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
BODY = 30.0
IDLE = 3600.0
PING = b"\x89\x00"


class Hold(Echo):
    def body_finished(self) -> None: ...


@define
class Tunnel:
    """A client and an upstream, in memory, that have shaken hands."""

    early: bytes = b""
    late: bytes = b""
    server: Server = field(init=False)
    client: Client = field(init=False)
    upstream: Upstream = field(init=False)
    joined: Deferred[None] = field(init=False)
    ended: list[object] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.server = Server(Settings(client_body_timeout=BODY), application=Hold)
        self.client = self.server.connect()
        self.client.send(HANDSHAKE + self.early)
        self.upstream = Upstream(self.server.clock)
        self.upstream.ask(upgrade=True)
        assert b"\r\nupgrade: websocket\r\n" in self.upstream.transport.take()
        self.upstream.say(SWITCH + self.late)
        upstream = self.upstream.connection.give_up()
        client = self.server.seen[0].request.start_tunnel([])
        assert self.client.receive().startswith(b"HTTP/1.1 101 ")
        self.joined = join(client, upstream, self.server.factory.deadlines, IDLE)
        self.joined.addBoth(self.ended.append)

    def wait(self, seconds: float = 0) -> None:
        self.server.wait(seconds)

    def check_gone(self) -> None:
        """Nothing is left of it."""
        assert self.ended == [None]
        assert not self.server.factory.channels
        assert self.upstream.gone == [self.upstream.connection]
        assert self.upstream.free == []


def test_both_ways() -> None:
    """What one side sends the other receives."""
    tunnel = Tunnel()
    for number in range(3):
        tunnel.client.send(b"ping%d" % number)
        tunnel.upstream.say(b"pong%d" % number)
        assert tunnel.upstream.transport.take() == b"ping%d" % number
        assert tunnel.client.receive() == b"pong%d" % number
    tunnel.wait(IDLE - 1)
    assert tunnel.ended == []


def test_a_tunnel_that_is_cancelled_closes_both_sides() -> None:
    """Who cancels it is told at once; both connections go as from an idle tunnel."""
    tunnel = Tunnel()
    tunnel.joined.cancel()
    (told,) = tunnel.ended
    assert isinstance(told, Failure)
    assert told.check(CancelledError)
    tunnel.wait(CLOSING_TIME + 1)
    assert not tunnel.server.factory.channels
    assert tunnel.upstream.gone == [tunnel.upstream.connection]
    assert len(tunnel.ended) == 1


@pytest.mark.parametrize("by_client", [True, False])
def test_an_idle_tunnel_ends(by_client: bool) -> None:
    """Both sides are closed when nothing has come from either for the idle time."""
    tunnel = Tunnel()
    for _ in range(2):
        tunnel.wait(IDLE - 1)
        if by_client:
            tunnel.client.send(b"still here")
        else:
            tunnel.upstream.say(b"still here")
    tunnel.wait(IDLE - 1)
    assert tunnel.ended == []
    tunnel.wait(2)
    tunnel.wait()
    tunnel.check_gone()


@pytest.mark.parametrize(
    ("last", "told"), [(PING, CLOSE), (PING + PING[:1], b""), (CLOSE, b"")], ids=["between", "within", "closed"]
)
@pytest.mark.parametrize("cancelled", [True, False])
def test_a_client_is_told_that_the_gateway_ends_it(cancelled: bool, last: bytes, told: bytes) -> None:
    """Whether it was idle, or its token has ended: by a close frame between two frames of the service."""
    tunnel = Tunnel()
    tunnel.upstream.say(last)
    assert tunnel.client.receive() == last
    if cancelled:
        tunnel.joined.cancel()
    else:
        tunnel.wait(IDLE + 1)
    assert tunnel.client.receive() == told
    tunnel.wait(CLOSING_TIME + 1)
    assert not tunnel.server.factory.channels


def test_what_came_early_goes_first() -> None:
    """A side that does not wait for the other loses nothing."""
    tunnel = Tunnel(early=b"early ", late=b"late ")
    tunnel.client.send(b"bird")
    tunnel.upstream.say(b"riser")
    assert tunnel.upstream.transport.take() == b"early bird"
    assert tunnel.client.receive() == b"late riser"


def test_requests_are_none_any_more() -> None:
    """What looks like a request belongs to the WebSocket."""
    tunnel = Tunnel()
    tunnel.client.send(HANDSHAKE)
    assert tunnel.upstream.transport.take() == HANDSHAKE
    assert len(tunnel.server.seen) == 1


@pytest.mark.parametrize("to_client", [True, False])
def test_each_side_at_the_pace_of_the_other(to_client: bool) -> None:
    """A side that does not read stops the other from sending, and nothing is piled up or lost."""
    tunnel = Tunnel()
    if to_client:
        source, sink = tunnel.upstream.transport, tunnel.client.transport
    else:
        source, sink = tunnel.client.transport, tunnel.upstream.transport
    sink.stalled = True
    for _ in range(100):
        source.deliver(b"x" * 10_000)
    assert not source.reading
    assert sink.most_buffered <= HIGH_WATER + 10_000
    while source.unread or sink.stalled:
        sink.drain()
        tunnel.wait()
    assert sink.take() == b"x" * 1_000_000


@pytest.mark.parametrize("reason", [None, ConnectionLost()])
def test_the_client_leaves(reason: Exception | None) -> None:
    """The upstream gets what was on its way, and the end."""
    tunnel = Tunnel()
    tunnel.client.send(b"bye")
    tunnel.client.transport.disconnect(reason)
    tunnel.wait()
    assert tunnel.upstream.transport.take() == b"bye"
    assert tunnel.upstream.transport.closed
    tunnel.check_gone()


@pytest.mark.parametrize("reason", [None, ConnectionLost()])
def test_the_upstream_leaves(reason: Exception | None) -> None:
    """The client gets what was on its way, and the end."""
    tunnel = Tunnel()
    tunnel.upstream.say(b"bye")
    tunnel.upstream.close(reason)
    tunnel.wait()
    assert (tunnel.client.receive(), tunnel.client.end) == (b"bye", "closed")
    tunnel.check_gone()


def test_the_upstream_leaves_while_the_client_does_not_read() -> None:
    """What is left for the client waits for it, but not for ever."""
    tunnel = Tunnel()
    tunnel.client.transport.stalled = True
    tunnel.upstream.say(b"x" * 100_000)
    tunnel.upstream.close()
    tunnel.wait(BODY - 0.2)
    tunnel.client.transport.drain(50_000)
    tunnel.wait(BODY - 0.2)
    assert tunnel.client.transport.taken == b"x" * 50_000
    assert not tunnel.client.transport.lost
    tunnel.wait(0.4)
    tunnel.check_gone()


def test_the_client_leaves_while_the_upstream_does_not_read() -> None:
    """The same, the other way round."""
    tunnel = Tunnel()
    tunnel.upstream.transport.stalled = True
    tunnel.client.send(b"x" * 100_000)
    tunnel.client.transport.disconnect()
    tunnel.wait(CLOSING_TIME - 0.2)
    assert tunnel.ended == []
    tunnel.wait(0.4)
    tunnel.check_gone()


def test_a_tunnel_is_cut() -> None:
    """At the end of a drain both sides go."""
    tunnel = Tunnel(late=b"\x81")
    tunnel.server.factory.drain()
    tunnel.wait(1)
    assert tunnel.ended == []
    tunnel.server.factory.cut()
    tunnel.wait()
    tunnel.wait()
    tunnel.check_gone()


SHORT, LONG, HUGE = (
    b"\x81\x05hello",
    b"\x82\x7e\x01\x00" + b"x" * 256,
    b"\x82\x7f" + (70_000).to_bytes(8, "big") + b"x" * 70_000,
)
MASKED = b"\x81\x85abcdhello"


@pytest.mark.parametrize("frame", [SHORT, LONG, HUGE, MASKED, PING], ids=["short", "long", "huge", "masked", "empty"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000, 100_000])
def test_where_frames_end(frame: bytes, size: int) -> None:
    """It is known however the bytes come; behind a frame that closes there is no place for another."""
    frames, sent = Frames(), frame * 2 + PING + frame
    ends = {len(frame), 2 * len(frame), 2 * len(frame) + len(PING), len(sent)}
    for at in range(0, len(sent), size):
        frames.passed(sent[at : at + size])
        assert frames.between == (min(at + size, len(sent)) in ends)
    frames.passed(CLOSE)
    assert not frames.between


def test_a_client_is_told_before_it_is_cut() -> None:
    """Between two frames it gets one more, that closes; it may close too, or is cut after a second."""
    tunnel = Tunnel(late=SHORT + SHORT[:4])
    tunnel.upstream.say(SHORT[4:])
    assert tunnel.client.receive() == SHORT * 2
    tunnel.server.factory.cut()
    assert tunnel.client.receive() == CLOSE
    tunnel.client.send(MASKED)
    assert tunnel.upstream.transport.take() == MASKED
    assert tunnel.ended == []
    tunnel.wait(FAREWELL_FOR + 0.2)
    tunnel.wait()
    tunnel.check_gone()


@pytest.mark.parametrize("sent", [SHORT[:4], SHORT + b"\x82", CLOSE])
def test_a_client_that_would_not_understand_is_cut(sent: bytes) -> None:
    """Within a frame, or behind the service's own farewell, nothing is added."""
    tunnel = Tunnel()
    tunnel.upstream.say(sent)
    assert tunnel.client.receive() == sent
    tunnel.server.factory.cut()
    assert tunnel.client.receive() == b""
    tunnel.wait()
    tunnel.check_gone()


def test_a_client_that_does_not_read_is_cut() -> None:
    """What it is told would stand behind what it has not taken."""
    tunnel = Tunnel()
    tunnel.client.transport.stalled = True
    tunnel.upstream.say(SHORT)
    tunnel.server.factory.cut()
    tunnel.wait()
    tunnel.check_gone()
