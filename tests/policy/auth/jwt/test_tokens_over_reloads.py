"""Verified tokens over a reload: which are still known, and which are verified anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from apigw.config.model import Config, Secret
from apigw.contract.principal import Principal
from apigw.errors import Unauthorized
from apigw.policy.auth.jwt.keys import Key
from apigw.policy.auth.jwt.model import JWTVerifier
from apigw.policy.auth.jwt.tokens import Tokens
from apigw.policy.auth.model import Auth, AuthSection
from apigw.policy.oauth.model import AcceptedKey, OAuth, OAuthSigning
from apigw.policy.oauth.signing import load_signer, own_tokens

from ..test_policy import Scene
from .test_jwks import Scene as Fetched
from .test_jwt import HS, NOW, SECRET, claims, directory, hs256, jwk, rs, rs256, sign

__all__ = ["directory"]  # the fixture

OTHER_SECRET = SECRET[::-1]
OTHER = JWTVerifier("other", "HS256", secret=Secret(OTHER_SECRET), issuer="https://other")
ITS_TOKEN = sign({"alg": "HS256"}, claims(iss="https://other"), OTHER_SECRET)


def ask(authenticator: Tokens, token: bytes, now: float = NOW) -> str:
    """The caller's id, or the reason of the refusal."""
    try:
        principal = authenticator.authenticate([b"Bearer " + token], now)
    except Unauthorized as error:
        assert error.reason is not None
        return error.reason
    assert isinstance(principal, Principal)
    return principal.id


def reloaded(previous: Tokens, *verifiers: JWTVerifier) -> Tokens:
    newer = Tokens(Auth(verifiers))
    newer.take_over(previous)
    return newer


