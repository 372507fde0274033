"""HTTP/1.1 towards clients: answers, bodies in both directions, pipelining, tunnels, and the end of connections."""

from __future__ import annotations

import itertools
import re

import pytest
from support.http1_server import CONTINUE, Client, Echo, Hold, Ignore, Server, one_by_one
from twisted.internet.error import ConnectionLost

from apigw.wire.channel import GRACE
from apigw.wire.errors import ClientLost, Refused
from apigw.wire.http1.server import UNTOLD_FOR
from apigw.wire.request import Request

GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
NEXT = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n"
PUT = b"PUT /a HTTP/1.1\r\nHost: a\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"


def put(size: int, *fields: bytes) -> bytes:
    return PUT + b"Content-Length: %d\r\n" % size + b"".join(field + b"\r\n" for field in fields) + b"\r\n"


WEBSOCKET = b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
CHUNKED = PUT + b"Transfer-Encoding: chunked\r\n\r\n"


def held(data: bytes = GET) -> tuple[Server, Client, Echo]:
    """A request that waits for the test to answer it."""
    server = Server(application=Hold)
    client = server.connect()
    client.send(data)
    return server, client, server.seen[0]


def ignored(data: bytes) -> tuple[Server, Client, Request]:
    """A request whose body the application has not asked for."""
    server = Server(application=Ignore)
    client = server.connect()
    client.send(data)
    return server, client, server.seen[0].request


def answer(request: Request, body: bytes = b"", status: int = 200) -> None:
    request.respond(status, [(b"content-length", b"%d" % len(body))], body)


# Answers.


def test_a_body_of_known_length() -> None:
    """The client sees the status, the fields in their order, and the body."""
    _, client, echo = held()
    echo.request.respond(200, [(b"x-a", b"1"), (b"content-length", b"2"), (b"x-a", b"2")], b"hi")
    assert client.receive() == b"HTTP/1.1 200 OK\r\nx-a: 1\r\ncontent-length: 2\r\nx-a: 2\r\n\r\nhi"
    assert client.end == "open"


def test_a_body_of_unknown_length_is_chunked() -> None:
    """A stream whose length nobody knows has an end that the client can tell from a broken connection."""
    _, client, echo = held()
    request = echo.request
    request.start(200, [])
    for piece in (b"a", b"", b"b" * 20):
        request.write(piece)
        request.flush()
    head, _, body = client.receive().partition(b"\r\n\r\n")
    assert head == b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked"
    assert body == b"1\r\na\r\n14\r\n" + b"b" * 20 + b"\r\n"
    request.finish()
    assert client.receive() == b"0\r\n\r\n"
    client.send(GET)


def test_a_body_of_unknown_length_in_1_0_ends_with_the_connection() -> None:
    """A client of HTTP/1.0 gets no chunks, which it could not read."""
    _, client, echo = held(b"GET /a HTTP/1.0\r\n\r\n")
    echo.request.respond(200, [], b"hello")
    assert client.receive() == b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhello"
    assert client.end == "closed"


@pytest.mark.parametrize(
    ("request_head", "status"), [(b"HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n", 200), (GET, 204), (GET, 304)]
)
def test_answers_without_body(request_head: bytes, status: int) -> None:
    """No byte follows an answer that has no body, or it would be taken for the next one."""
    server, client, echo = held(request_head + NEXT)
    echo.request.start(status, [(b"content-length", b"5")] if status != 204 else [])
    echo.request.write(b"hello")
    echo.request.finish()
    answer(server.seen[1].request, b"next")
    first, _, rest = client.receive().partition(b"\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 %d " % status)
    assert b"chunked" not in first
    assert rest == b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnext"


def test_of_an_answer_to_head_no_body_is_counted() -> None:
    """The access log does not tell of bytes that were never sent."""
    _, _, echo = held(b"HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n")
    answer(echo.request, b"hello")
    assert echo.request.bytes_sent == 0


def test_a_small_answer_is_one_write() -> None:
    """Head and body share a segment."""
    _, client, echo = held()
    writes: list[bytes] = []
    client.transport.write = writes.append  # type: ignore[method-assign, assignment]
    answer(echo.request, b"hello")
    assert len(writes) == 1


def test_a_reason_of_its_own() -> None:
    """A service's reason phrase reaches the client."""
    _, client, echo = held()
    echo.request.start(299, [(b"content-length", b"0")], b"Fine, Thanks")
    echo.request.finish()
    assert client.receive().startswith(b"HTTP/1.1 299 Fine, Thanks\r\n")


