"""Many hosts behind one gateway: routes, limits, oddities of paths, and names of hosts as clients send them."""

from __future__ import annotations

import pytest
from support.client import Answer, encode
from support.daemon import Daemon, gateway
from support.services import Service

from .conftest import Start

ROUTES = [
    {"hosts": ["api.test"], "path": "/*", "respond": {"body": "api"}},
    {"hosts": ["api.test"], "path": "/metrics", "respond": {"body": "its metrics"}},
    {"hosts": ["*.test"], "path": "/*", "respond": {"body": "below"}},
    {"hosts": ["192.0.2.1", "[2001:db8::1]"], "path": "/*", "respond": {"body": "address"}},
    {"hosts": ["Bücher.example"], "path": "/*", "respond": {"body": "books"}},
    {"hosts": ["git.example"], "path": "/projects/:name", "service": "main", "encoded_slashes": "keep"},
    {"hosts": ["git.example"], "path": "/raw/*", "service": "main", "empty_segments": "keep"},
    {"hosts": ["git.example"], "path": "/strict/*", "service": "main"},
    {"path": "/a", "respond": {"body": "nobody's"}},
    {"path": "/limited", "respond": {"body": "nobody's"}},
]


@pytest.fixture(scope="module")
def daemon(in_front: Start, module_service: Service) -> Daemon:
    document = gateway(services={"main": module_service.url}, routes=ROUTES)
    document["rate_limits"] = [
        {"hosts": ["api.test"], "endpoint": "/limited", "limit": 2, "window": "1h", "scope": "ip"}
    ]
    return in_front(document)


def ask(daemon: Daemon, host: str, target: str = "/a") -> Answer:
    with daemon.connect() as client:
        return client.send(encode("GET", target, host=host)).answer()


@pytest.mark.parametrize(
    ("host", "body"),
    [
        ("api.test", b"api"),
        ("API.Test.:8080", b"api"),
        ("other.api.test", b"below"),
        ("test", b"nobody's"),
        ("192.0.2.1:80", b"address"),
        ("[2001:DB8:0::1]:443", b"address"),
        ("xn--bcher-kva.example", b"books"),
        ("api.test.example", b"nobody's"),
    ],
)
def test_the_host_chooses(daemon: Daemon, host: str, body: bytes) -> None:
    """Port, case and a dot at the end do not matter; a wildcard is for what no exact host takes."""
    answer = ask(daemon, host)
    assert (answer.status, answer.body) == (200, body)


def test_hosts_that_are_none(daemon: Daemon) -> None:
    """Several Host fields, or what is no host, is 400; over HTTP/1.0 there need be none."""
    for fields in ("Host: api.test\r\nHost: api.test", "Host: api.test, b.test", "Host: Bücher.example", "X: y"):
        with daemon.connect() as client:
            assert client.send(f"GET /a HTTP/1.1\r\n{fields}\r\n\r\n".encode()).answer().status == 400
    with daemon.connect() as client:
        old = client.send(b"GET /a HTTP/1.0\r\n\r\n").answer()
        assert (old.status, old.body) == (200, b"nobody's")


def test_a_host_may_have_reserved_paths(daemon: Daemon) -> None:
    """They are the gateway's own where no route names the host."""
    assert ask(daemon, "api.test", "/metrics").body == b"its metrics"
    assert ask(daemon, "nobody.example", "/metrics").body.startswith(b"# HELP")
    assert ask(daemon, "git.example", "/health").status == 404


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/projects/group%2Fname?x=%2F", 200),
        ("/projects/group%5Cname", 400),
        ("/projects//name", 400),
        ("/raw//a///b", 200),
        ("/raw/a%2Fb", 400),
        ("/raw//../a", 400),
        ("/strict/a%2Fb", 400),
        ("/strict//a", 400),
    ],
)
def test_oddities_that_a_route_keeps(daemon: Daemon, service: Service, target: str, status: int) -> None:
    """They go to the service as they were sent; everywhere else they are 400."""
    assert ask(daemon, "git.example", target).status == status
    assert [request.target for request in service.requests] == ([target] if status == 200 else [])


def test_a_limit_of_a_host(daemon: Daemon) -> None:
    """It counts the requests of this host, in all spellings, and of no other."""
    hosts = ["api.test", "API.test.:80", "api.test", "other.test", "nobody.example"]
    assert [ask(daemon, host, "/limited").status for host in hosts] == [200, 200, 429, 200, 200]
