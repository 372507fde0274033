"""Limits of what runs at a time, and of what matches no route, as callers and operators meet them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
from support import redis_server
from support.asking import admin_of, asked, command
from support.client import HANDSHAKE, encode
from support.daemon import Daemon, Document, gateway
from support.samples import value
from support.services import SWITCH, Received, Service
from support.waiting import eventually

from .conftest import Start

ONE = {"endpoint": "/held/*", "concurrent": 1, "scope": "ip"}


@pytest.fixture(scope="module", params=["memory", "redis"])
def daemon(request: pytest.FixtureRequest, in_front: Start, module_service: Service) -> Iterator[Daemon]:
    services = {"main": module_service.url, "hasty": {"targets": [module_service.url], "timeout": "200ms"}}
    routes = [
        {"path": "/held/*", "service": "main"},
        {"path": "/held/hasty", "service": "hasty"},
        {"path": "/open", "service": "main"},
    ]
    limits: list[Document] = [
        ONE,
        {"endpoint": "unmatched", "limit": 3, "window": "1h", "scope": "ip"},
    ]
    made = gateway(services=services, routes=routes, trusted_proxies=["127.0.0.1/32"], client_body_timeout="1s")
    made["rate_limits"] = limits
    if request.param == "memory":
        yield in_front(made)
        return
    with redis_server.running() as server:
        daemon = in_front({**made, "redis": {"url": server.url, "timeout": "2s"}})
        eventually(lambda: asked(daemon, "/limits")["store"]["up"])
        yield daemon


def taken(daemon: Daemon) -> int:
    return sum(int(one.get("taken", 0)) for one in asked(daemon, "/limits")["limits"])


def is_full(daemon: Daemon, path: str = "/held/probe") -> bool:
    answer = daemon.get(path)
    if answer.status != 429:
        return False
    assert (answer.code, answer.get("retry-after")) == ("rate_limited", "1")
    return True


class Gate:
    """What a service does when a request is there, and the test has seen that nobody else gets in."""

    def __init__(self, service: Service, then: Callable[[Received], object], before: bytes = b"") -> None:
        self._arrived, self._go = threading.Event(), threading.Event()
        self._before, self._then = before, then
        service.behave = self.behave

    def behave(self, received: Received) -> None:
        if not received.target.startswith("/held") or received.target == "/held/probe":
            received.conversation.answer(200)
            return
        received.conversation.send(self._before)
        self._arrived.set()
        self._go.wait(10)
        self._then(received)

    def wait(self) -> None:
        assert self._arrived.wait(10)

    def open(self) -> None:
        self._go.set()


def answer(received: Received) -> None:
    received.conversation.answer(200, body=b"done")


def leave(received: Received) -> None:
    received.conversation.close()


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n"


@pytest.mark.parametrize(
    ("path", "head", "then", "client_leaves"),
    [
        ("/held/answered", b"", answer, False),
        ("/held/lost", b"", leave, False),
        ("/held/cut", HEAD, leave, False),
        ("/held/hasty", b"", answer, False),
        ("/held/left", b"", answer, True),
        ("/held/left-half", HEAD, leave, True),
        ("/held/stream", EVENTS, leave, False),
        ("/held/stream-left", EVENTS, leave, True),
        ("/held/tunnel", SWITCH, leave, False),
        ("/held/tunnel-left", SWITCH, leave, True),
    ],
)
def test_a_place_is_held_to_the_end(
    daemon: Daemon,
    service: Service,
    path: str,
    head: bytes,
    then: Callable[[Received], object],
    client_leaves: bool,
) -> None:
    """However an exchange ends, it has one place until then, and nobody has it after."""
    gate = Gate(service, then, head)
    with daemon.connect() as client:
        client.send(encode("GET", path, *HANDSHAKE) if head is SWITCH else encode("GET", path))
        gate.wait()
        if path != "/held/hasty":  # which may be over by now
            assert is_full(daemon)
            assert taken(daemon) == 1
        assert daemon.get("/open").status == 200
        if not client_leaves:
            gate.open()
            eventually(lambda: not is_full(daemon))
    gate.open()
    eventually(lambda: not is_full(daemon))
    eventually(lambda: taken(daemon) == 0)


def test_a_refusal_is_counted_under_its_kind(daemon: Daemon, service: Service) -> None:
    """Places that are taken are told from rates in the metrics."""
    gate = Gate(service, answer)
    with daemon.connect() as client:
        client.send(encode("GET", "/held/a"))
        gate.wait()
        assert is_full(daemon)
        gate.open()
        assert client.answer().status == 200
    eventually(lambda: value(daemon, "gateway_rate_limit_violations_total", endpoint="/held/*", kind="concurrent"))


def test_what_matches_no_route_is_limited(daemon: Daemon, service: Service) -> None:
    """404 and 405 count for the address, and become 429 before the answer is made; routes are not concerned."""
    address = "X-Forwarded-For: 192.0.2.9"

    def statuses(*asked: tuple[str, str]) -> list[int]:
        with daemon.connect() as client:
            return [client.request(method, path, address).status for method, path in asked]

    assert statuses(("GET", "/no"), ("GET", "/such"), ("GET", "/route"), ("GET", "/more")) == [404, 404, 404, 429]
    assert daemon.get("/no").status == 404
    assert statuses(("GET", "/open")) == [200]
    with daemon.connect() as client:
        refused = client.get("/no", address)
    assert (refused.code, refused.get("x-ratelimit-remaining")) == ("rate_limited", "0")


def test_operators_see_places(daemon: Daemon) -> None:
    """`apigw limits` and `apigw routes` say what may run at a time, and what does."""
    shown = command("limits", "--admin", admin_of(daemon).removeprefix("http://"))
    rows = [line.split("  ") for line in shown.stdout.splitlines()[2:]]
    cells = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    assert cells[0][:4] == ["/held/*", "ip", "1 at a time, 0 taken", "-"]
    assert cells[1][:3] == ["unmatched", "ip", "3 in 3600 s"]
    told = command("routes", "GET", "/held/a", str(daemon.directory))
    assert "limit: 1 at a time for each address (/held/*)" in told.stdout


def test_unmatched_paths_tell_of_their_limit(daemon: Daemon) -> None:
    """Who asks about a path that no route takes is told what limits it."""
    told = command("routes", "GET", "/no", str(daemon.directory))
    assert "limit: 3 in 1h for each address (unmatched)" in told.stdout
