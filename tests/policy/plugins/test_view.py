"""What plugins see of a request, and who sees what they write."""

from __future__ import annotations

import json
from time import process_time
from typing import Any

import pytest

from apigw.errors import render
from apigw.plugin import MediaType, Refusal

SECRET = "0123456789abcdef0123456789abcdef"
FORGED = {
    "X-User-ID": "admin",
    "X_User_Roles": "admin",
    "X-Forwarded-For": "10.0.0.1",
    "X-Real-IP": "10.0.0.1",
    "X_Own": "forged",
    "X-Own": "forged",
    "X-Plain": "seen",
}


async def test_what_a_client_could_forge_is_not_seen(apigw: Any) -> None:
    """Identity, origin, and what belongs to a plugin; the plugin's own value is."""
    gateway = apigw(["./reading.py:Owning", "./reading.py:Seeing"])
    items, own, client, scheme = (await gateway.request("GET", "/a", FORGED)).json()
    names = {name for name, _ in items}
    assert "x-plain" in names
    assert not names & {"x-user-id", "x_user_roles", "x-forwarded-for", "x-real-ip", "x_own", "x-own"}
    assert (own, client, scheme) == (None, "127.0.0.1", "http")
    items, own, *_ = (await gateway.request("GET", "/a?set=1", FORGED)).json()
    assert own == "mine"
    assert [value for name, value in items if name == "x-own"] == ["mine"]


async def test_what_belongs_to_a_plugin_is_taken_from_clients_everywhere(apigw: Any) -> None:
    """Also on routes that do not use it; from the plugin it reaches the service once."""
    routes = [
        {"path": "/on", "service": "main", "use": ["owning", "seeing"]},
        {"path": "/off", "service": "main"},
    ]
    gateway = apigw(["./reading.py:Owning", "./reading.py:Seeing"], routes=routes)
    await gateway.request("GET", "/off", FORGED)
    got = gateway.service.received[-1]
    assert (got.get("x-own"), got.get("x_own"), got.get("x-plain")) == (None, None, "seen")
    await gateway.request("GET", "/on?set=1", FORGED)
    got = gateway.service.received[-1]
    assert [value for name, value in got.headers if name in ("x-own", "x_own")] == ["mine"]
    assert got.get("x-forwarded-for") is None  # which on_forward has removed


async def test_limits_go_by_what_a_plugin_sets_and_not_by_what_a_client_does(apigw: Any) -> None:
    """A client cannot escape a limit by a header of its own making, whether the plugin sets that or not."""
    limits = [{"route": "all", "limit": 1, "window": "60s", "by": [{"header": "X-Own"}]}]
    routes = [{"name": "all", "path": "/*", "service": "main", "use": ["owning"]}]
    gateway = apigw(["./reading.py:Owning"], routes=routes, rate_limits=limits)
    for path in ("/a", "/a?set=1"):
        found = [(await gateway.request("GET", path, {"X-Own": str(number)})).status for number in range(2)]
        assert found == [200, 429]


async def test_what_is_set_early_is_as_if_the_client_had_sent_it(apigw: Any) -> None:
    """Authentication sees a token that a plugin has put there, and plugins see the caller."""
    from joserfc import jwt
    from joserfc.jwk import OctKey

    claims = {"sub": "ada", "exp": 4102444800, "tenant": "acme"}
    token = jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(SECRET))
    auth = {"jwt": [{"name": "main", "algorithm": "HS256", "secret": SECRET}]}
    gateway = apigw(["./reading.py:Owning", "./reading.py:Seeing"], auth=auth)
    assert (await gateway.request("GET", "/a")).status == 401
    items, *_ = (await gateway.request("GET", f"/a?token={token}", FORGED)).json()
    assert ["x-user-id", "ada"] in items