def test_tokens_of_verifiers_that_stay_are_still_known(directory: Path, tried: list[Key]) -> None:
    """Wherever they stand, whoever else came or went, and with all bounds of the cache."""
    key_set = rs(directory, name="set", public_key_file=None, jwks_file=str(directory / "set.json"), issuer="https://s")
    tokens = [hs256(), rs256(claims()), rs256(claims(iss="https://s"), 1, kid="b"), ITS_TOKEN]
    before = Tokens(Auth((HS, rs(directory), key_set, OTHER)))
    assert [ask(before, token) for token in tokens] == ["alice"] * 4
    tried.clear()
    after = reloaded(before, key_set, rs(directory), HS)
    assert [ask(after, token) for token in tokens[:3]] == ["alice"] * 3
    assert not tried
    assert ask(after, ITS_TOKEN) == "issuer"
    assert after._seen_bytes == sum(map(len, after._seen))
    assert ask(after, tokens[0], NOW + 330) == "expired"


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        ({"secret": Secret(OTHER_SECRET)}, "signature"),
        ({"issuer": "https://elsewhere"}, "issuer"),
        ({"audience": ("billing",)}, "audience"),
        ({"leeway": 1.0}, "expired"),
        ({"user_claim": "email"}, "a@example.com"),
        ({"roles_claim": "aud"}, "alice"),
        ({"key_id": "k1"}, "alice"),
        ({"name": "renamed"}, "alice"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_verifier_that_changed_looks_at_its_tokens_again(
    change: dict[str, Any], answer: str, tried: list[Key]
) -> None:
    """Whatever changed: what it says of them, and whether it takes them, is what is configured now."""
    token = sign({"alg": "HS256", "kid": "k1"}, claims(exp=NOW - 5, email="a@example.com"))
    before = Tokens(Auth((HS, OTHER)))
    assert ask(before, token) == ask(before, ITS_TOKEN) == "alice"
    after = reloaded(before, evolve(HS, **change), OTHER)
    tried.clear()
    assert ask(after, ITS_TOKEN) == "alice"
    assert not tried
    assert ask(after, token) == answer
    if answer == "alice":
        assert len(tried) == 1
        known = after.remembered([b"Bearer " + token], NOW)
        assert known is not None
        assert known.provider == change.get("name", "hs")


@pytest.mark.parametrize("name", ["key.pem", "keys.json"])
def test_a_file_with_another_key_in_it_is_another_verifier(directory: Path, tmp_path: Path, name: str) -> None:
    """A key is taken out because it leaked: its tokens are refused, although the configuration reads the same."""
    file, pem = tmp_path / name, (directory / "public.pem").read_bytes()
    first, second = pem, (directory / "next.pem").read_bytes()
    verifier = rs(directory, public_key_file=str(file))
    if name == "keys.json":
        first, second = (json.dumps({"keys": [jwk(number, kid="k")]}).encode() for number in (0, 1))
        verifier = rs(directory, public_key_file=None, jwks_file=str(file))
    file.write_bytes(first)
    before = Tokens(Auth((verifier,)))
    assert ask(before, rs256(claims(), kid="k")) == "alice"
    file.write_bytes(second)
    assert ask(reloaded(before, verifier), rs256(claims(), kid="k")) == "signature"


def test_tokens_of_a_fetched_set_are_known_as_long_as_their_key_is_in_it(tried: list[Key]) -> None:
    """Over a reload, and when the key leaves the set after one."""
    scene = Fetched("a", "b")
    scene.keys.start()
    gone, kept = scene.token("a"), scene.token("b")
    assert scene.ask(gone) == scene.ask(kept) == ["alice"]
    newer = scene.reloaded()
    newer.take_over(scene.authenticator)
    scene.authenticator = newer
    tried.clear()
    assert scene.ask(gone) == scene.ask(kept) == ["alice"]
    assert not tried
    scene.server.keys = ("b",)
    scene.clock.advance(480)
    assert scene.ask(gone) == [Unauthorized]
    assert scene.ask(kept) == ["alice"]


def test_the_gateways_own_tokens_are_known_while_key_issuer_and_audience_stay(tried: list[Key]) -> None:
    """A key that is accepted besides makes it another verifier."""
    signing = OAuthSigning("HS256", "k1", secret=Secret(SECRET))
    oauth = OAuth(signing, "https://gateway")

    def using(oauth: OAuth) -> Tokens:
        return Tokens(Auth(), own=own_tokens(oauth, load_signer(oauth.signing)))

    token = load_signer(signing).sign({**claims(), "iss": "https://gateway", "aud": "https://gateway"}).encode()
    authenticator = using(oauth)
    assert ask(authenticator, token) == "alice"
    accepted = (AcceptedKey("k2", secret=Secret(OTHER_SECRET)),)
    for changed, tries in [(oauth, 0), (evolve(oauth, signing=evolve(signing, accepted=accepted)), 1), (oauth, 1)]:
        newer = using(changed)
        newer.take_over(authenticator)
        authenticator = newer
        tried.clear()
        assert ask(authenticator, token) == "alice"
        assert len(tried) == tries
    newer = using(evolve(oauth, audience=("elsewhere",)))
    newer.take_over(authenticator)
    assert ask(newer, token) == "audience"


def test_what_is_verified_for_a_request_that_began_before_is_not_known_after() -> None:
    """It was verified by rules that are no longer in force."""
    before = Tokens(Auth((HS,)))
    after = reloaded(before, evolve(HS, audience=("billing",)))
    assert ask(before, hs256(aud="orders")) == "alice"
    assert ask(after, hs256(aud="orders")) == "audience"


def test_the_policy_takes_them_over(tried: list[Key]) -> None:
    """From the configuration that was in use; the same one once more changes nothing."""
    scene = Scene()
    for verifiers in [(HS,), (HS, OTHER)]:
        prepared = scene.prepare(Config(added=(AuthSection(Auth(verifiers)),)))
        prepared.adopt(scene.prepared)
        prepared.adopt(prepared)
        scene.prepared = prepared
        assert prepared._authenticator is not None
        (method,) = prepared._authenticator.methods
        assert isinstance(method, Tokens)
        assert ask(method, hs256()) == "alice"
    assert len(tried) == 1
