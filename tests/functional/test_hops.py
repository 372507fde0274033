"""What a proxy owes the hops before and behind it: RFC 9110 §7.6, and what the world has agreed on besides."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.client import Client
from support.daemon import Daemon, gateway
from support.services import Received, Service
from support.waiting import eventually

from .conftest import Start

ROUTES = [
    {"path": "/*", "service": "main"},
    {"path": "/options", "service": "main", "methods": ["GET", "OPTIONS"]},
]


@pytest.fixture(scope="module")
def sockets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sockets")


@pytest.fixture(scope="module")
def daemon(in_front: Start, module_service: Service, sockets: Path) -> Daemon:
    """It trusts its peers of the unix socket, and writes its log beside it."""
    return in_front(
        gateway(
            services={"main": module_service.url},
            routes=ROUTES,
            listen=["tcp:0:interface=127.0.0.1", f"unix:{sockets}/public.sock"],
            trusted_proxies=["unix:"],
            access_log={"file": str(sockets / "access.log")},
        )
    )


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE"])
@pytest.mark.parametrize(
    ("given", "sent"),
    [("1", "0"), ("10", "9"), ("007", "6"), ("1000", "999"), ("9" * 5000, "999")],
)
def test_a_hop_is_counted(daemon: Daemon, service: Service, method: str, given: str, sent: str) -> None:
    """OPTIONS and TRACE arrive with one hop less."""
    assert daemon.request(method, "/a", f"Max-Forwards: {given}").status == 200
    assert service.last.get("max-forwards") == sent


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE"])
@pytest.mark.parametrize("given", ["-1", "+1", "x", "", "1, 2"])
def test_a_number_of_hops_that_is_none(daemon: Daemon, service: Service, method: str, given: str) -> None:
    """Nobody can say how far the request may go."""
    answer = daemon.request(method, "/a", f"Max-Forwards: {given}")
    assert (answer.status, answer.code) == (400, "bad_request")
    assert service.requests == []


def test_the_last_hop_is_the_gateway(daemon: Daemon, service: Service) -> None:
    """What may go no further is answered here, and the service does not hear of it."""
    answer = daemon.request("OPTIONS", "/options", "Max-Forwards: 0")
    assert (answer.status, answer.get("allow")) == (204, "GET, OPTIONS")
    assert daemon.request("OPTIONS", "/a", "Max-Forwards: 000").status == 204
    assert daemon.request("TRACE", "/a", "Max-Forwards: 0", "Cookie: secret").status == 405
    assert service.requests == []


def test_other_methods_have_no_hops(daemon: Daemon, service: Service) -> None:
    """Max-Forwards says nothing of a GET."""
    assert daemon.get("/a", "Max-Forwards: 0").status == 200
    assert service.last.get("max-forwards") == "0"


@pytest.mark.parametrize(("line", "via"), [("1.0", "1.0 apigw"), ("1.1", "1.1 apigw"), ("1.2", "1.1 apigw")])
@pytest.mark.parametrize("late", [1, 4])
def test_via_names_the_services_version(daemon: Daemon, service: Service, line: str, via: str, late: int) -> None:
    """An answer says in which version it came, whole or in pieces."""

    def behave(received: Received) -> None:
        answer = f"HTTP/{line} 200 OK\r\nContent-Length: 2\r\n\r\nhi".encode()
        received.conversation.send(answer[:-late])
        received.conversation.send(answer[-late:])

    service.behave = behave
    answer = daemon.get("/a")
    assert (answer.body, answer.get("via")) == (b"hi", via)


@pytest.mark.parametrize(("given", "sent"), [("0002", "2"), ("00", "0"), ("2", "2")])
def test_a_services_length_is_canonical(daemon: Daemon, service: Service, given: str, sent: str) -> None:
    """A length with leading zeros, which some read as octal, is written anew."""
    service.behave = lambda received: received.conversation.send(
        b"HTTP/1.1 200 OK\r\nContent-Length: %b\r\n\r\n" % given.encode() + b"hi"[: int(given)]
    )
    answer = daemon.get("/a")
    assert answer.get("content-length") == sent


def test_426_says_what_to_upgrade_to(daemon: Daemon, service: Service) -> None:
    """A service that wants a WebSocket can say so (RFC 9110 §15.5.22)."""
    service.behave = lambda received: received.conversation.answer(426, "Upgrade: websocket", "Connection: Upgrade")
    with daemon.connect() as client:
        for _ in range(2):
            answer = client.get("/a")
            assert (answer.status, answer.get("upgrade"), answer.get("connection")) == (426, "websocket", "upgrade")


@pytest.mark.parametrize("name", ["Proxy", "proxy", "PROXY"])
def test_nobody_sets_a_services_way_out(daemon: Daemon, service: Service, name: str) -> None:
    """CGI makes HTTP_PROXY of Proxy (CVE-2016-5385): it does not reach a service."""
    daemon.get("/a", f"{name}: http://evil.example", "Proxy-Thing: kept")
    assert service.last.all("proxy") == []
    assert service.last.get("proxy-thing") == "kept"


def test_without_a_host_none_is_made_up(daemon: Daemon, service: Service) -> None:
    """HTTP/1.0 needs no Host; a service is not told an empty one, and learns that of a URL."""
    for target, host in (("/a?x=100%", None), ("http://gw.test:81/a?x=100%", "gw.test:81")):
        with daemon.connect() as client:
            assert client.send(f"GET {target} HTTP/1.0\r\n\r\n").answer().status == 200
        assert service.last.target == "/a?x=100%"
        assert service.last.get("x-forwarded-host") == host


def test_what_the_gateway_adds_cannot_be_named_away(daemon: Daemon, service: Service) -> None:
    """A client cannot hide its address by declaring it a field of its own connection (CVE-2022-31813)."""
    daemon.get("/a", "Connection: X-Forwarded-For, X-Forwarded-Host, Via, Host, X-Request-ID, Content-Length, close")
    for name in ("host", "x-forwarded-for", "x-forwarded-host", "via", "x-request-id"):
        assert service.last.get(name), name


def test_a_proxy_on_the_same_machine(daemon: Daemon, service: Service, sockets: Path) -> None:
    """Behind a web server that comes by a unix socket, a client is who that says it is."""
    with Client(f"{sockets}/public.sock") as client:
        client.get("/a", "X-Forwarded-For: 203.0.113.7", "X-Request-ID: named")
        assert service.last.get("x-forwarded-for") == "203.0.113.7"
        client.get("/a", "X-Request-ID: nameless")
        assert service.last.get("x-forwarded-for") is None
        client.get("/a", "X-Forwarded-For: 203.0.113.7", "Connection: X-Forwarded-For", "X-Request-ID: hidden")
        assert service.last.get("x-forwarded-for") == "203.0.113.7"
    daemon.get("/a", "X-Forwarded-For: 203.0.113.7")
    assert service.last.get("x-forwarded-for") == "127.0.0.1"

    def clients() -> dict[str, str]:
        lines = (json.loads(line) for line in (sockets / "access.log").read_text().splitlines())
        return {line["request_id"]: line["client"] for line in lines}

    eventually(lambda: "hidden" in clients())
    assert {name: clients()[name] for name in ("named", "nameless", "hidden")} == {
        "named": "203.0.113.7",
        "nameless": "unix:",
        "hidden": "203.0.113.7",
    }
