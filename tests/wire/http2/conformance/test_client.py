"""RFC 9113 by section, towards services: the frames of a service in, what becomes of the exchange and frames out."""

from __future__ import annotations

import pytest
from support.http2_client import Pipe
from twisted.internet.task import Clock

from apigw.wire.deadlines import Deadlines
from apigw.wire.errors import UpstreamLost
from apigw.wire.http2.bounds import MOST_CONTINUATIONS, MOST_QUESTIONS, MOST_TRIFLES
from apigw.wire.http2.client import HTTP2Client
from apigw.wire.http2.frames import PREFACE
from wire.http2.conformance.frames import (
    ACK,
    EH,
    ES,
    GET,
    PADDED,
    continuation,
    data,
    field,
    frame,
    goaway,
    headers,
    ping,
    priority,
    reset,
    said,
    settings,
    window,
)
from wire.http2.test_client import Asker

MAX = 2**31 - 1
OK = b"\x88"
FIVE = field(b"content-length", b"5")
INTERIM = headers(1, b"\x08\x03100", EH)
HEAD = headers(1, OK, EH)

CASES: dict[str, bytes] = {
    "§3.4: another first frame → failed, GOAWAY(0):PROTOCOL_ERROR": b"",
    "§4.1: a frame of an unknown type → waits": frame(0x42, 0xFF, 7, b"x"),
    "§4.2: a frame of 16384 bytes → 200 with 16384": HEAD + data(1, b"x" * 16384, ES),
    "§4.2: a frame of 16385 bytes → failed, GOAWAY(0):FRAME_SIZE_ERROR": HEAD + data(1, b"x" * 16385, ES),
    "§4.3: an invalid block → failed, GOAWAY(0):COMPRESSION_ERROR": headers(1, b"\x80"),
    "§4.3: another frame within a block → failed, GOAWAY(0):PROTOCOL_ERROR": headers(1, OK, ES) + ping(),
    "§5.1: DATA on an idle stream → failed, GOAWAY(0):PROTOCOL_ERROR": data(3, b"x"),
    "§5.1: HEADERS on an idle stream → failed, GOAWAY(0):PROTOCOL_ERROR": headers(3, OK),
    "§5.1: RST_STREAM on an idle stream → failed, GOAWAY(0):PROTOCOL_ERROR": reset(3),
    "§5.1: WINDOW_UPDATE on an idle stream → failed, GOAWAY(0):PROTOCOL_ERROR": window(3, 1),
    "§5.1: a stream of the service → failed, GOAWAY(0):PROTOCOL_ERROR": headers(2, OK),
    "§5.1: PRIORITY on an idle stream → waits": priority(7),
    "§5.1: WINDOW_UPDATE behind the end → 200 with 0": headers(1, OK) + window(1, 5),
    "§5.1: RST_STREAM behind the end → 200 with 0": headers(1, OK) + reset(1, b"\0\0\0\0"),
    "policy: HEADERS behind the end → 200 with 0": headers(1, OK) + headers(1, OK),
    "policy: DATA behind the end → 200 with 0": headers(1, OK) + data(1, b"x"),
    "§6.1: DATA on stream 0 → failed, GOAWAY(0):PROTOCOL_ERROR": data(0, b"x"),
    "§6.1: padding → 200 with 5": headers(1, OK + FIVE, EH) + data(1, b"\x03hello\0\0\0", ES | PADDED),
    "§6.1: padding of all the payload → failed, GOAWAY(0):PROTOCOL_ERROR": HEAD + data(1, b"\x03\0\0", PADDED),
    "§6.2: HEADERS on stream 0 → failed, GOAWAY(0):PROTOCOL_ERROR": headers(0, OK),
    "§6.4: RST_STREAM → lost": reset(1, b"\0\0\0\x02"),
    "§6.4: RST_STREAM after a part of the answer → lost": HEAD + data(1, b"x") + reset(1, b"\0\0\0\0"),
    "§6.4: RST_STREAM of three bytes → failed, GOAWAY(0):FRAME_SIZE_ERROR": reset(1, b"\0\0\0"),
    "§6.5: SETTINGS → waits, ACK": settings((3, 5), (0x4242, 1)),
    "§6.5: SETTINGS on a stream → failed, GOAWAY(0):PROTOCOL_ERROR": frame(4, 0, 1),
    "§6.5: an acknowledgement with a payload → failed, GOAWAY(0):FRAME_SIZE_ERROR": frame(4, ACK, 0, b"\0\3\0\0\0\1"),
    "§6.5.2: INITIAL_WINDOW_SIZE of 2^31 → failed, GOAWAY(0):FLOW_CONTROL_ERROR": settings((4, MAX + 1)),
    "§6.5.2: MAX_FRAME_SIZE of 16383 → failed, GOAWAY(0):PROTOCOL_ERROR": settings((5, 16383)),
    "§6.6: PUSH_PROMISE → failed, GOAWAY(0):PROTOCOL_ERROR": frame(5, EH, 1, b"\0\0\0\2" + GET),
    "§6.7: PING → waits, PONG": ping(),
    "§6.7: an answer nobody asked for → waits": ping(flags=ACK),
    "§6.7: PING of seven bytes → failed, GOAWAY(0):FRAME_SIZE_ERROR": ping(b"1234567"),
    "§6.8: GOAWAY below the stream → unsent, GOAWAY(0):NO_ERROR": goaway(0),
    "§6.8: GOAWAY of the stream, then its answer → 200 with 0, GOAWAY(0):NO_ERROR": goaway(1) + headers(1, OK),
    "§6.8: GOAWAY of seven bytes → failed, GOAWAY(0):FRAME_SIZE_ERROR": frame(7, 0, 0, b"\0" * 7),
    "§6.9: WINDOW_UPDATE of 0 → failed, GOAWAY(0):PROTOCOL_ERROR": window(0, 0),
    "§6.9: WINDOW_UPDATE of 0 on a stream → failed, 1:PROTOCOL_ERROR": window(1, 0),
    "§6.9.1: a window beyond 2^31-1 → failed, GOAWAY(0):FLOW_CONTROL_ERROR": window(0, MAX),
    "§6.9.1: a stream's window beyond 2^31-1 → failed, 1:FLOW_CONTROL_ERROR": window(1, MAX),
    "§6.10: CONTINUATION → 200 with 0": headers(1, b"", ES) + continuation(1, OK),
    "§6.10: CONTINUATION without HEADERS → failed, GOAWAY(0):PROTOCOL_ERROR": continuation(1),
    "§8.1: an interim answer → 200 with 0": INTERIM + headers(1, OK),
    "§8.1: an interim answer that ends the stream → failed, 1:PROTOCOL_ERROR": headers(1, b"\x08\x03100"),
    "§8.1: trailers → 200 with 1": HEAD + data(1, b"x") + headers(1, field(b"x-sum", b"1")),
    "§8.1: trailers without END_STREAM → failed, 1:PROTOCOL_ERROR": HEAD + headers(1, field(b"x-sum", b"1"), EH),
    "§8.1: a pseudo-header field in trailers → failed, 1:PROTOCOL_ERROR": HEAD + headers(1, OK),
    "§8.1: DATA before the head → failed, 1:PROTOCOL_ERROR": data(1, b"x"),
    "§8.1.1: a body shorter than its length → failed, 1:PROTOCOL_ERROR": headers(1, OK + FIVE, EH) + data(1, b"x", ES),
    "§8.1.1: a body longer than its length → failed, 1:PROTOCOL_ERROR": headers(1, OK + FIVE, EH) + data(1, b"x" * 6),
    "§8.2.1: an upper-case name → failed, 1:PROTOCOL_ERROR": headers(1, OK + field(b"X-A", b"1")),
    "§8.2.1: a line feed in a value → failed, 1:PROTOCOL_ERROR": headers(1, OK + field(b"x-a", b"1\n")),
    "§8.2.2: Connection → failed, 1:PROTOCOL_ERROR": headers(1, OK + field(b"connection", b"close")),
    "§8.2.2: Transfer-Encoding → failed, 1:PROTOCOL_ERROR": headers(1, OK + field(b"transfer-encoding", b"chunked")),
    "§8.3.2: no status → failed, 1:PROTOCOL_ERROR": headers(1, field(b"x-a", b"1")),
    "§8.3.2: a malformed status → failed, 1:PROTOCOL_ERROR": headers(1, b"\x08\x03abc"),
    "§8.3: a second status → failed, 1:PROTOCOL_ERROR": headers(1, OK + OK),
    "§8.3: a request's pseudo-header field → failed, 1:PROTOCOL_ERROR": headers(1, OK + b"\x82"),
    "§8.6: 101 → failed, 1:PROTOCOL_ERROR": headers(1, b"\x08\x03101", EH),
    "§8.7: REFUSED_STREAM → unsent": reset(1, b"\0\0\0\x07"),
    "policy: a complete answer, then a connection error → 200 with 0, GOAWAY(0):PROTOCOL_ERROR": headers(1, OK)
    + continuation(1),
    "policy: a body with 204 → failed, 1:PROTOCOL_ERROR": headers(1, b"\x89", EH) + data(1, b"x", ES),
    "policy: more CONTINUATION frames → failed, GOAWAY(0):ENHANCE_YOUR_CALM": headers(1, OK, ES)
    + continuation(1, flags=0) * (MOST_CONTINUATIONS + 1),
    "policy: many PING frames → failed, GOAWAY(0):ENHANCE_YOUR_CALM": ping(flags=ACK) * (MOST_QUESTIONS + 1),
    "policy: many PRIORITY frames → failed, GOAWAY(0):ENHANCE_YOUR_CALM": priority(1) * (MOST_TRIFLES + 2),
    "policy: many WINDOW_UPDATE frames → failed, GOAWAY(0):ENHANCE_YOUR_CALM": window(0, 1) * 8,
}
"""What the service sends after SETTINGS, to a connection with one GET on stream 1."""


