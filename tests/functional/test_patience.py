"""How long clients may take, how much they may send, and how many there may be."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from bench.machine import MIB
from support.client import Client, Truncated, encode
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


@pytest.fixture
def few(in_front: Start, module_service: Service) -> Daemon:
    return in_front(gateway(services={"main": module_service.url}, routes=ALL, max_connections=3))


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


def test_headers_that_trickle_in_are_408_too(hasty: Daemon) -> None:
    """Bytes that trickle in do not lengthen the time."""
    with hasty.connect() as client:
        client.socket.settimeout(0.05)
        client.send("GET /a HTTP/1.1\r\nX-A: ")
        sent = 0
        while not client.unread:
            client.send("x")
            sent += 1
            assert sent < 200
            try:
                client.more()
            except TimeoutError:
                continue
        assert client.answer().status == 408


@pytest.mark.parametrize("silent", [True, False])
def test_idle_connections_are_closed(hasty: Daemon, service: Service, silent: bool) -> None:
    """A connection over which nothing comes is closed."""
    with hasty.connect() as client:
        if not silent:
            assert client.get("/a").status == 200
            assert client.get("/nothing//").status == 400
            return
        assert client.is_closed()
    eventually(lambda: hasty.status()["connections"] == 0)


@pytest.mark.parametrize("framing", ["Content-Length: 100", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("path", ["/a", "/health"])
def test_a_body_that_does_not_come_is_408(hasty: Daemon, service: Service, path: str, framing: str) -> None:
    """A body that stops is 408, whoever was to read it."""
    with hasty.connect() as client:
        client.send(encode("PUT", path, framing))
        if "chunked" in framing:
            client.send(b"5\r\nhel")
        answer = client.answer()
        assert (answer.status, answer.code, answer.get("connection")) == (408, "client_timeout", "close")
    eventually(hasty.is_quiet)


def test_a_slow_service_does_not_use_up_the_clients_time(hasty: Daemon, service: Service) -> None:
    """The time that a service takes is not the client's."""

    def behave(received: Received) -> None:
        received.body()
        received.conversation.socket.settimeout(1.0)
        assert received.conversation.wait_for_end()  # a timeout, in truth
        received.conversation.socket.settimeout(30)
        received.conversation.answer(200, body=b"at last")

    service.behave = behave
    with hasty.connect() as client:
        assert client.request("POST", "/a", body=b"x").body == b"at last"


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
        (431, "headers_too_large", f"GET /a HTTP/1.1\r\nHost: x\r\nX-A: {LARGE}\r\nX-B: {LARGE}"),
        (431, "headers_too_large", "GET /a HTTP/1.1\r\nHost: x\r\n" + "X-A: 1\r\n" * 10 + "\r\n"),
        (414, "target_too_long", f"GET /{LARGE}{LARGE} HTTP/1.1\r\nHost: x\r\n\r\n"),
        (414, "target_too_long", f"GET /{LARGE}{LARGE}"),
        (400, "bad_request", "GET /a HTTP/1.1\r\n\r\n"),
        (400, "bad_request", "GET /a HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n"),
        (
            400,
            "bad_request",
            "GET /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
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


@pytest.fixture
def three(few: Daemon) -> Iterator[list[Client]]:
    """As many clients as there may be, connected one after the other."""
    clients = []
    for number in range(3):
        clients.append(few.connect())
        eventually(lambda number=number: few.status()["connections"] == number + 1)  # type: ignore[misc]
    yield clients
    for client in clients:
        client.close()


def test_an_idle_connection_makes_room_for_a_new_one(few: Daemon, service: Service, three: list[Client]) -> None:
    """Where there is no room, whoever was idle for longest makes room."""
    for client in three:
        assert client.get("/a").status == 200
    assert three[0].get("/a").status == 200  # so that the second is idle for longest
    with few.connect() as new:
        assert new.get("/a").status == 200
        assert three[1].is_closed()
        assert three[0].get("/a").status == three[2].get("/a").status == 200


def test_who_is_being_served_is_not_closed(few: Daemon, service: Service, three: list[Client]) -> None:
    """Who is being served stays, and a newcomer has to go."""
    for client in three:
        client.send(encode("PUT", "/a", "Content-Length: 5") + b"he")
    eventually(lambda: few.status()["in_flight"] == 3)
    with few.connect() as late:
        assert late.is_closed()
    for client in three:
        assert client.send(b"llo").answer().json["body"] == "hello"
