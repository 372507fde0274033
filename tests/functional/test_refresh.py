"""Refresh tokens and signing keys over several gateways, restarts and reloads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
from support import redis_server
from support.client import Answer
from support.daemon import Daemon, Document, gateway
from support.services import Service
from support.tokens import bearer
from support.waiting import eventually

from apigw.policy.auth.secrets import hash_generated, new_secret

from .conftest import Start

SECRET = new_secret()
FORM = "Content-Type: application/x-www-form-urlencoded"


@pytest.fixture
def redis() -> Iterator[redis_server.RedisServer]:
    with redis_server.running() as server:
        yield server


def configured(service: Service, server: redis_server.RedisServer | None, **signing: Any) -> Document:
    document = gateway(services={"main": service.url}, routes=[{"path": "/api/*", "service": "main"}])
    document["auth"] = {
        "oauth": {
            "signing": {"algorithm": "RS256", "key_id": "k1", **signing},
            "issuer": "https://gateway.example",
            "rate_limit": {"limit": 1000, "window": "60s"},
            "refresh_tokens": True,
            "clients": [{"id": "acme", "secret_hash": [hash_generated(SECRET)], "scopes": ["a.b"]}],
        }
    }
    if server is not None:
        document["redis"] = {"url": server.url, "prefix": "here", "timeout": "5s"}
    return document


def ask(daemon: Daemon, **form: str) -> Answer:
    body = urlencode({"client_id": "acme", "client_secret": SECRET, **form}).encode()
    return daemon.request("POST", "/oauth/token", FORM, body=body)


def login(daemon: Daemon) -> Document:
    answer = ask(daemon, grant_type="client_credentials")
    assert answer.status == 200, answer
    document: Document = answer.json
    return document


def refresh(daemon: Daemon, token: str) -> Answer:
    return ask(daemon, grant_type="refresh_token", refresh_token=token)


def test_another_gateway_takes_a_refresh_token(start: Start, service: Service, redis: redis_server.RedisServer) -> None:
    """A client must log in anew whenever it comes to another gateway, or a stolen token works at each of them."""
    one, other = (start(configured(service, redis)) for _ in range(2))
    first = eventually(lambda: login(one).get("refresh_token"))
    second = eventually(lambda: refresh(other, first).json.get("refresh_token"))
    one.terminate()
    assert one.wait() == 0
    third = start(configured(service, redis))
    answer = eventually(lambda: taken if (taken := refresh(third, second)).status == 200 else None)
    newest = answer.json["refresh_token"]
    stolen = refresh(other, first)
    assert (stolen.status, stolen.json["error"]) == (400, "invalid_grant")
    assert refresh(third, newest).json["error"] == "invalid_grant"
    eventually(lambda: "used twice" in other.log)
    keys = redis("KEYS", "*")
    for daemon in (one, other, third):
        for token in (first, second, newest):
            assert token.partition(".")[2] not in daemon.log
            assert all(token.partition(".")[2].encode() not in key for key in keys)


def test_a_key_that_the_gateway_made_outlives_reloads(start: Start, service: Service) -> None:
    """Every reload ends the tokens of a gateway that has no key file."""
    document = configured(service, None)
    daemon = start(document)
    eventually(lambda: "has no private_key_file" in daemon.log)
    given = login(daemon)
    published = daemon.get("/.well-known/jwks.json").json
    assert "PRIVATE" not in json.dumps(published) and "d" not in published["keys"][0]
    document["routes"].append({"path": "/more", "service": "main"})
    assert daemon.reload(document)
    assert daemon.get("/more", bearer(given["access_token"])).status == 200
    assert daemon.get("/.well-known/jwks.json").json == published
    assert refresh(daemon, given["refresh_token"]).status == 200
    another = start(document)
    assert another.get("/more", bearer(given["access_token"])).status == 401


def test_the_workers_of_a_gateway_are_one_token_endpoint(start: Start, service: Service) -> None:
    """One signing key, refresh tokens that each of them knows, and one limit of requests."""
    document = configured(service, None)
    document["gateway"]["workers"] = 3
    document["auth"]["oauth"]["rate_limit"] = {"limit": 30, "window": "1h"}
    document["routes"][0]["auth"] = "required"
    daemon = start(document)
    tokens = [ask(daemon, grant_type="client_credentials").json]
    for _ in range(20):
        form = {"grant_type": "refresh_token", "refresh_token": tokens[-1]["refresh_token"]}
        tokens.append(ask(daemon, **form).json)
        assert daemon.get("/api/a", bearer(tokens[-1]["access_token"])).status == 200
    reused = ask(daemon, grant_type="refresh_token", refresh_token=tokens[3]["refresh_token"])
    assert (reused.status, reused.json["error"]) == (400, "invalid_grant")
    seen = [ask(daemon, grant_type="client_credentials").status for _ in range(10)]
    assert seen == [200] * 8 + [429] * 2
