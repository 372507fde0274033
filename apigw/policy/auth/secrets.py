"""Secrets of OAuth clients, and passwords: generation, hashes, verification.

A stored hash is ``sha256$<hex>`` for a generated secret of 256 random bits, which cannot be guessed, or
``scrypt$<n>$<r>$<p>$<salt>$<hash>`` (RFC 7914) for a chosen one.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import Counter
from collections.abc import Iterable

from attrs import field, frozen

MIN_CHOSEN = 16
MAX_SECRET = 256
N, R, P = 2**14, 8, 1
MAX_MEMORY = 64 * 1024 * 1024

_SCRYPT = re.compile(r"scrypt\$(\d{1,7})\$(\d{1,2})\$(\d{1,2})\$([A-Za-z0-9_-]{22,86})\$([A-Za-z0-9_-]{43})")
_SHA256 = re.compile(r"sha256\$([0-9a-f]{64})")
_CHOSEN = re.compile(r"[!-$&-~]+")

Cost = tuple[int, int, int] | None
"""The cost of checking a hash: scrypt's n, r and p; ``None`` for SHA-256."""


def new_secret() -> str:
    """A random secret of 256 bits, in characters that need no escaping."""
    return secrets.token_urlsafe(32)


def hash_generated(secret: str) -> str:
    """The stored hash of a secret from ``new_secret``."""
    return "sha256$" + hashlib.sha256(secret.encode()).hexdigest()


def hash_secret(secret: str) -> str:
    """The stored hash of a chosen secret, which takes some 40 ms. Raises ``ValueError`` for an unsuitable secret.

    Spaces and ``%`` are refused, because clients disagree on how HTTP Basic carries them (RFC 6749 §2.3.1).
    """
    if len(secret) < MIN_CHOSEN:
        raise ValueError(f"a secret must have at least {MIN_CHOSEN} characters")
    if len(secret) > MAX_SECRET:
        raise ValueError(f"a secret may have at most {MAX_SECRET} characters")
    if not _CHOSEN.fullmatch(secret):
        raise ValueError("a secret may contain only printable ASCII characters, without spaces and %")
    if len(set(secret)) < 6:
        raise ValueError("a secret must have at least 6 different characters")
    salt = os.urandom(16)
    return f"scrypt${N}${R}${P}${_encode(salt)}${_encode(_scrypt(secret, salt, (N, R, P)))}"


@frozen
class SecretHash:
    """One stored hash."""

    cost: Cost
    digest: bytes = field(repr=False)
    salt: bytes = field(default=b"", repr=False)

    @classmethod
    def parse(cls, stored: str) -> SecretHash:
        """Parse a stored hash. Raises ``ValueError``, also for parameters that are too weak or too costly.

        The message is a sentence fragment that follows the hash.
        """
        if found := _SHA256.fullmatch(stored):
            return cls(None, bytes.fromhex(found[1]))
        found = _SCRYPT.fullmatch(stored)
        if found is None:
            raise ValueError("is not a hash that `apigw hash-secret` makes: scrypt$… or sha256$…, copied whole")
        n, r, p = int(found[1]), int(found[2]), int(found[3])
        if n & (n - 1) or n < N or r < R or not 1 <= p <= 4 or 128 * n * r > MAX_MEMORY:
            raise ValueError(
                "is a hash with parameters that are too weak or too costly: make it with `apigw hash-secret`"
            )
        return cls((n, r, p), _decode(found[5]), _decode(found[4]))

    def matches(self, secret: str) -> bool:
        """Whether ``secret`` has this hash (compared in constant time)."""
        if self.cost is None:
            computed = hashlib.sha256(secret.encode()).digest()
        else:
            computed = _scrypt(secret, self.salt, self.cost)
        return hmac.compare_digest(computed, self.digest)


def decoy(cost: Cost) -> SecretHash:
    """A dummy hash: no secret matches it, and checking it costs as much as a real one."""
    return SecretHash(cost, os.urandom(33), os.urandom(16))


def decoys(clients: Iterable[tuple[SecretHash, ...]]) -> tuple[SecretHash, ...]:
    """The dummy hashes to check for an unknown client, so that this costs as much as the most costly of ``clients``."""
    dearest: Counter[Cost] = Counter()
    for hashes in clients:
        dearest |= Counter(each.cost for each in hashes)
    return tuple(map(decoy, dearest.elements()))


def verify(secret: str, hashes: tuple[SecretHash, ...], decoys: tuple[SecretHash, ...]) -> bool:
    """Whether one of ``hashes`` matches. If none does, the time is that of ``decoys``, independent of ``hashes``."""
    unused = list(decoys)
    for each in hashes:
        if each.matches(secret):
            return True
        unused.remove(next(one for one in unused if one.cost == each.cost))
    for each in unused:
        each.matches(secret)
    return False


def _scrypt(secret: str, salt: bytes, cost: tuple[int, int, int]) -> bytes:
    n, r, p = cost
    return hashlib.scrypt(secret.encode(), salt=salt, n=n, r=r, p=p, maxmem=2 * MAX_MEMORY, dklen=32)


def _encode(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))
