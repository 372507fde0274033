"""A signing key and tokens for the gateway under load. Made once a run, where a scenario asks for them."""

from __future__ import annotations

import json
import time
from functools import cache

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc import jwt
from joserfc.jwk import RSAKey

ISSUER = "https://id.example.com"
LIFETIME = 24 * 3600
MANY = 20_000
"""More than the gateway remembers (16,384), so that in turn each is seen for the first time."""


@cache
def _key() -> RSAPrivateKey:
    return generate_private_key(public_exponent=65537, key_size=2048)


def public_key() -> bytes:
    return _key().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def key_set() -> str:
    """The public key as a JSON Web Key Set."""
    return json.dumps({"keys": [{**RSAKey.import_key(public_key()).as_dict(), "alg": "RS256", "use": "sig"}]})


@cache
def authorizations(count: int = 1) -> tuple[str, ...]:
    """So many values of ``Authorization``: RS256 tokens that differ in their ``jti``, a third of a millisecond each."""
    key, now = RSAKey.import_key(_key()), int(time.time())
    claims = {"iss": ISSUER, "aud": "bench", "sub": "ada", "roles": ["user"], "iat": now, "exp": now + LIFETIME}
    tokens = (jwt.encode({"alg": "RS256"}, {**claims, "jti": str(number)}, key) for number in range(count))
    return tuple(f"Bearer {token}" for token in tokens)
