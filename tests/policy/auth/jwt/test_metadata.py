"""Keys from the metadata of an issuer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet.defer import Deferred, ensureDeferred

from apigw.policy.auth.jwt.jwks import KeySet, Source
from apigw.policy.auth.jwt.metadata import BadMetadata, is_fetchable, keys_url, metadata_urls

from .test_jwks import Scene, document, jwk

ISSUER = "https://id.example/tenant"
OPENID = "https://id.example/tenant/.well-known/openid-configuration"
OAUTH = "https://id.example/.well-known/oauth-authorization-server/tenant"


class Web:
    """Answers by URL; everything else is a 404."""

    def __init__(self, **pages: object) -> None:
        self.pages: dict[str, object] = {}
        self.asked: list[str] = []

    async def fetch(self, url: str) -> tuple[bytes, dict[str, str]]:
        self.asked.append(url)
        if url not in self.pages:
            raise RuntimeError("answered with 404")
        page = self.pages[url]
        return page if isinstance(page, bytes) else json.dumps(page).encode(), {}


def found(web: Web, issuer: str = ISSUER) -> str:
    deferred: Deferred[str] = ensureDeferred(keys_url(issuer, web.fetch))
    results: list[Any] = []
    deferred.addBoth(results.append)
    if not isinstance(results[0], str):
        results[0].raiseException()
    return str(results[0])


@pytest.mark.parametrize(
    ("issuer", "openid", "oauth"),
    [
        (ISSUER, OPENID, OAUTH),
        (ISSUER + "/", OPENID, OAUTH),
        (
            "https://id.example",
            "https://id.example/.well-known/openid-configuration",
            "https://id.example/.well-known/oauth-authorization-server",
        ),
        (
            "https://id.example:8443/",
            "https://id.example:8443/.well-known/openid-configuration",
            "https://id.example:8443/.well-known/oauth-authorization-server",
        ),
    ],
)
def test_where_metadata_is(issuer: str, openid: str, oauth: str) -> None:
    """Behind the issuer's path for OpenID, before it for OAuth (RFC 8414 §3.1)."""
    assert metadata_urls(issuer) == (openid, oauth)


def test_metadata_of_openid_is_asked_for_first() -> None:
    """And the other only where there is none; keys may be on another host."""
    web, metadata = Web(), {"issuer": ISSUER, "jwks_uri": "https://keys.example/set", "more": [1]}
    web.pages[OAUTH] = metadata
    assert found(web) == "https://keys.example/set"
    assert web.asked == [OPENID, OAUTH]
    web.pages[OPENID] = {**metadata, "jwks_uri": "https://keys.example/other"}
    web.asked.clear()
    assert found(web) == "https://keys.example/other"
    assert web.asked == [OPENID]


GOOD = {"issuer": ISSUER, "jwks_uri": "https://keys.example/set"}
BAD: dict[str, tuple[object, str]] = {
    "another issuer": ({**GOOD, "issuer": "https://evil.example"}, "another issuer"),
    "the issuer with a slash": (
        {**GOOD, "issuer": ISSUER + "/"},
        f"it says '{ISSUER}/', and the configuration '{ISSUER}'",
    ),
    "the issuer in capitals": ({**GOOD, "issuer": ISSUER.upper()}, "another issuer"),
    "no issuer": ({"jwks_uri": "https://keys.example/set"}, "another issuer"),
    "the issuer in a list": ({**GOOD, "issuer": [ISSUER]}, "another issuer"),
    "a template for an issuer": ({**GOOD, "issuer": "https://id.example/{tenantid}"}, "another issuer"),
    "no jwks_uri": ({"issuer": ISSUER}, "no usable jwks_uri"),
    "jwks_uri without TLS": ({**GOOD, "jwks_uri": "http://keys.example/set"}, "no usable jwks_uri"),
    "jwks_uri is a file": ({**GOOD, "jwks_uri": "file:///etc/passwd"}, "no usable jwks_uri"),
    "jwks_uri is a list": ({**GOOD, "jwks_uri": ["https://keys.example"]}, "no usable jwks_uri"),
    "jwks_uri with a user": ({**GOOD, "jwks_uri": "https://a:b@keys.example/"}, "no usable jwks_uri"),
    "jwks_uri with CR LF": ({**GOOD, "jwks_uri": "https://keys.example/\r\nX: y"}, "no usable jwks_uri"),
    "jwks_uri without host": ({**GOOD, "jwks_uri": "https:///set"}, "no usable jwks_uri"),
    "jwks_uri with a bad port": ({**GOOD, "jwks_uri": "https://keys.example:99999/"}, "no usable jwks_uri"),
    "no JSON": (b"<html>", "not a JSON document"),
    "a list": ([GOOD], "not a JSON object"),
    "a name twice": (b'{"issuer": "a", "issuer": "b"}', "a name occurs twice"),
}


@pytest.mark.parametrize(("page", "sentence"), [pytest.param(*case, id=name) for name, case in BAD.items()])
def test_other_metadata_is_refused(page: object, sentence: str) -> None:
    """Whoever answers for an issuer would otherwise speak for another, or have keys read from anywhere."""
    web = Web()
    web.pages[OPENID] = page
    with pytest.raises(BadMetadata, match=sentence):
        found(web)


def test_an_issuer_without_metadata_is_told_with_both_places() -> None:
    """So that an operator sees what was tried."""
    with pytest.raises(BadMetadata, match=r"openid-configuration: answered with 404; .*authorization-server: answered"):
        found(Web())


def test_only_an_issuer_without_tls_may_have_keys_without() -> None:
    """As on one's own machine."""
    assert is_fetchable("http://127.0.0.1/set", "http://127.0.0.1")
    assert not is_fetchable("http://127.0.0.1/set", "https://127.0.0.1")


def test_keys_are_fetched_where_the_metadata_says() -> None:
    """And where it says something else later, there."""
    scene, web = Scene(), Web()
    web.pages[OPENID] = GOOD
    web.pages["https://keys.example/set"] = document(jwk("a"))
    keys = KeySet(Source(ISSUER, openid=True), web.fetch, scene.clock)
    keys.start()
    assert [key.id for key in keys.keys or ()] == ["a"]
    web.pages[OPENID] = {**GOOD, "jwks_uri": "https://keys.example/next"}
    web.pages["https://keys.example/next"] = document(jwk("b"))
    scene.clock.advance(480)
    assert [key.id for key in keys.keys or ()] == ["b"]
    keys.stop()
