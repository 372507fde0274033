"""What a gateway does that has as much as it may have: it refuses early, says so, and goes on."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
from support.asking import metrics
from support.certificates import Authority
from support.client import encode
from support.daemon import LOOPBACK, gateway
from support.services import Received, Service
from support.waiting import eventually

from .conftest import Start

ALL = [{"path": "/*", "service": "main"}]


class Held:
    """A service that answers when it is told to."""

    def __init__(self, service: Service) -> None:
        self.go = threading.Event()
        service.behave = self.behave

    def behave(self, received: Received) -> None:
        received.body()
        self.go.wait(10)
        received.conversation.answer(200)


def read_all(client: socket.socket) -> bytes:
    """Until the other side closes."""
    return b"".join(iter(partial(client.recv, 65536), b""))


@pytest.fixture
def held(service: Service) -> Iterator[Held]:
    held = Held(service)
    yield held
    held.go.set()


def test_more_requests_than_there_may_be(start: Start, service: Service, held: Held) -> None:
    """One more is 503 at once with `Retry-After`, whatever its connection, and health is still told."""
    daemon = start(gateway(services={"main": service.url}, routes=ALL, max_requests=2))
    with daemon.connect() as one, daemon.connect() as other, daemon.connect() as late:
        one.send(encode("GET", "/a"))
        other.send(encode("PUT", "/a", "Content-Length: 5") + b"he")
        eventually(lambda: daemon.status()["in_flight"] == 2)
        answer = late.get("/a")
        assert (answer.status, answer.code, answer.get("retry-after")) == (503, "overloaded", "1")
        assert late.get("/health").status == 200
        held.go.set()
        assert one.answer().status == 200
        assert late.get("/a").status == 200
        assert other.send(b"llo").answer().status == 200
    counted = 'gateway_requests_total{method="GET",path="/*",route="/*",status="503"} 1'
    eventually(lambda: counted in metrics(daemon))


def test_a_gateway_that_is_late(start: Start, service: Service) -> None:
    """New requests are 503 with `Retry-After` while the reactor is later than `max_lag`, and counted; then 200."""
    daemon = start(gateway(services={"main": service.url}, routes=[{"path": "/a", "service": "main"}], max_lag="10ms"))
    shed = re.compile(rb"HTTP/1.1 503 [^{]*retry-after: 1\r\n[^{]*{[^}]*\"code\": \"overloaded\"", re.IGNORECASE)

    def flood() -> bool:
        """Each turn of the reactor has 16 requests of each connection."""
        with ExitStack() as stack:
            crowd = [stack.enter_context(socket.create_connection(daemon.address, 10)) for _ in range(200)]
            for one in crowd:
                one.sendall(200 * encode("GET", "/unmatched") + encode("GET", "/last", "Connection: close"))
            return any(map(shed.search, [read_all(one) for one in crowd]))

    eventually(flood)
    assert re.search('gateway_requests_shed_total{reason="late"} [1-9]', metrics(daemon))
    with daemon.connect() as client:
        eventually(lambda: client.get("/a").status == 200)


def test_more_connections_than_there_may_be(start: Start, service: Service, held: Held, tmp_path: Path) -> None:
    """One more is closed where all are busy, with TLS before any handshake, and counted."""
    authority = Authority(tmp_path)
    pair = authority.issue("localhost")
    tls = {"certificates": [{"cert_file": pair.certificate, "key_file": pair.key}]}
    listeners = [LOOPBACK, {"endpoint": LOOPBACK, "tls": tls}]
    daemon = start(gateway(services={"main": service.url}, routes=ALL, listen=listeners, max_connections=1))
    with daemon.connect() as busy:
        busy.send(encode("GET", "/a"))
        eventually(lambda: daemon.status()["in_flight"] == 1)
        for number, address in enumerate(daemon.addresses):
            with socket.create_connection(address, 10) as late:
                assert late.recv(1) == b""
            counted = f'gateway_connections_refused_total{{reason="full"}} {number + 1}.0'
            eventually(lambda counted=counted: counted in metrics(daemon))  # type: ignore[misc]  # as everywhere
        held.go.set()
        assert busy.answer().status == 200