async def test_the_order_is_gateway_service_route(apigw: Any) -> None:
    """As written at each, and each once; of a split, those of the service come after the choice."""
    plugins = {mark: {"policy": "./reading.py:Ordered", "with": {"mark": mark}} for mark in "abcde"}
    routes = [
        {"path": "/one", "service": "main", "use": ["e", "d", "a"]},
        {"path": "/split", "split": {"main": 1}, "use": ["e"]},
    ]
    gateway = apigw(plugins, routes=routes, gateway={"use": ["b", "a"]}, service_settings={"main": {"use": ["c", "b"]}})
    for path, order in (("/one", "baced"), ("/split", "baec")):
        await gateway.request("GET", path)
        assert gateway.service.received[-1].get("x-order") == order


async def test_what_is_set_late_is_in_place_of_the_clients(apigw: Any) -> None:
    """For the service, for plugins behind it, and in each spelling but another's own; of several plugins the last."""
    plugins = {mark: {"policy": "./reading.py:Late", "with": {"mark": mark}} for mark in "ab"}
    gateway = apigw(plugins, use=["a", "b"])
    sent = {"X-Late": "client", "X-Late-Too": "client", "X-Other": "client"}
    for _ in range(2):
        await gateway.request("GET", "/a", sent)
        got = gateway.service.received[-1]
        found = [(name, value) for name, value in got.headers if name.startswith(("x-late", "x-other", "x-seen"))]
        assert found == [("x-other", "client"), ("x-late", "b"), ("x-seen", "a"), ("x-late-too", "b")]


@pytest.mark.parametrize(
    ("fields", "name", "charsets", "is_json"),
    [
        (["application/json"], "application/json", frozenset(), True),
        ([' Application/Problem+JSON ; charset="UTF-8"'], "application/problem+json", frozenset({"utf-8"}), True),
        (["text/plain;charset=a; CHARSET*=b''c"], "text/plain", frozenset({"a", "b''c"}), False),
        (["text/x+json"], "text/x+json", frozenset(), False),
        (["application/json", "text/plain"], "", frozenset(), False),
        ([], "", frozenset(), False),
    ],
    ids=lambda value: "|".join(value) if isinstance(value, list) else None,
)
def test_the_type_of_a_body(fields: list[str], name: str, charsets: frozenset[str], is_json: bool) -> None:
    """In lower case, with every charset that a reader could find; none where there are two."""
    found = MediaType(fields)
    assert (found.name, found.charsets, found.is_json) == (name, charsets, is_json)


def test_a_long_type_is_read_once() -> None:
    """A client may send as many bytes as ``max_header_size`` allows, and none of them has a value."""
    began = process_time()
    assert MediaType(["a/b;" + "charset" * 40_000]).charsets == frozenset()
    assert MediaType(["a/b;" + "charset" * 40_000 + "=x;charset"]).charsets == frozenset({"x"})
    assert process_time() - began < 1


async def test_a_refusal_tells_more(apigw: Any) -> None:
    """Further members of its problem document, and the type of the body that it has refused."""
    gateway = apigw(["./reading.py:Telling"])
    answer = await gateway.request("POST", "/a", {"Content-Type": "text/plain"}, b"{}")
    assert (answer.status, answer.headers["content-type"]) == (422, "application/problem+json")
    told = answer.json()
    assert (told["code"], told["errors"], told["request_id"]) == (
        "wrong",
        [{"is": "text/plain"}],
        answer.headers["x-request-id"],
    )


def test_a_refusal_tells_what_there_was() -> None:
    """When it was made: later it may be no JSON, and nested too deeply for where the answer is written."""
    errors: list[Any] = ["a"]
    deep: list[Any] = []
    for _ in range(700):
        deep = [deep]
    refusal = Refusal(422, members={"errors": errors, "deep": deep})
    errors.append({1})

    def sent(further: int) -> bytes:
        return sent(further - 1) if further else render(refusal, "7")[2]

    document = json.loads(sent(300))
    assert (document["errors"], document["request_id"], document["status"]) == (["a"], "7", 422)


@pytest.mark.parametrize(
    "members",
    [{"status": 200}, {"request_id": "1"}, {"errors": {1, 2}}, {"n": float("nan")}, {1: "a"}],
)
def test_what_a_refusal_cannot_tell(members: dict[str, Any]) -> None:
    """What the document says already, and what is no JSON: an error where it is written."""
    with pytest.raises((ValueError, TypeError)):
        Refusal(422, members=members)
