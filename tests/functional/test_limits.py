"""Rate limits as callers and operators meet them, in one gateway that counts in memory."""

from __future__ import annotations

import base64
import hmac
import json
import time
from pathlib import Path
from typing import Any

import pytest
from support.asking import admin_of, asked, command, metrics
from support.client import Answer
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


def of(address: str) -> str:
    return f"X-Forwarded-For: {address}"


def statuses(daemon: Daemon, target: str, *headers: str, times: int = 3) -> list[int]:
    with daemon.connect() as client:
        return [client.get(target, *headers).status for _ in range(times)]


def numbers(answer: Answer) -> tuple[str | None, str | None]:
    return answer.get("x-ratelimit-limit"), answer.get("x-ratelimit-remaining")


def test_what_a_caller_is_told(start: Start, service: Service) -> None:
    """A client cannot pace itself, because it learns of the limit only by running into it."""
    daemon = start(limited(service, limit("/a", 2)))
    before = time.time()
    first = daemon.get("/a")
    assert (first.status, *numbers(first)) == (200, "2", "1")
    reset = first.get("x-ratelimit-reset")
    assert reset is not None
    assert before + 3599 <= int(reset) <= time.time() + 3601
    assert first.get("retry-after") is None
    assert numbers(daemon.get("/a")) == ("2", "0")
    refused = daemon.get("/a")
    assert (refused.status, refused.code, *numbers(refused)) == (429, "rate_limited", "2", "0")
    assert refused.reason == "Too Many Requests"
    assert refused.get("x-ratelimit-reset") == reset
    assert 3590 <= int(refused.get("retry-after") or 0) <= 3600
    assert numbers(daemon.get("/b")) == (None, None)
    assert len(service.requests) == 3


def test_after_retry_after_a_request_passes(start: Start, service: Service) -> None:
    """A client that does as it is told is refused again."""
    daemon = start(limited(service, limit("/a", 1, window="1s", algorithm="log")))
    assert daemon.get("/a").status == 200
    refused = daemon.get("/a")
    assert refused.status == 429
    time.sleep(int(refused.get("retry-after") or 0))
    assert daemon.get("/a").status == 200


def test_a_service_that_has_limits_of_its_own(start: Start, service: Service) -> None:
    """A client reads the service's numbers beside the gateway's and believes the wrong ones."""

    def behave(received: Received) -> None:
        received.body()
        received.conversation.answer(200, "X-RateLimit-Limit: 7", "X-RateLimit-Remaining: 6", "X-RateLimit-Reset: 5")

    service.behave = behave
    daemon = start(limited(service, limit("/a", 2)))
    assert numbers(daemon.get("/a")) == ("2", "1")
    assert numbers(daemon.get("/b")) == ("7", "6")


def test_several_limits_at_once(start: Start, service: Service) -> None:
    """A request that one limit refuses uses up another, or the answer tells of a limit that does not matter."""
    daemon = start(
        limited(service, limit("/api/*", 5, "endpoint"), limit("/api/search", 1), limit("/api/search", 3, "endpoint"))
    )
    assert numbers(daemon.get("/api/search", of("192.0.2.1"))) == ("1", "0")
    for _ in range(3):
        refused = daemon.get("/api/search", of("192.0.2.1"))
        assert (refused.status, *numbers(refused)) == (429, "1", "0")
    assert numbers(daemon.get("/api/other", of("192.0.2.1"))) == ("5", "3")
    assert daemon.get("/api/search", of("192.0.2.2")).status == 200
    assert daemon.get("/api/search", of("192.0.2.3")).status == 200
    refused = daemon.get("/api/search", of("192.0.2.4"))
    assert (refused.status, *numbers(refused)) == (429, "3", "0")
    shown = {(one["endpoint"], one["scope"]): one for one in asked(daemon, "/limits")["limits"]}
    assert [one["violations"] for one in shown.values()] == [0, 3, 1]
    assert [one["keys"] for one in shown.values()] == [1, 3, 1]


def test_addresses(start: Start, service: Service) -> None:
    """A customer escapes with the addresses that every IPv6 customer has at will, or by inventing a header."""
    daemon = start(limited(service, limit("/*", 2)))
    assert statuses(daemon, "/a", of("2001:db8:0:1::1"), times=2) == [200, 200]
    assert statuses(daemon, "/a", of("2001:db8:0:1:ffff::2"), times=1) == [429]
    assert statuses(daemon, "/a", of("2001:db8:0:2::1"), times=1) == [200]
    assert statuses(daemon, "/a", of("192.0.2.1"), times=2) == [200, 200]
    assert statuses(daemon, "/a", of("::ffff:192.0.2.1"), times=1) == [429]
    # What stands left of the first address that is no proxy was written by the client itself.
    assert statuses(daemon, "/a", of("203.0.113.9, 192.0.2.1"), times=1) == [429]
    assert statuses(daemon, "/a", of("192.0.2.1, 127.0.0.1"), times=1) == [429]


