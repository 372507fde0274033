"""Bearer tokens: which are taken, for whom, and why each bad one is refused."""

from __future__ import annotations

import hmac
import json
import logging
from base64 import urlsafe_b64encode
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_curve_key
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
)
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey
from joserfc.util import urlsafe_b64decode
from support.pem import private_pem, public_pem

from apigw.config.errors import ConfigError
from apigw.config.model import Origin, Secret
from apigw.contract.principal import Principal
from apigw.errors import Forbidden, Unauthorized
from apigw.policy.auth.authorization import Demands
from apigw.policy.auth.jwt import tokens as tokens_module
from apigw.policy.auth.jwt.claims import allowed
from apigw.policy.auth.jwt.model import JWTVerifier
from apigw.policy.auth.jwt.tokens import Tokens, decoded
from apigw.policy.auth.model import Auth
from apigw.policy.auth.stage import missing
from apigw.policy.oauth.model import AcceptedKey, OAuth, OAuthSigning
from apigw.policy.oauth.signing import load_signer, own_tokens

NOW = 1_800_000_000.0
SMALL = -1
SECRET = b"0123456789abcdef0123456789abcdef"


@cache
def rsa(number: int) -> RSAPrivateKey:
    return generate_private_key(public_exponent=65537, key_size=1024 if number == SMALL else 2048)


def jwk(number: int = 0, **members: Any) -> dict[str, Any]:
    return {**RSAKey.import_key(rsa(number)).as_dict(private=False), **members}


def claims(**changes: Any) -> dict[str, Any]:
    """Good claims with some changed; ``...`` takes one away."""
    all_claims = {
        "iss": "https://id",
        "aud": ["orders"],
        "sub": "alice",
        "roles": ["user"],
        "iat": NOW,
        "exp": NOW + 300,
    }
    return {name: value for name, value in {**all_claims, **changes}.items() if value is not ...}


def encode(part: object) -> bytes:
    raw = part if isinstance(part, bytes) else json.dumps(part).encode()
    return urlsafe_b64encode(raw).rstrip(b"=")


def sign(header: object, payload: object, secret: bytes = SECRET) -> bytes:
    """An HS256 token of whatever header and payload, well-formed or not."""
    signed = encode(header) + b"." + encode(payload)
    return signed + b"." + encode(hmac.digest(secret, signed, "sha256"))


def rs256(payload: dict[str, Any], key: int = 0, **header: Any) -> bytes:
    signed = encode({"alg": "RS256", **header}) + b"." + encode(payload)
    return signed + b"." + encode(rsa(key).sign(signed, PKCS1v15(), SHA256()))


def hs256(**changes: Any) -> bytes:
    return sign({"alg": "HS256"}, claims(**changes))


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("keys")
    curve = generate_curve_key(SECP256R1())
    files = {
        "public": public_pem(rsa(0)),
        "private": private_pem(rsa(0)),
        "next": public_pem(rsa(1)),
        "curve": private_pem(curve),
        "curve-public": public_pem(curve),
        "locked": private_pem(rsa(0), BestAvailableEncryption(b"passphrase")),
        "small": public_pem(rsa(SMALL)),
    }
    for name, pem in files.items():
        (directory / f"{name}.pem").write_bytes(pem)
    (directory / "junk.pem").write_bytes(b"junk")
    (directory / "set.json").write_text(json.dumps({"keys": [jwk(0, kid="a"), jwk(1, kid="b"), jwk(2)]}))
    (directory / "empty.json").write_text('{"keys": []}')
    return directory


HS = JWTVerifier("hs", "HS256", secret=Secret(SECRET), issuer="https://id", audience=("orders", "billing"))


def rs(directory: Path, **changes: Any) -> JWTVerifier:
    verifier = JWTVerifier("rs", "RS256", public_key_file=str(directory / "public.pem"), issuer="https://id")
    return evolve(verifier, **changes)


def using(*verifiers: JWTVerifier) -> Tokens:
    return Tokens(Auth(verifiers))


def accept(authenticator: Tokens, token: bytes, now: float = NOW) -> Principal:
    principal = authenticator.authenticate([b"Bearer " + token], now)
    assert isinstance(principal, Principal)
    return principal


def refuse(authenticator: Tokens, token: bytes, now: float = NOW) -> Unauthorized:
    with pytest.raises(Unauthorized) as caught:
        authenticator.authenticate([b"Bearer " + token], now)
    return caught.value


def test_a_good_token_says_who_calls(directory: Path) -> None:
    """A service sees another user, other roles or another provider than the token says."""
    principal = accept(
        using(HS, rs(directory)), rs256(claims(roles=["user", "admin"], scope="orders.read orders.write"))
    )
    assert (principal.provider, principal.id, principal.roles) == ("rs", "alice", ("user", "admin"))
    assert principal.scopes == {"orders.read", "orders.write"}
    assert principal.fields == [
        (b"x-user-id", b"alice"),
        (b"x-user-roles", b"user,admin"),
        (b"x-auth-provider", b"rs"),
    ]


