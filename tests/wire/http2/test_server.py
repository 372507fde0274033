"""HTTP/2 towards clients: requests, answers, and the fields that a request may have."""

from __future__ import annotations

import pytest
from attrs import evolve
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    HeadersFrame,
)
from support.http2_client import DATE, TEXT, Fields, Server, get, hello, only, post

from apigw.wire.http2.frames import Code
from apigw.wire.request import Request
from apigw.wire.web_request import WebRequest

# Requests and responses.


def test_a_request_is_answered() -> None:
    """A client that asks gets its answer, and the application sees what was sent."""
    server = Server(on_request=hello)
    client = server.connect()
    client.ask(1, get(b"/a/b?c=d", (b"accept", b"*/*")))
    assert client.answer(1) == (200, TEXT, b"hello")
    request = only(server)
    assert (request.method, request.uri, request.path, request.query) == (b"GET", b"/a/b?c=d", b"/a/b", b"?c=d")
    assert request.authority == b"example.com"
    assert request.headers == [(b"host", b"example.com"), (b"accept", b"*/*")]
    assert request.clientproto == b"HTTP/2"
    assert (request.content_length, request.body_complete, request.upgrade) == (0, True, False)
    assert request.stream.peer == b"192.0.2.1"
    assert not client.channel.streams


def test_a_small_answer_is_one_write() -> None:
    """The head and the body of an answer share a segment, and so do the answers to requests that came in one."""
    server = Server(on_request=hello)
    client = server.connect()
    client.receive()
    writes = client.pipe.writes
    client.send(client.headers(1, get()), client.headers(3, get()))
    assert client.pipe.writes == writes + 1
    assert [frame.type for frame in client.receive()] == [HeadersFrame.type, DataFrame.type] * 2


def test_a_late_answer_is_one_write() -> None:
    """An upstream that answers later does not cost the client two segments either."""
    server = Server()
    client = server.connect()
    client.ask(1, get())
    client.receive()
    writes = client.pipe.writes
    hello(only(server))
    assert client.pipe.writes == writes + 1
    assert client.answer(1)[2] == b"hello"


@pytest.mark.parametrize(("method", "status"), [(b"HEAD", 200), (b"GET", 204), (b"GET", 304)])
def test_an_answer_without_a_body_ends_with_its_head(method: bytes, status: int) -> None:
    """HEAD, 204 and 304 have no DATA, whatever the application writes."""

    def on_request(request: Request) -> None:
        request.start(status, TEXT)
        request.write(b"hello")
        request.finish()

    client = Server(on_request=on_request).connect()
    client.ask(1, get(method=method))
    frames = [frame for frame in client.receive() if frame.stream_id == 1]
    assert [type(frame) for frame in frames] == [HeadersFrame]
    assert "END_STREAM" in frames[0].flags


def test_pieces_arrive_as_they_are_flushed() -> None:
    """Each server-sent event reaches the client when it happens, not when the response ends."""
    server = Server()
    client = server.connect()
    client.ask(1, get())
    request = only(server)
    request.start(200, [(b"content-type", b"text/event-stream")])
    request.flush()
    assert any(isinstance(frame, HeadersFrame) for frame in client.receive())
    for piece in (b"one", b"two"):
        request.write(piece)
        request.flush()
        assert [frame.data for frame in client.receive() if isinstance(frame, DataFrame)] == [piece]
    assert not client.ended(1)
    request.finish()
    assert client.ended(1)


def test_many_streams_are_answered_in_any_order() -> None:
    """A slow request does not hold up the one behind it."""
    server = Server()
    client = server.connect()
    for number in (1, 3, 5):
        client.ask(number, get(b"/%d" % number))
    for request in reversed(server.requests):
        request.respond(200, [], request.path)
    answers = [(frame.stream_id, frame.data) for frame in client.receive() if isinstance(frame, DataFrame)]
    assert answers == [(5, b"/5"), (3, b"/3"), (1, b"/1")]


def test_connection_fields_of_an_answer_are_left_out() -> None:
    """What the application says about an HTTP/1.1 connection would make the client drop the answer."""
    noise = [(b"connection", b"close"), (b"Transfer-Encoding", b"chunked"), (b"keep-alive", b"5"), (b"X-A", b"b")]
    client = Server(on_request=lambda request: request.respond(200, noise, b"")).connect()
    client.ask(1, get())
    assert client.answer(1)[1] == [(b"x-a", b"b")]


