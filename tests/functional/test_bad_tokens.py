"""Bad tokens over HTTP, one of each kind: each is refused, and told why. The whole table is the verifier's."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from support.client import Client
from support.guarded import GATEWAY, REALM, Guarded, identity
from support.services import Service
from support.tokens import Provider, bearer, claims, encode

from .conftest import Get


@pytest.fixture(scope="module")
def provider(guarded: Guarded) -> Provider:
    return guarded.provider


# Bad tokens. Each: what the answer says of it, and how it is made from a good provider and a stranger with its name.

NOW = int(time.time())
Make = Callable[[Provider, Provider], str]


def with_claim(**changes: Any) -> Make:
    return lambda provider, _: provider.token(**changes)


BAD = {
    "expired": ("has expired", with_claim(exp=NOW - 31)),
    "somebody else's key": ("signature", lambda _, s: s.token()),
    "alg none": ("algorithm", lambda p, _: f"{encode({'alg': 'none'})}.{encode(claims(p.issuer))}."),
    "huge": ("larger", with_claim(x="x" * 9000)),
    "payload deep": ("well-formed", lambda p, _: p.token(payload=b"[" * 5000)),
    "sub with a line break": ("name its user", with_claim(sub="alice\r\nX-User-Roles: admin")),
    "the gateway's issuer": ("not an access token", with_claim(iss=GATEWAY)),
}  # fmt: skip


@pytest.mark.parametrize(("says", "make"), [pytest.param(*case, id=name) for name, case in BAD.items()])
def test_a_bad_token_is_refused(get: Get, guarded: Guarded, says: str, make: Make) -> None:
    """A bad token is 401, and the challenge says what is wrong with it."""
    answer = get("/api/a", make(guarded.provider, guarded.stranger))
    assert (answer.status, answer.code) == (401, "unauthorized")
    challenge = answer.get("www-authenticate") or ""
    assert challenge.startswith(f'{REALM}, error="invalid_token", error_description="')
    assert says in challenge
    assert says in answer.json["detail"]


def test_refusals_are_counted_by_their_reason(get: Get, guarded: Guarded) -> None:
    """Each refusal counts under its reason."""
    get("/api/a", guarded.provider.token(exp=1))
    get("/api/a")
    with Client(guarded.daemon.admin) as client:
        metrics = client.get("/metrics").body.decode()
    reasons = set(re.findall(r'^gateway_auth_failures_total\{reason="(\w+)"\} [1-9]', metrics, re.MULTILINE))
    assert reasons >= {"expired", "missing"}


def test_a_token_larger_than_a_header_may_be(get: Get, provider: Provider) -> None:
    """A token that is larger than a header may be is refused as any such header."""
    assert get("/api/a", provider.token(x="x" * 40_000)).code == "headers_too_large"


def test_several_authorization_headers(get: Get, service: Service, provider: Provider) -> None:
    """More than one Authorization field is 401."""
    good, other = provider.token(), provider.token(sub="root")
    for second in (bearer(other), bearer(good), "Authorization: Basic YTpi", "authorization:"):
        for path in ("/api/a", "/optional/a"):
            answer = get(path, good, second)
            assert (answer.status, answer.code) == (401, "unauthorized")
            assert 'error="invalid_request"' in (answer.get("www-authenticate") or "")


def test_a_token_in_the_query_is_none(get: Get, service: Service, provider: Provider, guarded: Guarded) -> None:
    """A token in the query counts for nothing."""
    token = guarded.told(provider.token())
    for name in ("access_token", "token", "jwt"):
        assert get(f"/api/a?{name}={token}").get("www-authenticate") == REALM
    assert get("/optional/a?access_token=" + token).status == 200
    assert identity(service) == {}
