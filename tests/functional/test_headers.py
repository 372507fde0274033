"""What becomes of header fields on their way to a service and back."""

from __future__ import annotations

import pytest
from support.daemon import Daemon, gateway
from support.h2_client import H2Client
from support.services import Service

from .conftest import Start

ROUTES = [
    {"path": "/*", "service": "main"},
]


@pytest.fixture(scope="module")
def daemon(in_front: Start, module_service: Service) -> Daemon:
    return in_front(gateway(services={"main": module_service.url}, routes=ROUTES))


@pytest.fixture(scope="module")
def behind_proxy(in_front: Start, module_service: Service) -> Daemon:
    """A gateway that trusts its peer."""
    return in_front(
        gateway(services={"main": module_service.url}, routes=ROUTES, trusted_proxies=["127.0.0.0/8", "10.0.0.0/8"])
    )


IDENTITY = [
    "X-User-ID: root",
    "x-user-id: root",
    "X-USER-ID: root",
    "X_User_ID: root",
    "X.User.Id: root",
    "x-user_id: root",
    "X-User-Roles: admin",
    "X_USER_ROLES: admin",
    "X-Auth-Provider: gateway",
    "x.auth_provider: gateway",
    "X+User+ID: root",
    "x.user~id: root",
    "x!user#roles: admin",
    "x'auth*provider: gateway",
]


def test_nobody_claims_an_identity_over_http2(daemon: Daemon, service: Service) -> None:
    """What is dropped from one version's requests is dropped from the other's."""
    with H2Client(daemon.address) as client:
        for line in (*IDENTITY, *CLAIMS, *ODD_FRAMING):
            name, _, value = line.partition(": ")
            assert client.request("GET", "/a", (name.lower(), value)).status == 200
            assert value.encode() not in service.last.raw


def test_a_trusted_proxy_claims_no_identity_either(behind_proxy: Daemon, service: Service) -> None:
    """Nor from a proxy that is trusted."""
    behind_proxy.get("/a", *IDENTITY)
    assert b"root" not in service.last.raw


CLAIMS = [
    "Forwarded: for=198.51.100.1;proto=https;host=evil",
    "X-Forwarded-For: 198.51.100.1",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: evil",
    "X-Forwarded-Port: port",
    "X-Forwarded-Prefix: /evil",
    "X_Forwarded_For: 198.51.100.2",
    "X+Forwarded+Proto: gopher",
    "X-Real-IP: 198.51.100.3",
    "X|Real|IP: 198.51.100.4",
]

ODD_FRAMING = ["Content+Length: t77", "Transfer.Encoding: gzip", "Keep~Alive: timeout=78", "HTTP2!Settings: AAMAAAA"]


def test_what_strangers_say_of_their_origin_is_dropped(daemon: Daemon, service: Service) -> None:
    """What a stranger says of its address is not passed on."""
    daemon.get("/a", *CLAIMS)
    assert b"198.51.100" not in service.last.raw
    assert b"evil" not in service.last.raw
    assert b"port" not in service.last.raw
    assert b"gopher" not in service.last.raw
    assert service.last.get("x-forwarded-for") == "127.0.0.1"
    assert service.last.get("x-forwarded-proto") == "http"
    assert service.last.get("x-forwarded-host") == "localhost"


def test_what_a_trusted_proxy_says_is_continued(behind_proxy: Daemon, service: Service) -> None:
    """What a trusted proxy says of its client is continued."""
    behind_proxy.get("/a", *CLAIMS, "X-Forwarded-For: 203.0.113.9, 10.1.1.1")
    assert service.last.get("x-forwarded-for") == "198.51.100.1, 203.0.113.9, 10.1.1.1, 127.0.0.1"
    assert service.last.get("x-forwarded-proto") == "https"
    assert service.last.get("x-forwarded-host") == "evil"
    assert service.last.get("forwarded") == "for=198.51.100.1;proto=https;host=evil"
    assert service.last.get("x-real-ip") == "198.51.100.3"
    assert b"198.51.100.2" not in service.last.raw
    assert b"198.51.100.4" not in service.last.raw


@pytest.mark.parametrize("given", ["a", "7d5b-42:x/y=z!", "x" * 128])
def test_a_well_formed_request_id_is_kept_and_echoed(daemon: Daemon, service: Service, given: str) -> None:
    """A well-formed id goes to the service and back to the client."""
    answer = daemon.get("/a", f"X-Request-ID: {given}")
    assert service.last.get("x-request-id") == answer.get("x-request-id") == given


def test_the_services_request_id_does_not_reach_the_client_twice(daemon: Daemon, service: Service) -> None:
    """An answer has one id, which is the gateway's."""
    service.behave = lambda received: received.conversation.answer(200, "X-Request-ID: other")
    assert daemon.get("/a", "X-Request-ID: mine").get("x-request-id") == "mine"


def test_errors_carry_the_id_too(daemon: Daemon) -> None:
    """The gateway's own answers carry the id too."""
    answer = daemon.get("/a//b", "X-Request-ID: mine")
    assert answer.code == "bad_request"
    answer = daemon.request("FROB", "/a", "X-Request-ID: mine")
    assert answer.code == "not_implemented"


def test_everything_else_is_passed_on_as_it_is(daemon: Daemon, service: Service) -> None:
    """All other fields arrive as they were sent, and in their order."""
    lines = [
        "Accept: a",
        "X-Twice: 1",
        "X-Twice: 2, 3",
        "Cookie: a=1; b=2",
        "Cookie: c=3",
        "X-Odd: \xe9\xff",
        "X-Empty:",
        "Authorization: Bearer t",
        "traceparent: 00-1-2-01",
        "User-Agent: x/1",
        "Accept-Encoding: br",
    ]
    daemon.get("/a", *lines)
    expected = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    assert [pair for pair in service.last.headers if pair[0] in dict(expected)] == expected


def test_a_services_headers_are_passed_on_as_they_are(daemon: Daemon, service: Service) -> None:
    """A service's fields arrive as it sent them, and in their order."""
    lines = [
        "Set-Cookie: a=1; Path=/",
        "Set-Cookie: b=2",
        "Date: yesterday",
        "Server: x",
        "X-Odd: \xe9",
        "X-Empty: ",
        "Content-Encoding: gzip",
        'ETag: W/"1"',
        "Location: http://127.0.0.1/x",
    ]
    service.behave = lambda received: received.conversation.answer(201, *lines, body=b"not gzip")
    answer = daemon.get("/a")
    expected = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    assert (answer.status, answer.reason, answer.body) == (201, "Answer", b"not gzip")
    assert [pair for pair in answer.headers if pair[0] in dict(expected)] == expected


def test_the_gateway_answers_expect_100_continue(daemon: Daemon, service: Service) -> None:
    """The gateway itself tells a client to go on that asks before it sends."""
    with daemon.connect() as client:
        client.send("PUT /a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        assert client.head().status == 100
        answer = client.send("hello").answer()
        assert (answer.status, answer.json["body"]) == (200, "hello")
        assert service.last.all("expect") == []
        # Who sends the body unasked is not told to go on.
        client.send(b"PUT /a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello")
        statuses = [client.head().status]
        if statuses == [100]:
            statuses.append(client.head().status)
        assert statuses[-1] == 200