def test_a_large_head_is_continued() -> None:
    """An answer with more cookies than fit a frame still arrives."""
    cookies = [(b"set-cookie", b"%d=" % number + b"x" * 4000) for number in range(10)]
    client = Server(on_request=lambda request: request.respond(200, cookies, b"")).connect()
    client.ask(1, get())
    frames = [f for f in client.receive() if f.stream_id == 1 and isinstance(f, HeadersFrame | ContinuationFrame)]
    assert len(frames) == 3
    fields = client.decoder.decode(b"".join(frame.data for frame in frames), raw=True)
    assert [tuple(f) for f in fields] == [(b":status", b"200"), *cookies, DATE]


def test_a_twisted_resource_can_answer() -> None:
    """Health and metrics are ordinary twisted.web Resources; they work over HTTP/2 too."""

    def on_request(request: Request) -> None:
        web = WebRequest(request)
        assert web.getHeader(b"x-a") == b"b"
        web.setHeader(b"content-type", b"text/plain")
        web.write(b"hello")
        web.finish()

    client = Server(on_request=on_request).connect()
    client.ask(1, get(b"/a", (b"x-a", b"b")))
    assert client.answer(1) == (200, [(b"content-type", b"text/plain")], b"hello")


# The fields of a request.


REFUSED: list[tuple[int, Fields]] = [
    (400, get(b"a")),
    (400, get(b"")),
    (400, get(b"*", method=b"OPTIONS")),
    (400, get(b"http://example.com/a")),
    (400, get(b"/a b")),
    (400, get(b"/a\x00")),
    (400, get(b"/a\r\nx: y")),
    (400, get(b"/a#b")),
    (400, get(b"/%zz")),
    (400, get(b"/a/../b")),
    (400, get(b"/a//b")),
    (400, get(b"/a%2fb")),
    (400, get(b"/\xc3\xa4")),
    (400, get(method=b"GET /x HTTP/1.1\r\n")),
    (400, get(method=b"GET /x")),
    (400, get(method=b"")),
    (501, get(method=b"get")),
    (501, get(method=b"FROB")),
    (501, get(method=b"PRI")),
    (501, get(method=b"DESCRIBE")),
    (405, get(method=b"CONNECT")),
    (405, [(b":method", b"CONNECT"), (b":authority", b"example.com:443")]),
    (400, [(b":method", b"GET"), (b":scheme", b"ftp"), (b":authority", b"a"), (b":path", b"/")]),
    (400, [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/")]),
    (400, [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b""), (b":path", b"/")]),
    (400, [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"a b"), (b":path", b"/")]),
    (400, [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"user@a"), (b":path", b"/")]),
    (400, [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"a\r\nx: y"), (b":path", b"/")]),
    (400, [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b"host", b"a/b")]),
    (400, get(b"/", (b"host", b"other.com"))),
    (400, get(b"/", (b"host", b"example.com:443"))),
    (400, get(b"/", (b"host", b"example.com"), (b"host", b"example.com"))),
    (400, get(b"/", (b"Accept", b"a"))),
    (400, get(b"/", (b"", b"a"))),
    (400, get(b"/", (b"a b", b"a"))),
    (400, get(b"/", (b"a:b", b"a"))),
    (400, get(b"/", (b"a\r\n", b"a"))),
    (400, get(b"/", (b"\xc3\xa4", b"a"))),
    (400, get(b"/", (b"a", b"b\r\nc: d"))),
    (400, get(b"/", (b"a", b"b\nc"))),
    (400, get(b"/", (b"a", b"b\x00c"))),
    (400, get(b"/", (b"a", b" b"))),
    (400, get(b"/", (b"a", b"b\t"))),
    (400, get(b"/", (b"a", b"b\x7f"))),
    (400, post((b"content-length", b"1"))),
    (400, post((b"content-length", b"0"), (b"content-length", b"0"))),
    (400, post((b"content-length", b"+0"))),
    (400, post((b"content-length", b"0, 0"))),
    (400, post((b"content-length", b""))),
    (400, post((b"content-length", b"9" * 30))),
    (414, get(b"/" + b"a" * 40_000)),
    (431, get(b"/", (b"a", b"b" * 40_000))),
    (431, get(b"/", *[(b"a%d" % number, b"b" * 400) for number in range(100)])),
    (431, get(b"/", *[(b"a%d" % number, b"b") for number in range(101)])),
]


@pytest.mark.parametrize(("status", "fields"), REFUSED, ids=repr)
def test_what_cannot_be_a_request_is_refused(status: int, fields: Fields) -> None:
    """A malformed request gets its status on its stream, never reaches the application, and the connection lives."""
    server = Server(on_request=hello)
    client = server.connect()
    for piece in client.continued(1, fields, 3):
        client.send(piece)
    assert client.answer(1)[0] == status
    assert client.answer(1)[2].decode() == server.refusals[0].reason
    assert not server.requests
    client.ask(3, get())
    assert client.answer(3)[2] == b"hello"
    assert client.goaway() is None


