"""The Date of answers (RFC 9110 §6.6.1): the service's, or the gateway's own."""

from __future__ import annotations

from hyperframe.frame import HeadersFrame
from support.http1_server import DATE, Hold, Server
from support.http2_client import DATE as H2DATE
from support.http2_client import Server as H2Server
from support.http2_client import get

from apigw.wire.date import Dates

GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"


def test_the_time_as_a_field() -> None:
    """RFC 9110 §5.6.7: IMF-fixdate; made anew when a second has passed, also one into the past."""
    now = 784111777.9
    dates = Dates(lambda: now)
    assert dates.field() == (b"date", b"Sun, 06 Nov 1994 08:49:37 GMT")
    assert dates.line() is dates.line() == b"\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT"
    now = 784111778.0
    assert dates.field() == (b"date", b"Sun, 06 Nov 1994 08:49:38 GMT")
    now = 0.0
    assert dates.field() == (b"date", b"Thu, 01 Jan 1970 00:00:00 GMT")


def test_an_answer_without_date_gets_one() -> None:
    """A client that keeps answers in a cache knows how old they are. The caller's list stays as it is."""
    server = Server(application=Hold)
    client = server.connect()
    client.send(GET)
    fields = [(b"content-length", b"0")]
    server.seen[0].request.respond(200, fields, b"")
    assert client.transport.take() == b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n" + DATE + b"\r\n"
    assert fields == [(b"content-length", b"0")]


def test_the_date_of_a_service_stays() -> None:
    """Who made the answer knows when."""
    server = Server(application=Hold)
    client = server.connect()
    client.send(GET)
    server.seen[0].request.respond(200, [(b"date", b"x"), (b"content-length", b"0")], b"")
    assert client.transport.take() == b"HTTP/1.1 200 OK\r\ndate: x\r\ncontent-length: 0\r\n\r\n"


def test_what_is_no_request_is_answered_with_a_date() -> None:
    """A refusal of the wire is an answer too."""
    client = Server().connect()
    client.send(b"\0")
    assert DATE in client.transport.take()


def test_http2() -> None:
    """The same over HTTP/2, of an answer and of a refusal."""
    server = H2Server()
    client = server.connect()
    client.ask(1, get())
    server.requests[0].respond(200, [(b"content-length", b"0")], b"")
    client.ask(3, get(b"/%"))
    client.receive()
    heads = [frame for frame in client.frames if isinstance(frame, HeadersFrame)]
    assert [frame.stream_id for frame in heads] == [1, 3]
    for frame in heads:
        assert H2DATE[1] in [value for _, value in client.decoder.decode(frame.data, raw=True)]
