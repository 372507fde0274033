"""What rules of a route make of requests and answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.routed import Routed

from apigw.contract.exchange import Head
from apigw.contract.principal import Principal
from apigw.errors import BadRequest, HeadersTooLarge
from apigw.proxy.headers import client_headers


def route(**rules: Any) -> dict[str, Any]:
    return {"path": "/orders/:id/*", "service": "main", **rules}


def caller(**claims: Any) -> Principal:
    principal = Principal("main", "Ada Lovelace", ("admin", "user"))
    principal.document = json.dumps(claims).encode()
    return principal


ADA = caller(
    tenant="acme",
    number=7,
    share=0.5,
    paid=True,
    groups=["a", "b", 3],
    none=[],
    odd=["a,b", "c"],
    nested={"tenant": "deep", "deeper": {"x": "y"}},
    null=None,
    spaces=" x ",
    umlaut="Jörg",
    line="a\r\nX-Evil: 1",
    slash="a/b",
    dots="..",
    surrogate="\ud800",
    **{"https://acme.example/id": "url", "a.b": "flat", "a": {"b": "nested"}},
)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("plain", b"plain"),
        ("{param.id}", b"7%207"),
        ("{param.rest}", b"a/b"),
        ("{principal.id}", b"Ada Lovelace"),
        ("{principal.roles}", b"admin,user"),
        ("{client.address}", b"192.0.2.1"),
        ("{request.id}", b"mine"),
        ("{host}", b"shop.example"),
        ("{path}?{query}", b"/orders/7%207/a/b?x=1&y=%"),
        ("{{{param.id}}}", b"{7%207}"),
        ("t-{claims.tenant}-{claims.number}", b"t-acme-7"),
        ("{claims.share} {claims.paid}", b"0.5 true"),
        ("{claims.groups}", b"a,b,3"),
        ("{claims.none}", b""),
        ("{claims.spaces}", b"x"),
        ("{claims.umlaut}", "Jörg".encode()),
        ("{claims.nested.tenant}", b"deep"),
        ("{claims.nested.deeper.x}", b"y"),
        ("{claims.https://acme.example/id}", b"url"),
        ("{claims.a.b}", b"flat"),
        ("{claims.odd}", None),
        ("{claims.nested}", None),
        ("{claims.null}", None),
        ("{claims.missing}", None),
        ("{claims.tenant.deeper}", None),
        ("with {claims.missing}", None),
    ],
)
def test_values_of_fields(tmp_path: Path, value: str, expected: bytes | None) -> None:
    """A rule writes what its braces name, and nothing where a part of it is missing."""
    made = Routed(tmp_path, route(request_headers={"set": {"X-Value": value}}))
    sent = made.sent(made.exchange("/orders/7%207/a/b?x=1&y=%", (b"x-request-id", b"mine"), principal=ADA))
    assert [found for name, found in sent if name == b"x-value"] == ([] if expected is None else [expected])


@pytest.mark.parametrize("value", ["{claims.line}", "x{claims.line}", "{claims.surrogate}"])
def test_claims_that_would_break_the_wire(tmp_path: Path, value: str) -> None:
    """Such a request is 400; an answer goes without the field."""
    rules = {"set": {"X-Value": value}}
    made = Routed(tmp_path, route(request_headers=rules, response_headers=rules))
    exchange = made.exchange("/orders/7/a", principal=ADA)
    with pytest.raises(BadRequest):
        made.sent(exchange)
    assert made.answered(exchange, (b"x-value", b"old"), own=True) == []


def test_fields_have_a_bound(tmp_path: Path) -> None:
    """What is taken from an exchange into fields is at most max_header_size together; beyond it is 431."""
    rules = {"set": {"X-A": "{claims.large}", "X-B": "{claims.large}"}}
    gateway = {"max_header_size": "16KiB"}
    made = Routed(tmp_path, route(request_headers=rules, response_headers=rules), gateway=gateway)
    exchange = made.exchange("/orders/7/a", principal=caller(large="x" * 10_240))
    with pytest.raises(HeadersTooLarge):
        made.sent(exchange)
    assert [name for name, _ in made.answered(exchange, own=True)] == [b"x-a"]


def test_set_add_and_remove(tmp_path: Path) -> None:
    """Set replaces the client's field in every spelling, add does not, remove takes also what the gateway adds."""
    rules = {
        "set": {"X-A": "new", "X-Forwarded-Proto": "https"},
        "add": {"X-B": "more"},
        "remove": ["X_Debug", "X-User-Roles", "Via"],
    }
    made = Routed(tmp_path, route(request_headers=rules))
    headers = [
        (b"x-a", b"old"),
        (b"x_a", b"old"),
        (b"x-b", b"one"),
        (b"x-debug", b"1"),
        (b"x_debug", b"1"),
        (b"k", b"v"),
    ]
    sent = made.sent(made.exchange("/orders/7/a", *headers, principal=ADA))
    identifier = dict(sent)[b"x-request-id"]
    assert sent == [
        (b"x-b", b"one"),
        (b"k", b"v"),
        (b"x-forwarded-for", b"192.0.2.1"),
        (b"x-forwarded-host", b"shop.example:8080"),
        (b"x-request-id", identifier),
        (b"x-user-id", b"Ada Lovelace"),
        (b"x-auth-provider", b"main"),
        (b"x-a", b"new"),
        (b"x-forwarded-proto", b"https"),
        (b"x-b", b"more"),
    ]


