"""What rules of routes make of requests on their way, and what the gateway answers by itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.daemon import Daemon, gateway
from support.h2_client import H2Client
from support.services import Service
from support.tokens import bearer, hs256
from support.waiting import eventually

from .conftest import Start

SECRET = "0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("log") / "access.log"


@pytest.fixture(scope="module")
def daemon(in_front: Start, module_service: Service, log: Path) -> Daemon:
    rules = {"set": {"X-Tenant": "{claims.tenant}", "X-Order": "{param.id}"}, "remove": ["X-Debug"]}
    routes = [
        {
            "path": "/orders/:id/*",
            "service": "main",
            "auth": "required",
            "rewrite": {"path": "/v2/{param.id}/{param.rest}", "host": "orders.internal"},
            "request_headers": rules,
            "response_headers": {"set": {"X-Frame-Options": "DENY"}, "remove": ["X-Secret"]},
        },
        {"path": "/open", "service": "main", "access_log": None},
        {"path": "/old/*", "redirect": {"to": "https://new.example.com/{param.rest}", "status": 308}},
        {"path": "/robots.txt", "respond": {"body": "User-agent: *\nDisallow: /\n"}},
        {"path": "/guarded", "auth": "required", "respond": {"body": "in"}},
        {"path": "/later", "service": "main", "maintenance": {"retry_after": "5m"}},
    ]
    document = gateway(
        services={"main": module_service.url}, routes=routes, auth_default="none", access_log={"file": str(log)}
    )
    document["auth"] = {"jwt": [{"name": "main", "algorithm": "HS256", "secret": SECRET, "issuer": "https://id.test"}]}
    return in_front(document)


def token() -> str:
    return bearer(hs256(SECRET.encode(), "https://id.test", tenant="acme"))


def test_requests_and_answers_are_changed(daemon: Daemon, service: Service) -> None:
    """The service gets the new path, host and headers, the client the changed answer; errors are changed, too."""
    service.behave = lambda received: received.conversation.answer(200, "X-Secret: 1", "X-Frame-Options: ALLOW")
    answer = daemon.get("/orders/7/a/b?x=1", token(), "X-Tenant: evil", "X_Tenant: evil", "X-Debug: 1")
    assert (answer.status, answer.get("x-frame-options"), answer.get("x-secret")) == (200, "DENY", None)
    (received,) = service.requests
    assert (received.target, received.get("host")) == ("/v2/7/a/b?x=1", "orders.internal")
    assert [received.all(name) for name in ("x-tenant", "x_tenant", "x-debug", "x-order")] == [["acme"], [], [], ["7"]]
    assert received.get("x-forwarded-host") == "localhost"
    refused = daemon.get("/orders/7/a")
    assert (refused.status, refused.get("x-frame-options")) == (401, "DENY")
    daemon.get("/open", "X-Tenant: evil")
    assert service.requests[-1].get("x-tenant") is None


def test_answers_without_a_service(daemon: Daemon, service: Service) -> None:
    """Redirects, fixed answers and maintenance reach no service; authentication comes before a fixed answer."""
    moved = daemon.get("/old/a?x=1")
    assert (moved.status, moved.get("location"), moved.body) == (308, "https://new.example.com/a?x=1", b"")
    with daemon.connect() as client:
        for _ in range(2):  # over one connection
            robots = client.get("/robots.txt")
            assert (robots.status, robots.body) == (200, b"User-agent: *\nDisallow: /\n")
            assert robots.get("content-type") == "text/plain; charset=utf-8"
            assert client.request("POST", "/old/a", body=b"ab").status == 308
    assert daemon.request("HEAD", "/robots.txt").get("content-length") == "26"
    assert daemon.get("/guarded").status == 401
    assert daemon.get("/guarded", token()).body == b"in"
    later = daemon.get("/later")
    assert (later.status, later.code, later.get("retry-after")) == (503, "maintenance", "300")
    assert service.requests == []


def test_the_same_by_http2(daemon: Daemon, service: Service) -> None:
    """Rules do not depend on the version; gRPC is refused in its own form."""
    with H2Client(daemon.address) as client:
        name, value = token().split(": ")
        answer = client.request("GET", "/orders/7/a", (name.lower(), value))
        assert (answer.status, answer.get("x-frame-options")) == (200, "DENY")
        assert service.requests[-1].target == "/v2/7/a"
        assert client.request("GET", "/old/x").get("location") == "https://new.example.com/x"
        call = client.request("POST", "/later", ("content-type", "application/grpc"), ("te", "trailers"))
        assert (call.status, call.get("grpc-status"), call.get("retry-after")) == (200, "14", "300")


def test_routes_without_a_line(daemon: Daemon, log: Path) -> None:
    """With access_log: null a route's requests are not in the log; those of others are, with their route."""
    daemon.get("/open")
    daemon.get("/robots.txt?last")
    eventually(lambda: "/robots.txt?last" in log.read_text())
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert not [line for line in lines if line["path"].startswith("/open")]
    assert lines[-1]["route"] == "/robots.txt"
