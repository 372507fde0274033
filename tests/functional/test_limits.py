"""Rate limits as callers and operators meet them, in a gateway that counts in memory."""

from __future__ import annotations

import base64
import hmac
import json
import time
from typing import Any

import pytest
from support.asking import admin_of, asked, command, metrics
from support.client import Answer, encode
from support.daemon import Daemon, Document, gateway
from support.services import Received, Service
from support.waiting import eventually

from .conftest import Start

HOUR = "1h"
SECRET = "a secret for tests that is long enough"


def limited(service: Service, *limits: Document, routes: list[Document] | None = None, **settings: Any) -> Document:
    """A gateway that takes this machine for a trusted proxy, with ``limits``."""
    routes = routes or [{"path": "/*", "service": "main"}]
    document = gateway(services={"main": service.url}, routes=routes, trusted_proxies=["127.0.0.1/32"], **settings)
    return {**document, "rate_limits": list(limits)}


def limit(endpoint: str, number: int, scope: str = "ip", window: str = HOUR, **more: Any) -> Document:
    return {"endpoint": endpoint, "limit": number, "scope": scope, "window": window, **more}


ROUTES = [
    {"path": "/users/*", "service": "main", "auth": "optional"},
    {"path": "/guessed/*", "service": "main", "auth": "required"},
    {"path": "/cut/*", "service": "main"},
    {"path": "/counted/*", "service": "main"},
    {"path": "/cut/users/:id", "service": "main"},
    {"path": "/*", "service": "main"},
]
LIMITS = [
    limit("/told", 2),
    limit("/own", 2),
    limit("/users/*", 2, "user"),
    limit("/guessed/*", 3),
    limit("/guessed/*", 100, "user"),
    limit("/cut/*", 4, "endpoint"),
    limit("/cut/deep/search", 1, "endpoint"),
    limit("/upload", 1),
    limit("/counted/a", 1, "endpoint"),
]
"""Of one daemon: those of each test have a first segment of their own."""


@pytest.fixture(scope="module")
def daemon(in_front: Start, module_service: Service) -> Daemon:
    log = {"file": "access.log", "format": "json"}
    document = limited(module_service, *LIMITS, routes=ROUTES, access_log=log, auth_default="none")
    document["auth"] = {"jwt": [{"name": "main", "algorithm": "HS256", "secret": SECRET}]}
    return in_front(document)


def shown(daemon: Daemon, below: str) -> list[Document]:
    """What operators are shown of the limits of one test."""
    return [one for one in asked(daemon, "/limits")["limits"] if one["endpoint"].startswith(below)]


def of(address: str) -> str:
    return f"X-Forwarded-For: {address}"


def statuses(daemon: Daemon, target: str, *headers: str, times: int = 3) -> list[int]:
    with daemon.connect() as client:
        return [client.get(target, *headers).status for _ in range(times)]


def numbers(answer: Answer) -> tuple[str | None, str | None]:
    return answer.get("x-ratelimit-limit"), answer.get("x-ratelimit-remaining")


def token(subject: str, **claims: Any) -> str:
    def encoded(value: bytes) -> str:
        return base64.urlsafe_b64encode(value).rstrip(b"=").decode()

    claims = {"sub": subject, "exp": int(time.time()) + 600, **claims}
    signed = ".".join(encoded(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims))
    return f"{signed}.{encoded(hmac.digest(SECRET.encode(), signed.encode(), 'sha256'))}"


def bearer(subject: str) -> str:
    return f"Authorization: Bearer {token(subject)}"


def test_what_a_caller_is_told(daemon: Daemon, service: Service) -> None:
    """Each answer says how much is left and until when, and a refusal when to come back."""
    before = time.time()
    first = daemon.get("/told")
    assert (first.status, *numbers(first)) == (200, "2", "1")
    reset = first.get("x-ratelimit-reset")
    assert reset is not None
    assert before + 3599 <= int(reset) <= time.time() + 3601
    assert first.get("retry-after") is None
    assert numbers(daemon.get("/told")) == ("2", "0")
    refused = daemon.get("/told")
    assert (refused.status, refused.code, *numbers(refused)) == (429, "rate_limited", "2", "0")
    assert refused.reason == "Too Many Requests"
    assert refused.get("x-ratelimit-reset") == reset
    assert 3590 <= int(refused.get("retry-after") or 0) <= 3600
    assert numbers(daemon.get("/free")) == (None, None)
    assert len(service.requests) == 3


def test_a_service_that_has_limits_of_its_own(daemon: Daemon, service: Service) -> None:
    """Where the gateway has a limit its numbers replace the service's, and elsewhere the service's arrive."""

    def behave(received: Received) -> None:
        received.body()
        received.conversation.answer(200, "X-RateLimit-Limit: 7", "X-RateLimit-Remaining: 6", "X-RateLimit-Reset: 5")

    service.behave = behave
    assert numbers(daemon.get("/own")) == ("2", "1")
    assert numbers(daemon.get("/free")) == ("7", "6")


def test_an_address_that_a_stranger_claims(start: Start, service: Service) -> None:
    """Only what a trusted proxy says of an address counts."""
    document = limited(service, limit("/*", 2))
    document["gateway"]["trusted_proxies"] = []
    daemon = start(document)
    assert [daemon.get("/a", of(f"192.0.2.{last}")).status for last in range(4)] == [200, 200, 429, 429]


