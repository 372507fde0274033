"""Values of ``Authorization``: whose tokens are taken."""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

from hypothesis import strategies as st

from apigw.config.model import Secret
from apigw.contract.principal import Principal
from apigw.errors import Unauthorized
from apigw.policy.auth.jwt.model import JWTVerifier
from apigw.policy.auth.jwt.tokens import Tokens
from apigw.policy.auth.model import Auth
from fuzz.target import Target

NOW = 1_800_000_000.0
SECRET = b"0123456789abcdef0123456789abcdef"
AUTH = Auth(jwt=(JWTVerifier(name="main", algorithm="HS256", secret=Secret(SECRET), issuer="https://id"),))
AUTHENTICATOR = Tokens(AUTH)
REASONS = {
    "algorithm", "audience", "critical", "expired", "issuer", "malformed", "missing", "not_yet", "several", "signature",
    "too_large", "type", "unknown_key",
}  # fmt: skip


def check(data: bytes) -> None:
    """A caller is who holds a token that a plain reading of RFC 7515 and 7519 verifies; anything else is a 401."""
    try:
        found = AUTHENTICATOR.authenticate([data], NOW)
    except Unauthorized as refused:
        assert refused.reason, refused
        return
    if found is None:
        assert not data.lower().startswith(b"bearer ")
        return
    assert isinstance(found, Principal)
    scheme, _, token = data.partition(b" ")
    token = token.strip(b" ")
    assert scheme.lower() == b"bearer"
    assert len(token) <= AUTH.max_token_size
    head, payload, signature = token.split(b".")
    expected = hmac.new(SECRET, head + b"." + payload, hashlib.sha256).digest()
    assert hmac.compare_digest(decoded(signature), expected)
    header = json.loads(decoded(head), object_pairs_hook=once)
    assert header["alg"] == "HS256"
    assert "crit" not in header
    claims = json.loads(decoded(payload), object_pairs_hook=once)
    assert claims["iss"] == "https://id"
    assert claims["exp"] > NOW - 120
    assert claims["sub"] == found.id


def decoded(text: bytes) -> bytes:
    return urlsafe_b64decode(text + b"=" * (-len(text) % 4))


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len({name for name, _ in pairs}) == len(pairs), "a name twice"
    return dict(pairs)


HEADERS = [
    {"alg": "HS256"},
    {"alg": "HS256", "typ": "JWT"},
    {"alg": "none"},
    {"alg": "None"},
    {"alg": "RS256"},
    {"alg": 1},
    {},
    {"alg": "HS256", "crit": ["exp"]},
    {"alg": "HS256", "b64": False},
    {"alg": "HS256", "kid": "x"},
    {"alg": "HS256", "kid": 1},
    {"alg": "HS256", "jwk": {"kty": "oct", "k": "AA"}},
    {"alg": "HS256", "jku": "http://evil"},
    [],
    1,
    None,
]
GOOD = {"iss": "https://id", "sub": "me", "exp": NOW + 100}
CLAIMS = [
    GOOD,
    {**GOOD, "exp": 1},
    {**GOOD, "exp": "1"},
    {**GOOD, "exp": None},
    {**GOOD, "exp": 1e999},
    {**GOOD, "exp": True},
    {**GOOD, "nbf": NOW + 1000},
    {**GOOD, "iat": []},
    {**GOOD, "sub": 5},
    {**GOOD, "sub": ""},
    {**GOOD, "sub": "a\r\nb"},
    {**GOOD, "iss": ["https://id"]},
    {**GOOD, "roles": "admin"},
    {**GOOD, "roles": [[]]},
    {**GOOD, "scope": 1},
    {**GOOD, "aud": {}},
    {},
    [],
    "x",
    0,
]
TEXTS = [
    b'{"alg":"HS256","alg":"none"}',
    b'{"alg":"HS256"}x',
    b"{",
    b"\xff",
    b'{"alg":"HS256","x":' + b"[" * 900 + b"]" * 900 + b"}",
    b'{"exp":1' + b"0" * 4000 + b"}",
]


def encoded(value: bytes) -> bytes:
    return urlsafe_b64encode(value).rstrip(b"=")


@st.composite
def tokens(draw: st.DrawFn) -> bytes:
    def part(values: list[Any]) -> bytes:
        if not draw(st.integers(0, 9)):
            return draw(st.sampled_from(TEXTS))
        return json.dumps(draw(st.sampled_from(values))).encode()

    signed = encoded(part(HEADERS)) + b"." + encoded(part(CLAIMS))
    signature = encoded(hmac.new(SECRET, signed, hashlib.sha256).digest())
    other = draw(
        st.sampled_from([signature] * 5 + [b"", signature[:-1], signature + b"=", signature + b"A", b"A" * 43])
    )
    scheme = draw(st.sampled_from([b"Bearer ", b"bearer  ", b"BEARER ", b"Bearer", b"Basic ", b"Bearer\t", b""]))
    return scheme + signed + b"." + other + draw(st.sampled_from([b"", b"", b" ", b".", b".a"]))


PIECES = (
    b".",
    b" ",
    b"=",
    b"Bearer ",
    b"e30",
    b"A",
    b"-",
    b"_",
    b"/",
    b"+",
    b"\xff",
    b"\0",
    encoded(b'{"alg":"none"}'),
    b"A" * 4000,
    *TEXTS,
)
TARGET = Target("tokens", check, tokens(), PIECES, base=5_000, slope=60)
