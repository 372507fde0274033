"""How long an HTTP/2 client is waited for, and how its connection ends."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    SettingsFrame,
)
from support.http2_client import (
    PREFACE,
    Client,
    Pipe,
    Recorder,
    Server,
    download,
    get,
    hello,
    listen,
    only,
    opened,
    post,
    pour,
)

from apigw.wire.errors import ClientLost, Refused
from apigw.wire.http2.frames import Code
from apigw.wire.http2.server import FAREWELL_PING
from apigw.wire.pace import WINDOW

# Deadlines.


def test_an_idle_connection_is_closed() -> None:
    """A client that asks nothing for the keep-alive time is told goodbye, and pinging does not keep it."""
    server = Server(on_request=hello)
    client = server.connect()
    server.pass_time(74)
    client.ask(1, get())
    for _ in range(7):
        server.pass_time(10)
        assert client.is_served(1)
    assert client.goaway() is None
    server.pass_time(6)
    assert client.goaway() == Code.NO_ERROR
    assert client.pipe.disconnecting


def test_an_exchange_has_no_keep_alive_time() -> None:
    """A connection with a request in flight is not idle, however long the service takes."""
    server = Server()
    client = server.connect()
    client.ask(1, get())
    server.pass_time(1000)
    hello(only(server))
    assert client.answer(1)[0] == 200
    server.pass_time(74)
    assert client.is_served(1)


@pytest.mark.parametrize(
    "start",
    [
        lambda c: c.send(HeadersFrame(3, b"\x82")),
        lambda c: c.send_bytes(HeadersFrame(3, b"\x82" * 20).serialize()[:15]),
        lambda c: c.send_bytes(b"\0"),
    ],
)
def test_headers_must_be_complete_in_time(start: Callable[[Client], None]) -> None:
    """A block that never ends is not waited for, not even beside an honest stream."""
    server = Server()
    client = opened(server.connect())
    start(client)
    server.pass_time(9)
    assert client.goaway() is None
    server.pass_time(2)
    assert client.goaway() == Code.ENHANCE_YOUR_CALM


def test_a_slow_block_does_not_gain_time() -> None:
    """A frame every few seconds does not make the block younger."""
    server = Server()
    client = opened(server.connect())
    client.send(HeadersFrame(3, b"\x82"))
    for _ in range(3):
        server.pass_time(4)
        client.send(ContinuationFrame(3, b""))
    assert client.goaway() == Code.ENHANCE_YOUR_CALM


def test_slow_data_is_not_a_slow_header() -> None:
    """A DATA frame may take longer than headers may, as long as bytes come."""
    server = Server()
    client = opened(server.connect())
    listen(only(server))
    data = DataFrame(1, b"x" * 1000).serialize()
    for at in range(0, len(data), 100):
        client.send_bytes(data[at : at + 100])
        server.pass_time(2)
    assert client.goaway() is None
    assert client.reset(1) is None


def test_a_silent_client_is_not_waited_for() -> None:
    """A client that negotiates HTTP/2 and then says nothing is closed as soon as one that sends half a header."""
    server = Server()
    pipe = Pipe()
    channel = type(server.connect().channel)(server.factory, b"192.0.2.1", True)
    channel.makeConnection(pipe)
    channel.dataReceived(PREFACE[:10])
    server.pass_time(11)
    assert pipe.disconnecting


def test_a_body_that_stalls_is_answered() -> None:
    """An upload that stops for too long gets a 408 on its stream, and the other streams go on."""
    server = Server()
    client = server.connect()
    client.ask(1, post(), end=False)
    request = only(server)

    class Answering(Recorder):
        def client_failed(self, error: Refused | ClientLost) -> None:
            super().client_failed(error)
            assert isinstance(error, Refused)
            request.respond(error.status, [], b"")

    recorder = request.listener = Answering()
    server.pass_time(100)
    request.read_body()
    for _ in range(3):
        server.pass_time(29)
        client.put(1, b"x")
    assert not recorder.errors
    server.pass_time(31)
    assert client.answer(1)[0] == 408
    assert client.reset(1) == Code.NO_ERROR
    server.pass_time(31)
    assert len(recorder.errors) == 1
    assert client.is_served(1)


def test_a_body_below_the_least_rate_is_answered() -> None:
    """An upload that brings less than 1 KiB a second over 30 s gets a 408 on its stream."""
    server = Server()
    client = server.connect()
    client.ask(1, post((b"content-length", b"1000000")), end=False)
    recorder = listen(only(server))
    for _ in range(WINDOW):
        client.put(1, b"x" * 900)
        assert not recorder.errors
        server.pass_time(1)
    client.put(1, b"x" * 900)
    assert [error.status for error in recorder.errors if isinstance(error, Refused)] == [408]


def test_a_body_at_the_least_rate_is_read() -> None:
    """An upload that brings 1 KiB a second goes on, and time in which it was paused does not count."""
    server = Server()
    client = server.connect()
    client.ask(1, post((b"content-length", b"1000000")), end=False)
    recorder = listen(only(server))
    for second in range(90):
        client.put(1, b"x" * 1024)
        server.pass_time(1)
        if second % 30 == 0:
            only(server).pause_body()
            server.pass_time(60)
            only(server).resume_body()
    assert not recorder.errors
    assert len(recorder.body) == 90 * 1024


def test_a_body_that_stalls_during_the_answer_is_reset() -> None:
    """Once the answer has begun, an upload that stops is reset."""
    server = Server()
    client = opened(server.connect())
    recorder = listen(only(server))
    only(server).start(200, [])
    only(server).flush()
    server.pass_time(31)
    assert client.reset(1) == Code.CANCEL
    assert [type(error) for error in recorder.errors] == [ClientLost]


def test_a_pause_is_not_the_clients_fault() -> None:
    """While the service makes the client wait, no deadline runs against the client."""
    server = Server()
    client = opened(server.connect())
    recorder = listen(only(server))
    only(server).pause_body()
    server.pass_time(1000)
    assert not recorder.errors
    only(server).resume_body()
    server.pass_time(31)
    assert [type(error) for error in recorder.errors] == [Refused]
    assert client.reset(1) == Code.CANCEL


@pytest.mark.parametrize("own", [True, False], ids=["stream", "connection"])
def test_a_window_that_never_opens(own: bool) -> None:
    """A client that stops reading one stream loses that stream after a while, and the upstream is let go."""
    server = Server()
    client = server.connect()
    request, producer = download(server, client)
    recorder = request.listener = Recorder()
    pour(request, producer, 1_000_000, client)
    client.open_window(0 if own else 1, 1_000_000)
    server.pass_time(29)
    client.open_window(1 if own else 0, 10)
    server.pass_time(29)
    assert client.reset(1) is None
    server.pass_time(2)
    assert client.reset(1) == Code.CANCEL
    assert [type(error) for error in recorder.errors] == [ClientLost]
    assert client.is_served(1)


def test_a_client_that_stops_reading_is_cut() -> None:
    """A client that reads nothing at all loses its connection."""
    server = Server()
    client = server.connect({SettingsFrame.INITIAL_WINDOW_SIZE: 10_000_000})
    client.open_window(0, 10_000_000)
    pour(*download(server, client), 10_000_000)
    server.pass_time(29)
    assert not client.pipe.disconnected
    server.pass_time(2)
    assert client.pipe.disconnected


def test_a_client_that_reads_slowly_and_steadily_gets_all() -> None:
    """Each look at the clock finds that it has taken some; only one that took nothing for that long is cut."""
    server = Server()
    client = server.connect({SettingsFrame.INITIAL_WINDOW_SIZE: 10_000_000})
    client.open_window(0, 10_000_000)
    pour(*download(server, client), 10_000_000)
    for left in range(60_000, 0, -10_000):
        client.pipe.left = left
        server.pass_time(31)
        assert not client.pipe.disconnected
    server.pass_time(31)
    assert client.pipe.disconnected


def test_a_slow_reader_may_be_slow_to_open_a_window() -> None:
    """What it has not taken yet is on its way, and it cannot give a window back for that."""
    server = Server()
    client = server.connect()
    request, producer = download(server, client)
    recorder = request.listener = Recorder()
    client.pipe.left = 60_000
    pour(request, producer, 1_000_000, client)
    client.open_window(0, 1_000_000)
    for left in range(50_000, 0, -10_000):
        client.pipe.left = left
        server.pass_time(31)
        assert not recorder.errors
    server.pass_time(31)
    assert client.reset(1) == Code.CANCEL


def test_streams_are_not_watched_for_nothing() -> None:
    """The list of deadlines does not grow with requests that wait for nothing from the client."""
    server = Server()
    client = server.connect()
    client.ask(1, get())
    client.ask(3, post(), end=False)
    listen(server.requests[1])
    client.put(3, b"x", end=True)
    assert list(server.factory.deadlines._watched) == [client.channel]


# Draining.


def test_a_drain_is_announced_and_then_final() -> None:
    """At SIGTERM what was sent before the client knew is served, later requests may go elsewhere, and then it ends."""
    server = Server()
    client = server.connect()
    client.ask(1, get())
    server.factory.drain()
    assert client.goaway() == Code.NO_ERROR
    assert [f.last_stream_id for f in client.frames if isinstance(f, GoAwayFrame)] == [2**31 - 1]
    client.ask(3, get())
    assert len(server.requests) == 2
    client.send(PingFrame(0, opaque_data=FAREWELL_PING, flags=["ACK"]))
    client.receive()
    assert [f.last_stream_id for f in client.frames if isinstance(f, GoAwayFrame)] == [2**31 - 1, 3]
    client.ask(5, get())
    assert client.reset(5) == Code.REFUSED_STREAM
    for request in server.requests:
        assert not client.pipe.disconnecting
        hello(request)
    assert client.answer(3)[2] == b"hello"
    assert client.pipe.disconnecting


def test_a_drain_does_not_wait_for_the_deaf() -> None:
    """A client that does not confirm is given a second, and an idle one is gone after it."""
    server = Server()
    client = server.connect()
    server.factory.drain()
    assert not client.pipe.disconnecting
    server.pass_time(1)
    assert client.pipe.disconnecting


def test_a_connection_accepted_during_a_drain() -> None:
    """A connection that was queued before SIGTERM has its requests served, then it is closed."""
    server = Server(on_request=hello)
    server.factory.draining = True
    client = server.connect()
    client.ask(1, get())
    assert client.answer(1)[2] == b"hello"
    client.send(PingFrame(0, opaque_data=FAREWELL_PING, flags=["ACK"]))
    assert client.pipe.disconnecting


def test_a_client_that_says_goodbye_gets_its_answers() -> None:
    """A client's GOAWAY ends the connection when its requests are answered, not before."""
    server = Server()
    client = server.connect()
    client.ask(1, get())
    client.send(GoAwayFrame(0))
    assert not client.pipe.disconnecting
    hello(only(server))
    assert client.answer(1)[2] == b"hello"
    assert client.pipe.disconnecting


def test_a_client_that_says_goodbye_when_idle_is_let_go() -> None:
    """A client that leaves politely does not wait for the keep-alive time."""
    client = Server().connect()
    client.send(GoAwayFrame(0))
    assert client.pipe.disconnecting


def test_a_cut_is_at_once() -> None:
    """After the drain timeout nothing holds the process up."""
    server = Server()
    client = opened(server.connect())
    assert client.channel.streams
    server.factory.cut()
    assert client.pipe.disconnected