def test_users(daemon: Daemon, service: Service) -> None:
    """A user has one limit wherever he calls from, and who is nobody counts by address."""
    assert statuses(daemon, "/users/a", bearer("ada"), times=2) == [200, 200]
    assert statuses(daemon, "/users/a", bearer("ada"), of("192.0.2.7"), times=1) == [429]
    assert statuses(daemon, "/users/a", bearer("bob"), times=1) == [200]
    # Anonymous callers count by address, and no user's name can be taken for one.
    assert statuses(daemon, "/users/a", bearer("127.0.0.1"), times=3) == [200, 200, 429]
    assert statuses(daemon, "/users/a", times=3) == [200, 200, 429]
    assert statuses(daemon, "/users/a", of("192.0.2.8"), times=1) == [200]


def test_whoever_guesses_tokens_is_stopped(daemon: Daemon, service: Service) -> None:
    """Each 401 counts against the address that it goes to."""
    guesser = of("192.0.2.66")
    assert statuses(daemon, "/guessed/a", guesser, "Authorization: Bearer x.y.z", times=2) == [401, 401]
    assert statuses(daemon, "/guessed/a", guesser, times=2) == [401, 429]
    assert statuses(daemon, "/guessed/a", of("192.0.2.1"), bearer("ada"), times=1) == [200]
    # The user's own limit was not touched by those who were nobody.
    users = next(one for one in shown(daemon, "/guessed/") if one["scope"] == "user")
    assert users["keys"] == 1


def test_patterns_narrower_and_wider_than_the_route(daemon: Daemon, service: Service) -> None:
    """A limit counts what its pattern matches, however routes are cut."""
    assert numbers(daemon.get("/cut/users/7")) == ("4", "3")
    assert numbers(daemon.get("/cut/deep/search")) == ("1", "0")
    assert numbers(daemon.get("/cut/deep/other")) == ("4", "1")
    assert daemon.get("/cut/deep/search").status == 429
    assert daemon.get("/cut/deep/%73earch").status == 429, "an encoded letter is the same letter"


def test_a_reload_keeps_the_counts(start: Start, service: Service) -> None:
    """What was counted stands after a reload, unless the limit's window changed."""
    daemon = start(limited(service, limit("/a", 3), limit("/b", 3)))
    assert numbers(daemon.get("/a")) == ("3", "2")
    assert numbers(daemon.get("/b")) == ("3", "2")
    assert daemon.reload(limited(service, limit("/c", 1), limit("/a", 5), limit("/b", 3, window="2h")))
    assert numbers(daemon.get("/a")) == ("5", "3"), "the number changed; what was counted stands"
    assert numbers(daemon.get("/b")) == ("3", "2"), "another window counts anew"


def test_a_refusal_costs_the_service_nothing(daemon: Daemon, service: Service) -> None:
    """An upload over the limit is refused before it is read."""
    assert daemon.get("/upload").status == 200
    with daemon.connect() as client:
        client.send(encode("POST", "/upload", "Content-Length: 1000000", "Expect: 100-continue"))
        assert client.answer().status == 429
    assert len(service.requests) == 1


def test_what_is_refused_is_counted_and_logged(daemon: Daemon, service: Service) -> None:
    """Each refusal is in the metrics under its limit and its route, and a line of the access log."""
    assert statuses(daemon, "/counted/a") == [200, 429, 429]
    with_metrics = eventually(
        lambda: (
            'violations_total{endpoint="/counted/a",kind="rate",scope="endpoint"} 2.0' in (text := metrics(daemon))
            and text
        )
    )
    # By the route, which is not the limit's pattern.
    assert (
        'gateway_requests_total{method="GET",path="/counted/a",route="/counted/a",status="429"} 2' not in with_metrics
    )
    assert 'gateway_requests_total{method="GET",path="/counted/*",route="/counted/*",status="429"} 2' in with_metrics
    assert "gateway_rate_limit_store_up 1.0" in with_metrics
    log = daemon.directory / "access.log"
    eventually(lambda: sum("/counted" in line and "rate_limited" in line for line in log.read_text().splitlines()) == 2)


def test_operators_see_what_is_counted(start: Start, service: Service) -> None:
    """`apigw limits` shows each limit, its keys and its refusals."""
    daemon = start(limited(service, limit("/api/*", 2), limit("/big", 2_000_000, "endpoint", window="24h")))
    for last in range(4):
        daemon.get("/api/a", of(f"192.0.2.{last}"))
    assert statuses(daemon, "/api/a") == [200, 200, 429]
    shown = command("limits", "--admin", admin_of(daemon).removeprefix("http://"))
    assert shown.stdout.splitlines() == [
        "counted in memory; keys in this gateway: 5",
        "ENDPOINT  SCOPE     LIMIT               ALGORITHM  ON STORE FAILURE  KEYS  REFUSED",
        "/api/*    ip        2 in 3600 s         log        local             5     1",
        "/big      endpoint  2000000 in 86400 s  counter    local             0     0",
    ]
    as_json = command("limits", "--json", "--config", str(daemon.directory), "--admin", admin_of(daemon))
    assert json.loads(as_json.stdout) == asked(daemon, "/limits")
    assert as_json.returncode == 0