def became(asker: Asker) -> str:
    if isinstance(asker.error, UpstreamLost):
        return "unsent" if asker.error.unsent else "lost"
    if asker.error is not None:
        return "failed"
    return f"{asker.status} with {len(asker.body)}" if asker.finished else "waits"


@pytest.mark.parametrize("case", CASES)
def test_a_case(case: str) -> None:
    """The exchange ends as is said behind the arrow, and nothing else is sent."""
    client = HTTP2Client(Deadlines(Clock()), b"http", 60.0, lambda _: None, lambda _: None)
    pipe = Pipe()
    pipe.protocol = client
    client.makeConnection(pipe)
    assert list(said(pipe.drain().removeprefix(PREFACE))) == ["SETTINGS", "0+983041"]
    asker = Asker()
    exchange = client.begin()
    exchange.send(b"GET", b"/", b"a", [], None, False, 30.0, asker)
    exchange.finish()
    assert list(said(pipe.drain())) == ["1:head."]
    if "first frame" in case:
        client.dataReceived(ping())
    else:
        client.dataReceived(settings())
        assert list(said(pipe.drain())) == ["ACK"]
        client.dataReceived(CASES[case])
    sent = " ".join(said(pipe.drain()))
    assert f"{became(asker)}{sent and ', '}{sent}" == case.rpartition(" → ")[2]
