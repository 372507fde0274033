"""Redirects of routes, and of plain requests to https."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from support.pem import private_pem, self_signed
from support.routed import Routed

from apigw.config.errors import ConfigError
from apigw.contract.exchange import Answer
from apigw.contract.principal import Principal
from apigw.errors import BadRequest

TLS = {"endpoint": "tcp:8443", "tls": {"certificates": [{"cert_file": "a.pem", "key_file": "a.key"}]}}


def location(answer: Answer) -> tuple[int, bytes]:
    assert (b"content-length", b"0") in answer.headers
    return answer.status, dict(answer.headers)[b"location"]


@pytest.mark.parametrize(
    ("path", "to", "target", "expected"),
    [
        ("/a", "/b", "/a?x=1", b"/b?x=1"),
        ("/a", "/b?", "/a?x=1", b"/b?"),
        ("/a", "/b?y={query}#top", "/a?x=1", b"/b?y=x=1#top"),
        ("/a", "/b#top", "/a?x=1", b"/b?x=1#top"),
        ("/old/*", "https://new.example.com/{param.rest}", "/old/a/b?x", b"https://new.example.com/a/b?x"),
        ("/*", "https://new.example.com{path}", "/a%20b/", b"https://new.example.com/a%20b/"),
        ("/*", "https://new.example.com:8443", "/a?x", b"https://new.example.com:8443?x"),
        ("/*", "https://{host}/x{path}", "/a", b"https://shop.example/x/a"),
        ("/*", "http://{host}:81{path}", "/a", b"http://shop.example:81/a"),
        ("/:tenant/*", "https://{param.tenant}.example.com/{param.rest}", "/acme/x", b"https://acme.example.com/x"),
        ("/:tenant/*", "https://{param.tenant}.example.com/{param.rest}", "/a@b/x", None),
        ("/:tenant/*", "https://{param.tenant}.example.com/{param.rest}", "/a%3A1/x", None),
        ("/x/*", "/{param.rest}", "/x//evil.example/", None),
        ("/x", "/{query}", "/x?/evil.example", None),
        ("/x", "/{query}", "/x?\\evil.example", None),
        ("/*", "/me/{principal.id}", "/a", b"/me/Ada%20Lovelace"),
        ("/*", "/me/{claims.missing}", "/a", None),
    ],
)
def test_where_requests_are_redirected(tmp_path: Path, path: str, to: str, target: str, expected: bytes | None) -> None:
    """The URL is what is written, of the client's own bytes, with its query; no client chooses the host."""
    made = Routed(tmp_path, {"path": path, "redirect": {"to": to}})
    exchange = made.exchange(target, principal=Principal("main", "Ada Lovelace"))
    if expected is None:
        with pytest.raises(BadRequest):
            made.answer(exchange)
    else:
        assert location(made.answer(exchange)) == (302, expected)


def test_redirects_come_after_what_the_route_demands(tmp_path: Path) -> None:
    """The redirect is the last of the stages; rules for answers apply to it."""
    route = {
        "path": "/a",
        "redirect": {"to": "/b", "status": 308},
        "cors": {"origins": ["https://a.example"]},
        "response_headers": {"set": {"X-A": "a"}},
    }
    made = Routed(tmp_path, route, rate_limits=[{"endpoint": "/a", "limit": 1, "window": "1m", "scope": "endpoint"}])
    exchange = made.exchange("/a")
    assert [type(stage).__name__ for stage in exchange.route.stages][-1] == "Redirected"
    assert len(exchange.route.stages) == 3
    assert exchange.route.service is None
    answer = made.answer(exchange)
    assert location(answer) == (308, b"/b")
    assert made.answered(exchange, *answer.headers, own=True)[-1] == (b"x-a", b"a")


