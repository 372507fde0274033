"""An HTTP/2 client that can do what no honest one does, a transport in memory, and an application that records.

Its frames come from hyperframe and its field blocks from hpack, of which the channel under test uses neither.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define, field
from hpack import Decoder, Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from apigw.wire.channel import ChannelFactory, Opening, Settings
from apigw.wire.deadlines import Deadlines
from apigw.wire.errors import ClientLost, Refused
from apigw.wire.request import Request

DATE = (b"date", b"Thu, 01 Jan 1970 00:00:00 GMT")
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
Fields = list[tuple[bytes, bytes]]
TEXT: Fields = [(b"content-type", b"text/plain"), (b"content-length", b"5")]


def get(path: bytes = b"/a", *more: tuple[bytes, bytes], method: bytes = b"GET") -> Fields:
    """The fields of an honest request."""
    return [(b":method", method), (b":scheme", b"http"), (b":authority", b"example.com"), (b":path", path), *more]


def post(*more: tuple[bytes, bytes]) -> Fields:
    return get(b"/a", *more, method=b"POST")


class Pipe(StringTransport):
    """Tells its producer to pause while it holds more than 64 KiB, as a TCP transport does."""

    protocol: Any
    half_closed = False
    writes = 0
    left: int | None = None
    """Bytes that the client has not taken, where a test says so."""

    def unsent(self) -> int:
        return len(self.value()) if self.left is None else self.left

    def write(self, data: bytes) -> None:
        self.writes += 1
        super().write(data)
        if self.io.tell() > 65536 and self.producer is not None and not self.held_up:
            self.held_up = True
            self.producer.pauseProducing()

    held_up = False

    def drain(self) -> bytes:
        data = self.value()
        self.clear()
        if self.held_up and self.producer is not None:
            self.held_up = False
            self.producer.resumeProducing()
        return data

    def loseWriteConnection(self) -> None:
        self.half_closed = True

    @property
    def ended(self) -> bool:
        """Whether the client sees an end of what the server sends."""
        return self.half_closed or self.disconnecting


def raw(kind: int, flags: int, number: int, payload: bytes) -> bytes:
    """A frame as it is written, whatever it says."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + number.to_bytes(4, "big") + payload


class Recorder:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.body = b""
        self.pieces = 0
        self.finished = 0
        self.errors: list[Refused | ClientLost] = []

    def body_received(self, data: bytes) -> None:
        self.body += data
        self.pieces += 1

    def body_finished(self) -> None:
        self.finished += 1

    def client_failed(self, error: Refused | ClientLost) -> None:
        self.errors.append(error)


@define
class Server:
    """A ChannelFactory, its clock, and the requests that reached the application."""

    settings: Settings = field(factory=Settings)
    on_request: Callable[[Request], object] = lambda request: None
    clock: Clock = field(factory=Clock)
    requests: list[Request] = field(factory=list)
    refusals: list[Refused] = field(factory=list)
    factory: ChannelFactory = field(init=False)

    def __attrs_post_init__(self) -> None:
        deadlines = Deadlines(self.clock)
        self.factory = ChannelFactory(self.settings, deadlines, self._request, self._refused, lambda: 0.0)

    def _request(self, request: Request) -> None:
        self.requests.append(request)
        self.on_request(request)

    def _refused(self, refusal: Refused, peer: bytes, secure: bool, protocol: bytes) -> tuple[int, Fields, bytes]:
        assert protocol == b"HTTP/2"
        self.refusals.append(refusal)
        body = refusal.reason.encode()
        return refusal.status, [(b"content-length", b"%d" % len(body))], body

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.factory.deadlines.check()

    def connect(self, settings: dict[int, int] | None = None) -> Client:
        return Client(self, settings or {})


