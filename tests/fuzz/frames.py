"""Frames of HTTP/2: of a client, and of a service."""

from __future__ import annotations

from zlib import crc32

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded
from h2.exceptions import H2Error
from hyperframe.frame import Frame
from hypothesis import strategies as st
from support.http1_server import cut_at
from support.http2_client import Pipe, Recorder, Server
from twisted.internet.task import Clock
from wire.http2.conformance import frames as raw
from wire.http2.conformance.test_client import CASES as OF_SERVICES
from wire.http2.conformance.test_server import CASES as OF_CLIENTS
from wire.http2.test_client import Asker

from apigw.wire.deadlines import Deadlines
from apigw.wire.errors import ClientLost, Refused
from apigw.wire.http2.client import HTTP2Client
from apigw.wire.request import Request
from fuzz.target import Target

BEGINNING = raw.PREFACE + raw.settings()


class Answering(Recorder):
    """Answers when the body is complete or malformed."""

    def __init__(self, request: Request) -> None:
        super().__init__()
        self.request = request

    def body_finished(self) -> None:
        self.finished += 1
        self.request.respond(200, [(b"content-length", b"5")], b"hello")

    def client_failed(self, error: Refused | ClientLost) -> None:
        super().client_failed(error)
        if isinstance(error, Refused):
            self.request.respond(error.status, [], b"")


Taken = list[tuple[int, bytes, bytes, bytes | None]]
"""Requests: the stream, the method, the target, and the body if it is complete."""


def served(pieces: list[bytes]) -> tuple[Taken, bytes]:
    """What of the bytes of a client is a request, and what is sent."""
    listeners: list[Answering] = []

    def on_request(request: Request) -> None:
        request.listener = Answering(request)
        listeners.append(request.listener)
        numbers.append(request.stream.number)  # type: ignore[attr-defined]  # it is an HTTP2Stream
        request.read_body()

    numbers: list[int] = []
    client = Server(on_request=on_request).connect()
    for piece in pieces:
        client.send_bytes(piece)
    taken = [
        (number, one.request.method, one.request.uri, one.body if one.finished else None)
        for number, one in zip(numbers, listeners, strict=True)
    ]
    return taken, b"".join(iter(client.pipe.drain, b""))


def check(data: bytes) -> None:
    """What is taken does not depend on the pieces, and the ``h2`` library reads the same requests."""
    taken, sent = served([data])
    places = [crc32(data) % (len(data) + 1), crc32(data[::-1]) % (len(data) + 1)]
    assert served(cut_at(data, places)) == (taken, sent), places
    check_frames(sent)
    others = read_by_h2(data)
    for number, method, target, body in taken:
        if number in others:
            fields, other_body = others[number]
            assert (fields[b":method"], fields[b":path"]) == (method, target)
            assert body is None or other_body is None or body == other_body


def check_frames(sent: bytes) -> None:
    """All that is sent are whole frames."""
    while sent:
        frame, length = Frame.parse_frame_header(memoryview(sent[:9]), strict=True)
        assert length <= len(sent) - 9
        frame.parse_body(memoryview(sent[9 : 9 + length]))
        sent = sent[9 + length :]


def read_by_h2(data: bytes) -> dict[int, tuple[dict[bytes, bytes], bytes | None]]:
    """The requests up to what it takes for an error, with their bodies if they are complete."""
    config = H2Configuration(client_side=False, header_encoding=None, validate_inbound_headers=False)
    connection = H2Connection(config)
    connection.initiate_connection()
    connection.receive_data(BEGINNING)
    found: dict[int, tuple[dict[bytes, bytes], bytes | None]] = {}
    bodies: dict[int, bytes] = {}
    try:
        while len(data) >= 9:
            length = 9 + int.from_bytes(data[:3], "big")
            for event in connection.receive_data(data[:length]):
                if isinstance(event, RequestReceived):
                    found[event.stream_id] = (dict(event.headers), None)
                elif isinstance(event, DataReceived):
                    bodies[event.stream_id] = bodies.get(event.stream_id, b"") + event.data
                elif isinstance(event, StreamEnded) and event.stream_id in found:
                    found[event.stream_id] = (found[event.stream_id][0], bodies.get(event.stream_id, b""))
            data = data[length:]
    except (H2Error, ValueError):
        pass
    return found