def test_an_address_that_a_stranger_claims(start: Start, service: Service) -> None:
    """Whoever writes a header of his own gets a limit of his own with each request."""
    document = limited(service, limit("/*", 2))
    document["gateway"]["trusted_proxies"] = []
    daemon = start(document)
    assert [daemon.get("/a", of(f"192.0.2.{last}")).status for last in range(4)] == [200, 200, 429, 429]


def test_header_values_that_are_no_keys(start: Start, service: Service) -> None:
    """Odd header values make two callers one, or make the store grow with each request."""
    daemon = start(limited(service, limit("/*", 1_000)))
    for value in ("", "unknown", "x" * 20_000, "a\xff\xfe", "192.0.2.1\t, nobody", "fe80::1%" + "z" * 5_000, ", ,,"):
        assert daemon.get("/a", of(value)).status == 200
    for number in range(100):
        assert daemon.get("/a", of(f"fe80::1%zone{number}")).status == 200
        assert daemon.get("/a", f"X-User-ID: {number}", of(f"nobody{number}")).status == 200
    # The peer itself, and one link-local network.
    assert asked(daemon, "/limits")["store"]["keys"] == 2


def token(subject: str, **claims: Any) -> str:
    def encoded(value: bytes) -> str:
        return base64.urlsafe_b64encode(value).rstrip(b"=").decode()

    claims = {"sub": subject, "exp": int(time.time()) + 600, **claims}
    signed = ".".join(encoded(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims))
    return f"{signed}.{encoded(hmac.digest(SECRET.encode(), signed.encode(), 'sha256'))}"


def bearer(subject: str) -> str:
    return f"Authorization: Bearer {token(subject)}"


def test_users(start: Start, service: Service) -> None:
    """A user is limited for what others do, or escapes by moving; a stranger counts as nobody."""
    routes = [{"path": "/*", "service": "main", "auth": "optional"}]
    document = limited(service, limit("/*", 2, "user"), routes=routes)
    document["auth"] = {"jwt": [{"name": "main", "algorithm": "HS256", "secret": SECRET}]}
    daemon = start(document)
    assert statuses(daemon, "/a", bearer("ada"), times=2) == [200, 200]
    assert statuses(daemon, "/a", bearer("ada"), of("192.0.2.7"), times=1) == [429]
    assert statuses(daemon, "/a", bearer("bob"), times=1) == [200]
    # Anonymous callers count by address, and no user's name can be taken for one.
    assert statuses(daemon, "/a", bearer("127.0.0.1"), times=3) == [200, 200, 429]
    assert statuses(daemon, "/a", times=3) == [200, 200, 429]
    assert statuses(daemon, "/a", of("192.0.2.8"), times=1) == [200]


def test_whoever_guesses_tokens_is_stopped(start: Start, service: Service) -> None:
    """Tokens can be tried out as fast as the gateway answers."""
    routes = [{"path": "/*", "service": "main", "auth": "required"}]
    document = limited(service, limit("/*", 3), limit("/*", 100, "user"), routes=routes)
    document["auth"] = {"jwt": [{"name": "main", "algorithm": "HS256", "secret": SECRET}]}
    daemon = start(document)
    guesser = of("192.0.2.66")
    assert statuses(daemon, "/a", guesser, "Authorization: Bearer x.y.z", times=2) == [401, 401]
    assert statuses(daemon, "/a", guesser, times=2) == [401, 429]
    assert statuses(daemon, "/a", of("192.0.2.1"), bearer("ada"), times=1) == [200]
    # The user's own limit was not touched by those who were nobody.
    users = next(one for one in asked(daemon, "/limits")["limits"] if one["scope"] == "user")
    assert users["keys"] == 1


def test_patterns_narrower_and_wider_than_the_route(start: Start, service: Service) -> None:
    """A limit counts what it does not name, or does not count what it names, because of how routes are cut."""
    routes = [{"path": "/api/*", "service": "main"}, {"path": "/api/users/:id", "service": "main"}]
    daemon = start(
        limited(service, limit("/api/*", 4, "endpoint"), limit("/api/deep/search", 1, "endpoint"), routes=routes)
    )
    assert numbers(daemon.get("/api/users/7")) == ("4", "3")
    assert numbers(daemon.get("/api/deep/search")) == ("1", "0")
    assert numbers(daemon.get("/api/deep/other")) == ("4", "1")
    assert daemon.get("/api/deep/search").status == 429
    assert daemon.get("/api/deep/%73earch").status == 429, "an encoded letter is the same letter"


