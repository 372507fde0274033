"""Pages of other origins, in front of services that know nothing of them."""

from __future__ import annotations

import pytest
from support.daemon import Daemon, gateway
from support.services import Service

from .conftest import Start

APP, PARTNER = "https://app.example.com", "https://partner.example.com"
ROUTES = [
    {"path": "/m", "service": "main", "methods": ["GET", "PATCH"], "cors": {"origins": [APP, PARTNER]}},
    {"path": "/m", "service": "main", "methods": ["PUT"], "cors": {"origins": [APP]}},
    {"path": "/m", "service": "main", "methods": ["DELETE"]},
    {"path": "/h", "service": "main", "cors": {
        "origins": [APP], "allow_headers": ["X-A", "Authorization"], "expose_headers": ["X-Request-ID", "X-B"]}},
    {"path": "/nothing", "service": "main", "cors": {"origins": [APP], "allow_headers": []}},
    {"path": "/c", "service": "main", "cors": {"origins": [APP], "credentials": True, "max_age": "10m"}},
    {"path": "/none", "service": "main"},
]  # fmt: skip


@pytest.fixture(scope="module")
def daemon(in_front: Start, module_service: Service) -> Daemon:
    return in_front(gateway(services={"main": module_service.url}, routes=ROUTES))


@pytest.mark.parametrize(
    ("origin", "wanted", "allowed"),
    [
        (APP, "GET", "GET, HEAD, PATCH, PUT"),
        (APP, "PUT", "GET, HEAD, PATCH, PUT"),
        (PARTNER, "PATCH", "GET, HEAD, PATCH"),
        (PARTNER, "PUT", None),
    ],
)
def test_the_methods_that_a_page_may_use(daemon: Daemon, origin: str, wanted: str, allowed: str | None) -> None:
    """A preflight lists the methods of the routes that let this origin call, and of no other."""
    answer = daemon.request("OPTIONS", "/m", f"Origin: {origin}", f"Access-Control-Request-Method: {wanted}")
    assert (answer.status, answer.get("access-control-allow-methods")) == (204, allowed)


def test_the_gateway_decides_whatever_the_service_says(daemon: Daemon, service: Service) -> None:
    """Preflights are answered here, a service's own permission is taken out, and the gateway's answers can be read."""
    allow = ("access-control-allow-origin", "access-control-allow-credentials", "access-control-max-age", "vary")
    ask = (f"Origin: {APP}", "Access-Control-Request-Method: PUT")
    answer = daemon.request("OPTIONS", "/c", *ask)
    assert (answer.status, [answer.get(name) for name in allow]) == (204, [APP, "true", "600", "Origin"])
    assert service.requests == []
    assert daemon.request("OPTIONS", "/none", *ask).json["method"] == "OPTIONS"
    own = ("Access-Control-Allow-Origin: *", "Access-Control-Allow-Credentials: true")
    service.behave = lambda received: received.conversation.answer(200, *own)
    assert [daemon.get("/c", ask[0]).get(name) for name in allow] == [APP, "true", None, "Origin"]
    assert daemon.get("/c", "Origin: https://evil.example").all(allow[0]) == []
    assert daemon.get("/none", ask[0]).get(allow[0]) == "*"
    assert daemon.get("/c", ask[0], "Content-Length: 999999999999").get(allow[0]) == APP


def test_the_headers_that_a_page_may_send(daemon: Daemon) -> None:
    """What is configured is allowed, whatever the page asks for."""
    ask = (f"Origin: {APP}", "Access-Control-Request-Method: GET", "Access-Control-Request-Headers: x-a, x-evil")
    assert daemon.request("OPTIONS", "/h", *ask).get("access-control-allow-headers") == "X-A, Authorization"
    assert daemon.request("OPTIONS", "/nothing", *ask).get("access-control-allow-headers") is None
    assert daemon.request("OPTIONS", "/m", *ask).get("access-control-allow-headers") == "x-a, x-evil"


def test_the_headers_that_a_page_may_read(daemon: Daemon, service: Service) -> None:
    """What is configured is exposed to the origins that may call, beside what the service exposes."""
    service.behave = lambda received: received.conversation.answer(200, "Access-Control-Expose-Headers: X-Own")
    exposed = daemon.get("/h", f"Origin: {APP}").all("access-control-expose-headers")
    assert exposed == ["X-Own", "X-Request-ID, X-B"]
    assert daemon.get("/h", "Origin: https://evil.example").all("access-control-expose-headers") == ["X-Own"]
