"""What a service may say by HTTP/2, and what becomes of an exchange and its connection when it says something else."""

from __future__ import annotations

from errno import EMFILE
from functools import partial
from typing import Any

import pytest
from hpack import Encoder
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, HeadersFrame, PingFrame, RstStreamFrame, SettingsFrame
from support.http2_client import Pipe, raw
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from apigw.wire.deadlines import Deadlines
from apigw.wire.errors import (
    ConnectFailed,
    PoolExhausted,
    UpstreamError,
    UpstreamLost,
    UpstreamMalformed,
    UpstreamTimedOut,
)
from apigw.wire.headers import Headers
from apigw.wire.http2.bounds import STREAM_WINDOW
from apigw.wire.http2.client import PATIENCE, HTTP2Client
from apigw.wire.http2.exchange import HTTP2Exchange
from apigw.wire.http2.frames import PREFACE, Code
from apigw.wire.http2.streams import Streams
from apigw.wire.pool import PoolSettings

KEEPALIVE = PoolSettings().keepalive_timeout
Fields = list[tuple[str, str]]


class Asker:
    """A receiver that remembers."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: Headers = []
        self.body = b""
        self.trailers: Headers = []
        self.finished = False
        self.error: UpstreamError | None = None
        self.pauses: list[bool] = []
        self.pieces = 0

    def response_started(self, status: int, reason: bytes, headers: Headers) -> None:
        self.status, self.headers = status, headers

    def response_whole(self, status: int, reason: bytes, headers: Headers, body: bytes) -> None:
        self.status, self.headers, self.body, self.finished = status, headers, body, True

    def response_received(self, data: bytes) -> None:
        self.body += data
        self.pieces += 1

    def response_paused(self) -> None: ...

    def response_trailers(self, trailers: Headers) -> None:
        self.trailers = trailers

    def response_finished(self) -> None:
        self.finished = True

    def response_failed(self, error: UpstreamError) -> None:
        self.error = error

    def pause_body(self) -> None:
        self.pauses.append(True)

    def resume_body(self) -> None:
        self.pauses.append(False)

    def moved(self) -> int | None: ...

    def too_slow(self) -> None: ...


class Scene:
    """A connection, and the service at its other end."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.deadlines = Deadlines(self.clock)
        self.rooms: list[HTTP2Client] = []
        self.lost: list[HTTP2Client] = []
        self.client = HTTP2Client(self.deadlines, b"http", KEEPALIVE, self.rooms.append, self.lost.append)
        self.pipe = Pipe()
        self.pipe.protocol = self.client
        self.client.makeConnection(self.pipe)
        self.encoder = Encoder()
        self.say(SettingsFrame(0))
        assert self.pipe.drain().startswith(PREFACE)

    def say(self, *frames: Frame | bytes) -> None:
        self.client.dataReceived(b"".join(each if isinstance(each, bytes) else each.serialize() for each in frames))

    def heard(self) -> list[Frame]:
        data, frames = memoryview(self.pipe.drain()), []
        while data:
            frame, length = Frame.parse_frame_header(data[:9])
            frame.parse_body(data[9 : 9 + length])
            frames.append(frame)
            data = data[9 + length :]
        return frames

    def ask(self, method: bytes = b"GET", length: int | None = 0) -> tuple[HTTP2Exchange, Asker]:
        exchange, asker = self.client.begin(), Asker()
        exchange.send(method, b"/a", b"main", [(b"a", b"b")], length, False, 10.0, asker)
        if length == 0:
            exchange.finish()
        return exchange, asker

    def head(self, number: int, *fields: tuple[str, str], end: bool = False) -> HeadersFrame:
        flags = ["END_HEADERS", "END_STREAM"] if end else ["END_HEADERS"]
        return HeadersFrame(number, self.encoder.encode(list(fields)), flags=flags)

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.deadlines.check()


OK = (":status", "200")


