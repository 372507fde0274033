"""Every way in which a token can be bad, over HTTP: each is refused, and told why."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from support.client import Client
from support.guarded import GATEWAY, HS_ISSUER, REALM, Guarded, identity
from support.services import Service
from support.tokens import Provider, bearer, claims, encode, hs256

from .conftest import Get


@pytest.fixture(scope="module")
def provider(guarded: Guarded) -> Provider:
    return guarded.provider


# Bad tokens. Each: what the answer says of it, and how it is made from a good provider and a stranger with its name.

NOW = int(time.time())
ENDLESS = b'{"iss": "https://id.example", "aud": "orders", "sub": "alice", "exp": 1e999}'
Make = Callable[[Provider, Provider], str]


def tampered(token: str, part: int, **changes: Any) -> str:
    parts = token.split(".")
    parts[part] = encode(claims("https://id.example", sub="root")) if part == 1 else encode({"alg": "RS256", **changes})
    return ".".join(parts)


def by_secret(secret: Callable[[Provider], bytes], issuer: str = HS_ISSUER) -> Make:
    return lambda provider, _: hs256(secret(provider), issuer, {"kid": "main"})


def embedded(**header: Any) -> Make:
    """Signed by the stranger, who sends the key along."""
    return lambda _, stranger: stranger.token({"jwk": stranger.jwk, **header})


def duplicated(provider: Provider, _: Provider) -> str:
    good = json.dumps(claims(provider.issuer))
    return provider.token(payload=f'{good[:-1]}, "sub": "root"}}'.encode())


def with_claim(**changes: Any) -> Make:
    return lambda provider, _: provider.token(**changes)


def with_header(**header: Any) -> Make:
    return lambda provider, _: provider.token(header)


def es256(signature: bytes) -> Make:
    head = {"alg": "ES256", "typ": "JWT", "kid": "main"}
    return lambda provider, _: f"{encode(head)}.{encode(claims(provider.issuer))}.{encode(signature)}"


def unsigned(algorithm: str) -> Make:
    return lambda provider, _: f"{encode({'alg': algorithm})}.{encode(claims(provider.issuer))}."


DEEP = b'{"alg":"RS256","x":' + b"[" * 977 + b"]" * 977 + b"}"
BAD = {
    "expired": ("has expired", with_claim(exp=NOW - 31)),
    "not yet valid": ("not valid yet", with_claim(nbf=NOW + 600)),
    "issued in the future": ("issued in the future", with_claim(iat=NOW + 600)),
    "no expiry": ("no expiry", with_claim(exp=...)),
    "tampered header": ("signature", lambda p, _: tampered(p.token(), 0, kid="main", typ="JWT", x=1)),
    "tampered payload": ("signature", lambda p, _: tampered(p.token(), 1)),
    "tampered signature": ("signature", lambda p, _: p.token()[:-8] + "AAAAAAAA"),
    "no signature": ("signature", lambda p, _: p.token().rpartition(".")[0] + "."),
    "two parts": ("well-formed", lambda p, _: p.token().rpartition(".")[0]),
    "four parts": ("well-formed", lambda p, _: p.token() + ".AAAA"),
    "padded": ("well-formed", lambda p, _: p.token() + "=="),
    "the other base64": ("well-formed", lambda p, _: p.token()[:-1] + "+"),
    "somebody else's key": ("signature", lambda _, s: s.token()),
    "alg none": ("algorithm", unsigned("none")),
    "alg None": ("algorithm", unsigned("None")),
    "alg RS512": ("algorithm", with_header(alg="RS512")),
    "no alg": ("algorithm", with_header(alg="")),
    "alg is no string": ("well-formed", with_header(alg=["RS256"])),
    "public key as secret": ("signature", by_secret(lambda p: p.public_pem)),
    "public key as secret, stripped": ("signature", by_secret(lambda p: p.public_pem.strip())),
    "public key as secret, its issuer": ("issuer", by_secret(lambda p: p.public_pem, "https://id.example")),
    "empty secret": ("signature", by_secret(lambda _: b"")),
    "embedded jwk": ("signature", embedded()),
    "embedded jwk, unknown kid": ("no key", embedded(kid="mine")),
    "jku": ("signature", embedded(jku="http://127.0.0.1:1/jwks.json")),
    "x5u": ("signature", embedded(x5u="http://127.0.0.1:1/cert.pem")),
    "x5c": ("signature", embedded(x5c=["AAAA"])),
    "kid with a path": ("no key", with_header(kid="../../../../dev/null")),
    "kid with SQL": ("no key", with_header(kid="' OR 1=1; --")),
    "kid is a number": ("well-formed", with_header(kid=7)),
    "kid of 10 KB": ("larger", with_header(kid="k" * 10_000)),
    "unknown crit": ("extension", with_header(crit=["exp2"], exp2=1)),
    "empty crit": ("extension", with_header(crit=[])),
    "b64 false": ("extension", with_header(b64=False)),
    "b64 false, crit": ("extension", with_header(b64=False, crit=["b64"])),
    "duplicate claims": ("twice", duplicated),
    "blank ES256 signature": ("algorithm", es256(bytes(64))),
    "empty ES256 signature": ("algorithm", es256(b"")),
    "huge": ("larger", with_claim(x="x" * 9000)),
    "payload is no JSON": ("well-formed", lambda p, _: p.token(payload=b"hello")),
    "payload is a list": ("well-formed", lambda p, _: p.token(payload=[1])),
    "payload is not UTF-8": ("well-formed", lambda p, _: p.token(payload=b'{"sub": "\xff"}')),
    "payload with NaN": ("well-formed", lambda p, _: p.token(payload=b'{"exp": NaN}')),
    "payload deep": ("well-formed", lambda p, _: p.token(payload=b"[" * 5000)),
    "header deep": ("well-formed", lambda p, _: f"{encode(DEEP)}.{p.token().partition('.')[2]}"),
    "header is no JSON": ("well-formed", lambda p, _: "AAAA." + p.token().partition(".")[2]),
    "no token": ("well-formed", lambda p, _: "hello"),
    "exp is a string": ("number", with_claim(exp=str(NOW + 600))),
    "exp is true": ("number", with_claim(exp=True)),
    "exp is null": ("number", with_claim(exp=None)),
    "exp is a list": ("number", with_claim(exp=[NOW + 600])),
    "exp in milliseconds": ("number", with_claim(exp=NOW * 1000)),
    "exp is endless": ("number", lambda p, _: p.token(payload=ENDLESS)),
    "nbf is a string": ("number", with_claim(nbf="0")),
    "iat is a string": ("number", with_claim(iat="0")),
    "iat is negative": ("number", with_claim(iat=-1)),
    "iss is a list": ("issuer", with_claim(iss=["https://id.example"])),
    "sub is missing": ("name its user", with_claim(sub=...)),
    "sub is a number": ("must be a string", with_claim(sub=7)),
    "sub is a list": ("must be a string", with_claim(sub=["alice"])),
    "sub is empty": ("name its user", with_claim(sub="")),
    "sub with a line break": ("name its user", with_claim(sub="alice\r\nX-User-Roles: admin")),
    "sub with NUL": ("name its user", with_claim(sub="alice\0")),
    "jti is a number": ("must be a string", with_claim(jti=7)),
    "roles are a string": ("roles", with_claim(realm_access={"roles": "admin"})),
    "roles are numbers": ("roles", with_claim(realm_access={"roles": [1]})),
    "a role with a comma": ("roles", with_claim(realm_access={"roles": ["user,admin"]})),
    "a role with a line break": ("roles", with_claim(realm_access={"roles": ["a\nb"]})),
    "realm_access is a string": ("roles", with_claim(realm_access="admin")),
    "scope is a number": ("scopes", with_claim(scope=7)),
    "aud is a number": ("audience", with_claim(aud=7)),
    "aud holds a number": ("audience", with_claim(aud=["orders", 7])),
    "another audience": ("another audience", with_claim(aud=["billing"])),
    "no audience": ("another audience", with_claim(aud=...)),
    "another issuer": ("another issuer", with_claim(iss="https://evil.example")),
    "no issuer": ("another issuer", with_claim(iss=...)),
    "the gateway's issuer": ("not an access token", with_claim(iss=GATEWAY)),
    "the gateway's issuer and type": ("no key", lambda p, _: p.token({"typ": "at+jwt"}, iss=GATEWAY)),
    "the gateway's key id": ("signature", lambda p, _: p.token({"typ": "at+jwt", "kid": "k1"}, iss=GATEWAY)),
}  # fmt: skip


@pytest.mark.parametrize(("says", "make"), [pytest.param(*case, id=name) for name, case in BAD.items()])
def test_a_bad_token_is_refused(get: Get, guarded: Guarded, says: str, make: Make) -> None:
    """Somebody gets in with a token that is none, or is not told why it does not work."""
    answer = get("/api/a", make(guarded.provider, guarded.stranger))
    assert (answer.status, answer.code) == (401, "unauthorized")
    challenge = answer.get("www-authenticate") or ""
    assert challenge.startswith(f'{REALM}, error="invalid_token", error_description="')
    assert says in challenge
    assert says in answer.json["detail"]


def test_refusals_are_counted_by_their_reason(get: Get, guarded: Guarded) -> None:
    """Operators cannot tell an attack from a clock that is wrong."""
    get("/api/a", guarded.provider.token(exp=1))
    get("/api/a")
    with Client(guarded.daemon.admin) as client:
        metrics = client.get("/metrics").body.decode()
    reasons = set(re.findall(r'^gateway_auth_failures_total\{reason="(\w+)"\} [1-9]', metrics, re.MULTILINE))
    assert reasons >= {"expired", "missing"}


def test_tokens_that_only_just_hold(get: Get, provider: Provider) -> None:
    """Clocks a few seconds apart turn people away."""
    now = int(time.time())
    assert get("/api/a", provider.token(exp=now - 15)).status == 200
    assert get("/api/a", provider.token(nbf=now + 15, iat=now + 15)).status == 200


def test_a_token_larger_than_a_header_may_be(get: Get, provider: Provider) -> None:
    """A huge token ends in something else than an answer."""
    assert get("/api/a", provider.token(x="x" * 40_000)).code == "headers_too_large"


def test_several_authorization_headers(get: Get, service: Service, provider: Provider) -> None:
    """The gateway verifies one token, and the service reads another."""
    good, other = provider.token(), provider.token(sub="root")
    for second in (bearer(other), bearer(good), "Authorization: Basic YTpi", "authorization:"):
        for path in ("/api/a", "/optional/a"):
            answer = get(path, good, second)
            assert (answer.status, answer.code) == (401, "unauthorized")
            assert 'error="invalid_request"' in (answer.get("www-authenticate") or "")


def test_a_token_in_the_query_is_none(get: Get, service: Service, provider: Provider, guarded: Guarded) -> None:
    """Tokens are taken from where they end up in histories and logs."""
    token = guarded.told(provider.token())
    for name in ("access_token", "token", "jwt"):
        assert get(f"/api/a?{name}={token}").get("www-authenticate") == REALM
    assert get("/optional/a?access_token=" + token).status == 200
    assert identity(service) == {}
