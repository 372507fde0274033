"""Where others wait for a connection to a service, the slowest client loses its own."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from support.client import Client, encode
from support.daemon import Daemon, gateway
from support.h2_client import H2Client
from support.services import Received, Service, echo
from support.waiting import eventually

from .conftest import Start

MANY = 4
BIG = 50_000_000


@pytest.fixture(scope="module")
def daemon(in_front: Start, module_service: Service) -> Daemon:
    main = {"targets": [module_service.url], "max_connections": MANY, "connect_timeout": "14s"}
    return in_front(gateway(services={"main": main}, routes=[{"path": "/*", "service": "main"}]))


@pytest.fixture
def held() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def behave(received: Received) -> None:
    if received.target.startswith("/long"):
        received.conversation.answer(200, body=b"x" * BIG)
    else:
        echo(received)


def upload(daemon: Daemon) -> Client:
    client = daemon.connect()
    return client.send(encode("POST", "/slow", "Content-Length: 100000")).send(b"x" * 500)


def read(daemon: Daemon) -> Client:
    client = Client(daemon.address)
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    return client.send(encode("GET", "/long"))


def served(daemon: Daemon) -> float:
    """How long another client waits."""
    began = time.monotonic()
    assert daemon.get("/other").status == 200
    return time.monotonic() - began


@pytest.mark.parametrize("attack", [upload, read])
def test_slow_clients_give_way(
    daemon: Daemon, service: Service, held: ExitStack, attack: Callable[[Daemon], Client]
) -> None:
    """All connections are held by clients that hardly move: another is served soon, also where the kernels' buffers
    took a lot of an answer at first."""
    service.behave = behave
    clients = [held.enter_context(attack(daemon)) for _ in range(MANY)]
    eventually(lambda: len(service.requests) == MANY)
    assert served(daemon) < 4
    if attack is upload:
        ended = [client for client in clients if readable(client)]
        assert [client.answer().status for client in ended] == [408]


def readable(client: Client) -> bool:
    client.socket.setblocking(False)
    try:
        return bool(client.socket.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False
    finally:
        client.socket.settimeout(15)


def test_slow_streams_give_way(daemon: Daemon, service: Service, held: ExitStack) -> None:
    """Streams of one HTTP/2 connection too; only the slowest ends, and its connection goes on."""
    service.behave = behave
    client = held.enter_context(H2Client(daemon.address))
    for _ in range(MANY):
        number = client.begin("POST", "/slow", ("content-length", "100000"), end=False)
        client.send(number, b"x" * 500)
    eventually(lambda: len(service.requests) == MANY)
    assert served(daemon) < 3
