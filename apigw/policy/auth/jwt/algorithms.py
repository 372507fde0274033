# Compiled: see docs/decisions/compiled.md
"""Verification of signatures of JSON Web Tokens: RFC 7518 §3, RFC 8037 §3.1, RFC 9864.

OpenSSL verifies. Each key is prepared once for each algorithm that it is used with (docs/decisions/signatures.md).
"""

from __future__ import annotations

import hmac
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, AsymmetricPadding, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm
from mypy_extensions import mypyc_attr

SECRET: Final = "HS256"
RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
CURVES: Final = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
"""The only algorithm for each curve, by OpenSSL's name of the curve (RFC 7518 §3.4)."""
ED25519: Final = ("EdDSA", "Ed25519")
ED448: Final = ("EdDSA", "Ed448")
"""``EdDSA`` is the older name, for both curves."""

PUBLIC: Final = (*RSA, *CURVES.values(), "EdDSA", "Ed25519", "Ed448")
"""Those that verify with a public key."""
ALL: Final = (*PUBLIC, SECRET)

_HASHES: Final[dict[str, type[HashAlgorithm]]] = {"256": SHA256, "384": SHA384, "512": SHA512}


@mypyc_attr(allow_interpreted_subclasses=True)
class Verify:
    """A key, prepared for one algorithm."""

    def verifies(self, signed: bytes, signature: bytes) -> bool:
        """Whether the key made ``signature`` of ``signed``. Never raises, whatever the signature is."""
        raise NotImplementedError


class VerifyHMAC(Verify):
    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def verifies(self, signed: bytes, signature: bytes) -> bool:
        return hmac.compare_digest(hmac.digest(self._secret, signed, "sha256"), signature)


class VerifyRSA(Verify):
    """PKCS #1 v1.5 or PSS; the salt of PSS is as long as the hash (RFC 7518 §3.5)."""

    def __init__(self, key: Any, algorithm: str) -> None:
        kind = _HASHES[algorithm[2:]]
        self._key = key
        self._hash = kind()
        self._padding: AsymmetricPadding = PKCS1v15()
        if algorithm.startswith("PS"):
            self._padding = PSS(mgf=MGF1(kind()), salt_length=self._hash.digest_size)

    def verifies(self, signed: bytes, signature: bytes) -> bool:
        try:
            self._key.verify(signature, signed, self._padding, self._hash)
        except (InvalidSignature, ValueError):
            return False
        return True


class VerifyECDSA(Verify):
    """The signature is r and s, each as long as the curve's order (RFC 7518 §3.4), and not DER.

    OpenSSL refuses an r or s of zero, or that is not below the order ("psychic signatures", CVE-2022-21449).
    """

    def __init__(self, key: Any, algorithm: str) -> None:
        self._key = key
        self._size = (key.curve.key_size + 7) // 8
        self._with = ECDSA(_HASHES[algorithm[2:]]())

    def verifies(self, signed: bytes, signature: bytes) -> bool:
        size = self._size
        if len(signature) != 2 * size:
            return False
        r, s = int.from_bytes(signature[:size], "big"), int.from_bytes(signature[size:], "big")
        try:
            self._key.verify(encode_dss_signature(r, s), signed, self._with)
        except (InvalidSignature, ValueError):
            return False
        return True


class VerifyEdDSA(Verify):
    """OpenSSL compares the encoded point, and refuses an S that is not below the order (RFC 8032 §5.1.7)."""

    def __init__(self, key: Any) -> None:
        self._key = key

    def verifies(self, signed: bytes, signature: bytes) -> bool:
        try:
            self._key.verify(signature, signed)
        except (InvalidSignature, ValueError):
            return False
        return True


def prepared(key: Any, algorithm: str) -> Verify:
    """``key`` (of cryptography) for an algorithm that it can do (``public_keys.algorithms_of``)."""
    if algorithm in RSA:
        return VerifyRSA(key, algorithm)
    return VerifyECDSA(key, algorithm) if algorithm in CURVES.values() else VerifyEdDSA(key)
