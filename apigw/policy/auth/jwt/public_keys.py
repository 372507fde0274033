"""Public keys that verify signatures: what each can do, and which are too weak.

A ``ValueError`` has a sentence fragment that follows the name of the file or key, and contains no part of it.
"""

from __future__ import annotations

from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.util import urlsafe_b64decode

from apigw.policy.auth.jwt.algorithms import CURVES, ED448, ED25519, RSA

MIN_RSA_BITS, MAX_RSA_BITS = 2048, 8192
MAX_EXPONENT = (1 << 64) - 1

_SIZES = {"EC": {"P-256": 32, "P-384": 48, "P-521": 66}, "OKP": {"Ed25519": 32, "Ed448": 57}}
"""Bytes of a coordinate, or of an Edwards key: by ``kty`` and ``crv``, for those that can verify (RFC 7518 §6.2.1,
RFC 8037 §2)."""

_P25519 = 2**255 - 19
_D25519 = -121665 * pow(121666, -1, _P25519) % _P25519
_P448 = 2**448 - 2**224 - 1
_D448 = -39081 % _P448


def read_pem(pem: bytes) -> Any:
    """The key in a ``PUBLIC KEY`` PEM."""
    if b"PRIVATE KEY-----" in pem:
        raise ValueError("contains a private key: give the gateway only the public one")
    if b"BEGIN CERTIFICATE" in pem:
        raise ValueError("contains a certificate: extract its public key with `openssl x509 -pubkey -noout`")
    try:
        return load_pem_public_key(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("contains no readable PEM public key") from None


def read_jwk(jwk: dict[str, Any]) -> Any:
    """The key in a JWK of the type RSA, EC or OKP; other members, private ones too, are ignored."""
    kind = jwk.get("kty")
    if kind == "RSA":
        bits = int.from_bytes(decoded(jwk.get("n")), "big").bit_length()
        if not MIN_RSA_BITS <= bits <= MAX_RSA_BITS:
            raise ValueError(f"has {bits} bits, of {MIN_RSA_BITS} to {MAX_RSA_BITS}")
        if len(decoded(jwk.get("e"))) > 8:
            raise ValueError("is malformed")
        return _imported(RSAKey, jwk, "kty", "n", "e")
    curve = jwk.get("crv")
    sizes = _SIZES.get(kind) if isinstance(kind, str) else None
    size = None if sizes is None or not isinstance(curve, str) else sizes.get(curve)
    if size is None:
        raise ValueError("is of another type")
    for name in ("x", "y") if kind == "EC" else ("x",):
        if len(decoded(jwk.get(name))) != size:
            raise ValueError("is malformed")
    return _imported(ECKey, jwk, "kty", "crv", "x", "y") if kind == "EC" else _imported(OKPKey, jwk, "kty", "crv", "x")


def algorithms_of(key: Any) -> tuple[str, ...]:
    """The algorithms that a key can do. Raises ``ValueError`` for a weak key, and one of another kind."""
    if isinstance(key, RSAPublicKey):
        check_rsa(key)
        return RSA
    if isinstance(key, EllipticCurvePublicKey):
        if key.curve.name not in CURVES:
            raise ValueError(f"contains a key on the curve {key.curve.name}, which no algorithm uses")
        return (CURVES[key.curve.name],)
    if isinstance(key, Ed25519PublicKey):
        _check_point(key.public_bytes(Encoding.Raw, PublicFormat.Raw), _P25519, _D25519, -1)
        return ED25519
    if isinstance(key, Ed448PublicKey):
        _check_point(key.public_bytes(Encoding.Raw, PublicFormat.Raw), _P448, _D448, 1)
        return ED448
    raise ValueError("contains a public key that is neither RSA, EC nor Ed25519 or Ed448")


def kind_of(key: Any) -> str:
    """What a key is, in words."""
    if isinstance(key, RSAPublicKey):
        return "an RSA key"
    if isinstance(key, EllipticCurvePublicKey):
        return f"a key on the curve {key.curve.name}"
    return "an Ed25519 key" if isinstance(key, Ed25519PublicKey) else "an Ed448 key"


def encoded(key: Any) -> bytes:
    """The key in DER. Equal for equal keys."""
    der: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return der


def as_jwk(key: Any) -> dict[str, Any]:
    """The key for a published set."""
    if isinstance(key, RSAPublicKey):
        return dict(RSAKey.import_key(key).as_dict(private=False))
    if isinstance(key, EllipticCurvePublicKey):
        return dict(ECKey.import_key(key).as_dict(private=False))
    return dict(OKPKey.import_key(key).as_dict(private=False))


def check_rsa(key: RSAPublicKey) -> None:
    """Raises ``ValueError`` for RSA keys that are weak, or so large that verification costs too much."""
    bits, numbers = key.key_size, key.public_numbers()
    if bits < MIN_RSA_BITS:
        raise ValueError(f"contains an RSA key of {bits} bits: {MIN_RSA_BITS} or more are needed (RFC 7518 §3.3)")
    if bits > MAX_RSA_BITS:
        raise ValueError(f"contains an RSA key of {bits} bits: the gateway takes up to {MAX_RSA_BITS}")
    if numbers.e < 3 or numbers.e > MAX_EXPONENT or not numbers.e & 1 or not numbers.n & 1:
        raise ValueError("contains an RSA key whose exponent or modulus no good key has")


def decoded(value: object) -> bytes:
    """The bytes of a JWK's member: base64url without padding. Raises ``ValueError``."""
    try:
        if isinstance(value, str) and len(value) <= 2 * MAX_RSA_BITS // 8:
            return urlsafe_b64decode(value.encode("ascii"))
    except ValueError:
        pass
    raise ValueError("is malformed")


def _imported(kind: Any, jwk: dict[str, Any], *names: str) -> Any:
    try:
        return kind.import_key({name: jwk[name] for name in names}).public_key
    except (JoseError, ValueError, UnsupportedAlgorithm):
        raise ValueError("is malformed") from None


def _check_point(raw: bytes, p: int, d: int, a: int) -> None:
    """Refuses what is not the canonical encoding of a point of a x² + y² = 1 + d x² y², and points of small order.

    With a key of small order anybody can make signatures that it verifies, and OpenSSL does not check that. These are
    the points whose order divides the cofactor (8 and 4): doubled three times, they are the neutral one, where y is 1.
    """
    y = int.from_bytes(raw, "little") & ((1 << (8 * len(raw) - 1)) - 1)
    if y >= p:
        raise ValueError("is malformed")
    square = (1 - y * y) * pow(a - d * y * y, -1, p) % p
    if square and pow(square, (p - 1) // 2, p) != 1:
        raise ValueError("is malformed")
    for _ in range(3):
        product = d * square * y * y
        y, square = (
            (y * y - a * square) * pow(1 - product, -1, p) % p,
            4 * square * y * y * pow((1 + product) ** 2, -1, p) % p,
        )
    if y == 1:
        raise ValueError("is a point of small order, with which anybody can sign")
