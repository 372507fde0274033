"""How many requests one HTTP/2 connection begins in a turn of the reactor."""

from __future__ import annotations

import itertools

import pytest
from hyperframe.frame import GoAwayFrame, PingFrame, RstStreamFrame, SettingsFrame
from support.http2_client import Client, Server, get, hello

from apigw.wire.channel import Settings
from apigw.wire.http2.bounds import MOST_OF_TURN
from apigw.wire.http2.frames import Code
from apigw.wire.http2.states import HELD
from apigw.wire.request import Request

LARGE = b"x" * 10_000


def asks(client: Client, numbers: range) -> bytes:
    """Requests of streams 1, 3, 5 …"""
    return b"".join(client.headers(2 * number + 1, get(b"/%d" % number)).serialize() for number in numbers)


def answered(client: Client) -> int:
    client.receive()
    return sum(frame.stream_id > 0 and "END_STREAM" in frame.flags for frame in client.frames)


def turn(server: Server) -> None:
    """One turn of the reactor: what is due now, and not what becomes due by it."""
    due = [(call, call.func) for call in server.clock.calls]
    for call, function in due:
        call.cancel()
        function()


def test_one_client_does_not_take_a_whole_turn_of_the_reactor() -> None:
    """Of many requests that are answered at once, 16 are in one turn; the rest follows in later ones, in order."""
    server = Server(on_request=hello)
    clients = [server.connect() for _ in range(2)]
    for client in clients:
        client.send_bytes(asks(client, range(100)))
    for _ in range(10):
        turn(server)
    turns = [len(list(run)) for _, run in itertools.groupby(server.requests, lambda request: request.stream.channel)]  # type: ignore[attr-defined]  # of HTTP/2
    assert turns == [MOST_OF_TURN] * 12 + [4] * 2
    for client in clients:
        assert [request.path for request in server.requests if request.stream.channel is client.channel] == [  # type: ignore[attr-defined]
            b"/%d" % number for number in range(100)
        ]
        assert answered(client) == 100
        assert client.pipe.producerState == "producing"
        assert not server.clock.getDelayedCalls()


def test_refused_requests_count_too() -> None:
    """A malformed one, and one beyond the streams that there may be."""
    server = Server(on_request=hello)
    client = server.connect()
    bad = get(b"/\x01")
    client.send(*(client.headers(2 * number + 1, bad) for number in range(100)))
    assert len(server.refusals) == MOST_OF_TURN
    server = Server()
    client = server.connect()
    client.send_bytes(asks(client, range(200)))
    for number in range(1, 7):
        assert len(server.requests) == number * MOST_OF_TURN
        turn(server)
    assert len(server.requests) == 100
    assert sum(isinstance(frame, RstStreamFrame) for frame in client.receive()) == 7 * MOST_OF_TURN - 100
    assert client.channel.turn_over


def test_nothing_is_read_until_the_next_turn() -> None:
    """Frames that are kept until then do not count as slow, also where the last is cut off."""
    server = Server(Settings(client_header_timeout=1.0), on_request=hello)
    client = server.connect()
    whole = asks(client, range(40))
    client.send_bytes(whole[:-5])
    assert len(server.requests) == MOST_OF_TURN
    assert client.pipe.producerState == "paused"
    turn(server)
    assert (len(server.requests), client.pipe.producerState) == (2 * MOST_OF_TURN, "paused")
    turn(server)
    assert (len(server.requests), client.pipe.producerState) == (39, "producing")
    client.send_bytes(whole[-5:])
    assert len(server.requests) == 40
    server.pass_time(2)
    assert client.goaway() is None


@pytest.mark.parametrize("count", [MOST_OF_TURN, MOST_OF_TURN + 1])
def test_afterwards_the_connection_is_idle(count: int) -> None:
    """It may make room for another, and ends as idle ones do."""
    server = Server(on_request=hello)
    client = server.connect()
    client.send_bytes(asks(client, range(count)))
    if count > MOST_OF_TURN:
        assert server.factory.room.first() is None
        turn(server)
    assert server.factory.room.first() is client.channel
    assert answered(client) == count
    server.pass_time(76)
    assert client.goaway() == Code.NO_ERROR
    assert client.pipe.ended


def test_who_reads_nothing_waits_longer() -> None:
    """Frames that wait are read when the client has taken the answers before them, and memory stays bounded."""
    server = Server(on_request=lambda request: request.respond(200, [], LARGE))
    client = server.connect({SettingsFrame.INITIAL_WINDOW_SIZE: 2**20})
    client.open_window(0, 2**24)
    client.send_bytes(asks(client, range(100)))
    seen = len(server.requests)
    for _ in range(20):
        turn(server)
    assert seen == len(server.requests) == MOST_OF_TURN
    assert len(client.pipe.value()) < 64 * 1024 + MOST_OF_TURN * len(LARGE)
    for _ in range(100):
        client.pipe.drain()
        turn(server)
        assert len(server.requests) <= seen + MOST_OF_TURN
        seen = len(server.requests)
    assert seen == 100
    assert client.pipe.producerState == "producing"


@pytest.mark.parametrize("by_itself", [True, False])
def test_a_client_that_leaves_before_its_turn(by_itself: bool) -> None:
    """What it had asked is not begun any more."""
    server = Server(on_request=hello)
    client = server.connect()
    client.send_bytes(asks(client, range(30)))
    if not by_itself:
        server.factory.cut()
    client.channel.connectionLost()
    turn(server)
    assert len(server.requests) == MOST_OF_TURN
    assert not server.factory.channels


def test_what_comes_behind_a_connection_error_is_not_kept() -> None:
    """Although the error ended a turn."""
    server = Server(on_request=hello)
    client = server.connect()
    client.send_bytes(asks(client, range(MOST_OF_TURN)) + b"\xff" * 9)
    turn(server)
    assert client.goaway() == Code.FRAME_SIZE_ERROR
    client.pipe.producerState = "producing"
    kept = len(client.channel._pending)
    client.channel.dataReceived(bytes(100_000))
    assert len(client.channel._pending) == kept


def test_a_drain_begins_what_had_arrived() -> None:
    """Requests that wait for their turn when the shutdown begins are answered."""
    server = Server(on_request=hello)
    client = server.connect()
    client.send_bytes(asks(client, range(30)))
    server.factory.drain()
    turn(server)
    client.send(PingFrame(0, opaque_data=b"drained?", flags=["ACK"]))
    assert answered(client) == 30
    assert [frame.last_stream_id for frame in client.frames if isinstance(frame, GoAwayFrame)] == [2**31 - 1, 59]
    assert client.pipe.ended


def test_a_body_behind_the_last_request_of_a_turn_arrives_whole() -> None:
    """DATA of a stream waits with the rest."""
    bodies: list[Request] = []
    server = Server(on_request=bodies.append)
    client = server.connect()
    client.send_bytes(
        asks(client, range(MOST_OF_TURN - 1))
        + client.headers(99, get(b"/last", method=b"PUT"), False).serialize()
        + b"\x00\x00\x02\x00\x01\x00\x00\x00\x63hi"
    )
    assert len(bodies) == MOST_OF_TURN
    assert not bodies[-1].body_complete
    turn(server)
    assert client.channel.streams[99]._reading >= HELD