def test_an_answer_that_comes_at_once_is_told_at_once() -> None:
    """With its body, in one call; the stream's place is free then."""
    scene = Scene()
    _, asker = scene.ask()
    end = DataFrame(1, b"hi", flags=["END_STREAM"])
    scene.say(scene.head(1, (":status", "103"), ("link", "x")), scene.head(1, OK, ("x", "y")), end)
    assert (asker.status, asker.headers, asker.body, asker.finished) == (200, [(b"x", b"y")], b"hi", True)
    assert scene.rooms[-1] is scene.client
    assert not [frame for frame in scene.heard() if isinstance(frame, RstStreamFrame)]


def test_what_comes_together_is_told_together() -> None:
    """Whoever looks at a body, as a plugin does, need not do so for each byte of one."""
    scene = Scene()
    _, asker = scene.ask()
    scene.say(scene.head(1, OK), *[DataFrame(1, b"a")] * 500)
    assert (asker.body, asker.pieces) == (b"a" * 500, 1)


def test_trailers_end_an_answer() -> None:
    """They are told before its end."""
    scene = Scene()
    _, asker = scene.ask()
    scene.say(scene.head(1, OK), DataFrame(1, b"hi"), scene.head(1, ("grpc-status", "0"), end=True))
    assert (asker.body, asker.finished) == (b"hi", True)