BROKEN: list[Fields] = [
    get(b"/", (b":path", b"/b")),
    get(b"/", (b":status", b"200")),
    get(b"/", (b":unknown", b"a")),
    get(b"/", (b":protocol", b"websocket"), method=b"CONNECT"),
    [(b":method", b"GET"), *get()],
    [(b"accept", b"a"), *get()],
    [(b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/")],
    [(b":method", b"GET"), (b":authority", b"a"), (b":path", b"/")],
    [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"a")],
    [(b"accept", b"a")],
    [],
    get(b"/", (b"connection", b"close")),
    get(b"/", (b"keep-alive", b"5")),
    get(b"/", (b"proxy-connection", b"close")),
    get(b"/", (b"transfer-encoding", b"chunked")),
    get(b"/", (b"upgrade", b"websocket")),
    get(b"/", (b"te", b"gzip")),
    get(b"/", (b"te", b"trailers, gzip")),
]


@pytest.mark.parametrize("fields", BROKEN, ids=repr)
def test_what_is_not_http2_breaks_its_stream(fields: Fields) -> None:
    """A forbidden pseudo-header or connection field resets one stream; the others never notice."""
    server = Server(on_request=hello)
    client = server.connect()
    client.ask(1, fields)
    assert client.reset(1) == Code.PROTOCOL_ERROR
    assert not server.requests
    client.ask(3, get())
    assert client.answer(3)[2] == b"hello"


ACCEPTED: list[tuple[Fields, Fields]] = [
    (get(b"/", (b"te", b"trailers")), [(b"host", b"example.com"), (b"te", b"trailers")]),
    (get(b"/", (b"host", b"EXAMPLE.com")), [(b"host", b"EXAMPLE.com")]),
    (get(b"/", (b"a", b""), (b"a", b"b\tc \xff")), [(b"host", b"example.com"), (b"a", b""), (b"a", b"b\tc \xff")]),
    (
        get(b"/", (b"cookie", b"a=b"), (b"x", b"y"), (b"cookie", b"c=d"), (b"cookie", b"e=f")),
        [(b"host", b"example.com"), (b"x", b"y"), (b"cookie", b"a=b; c=d; e=f")],
    ),
    ([(b":method", b"GET"), (b":scheme", b"HTTPS"), (b":path", b"/"), (b"host", b"a")], [(b"host", b"a")]),
    (
        get(b"/", *[(b"cookie", b"a%d=b" % number) for number in range(300)]),
        [(b"host", b"example.com"), (b"cookie", b"; ".join(b"a%d=b" % number for number in range(300)))],
    ),
    (get(b"/", (b"host", b"EXAMPLE.com:80")), [(b"host", b"EXAMPLE.com:80")]),
    (get(b"/", (b"content-length", b"0")), [(b"host", b"example.com"), (b"content-length", b"0")]),
]


@pytest.mark.parametrize(("fields", "headers"), ACCEPTED, ids=repr)
def test_what_a_request_may_hold(fields: Fields, headers: Fields) -> None:
    """Browsers split their cookies, some clients send Host as well, gRPC sends te: all of them are served."""
    server = Server(on_request=hello)
    client = server.connect()
    client.ask(1, fields)
    assert client.answer(1)[0] == 200
    assert only(server).headers == headers


def test_limits_follow_the_settings() -> None:
    """An operator who lowers the limits of a running gateway lowers them for open connections too."""
    server = Server(on_request=hello)
    client = server.connect()
    server.factory.settings = evolve(server.settings, max_header_count=2, max_header_size=1000)
    client.ask(1, get(b"/", *[(b"a%d" % number, b"b") for number in range(3)]))
    assert client.answer(1)[0] == 431
    client.ask(3, get(b"/", (b"a", b"b" * 1000)))
    assert client.answer(3)[0] == 431


def test_a_refusal_of_head_has_no_body() -> None:
    """DATA in an answer to HEAD would make the client drop the connection."""
    client = Server().connect()
    client.ask(1, get(b"//", method=b"HEAD"))
    assert client.answer(1)[2] == b""
    assert int(dict(client.answer(1)[1])[b"content-length"])


def test_a_bomb_of_fields_is_not_kept() -> None:
    """A block that names one long field a hundred thousand times is answered with 431, at the price of reading it."""
    server = Server()
    client = server.connect()
    block = client.encoder.encode(get())
    long = b"\x40\x01a\x7f\xbd\x1d" + b"b" * 3900  # and into the table with it
    client.send(HeadersFrame(1, block + long, flags=["END_HEADERS", "END_STREAM"]))
    client.send(HeadersFrame(3, b"\x82\x86\x84" + b"\xbe" * 16_000, flags=["END_HEADERS", "END_STREAM"]))
    assert client.answer(3)[0] == 431
