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
        ("GET", "/users", "main"),
        ("POST", "/users", "main"),
        ("GET", "/users/42", "main"),
        ("GET", "/users/me", "other"),
        ("PUT", "/users/me", "main"),
        ("DELETE", "/users/42", "other"),
        ("GET", "/users/42/orders/7", "main"),
        ("PATCH", "/users/42/orders/7", "main"),
        ("GET", "/files/a", "other"),
        ("GET", "/files/a/b/c.txt", "other"),
        ("GET", "/files/", "other"),
        ("GET", "/files/public/a", "main"),
        ("GET", "/files/public/a/b", "other"),
        ("OPTIONS", "/files/a", "other"),
        ("GET", "/users?x=1&y=%2F", "main"),
        ("GET", "/us%65rs", "main"),
    ],
)
def test_a_request_reaches_the_service_of_its_route(
    daemon: Daemon, service: Service, other: Service, method: str, path: str, reached: str
) -> None:
    """A user's request lands at the wrong service, or arrives as another than was sent."""
    other.requests.clear()
    answer = daemon.request(method, path)
    assert answer.status == 200
    assert (len(service.requests), len(other.requests)) == ((1, 0) if reached == "main" else (0, 1))
    assert (answer.json["method"], answer.json["target"]) == (method, path)


@pytest.mark.parametrize(
    "path", ["/nothing", "/", "/users/", "/users/42/orders", "/files", "/user", "/health/x", "/Users"]
)
def test_what_no_route_matches_is_404(daemon: Daemon, service: Service, path: str) -> None:
    """A mistyped URL is answered by some service, or not at all."""
    answer = daemon.get(path)
    assert (answer.status, answer.code) == (404, "not_found")
    assert service.requests == []


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("DELETE", "/users", "GET, HEAD, POST"),
        ("POST", "/users/42", "DELETE, GET, HEAD, PUT"),
        ("POST", "/users/me", "DELETE, GET, HEAD, PUT"),
        ("OPTIONS", "/users", "GET, HEAD, POST"),
    ],
)
def test_a_method_no_route_has_is_405_and_told_which_there_are(
    daemon: Daemon, service: Service, method: str, path: str, allow: str
) -> None:
    """A client that uses the wrong method does not learn the right ones."""
    answer = daemon.request(method, path)
    assert (answer.status, answer.code) == (405, "method_not_allowed")
    assert sorted((answer.get("allow") or "").split(", ")) == allow.split(", ")
    assert service.requests == []


def test_head_goes_where_get_goes(daemon: Daemon, service: Service) -> None:
    """A HEAD for a GET route is refused, answered with a body, or spoils the next answer on the connection."""
    with daemon.connect() as client:
        answer = client.request("HEAD", "/users/1")
        assert (answer.status, service.last.method) == (200, "HEAD")
        assert int(answer.get("content-length") or 0) > 0
        assert client.get("/users/2").json["target"] == "/users/2"


@pytest.mark.parametrize(
    ("sent", "arrives"),
    [
        ("/api/v1/things/7", "/things/7"),
        ("/api/v1/things/7?a=/api/v1", "/things/7?a=/api/v1"),
        ("/%61pi/v1/things/a%20b", "/things/a%20b"),
        ("/api/v1", "/"),
        ("/api/v1?q", "/?q"),
    ],
)
def test_strip_prefix_cuts_whole_segments_and_nothing_else(
    daemon: Daemon, service: Service, sent: str, arrives: str
) -> None:
    """A service behind a prefix gets paths that it does not know."""
    assert daemon.get(sent).json["target"] == arrives


def test_the_host_is_the_targets_unless_the_service_wants_the_clients(daemon: Daemon, service: Service) -> None:
    """A service with virtual hosts sees the wrong name."""
    with daemon.connect() as client:
        client.request("GET", "/users", host="shop.example.com")
        assert service.last.get("host") == f"127.0.0.1:{service.port}"
        client.request("GET", "/host", host="shop.example.com")
        assert service.last.get("host") == "shop.example.com"
        assert service.last.get("x-forwarded-host") == "shop.example.com"


def test_an_unknown_method_is_501(daemon: Daemon, service: Service) -> None:
    """A client with a method of its own invention hangs, or reaches a service."""
    answer = daemon.request("FROBNICATE", "/files/a")
    assert (answer.status, answer.code) == (501, "not_implemented")


def test_connect_is_405(daemon: Daemon, service: Service) -> None:
    """Somebody uses the gateway as an open proxy."""
    with daemon.connect() as client:
        client.send("CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n")
        answer = client.answer()
        assert (answer.status, answer.code) == (405, "method_not_allowed")
        assert client.is_closed()


BAD_TARGETS = [
    "*",
    "users",
    "//users",
    "/users//1",
    "/users/./1",
    "/users/../files/a",
    "/files/..",
    "/files/.",
    "/files/%2e%2e/users",
    "/files/%2E",
    "/files/.%2e/x",
    "/files/..;x/y",
    "/files/.;/y",
    "/files/a%2Fb",
    "/files/a%2fb",
    "/files/a%5Cb",
    "/files/a\\b",
    "/files/a%00b",
    "/files/a%0d%0ab",
    "/files/a%7f",
    "/files/%",
    "/files/%4",
    "/files/%zz",
    "/files/a#b",
    "/files/a?b#c",
    "/files/\x7f",
    "/files/\x01",
    "/files/caf\xe9",
    "ftp://localhost/users",
    "http://other.example.com/users",
    "http:///users",
    "http://user@localhost/users",
    "http://localhost:1/users",
    "http://localhost/files/../users",
]


@pytest.mark.parametrize("target", BAD_TARGETS)
@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
def test_a_target_that_programs_disagree_on_is_400(daemon: Daemon, service: Service, method: str, target: str) -> None:
    """A path gets past the routes' rules because the service reads it otherwise."""
    with daemon.connect() as client:
        client.send(f"{method} {target} HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = client.answer()
        assert (answer.status, answer.code) == (400, "bad_request")
        assert client.is_closed()
    assert service.requests == []
    assert daemon.get("/users").status == 200


@pytest.mark.parametrize("target", ["http://localhost/users/1?x=y", "HTTP://LOCALHOST/users/1?x=y"])
def test_absolute_form_goes_out_in_origin_form(daemon: Daemon, service: Service, target: str) -> None:
    """A client that is configured to use a proxy gets no answer."""
    assert daemon.get(target).json["target"] == "/users/1?x=y"


def test_reserved_paths_are_the_gateways_own(daemon: Daemon, service: Service) -> None:
    """A load balancer's health question reaches a service, or an odd method breaks it."""
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
