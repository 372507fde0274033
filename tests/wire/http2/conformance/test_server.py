"""RFC 9113 by section, towards clients: frames in, frames out. What is a policy beyond the RFC says so."""

from __future__ import annotations

import pytest
from support.http2_client import Fields, Pipe, Recorder, Server

from apigw.wire.errors import ClientLost, Refused
from apigw.wire.http2.bounds import MOST_CONTINUATIONS, MOST_OF_TURN, MOST_QUESTIONS, MOST_STREAMS, MOST_TRIFLES
from apigw.wire.http2.server import HTTP2Channel
from apigw.wire.request import Request
from wire.http2.conformance.frames import (
    ACK,
    AUTHORITY,
    EH,
    ES,
    GET,
    PADDED,
    POST,
    PREFACE,
    PRIORITISED,
    WAIT,
    continuation,
    data,
    field,
    frame,
    get,
    goaway,
    headers,
    ping,
    post,
    priority,
    reset,
    said,
    settings,
    window,
)

MAX = 2**31 - 1
EXPECT = field(b"expect", b"100-continue")
FIVE = field(b"content-length", b"5")

BEGINNINGS: dict[str, bytes] = {
    "§3.4: the preface and SETTINGS → ACK": PREFACE + settings(),
    "§3.4: another preface → GOAWAY(0):PROTOCOL_ERROR": PREFACE[:-1] + b"x" + settings(),
    "§3.4: another first frame → GOAWAY(0):PROTOCOL_ERROR": PREFACE + ping(),
    "§3.4: an acknowledgement as first frame → GOAWAY(0):PROTOCOL_ERROR": PREFACE + frame(4, ACK, 0),
}
"""All that the client sends."""