Outcome = tuple[int, bytes, bool, str]


def answered(pieces: list[bytes]) -> tuple[Outcome, bytes]:
    """What becomes of an exchange, and what is sent."""
    client = HTTP2Client(Deadlines(Clock()), b"http", 60.0, lambda _: None, lambda _: None)
    pipe = Pipe()
    pipe.protocol = client
    client.makeConnection(pipe)
    asker = Asker()
    exchange = client.begin()
    exchange.send(b"GET", b"/", b"a", [], None, False, 30.0, asker)
    exchange.finish()
    pipe.drain()
    for piece in (raw.settings(), *pieces):
        client.dataReceived(piece)
    return (asker.status, asker.body, asker.finished, type(asker.error).__name__), pipe.drain()


def check_answer(data: bytes) -> None:
    """What becomes of an exchange does not depend on the pieces, but for how much of a broken answer is passed on."""
    (status, body, finished, error), sent = answered([data])
    places = [crc32(data) % (len(data) + 1), crc32(data[::-1]) % (len(data) + 1)]
    apart, _ = answered(cut_at(data, places))
    check_frames(sent)
    assert finished + (error != "NoneType") <= 1
    assert apart[2:] == (finished, error), places
    if finished:
        assert apart[:2] == (status, body)


BLOCKS = st.sampled_from([raw.GET, raw.POST, raw.GET[:3], b"\x88", b"\xbe", b"\x40\x01a\x01b", b"", b"\x80"])
NUMBERS = st.sampled_from([1, 1, 1, 3, 5, 0, 2])
SMALL = st.binary(max_size=20)
MADE = st.one_of(
    st.builds(raw.headers, NUMBERS, BLOCKS, st.sampled_from([0x05, 0x04, 0x01, 0x00, 0x2D])),
    st.builds(raw.data, NUMBERS, SMALL, st.sampled_from([0, 1, 9])),
    st.builds(raw.continuation, NUMBERS, BLOCKS, st.sampled_from([0, 4])),
    st.builds(raw.frame, st.integers(0, 10), st.integers(0, 255), NUMBERS, SMALL),
    st.builds(raw.window, NUMBERS, st.sampled_from([0, 1, 2**31 - 1])),
    st.builds(raw.reset, NUMBERS),
    st.builds(lambda key, value: raw.settings((key, value)), st.integers(1, 6), st.sampled_from([0, 1, 16384, 2**31])),
)
SOME = st.lists(MADE, max_size=8).map(b"".join)


def short(cases: dict[str, bytes]) -> list[bytes]:
    return [case for case in cases.values() if 0 < len(case) <= 200]


PIECES = (
    raw.get(1),
    raw.get(3),
    raw.post(1),
    raw.data(1, b"hello", raw.ES),
    raw.data(1),
    raw.headers(1, b"\x88", raw.EH),
    raw.headers(1, b"\x88"),
    raw.continuation(1),
    raw.reset(1),
    raw.ping(),
    raw.settings(),
    raw.goaway(),
    raw.window(0, 1),
    raw.frame(0x42, 0, 1),
    b"\0\0\0",
    b"\xff\xff\xff",
)
CLIENT = Target(
    "frames", check, SOME | st.sampled_from(short(OF_CLIENTS)), PIECES, base=200_000, slope=2000, long=16 * 1024
)
SERVICE = Target(
    "service_frames", check_answer, SOME | st.sampled_from(short(OF_SERVICES)), PIECES, base=100_000, slope=1000
)