def test_what_says_who_calls_is_taken_from_clients_everywhere(tmp_path: Path) -> None:
    """A field that one route sets from claims or the caller is no client's to send, on any route, in any spelling."""
    ruled = route(
        request_headers={"set": {"X-Tenant": "{claims.tenant}"}, "add": {"X-Who": "{principal.id}", "X-C": "c"}}
    )
    made = Routed(tmp_path, ruled, {"path": "/open", "service": "main"})
    forged = [(name, b"evil") for name in (b"x-tenant", b"x_tenant", b"x+tenant", b"x-who", b"x.who", b"x-c")]
    sent = made.sent(made.exchange("/open", *forged))
    assert [name for name, value in sent if value == b"evil"] == [b"x-c"]
    sent = made.sent(made.exchange("/orders/7/a", *forged))
    assert [field for field in sent if field[1] in (b"evil", b"c")] == [(b"x-c", b"evil"), (b"x-c", b"c")]


def test_answers(tmp_path: Path) -> None:
    """Rules hold for answers of the service and of the gateway; what is removed is no trailer either."""
    rules = {"set": {"Server": "us"}, "add": {"X-A": "2", "X-Id": "{param.id}"}, "remove": ["X-Secret"]}
    made = Routed(tmp_path, route(response_headers=rules))
    exchange = made.exchange("/orders/7/a")
    theirs = [(b"server", b"them"), (b"x-secret", b"1"), (b"x-a", b"1")]
    expected = [(b"x-a", b"1"), (b"server", b"us"), (b"x-a", b"2"), (b"x-id", b"7")]
    assert made.answered(exchange, *theirs, own=True) == expected
    assert b"x-secret" not in exchange.dropped
    assert made.answered(exchange, *theirs) == expected
    assert exchange.dropped == {b"x-request-id", b"x-secret", b"server"}


@pytest.mark.parametrize("name", [b"server", b"via", b"x-limit", b"vary"])
def test_whoever_has_added_it(tmp_path: Path, name: bytes) -> None:
    """A field that is removed may be of the service, the gateway, another policy, or a hook before."""
    rules = {"set": {"X-New": "1"}, "remove": [name.decode()]}
    cors = {"origins": ["https://a.example", "https://b.example"]}
    made = Routed(tmp_path, route(response_headers=rules, cors=cors))
    exchange = made.exchange("/orders/7/a", (b"origin", b"https://a.example"))
    made.sent(exchange)
    exchange.added = [(b"x-limit", b"1")]
    theirs = [(b"server", b"them"), (name, b"a"), (b"etag", b"1"), (name, b"b")]
    out = client_headers(theirs, 200, exchange.id, exchange.added, exchange.dropped)
    head = Head(200, out, False)
    for hook in exchange.route.hooks:
        hook.run(exchange, head)
    names = {b"server", b"etag", b"x-limit", b"via", b"x-request-id", b"access-control-allow-origin", b"vary", b"x-new"}
    assert {found for found, _ in head.headers} == names - {name}
    assert head.headers.count((b"x-new", b"1")) == 1


@pytest.mark.parametrize(
    ("path", "strip", "sent", "prefix"),
    [
        ("/api/v1/users", "/api/v1", "/users", b"/api/v1"),
        ("/api/v1/users/", "/api/v1", "/users/", b"/api/v1"),
        ("/api/v1", "/api/v1", "/", b"/api/v1"),
        ("/api/v1/", "/api/v1", "/", b"/api/v1"),
        ("/api/v1/a/b", "/api", "/v1/a/b", b"/api"),
        ("/%61pi/v1/a%20b", "/api", "/v1/a%20b", b"/%61pi"),
        ("/api/v1/a", None, "/api/v1/a", None),
    ],
)
def test_prefixes_are_cut_by_raw_segments(
    tmp_path: Path, path: str, strip: str | None, sent: str, prefix: bytes | None
) -> None:
    """The service gets the rest of the path, the query, and what was removed."""
    both = [{"path": pattern, "service": "main", "strip_prefix": strip} for pattern in ("/api/v1", "/api/v1/*")]
    made = Routed(tmp_path, *both)
    exchange = made.exchange(f"{path}?a=/b", (b"x-forwarded-prefix", b"/evil"))
    assert dict(made.sent(exchange)).get(b"x-forwarded-prefix") == prefix
    assert exchange.target == f"{sent}?a=/b".encode()