MALFORMED: dict[str, Any] = {
    "no status": lambda s: s.head(1, ("x", "y"), end=True),
    "a status that is none": lambda s: s.head(1, (":status", "20"), end=True),
    "a status of no class": lambda s: s.head(1, (":status", "600"), end=True),
    "a status behind a field": lambda s: s.head(1, ("x", "y"), OK, end=True),
    "two": lambda s: s.head(1, OK, OK, end=True),
    "a pseudo-header of requests": lambda s: s.head(1, OK, (":path", "/"), end=True),
    "101": lambda s: s.head(1, (":status", "101")),
    "an interim answer that ends": lambda s: s.head(1, (":status", "100"), end=True),
    "a field of a connection": lambda s: s.head(1, OK, ("connection", "close"), end=True),
    "a line in a field": lambda s: raw(1, 5, 1, b"\x88\x00\x01x\x03a\nb"),
    "an upper-case name": lambda s: raw(1, 5, 1, b"\x88\x00\x01X\x01b"),
    "two lengths": lambda s: s.head(1, OK, ("content-length", "1"), ("content-length", "1")),
    "a length that is none": lambda s: s.head(1, OK, ("content-length", "+1")),
    "a body without a head": lambda s: DataFrame(1, b"x"),
    "a body that is too short": lambda s: s.head(1, OK, ("content-length", "1"), end=True),
    "a body that is too long": lambda s: (
        s.head(1, OK, ("content-length", "1")).serialize() + DataFrame(1, b"xx").serialize()
    ),
    "a body of a 204": lambda s: s.head(1, (":status", "204")).serialize() + DataFrame(1, b"x").serialize(),
    "trailers that do not end it": lambda s: s.head(1, OK).serialize() + s.head(1, ("a", "b")).serialize(),
    "trailers with a status": lambda s: s.head(1, OK).serialize() + s.head(1, OK, end=True).serialize(),
    "a window opened by nothing": lambda s: raw(8, 0, 1, b"\0\0\0\0"),
    "a window that overflows": lambda s: raw(8, 0, 1, b"\x7f\xff\xff\xff"),
    "too many interim answers": lambda s: b"".join(s.head(1, (":status", "103")).serialize() for _ in range(33)),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_an_answer_that_is_none_costs_its_stream(case: str) -> None:
    """The exchange fails, its stream is reset, and the connection goes on."""
    scene = Scene()
    _, asker = scene.ask()
    scene.say(MALFORMED[case](scene))
    assert isinstance(asker.error, UpstreamMalformed)
    assert [frame.stream_id for frame in scene.heard() if isinstance(frame, RstStreamFrame)] == [1]
    _, other = scene.ask()
    scene.say(scene.head(3, OK, end=True))
    assert other.finished


BROKEN: dict[str, bytes] = {
    "HTTP/1.1": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "a push": raw(5, 4, 1, b"\0\0\0\2\x82"),
    "a stream that nobody opened": raw(0, 0, 7, b"x"),
    "a stream of its own": raw(1, 5, 2, b"\x88"),
    "a field block that cannot be decoded": raw(1, 5, 1, b"\xff\x80\x01"),
    "a field block without an end": raw(1, 0, 1, b"\x88") + raw(9, 0, 1, b"") * 9,
    "the connection's window opened by nothing": raw(8, 0, 0, b"\0\0\0\0"),
    "too many pings": raw(6, 0, 0, b"x" * 8) * 101,
    "a frame that is too large": raw(0, 0, 1, b"x" * 16_385),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_no_http2_ends_the_connection(case: str) -> None:
    """Every exchange on it fails, and none begins on it any more."""
    scene = Scene()
    askers = [scene.ask()[1] for _ in range(2)]
    scene.say(BROKEN[case])
    assert all(isinstance(asker.error, UpstreamMalformed) for asker in askers)
    assert scene.pipe.disconnected
    assert scene.lost == [scene.client]
    assert scene.client.room == 0


def test_what_a_goodbye_does_not_name_has_not_begun() -> None:
    """It may be repeated; what it names is answered, and then the connection is closed."""
    scene = Scene()
    first = scene.ask()[1]
    exchange, second = scene.ask(b"POST", 5)
    exchange.write(b"hello")
    scene.say(GoAwayFrame(0, last_stream_id=1))
    assert isinstance(second.error, UpstreamLost)
    assert second.error.unsent
    assert exchange.used
    assert scene.client.room == 0
    assert not scene.pipe.disconnecting
    scene.say(scene.head(1, OK, end=True))
    assert first.finished


def test_windows_hold_a_body_up() -> None:
    """The client is paused beyond 64 KiB that the service takes no part of, and goes on when it does."""
    scene = Scene()
    exchange, asker = scene.ask(b"POST", None)
    exchange.write(b"x" * 65_535)
    assert asker.pauses == []
    exchange.write(b"y" * 70_000)
    assert asker.pauses == [True]
    sent = sum(len(frame.data) for frame in scene.heard() if isinstance(frame, DataFrame))
    assert sent == 65_535
    scene.say(raw(8, 0, 0, b"\0\1\0\0"), raw(8, 0, 1, b"\0\1\0\0"))
    assert asker.pauses == [True, False]
    exchange.finish()
    scene.say(raw(8, 0, 0, b"\0\1\0\0"), raw(8, 0, 1, b"\0\1\0\0"))
    frames = [frame for frame in scene.heard() + scene.heard() if isinstance(frame, DataFrame)]
    assert sum(len(frame.data) for frame in frames) == 70_000
    assert "END_STREAM" in frames[-1].flags


def test_more_than_the_window_holds_is_refused() -> None:
    """While the client has paused, the service is given no window, and has to keep to it."""
    scene = Scene()
    exchange, asker = scene.ask()
    scene.say(scene.head(1, OK))
    exchange.pause_response()
    for _ in range(STREAM_WINDOW // 16_384):
        scene.say(DataFrame(1, b"x" * 16_384))
    assert asker.body == b""
    assert asker.error is None
    exchange.resume_response()
    assert len(asker.body) == STREAM_WINDOW
    exchange.pause_response()
    for _ in range(STREAM_WINDOW // 16_384 + 1):
        scene.say(DataFrame(1, b"x" * 16_384))
    assert isinstance(asker.error, UpstreamMalformed)
    resets = [frame.error_code for frame in scene.heard() if isinstance(frame, RstStreamFrame)]
    assert resets == [Code.FLOW_CONTROL_ERROR]


def test_a_late_answer_puts_the_connection_in_doubt() -> None:
    """A service that does not answer a PING either is not there any more; one that does keeps its connection."""
    scene = Scene()
    _, asker = scene.ask()
    scene.pass_time(11)
    assert isinstance(asker.error, UpstreamTimedOut)
    ping = [frame for frame in scene.heard() if isinstance(frame, PingFrame)]
    assert len(ping) == 1
    scene.say(raw(6, 1, 0, ping[0].opaque_data))
    scene.pass_time(KEEPALIVE - 0.5)
    assert not scene.pipe.disconnecting
    scene.ask()
    scene.pass_time(11)
    scene.pass_time(PATIENCE + 0.5)
    assert scene.pipe.disconnected


def test_a_service_gets_few_pings_while_it_sends_nothing() -> None:
    """A server of gRPC ends a connection after the fourth. Then what it was sent has to be acknowledged by its system.

    What it sends of an answer, it may be asked again behind.
    """
    scene = Scene()

    def late() -> int:
        _, asker = scene.ask()
        scene.pass_time(11)
        assert isinstance(asker.error, UpstreamTimedOut)
        pings = [frame for frame in scene.heard() if isinstance(frame, PingFrame)]
        for ping in pings:
            scene.say(raw(6, 1, 0, ping.opaque_data))
        scene.pass_time(PATIENCE + 0.5)
        return len(pings)

    _, watching = scene.ask(b"POST", None)
    assert [late() for _ in range(5)] == [1, 1, 0, 0, 0]
    scene.say(scene.head(1, OK))
    assert [late() for _ in range(3)] == [1, 1, 0]
    scene.say(DataFrame(1, b"x"))
    assert late() == 1
    assert watching.error is None


@pytest.mark.parametrize("heard", [False, True])
def test_a_service_that_gets_no_ping_is_missed_all_the_same(heard: bool) -> None:
    """If its system acknowledges nothing, and nothing comes, the connection is lost, as without an answer to a PING."""
    scene = Scene()
    for _ in range(3):
        scene.ask()
        scene.pass_time(11)
        for ping in [frame for frame in scene.heard() if isinstance(frame, PingFrame)]:
            scene.say(raw(6, 1, 0, ping.opaque_data))
    scene.pipe.left = 100
    if heard:
        scene.say(raw(8, 0, 0, b"\0\0\0\1"))
    scene.pass_time(PATIENCE + 0.5)
    assert scene.pipe.disconnected is not heard


def test_a_service_may_ping_behind_each_request() -> None:
    """As grpc-go does by default, to measure the bandwidth: thousands of calls in a second keep their connection."""
    scene = Scene()
    for number in range(1, 601, 2):
        exchange, asker = scene.ask(b"POST", None)
        exchange.write(b"message")
        exchange.finish()
        scene.say(raw(6, 0, 0, b"x" * 8), scene.head(number, OK, end=True))
        assert asker.finished
    assert not scene.pipe.disconnected
    scene.say(*[raw(6, 0, 0, b"x" * 8)] * 101)
    assert scene.pipe.disconnected


def test_an_idle_connection_is_closed() -> None:
    """After the time for which HTTP/1.1's would be kept."""
    scene = Scene()
    _, asker = scene.ask()
    scene.pass_time(KEEPALIVE + 1)
    assert not scene.pipe.disconnecting
    scene.say(scene.head(1, OK, end=True))
    assert asker.finished
    scene.pass_time(KEEPALIVE + 1)
    assert scene.pipe.disconnecting


def test_an_answer_before_the_body_ends_the_body() -> None:
    """The service does not want the rest; the stream is reset, for it to know that none comes."""
    scene = Scene()
    exchange, asker = scene.ask(b"POST", 100)
    exchange.write(b"x")
    scene.say(scene.head(1, (":status", "413"), end=True))
    assert asker.finished
    assert asker.status == 413
    assert [frame.error_code for frame in scene.heard() if isinstance(frame, RstStreamFrame)] == [Code.CANCEL]
    exchange.write(b"more")
    exchange.finish()
    assert scene.heard() == []


def test_a_service_that_takes_no_more_of_a_whole_body_is_waited_for_no_longer_than_its_timeout() -> None:
    """Also where what is left fits into what may be held."""
    scene = Scene()
    scene.say(SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 1000}))
    exchange, asker = scene.ask(b"POST", 20_000)
    exchange.write(b"x" * 20_000)
    exchange.finish()
    scene.pass_time(9)
    scene.say(raw(8, 0, 1, b"\0\0\0\1"))
    scene.pass_time(9)
    assert asker.error is None
    scene.pass_time(2)
    assert isinstance(asker.error, UpstreamTimedOut)


def test_an_answer_that_is_whole_outlives_its_connection() -> None:
    """The client reads the rest of it when it reads on."""
    scene = Scene()
    exchange, asker = scene.ask()
    scene.say(scene.head(1, OK))
    exchange.pause_response()
    scene.say(DataFrame(1, b"x" * 5000, flags=["END_STREAM"]), GoAwayFrame(0, last_stream_id=1))
    scene.client.connectionLost()
    assert asker.error is None
    exchange.resume_response()
    assert (len(asker.body), asker.finished) == (5000, True)


def test_a_reset_is_not_answered_by_a_reset() -> None:
    """RFC 9113 §5.4.2."""
    scene = Scene()
    _, asker = scene.ask()
    scene.say(RstStreamFrame(1, error_code=2))
    assert isinstance(asker.error, UpstreamLost)
    assert not [frame for frame in scene.heard() if isinstance(frame, RstStreamFrame)]


def test_what_is_late_of_cancelled_downloads_is_forgiven() -> None:
    """A service sends on until it has read the reset, up to the stream's window."""
    scene = Scene()
    _, bystander = scene.ask()
    for _ in range(200):
        exchange, _ = scene.ask()
        number = exchange.flow.number
        exchange.abandon()
        for _ in range(7):
            scene.say(DataFrame(number, b"x" * 16_384))
        scene.heard()
    assert bystander.error is None


class Endpoint:
    """Connects, or does not, when the test says so."""

    def __init__(self) -> None:
        self.attempts: list[Deferred[object]] = []

    def connect(self, factory: object) -> Deferred[object]:
        self.attempts.append(Deferred())
        return self.attempts[-1]


def pool() -> tuple[Scene, Endpoint, Streams]:
    scene, endpoint = Scene(), Endpoint()
    make = partial(HTTP2Client, scene.deadlines, b"http", KEEPALIVE)
    made: Any = endpoint
    return scene, endpoint, Streams(made, make, PoolSettings(connect_timeout=5.0), scene.deadlines)


def test_a_service_that_cannot_be_reached_is_no_overload() -> None:
    """Whoever waits is told so in time, so that another target may be tried."""
    scene, endpoint, streams = pool()
    errors: list[object] = []
    streams.connect().addErrback(lambda failure: errors.append(failure.value))
    scene.pass_time(4.9)
    assert errors == []
    scene.pass_time(0.1)
    assert [type(error) for error in errors] == [ConnectFailed]
    assert len(endpoint.attempts) == 1


def test_a_process_without_files_is_not_the_service_s_fault() -> None:
    """It is an overload of this machine."""
    _, endpoint, streams = pool()
    errors: list[object] = []
    streams.connect().addErrback(lambda failure: errors.append(failure.value))
    error = ConnectError(osError=EMFILE)
    endpoint.attempts[0].errback(Failure(error))
    assert [type(error) for error in errors] == [PoolExhausted]


def test_a_pool_that_is_closed_serves_who_waits_and_nobody_else() -> None:
    """One connection is made for them, and it closes when they are done."""
    scene, endpoint, streams = pool()
    given: list[Any] = []
    streams.connect().addCallback(given.append)
    streams.close()
    assert len(endpoint.attempts) == 1
    client = streams._dialled
    assert client is not None
    pipe = Pipe()
    client.makeConnection(pipe)
    assert len(given) == 1
    asker = Asker()
    given[0].send(b"GET", b"/a", b"main", [], 0, False, 10.0, asker)
    given[0].finish()
    assert not pipe.disconnecting
    client.dataReceived(SettingsFrame(0).serialize() + scene.head(1, OK, end=True).serialize())
    assert asker.finished
    assert pipe.disconnecting
    assert len(endpoint.attempts) == 1