# What the application sees.


def test_the_fields_of_one_hop_stay_here() -> None:
    """Nothing that speaks of the client's connection is taken for something that speaks of the request."""
    fields = (
        b"Connection: keep-alive, X-Hop",
        b"Connection: te",
        b"X-Hop: 1",
        b"Keep-Alive: timeout=5",
        b"Proxy-Connection: keep-alive",
        b"TE: trailers",
        b"Trailer: x",
        b"Upgrade: h2c",
        b"Expect: 100-continue",
        b"HTTP2-Settings: AA",
        b"X-Kept:  \t a b \t",
    )
    _, _, echo = held(GET[:-2] + b"".join(field + b"\r\n" for field in fields) + b"\r\n")
    assert echo.request.headers == [(b"x-kept", b"a b"), (b"host", b"a")]
    assert not echo.request.upgrade


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (b"trailers", True),
        (b"gzip;q=0.5,\tTrailers ", True),
        (b"trailers;q=1, gzip", True),
        (b"x-trailers", False),
        (b"trailers-not", False),
        (b"", False),
    ],
)
def test_who_takes_trailers(value: bytes, wanted: bool) -> None:
    """Those who name them as a member of ``TE`` (RFC 9110 §10.1.4)."""
    _, _, echo = held(GET[:-2] + b"TE: " + value + b"\r\nTE: x\r\n\r\n")
    assert echo.request.wants_trailers is wanted


def test_the_peer_and_the_version() -> None:
    """The application knows who asked, and how."""
    _, _, echo = held(b"GET http://A:80/b/c?d HTTP/1.1\r\nHost: a:80\r\n\r\n")
    request = echo.request
    assert (request.uri, request.path, request.query, request.authority) == (b"/b/c?d", b"/b/c", b"?d", b"a:80")
    assert (request.stream.peer, request.stream.secure, request.clientproto) == (b"192.0.2.1", False, b"HTTP/1.1")
    assert request.content_length == 0


