"""HTTP/1.1 towards clients: how long is waited for what, by a clock that the test moves."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest
from attrs import evolve
from support.http1_server import Client, Echo, Hold, Ignore, Server

from apigw.wire.channel import Settings
from apigw.wire.errors import ClientLost, Refused
from apigw.wire.pace import WINDOW
from apigw.wire.request import Request

GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
PUT = b"PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n"
CHUNKED = b"PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
HEADER, BODY, KEEPALIVE = 10.0, 30.0, 75.0
KIB = 1024
SETTINGS = Settings(client_header_timeout=HEADER, client_body_timeout=BODY, keepalive_timeout=KEEPALIVE)
TICK = 0.2
"""How late a deadline may be noticed, with some room."""


def connected(application: type[Echo] = Echo, data: bytes = b"") -> tuple[Server, Client]:
    server = Server(SETTINGS, application=application)
    client = server.connect()
    if data:
        client.send(data)
    return server, client


def dribble(server: Server, client: Client, data: bytes, every: float, until: float) -> float:
    """Send ``data`` again and again; when the connection no longer was open, in seconds."""
    start = server.clock.seconds()
    while client.end == "open" and server.clock.seconds() < start + until:
        client.send(data)
        server.wait(every)
    return server.clock.seconds() - start


def status(client: Client) -> bytes:
    return client.receive()[9:12]


@pytest.mark.parametrize(
    ("data", "patience", "said", "end"),
    [
        (b"", KEEPALIVE, b"", "aborted"),
        (GET[:10], HEADER, b"408", "half-closed"),
        *[
            (data, BODY, b"408", "half-closed")
            for data in (PUT, PUT + b"x" * 50, CHUNKED, CHUNKED + b"5\r\nab", CHUNKED + b"1\r\na\r\n0\r\na: b\r\n")
        ],
    ],
)
def test_who_stalls(data: bytes, patience: float, said: bytes, end: str) -> None:
    """Half a request is answered with 408, and the application told; who says nothing is hung up on without a word."""
    server, client = connected(data=data)
    server.wait(patience - TICK)
    assert client.end == "open"
    server.wait(2 * TICK)
    assert (status(client), client.end) == (said, end)
    assert [type(echo.error) for echo in server.seen] == [Refused] * (patience == BODY)


def test_headers_that_stall_while_the_client_does_not_read() -> None:
    """When it has read at last, it has the time for headers to send the rest, and not that of an idle connection."""
    server, client = connected(data=GET + GET[:10])
    client.transport._producer.pauseProducing()  # the answer did not fit into the socket when the turn was over
    server.wait(1)
    client.transport._producer.resumeProducing()
    client.receive()
    server.wait(HEADER - TICK)
    assert client.end == "open"
    server.wait(2 * TICK)
    assert (status(client), client.end) == (b"408", "half-closed")


@pytest.mark.parametrize("first", [b"P", GET[:10], GET + GET[:10]])
def test_headers_that_dribble(first: bytes) -> None:
    """A byte now and then does not buy more time."""
    server, client = connected(data=first)
    assert dribble(server, client, b"a", 1, 60) == pytest.approx(HEADER, abs=1.1)


def test_empty_lines_that_dribble() -> None:
    """Neither do bytes that are forgiven before a request."""
    server, client = connected(data=b"\r\n")
    assert dribble(server, client, b"", 1, 60) == pytest.approx(HEADER, abs=1.1)
    server, client = connected(data=GET + b"\r")
    server.wait(HEADER / 2)
    client.send(b"\n")
    server.wait(HEADER / 2 + TICK)
    assert client.end == "closed"


def test_keepalive() -> None:
    """A connection that is not used any more is closed, and its time begins with each answer."""
    server, client = connected(data=GET)
    server.wait(KEEPALIVE - TICK)
    client.send(GET)
    client.receive()
    server.wait(KEEPALIVE - TICK)
    assert client.end == "open"
    server.wait(2 * TICK)
    assert (client.end, client.receive()) == ("closed", b"")


def put(size: int) -> bytes:
    return b"PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size


def test_a_body_that_goes_on_slowly() -> None:
    """A slow upload is none that stalls: 1 KiB a second is enough, however unevenly it comes."""
    server, client = connected(data=put(60 * 30 * KIB))
    for _ in range(60):
        client.send(b"x" * 30 * KIB)
        server.wait(BODY - TICK)
    assert server.seen[0].complete


def test_a_body_below_the_least_rate_is_408() -> None:
    """A body that brings less than 1 KiB a second, averaged over 30 s, is not read any further."""
    server, client = connected(data=put(10_000 * KIB))
    assert dribble(server, client, b"x" * (KIB - 100), 1, 120) < WINDOW + 2
    assert status(client) == b"408"
    assert isinstance(server.seen[0].error, Refused)


def test_a_body_of_unknown_length_has_no_least_rate() -> None:
    """A stream may be as slow as what it tells of."""
    server, client = connected(data=CHUNKED)
    assert dribble(server, client, b"1\r\nx\r\n", 1, 120) >= 120


def test_no_rate_where_none_is_set() -> None:
    """``client_least_rate: null`` leaves slow clients alone."""
    server = Server(evolve(SETTINGS, client_least_rate=None))
    client = server.connect()
    client.send(put(KIB))
    assert dribble(server, client, b"x", 1, 120) >= 120


def test_time_in_which_the_body_is_paused_does_not_count() -> None:
    """A client that sends as fast as it may is not slow because the service is."""
    server, client = connected(Hold, put(1000 * KIB))
    request = server.seen[0].request
    for _ in range(10):
        client.send(b"x" * 10 * KIB)
        request.pause_body()
        server.wait(WINDOW)
        request.resume_body()
        server.wait(5)
    assert client.end == "open"


def test_the_rest_of_a_refused_body_may_not_dribble_in() -> None:
    """The connection of a client that was answered before its body's end is closed when the rest comes too slowly."""
    server, client = connected(Ignore, put(60_000))
    server.seen[0].request.respond(401, [(b"content-length", b"0")], b"")
    client.receive()
    assert dribble(server, client, b"x", 1, 120) < WINDOW + 2
    assert (client.end, client.receive()) == ("closed", b"")