class Client:
    """One connection to a ``Server``. What came is kept in ``frames``."""

    def __init__(self, server: Server, settings: dict[int, int]) -> None:
        self.encoder = Encoder()
        self.decoder = Decoder()
        self.frames: list[Frame] = []
        self.pipe = Pipe()
        self.pipe.protocol = Opening(server.factory, b"192.0.2.1")
        self.pipe.protocol.makeConnection(self.pipe)
        self.send_bytes(PREFACE + SettingsFrame(0, settings=settings).serialize())

    @property
    def channel(self) -> Any:
        """The protocol of the connection: once the preface has come, an ``HTTP2Channel``."""
        return self.pipe.protocol

    def send_bytes(self, data: bytes) -> None:
        if self.pipe.producerState == "producing":
            self.channel.dataReceived(data)

    def send(self, *frames: Frame) -> None:
        self.send_bytes(b"".join(frame.serialize() for frame in frames))

    def ask(self, number: int, fields: Fields, end: bool = True) -> None:
        self.send(self.headers(number, fields, end))

    def headers(self, number: int, fields: Fields, end: bool = True) -> HeadersFrame:
        flags = ["END_HEADERS", "END_STREAM"] if end else ["END_HEADERS"]
        return HeadersFrame(number, self.encoder.encode(fields), flags=flags)

    def continued(self, number: int, fields: Fields, pieces: int) -> list[Frame]:
        """A whole request whose block goes on for that many CONTINUATION frames."""
        block = self.encoder.encode(fields)
        cut = len(block) // (pieces + 1)
        parts = [block[at * cut : (at + 1) * cut] for at in range(pieces)] + [block[pieces * cut :]]
        frames: list[Any] = [HeadersFrame(number, parts[0], flags=["END_STREAM"])]
        frames += [ContinuationFrame(number, part) for part in parts[1:]]
        frames[-1].flags.add("END_HEADERS")
        return frames

    def put(self, number: int, data: bytes, end: bool = False) -> None:
        self.send(DataFrame(number, data, flags=["END_STREAM"] if end else []))

    def receive(self) -> list[Frame]:
        """What came since the last call, and what comes because there is room for it now."""
        data = b"".join(iter(self.pipe.drain, b""))
        frames: list[Frame] = []
        while data:
            frame, length = Frame.parse_frame_header(memoryview(data[:9]))
            frame.parse_body(memoryview(data[9 : 9 + length]))
            frames.append(frame)
            data = data[9 + length :]
        self.frames += frames
        return frames

    def answer(self, number: int) -> tuple[int, Fields, bytes]:
        """The whole answer on a stream: status, fields but for the server's Date, body."""
        self.receive()
        mine = [frame for frame in self.frames if frame.stream_id == number]
        blocks = [frame for frame in mine if isinstance(frame, HeadersFrame)]
        fields = [[(bytes(n), bytes(v)) for n, v in self.decoder.decode(frame.data, raw=True)] for frame in blocks]
        body = b"".join(frame.data for frame in mine if isinstance(frame, DataFrame))
        assert any("END_STREAM" in frame.flags for frame in mine), mine
        assert fields[-1][0][0] == b":status"
        return int(fields[-1][0][1]), [field for field in fields[-1][1:] if field != DATE], body

    def body(self, number: int) -> bytes:
        self.receive()
        return b"".join(f.data for f in self.frames if isinstance(f, DataFrame) and f.stream_id == number)

    def ended(self, number: int) -> bool:
        self.receive()
        return any(frame.stream_id == number and "END_STREAM" in frame.flags for frame in self.frames)

    def reset(self, number: int) -> int | None:
        """The code with which a stream was reset."""
        self.receive()
        codes = [f.error_code for f in self.frames if isinstance(f, RstStreamFrame) and f.stream_id == number]
        assert len(codes) <= 1
        return codes[0] if codes else None

    def goaway(self) -> int | None:
        """The code of the last GOAWAY."""
        self.receive()
        codes = [frame.error_code for frame in self.frames if isinstance(frame, GoAwayFrame)]
        return codes[-1] if codes else None

    def window(self, number: int) -> int:
        """By how much the server has opened a window (0: the connection's)."""
        self.receive()
        return sum(
            f.window_increment for f in self.frames if isinstance(f, WindowUpdateFrame) and f.stream_id == number
        )

    def open_window(self, number: int, increment: int) -> None:
        self.send(WindowUpdateFrame(number, window_increment=increment))

    def is_served(self, number: int) -> bool:
        """Whether the connection is still good for a PING."""
        self.send(PingFrame(0, opaque_data=b"%08d" % number))
        return any(isinstance(f, PingFrame) and f.opaque_data == b"%08d" % number for f in self.receive())


def hello(request: Request) -> None:
    """An application that answers at once."""
    request.respond(200, TEXT, b"hello")


def listen(request: Request) -> Recorder:
    recorder = Recorder()
    request.listener = recorder
    request.read_body()
    return recorder


def only(server: Server) -> Request:
    """The one request that reached the application."""
    (request,) = server.requests
    return request


def opened(client: Client) -> Client:
    """The client, with a request on stream 1 whose body has not come."""
    client.ask(1, post(), end=False)
    return client


class Producer:
    """An upstream whose body comes in pieces, and that can be told to wait."""

    def __init__(self) -> None:
        self.paused = False

    def pauseProducing(self) -> None:
        assert not self.paused
        self.paused = True

    def resumeProducing(self) -> None:
        assert self.paused
        self.paused = False

    def stopProducing(self) -> None:
        raise AssertionError


def download(server: Server, client: Client, number: int = 1) -> tuple[Request, Producer]:
    """A response that has begun, and what makes its body."""
    client.ask(number, get())
    request = server.requests[-1]
    producer = Producer()
    request.stream.set_producer(producer)  # type: ignore[arg-type]
    request.start(200, [])
    return request, producer


def pour(request: Request, producer: Producer, most: int, reader: Client | None = None) -> int:
    """Write until told to wait, while ``reader`` reads. Returns how much was written."""
    written = 0
    while not producer.paused and written < most:
        request.write(b"x" * 10_000)
        request.flush()
        written += 10_000
        if reader is not None:
            reader.receive()
    return written