@pytest.mark.parametrize(
    ("setting", "secure", "proto", "expected"),
    [
        (True, False, None, b"https://shop.example/a?x=1"),
        ({"port": 8443}, False, None, b"https://shop.example:8443/a?x=1"),
        ({"port": 443}, False, b"http", b"https://shop.example/a?x=1"),
        (True, True, None, None),
        (True, False, b"https", None),
        (True, False, b"HTTPS, http", None),
        (False, False, None, None),
    ],
)
def test_plain_requests(
    tmp_path: Path, setting: Any, secure: bool, proto: bytes | None, expected: bytes | None
) -> None:
    """They are redirected on every route and without one, unless a trusted proxy got them by TLS."""
    gateway = {"https_redirect": setting, "trusted_proxies": ["192.0.2.1/32"]}
    made = Routed(tmp_path, {"path": "/a", "service": "main"}, {"path": "/b", "respond": {}}, gateway=gateway)
    headers = [] if proto is None else [(b"x-forwarded-proto", proto)]
    exchange = made.exchange("/a?x=1", *headers, secure=secure)
    if expected is None:
        assert made.walked(exchange) is None
        return
    assert location(made.answer(exchange)) == (308, expected)
    for path in ("/b", "/none"):
        assert location(made.answer(made.exchange(path, secure=secure)))[0] == 308
    with pytest.raises(BadRequest):
        made.answer(made.exchange("/a", host=b""))


@pytest.mark.parametrize("host", [b"[2001:db8::1]:8080", b"[2001:db8::1]"])
def test_hosts_that_are_addresses(tmp_path: Path, host: bytes) -> None:
    """An IPv6 address is a host, and what follows its bracket the port."""
    gateway = {"https_redirect": True, "trusted_proxies": ["10.0.0.0/8"]}
    made = Routed(tmp_path, {"path": "/a", "service": "main"}, gateway=gateway)
    assert location(made.answer(made.exchange("/a", host=host))) == (308, b"https://[2001:db8::1]/a")


@pytest.fixture(scope="module")
def key() -> dict[str, bytes]:
    made = ec.generate_private_key(ec.SECP256R1())
    return {"a.pem": self_signed(made, "gateway.example.com"), "a.key": private_pem(made)}


@pytest.mark.parametrize(
    ("route", "listen", "loops"),
    [
        ({"path": "/a", "redirect": {"to": "/a"}}, None, True),
        ({"path": "/a", "redirect": {"to": "/a?x=1"}}, None, True),
        ({"path": "/*", "redirect": {"to": "{path}"}}, None, True),
        ({"path": "/a/:b/*", "redirect": {"to": "/a/{param.b}/{param.rest}"}}, None, True),
        ({"path": ["/a", "/b"], "redirect": {"to": "/b"}}, None, True),
        ({"path": "/*", "redirect": {"to": "https://{host}{path}"}}, [TLS], True),
        ({"path": "/*", "redirect": {"to": "http://{host}{path}"}}, None, True),
        ({"path": "/*", "redirect": {"to": "https://{host}{path}"}}, None, False),
        ({"path": "/*", "redirect": {"to": "https://{host}{path}"}}, ["tcp:8080", TLS], False),
        ({"path": "/*", "redirect": {"to": "/new"}}, None, False),
        ({"path": "/a", "methods": ["POST"], "redirect": {"to": "/a", "status": 303}}, None, False),
        ({"path": "/a", "methods": ["POST"], "redirect": {"to": "/a", "status": 307}}, None, True),
        ({"path": "/:a/:b", "redirect": {"to": "/{param.b}/{param.a}"}}, None, False),
    ],
)
def test_redirects_onto_themselves(
    tmp_path: Path, key: dict[str, bytes], route: dict[str, Any], listen: Any, loops: bool
) -> None:
    """Where it is certain that a browser would go round in circles, it is an error."""
    for name, content in key.items():
        (tmp_path / name).write_bytes(content)
    gateway = {} if listen is None else {"listen": listen}
    if loops:
        with pytest.raises(ConfigError, match="is where the redirect comes from"):
            Routed(tmp_path, route, gateway=gateway)
    else:
        Routed(tmp_path, route, gateway=gateway)