@pytest.mark.parametrize(
    ("begin", "again"),
    [(b"5", b";a"), (b"5;a=", b"b"), (b"1\r\nx\r\n", b"0"), (b"0\r\n", b"a: b\r\n"), (b"0\r\na:", b"b")],
)
def test_chunks_that_carry_nothing(begin: bytes, again: bytes) -> None:
    """Bytes of the chunked coding that are no body do not buy more time."""
    server, client = connected(data=CHUNKED + begin)
    assert dribble(server, client, again, 1, 120) < BODY + 2
    assert b"1.1 408 " in client.receive() or b"1.1 400 " in client.receive()


@pytest.mark.parametrize(
    ("application", "data", "hold", "go_on"),
    [
        (Ignore, PUT + b"x", None, Request.read_body),  # nobody wants it yet
        (Ignore, PUT[:-2] + b"Expect: 100-continue\r\n\r\n", None, Request.read_body),
        (Hold, PUT, Request.pause_body, Request.resume_body),  # a slow service
    ],
)
def test_who_is_told_to_wait_is_not_blamed_for_waiting(
    application: type[Echo], data: bytes, hold: Callable[[Request], None] | None, go_on: Callable[[Request], None]
) -> None:
    """The time for a body begins when it is asked for."""
    server, client = connected(application, data)
    request = server.seen[0].request
    if hold:
        hold(request)
    server.wait(BODY * 3)
    assert client.end == "open"
    go_on(request)
    server.wait(BODY - TICK)
    assert client.end == "open"
    server.wait(2 * TICK)
    assert b"HTTP/1.1 408 " in client.receive()


def test_a_body_that_stalls_behind_the_beginning_of_an_answer() -> None:
    """An answer that has begun cannot become a 408: it is cut."""
    server, client = connected(Hold, PUT)
    server.seen[0].request.start(200, [])
    server.wait(BODY + TICK)
    assert client.end == "aborted"
    assert isinstance(server.seen[0].error, ClientLost)


def test_the_rest_of_a_refused_body() -> None:
    """A client that announced more and does not send it loses the connection, quietly."""
    server, client = connected(Ignore, PUT)
    server.seen[0].request.respond(401, [(b"content-length", b"0")], b"")
    client.receive()
    server.wait(BODY - TICK)
    assert client.end == "open"
    server.wait(2 * TICK)
    assert (client.end, client.receive()) == ("closed", b"")


def test_a_client_that_has_ended_its_side_is_gone_when_nothing_can_be_said_to_it() -> None:
    """It may as well have closed: only a write could tell. So it waits 5 s for its answer, and for each piece of it."""
    for pieces in range(3):
        server, client = connected(Hold, GET)
        echo = server.seen[0]
        client.transport.end()
        for piece in range(pieces):
            server.wait(5 - TICK)
            if not piece:
                echo.request.start(200, [])
            echo.request.write(b"x")
            echo.request.flush()
        server.wait(5 - TICK)
        assert (client.end, echo.error) == ("open", None)
        server.wait(2 * TICK)
        assert client.end == "aborted"
        assert isinstance(echo.error, ClientLost)


# Readers.


def stalled(data: bytes, size: int = 200_000) -> tuple[Server, Client]:
    """A client that does not read its large answer, which is not finished."""
    server, client = connected(Hold, data)
    client.transport.stalled = True
    request = server.seen[0].request
    request.start(200, [(b"content-length", b"%d" % size)])
    request.write(b"x" * size)
    request.flush()
    return server, client


@pytest.mark.parametrize(
    ("data", "finished"),
    [*product((GET, PUT, PUT + b"x" * 100), (True, False)), (b"GET /a HTTP/1.0\r\n\r\n", True)],  # which then closes
)
def test_a_reader_that_stalls(data: bytes, finished: bool) -> None:
    """A client that does not read its answer is cut, whether or not the answer is complete."""
    server, client = stalled(data)
    if finished:
        server.seen[0].request.finish()
    server.wait(BODY - TICK)
    assert not client.transport.aborted
    server.wait(2 * TICK)
    assert client.transport.aborted


@pytest.mark.parametrize(
    "data", [GET, b"GET /a HTTP/1.0\r\n\r\n", b"PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 99999\r\n\r\n"]
)
def test_a_reader_that_is_slow(data: bytes) -> None:
    """A client that takes a little now and then gets all of its answer, however long that takes."""
    server, client = stalled(data)
    server.seen[0].request.finish()
    for _ in range(20):
        server.wait(BODY - 1)
        client.transport.drain(10_000)
    assert not client.transport.aborted
    client.transport.drain()
    server.wait(0)
    assert client.receive().endswith(b"x" * 200_000)


def test_lingering_has_an_end() -> None:
    """A client that was refused and sends on is reset after some seconds, during which it could read why."""
    server, client = connected(data=b"GET / HTTP/9.9\r\n\r\n")
    assert dribble(server, client, b"x" * 1000, 1, 0) == 0
    server.wait(4.5)
    assert client.end == "half-closed"
    server.wait(1)
    assert client.end == "aborted"
