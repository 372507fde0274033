"""Trailers pass in both directions, to those who take them, and carry nothing that belongs into a head."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
from support.client import Client, chunked, encode
from support.daemon import Daemon, gateway
from support.h2_client import H2Client
from support.h2_service import H2Service, echo
from support.h2_service import Received as H2Received
from support.services import Received, Service

from .conftest import Start

SUM = ("x-sum", "42")
SENT = (SUM, ("x-user-id", "root"), ("authorization", "b"), ("content-length", "5"), ("set-cookie", "a=b"))
"""Of these, only one is a trailer."""


@pytest.fixture(scope="module")
def two() -> Iterator[H2Service]:
    with closing(H2Service()) as service:
        yield service
        assert service.failures == []


@pytest.fixture(scope="module")
def one() -> Iterator[Service]:
    with closing(Service()) as service:
        yield service
        assert service.failures == []


@pytest.fixture(scope="module")
def daemon(in_front: Start, one: Service, two: H2Service) -> Daemon:
    h2c = {"targets": [two.url], "protocol": "h2c"}
    # Every request to ``new`` waits for a connection.
    services = {"one": {"targets": [one.url]}, "two": h2c, "new": {**h2c, "max_connection_requests": 1}}
    routes = [
        {"path": "/one/*", "service": "one"},
        {"path": "/two/*", "service": "two"},
        {"path": "/new/*", "service": "new", "buffer_body": 0},
    ]
    return in_front(gateway(services=services, routes=routes))


def answer_with_trailers(received: H2Received) -> None:
    if received.ended:
        received.start(200)
        received.send(b"body")
        received.end(SUM, ("x-request-id", "forged"), ("content-type", "a"), ("set-cookie", "a=b"))


def answer_with_trailers_in_chunks(received: Received) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
    trailers = b"X-Sum: 42 \r\nX-Request-ID: forged\r\nContent-Type: a\r\nSet-Cookie: a=b\r\n"
    received.conversation.send(head + chunked(b"bo", b"dy", trailer=trailers))


@pytest.mark.parametrize("path", ["/one/a", "/two/a"])
def test_a_client_of_http2_gets_those_of_its_answer(daemon: Daemon, one: Service, two: H2Service, path: str) -> None:
    """Whatever the service speaks, and whether or not it sent ``TE``."""
    one.behave, two.behave = answer_with_trailers_in_chunks, answer_with_trailers
    with H2Client(daemon.address) as client:
        for fields in ([], [("te", "trailers")]):
            number = client.begin("GET", path, *fields)
            assert client.finish(number).body == b"body"
            assert client.streams[number].trailers == [SUM]


@pytest.mark.parametrize("path", ["/one/a", "/two/a"])
@pytest.mark.parametrize(
    ("field", "trailers"),
    [
        ("TE: trailers", [SUM]),
        ("TE: deflate, Trailers;q=0.5", [SUM]),
        ("TE: gzip, x-trailers", []),
        ("X: y", []),
    ],
)
def test_a_client_of_http1_gets_them_if_it_said_so(
    daemon: Daemon, one: Service, two: H2Service, path: str, field: str, trailers: list[tuple[str, str]]
) -> None:
    """By ``TE`` (RFC 9110 §6.5.1)."""
    one.behave, two.behave = answer_with_trailers_in_chunks, answer_with_trailers
    with Client(daemon.address) as client:
        for _ in range(2):
            client.trailers = []
            assert client.get(path, field, "Connection: TE").body == b"body"
            assert client.trailers == trailers


def test_an_answer_of_known_length_has_none_over_http1(daemon: Daemon, two: H2Service) -> None:
    """Only a chunked body has a place for them (RFC 9112 §7.1.2)."""

    def behave(received: H2Received) -> None:
        received.start(200, ("content-length", "4"))
        received.send(b"body")
        received.end(SUM)

    two.behave = behave
    with Client(daemon.address) as client:
        for _ in range(2):
            assert client.get("/two/a", "TE: trailers").body == b"body"


def test_those_of_a_request_reach_a_service_of_http2(daemon: Daemon, two: H2Service) -> None:
    """From clients of either version: no identity, and nothing that must be in a head."""
    two.behave = echo
    with H2Client(daemon.address) as client:
        number = client.begin("POST", "/two/a", end=False)
        client.send(number, b"body")
        client.end(number, *SENT)
        answer = client.finish(number)
    assert answer.json["body"] == "body"
    assert not {"x-sum", "x-user-id"} & dict(answer.json["headers"]).keys()
    assert two.last.trailers == [SUM]
    lines = b"".join(f"{name.title()}:  {value}\t\r\n".encode() for name, value in SENT)
    with Client(daemon.address) as plain:
        plain.send(encode("POST", "/two/a", "Transfer-Encoding: chunked") + chunked(b"body", trailer=lines))
        assert plain.answer().json["body"] == "body"
    assert two.last.trailers == [SUM]


def test_those_of_an_upload_that_is_streamed(daemon: Daemon, two: H2Service) -> None:
    """Also behind more than the windows allow, and where nothing but trailers follows the head."""
    two.behave = echo
    with H2Client(daemon.address) as client:
        for body in (b"x" * 300_000, b""):
            number = client.begin("POST", "/two/a", end=False)
            if body:
                client.send(number, body)
            client.end(number, SUM)
            assert client.finish(number).json["body"] == body.decode()
            assert two.last.trailers == [SUM]


def test_those_of_a_body_that_is_complete_before_it_can_be_sent(daemon: Daemon, two: H2Service) -> None:
    """As where a connection is made meanwhile; with a body and without."""
    two.behave = echo
    with Client(daemon.address) as client:
        for pieces in ([], [b"body"]):
            client.send(
                encode("POST", "/new/a", "Transfer-Encoding: chunked") + chunked(*pieces, trailer=b"X-Sum: 42\r\n")
            )
            assert client.answer().json["body"] == b"".join(pieces).decode()
            assert two.last.trailers == [SUM]


def test_those_of_a_request_do_not_reach_a_service_of_http1(daemon: Daemon, one: Service) -> None:
    """There, no service says that it takes any. It reads the body to its end, which it checks."""
    one.behave = lambda received: received.conversation.answer(200, body=received.body())
    with H2Client(daemon.address) as client:
        number = client.begin("POST", "/one/a", end=False)
        client.send(number, b"body")
        client.end(number, *SENT)
        assert client.finish(number).body == b"body"


def test_what_is_malformed_is_no_answer(daemon: Daemon, one: Service) -> None:
    """A control character in a trailer, and too many: the answer must not look complete."""

    def behave(received: Received) -> None:
        trailers = b"a: b\x01\r\n" if received.target.endswith("control") else b"a: b\r\n" * 1001
        received.conversation.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        received.conversation.send(chunked(b"body", trailer=trailers))

    one.behave = behave
    with H2Client(daemon.address) as client:
        for path in ("/one/control", "/one/many"):
            number = client.begin("GET", path)
            stream = client.streams[number]
            client.until(lambda stream=stream: stream.ended or stream.reset is not None)  # type: ignore[misc]
            assert stream.reset or (stream.answer is not None and stream.answer.status == 502)