@pytest.mark.parametrize(
    ("rewritten", "target", "expected", "prefix"),
    [
        ("/v2/orders/{param.id}", "/orders/7/x?q=1", b"/v2/orders/7?q=1", None),
        ("/{param.rest}", "/orders/7/x/y?q=1", b"/x/y?q=1", b"/orders/7"),
        ("/{param.rest}", "/orders/7/", b"/", b"/orders/7"),
        ("/{param.id}/{param.rest}", "/orders/a%2eb/x%20y", b"/a%2eb/x%20y", b"/orders"),
        ("/fixed?{query}&id={param.id}", "/orders/7/x?q=1", b"/fixed?q=1&id=7", None),
        ("/fixed?", "/orders/7/x?q=1", b"/fixed?", None),
        ("/base{path}", "/orders/7/x", b"/base/orders/7/x", None),
        ("/{claims.umlaut}/{principal.id}", "/orders/7/x", b"/J%C3%B6rg/Ada%20Lovelace", None),
        ("/{claims.missing}", "/orders/7/x", None, None),
        ("/{claims.slash}", "/orders/7/x", None, None),
        ("/{claims.dots}", "/orders/7/x", None, None),
        ("/{param.id}{param.id}/x", "/orders/./x", None, None),
        ("/.{param.id}/x", "/orders/.;a/x", None, None),
        ("/{param.id}//{param.rest}", None, None, None),
    ],
)
def test_rewritten_paths(
    tmp_path: Path, rewritten: str, target: str | None, expected: bytes | None, prefix: bytes | None
) -> None:
    """The path is what is written, of the client's own bytes; one that the wire would refuse is 400."""
    if target is None:
        with pytest.raises(Exception, match="empty segment"):
            Routed(tmp_path, route(rewrite={"path": rewritten}))
        return
    made = Routed(tmp_path, route(rewrite={"path": rewritten}))
    exchange = made.exchange(target, principal=ADA)
    if expected is None:
        with pytest.raises(BadRequest):
            made.sent(exchange)
        return
    assert dict(made.sent(exchange)).get(b"x-forwarded-prefix") == prefix
    assert exchange.target == expected


@pytest.mark.parametrize(
    ("host", "target", "expected"),
    [
        ("orders.internal", "/orders/7/x", b"orders.internal"),
        ("orders.internal:8080", "/orders/7/x", b"orders.internal:8080"),
        ("{param.id}.internal", "/orders/a-b/x", b"a-b.internal"),
        ("{host}", "/orders/7/x", b"shop.example"),
        ("{param.id}.internal", "/orders/a%20b/x", None),
        ("{param.id}.internal", "/orders/a@b/x", None),
        ("{claims.slash}.internal", "/orders/7/x", None),
        ("{claims.missing}.internal", "/orders/7/x", None),
    ],
)
def test_rewritten_hosts(tmp_path: Path, host: str, target: str, expected: bytes | None) -> None:
    """The service is asked for this host; what does not become a host is 400."""
    made = Routed(tmp_path, route(rewrite={"host": host}))
    exchange = made.exchange(target, principal=ADA)
    if expected is None:
        with pytest.raises(BadRequest):
            made.sent(exchange)
    else:
        made.sent(exchange)
        assert exchange.authority == expected


def test_paths_that_a_route_keeps(tmp_path: Path) -> None:
    """What a route keeps in the client's path may be in the rewritten one; dots beside an encoded slash may not."""
    ruled = {"path": "/p/:id", "service": "main", "encoded_slashes": "keep", "rewrite": {"path": "/v2/.{param.id}"}}
    made = Routed(tmp_path, ruled)
    exchange = made.exchange("/p/a%2Fb")
    made.sent(exchange)
    assert exchange.target == b"/v2/.a%2Fb"
    with pytest.raises(BadRequest):
        made.sent(made.exchange("/p/%2Fb"))


def test_prefixes_of_trusted_proxies_come_first(tmp_path: Path) -> None:
    """Behind a trusted proxy that has removed a prefix, the service gets both as one."""
    ruled = {"path": "/api/*", "service": "main", "strip_prefix": "/api"}
    made = Routed(tmp_path, ruled, gateway={"trusted_proxies": ["192.0.2.0/24"]})
    sent = made.sent(made.exchange("/api/x", (b"x-forwarded-prefix", b"/outer")))
    assert [value for name, value in sent if name == b"x-forwarded-prefix"] == [b"/outer/api"]


def test_routes_without_rules_have_no_stage(tmp_path: Path) -> None:
    """A route that demands nothing pays nothing."""
    made = Routed(tmp_path, {"path": "/a", "service": "main"}, route(request_headers={"set": {"X-A": "a"}}))
    exchange = made.exchange("/a")
    assert (len(exchange.route.stages), exchange.route.hooks) == (2, ())