@pytest.mark.parametrize("authorization", [[], [b"Basic YTpi"], [b""], [b"Token abc"], [b"Bearerabc.def.ghi"]])
def test_no_token_is_nobody(authorization: list[bytes]) -> None:
    """An optional route refuses those who bring no token."""
    assert using(HS).authenticate(authorization, NOW) is None
    error = missing([using(HS).challenge(None)])
    assert error.headers == [(b"www-authenticate", b'Bearer realm="apigw"')]
    assert error.reason == "missing"


@pytest.mark.parametrize("prefix", [b"bearer ", b"BEARER ", b"Bearer  ", b"bEaReR   "])
def test_the_scheme_is_spelled_in_any_case(prefix: bytes) -> None:
    """A client that writes ``bearer`` is turned away, or fills the cache once for each spelling."""
    authenticator = using(HS)
    token = hs256()
    assert authenticator.authenticate([prefix + token], NOW) == accept(authenticator, token)
    assert len(authenticator._seen) == 1


def bad(reason: str, token: bytes | Callable[[], bytes], *marks: str) -> Any:
    return pytest.param(reason, token, id=marks[0])


HEADER = {"alg": "HS256"}
GOOD = hs256()
HEAD, BODY, TAIL = GOOD.split(b".")
OTHER_HEAD, OTHER_BODY, OTHER_TAIL = hs256(sub="bob").split(b".")

