"""Clients that are slow open no circuit, and keep none from closing; and every service has one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from support.asking import circuit
from support.client import encode
from support.daemon import Daemon, gateway
from support.services import Received, Service, echo
from support.waiting import eventually

from .conftest import Start

FEW = {"min_requests": 5, "open_for": "10m"}
BIG = 40_000_000


@pytest.fixture(scope="module")
def daemon(in_front: Start, module_service: Service) -> Daemon:
    breakers = {
        "uploads": FEW,
        "complete": FEW,
        "readers": {**FEW, "open_for": "100ms", "half_open_requests": 3},
        "default": None,
        "never": None,
    }
    document = gateway(
        services={
            name: {"targets": [module_service.url], "circuit_breaker": breaker} for name, breaker in breakers.items()
        },
        routes=[{"path": f"/{name}/*", "service": name, "buffer_body": 0} for name in breakers],
    )
    del document["services"]["default"]["circuit_breaker"]
    return in_front(document)


@pytest.fixture
def clients() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def drop(received: Received) -> None:
    """Close once something of the body has come."""
    next(received.pieces())
    received.conversation.close()


def test_a_service_that_is_tired_of_uploads_has_not_failed(daemon: Daemon, service: Service) -> None:
    """It closed before it had all of the request, which came too slowly, or was too long for it: that is no outcome."""
    service.behave = drop
    for length in (100_000, BIG):
        for _ in range(8):
            with daemon.connect() as client:
                client.send(encode("POST", "/uploads/a", f"Content-Length: {length}"))
                client.send(b"x" * 1000)
                assert client.answer().status == 502
    assert circuit(daemon, "uploads")["total"] == 0


def test_one_that_had_the_whole_request_has(daemon: Daemon, service: Service) -> None:
    service.behave = drop
    for _ in range(5):
        assert daemon.request("POST", "/complete/a", body=b"x" * 1000).status == 502
    assert daemon.get("/complete/a").code == "circuit_open"


def test_slow_readers_hold_no_place_of_a_probe(daemon: Daemon, service: Service, clients: ExitStack) -> None:
    """A probe is decided when the head of the answer is there: a circuit closes although nobody reads the bodies."""
    service.behave = lambda received: received.conversation.answer(500)
    eventually(lambda: daemon.get("/readers/a").code == "circuit_open")

    def long(received: Received) -> None:
        received.conversation.answer(200, body=b"x" * BIG)

    service.behave = long
    eventually(lambda: circuit(daemon, "readers")["state"] == "half-open")
    for _ in range(3):
        client = clients.enter_context(daemon.connect())
        client.send(encode("GET", "/readers/a"))
        assert client.head().status == 200
    assert circuit(daemon, "readers")["state"] == "closed"
    service.behave = echo
    assert daemon.get("/readers/a").status == 200


def test_every_service_has_a_circuit(daemon: Daemon, service: Service) -> None:
    """It opens at 20 outcomes of which half are failures; null is none."""
    service.behave = lambda received: received.conversation.answer(500)
    for name in ("default", "never"):
        assert {daemon.get(f"/{name}/a").status for _ in range(20)} == {500}
    refused = daemon.get("/default/a")
    assert (refused.status, refused.code) == (503, "circuit_open")
    assert int(refused.get("retry-after") or 0) in (29, 30)
    assert daemon.get("/never/a").status == 500
