"""Signatures that careless implementations of RSA take, and ours does not."""

from __future__ import annotations

import hashlib
import json
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, generate_private_key
from joserfc.jwk import RSAKey

from apigw.errors import Unauthorized
from apigw.policy.auth.jwt.keys import key_set
from apigw.policy.auth.jwt.model import JWTVerifier
from apigw.policy.auth.jwt.tokens import Tokens
from apigw.policy.auth.model import Auth

NOW = 1_800_000_000.0
DIGEST_INFO = bytes.fromhex("3031300d060960864801650304020105000420")
"""What stands before a SHA-256 digest (RFC 8017 §9.2)."""


def encoded(value: bytes) -> bytes:
    return urlsafe_b64encode(value).rstrip(b"=")


def signed_text() -> bytes:
    claims = {"sub": "mallory", "exp": NOW + 60}
    return encoded(b'{"alg":"RS256"}') + b"." + encoded(json.dumps(claims).encode())


def authenticator(directory: Path, jwk: dict[str, Any]) -> Tokens:
    file = directory / "keys.json"
    file.write_text(json.dumps({"keys": [jwk]}))
    return Tokens(Auth(jwt=(JWTVerifier("main", algorithm="RS256", jwks_file=str(file)),)))


def cube_root(number: int) -> int:
    """The least whose cube is not below ``number``."""
    low, high = 0, 1 << (number.bit_length() // 3 + 1)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if middle**3 < number else (low, middle)
    return low


def test_a_cube_root_is_no_signature(tmp_path: Path) -> None:
    """With an exponent of 3, rubbish behind a short padding makes a cube (CVE-2006-4339): padding is compared whole."""
    key = generate_private_key(public_exponent=3, key_size=2048)
    found = authenticator(tmp_path, RSAKey.import_key(key).as_dict(private=False))
    text = signed_text()
    beginning = b"\0\1" + b"\xff" * 8 + b"\0" + DIGEST_INFO + hashlib.sha256(text).digest()
    root = cube_root(int.from_bytes(beginning + bytes(256 - len(beginning)), "big"))
    forged = (root**3).to_bytes(256, "big")
    assert forged.startswith(beginning)
    with pytest.raises(Unauthorized) as refused:
        found.authenticate([b"Bearer " + text + b"." + encoded(root.to_bytes(256, "big"))], NOW)
    assert refused.value.reason == "signature"


@pytest.mark.parametrize("exponent", [0, 1, 2, 4, 65536])
def test_a_key_whose_exponent_encrypts_nothing_is_none(exponent: int) -> None:
    """With an exponent of 1 whatever is padded is its own signature; an even one has no private key."""
    numbers = generate_private_key(public_exponent=65537, key_size=2048).public_key()
    assert isinstance(numbers, RSAPublicKey)
    modulus = numbers.public_numbers().n.to_bytes(256, "big")
    jwk = {
        "kty": "RSA",
        "n": encoded(modulus).decode(),
        "e": encoded(exponent.to_bytes(max(1, (exponent.bit_length() + 7) // 8), "big")).decode(),
    }
    with pytest.raises(ValueError, match="without a key for RS256"):
        key_set(json.dumps({"keys": [jwk]}).encode(), ("RS256",))
