"""Keys that verify signatures: each pinned to one algorithm, read from PEM files, secrets and JWK sets (RFC 7517).

Parsing is strict, because tokens and key sets come from outside. A ``ValueError`` says what is wrong with a key, but
contains no part of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import attrs
from attrs import Factory, define, frozen
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from joserfc.errors import JoseError
from joserfc.jwk import OctKey, RSAKey
from joserfc.jws import CompactSignature, JWSRegistry, validate_compact
from joserfc.util import urlsafe_b64decode

from apigw.config.files import read
from apigw.config.model import Secret
from apigw.policy.auth.strict_json import parse_object

KEY_TYPES = {"RS256": "RSA", "HS256": "oct"}
MIN_SECRET = 32
MIN_DIFFERENT = 6
"""Different bytes in a secret, as in a client's: of 32 random digits, the poorest that are in use, one in 10 million
has fewer."""
MIN_RSA_BITS, MAX_RSA_BITS = 2048, 8192
MAX_SET_BYTES = 256 * 1024
MAX_KEYS = 100
MAX_ALIKE = 8
MAX_KEY_ID = 256

_PUBLIC = "is a key in PEM or OpenSSH form, not a secret: anybody may have the public half of it"


def _registry(algorithm: str) -> JWSRegistry:
    """joserfc's checks for one algorithm. Unknown header members are ignored (RFC 7515 §4); sizes are the caller's."""
    allowed = JWSRegistry(algorithms=[algorithm], strict_check_header=False)
    allowed.max_header_length = allowed.max_signature_length = allowed.max_payload_length
    return allowed


_REGISTRIES = {algorithm: _registry(algorithm) for algorithm in KEY_TYPES}


@define(eq=False)
class Key:
    """A key, pinned to one algorithm. ``retired`` is set when it has left its key set."""

    algorithm: str
    id: str | None
    material: RSAKey | OctKey = attrs.field(repr=False)
    retired: bool = False

    def verifies(self, token: CompactSignature) -> bool:
        """Whether this key made the signature (HMAC is compared in constant time)."""
        try:
            return validate_compact(token, self.material, registry=_REGISTRIES[self.algorithm])
        except (JoseError, ValueError):
            return False

    def same_as(self, other: Key) -> bool:
        return (self.algorithm, self.id) == (other.algorithm, other.id) and self.material == other.material


@frozen(eq=False)
class Keys:
    """The keys of one verifier by ``kid``, and those without one."""

    named: dict[str, tuple[Key, ...]] = Factory(dict)
    nameless: tuple[Key, ...] = ()

    @classmethod
    def of(cls, keys: Iterable[Key]) -> Keys:
        """Raises ``ValueError`` if a token would have to be verified with too many keys."""
        groups: dict[str | None, tuple[Key, ...]] = {}
        for key in keys:
            groups[key.id] = (*groups.get(key.id, ()), key)
        if any(len(group) > MAX_ALIKE for group in groups.values()):
            raise ValueError(f"has more than {MAX_ALIKE} keys with the same kid, or without one")
        nameless = groups.pop(None, ())
        return cls({id: group for id, group in groups.items() if id is not None}, nameless)

    def __iter__(self) -> Iterator[Key]:
        for group in self.named.values():
            yield from group
        yield from self.nameless

    def same_as(self, other: Keys) -> bool:
        mine, others = list(self), list(other)
        return len(mine) == len(others) and all(map(Key.same_as, mine, others))

    def succeeded_by(self, newer: Keys) -> Keys:
        """``newer``, with the same objects for keys that are here too. Keys that it lacks are marked as retired."""
        kept = Keys.of(next((old for old in self if old.same_as(key)), key) for key in newer)
        still = set(map(id, kept))
        for key in self:
            key.retired = id(key) not in still
        return kept


class KeyProblem(ValueError):
    """A key is unusable: a sentence fragment, and the ``field`` of the configuration that it follows."""

    def __init__(self, field: str, sentence: str) -> None:
        super().__init__(sentence)
        self.field = field


def read_file(field: str, path: str) -> bytes:
    """The content of a file. Raises ``KeyProblem`` if it cannot be read."""
    try:
        return read(path)
    except ValueError as error:
        raise KeyProblem(field, f"{path!r} {error}") from None


def configured_key(algorithm: str, key_id: str | None, public_key_file: str | None, secret: Secret | None) -> Key:
    """The verification key of one entry of the configuration. Raises ``KeyProblem``."""
    try:
        if algorithm == "HS256" and secret is not None:
            return secret_key(secret.value, key_id)
    except ValueError as error:
        raise KeyProblem("secret", str(error)) from None
    if algorithm == "RS256" and public_key_file is not None:
        pem = read_file("public_key_file", public_key_file)
        try:
            return public_key(pem, key_id)
        except ValueError as error:
            raise KeyProblem("public_key_file", f"{public_key_file!r} {error}") from None
    field = "public_key_file" if secret is None else "secret"
    raise KeyProblem(field, "does not fit the algorithm: RS256 verifies with a public_key_file, HS256 with a secret")


def public_key(pem: bytes, key_id: str | None) -> Key:
    """An RS256 key from ``PUBLIC KEY`` PEM. Raises ``ValueError`` with a fragment that follows the file's name."""
    if b"PRIVATE KEY-----" in pem:
        raise ValueError("contains a private key: give the gateway only the public one")
    if b"BEGIN CERTIFICATE" in pem:
        raise ValueError("contains a certificate: extract its public key with `openssl x509 -pubkey -noout`")
    try:
        native = load_pem_public_key(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("contains no readable PEM public key") from None
    if not isinstance(native, RSAPublicKey):
        raise ValueError("contains a public key that is not RSA, which RS256 needs")
    check_rsa_bits(native.key_size)
    return Key("RS256", key_id, RSAKey.import_key(native))


def secret_key(secret: bytes, key_id: str | None) -> Key:
    """An HS256 key. Raises ``ValueError`` with a fragment that follows the secret's key or file.

    RFC 7518 §3.2 requires as many bits as the hash has: 256. A public key as a secret is refused against algorithm
    confusion.
    """
    if b"-----BEGIN" in secret or secret.startswith((b"ssh-", b"ecdsa-")):
        raise ValueError(_PUBLIC)
    if len(secret) < MIN_SECRET:
        raise ValueError(f"is a secret of {len(secret)} bytes: HS256 needs {MIN_SECRET} or more (RFC 7518 §3.2)")
    if len(set(secret)) < MIN_DIFFERENT:
        raise ValueError(
            "is a secret of few different bytes, which can be guessed: `openssl rand -hex 32` makes a good one"
        )
    try:
        return Key("HS256", key_id, OctKey.import_key(secret))
    except (JoseError, ValueError):
        raise ValueError(_PUBLIC) from None


def key_set(document: bytes, algorithm: str) -> Keys:
    """The keys of a JWK set that can verify ``algorithm``; others are ignored (RFC 7517 §5).

    A key is used if it has the right ``kty`` and size, ``use`` is ``sig`` or absent, ``key_ops`` contains ``verify`` or
    is absent, and ``alg`` is ``algorithm`` or absent. Private members are ignored. Raises ``ValueError`` if the
    document is no key set, is too large, or has no such key, with a fragment that follows its file or URL.
    """
    if len(document) > MAX_SET_BYTES:
        raise ValueError(f"is a key set larger than {MAX_SET_BYTES >> 10}KiB")
    try:
        members = parse_object(document).get("keys")
    except ValueError as error:
        raise ValueError(f"contains no key set: {error}") from None
    if not isinstance(members, list):
        raise ValueError('contains no key set: a JSON object with a list "keys"')
    if len(members) > MAX_KEYS:
        raise ValueError(f"is a key set of more than {MAX_KEYS} keys")
    keys, passed_over = [], Counter[str]()
    for jwk in members:
        try:
            keys.append(_jwk(jwk, algorithm))
        except ValueError as error:
            passed_over[str(error)] += 1
    if not keys:
        reasons = "; ".join(f"{count} that {reason}" for reason, count in passed_over.items()) or "it is empty"
        raise ValueError(f"is a key set without a key for {algorithm}: {reasons}")
    return Keys.of(keys)


def _jwk(jwk: object, algorithm: str) -> Key:
    if not isinstance(jwk, dict) or jwk.get("kty") != KEY_TYPES[algorithm]:
        raise ValueError("is of another type")
    if jwk.get("use", "sig") != "sig" or jwk.get("alg", algorithm) != algorithm:
        raise ValueError("is for another use")
    if "key_ops" in jwk and not (isinstance(jwk["key_ops"], list) and "verify" in jwk["key_ops"]):
        raise ValueError("is for another use")
    kid = jwk.get("kid")
    if kid is not None and not (isinstance(kid, str) and 0 < len(kid) <= MAX_KEY_ID):
        raise ValueError("has an unusable kid")
    if algorithm == "HS256":
        return secret_key(_decoded(jwk.get("k")), kid)
    bits = int.from_bytes(_decoded(jwk.get("n")), "big").bit_length()
    if not MIN_RSA_BITS <= bits <= MAX_RSA_BITS:
        raise ValueError(f"has {bits} bits, of {MIN_RSA_BITS} to {MAX_RSA_BITS}")
    if len(_decoded(jwk.get("e"))) > 8:
        raise ValueError("is malformed")
    try:
        return Key(algorithm, kid, RSAKey.import_key({"kty": "RSA", "n": jwk["n"], "e": jwk["e"]}))
    except (JoseError, ValueError):
        raise ValueError("is malformed") from None


def _decoded(value: object) -> bytes:
    try:
        if isinstance(value, str) and len(value) <= 2 * MAX_RSA_BITS // 8:
            return urlsafe_b64decode(value.encode("ascii"))
    except ValueError:
        pass
    raise ValueError("is malformed")


def apart(
    issuer: str | None, ids: frozenset[str | None], other_issuer: str | None, other_ids: frozenset[str | None]
) -> bool:
    """Whether no token can match two verifiers of one algorithm, because their issuers or key ids differ.

    Empty ``ids`` match any ``kid``.
    """
    if issuer is not None and other_issuer is not None and issuer != other_issuer:
        return True
    return bool(ids) and bool(other_ids) and ids.isdisjoint(other_ids)


def check_rsa_bits(bits: int) -> None:
    """Raises ``ValueError`` for RSA keys that are weak, or so large that verification costs too much."""
    if bits < MIN_RSA_BITS:
        raise ValueError(f"contains an RSA key of {bits} bits: RS256 needs {MIN_RSA_BITS} or more (RFC 7518 §3.3)")
    if bits > MAX_RSA_BITS:
        raise ValueError(f"contains an RSA key of {bits} bits: the gateway takes up to {MAX_RSA_BITS}")
