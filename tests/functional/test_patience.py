"""How long clients may take, and how much they may send. What ends when, to the second, is the wire's to say."""

from __future__ import annotations

import pytest
from bench.machine import MIB
from support.client import Truncated, encode
from support.daemon import Daemon, gateway
from support.services import Received, Service
from support.waiting import eventually

from .conftest import Start

ALL = [{"path": "/*", "service": "main"}]


@pytest.fixture(scope="module")
def hasty(in_front: Start, module_service: Service) -> Daemon:
    return in_front(
        gateway(
            services={"main": module_service.url},
            routes=ALL,
            client_header_timeout="300ms",
            client_body_timeout="300ms",
            stream_idle_timeout="300ms",
            keepalive_timeout="300ms",
        )
    )


@pytest.fixture(scope="module")
def strict(in_front: Start, module_service: Service) -> Daemon:
    return in_front(
        gateway(services={"main": module_service.url}, routes=ALL, max_header_size="2KiB", max_header_count=10)
    )


@pytest.mark.parametrize("begun", ["GET /a HTTP/1.1\r\nHost: x\r\nX-A: 1", "\r\n"])
@pytest.mark.parametrize("first", [True, False])
def test_headers_that_do_not_end_are_408(hasty: Daemon, service: Service, begun: str, first: bool) -> None:
    """A head that is not complete in time is 408, on a first request and on a later one."""
    with hasty.connect() as client:
        if not first:
            assert client.get("/a").status == 200
        client.send(begun)
        try:
            answer = client.answer()
        except Truncated:
            # Of a connection over which nothing ever came that was a request, nobody need be told.
            assert begun == "\r\n"
        else:
            assert (answer.status, answer.code, answer.get("connection")) == (408, "client_timeout", "close")
            assert client.is_closed()


@pytest.mark.parametrize(
    ("path", "framing"), [("/a", "Transfer-Encoding: chunked"), ("/health", "Content-Length: 100")]
)
def test_a_body_that_does_not_come_is_408(hasty: Daemon, service: Service, path: str, framing: str) -> None:
    """A body that stops is 408, whoever was to read it."""
    with hasty.connect() as client:
        client.send(encode("PUT", path, framing))
        if "chunked" in framing:
            client.send(b"5\r\nhel")
        answer = client.answer()
        assert (answer.status, answer.code, answer.get("connection")) == (408, "client_timeout", "close")
    eventually(hasty.is_quiet)


def test_a_client_that_does_not_read_is_cut(hasty: Daemon, service: Service) -> None:
    """A client that does not read its answer is cut, and so is its request."""

    def behave(received: Received) -> None:
        received.conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (256 * MIB))
        while True:
            received.conversation.send(bytes(MIB))

    service.behave = behave
    with hasty.connect() as client:
        client.send(encode("GET", "/large"))
        eventually(lambda: service.requests)
        eventually(lambda: service.connections == 0)
        eventually(lambda: hasty.status()["connections"] == 0)
        with pytest.raises((Truncated, ConnectionResetError)):
            client.answer()


LARGE = "x" * 1500


@pytest.mark.parametrize(
    ("status", "code", "head"),
    [
        (431, "headers_too_large", f"GET /a HTTP/1.1\r\nHost: x\r\nX-A: {LARGE}\r\nX-B: {LARGE}\r\n\r\n"),
        (431, "headers_too_large", "GET /a HTTP/1.1\r\nHost: x\r\n" + "X-A: 1\r\n" * 10 + "\r\n"),
        (414, "target_too_long", f"GET /{LARGE}{LARGE} HTTP/1.1\r\nHost: x\r\n\r\n"),
    ],
)
def test_what_is_too_large_is_refused(strict: Daemon, service: Service, status: int, code: str, head: str) -> None:
    """What is too large is refused with its status, and the sender is told what is wrong."""
    with strict.connect() as client:
        answer = client.send(head).answer()
        assert (answer.status, answer.code, answer.get("connection")) == (status, code, "close")
        assert client.is_closed()
    assert service.requests == []
    with strict.connect() as client:
        assert client.get("/a", *["X-A: 1"] * 9).status == 200
        assert client.get("/" + LARGE).status == 200