def test_a_reload_keeps_the_counts(start: Start, service: Service) -> None:
    """Every reload gives every caller the whole limit again."""
    daemon = start(limited(service, limit("/a", 3), limit("/b", 3)))
    assert numbers(daemon.get("/a")) == ("3", "2")
    assert numbers(daemon.get("/b")) == ("3", "2")
    assert daemon.reload(limited(service, limit("/c", 1), limit("/a", 5), limit("/b", 3, window="2h")))
    assert numbers(daemon.get("/a")) == ("5", "3"), "the number changed; what was counted stands"
    assert numbers(daemon.get("/b")) == ("3", "2"), "another window counts anew"


def test_a_refusal_costs_the_service_nothing(start: Start, service: Service) -> None:
    """A refused upload is read to its end before it is refused."""
    daemon = start(limited(service, limit("/a", 1)))
    assert daemon.get("/a").status == 200
    with daemon.connect() as client:
        client.send("POST /a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n\r\n")
        assert client.answer().status == 429
    assert len(service.requests) == 1


def test_what_is_refused_is_counted_and_logged(start: Start, service: Service) -> None:
    """Nobody notices which limit turns callers away."""
    daemon = start(limited(service, limit("/a", 1, "endpoint"), access_log={"file": "access.log", "format": "json"}))
    assert statuses(daemon, "/a") == [200, 429, 429]
    with_metrics = eventually(
        lambda: (text := metrics(daemon)).count('violations_total{endpoint="/a",scope="endpoint"} 2.0') and text
    )
    assert 'gateway_requests_total{method="GET",path="/a",status="429"} 2' not in with_metrics  # the route is /*
    assert 'gateway_requests_total{method="GET",path="/*",status="429"} 2' in with_metrics
    assert "gateway_rate_limit_store_up 1.0" in with_metrics
    log = daemon.directory / "access.log"
    eventually(lambda: log.read_text().count('"rate_limited"') == 2)


def test_operators_see_what_is_counted(start: Start, service: Service) -> None:
    """An operator must guess from refused callers which limits there are."""
    daemon = start(limited(service, limit("/api/*", 2), limit("/big", 2_000_000, "endpoint", window="24h")))
    for last in range(4):
        daemon.get("/api/a", of(f"192.0.2.{last}"))
    assert statuses(daemon, "/api/a") == [200, 200, 429]
    shown = command("limits", "--admin", admin_of(daemon).removeprefix("http://"))
    assert shown.stdout.splitlines() == [
        "counted in memory; keys in this process: 5; checks decided without Redis: 0",
        "ENDPOINT  SCOPE     LIMIT               ALGORITHM  ON STORE FAILURE  KEYS  REFUSED",
        "/api/*    ip        2 in 3600 s         log        local             5     1",
        "/big      endpoint  2000000 in 86400 s  counter    local             0     0",
    ]
    as_json = command("limits", "--json", "--config", str(daemon.directory), "--admin", admin_of(daemon))
    assert json.loads(as_json.stdout) == asked(daemon, "/limits")
    assert as_json.returncode == 0


def test_keys_leave_with_their_window(start: Start, service: Service) -> None:
    """Addresses that came once stay for ever, and `apigw limits` counts ghosts."""
    daemon = start(limited(service, limit("/*", 5, window="100ms")))
    for last in range(40):
        assert daemon.get("/a", of(f"192.0.2.{last}")).status == 200
    # A large store is swept a part at a time, which takes 48 s for all of it: some must leave soon.
    eventually(lambda: asked(daemon, "/limits")["store"]["keys"] < 40)


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        ([limit("/a", 0)], "limit"),
        ([limit("/a", -1)], "limit"),
        ([limit("/a", 10**12)], "limit"),
        ([limit("/a", 1, window="0s")], "window"),
        ([limit("/a", 1, window="900d")], "window"),
        ([limit("/a", 1), limit("/a", 2)], "same endpoint"),
        ([limit("a", 1)], "endpoint"),
    ],
)
def test_limits_that_mean_nothing(tmp_path: Path, limits: list[Document], sentence: str) -> None:
    """A slip of the pen becomes a gateway that refuses everybody, or nobody."""
    document = gateway(services={"main": "http://127.0.0.1:9"}, routes=[{"path": "/*", "service": "main"}])
    (tmp_path / "gateway.yaml").write_text(json.dumps({**document, "rate_limits": limits}))
    found = command("check", str(tmp_path))
    assert found.returncode == 1
    assert "rate_limits" in found.stderr
    assert sentence in found.stderr


def test_a_limit_that_no_request_can_meet(tmp_path: Path) -> None:
    """A pattern that was mistyped protects nothing, and nobody is told."""
    document = gateway(services={"main": "http://127.0.0.1:9"}, routes=[{"path": "/api/*", "service": "main"}])
    (tmp_path / "gateway.yaml").write_text(json.dumps({**document, "rate_limits": [limit("/apo/search", 1)]}))
    found = command("check", str(tmp_path))
    assert found.returncode == 0
    assert "warning" in found.stderr
    assert "rate_limits" in found.stderr
