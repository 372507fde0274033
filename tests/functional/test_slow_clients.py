"""Clients without bandwidth take nothing from others: a service has few connections here, and they have many."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from support.client import Client, encode
from support.daemon import Daemon, gateway
from support.h2_client import H2Client
from support.services import Service
from support.waiting import eventually

from .conftest import Start

FEW, MANY = 2, 8
BREAKER = {"window": "60s", "min_requests": 1, "open_for": "1m"}


@pytest.fixture(scope="module")
def daemon(in_front: Start, module_service: Service) -> Daemon:
    scarce = {"targets": [module_service.url], "max_connections": FEW}
    routes = [
        {"path": "/main/*", "service": "main"},
        {"path": "/at-once/*", "service": "main", "buffer_body": 0},
        {"path": "/broken/*", "service": "broken"},
    ]
    services = {"main": scarce, "broken": {"targets": [module_service.url], "circuit_breaker": BREAKER}}
    return in_front(gateway(services=services, routes=routes))


@pytest.fixture(scope="module")
def full(in_front: Start, module_service: Service) -> Daemon:
    """A gateway that has no room for bodies."""
    return in_front(
        gateway(services={"main": module_service.url}, routes=[{"path": "/*", "service": "main"}], max_buffered=0)
    )


@pytest.fixture
def held() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize(
    "framing",
    ["Content-Length: 60000", "Content-Length: 65536", "Transfer-Encoding: chunked", "Content-Length: 9999999"],
)
def test_bodies_that_do_not_come_hold_no_connection(
    daemon: Daemon, service: Service, held: ExitStack, framing: str
) -> None:
    """A request whose small body, or whose first piece of a larger one, is still to come leaves the service alone."""
    for _ in range(MANY):
        client = held.enter_context(daemon.connect())
        client.send(encode("POST", "/main/slow", framing))
        if framing.endswith(("60000", "65536")):
            client.send("x")
    eventually(lambda: daemon.status()["in_flight"] == MANY)
    assert daemon.get("/main/other").status == 200
    assert [request.target for request in service.requests] == ["/main/other"]


def test_nor_do_streams_of_http2(daemon: Daemon, service: Service, held: ExitStack) -> None:
    """The same for the streams of one connection."""
    client = held.enter_context(H2Client(daemon.address))
    numbers = [client.begin("POST", "/main/slow", ("content-length", "60000"), end=False) for _ in range(MANY)]
    for number in numbers:
        client.send(number, b"x")
    eventually(lambda: daemon.status()["in_flight"] == MANY)
    assert daemon.get("/main/other").status == 200
    assert client.request("POST", "/main/mine", body=b"whole").json["body"] == "whole"
    assert [request.target for request in service.requests] == ["/main/other", "/main/mine"]


@pytest.mark.parametrize(("size", "pieces"), [(1, 1), (1000, 7), (65_536, 2), (65_537, 1), (65_537, 2), (300_000, 7)])
@pytest.mark.parametrize("path", ["/main/a", "/at-once/a"])
def test_a_body_arrives_whole(daemon: Daemon, service: Service, size: int, path: str, pieces: int) -> None:
    """Whatever is kept of a body, and however it comes, the service gets all of it, once."""
    body = bytes(byte % 251 for byte in range(size))
    step = -(-size // pieces)
    with daemon.connect() as client:
        client.send(encode("POST", path, f"Content-Length: {size}"))
        for at in range(0, size, step):
            client.send(body[at : at + step])
        assert client.answer().json["body"].encode("latin-1") == body
        assert client.get("/main/again").status == 200


@pytest.mark.parametrize("pieces", [[b"a"], [b"one", b"two", b"three" * 30_000]])
def test_a_body_without_room_streams(full: Daemon, service: Service, pieces: list[bytes]) -> None:
    """Above ``max_buffered`` nothing is kept and nothing is lost."""
    body = b"".join(pieces)
    with full.connect() as client:
        client.send(encode("POST", "/a", f"Content-Length: {len(body)}"))
        for piece in pieces:
            client.send(piece)
        assert client.answer().json["body"].encode() == body


def test_grpc_does_not_wait(daemon: Daemon, service: Service) -> None:
    """A gRPC service hears of a call before the client has said anything."""
    with daemon.connect() as client:
        client.send(encode("POST", "/main/call", "Content-Type: application/grpc+proto", "Content-Length: 5"))
        eventually(lambda: [request.target for request in service.requests] == ["/main/call"])
        client.send("hello")
        assert client.answer().json["body"] == "hello"


def test_an_open_circuit_asks_for_no_body(daemon: Daemon, service: Service) -> None:
    """A client that waits for 100 Continue is refused before it has sent anything."""
    service.behave = lambda received: received.conversation.answer(500)
    assert daemon.get("/broken/a").status == 500
    with daemon.connect() as client:
        client.send(encode("POST", "/broken/a", "Content-Length: 5", "Expect: 100-continue"))
        answer = client.answer()
    assert (answer.status, answer.code) == (503, "circuit_open")


def test_what_is_kept_of_bodies_is_in_the_metrics(daemon: Daemon, held: ExitStack) -> None:
    """An operator sees how near to ``max_buffered`` it is."""

    def kept() -> int:
        with Client(daemon.admin) as operator:
            text = operator.get("/metrics").body.decode()
        return int(float(text.partition("\ngateway_buffered_bytes ")[2].split()[0]))

    client = held.enter_context(daemon.connect())
    client.send(encode("POST", "/main/slow", "Content-Length: 60000") + b"x" * 1234)
    eventually(lambda: kept() == 1234)
    client.close()
    eventually(lambda: kept() == 0)
