"""Tokens as identity providers make them, and as attackers do: signed with real keys, well-formed or not."""

from __future__ import annotations

import hmac
import json
import os
import time
from base64 import urlsafe_b64encode
from typing import Any

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from joserfc.jwk import RSAKey

from .pem import private_pem, public_pem

Claims = dict[str, Any]


def encode(part: object) -> str:
    """One part of a token: bytes as they are, everything else as JSON."""
    raw = part if isinstance(part, bytes) else json.dumps(part).encode()
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def claims(issuer: str, **changes: Any) -> Claims:
    """Good claims with some changed; ``...`` takes one away. No two are alike."""
    now = int(time.time())
    good = {"iss": issuer, "aud": ["orders"], "sub": "alice", "roles": ["user"], "iat": now, "exp": now + 600}
    good["jti"] = os.urandom(8).hex()
    return {name: value for name, value in {**good, **changes}.items() if value is not ...}


class Provider:
    """An identity provider with one RSA key."""

    def __init__(self, issuer: str, key_id: str = "main") -> None:
        self.issuer = issuer
        self.key_id = key_id
        self.key = generate_private_key(public_exponent=65537, key_size=2048)

    @property
    def public_pem(self) -> bytes:
        return public_pem(self.key)

    @property
    def private_pem(self) -> bytes:
        return private_pem(self.key)

    @property
    def jwk(self) -> Claims:
        return {**RSAKey.import_key(self.key.public_key()).as_dict(private=False), "kid": self.key_id}

    def token(self, header: Claims | None = None, payload: object = None, **changes: Any) -> str:
        """RS256. ``header`` is added to a good one, ``payload`` replaces good claims with ``changes``."""
        head = {"alg": "RS256", "typ": "JWT", "kid": self.key_id, **(header or {})}
        signed = f"{encode(head)}.{encode(claims(self.issuer, **changes) if payload is None else payload)}"
        return f"{signed}.{encode(self.key.sign(signed.encode(), PKCS1v15(), SHA256()))}"


def hs256(secret: bytes, issuer: str, header: Claims | None = None, **changes: Any) -> str:
    """An HS256 token."""
    signed = f"{encode({'alg': 'HS256', **(header or {})})}.{encode(claims(issuer, **changes))}"
    return f"{signed}.{encode(hmac.digest(secret, signed.encode(), 'sha256'))}"


def bearer(token: str) -> str:
    """The header line."""
    return f"Authorization: Bearer {token}"
