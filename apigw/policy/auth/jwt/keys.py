"""Keys that verify signatures, read from PEM files, secrets and JWK sets (RFC 7517).

Each key is pinned to what it can do: an RSA key never serves as a secret, nor a P-256 key for ES384. Parsing is strict,
because tokens and key sets come from outside. A ``ValueError`` says what is wrong with a key, but contains no part of
it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from hashlib import sha256
from typing import Any

import attrs
from attrs import Factory, define, frozen
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from apigw.config.files import read
from apigw.config.model import Secret
from apigw.policy.auth.jwt.algorithms import SECRET, Verify, VerifyHMAC, prepared
from apigw.policy.auth.jwt.public_keys import algorithms_of, decoded, encoded, kind_of, read_jwk, read_pem
from apigw.policy.auth.strict_json import parse_object

MIN_SECRET = 32
MIN_DIFFERENT = 6
"""Different bytes in a secret, as in a client's: of 32 random digits, the poorest that are in use, one in 10 million
has fewer."""
MAX_SET_BYTES = 256 * 1024
MAX_KEYS = 100
MAX_ALIKE = 8
MAX_KEY_ID = 256

_PUBLIC = "is a key in PEM or OpenSSH form, not a secret: anybody may have the public half of it"


@define(eq=False)
class Key:
    """A key. ``prepared`` has it for each algorithm that it may be used with. ``retired`` is set when it has left its
    key set. ``public`` is that of cryptography, ``None`` for a secret."""

    id: str | None
    prepared: Mapping[str, Verify] = attrs.field(repr=False)
    public: Any = attrs.field(repr=False)
    fingerprint: bytes = attrs.field(repr=False)
    retired: bool = False

    def verifies(self, algorithm: str, signed: bytes, signature: bytes) -> bool:
        """Whether this key made the signature; ``algorithm`` is one that it is ``prepared`` for."""
        return self.prepared[algorithm].verifies(signed, signature)

    def same_as(self, other: Key) -> bool:
        mine, others = (self.id, self.fingerprint, self.prepared.keys()), (other.id, other.fingerprint)
        return mine == (*others, other.prepared.keys())


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

    def able(self, algorithm: str) -> tuple[Key, ...]:
        """The keys for a token without ``kid``: those without one that can do ``algorithm``; else all that can.

        None if these are more than ``MAX_ALIKE``.
        """
        keys = [key for key in self.nameless or self if algorithm in key.prepared]
        return tuple(keys) if len(keys) <= MAX_ALIKE else ()

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


def configured_key(
    algorithms: Collection[str], key_id: str | None, public_key_file: str | None, secret: Secret | None
) -> Key:
    """The verification key of one entry of the configuration. Raises ``KeyProblem``."""
    try:
        if SECRET in algorithms and secret is not None:
            return secret_key(secret.value, key_id)
    except ValueError as error:
        raise KeyProblem("secret", str(error)) from None
    if SECRET not in algorithms and public_key_file is not None:
        pem = read_file("public_key_file", public_key_file)
        try:
            return public_key(read_pem(pem), key_id, algorithms)
        except ValueError as error:
            raise KeyProblem("public_key_file", f"{public_key_file!r} {error}") from None
    field = "public_key_file" if secret is None else "secret"
    raise KeyProblem(
        field, "does not fit the algorithm: HS256 verifies with a secret, the others with a public_key_file"
    )


def public_key(key: Any, key_id: str | None, algorithms: Collection[str]) -> Key:
    """A key of cryptography for all of ``algorithms``. Raises ``ValueError`` if it is weak, or cannot do one."""
    able = algorithms_of(key)
    for algorithm in algorithms:
        if algorithm not in able:
            raise ValueError(f"contains {kind_of(key)}, which does not fit {algorithm}: it can do {', '.join(able)}")
    return Key(key_id, {each: prepared(key, each) for each in algorithms}, key, sha256(encoded(key)).digest())


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
        OctKey.import_key(secret)
    except (JoseError, ValueError):
        raise ValueError(_PUBLIC) from None
    return Key(key_id, {SECRET: VerifyHMAC(secret)}, None, sha256(secret).digest())


def key_set(document: bytes, algorithms: Collection[str]) -> Keys:
    """The keys of a JWK set that can verify one of ``algorithms``; others are ignored (RFC 7517 §5).

    A key is used if it is of the right type and size, ``use`` is ``sig`` or absent, ``key_ops`` contains ``verify`` or
    is absent; with ``alg``, for that algorithm alone. Raises ``ValueError`` if the document is no key set, is too
    large, or has no such key, with a fragment that follows its file or URL.
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
            keys.append(_jwk(jwk, algorithms))
        except ValueError as error:
            passed_over[str(error)] += 1
    if not keys:
        reasons = "; ".join(f"{count} that {reason}" for reason, count in passed_over.items()) or "it is empty"
        wanted = ", ".join(algorithms) if len(algorithms) <= 4 else "any algorithm"
        raise ValueError(f"is a key set without a key for {wanted}: {reasons}")
    return Keys.of(keys)


def _jwk(jwk: object, algorithms: Collection[str]) -> Key:
    if not isinstance(jwk, dict):
        raise ValueError("is of another type")
    if jwk.get("use", "sig") != "sig":
        raise ValueError("is for another use")
    if "key_ops" in jwk and not (isinstance(jwk["key_ops"], list) and "verify" in jwk["key_ops"]):
        raise ValueError("is for another use")
    kid = jwk.get("kid")
    if kid is not None and not (isinstance(kid, str) and 0 < len(kid) <= MAX_KEY_ID):
        raise ValueError("has an unusable kid")
    if jwk.get("kty") == "oct":
        if SECRET not in algorithms:
            raise ValueError("is of another type")
        if jwk.get("alg", SECRET) != SECRET:
            raise ValueError("is for another use")
        return secret_key(decoded(jwk.get("k")), kid)
    key = read_jwk(jwk)
    wanted = [each for each in algorithms_of(key) if each in algorithms]
    if not wanted:
        raise ValueError("is of another type")
    if "alg" in jwk:
        wanted = [each for each in wanted if each == jwk["alg"]]
    if not wanted:
        raise ValueError("is for another use")
    return public_key(key, kid, wanted)


def apart(
    issuer: str | None, ids: frozenset[str | None], other_issuer: str | None, other_ids: frozenset[str | None]
) -> bool:
    """Whether no token can match two verifiers of one algorithm, because their issuers or key ids differ.

    Empty ``ids`` match any ``kid``.
    """
    if issuer is not None and other_issuer is not None and issuer != other_issuer:
        return True
    return bool(ids) and bool(other_ids) and ids.isdisjoint(other_ids)