BAD_TOKENS = [
    bad("expired", hs256(exp=NOW - 30), "expired, to the second, beyond leeway"),
    bad("not_yet_valid", hs256(nbf=NOW + 31), "not yet valid"),
    bad("issued_in_future", hs256(iat=NOW + 31), "issued in the future"),
    bad("issuer", hs256(iss="https://evil"), "another issuer"),
    bad("issuer", hs256(iss=...), "no issuer"),
    bad("issuer", hs256(iss=["https://id"]), "issuer is a list"),
    bad("audience", hs256(aud="shipping"), "another audience"),
    bad("audience", hs256(aud=...), "no audience"),
    bad("audience", hs256(aud=[]), "empty audience"),
    bad("claims", hs256(aud=[1]), "audience is a number"),
    bad("claims", hs256(aud={"orders": 1}), "audience is an object"),
    bad("signature", HEAD + b"." + OTHER_BODY + b"." + TAIL, "tampered payload"),
    bad("signature", HEAD + b"." + BODY + b"." + OTHER_TAIL, "signature of another"),
    bad("signature", encode({"alg": "HS256", "x": 1}) + b"." + BODY + b"." + TAIL, "tampered header"),
    bad("signature", sign(HEADER, claims(), b"another secret, as long as needed"), "another secret"),
    bad("signature", HEAD + b"." + BODY + b".", "no signature"),
    bad("algorithm", encode({"alg": "none"}) + b"." + BODY + b".", "alg none"),
    bad("algorithm", encode({"alg": "none"}) + b"." + BODY + b"." + TAIL, "alg none with a signature"),
    bad("algorithm", encode({"alg": "NoNe"}) + b"." + BODY + b".", "alg NoNe"),
    bad("algorithm", encode({"typ": "JWT"}) + b"." + BODY + b"." + TAIL, "no alg"),
    bad("algorithm", encode({"alg": "ES256"}) + b"." + BODY + b"." + encode(bytes(64)), "ES256 blank signature"),
    bad("algorithm", encode({"alg": "HS512"}) + b"." + BODY + b"." + TAIL, "another HMAC"),
    bad("signature", lambda: sign(HEADER, claims(), public_pem(rsa(0))), "RS256 key used as HS256 secret"),
    bad("signature", lambda: rs256(claims(), key=9), "RS256 with somebody's key"),
    bad("signature", lambda: rs256(claims(), key=9, jwk=jwk(9)), "embedded jwk"),
    bad("signature", lambda: rs256(claims(), key=9, jku="https://evil/set.json"), "embedded jku"),
    bad("signature", lambda: rs256(claims(), key=9, x5u="https://evil/cert.pem"), "embedded x5u"),
    bad("signature", lambda: rs256(claims(), key=9, x5c=["AAAA"]), "embedded x5c"),
    bad("critical", sign({"alg": "HS256", "crit": ["exp"]}, claims()), "unknown crit"),
    bad("critical", sign({"alg": "HS256", "crit": []}, claims()), "empty crit"),
    bad("critical", sign({"alg": "HS256", "crit": None}, claims()), "null crit"),
    bad("critical", sign({"alg": "HS256", "b64": False}, claims()), "b64 false"),
    bad("critical", sign({"alg": "HS256", "b64": False, "crit": ["b64"]}, claims()), "b64 false and critical"),
    bad("malformed", sign({"alg": ["HS256"]}, claims()), "alg is a list"),
    bad("malformed", sign({"alg": "HS256", "kid": 7}, claims()), "kid is a number"),
    bad("malformed", sign({"alg": "HS256", "kid": "k" * 300}, claims()), "kid is huge"),
    bad("malformed", sign({"alg": "HS256", "typ": 7}, claims()), "typ is a number"),
    bad("malformed", sign(b"{}}", claims()), "header is not JSON"),
    bad("malformed", sign([1], claims()), "header is a list"),
    bad("malformed", sign('{"alg":"HS256"}'.encode("utf-16"), claims()), "header is UTF-16"),
    bad("malformed", sign(b'{"alg":"HS256","alg":"HS256"}', claims()), "alg twice"),
    bad("malformed", sign(HEADER, b'{"sub":"alice","exp":9999999999,"sub":"root"}'), "sub twice"),
    bad("malformed", sign(HEADER, b'{"sub":"alice","a":{"b":1,"b":2}}'), "a nested name twice"),
    bad("malformed", sign(HEADER, b"not json"), "payload is not JSON"),
    bad("malformed", sign(HEADER, b'"alice"'), "payload is a string"),
    bad("malformed", sign(HEADER, b"\xff{}"), "payload is not UTF-8"),
    bad("malformed", sign(HEADER, b'{"exp":NaN}'), "NaN"),
    bad("malformed", sign(HEADER, b"[" * 5000), "payload is nested deeply"),
    bad("malformed", sign(HEADER, b'{"exp":' + b"9" * 5000 + b"}"), "a number of 5000 digits"),
    bad("malformed", b"", "empty"),
    bad("malformed", b"a.b", "two parts"),
    bad("malformed", GOOD + b".x", "four parts"),
    bad("malformed", b".".join([HEAD, b"", b"", b"", TAIL]), "encrypted"),
    bad("malformed", GOOD + b"=", "padding"),
    bad("malformed", HEAD + b"=." + BODY + b"." + TAIL, "padding in the header"),
    bad("malformed", GOOD.replace(b".", b"+.", 1), "standard alphabet"),
    bad("malformed", GOOD + b"\n", "newline"),
    bad("malformed", GOOD + b", Bearer " + GOOD, "two tokens in one header"),
    bad("too_large", sign(HEADER, claims(filler="x" * 8192)), "huge"),
    bad("claims", hs256(exp=...), "no exp"),
    bad("claims", hs256(exp=None), "exp is null"),
    bad("claims", hs256(exp="1900000000"), "exp is a string"),
    bad("claims", hs256(exp=True), "exp is a bool"),
    bad("claims", hs256(exp=[NOW + 60]), "exp is a list"),
    bad("claims", hs256(exp=(NOW + 60) * 1000), "exp is in milliseconds"),
    bad("claims", sign(HEADER, b'{"iss":"https://id","aud":"orders","sub":"alice","exp":1e999}'), "exp is infinite"),
    bad("claims", hs256(exp=-1), "exp is negative"),
    bad("claims", hs256(nbf="0"), "nbf is a string"),
    bad("claims", hs256(nbf=None), "nbf is null"),
    bad("claims", hs256(iat=False), "iat is a bool"),
    bad("claims", hs256(iat={}), "iat is an object"),
    bad("claims", hs256(sub=...), "no sub"),
    bad("claims", hs256(sub=""), "sub is empty"),
    bad("claims", hs256(sub=17), "sub is a number"),
    bad("claims", hs256(sub=None), "sub is null"),
    bad("claims", hs256(sub=["alice"]), "sub is a list"),
    bad("claims", hs256(sub="alice\r\nX-User-Roles: admin"), "sub with CR LF"),
    bad("claims", hs256(sub="alice\x00"), "sub with NUL"),
    bad("claims", hs256(sub="alice\u0085admin"), "sub with NEL"),
    bad("claims", hs256(sub="alice\u2028admin"), "sub with a line separator"),
    bad("claims", hs256(sub="\ud800"), "sub is a lone surrogate"),
    bad("claims", hs256(sub=" alice"), "sub with a space before"),
    bad("claims", hs256(sub="a" * 257), "sub is long"),
]


