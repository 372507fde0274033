"""A signing key and tokens for the gateway under load. Made once a run, where a scenario asks for them."""

from __future__ import annotations

import json
import time
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ec_key
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

ISSUER = "https://id.example.com"
LIFETIME = 24 * 3600
MANY = 20_000
"""More than the gateway remembers (16,384), so that in turn each is seen for the first time."""


@cache
def _key(algorithm: str) -> Any:
    return generate_private_key(65537, 2048) if algorithm == "RS256" else generate_ec_key(SECP256R1())


def _jwk(algorithm: str) -> RSAKey | ECKey:
    return (RSAKey if algorithm == "RS256" else ECKey).import_key(_key(algorithm))


def public_key(algorithm: str = "RS256") -> bytes:
    pem: bytes = _key(algorithm).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem


def key_set(algorithm: str = "RS256") -> str:
    """The public key as a JSON Web Key Set."""
    public = _jwk(algorithm).as_dict(private=False)
    return json.dumps({"keys": [{**public, "alg": algorithm, "use": "sig"}]})


@cache
def authorizations(count: int = 1, algorithm: str = "RS256") -> tuple[str, ...]:
    """So many values of ``Authorization``: tokens that differ in their ``jti``, of RS256 a third of a millisecond each.

    ``algorithm`` is RS256 or ES256.
    """
    key, now = _jwk(algorithm), int(time.time())
    claims = {"iss": ISSUER, "aud": "bench", "sub": "ada", "roles": ["user"], "iat": now, "exp": now + LIFETIME}
    tokens = (jwt.encode({"alg": algorithm}, {**claims, "jti": str(number)}, key) for number in range(count))
    return tuple(f"Bearer {token}" for token in tokens)