CASES: dict[str, bytes] = {
    "§4.1: a frame of an unknown type → nothing": frame(0x42, 0xFF, 7, b"x"),
    "§4.1: an unknown flag → PONG": ping(flags=0xFE),
    "§4.1: the reserved bit of a stream → 1:200.": headers(1 | 1 << 31),
    "§4.2: a frame of 16384 bytes → 1:200.": post(1) + data(1, b"x" * 16384, ES),
    "§4.2: a frame of 16385 bytes → GOAWAY(1):FRAME_SIZE_ERROR": post(1) + data(1, b"x" * 16385, ES),
    "§4.2: HEADERS of 16385 bytes → GOAWAY(0):FRAME_SIZE_ERROR": headers(1, GET + b"\x20" * 16379),
    "§4.3: an invalid block → GOAWAY(0):COMPRESSION_ERROR": headers(1, GET + b"\xff\xff\xff\xff\xff"),
    "§4.3: an invalid block as trailers → GOAWAY(1):COMPRESSION_ERROR": post(1) + headers(1, b"\x80"),
    "§4.3: another frame within a block → GOAWAY(0):PROTOCOL_ERROR": headers(1, GET, ES) + ping(),
    "§4.3: another stream's frame within a block → GOAWAY(0):PROTOCOL_ERROR": headers(1, GET, ES) + continuation(3),
    "§4.3: an unknown frame within a block → GOAWAY(0):PROTOCOL_ERROR": headers(1, GET, ES) + frame(0x42, 0, 1),
    "§5.1: DATA on an idle stream → GOAWAY(0):PROTOCOL_ERROR": data(1, b"x"),
    "§5.1: RST_STREAM on an idle stream → GOAWAY(0):PROTOCOL_ERROR": reset(1),
    "§5.1: WINDOW_UPDATE on an idle stream → GOAWAY(0):PROTOCOL_ERROR": window(1, 1),
    "§5.1: CONTINUATION on an idle stream → GOAWAY(0):PROTOCOL_ERROR": continuation(1),
    "§5.1: PRIORITY on an idle stream → nothing": priority(7),
    "§5.1: DATA on a half-closed stream → 1:200 1:STREAM_CLOSED": headers(1, GET[:2] + WAIT + AUTHORITY)
    + data(1, b"x"),
    "§5.1: HEADERS on a half-closed stream → 1:200 1:STREAM_CLOSED": headers(1, GET[:2] + WAIT + AUTHORITY) + get(1),
    "§5.1: WINDOW_UPDATE on a half-closed stream → 1:200": headers(1, GET[:2] + WAIT + AUTHORITY) + window(1, 5),
    "§5.1: DATA on a closed stream → 1:200. GOAWAY(1):STREAM_CLOSED": get(1) + data(1, b"x"),
    "§5.1: HEADERS on a closed stream → 1:200. GOAWAY(1):STREAM_CLOSED": get(1) + get(1),
    "§5.1: WINDOW_UPDATE on a closed stream → 1:200.": get(1) + window(1, 5),
    "§5.1: RST_STREAM on a closed stream → 1:200.": get(1) + reset(1),
    "§5.1: PRIORITY on a closed stream → 1:200.": get(1) + priority(1),
    "§5.1: DATA after the client's reset → GOAWAY(1):STREAM_CLOSED": post(1) + reset(1) + data(1, b"x"),
    "§5.1: DATA after the server's reset → 1:200 1:FLOW_CONTROL_ERROR": headers(1, POST[:2] + WAIT + AUTHORITY, EH)
    + data(1, b"x" * 16384) * 8
    + data(1, b"x") * 2
    + data(1, b"x", ES),
    "§5.1.1: an even stream → GOAWAY(0):PROTOCOL_ERROR": get(2),
    "§5.1.1: stream 0 → GOAWAY(0):PROTOCOL_ERROR": get(0),
    "§5.1.1: a lower stream → 5:200. GOAWAY(5):PROTOCOL_ERROR": get(5) + get(3),
    "§5.1.1: streams with gaps → 5:200. 9:200.": get(5) + get(9),
    f"§5.1.2: one stream too many → {2 * MOST_STREAMS + 1}:REFUSED_STREAM": b"".join(
        post(2 * n + 1) for n in range(MOST_STREAMS + 1)
    ),
    "§5.4.1: what is behind a connection error → GOAWAY(0):PROTOCOL_ERROR": continuation(1) + get(1) + ping(),
    "§6.1: DATA on stream 0 → GOAWAY(0):PROTOCOL_ERROR": data(0, b"x"),
    "§6.1: padding → 1:200.": post(1, FIVE) + data(1, b"\x03hello\0\0\0", ES | PADDED),
    "§6.1: only padding → 1:200.": post(1) + data(1, b"\x00", PADDED) + data(1, b"\x01\0", ES | PADDED),
    "§6.1: padding of all the payload → GOAWAY(1):PROTOCOL_ERROR": post(1) + data(1, b"\x03\0\0\0"[:3], ES | PADDED),
    "§6.1: padding without a length → GOAWAY(1):FRAME_SIZE_ERROR": post(1) + data(1, b"", ES | PADDED),
    "§6.2: HEADERS on stream 0 → GOAWAY(0):PROTOCOL_ERROR": headers(0),
    "§6.2: padding and priority → 1:200.": headers(
        1, b"\x02\0\0\0\0\x10" + GET + b"\0\0", ES | EH | PADDED | PRIORITISED
    ),
    "§6.2: padding of all the payload → GOAWAY(0):PROTOCOL_ERROR": headers(1, b"\x07" + GET, ES | EH | PADDED),
    "§6.2: a short priority → GOAWAY(0):FRAME_SIZE_ERROR": headers(1, b"\0\0\0\0", ES | EH | PRIORITISED),
    "§6.3: PRIORITY of four bytes → GOAWAY(0):FRAME_SIZE_ERROR": priority(1, b"\0\0\0\0"),
    "§6.3: PRIORITY on stream 0 → GOAWAY(0):PROTOCOL_ERROR": priority(0),
    "§6.4: RST_STREAM on stream 0 → GOAWAY(0):PROTOCOL_ERROR": reset(0),
    "§6.4: RST_STREAM of three bytes → GOAWAY(1):FRAME_SIZE_ERROR": post(1) + reset(1, b"\0\0\0"),
    "§6.4: RST_STREAM of an unknown code → nothing": post(1) + reset(1, b"\xff\xff\xff\xff"),
    "§6.5: SETTINGS → ACK": settings((3, 5), (0x4242, 1)),
    "§6.5: SETTINGS on a stream → GOAWAY(0):PROTOCOL_ERROR": frame(4, 0, 1),
    "§6.5: SETTINGS of five bytes → GOAWAY(0):FRAME_SIZE_ERROR": frame(4, 0, 0, b"\0\3\0\0\0"),
    "§6.5: an acknowledgement with a payload → GOAWAY(0):FRAME_SIZE_ERROR": frame(4, ACK, 0, b"\0\3\0\0\0\1"),
    "§6.5.2: ENABLE_PUSH of 2 → GOAWAY(0):PROTOCOL_ERROR": settings((2, 2)),
    "§6.5.2: INITIAL_WINDOW_SIZE of 2^31 → GOAWAY(0):FLOW_CONTROL_ERROR": settings((4, MAX + 1)),
    "§6.5.2: MAX_FRAME_SIZE of 16383 → GOAWAY(0):PROTOCOL_ERROR": settings((5, 16383)),
    "§6.5.2: MAX_FRAME_SIZE of 2^24 → GOAWAY(0):PROTOCOL_ERROR": settings((5, 2**24)),
    "§6.5.3: the last of two values → ACK 1:200 1:3": settings((4, 0), (4, 3)) + get(1, field(b"x-body", b"5")),
    "§6.6: PUSH_PROMISE → GOAWAY(0):PROTOCOL_ERROR": frame(5, EH, 1, b"\0\0\0\2" + GET),
    "§6.7: PING → PONG": ping(),
    "§6.7: an answer nobody asked for → nothing": ping(flags=ACK),
    "§6.7: PING on a stream → GOAWAY(0):PROTOCOL_ERROR": ping(number=1),
    "§6.7: PING of seven bytes → GOAWAY(0):FRAME_SIZE_ERROR": ping(b"1234567"),
    "§6.8: GOAWAY on a stream → GOAWAY(0):PROTOCOL_ERROR": goaway(number=1),
    "§6.8: GOAWAY of seven bytes → GOAWAY(0):FRAME_SIZE_ERROR": frame(7, 0, 0, b"\0" * 7),
    "§6.8: GOAWAY, then the end of a request → 1:200.": post(1) + goaway() + data(1, b"x", ES),
    "§6.9: WINDOW_UPDATE of 0 → GOAWAY(0):PROTOCOL_ERROR": window(0, 0),
    "§6.9: WINDOW_UPDATE of 0 on a stream → 1:PROTOCOL_ERROR": post(1) + window(1, 0),
    "§6.9: WINDOW_UPDATE of five bytes → GOAWAY(0):FRAME_SIZE_ERROR": frame(8, 0, 0, b"\0\0\0\1\0"),
    "§6.9: the reserved bit of an increment → nothing": window(0, 1 | 1 << 31),
    "§6.9.1: a window beyond 2^31-1 → GOAWAY(0):FLOW_CONTROL_ERROR": window(0, MAX),
    "§6.9.1: a stream's window beyond 2^31-1 → 1:FLOW_CONTROL_ERROR": post(1) + window(1, MAX),
    "§6.9.1: more DATA than the window → 1:200 1:FLOW_CONTROL_ERROR": headers(1, POST[:2] + WAIT + AUTHORITY, EH)
    + data(1, b"x" * 16384) * 8
    + data(1, b"x"),
    "§6.9.2: a window that becomes negative → ACK 1:200 1:10 ACK 1:1": settings((4, 10))
    + get(1, field(b"x-body", b"20"))
    + settings((4, 5))
    + window(1, 5)
    + window(1, 1),
    "§6.9.2: a setting that overflows a window → ACK GOAWAY(1):FLOW_CONTROL_ERROR": post(1)
    + window(1, 1000)
    + settings((4, MAX)),
    "§6.10: CONTINUATION → 1:200.": headers(1, GET[:3], ES) + continuation(1, GET[3:5], 0) + continuation(1, GET[5:]),
    "§6.10: an empty CONTINUATION → 1:200.": headers(1, GET, ES) + continuation(1),
    "§6.10: CONTINUATION without HEADERS → 1:200. GOAWAY(1):PROTOCOL_ERROR": get(1) + continuation(1),
    "§6.10: CONTINUATION on stream 0 → GOAWAY(0):PROTOCOL_ERROR": continuation(0),
    "§8.1: trailers → 1:200.": post(1) + data(1, b"x") + headers(1, field(b"x-sum", b"1")),
    "§8.1: trailers without END_STREAM → 1:PROTOCOL_ERROR": post(1) + headers(1, field(b"x-sum", b"1"), EH),
    "§8.1: a pseudo-header field in trailers → 1:PROTOCOL_ERROR": post(1) + headers(1, b"\x82"),
    "§8.1: an interim answer, when the body is wanted → 1:100 1:200.": post(1, EXPECT) + data(1, b"x", ES),
    "§8.1.1: a body shorter than its length → 1:400.": post(1, FIVE) + data(1, b"four", ES),
    "§8.1.1: a body longer than its length → 1:400.": post(1, FIVE) + data(1, b"sixsix", ES),
    "§8.1.1: no body, but a length → 1:400.": get(1, FIVE),
    "§8.2.1: an upper-case name → 1:400.": get(1, field(b"X-A", b"1")),
    "§8.2.1: a line feed in a value → 1:400.": get(1, field(b"x-a", b"1\n")),
    "§8.2.1: a space around a value → 1:400.": get(1, field(b"x-a", b" 1")),
    "§8.2.1: an empty value → 1:200.": get(1, field(b"x-a", b"")),
    "§8.2.2: Connection → 1:PROTOCOL_ERROR": get(1, field(b"connection", b"close")),
    "§8.2.2: Transfer-Encoding → 1:PROTOCOL_ERROR": get(1, field(b"transfer-encoding", b"chunked")),
    "§8.2.2: TE: trailers → 1:200.": get(1, field(b"te", b"trailers")),
    "§8.2.2: TE: gzip → 1:PROTOCOL_ERROR": get(1, field(b"te", b"gzip")),
    "§8.2.3: several cookies → 1:200.": get(1, field(b"cookie", b"a=b"), field(b"cookie", b"c=d")),
    "§8.3: a pseudo-header field behind a regular one → 1:PROTOCOL_ERROR": headers(
        1, GET[:2] + field(b"x-a", b"1") + GET[2:]
    ),
    "§8.3: an unknown pseudo-header field → 1:PROTOCOL_ERROR": get(1, field(b":version", b"1")),
    "§8.3: a response's pseudo-header field → 1:PROTOCOL_ERROR": get(1, b"\x88"),
    "§8.3.1: a repeated method → 1:PROTOCOL_ERROR": get(1, b"\x82"),
    "§8.3.1: no method → 1:PROTOCOL_ERROR": headers(1, GET[1:]),
    "§8.3.1: no scheme → 1:PROTOCOL_ERROR": headers(1, GET[:1] + GET[2:]),
    "§8.3.1: no path → 1:PROTOCOL_ERROR": headers(1, GET[:2] + AUTHORITY),
    "§8.3.1: an empty path → 1:400.": headers(1, GET[:2] + field(b":path", b"") + AUTHORITY),
    "§8.3.1: no authority, but Host → 1:200.": headers(1, GET[:3] + field(b"host", b"a")),
    "§8.3.1: neither authority nor Host → 1:400.": headers(1, GET[:3]),
    "§8.3.1: an authority and another Host → 1:400.": get(1, field(b"host", b"b")),
    "§8.3.1: user information in the authority → 1:400.": headers(1, GET[:3] + field(b":authority", b"a@b")),
    "§8.5: CONNECT → 1:405.": headers(1, field(b":method", b"CONNECT") + AUTHORITY),
    "§8.6: an upgrade → 1:PROTOCOL_ERROR": get(1, field(b"upgrade", b"websocket")),
    "§8.7: a request behind one that is malformed → 1:PROTOCOL_ERROR 3:200.": get(1, b"\x82") + get(3),
    "policy: * has no path → 1:400.": headers(1, GET[:2] + field(b":path", b"*") + AUTHORITY),
    "policy: an unknown method → 1:501.": headers(1, field(b":method", b"BREW") + GET[1:]),
    "policy: another scheme → 1:400.": headers(1, GET[:1] + field(b":scheme", b"ftp") + GET[2:]),
    "policy: DATA that ends a stream is given back to the connection in portions → nothing": post(1)
    + data(1, b"x" * 1000),
    f"policy: {MOST_CONTINUATIONS} CONTINUATION frames → 1:200.": headers(1, GET, ES)
    + continuation(1, flags=0) * (MOST_CONTINUATIONS - 1)
    + continuation(1),
    "policy: more CONTINUATION frames → GOAWAY(0):ENHANCE_YOUR_CALM": headers(1, GET, ES)
    + continuation(1, flags=0) * (MOST_CONTINUATIONS + 1),
    "policy: many PING frames → GOAWAY(0):ENHANCE_YOUR_CALM": ping(flags=ACK) * (MOST_QUESTIONS + 1),
    "policy: many empty DATA frames → GOAWAY(1):ENHANCE_YOUR_CALM": post(1) + data(1) * (MOST_TRIFLES + 2),
    "policy: many PRIORITY frames → GOAWAY(0):ENHANCE_YOUR_CALM": priority(1) * (MOST_TRIFLES + 1),
    "policy: many WINDOW_UPDATE frames → GOAWAY(0):ENHANCE_YOUR_CALM": window(0, 1) * 6,
}
"""What the client sends after the preface and SETTINGS. Stream 1 of ``/w`` gets only the head of its answer."""


