"""The contract of plugins, as the plugin that is never changed uses it. With ``--apigw-daemon``, in a real daemon."""

from __future__ import annotations

import time
from typing import Any

import pytest
from joserfc import jwk, jwt

from apigw.testing import Gateway, Received, Reply
from apigw.testing.services import echo

ROUTES = [{"path": "/things/:thing/*", "service": "main", "use": ["promised"]}]


def say(received: Received) -> Reply:
    reply = echo(received)
    return Reply(reply.status, {**reply.headers, "Server": "secret"}, reply.body)


@pytest.fixture
def gateway(apigw: Any) -> Gateway:
    begun: Gateway = apigw(
        {"promised": {"policy": "./promised.py:Promised", "with": {"header": "X-Tenant"}}},
        services={"main": say},
        routes=ROUTES,
    )
    return begun


async def test_what_it_sets_reaches_service_and_client(apigw: Any, gateway: Gateway) -> None:
    """Fields of the request, also its own in place of a client's, and of the answer."""
    answer = await gateway.request("GET", "/things/a%20b/c/d?q=1", {"X-Unwanted": "x", "X_Promised": "forged"})
    got = gateway.service.received[-1]
    assert (answer.status, answer.headers.get("server")) == (200, None)
    assert [value for name, value in answer.pairs if name == "x-greeting"] == ["hello", "again"]
    assert (got.get("x-tenant"), got.get("x-promised"), got.get("x-unwanted")) == ("a b/c/d", "q=1", None)
    assert got.get("x_promised") is None
    assert [value for name, value in got.headers if name == "x-several"] == ["1", "2"]
    assert answer.text.endswith("}?")
    assert "started with X-Tenant" in gateway.log
    assert "/things/a%20b/c/d was seen" in gateway.log


async def test_it_answers_and_refuses(apigw: Any, gateway: Gateway) -> None:
    """In place of the service, with what it says."""
    made = await gateway.request("GET", "/things/a/?answer=1")
    assert (made.status, made.text, made.headers["x-made"]) == (201, "made", "here")
    refused = await gateway.request("GET", "/things/a/?refuse=1")
    assert (refused.status, refused.headers["x-why"]) == (422, "because")
    assert (refused.json()["code"], refused.json()["detail"]) == ("not_so", "no")
    assert not gateway.service.received


async def test_it_waits(apigw: Any, gateway: Gateway) -> None:
    """For time, for a thread, for another service."""
    there = f"http://127.0.0.1:{gateway.service.port}/x"
    await gateway.request("GET", f"/things/a/?wait=1&thread=1&fetch={there}")
    got = gateway.service.received[-1]
    assert (got.get("x-sum"), got.get("x-fetched")) == ("6", '200 {"a": 1}')


async def test_a_token_that_a_test_makes_is_valid(apigw: Any) -> None:
    """The clock in memory begins now, so `exp` may be reckoned from the time of the test."""
    secret = "0123456789abcdef0123456789abcdef"
    gateway = apigw(auth={"jwt": [{"name": "login", "algorithm": "HS256", "secret": secret}]})
    claims = {"sub": "ann", "exp": int(time.time()) + 60}
    token = jwt.encode({"alg": "HS256"}, claims, jwk.OctKey.import_key(secret))
    assert (await gateway.request("GET", "/", {"Authorization": f"Bearer {token}"})).status == 200
    assert gateway.service.received[-1].get("x-user-id") == "ann"


async def test_a_configuration_knows_the_services(apigw: Any) -> None:
    """`${NAME_URL}` is the address of a service, for what is asked from the configuration or by a plugin."""
    gateway = apigw(
        services={"main": Reply(200, {}, "in"), "front-desk": Reply(403, {}, "out")},
        checks={"desk": {"url": "${FRONT_DESK_URL}/ask"}},
        routes=[{"path": "/*", "service": "main", "check_with": "desk"}],
    )
    assert (await gateway.request("GET", "/")).text == "out"
    assert gateway.services["front-desk"].received[-1].path == "/ask"


async def test_it_changes_bodies(apigw: Any, gateway: Gateway) -> None:
    """Whole ones, pieces, or none; and lengths are right."""
    await gateway.request("POST", "/things/a/?body=1", body="hello")
    got = gateway.service.received[-1]
    assert (got.body, got.get("content-length")) == (b"HELLO!", "6")
    long = b"x" * 300_000
    answer = await gateway.request("POST", "/things/a/", body=long)
    assert gateway.service.received[-1].body == long + b"!"
    assert answer.json if answer.text.endswith('!"}?') else False
    passed = await gateway.request("POST", "/things/a/?pass=1", body="hello")
    assert gateway.service.received[-1].body == b"hello"
    assert passed.text.endswith("}")
    large = await gateway.request("POST", "/things/a/?body=1", body="x" * 1001)
    assert (large.status, large.json()["code"]) == (413, "body_too_large")


async def test_a_small_answer_comes_at_once(apigw: Any, gateway: Gateway) -> None:
    """Its new length is known when its head is sent, in memory and over sockets alike."""
    answer = await gateway.request("GET", "/things/a/")
    assert answer.headers["content-length"] == str(len(answer.body))


async def test_it_rewrites(apigw: Any, gateway: Gateway) -> None:
    """Path and host that the service gets; the query stays."""
    await gateway.request("GET", "/things/a/?rewrite=1")
    got = gateway.service.received[-1]
    assert (got.path, got.get("host")) == ("/elsewhere?rewrite=1", "inner.example")


async def test_it_chooses(apigw: Any) -> None:
    """The service of a split, and the target of a service; else weights and balance do."""
    named = {name: Reply(200, {}, name) for name in ("one", "two", "three")}
    routes = [
        {"path": "/split", "split": {"one": 1, "two": 0}, "use": ["choosing"]},
        {"path": "/targets", "service": "both", "use": ["choosing"]},
    ]
    gateway = apigw(["./promised.py:Choosing"], services=named, routes=routes, services_of={"both": ["one", "three"]})
    assert (await gateway.request("GET", "/split")).text == "one"
    assert (await gateway.request("GET", "/split", {"X-Service": "two"})).text == "two"
    assert (await gateway.request("GET", "/split", {"X-Service": "three"})).text == "one"
    for name in ("three", "three", "one", "one"):
        port = gateway.services[name].port
        assert (await gateway.request("GET", "/targets", {"X-Target": f"{port}"})).text == name
