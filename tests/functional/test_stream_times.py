"""How long either side of an exchange may be silent while a body of unknown length goes through it, and in gRPC."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
from support.client import Client, encode
from support.daemon import Daemon, gateway
from support.h2_client import H2Client
from support.h2_service import H2Service
from support.h2_service import Received as H2Received
from support.services import Received, Service

from .conftest import Start

SHORT, LONG = "300ms", "1500ms"
BETWEEN = 0.8
"""Seconds of silence that are too long for an ordinary exchange, and not for a stream."""
CHUNKED = encode("POST", "/main", "Transfer-Encoding: chunked")


@pytest.fixture(scope="module")
def h2_service() -> Iterator[H2Service]:
    with closing(H2Service()) as service:
        yield service


@pytest.fixture(scope="module")
def daemon(in_front: Start, module_service: Service, h2_service: H2Service) -> Daemon:
    grpc = {"targets": [h2_service.url], "protocol": "h2c"}
    services = {"main": module_service.url, "grpc": grpc, "strict": grpc | {"timeout": SHORT}}
    return in_front(
        gateway(
            services=services,
            routes=[{"path": f"/{name}", "service": name} for name in services],
            client_body_timeout=SHORT,
            request_timeout=SHORT,
            stream_idle_timeout=LONG,
            client_request_timeout="6s",
        )
    )


def stays_open(client: Client | H2Client) -> None:
    """Nothing comes, also no end."""
    client.socket.settimeout(BETWEEN)
    with pytest.raises(TimeoutError):
        client.socket.recv(1)
    client.socket.settimeout(10)


def silent(received: Received) -> None:
    """A service that reads and says nothing."""
    while True:
        received.conversation.some()


def test_both_sides_may_be_silent(daemon: Daemon, service: Service) -> None:
    """For longer than in other exchanges, in turn or together."""

    def behave(received: Received) -> None:
        conversation = received.conversation
        assert conversation.until(b"\r\n") == b"3"
        conversation.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        assert b"andtwo" in conversation.until(b"0\r\n\r\n").replace(b"\r\n3\r\n", b"")
        conversation.send(b"3\r\ntwo\r\n0\r\n\r\n")
        conversation.close()

    service.behave = behave
    with daemon.connect() as client:
        client.send(CHUNKED + b"3\r\none\r\n")
        assert client.head().status == 200
        assert client.chunk() == b"one"
        stays_open(client)
        client.send(b"3\r\nand\r\n")
        stays_open(client)
        client.send(b"3\r\ntwo\r\n0\r\n\r\n")
        assert client.chunk() == b"two"
        assert client.chunk() is None


def test_a_stream_in_which_nothing_moves_ends(daemon: Daemon, service: Service) -> None:
    """By 408, as long as there is no answer."""
    service.behave = silent
    with daemon.connect() as client:
        client.send(CHUNKED + b"3\r\none\r\n")
        stays_open(client)
        assert client.answer().status == 408


def test_when_its_body_has_ended_an_answer_is_due(daemon: Daemon, service: Service) -> None:
    """From a service that hangs there is a 504, as without a body, and not after an hour."""
    service.behave = silent
    with daemon.connect() as client:
        client.send(CHUNKED + b"3\r\none\r\n")
        stays_open(client)
        client.socket.settimeout(BETWEEN)
        assert client.send(b"0\r\n\r\n").answer().status == 504


def test_before_its_first_piece_it_stalls_as_others(daemon: Daemon) -> None:
    """The service does not know of it yet."""
    with daemon.connect() as client:
        client.socket.settimeout(BETWEEN)
        assert client.send(CHUNKED).answer().status == 408


@pytest.mark.parametrize(("path", "status"), [("/grpc", None), ("/strict", "4")])
def test_grpc_waits_longer_for_its_answer(daemon: Daemon, h2_service: H2Service, path: str, status: str | None) -> None:
    """A server may have nothing to stream for long; a ``timeout`` that is written for a service or route holds."""
    held: list[H2Received] = []
    h2_service.behave = held.append
    with H2Client(daemon.address) as client:
        number = client.begin("POST", path, ("content-type", "application/grpc"), ("te", "trailers"), end=False)
        client.send(number, b"\0\0\0\0\0", end=True)
        if status is None:
            client.until(lambda: True)
            client.socket.settimeout(BETWEEN)
            with pytest.raises(TimeoutError):
                while True:
                    client.receive()
            client.socket.settimeout(10)
            held[0].answer(200)
        exchange = client.streams[number]
        client.until(lambda: exchange.ended)
        assert exchange.answer is not None
        assert exchange.answer.get("grpc-status") == status
