"""Services that choose by ALPN how they are spoken to (``protocol: auto``)."""

from __future__ import annotations

import ssl
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.certificates import Authority
from support.client import encode
from support.daemon import Daemon, gateway
from support.h2_service import H2Service
from support.h2_service import Received as H2Received
from support.services import Received, Service
from support.waiting import eventually

from .conftest import Start


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def tls(authority: Authority, *protocols: str) -> ssl.SSLContext:
    context = authority.server(authority.issue("localhost"))
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


def in_front_of(start: Start, authority: Authority, service: H2Service | Service, **keys: Any) -> Daemon:
    target = service.url.replace("127.0.0.1", "localhost")
    main = {"targets": [target], "protocol": "auto", "tls": {"ca_file": authority.file}, **keys}
    return start(gateway(services={"main": main}, routes=[{"path": "/*", "service": "main"}]))


def test_http2_where_the_service_chooses_it(start: Start, authority: Authority) -> None:
    """On one connection, also for requests that come at the same time."""
    held: list[H2Received] = []
    with closing(H2Service(held.append, tls=tls(authority, "h2", "http/1.1"))) as service:
        daemon = in_front_of(start, authority, service)
        clients = [daemon.connect() for _ in range(5)]
        for client in clients:
            client.send(encode("GET", "/a"))
        eventually(lambda: len(held) == 5)
        for received in held:
            received.answer(200, body=b"two")
        for client in clients:
            answer = client.answer()
            assert (answer.get("via"), answer.body) == ("2 apigw", b"two")
            client.socket.close()
        assert len(service.conversations) == 1


@pytest.mark.parametrize("protocols", [["http/1.1"], []])
def test_http1_where_the_service_chooses_it_or_nothing(
    start: Start, authority: Authority, protocols: list[str]
) -> None:
    """A connection for each of the requests at the same time, which are kept for the next."""
    together = threading.Barrier(5, timeout=30)

    def behave(received: Received) -> None:
        if received.target == "/together":
            together.wait()
        received.conversation.answer(200, body=b"one")

    with closing(Service(behave, tls=tls(authority, *protocols))) as service:
        daemon = in_front_of(start, authority, service)
        clients = [daemon.connect() for _ in range(5)]
        for client in clients:
            client.send(encode("GET", "/together"))
        for client in clients:
            answer = client.answer()
            assert (answer.get("via"), answer.body) == ("1.1 apigw", b"one")
            client.socket.close()
        assert daemon.get("/more").status == 200
        assert service.accepted == 5


def test_a_service_that_changes_its_protocol_goes_on(start: Start, authority: Authority) -> None:
    """As when it is replaced by another version of itself: each new connection may speak the other protocol."""
    both = tls(authority, "h2", "http/1.1")
    service: H2Service | Service = H2Service(tls=both)
    daemon = in_front_of(start, authority, service)
    for version, other in (("2", Service), ("1.1", H2Service), ("2", Service)):
        for _ in range(2):
            answer = daemon.get("/a")
            assert (answer.status, answer.get("via")) == (200, f"{version} apigw")
        service.close()
        service = other(tls=tls(authority, "http/1.1") if other is Service else both, port=service.port)
    with closing(service):
        assert daemon.get("/a").get("via") == "1.1 apigw"


def test_health_checks_negotiate_too(start: Start, authority: Authority) -> None:
    """A service that knows HTTP/2 alone is healthy."""
    check = {"path": "/health", "interval": "100ms", "unhealthy_after": 1}
    with closing(H2Service(tls=tls(authority, "h2"))) as service:
        daemon = in_front_of(start, authority, service, health_check=check, critical=True)
        eventually(lambda: sum(received.target == "/health" for received in service.requests) >= 3)
        assert daemon.get("/ready").status == 200
        assert service.failures == []


def test_a_service_without_tls_is_spoken_to_by_http1(start: Start) -> None:
    """There is nothing that it could choose by."""
    with closing(Service()) as service:
        main = {"targets": [service.url], "protocol": "auto"}
        daemon = start(gateway(services={"main": main}, routes=[{"path": "/*", "service": "main"}]))
        assert daemon.get("/a").get("via") == "1.1 apigw"


def test_what_cannot_be_connected_is_unreachable(start: Start, authority: Authority, tmp_path: Path) -> None:
    """A refused connection, and a certificate of somebody else, are 502 for each request, and the next works again."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with closing(Service(tls=tls(Authority(elsewhere), "http/1.1"))) as service:
        daemon = in_front_of(start, authority, service)
        for _ in range(2):
            assert daemon.get("/a").code == "upstream_unreachable"
    assert daemon.get("/a").code == "upstream_unreachable"
    with closing(H2Service(tls=tls(authority, "h2"), port=service.port)):
        assert daemon.get("/a").status == 200
