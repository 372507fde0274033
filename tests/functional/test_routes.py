"""Which requests reach which service, as which request, and what the others are told."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.daemon import Daemon, gateway
from support.services import Service

from .conftest import Start


@pytest.fixture(scope="module")
def other() -> Iterator[Service]:
    service = Service()
    yield service
    service.close()


@pytest.fixture(scope="module")
def daemon(in_front: Start, module_service: Service, other: Service) -> Daemon:
    services = {
        "main": module_service.url,
        "other": other.url,
        "host": {"targets": [module_service.url], "preserve_host": True},
    }
    routes = [
        {"path": "/users", "service": "main", "methods": ["GET", "POST"]},
        {"path": "/users/me", "service": "other", "methods": ["GET"]},
        {"path": "/users/:id", "service": "main", "methods": ["GET", "PUT"]},
        {"path": "/users/:id", "service": "other", "methods": ["DELETE"]},
        {"path": "/users/:id/orders/:order", "service": "main"},
        {"path": "/files/*", "service": "other"},
        {"path": "/files/public/:name", "service": "main"},
        {"path": "/api/v1/things/:id", "service": "main", "strip_prefix": "/api/v1"},
        {"path": "/api/v1", "service": "main", "strip_prefix": "/api/v1"},
        {"path": "/host", "service": "host"},
    ]
    return in_front(gateway(services=services, routes=routes))


@pytest.mark.parametrize(
    ("method", "path", "reached"),
    [
        ("GET", "/users/42", "main"),
        ("GET", "/users/me", "other"),
        ("DELETE", "/users/42", "other"),
        ("GET", "/files/a/b/c.txt", "other"),
        ("GET", "/files/public/a", "main"),
        ("OPTIONS", "/files/a", "other"),
        ("GET", "/users?x=1&y=%2F", "main"),
        ("GET", "/us%65rs", "main"),
    ],
)
def test_a_request_reaches_the_service_of_its_route(
    daemon: Daemon, service: Service, other: Service, method: str, path: str, reached: str
) -> None:
    """A request reaches the service of its route, as it was sent."""
    other.requests.clear()
    answer = daemon.request(method, path)
    assert answer.status == 200
    assert (len(service.requests), len(other.requests)) == ((1, 0) if reached == "main" else (0, 1))
    assert (answer.json["method"], answer.json["target"]) == (method, path)


@pytest.mark.parametrize("path", ["/nothing", "/users/", "/users/42/orders", "/health/x"])
def test_what_no_route_matches_is_404(daemon: Daemon, service: Service, path: str) -> None:
    """What no route matches is 404, and no service hears of it."""
    answer = daemon.get(path)
    assert (answer.status, answer.code) == (404, "not_found")
    assert service.requests == []


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("DELETE", "/users", "GET, HEAD, POST"),
        ("POST", "/users/me", "DELETE, GET, HEAD, PUT"),
    ],
)
def test_a_method_no_route_has_is_405_and_told_which_there_are(
    daemon: Daemon, service: Service, method: str, path: str, allow: str
) -> None:
    """A method that no route has is 405, and the answer names those that there are."""
    answer = daemon.request(method, path)
    assert (answer.status, answer.code) == (405, "method_not_allowed")
    assert sorted((answer.get("allow") or "").split(", ")) == allow.split(", ")
    assert service.requests == []


def test_head_goes_where_get_goes(daemon: Daemon, service: Service) -> None:
    """A HEAD takes the route of GET, and its answer has no body."""
    with daemon.connect() as client:
        answer = client.request("HEAD", "/users/1")
        assert (answer.status, service.last.method) == (200, "HEAD")
        assert int(answer.get("content-length") or 0) > 0
        assert client.get("/users/2").json["target"] == "/users/2"


def test_strip_prefix_cuts_whole_segments_and_nothing_else(daemon: Daemon, service: Service) -> None:
    """``strip_prefix`` takes whole segments off the path, and leaves the query."""
    assert daemon.get("/%61pi/v1/things/a%20b?a=/api/v1").json["target"] == "/things/a%20b?a=/api/v1"
    assert daemon.get("/api/v1?q").json["target"] == "/?q"


def test_the_host_is_the_targets_unless_the_service_wants_the_clients(daemon: Daemon, service: Service) -> None:
    """A service sees its own name, or the client's with ``preserve_host``."""
    with daemon.connect() as client:
        client.request("GET", "/users", host="shop.example.com")
        assert service.last.get("host") == f"127.0.0.1:{service.port}"
        client.request("GET", "/host", host="shop.example.com")
        assert service.last.get("host") == "shop.example.com"
        assert service.last.get("x-forwarded-host") == "shop.example.com"


@pytest.mark.parametrize("target", ["/files/%2e%2e/users", "http://other.example.com/users"])
def test_a_target_that_programs_disagree_on_is_400(daemon: Daemon, service: Service, target: str) -> None:
    """A target that a service might read otherwise than the routes is 400. The whole table is the wire's."""
    with daemon.connect() as client:
        client.send(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = client.answer()
        assert (answer.status, answer.code) == (400, "bad_request")
        assert client.is_closed()
    assert service.requests == []
    assert daemon.get("/users").status == 200


@pytest.mark.parametrize("target", ["http://localhost/users/1?x=y", "HTTP://LOCALHOST/users/1?x=y"])
def test_absolute_form_goes_out_in_origin_form(daemon: Daemon, service: Service, target: str) -> None:
    """A URL for a target is answered, and the service gets its path."""
    assert daemon.get(target).json["target"] == "/users/1?x=y"


def test_reserved_paths_are_the_gateways_own(daemon: Daemon, service: Service) -> None:
    """The gateway answers its own paths, whatever the method."""
    answer = daemon.get("/health")
    assert (answer.status, answer.json) == (200, {"status": "ok"})
    assert answer.get("content-type") == "application/json"
    assert daemon.request("HEAD", "/health").body == b""
    answer = daemon.request("POST", "/health", body=b"x")
    assert (answer.status, answer.code, answer.get("allow")) == (405, "method_not_allowed", "GET, HEAD")
    with daemon.connect() as client:
        answer = client.send("PUT /health HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\n\r\n").answer()
        assert (answer.status, answer.code) == (413, "body_too_large")
    assert service.requests == []