@pytest.mark.parametrize(
    ("head", "upgrade"),
    [
        (b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n", True),
        (b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, upgrade\r\nUpgrade: websocket\r\n\r\n", True),
        (b"GET /a HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n", False),
        (b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket, h2c\r\n\r\n", False),
        (b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n\r\n", False),
        (b"POST /a HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", False),
        (b"GET /a HTTP/1.0\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", False),
        (
            b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\nx",
            False,
        ),
    ],
)
def test_what_asks_for_a_websocket(head: bytes, upgrade: bool) -> None:
    """Only what can become a WebSocket is taken for the wish to be one."""
    _, _, echo = held(head)
    assert echo.request.upgrade is upgrade


# Bodies of requests.


@pytest.mark.parametrize("data", [put(6) + b"abcdef", CHUNKED + b"6\r\nabcdef\r\n0\r\n\r\n"])
def test_a_body_arrives_as_it_is_sent(data: bytes) -> None:
    """An upload reaches the application while it is sent, not when it is over."""
    server = Server()
    client = server.connect()
    end = data.index(b"def")
    client.send(data[:end])
    assert server.seen[0].body == b"abc"
    assert not server.seen[0].complete
    client.send(data[end:])
    assert server.seen[0].body == b"abcdef"
    assert client.receive().endswith(b"PUT /a abcdef")


@pytest.mark.parametrize("head", [put(1_000_000), CHUNKED + b"f4240\r\n"])
def test_an_upload_that_nobody_reads_waits(head: bytes) -> None:
    """What the application does not read stays with the client, and is not lost when it reads at last."""
    server, client, request = ignored(head)
    for _ in range(40):
        client.send(b"x" * 1000)
    assert not client.transport.reading
    assert len(request._unread) <= 1000
    request.read_body()
    server.wait(0)
    assert server.seen[0].body == b"x" * 40_000


@pytest.mark.parametrize("head", [put(3000), CHUNKED + b"bb8\r\n"])
def test_an_upload_at_the_pace_of_the_application(head: bytes) -> None:
    """An application that pauses gets what was on its way, and no more until it goes on."""
    server, client, echo = held(head)
    echo.request.pause_body()
    client.send(b"a" * 1000)
    assert echo.body == b""
    echo.request.resume_body()
    server.wait(0)
    assert echo.body == b"a" * 1000
    client.send(b"b" * 2000 + b"\r\n0\r\n\r\n" * (b"chunked" in head))
    assert echo.complete


def test_an_upload_that_ends_while_paused() -> None:
    """When the end of a body comes in spite of a pause, the connection goes on after it."""
    _, client, echo = held(put(4) + b"ab")
    echo.request.pause_body()
    client.transport.protocol.dataReceived(b"cd")  # as a layer of TLS does, which had it already
    echo.request.resume_body()
    answer(echo.request)
    client.send(NEXT)
    assert len(client.server.seen) == 2


def test_many_small_chunks_are_one_piece() -> None:
    """A client cannot make the gateway work harder than itself by cutting its body into small chunks."""
    server = Server()
    client = server.connect()
    pieces: list[bytes] = []
    client.send(CHUNKED)
    server.seen[0].body_received = pieces.append  # type: ignore[method-assign, assignment]
    client.send(b"1\r\nx\r\n" * 1000 + b"0\r\n\r\n")
    assert pieces == [b"x" * 1000]


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
def test_who_waits_for_100_continue_gets_it_when_the_body_is_read(version: bytes) -> None:
    """A client that asks first sends its body once it is wanted. HTTP/1.0 has no such answer."""
    head = put(2, b"Expect: 100-continue").replace(b"HTTP/1.1", b"HTTP/" + version)
    server, client, request = ignored(head)
    assert client.receive() == b""
    request.read_body()
    assert client.receive() == (CONTINUE if version == b"1.1" else b"")
    client.send(b"hi")
    assert server.seen[0].body == b"hi"


@pytest.mark.parametrize("body", [b"h", b"hi"])
def test_who_does_not_wait_for_100_continue_does_not_get_it(body: bytes) -> None:
    """A body that has begun needs no leave."""
    server, client, request = ignored(put(2, b"Expect: 100-continue") + body)
    request.read_body()
    assert CONTINUE not in client.receive()
    assert server.seen[0].body == body


# Answers before the body's end.


def test_a_small_rest_is_read_and_forgotten() -> None:
    """A refused upload of some kilobytes does not cost the client its connection, and is never taken for requests."""
    body = SMUGGLED * 100
    server, client, request = ignored(put(len(body)))
    answer(request, b"no", 401)
    assert client.receive() == b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 2\r\n\r\nno"
    client.send_in(one_by_one(body[:50]))
    client.send(body[50:] + NEXT)
    assert [echo.request.uri for echo in server.seen] == [b"/a", b"/next"]
    assert client.end == "open"


def test_a_small_rest_that_has_arrived_is_forgotten_too() -> None:
    """The same, when the body came along with its head."""
    body = SMUGGLED * 10
    server, _client, request = ignored(put(len(body)) + body + NEXT)
    answer(request, b"no", 401)
    server.wait(0)
    assert [echo.request.uri for echo in server.seen] == [b"/a", b"/next"]


@pytest.mark.parametrize("head", [put(64 * 1024 + 1), CHUNKED, put(5, b"Expect: 100-continue")])
def test_a_large_or_uncertain_rest_ends_the_connection(head: bytes) -> None:
    """The client can read its answer although it is still sending; what it sends is not taken for requests."""
    server, client, request = ignored(head)
    answer(request, b"no", 413)
    assert client.receive() == b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno"
    assert client.end == "half-closed"
    for _ in range(100):
        client.send(SMUGGLED * 100)
    assert len(server.seen) == 1
    server.wait(4.8)
    assert client.end == "half-closed"
    server.wait(0.4)
    assert client.end == "aborted"


def test_the_limit_of_what_is_read_and_forgotten() -> None:
    """64 KiB are read, to the byte."""
    _, client, request = ignored(put(64 * 1024))
    answer(request, b"no", 401)
    client.send(b"x" * 64 * 1024 + NEXT)
    assert len(client.server.seen) == 2


def test_an_answer_that_begins_early_and_ends_late() -> None:
    """A service may answer while it still reads. When both are done the connection goes on."""
    server, client, echo = held(put(4) + b"ab")
    echo.request.start(200, [(b"content-length", b"4")])
    echo.request.write(b"AB")
    echo.request.flush()
    assert client.receive().endswith(b"AB")
    client.send(b"cd" + NEXT)
    assert echo.complete
    echo.request.write(b"CD")
    echo.request.finish()
    server.wait(0)
    assert len(server.seen) == 2


def test_a_malformed_body_behind_the_beginning_of_an_answer_cuts() -> None:
    """An answer that cannot be completed does not look complete."""
    _, client, echo = held(CHUNKED)
    echo.request.start(200, [])
    echo.request.write(b"begun")
    echo.request.flush()
    client.send(b"oops\r\n")
    assert client.end == "aborted"
    assert isinstance(echo.error, Refused)


# Pipelining.


def test_pipelined_requests_are_answered_in_order() -> None:
    """The second answer never comes before the first, as the second request is not begun before."""
    server, client, first = held(GET + CHUNKED + b"2\r\nhi\r\n0\r\n\r\n" + put(2) + b"ho" + NEXT)
    server.wait(1)
    assert len(server.seen) == 1
    for number, expected in enumerate([b"", b"hi", b"ho", b""]):
        assert server.seen[number].body == expected
        answer(server.seen[number].request, b"%d" % number)
    assert [client.receive()[-1:], first.complete, len(server.seen)] == [b"3", True, 4]


def test_pipelining_against_a_reader_that_stalls_is_bounded() -> None:
    """A client that asks for much and reads nothing costs no more memory than its buffers."""
    server = Server(application=lambda request: Large(request))
    client = server.connect()
    client.transport.stalled = True
    for _ in range(50):
        client.send(GET * 100)
    assert client.transport.most_buffered < 64 * 1024 + 2 * len(LARGE)
    assert len(server.seen) < 20
    seen = received = 0
    while seen < 5000:
        client.transport.drain(2**30)
        server.wait(0)
        received += client.receive().count(b"HTTP/1.1 200 OK\r\n")
        assert len(server.seen) > seen
        seen = len(server.seen)
    client.transport.drain()
    received += client.receive().count(b"HTTP/1.1 200 OK\r\n")
    assert received == 5000
    assert client.transport.most_buffered < 64 * 1024 + 2 * len(LARGE)


def test_one_client_does_not_take_a_whole_turn_of_the_reactor() -> None:
    """Of many requests that are answered at once, 16 are in one turn; the rest follows in later ones, in order."""
    server = Server()
    clients = [server.connect() for _ in range(2)]
    for client in clients:
        client.transport.deliver(b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in range(100)))
    assert len(server.seen) == 2 * 16
    server.wait(0)
    turns = [len(list(run)) for _, run in itertools.groupby(server.seen, lambda echo: echo.request.stream)]
    assert turns == [16] * 12 + [4] * 2
    for client in clients:
        assert re.findall(rb"GET /(\d+) ", client.receive()) == [b"%d" % number for number in range(100)]
        assert client.transport.reading


@pytest.mark.parametrize("end", [ConnectionLost(), None])
def test_a_client_that_leaves_before_its_turn(end: ConnectionLost | None) -> None:
    """What it had asked is not begun any more."""
    server = Server()
    client = server.connect()
    client.transport.deliver(GET * 20)
    if end is None:
        server.factory.cut()
    else:
        client.transport.disconnect(end)
    server.wait(1)
    assert len(server.seen) == 16
    assert not server.factory.channels


LARGE = b"x" * 10_000


class Large(Echo):
    def body_finished(self) -> None:
        answer(self.request, LARGE)


def test_what_follows_the_last_request_does_not_destroy_its_answer() -> None:
    """A client that sends more behind ``Connection: close`` still gets to read the answer: no reset overtakes it."""
    server, client, echo = held(b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" + NEXT)
    answer(echo.request, b"done")
    assert client.receive().endswith(b"connection: close\r\n\r\ndone")
    assert client.end == "half-closed"
    client.send(NEXT)
    assert (len(server.seen), client.transport.unread) == (1, b"")


# The client reads slower than the application writes.


class Producer:
    paused = False

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False

    def stopProducing(self) -> None: ...


def test_a_producer_is_paused_while_the_client_does_not_read() -> None:
    """A download goes at the pace of the client."""
    _, client, echo = held()
    producer = Producer()
    client.transport.stalled = True
    echo.request.start(200, [])
    echo.request.stream.set_producer(producer)  # type: ignore[arg-type]
    while not producer.paused:
        echo.request.write(b"x" * 1000)
        echo.request.flush()
    late = Producer()
    echo.request.stream.set_producer(late)  # type: ignore[arg-type]
    assert late.paused
    client.transport.drain()
    assert not late.paused


# The end of an exchange.


def test_a_client_that_leaves_is_reported_once() -> None:
    """The application can stop its work for a client that is gone."""
    for data in (GET, put(5) + b"ab", CHUNKED + b"5\r\nab"):
        server, client, echo = held(data)
        client.transport.disconnect(ConnectionLost())
        assert isinstance(echo.error, ClientLost)
        answer(echo.request)
        echo.request.abort()
        assert not server.factory.channels


def test_a_client_that_ends_its_side_is_still_answered() -> None:
    """Who has nothing more to ask may say so (``nc -N``), and gets its answer, the last on the connection."""
    _, client, echo = held()
    client.transport.end()
    assert echo.error is None
    answer(echo.request, b"hi")
    assert client.receive() == b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi"
    assert client.end == "closed"


def test_a_client_that_ends_its_side_behind_several_requests() -> None:
    """All of them are answered."""
    server, client, echo = held(GET + NEXT)
    client.transport.end()
    answer(echo.request, b"1")
    server.wait(0)
    answer(server.seen[1].request, b"2")
    answers = client.receive().split(b"HTTP/1.1 ")[1:]
    assert [b"connection: close" in each for each in answers] == [False, True]
    assert client.end == "closed"


@pytest.mark.parametrize("sent", [b"", GET[:20], GET, put(5), put(5) + b"ab", CHUNKED + b"5\r\nab", WEBSOCKET])
def test_a_client_that_ends_its_side_elsewhere_is_gone(sent: bytes) -> None:
    """Between requests, within one, and where it asked for a tunnel, which needs both sides."""
    server = Server(application=Echo if sent == GET else Hold)
    client = server.connect()
    client.send(sent)
    client.transport.end()
    assert not server.factory.channels
    assert [type(echo.error) for echo in server.seen] == [type(None) if sent == GET else ClientLost] * len(server.seen)


def test_a_client_that_ends_its_side_has_time_to_read() -> None:
    """What it has not taken yet of its answers still reaches it."""
    server = Server(application=lambda request: Large(request))
    client = server.connect()
    client.transport.stalled = True
    client.send(GET)
    client.transport.end()
    server.wait(1)
    client.transport.drain()
    assert client.receive().endswith(LARGE)
    assert client.end == "closed"


def test_an_aborted_answer_takes_the_connection_along() -> None:
    """What was pipelined behind an answer that broke off is not begun."""
    server, client, echo = held(GET + NEXT)
    echo.request.start(200, [(b"content-length", b"10")])
    echo.request.write(b"half")
    echo.request.abort()
    server.wait(1)
    assert client.end == "aborted"
    assert len(server.seen) == 1
    assert echo.error is None


def test_an_answer_aborted_at_once_takes_the_connection_along() -> None:
    """The same, when it breaks off while the segment with the next request is still being read."""
    server = Server(application=lambda request: Abort(request))
    client = server.connect()
    client.send(GET + NEXT)
    assert (client.end, len(server.seen)) == ("aborted", 1)


class Abort(Echo):
    def body_finished(self) -> None:
        self.request.abort()


# Tunnels.


@pytest.mark.parametrize("early", [b"", b"early bird"])
def test_a_tunnel_takes_over_the_connection(early: bytes) -> None:
    """After a 101 the connection belongs to the WebSocket, with what the client sent too early."""
    server, client, echo = held(WEBSOCKET + early)
    assert len(server.seen) == 1
    transport, given, _ = echo.request.start_tunnel([(b"connection", b"upgrade"), (b"upgrade", b"websocket")])
    assert given == early
    assert transport is client.transport
    expected = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    assert client.receive() == expected
    transport.registerProducer(Producer(), True)
    server.wait(3600)
    assert client.end == "open"
    assert transport.reading


def test_a_tunnel_that_begins_at_once() -> None:
    """The same, when the application does not wait."""
    server = Server(application=lambda request: Tunnel(request))
    client = server.connect()
    client.send(WEBSOCKET + GET)
    tunnel = server.seen[0]
    assert isinstance(tunnel, Tunnel)
    assert (tunnel.early, len(server.seen)) == (GET, 1)


class Tunnel(Echo):
    early = b""

    def begin(self) -> None:
        super().begin()
        self.early = self.request.start_tunnel([])[1]

    def body_finished(self) -> None: ...


def test_a_refused_upgrade_is_an_answer_as_any_other() -> None:
    """What came behind the request was no WebSocket then, but the next request."""
    server, _, echo = held(WEBSOCKET + NEXT)
    answer(echo.request, b"no", 403)
    assert len(server.seen) == 2


# Draining.


def test_drain_closes_what_is_idle() -> None:
    """A connection without a request ends at once, and without a word; one that has just begun, a moment later."""
    server = Server()
    client, fresh, asking = (server.connect() for _ in range(3))
    client.send(GET)
    client.receive()
    server.factory.drain()
    server.wait(0)
    assert (client.end, client.receive()) == ("closed", b"")
    assert not fresh.transport.lost
    asking.send(GET)
    assert b"connection: close" in asking.receive()
    server.wait(2 * GRACE)
    assert fresh.transport.lost
    assert not server.factory.channels


def test_drain_reads_what_has_arrived_before_it_closes() -> None:
    """A request in the socket of an idle connection is answered, also when it is the connection's first."""
    server = Server()
    clients = [server.connect(), server.connect()]
    clients[0].send(GET)
    clients[0].receive()
    for client in clients:
        client.transport.arrived = lambda: len(GET)  # type: ignore[attr-defined]  # which the fake has not
    server.factory.drain()
    assert len(server.factory.channels) == 2
    for client in clients:
        client.transport.arrived = lambda: 0  # type: ignore[attr-defined]  # which the fake has not
        client.transport.deliver(GET)
    server.wait(0)
    assert all(b"connection: close" in client.receive() for client in clients)
    assert not server.factory.channels


def test_drain_does_not_wait_for_what_is_no_request() -> None:
    """A record of TLS of its own, say."""
    server = Server()
    client = server.connect()
    client.send(GET)
    client.receive()
    arrived = [1]
    client.transport.arrived = lambda: arrived.pop() if arrived else 0  # type: ignore[attr-defined]  # see above
    server.factory.drain()
    server.wait(0)
    assert client.end == "closed"


def test_drain_finishes_what_is_in_flight() -> None:
    """An exchange is completed, and the client told that the connection ends."""
    server, client, echo = held(put(4) + b"ab")
    server.factory.drain()
    client.send(b"cd")
    assert echo.complete
    answer(echo.request, b"done")
    assert client.receive() == b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\ndone"
    assert client.end == "closed"


@pytest.mark.parametrize("asks", [True, False])
def test_drain_finishes_an_answer_that_has_begun(asks: bool) -> None:
    """It is too late to tell the client, which may send its next request at once: that is answered, and tells it."""
    server, client, echo = held()
    echo.request.start(200, [])
    server.factory.drain()
    echo.request.write(b"rest")
    echo.request.finish()
    assert client.receive().endswith(b"4\r\nrest\r\n0\r\n\r\n")
    assert client.end == "open"
    if asks:
        client.send(GET)
        answer(server.seen[1].request)
        assert b"connection: close" in client.receive()
    else:
        server.wait(2 * UNTOLD_FOR)
    assert client.end == "closed"


@pytest.mark.parametrize("at_once", [True, False])
def test_drain_answers_what_had_arrived_whole(at_once: bool) -> None:
    """Pipelined requests that had arrived before the drain are answered; only the last answer says that it is."""
    server = Server(application=Echo if at_once else Hold)
    client = server.connect()
    if at_once:
        server.factory.draining = True
        client.send(GET + NEXT + GET)
    else:
        client.send(GET + NEXT + GET)
        server.factory.drain()
        for number in range(3):
            answer(server.seen[number].request)
    answers = client.receive().split(b"HTTP/1.1 ")[1:]
    assert [b"connection: close" in each for each in answers] == [False, False, True]
    server.wait(0)
    assert client.transport.lost


def test_drain_waits_for_a_request_that_has_begun() -> None:
    """Half a request may still become one."""
    server = Server()
    client = server.connect()
    client.send(GET[:20])
    server.factory.drain()
    client.send(GET[20:])
    assert b"connection: close" in client.receive()
    assert client.end == "closed"


def test_drain_leaves_tunnels_alone() -> None:
    """A WebSocket is an exchange in flight."""
    server, client, echo = held(WEBSOCKET)
    echo.request.start_tunnel([])
    server.factory.drain()
    assert client.end == "open"
    server.factory.cut()
    assert client.end == "aborted"


def test_cut_ends_everything() -> None:
    """After the time for draining nothing stays."""
    server, client, echo = held()
    lost: list[bool] = []
    server.factory.on_empty = lambda: lost.append(True)
    server.factory.cut()
    server.wait(0)
    assert (client.end, lost) == ("aborted", [True])
    assert isinstance(echo.error, ClientLost)