class Application(Recorder):
    """Answers 200 when the body is read, with a body of as many bytes as are asked for, or refuses."""

    def __init__(self, request: Request) -> None:
        super().__init__()
        self.request = request

    def body_finished(self) -> None:
        self.request.respond(200, [], b"x" * int(dict(self.request.headers).get(b"x-body", b"0")))

    def client_failed(self, error: Refused | ClientLost) -> None:
        if isinstance(error, Refused):
            self.request.respond(error.status, [], b"")


def on_request(request: Request) -> None:
    if request.path == b"/w":
        request.start(200, [])
        request.flush()
    else:
        request.listener = Application(request)
        request.read_body()


class Quiet(Server):
    """Refusals have no body."""

    def _refused(self, refusal: Refused, peer: bytes, secure: bool, protocol: bytes) -> tuple[int, Fields, bytes]:
        return refusal.status, [], b""


@pytest.mark.parametrize("case", [*BEGINNINGS, *CASES])
def test_a_case(case: str) -> None:
    """What is behind the arrow is sent, and nothing else."""
    server, pipe = Quiet(on_request=on_request), Pipe()
    pipe.protocol = HTTP2Channel(server.factory, b"192.0.2.1", False)
    pipe.protocol.makeConnection(pipe)
    began = list(said(pipe.drain()))
    assert began == ["SETTINGS", "0+983041"]
    if case in CASES:
        pipe.protocol.dataReceived(PREFACE + settings())
        assert list(said(pipe.drain())) == ["ACK"]
    pipe.protocol.dataReceived(BEGINNINGS.get(case) or CASES[case])
    for _ in range(2 * MOST_STREAMS // MOST_OF_TURN):
        server.clock.advance(0)  # what is left for later turns
    sent = " ".join(said(b"".join(iter(pipe.drain, b""))))
    assert (sent or "nothing") == case.rpartition(" → ")[2]