@pytest.mark.parametrize(("reason", "token"), BAD_TOKENS)
def test_a_bad_token_is_refused_and_told_why(
    reason: str, token: bytes | Callable[[], bytes], directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A forged, stale or broken token gets through, or the refusal repeats some of it."""
    caplog.set_level(logging.DEBUG)
    authenticator = using(HS, rs(directory))
    token = token() if callable(token) else token
    for _ in range(2):
        error = refuse(authenticator, token)
        assert error.reason == reason
        assert (error.status, error.code) == (401, "unauthorized")
        ((name, challenge),) = error.headers
        expected = f'Bearer realm="apigw", error="invalid_token", error_description="{error.detail}"'
        assert (name, challenge) == (b"www-authenticate", expected.encode())
        assert error.__cause__ is None
    said = f"{error!r} {error} {error.detail} {caplog.text}"
    parts = [part for part in token.decode("latin-1").split(".") if len(part) > 8]
    assert not any(part in said for part in [*parts, "alice", "admin", "root", SECRET.decode()])
    assert not authenticator._seen


def test_several_authorization_headers_are_refused() -> None:
    """A proxy before us and a service behind us pick different ones of two tokens."""
    for authorization in ([b"Bearer " + GOOD] * 2, [b"Basic YTpi", b"Bearer " + GOOD]):
        with pytest.raises(Unauthorized) as caught:
            using(HS).authenticate(authorization, NOW)
        assert caught.value.reason == "several"
        assert b'error="invalid_request"' in caught.value.headers[0][1]


def test_what_a_header_embeds_is_never_a_key(directory: Path) -> None:
    """Tokens of providers that write ``jku`` or ``x5c`` into every header are refused, or believed for it."""
    token = rs256(claims(), jwk=jwk(9), jku="https://id/set.json", x5u="https://id/cert.pem", x5c=["A" * 1200], extra=1)
    assert accept(using(rs(directory)), token).id == "alice"
    assert accept(using(HS), sign({"alg": "HS256", "jku": "not a URL", "x5c": 1}, claims())).id == "alice"


@pytest.mark.parametrize("kid", ["../../../etc/passwd", "/dev/null", "' OR 1=1 --", "a\x00", "", "c"])
def test_an_unknown_kid_finds_only_keys_that_have_none(kid: str, directory: Path) -> None:
    """A ``kid`` reaches a file, or makes a key verify that was published under another name."""
    verifier = rs(directory, public_key_file=None, jwks_file=str(directory / "set.json"))
    assert accept(using(verifier), rs256(claims(), key=2, kid=kid)).id == "alice"
    assert refuse(using(verifier), rs256(claims(), key=0, kid=kid)).reason == "signature"
    assert refuse(using(rs(directory, key_id="k1")), rs256(claims(), kid=kid)).reason == "unknown_key"


def test_a_token_need_not_name_its_key(directory: Path) -> None:
    """RFC 7515 §4.1.4: without a ``kid`` the keys without one are tried, else all that can do the algorithm."""
    assert accept(using(rs(directory, key_id="k1")), rs256(claims())).id == "alice"
    assert refuse(using(rs(directory, key_id="k1")), rs256(claims(), key=1)).reason == "signature"


def test_the_kid_selects_among_the_keys_of_a_set(directory: Path) -> None:
    """During a rotation the tokens of one of two keys are refused, or a key passes for another."""
    authenticator = using(rs(directory, public_key_file=None, jwks_file=str(directory / "set.json")))
    assert accept(authenticator, rs256(claims(), key=0, kid="a")).id == "alice"
    assert accept(authenticator, rs256(claims(), key=1, kid="b")).id == "alice"
    assert accept(authenticator, rs256(claims(), key=2)).id == "alice"
    assert refuse(authenticator, rs256(claims(), key=0, kid="b")).reason == "signature"
    assert refuse(authenticator, rs256(claims(), key=2, kid="b")).reason == "signature"
    assert refuse(authenticator, rs256(claims(), key=0)).reason == "signature"


def test_the_issuer_selects_among_verifiers(directory: Path) -> None:
    """A token of one provider is judged by another provider's key and rules."""
    other = rs(directory, name="other", issuer="https://other", public_key_file=str(directory / "next.pem"))
    authenticator = using(rs(directory), other)
    assert accept(authenticator, rs256(claims())).provider == "rs"
    assert accept(authenticator, rs256(claims(iss="https://other"), key=1)).provider == "other"
    assert refuse(authenticator, rs256(claims(iss="https://other"), key=0)).reason == "signature"
    assert refuse(authenticator, rs256(claims(iss="https://third"), key=1)).reason == "issuer"


def test_the_key_id_selects_among_verifiers_too(directory: Path) -> None:
    """Two partners' tokens, told apart by their key ids alone, are judged by each other's rules."""
    one = rs(directory, issuer=None, key_id="k1")
    other = rs(directory, name="other", issuer=None, key_id="k2", public_key_file=str(directory / "next.pem"))
    authenticator = using(one, other)
    assert accept(authenticator, rs256(claims(), kid="k1")).provider == "rs"
    assert accept(authenticator, rs256(claims(), key=1, kid="k2")).provider == "other"
    assert refuse(authenticator, rs256(claims(), key=1, kid="k1")).reason == "signature"
    assert refuse(authenticator, rs256(claims(), kid="k3")).reason == "unknown_key"
    assert refuse(authenticator, rs256(claims())).reason == "unknown_key"


def test_a_verifier_without_issuer_and_audience_does_not_ask_for_them() -> None:
    """A small setup with nothing but a secret refuses its own tokens."""
    lenient = evolve(HS, issuer=None, audience=())
    assert accept(using(lenient), hs256(iss=..., aud=..., iat=...)).id == "alice"
    assert accept(using(lenient), hs256(iss="https://any", aud="any")).id == "alice"


@pytest.mark.parametrize(
    ("changes", "roles"),
    [
        ({"roles_claim": "realm.access.roles"}, ("a", "b")),
        ({"roles_claim": "https://example.com/roles"}, ("c",)),
        ({"roles_claim": "realm.none"}, ()),
        ({"roles_claim": "nothing.at.all"}, ()),
    ],
)
def test_roles_are_found_where_the_configuration_says(changes: dict[str, Any], roles: tuple[str, ...]) -> None:
    """Roles in nested claims, or in claims that have a URL for a name, are lost."""
    nested = {"realm": {"access": {"roles": ["a", "b"]}}, "https://example.com/roles": ["c"]}
    assert accept(using(evolve(HS, **changes)), hs256(**nested)).roles == roles


def test_the_user_is_found_where_the_configuration_says() -> None:
    """Services get the provider's internal number instead of the name that they know."""
    assert accept(using(evolve(HS, user_claim="profile.email")), hs256(profile={"email": "a@b.c"})).id == "a@b.c"
    assert refuse(using(evolve(HS, user_claim="profile.email")), hs256(profile="a@b.c")).reason == "claims"


UNUSABLE_ROLES: list[object] = [
    None, 7, {"admin": True}, ["user", 1], ["user,admin"], "user,admin", ["user\r\nX-User-ID: root"], [""], "", [[]],
]  # fmt: skip


@pytest.mark.parametrize("roles", UNUSABLE_ROLES, ids=str)
def test_unusable_roles_are_none(roles: object) -> None:
    """They open nothing and reach no service; a route that asks for none is not affected."""
    assert accept(using(HS), hs256(roles=roles)).fields[1] == (b"x-user-roles", b"")


def test_roles_may_be_one_text() -> None:
    """As several providers write them (``"roles": "admin"``)."""
    assert accept(using(HS), hs256(roles="admin")).roles == ("admin",)


@pytest.mark.parametrize(
    "changes", [{"scope": 7}, {"scope": [7]}, {"scp": {"a": 1}}, {"jti": 7}, {"client_id": []}], ids=str
)
def test_a_claim_that_nobody_asks_for_cannot_spoil_a_token(changes: dict[str, Any]) -> None:
    """The token holds, without scopes."""
    assert accept(using(HS), hs256(**changes)).scopes == frozenset()


def test_roles_that_a_provider_may_not_give_are_dropped() -> None:
    """``*`` stands for any characters, and nothing else is special."""
    partner = evolve(HS, roles_allowed=("corp.*", "us?r", "a*b*c", "**x*"))
    roles = ["corp.y", "corp", "corpy", "us?r", "user", "abc", "a-b-c", "abcbc", "abcd", "ac", "admin", "x", "1x2"]
    kept = ("corp.y", "us?r", "abc", "a-b-c", "abcbc", "x", "1x2")
    assert accept(using(partner), hs256(roles=roles)).roles == kept


def test_no_role_keeps_the_gateway_busy() -> None:
    """Whatever the pattern: what is between two stars is looked for once."""
    pattern = allowed(["*-*-*-*-*x"])
    assert pattern is not None
    assert pattern.fullmatch("-" * 256) is None
    assert pattern.fullmatch("-" * 255 + "x") is not None


DEMANDED: list[tuple[dict[str, Any], bool]] = [
    ({"tid": "acme"}, True),
    ({"tid": "Acme"}, False),
    ({"tid": ["other", "acme"]}, True),
    ({"tid": []}, False),
    ({"tid": None}, False),
    ({"tid": {"acme": 1}}, False),
    ({}, False),
]


@pytest.mark.parametrize(("held", "good"), DEMANDED, ids=str)
def test_a_provider_can_demand_claims(held: dict[str, Any], good: bool) -> None:
    """Another tenant of the same provider is refused with 401."""
    tenant = using(evolve(HS, claims=(("tid", "acme"),)))
    if good:
        accept(tenant, hs256(**held))
    else:
        assert refuse(tenant, hs256(**held)).reason == "claims"


@pytest.mark.parametrize("typ", ["at+jwt", "AT+JWT", "application/at+jwt"])
def test_a_provider_can_demand_a_type(typ: str) -> None:
    """An ID token of the same provider, with the same key, opens nothing (RFC 9068 §4)."""
    for wanted in ("at+jwt", "application/AT+jwt"):
        verifier = using(evolve(HS, token_type=wanted))
        assert accept(verifier, sign({"alg": "HS256", "typ": typ}, claims())).id == "alice"
        for other in ({"typ": "JWT"}, {}, {"typ": "at+jwt+x"}):
            assert refuse(verifier, sign({"alg": "HS256", **other}, claims())).reason == "type"


def test_the_largest_token_is_configured() -> None:
    """``auth.max_token_size``; a larger one is 401, with the name of the setting."""
    token = sign(HEADER, claims(filler="x" * 8192))
    error = refuse(using(HS), token)
    assert error.reason == "too_large"
    assert error.detail == "the token is larger than 8 KiB, which is auth.max_token_size"
    assert accept(Tokens(Auth((HS,), max_token_size=16 * 1024)), token).id == "alice"


@pytest.mark.parametrize(
    "scopes", [{"scope": "a b"}, {"scope": ["a", "b"]}, {"scp": ["a", "b"]}, {"scp": "a b"}, {"scope": "a  b "}]
)
def test_scopes_come_in_every_spelling(scopes: dict[str, Any]) -> None:
    """The tokens of some identity provider never have the scopes that they carry."""
    assert accept(using(HS), hs256(**scopes)).scopes == {"a", "b"}


def test_leeway_is_exact() -> None:
    """Clocks that differ by less than the leeway make tokens fail, or expired tokens live on."""
    assert accept(using(HS), hs256(exp=NOW - 29.5)).expires == NOW + 0.5
    assert accept(using(HS), hs256(nbf=NOW + 30)).begins == NOW
    assert accept(using(HS), hs256(iat=NOW + 30)).begins == NOW
    assert refuse(using(HS), hs256(exp=NOW - 30)).reason == "expired"
    assert refuse(using(evolve(HS, leeway=0.0)), hs256(exp=NOW)).reason == "expired"


def test_a_token_seen_before_still_expires() -> None:
    """A token goes on working after its expiry because it was cached."""
    authenticator = using(HS)
    token = hs256(exp=NOW + 10, nbf=NOW - 10)
    first = accept(authenticator, token)
    assert accept(authenticator, token, NOW + 39.9) is first
    assert refuse(authenticator, token, NOW + 40).reason == "expired"
    assert not authenticator._seen
    assert accept(authenticator, token, NOW) is not first
    assert refuse(authenticator, token, NOW - 40.1).reason == "not_yet_valid"


def test_a_reload_that_removes_a_key_ends_its_tokens(directory: Path) -> None:
    """A key is taken out because it leaked, and its tokens go on working until they expire."""
    key_file = directory / "rotated.pem"
    key_file.write_bytes(public_pem(rsa(0)))
    verifier = rs(directory, public_key_file=str(key_file))
    before = using(verifier)
    accept(before, rs256(claims()))
    key_file.write_bytes(public_pem(rsa(1)))
    assert refuse(using(verifier), rs256(claims())).reason == "signature"
    assert accept(before, rs256(claims())).id == "alice"


def test_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody with many tokens, or with large ones, makes the gateway run out of memory."""
    monkeypatch.setattr(tokens_module, "CACHED_TOKENS", 3)
    authenticator = using(HS)
    tokens = [hs256(sub=f"user{number}") for number in range(5)]
    for token in tokens[:3]:
        accept(authenticator, token)
    accept(authenticator, tokens[0])
    for token in tokens[3:]:
        accept(authenticator, token)
    assert list(authenticator._seen) == [b"Bearer " + tokens[number] for number in (0, 3, 4)]
    monkeypatch.setattr(tokens_module, "CACHED_BYTES", 9000)
    accept(authenticator, hs256(filler="x" * 5500))
    accept(authenticator, hs256(filler="y" * 5500))
    assert [len(token) > 7000 for token in authenticator._seen] == [True]
    assert authenticator._seen_bytes == sum(map(len, authenticator._seen))


@given(st.binary(max_size=300))
def test_no_bytes_break_it(raw: bytes) -> None:
    """Rubbish in the header becomes a 500 instead of a 401."""
    authenticator = using(HS)
    assert refuse(authenticator, raw).reason in {"malformed", "algorithm"}


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255))
def test_no_changed_byte_passes(position: int, byte: int) -> None:
    """A token can be altered in some place without anybody noticing."""
    changed = GOOD[:position] + bytes([byte]) + GOOD[position + 1 :]
    if changed == GOOD or changed.strip(b" ") == GOOD:
        return
    refuse(using(HS), changed)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@given(
    st.dictionaries(st.sampled_from(["iss", "aud", "sub", "exp", "nbf", "iat", "roles", "scope", "scp", "jti"]), JSON)
)
def test_signed_claims_of_any_type_give_a_clean_principal_or_a_refusal(changes: dict[str, Any]) -> None:
    """A claim of an unforeseen type becomes a 500, or a header that a service reads as two."""
    try:
        principal = accept(using(evolve(HS, issuer=None, audience=())), hs256(**changes))
    except Unauthorized:
        return
    assert [name for name, _ in principal.fields] == [b"x-user-id", b"x-user-roles", b"x-auth-provider"]
    assert all(value.decode().isprintable() for _, value in principal.fields)
    assert principal.id.strip() == principal.id != ""


def config_error(auth: Auth, **arguments: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        Tokens(auth, **arguments)
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"public_key_file": "{}/nothing.pem"}, "does not exist"),
        ({"public_key_file": "{}/junk.pem"}, "contains no readable PEM public key"),
        ({"public_key_file": "{}/private.pem"}, "contains a private key"),
        ({"public_key_file": "{}/small.pem"}, "an RSA key of 1024 bits"),
        (
            {"public_key_file": "{}/curve-public.pem"},
            "a key on the curve secp256r1, which does not fit RS256: it can do ES256",
        ),
        ({"public_key_file": None, "jwks_file": "{}/junk.pem"}, "not a JSON document"),
        ({"public_key_file": None, "jwks_file": "{}/empty.json"}, "it is empty"),
        ({"public_key_file": None, "jwks_file": "{}/set.json", "algorithm": "HS256"}, "is of another type"),
        ({"public_key_file": None, "jwks_url": "https://id/set", "algorithm": "HS256"}, "does not fit HS256"),
        ({"public_key_file": None, "secret": Secret(SECRET)}, "HS256 verifies with a secret"),
        ({"algorithm": "HS256"}, "HS256 verifies with a secret"),
        ({"algorithm": "HS256", "secret": Secret(b"short")}, "is a secret of 5 bytes"),
        ({"algorithm": "HS256", "secret": Secret(public_pem(rsa(0)))}, "is a key in PEM"),
        ({"algorithm": "ES256"}, "an RSA key, which does not fit ES256"),
        ({"algorithm": "RS1"}, "is not one of RS256, RS384"),
        ({"algorithm": ()}, "only a key set says by itself"),
        ({"public_key_file": None}, "HS256 verifies with a secret, the others with a public_key_file"),
        ({"name": "a\nb"}, "is not a name"),
    ],
)
def test_a_key_that_cannot_be_used_is_named(changes: dict[str, Any], sentence: str, directory: Path) -> None:
    """The daemon starts with a key that verifies nothing, or anything; or says of a bad one only that it is bad."""
    filled = {name: value.format(directory) if isinstance(value, str) else value for name, value in changes.items()}
    message = config_error(Auth((rs(directory, **filled),)))
    assert sentence in message
    assert "auth.jwt[0]" in message
    assert "BEGIN" not in message


def test_verifiers_that_cannot_be_told_apart_are_refused(directory: Path) -> None:
    """A token is taken for that of another provider, depending on the order of the configuration."""
    origin = {("auth", "jwt", 1): Origin("auth.yaml", 7, 3)}
    for first, second in (("https://id", "https://id"), (None, "https://id"), ("https://id", None), (None, None)):
        pair = (rs(directory, issuer=first), rs(directory, name="other", issuer=second))
        assert config_error(Auth(pair), origins=origin).startswith(
            "auth.yaml:7:3: auth.jwt[1]: could accept the same tokens"
        )
    assert "'rs' is another provider's name" in config_error(Auth((rs(directory), rs(directory, issuer="https://b"))))
    oauth = OAuth(OAuthSigning("RS256", "k1", str(directory / "private.pem")), "https://id")
    own = own_tokens(oauth, load_signer(oauth.signing))
    assert "the same tokens" in config_error(Auth((rs(directory),)), own=own)
    assert "'oauth' is another provider's name" in config_error(Auth((evolve(HS, name="oauth"),)), own=own)


def test_the_gateways_own_tokens_are_taken(directory: Path) -> None:
    """A partner gets a token from the gateway, and the gateway does not know it."""
    accepted = (AcceptedKey("k0", str(directory / "next.pem")),)
    signing = OAuthSigning("RS256", "k1", str(directory / "private.pem"), accepted=accepted)
    oauth = OAuth(signing, "https://gateway", ("gateway",))
    signer = load_signer(signing)
    authenticator = Tokens(Auth((HS,)), own=own_tokens(oauth, signer))
    own = claims(iss="https://gateway", aud="gateway", sub="acme")
    token = signer.sign(own).encode()
    assert accept(authenticator, token).fields[-1] == (b"x-auth-provider", b"oauth")
    assert accept(authenticator, rs256(own, key=1, kid="k0", typ="application/AT+JWT")).id == "acme"
    assert refuse(authenticator, rs256(own, kid="k1")).reason == "type"
    assert refuse(authenticator, rs256({**own, "aud": "x"}, kid="k1", typ="at+jwt")).reason == "audience"
    published = signer.jwks()
    assert published is not None
    assert [(key["kid"], key["use"], key["alg"], set(key)) for key in published["keys"]] == [
        (kid, "sig", "RS256", {"kty", "n", "e", "kid", "use", "alg"}) for kid in ("k1", "k0")
    ]


def test_a_secret_signs_too_and_is_never_published() -> None:
    """The JWKS of a gateway that signs with HS256 gives its secret away."""
    signing = OAuthSigning("HS256", "k1", secret=Secret(SECRET))
    signer = load_signer(signing)
    authenticator = Tokens(Auth(), own=own_tokens(OAuth(signing, "https://gateway"), signer))
    own = claims(iss="https://gateway", aud="https://gateway")
    assert accept(authenticator, signer.sign(own).encode()).id == "alice"
    assert signer.jwks() is None
    assert SECRET.decode() not in repr(signer)
    wrong = jwt.encode({"alg": "HS256", "kid": "k9", "typ": "at+jwt"}, own, OctKey.import_key(SECRET)).encode()
    assert refuse(authenticator, wrong).reason == "unknown_key"


@pytest.mark.parametrize(
    ("signing", "sentence"),
    [
        (OAuthSigning("RS256", "k1", "{}/junk.pem"), "contains no readable PEM private key"),
        (OAuthSigning("RS256", "k1", "{}/public.pem"), "contains no readable PEM private key"),
        (OAuthSigning("RS256", "k1", "{}/none.pem"), "does not exist"),
        (OAuthSigning("RS256", "k1", "{}/curve.pem"), "is not RSA"),
        (OAuthSigning("RS256", "k1", "{}/locked.pem"), "with a passphrase"),
        (OAuthSigning("RS256", "k1", "{}/private.pem", accepted=(AcceptedKey("k1", "x"),)), "'k1' is given twice"),
        (OAuthSigning("RS256", "k1", secret=Secret(SECRET)), "RS256 signs with a private_key_file"),
        (OAuthSigning("HS256", "k1", secret=Secret(b"short")), "is a secret of 5 bytes"),
    ],
)
def test_a_signing_key_that_cannot_be_used_is_named(signing: OAuthSigning, sentence: str, directory: Path) -> None:
    """The first token request finds out that the key was never there."""
    file = signing.private_key_file and signing.private_key_file.format(directory)
    with pytest.raises(ConfigError, match=r"^auth\.oauth\.signing\.") as caught:
        load_signer(evolve(signing, private_key_file=file))
    assert sentence in str(caught.value)


def test_without_a_file_a_key_is_made_that_reloads_keep() -> None:
    """Every reload ends the tokens that were issued before it; or the keys of two processes go by one name."""
    signing = OAuthSigning("RS256", "k1")
    first = load_signer(signing)
    assert first.key_id.startswith("k1-")
    again = load_signer(signing, previous=first)
    published = first.jwks()
    assert again.jwks() == published
    assert published is not None
    assert [(key["kid"], "d" in key) for key in published["keys"]] == [(first.key_id, False)]
    own = claims(iss="https://gateway", aud="https://gateway", exp=NOW + 600)
    authenticator = Tokens(Auth(), own=own_tokens(OAuth(signing, "https://gateway"), again))
    assert accept(authenticator, first.sign(own).encode()).id == "alice"
    for other in (load_signer(signing), load_signer(OAuthSigning("RS256", "k2"), previous=first)):
        assert other.key_id != first.key_id
        assert other.jwks() != published


ANN = Principal("main", "ann", ("user", "clerk"), frozenset({"a", "b"}))
ANN.by_token = True
ANN.document = b'{"department": "it", "groups": ["x", "y"], "level": 3, "on": true, "org": {"id": "1"}, "a.b": 1}'


def turned_away(demands: Demands, principal: Principal = ANN) -> Forbidden:
    with pytest.raises(Forbidden) as caught:
        demands.check(principal)
    return caught.value


def test_any_role_and_all_scopes() -> None:
    """A caller gets into a route with one of the roles and every scope that it demands, and not otherwise."""
    Demands().check(ANN)
    Demands(("admin", "clerk"), ("a", "b")).check(ANN)
    error = turned_away(Demands(("admin",)))
    assert (error.reason, error.code) == ("role", "insufficient_scope")
    assert b'error="insufficient_scope"' in error.headers[0][1]
    error = turned_away(Demands(("user",), ("a", "c")))
    assert error.reason == "scope"
    assert error.headers[0][1].endswith(b'scope="a c"')


def test_who_sent_no_token_is_not_told_of_tokens() -> None:
    """RFC 6750 is about bearer tokens: a 403 for an API key has no such challenge."""
    assert turned_away(Demands(("admin",)), Principal("keys", "ann")).headers == []


@pytest.mark.parametrize(
    ("demanded", "met"),
    [
        ({"department": "it"}, True),
        ({"department": "IT"}, False),
        ({"department": ("hr", "it")}, True),
        ({"department": ("hr",)}, False),
        ({"groups": "y"}, True),
        ({"groups": "z"}, False),
        ({"groups": ("z", "x")}, True),
        ({"level": 3}, True),
        ({"level": 3.0}, True),
        ({"level": "3"}, False),
        ({"level": True}, False),
        ({"on": True}, True),
        ({"on": 1}, False),
        ({"on": "true"}, False),
        ({"org.id": "1"}, True),
        ({"org.id": 1}, False),
        ({"org": "1"}, False),
        ({"a.b": 1}, True),
        ({"none": "it"}, False),
        ({"department.x": "it"}, False),
        ({"department": "it", "level": 3}, True),
        ({"department": "it", "level": 4}, False),
    ],
    ids=str,
)
def test_claims_are_what_the_route_demands(demanded: dict[str, Any], met: bool) -> None:
    """Equal, or contained where the claim is a list; of several values any will do; types must agree."""
    demands = Demands(claims=tuple(demanded.items()))
    if met:
        demands.check(ANN)
    else:
        assert turned_away(demands).reason == "claim"


def outcome(decode: Callable[[bytes], bytes], part: bytes) -> bytes | None:
    try:
        return decode(part)
    except ValueError:
        return None


@given(st.binary(max_size=40) | st.text("AQgwaz019+/=-_.~ \n", max_size=12).map(str.encode))
def test_base64url_is_read_as_by_joserfc(part: bytes) -> None:
    """Strictly: one way to write it, its own alphabet, no padding (RFC 7515 §2)."""
    assert outcome(decoded, part) == outcome(urlsafe_b64decode, part)
    assert decoded(encode(part)) == part
