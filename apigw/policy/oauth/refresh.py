"""Refresh tokens (RFC 6749 §6), rotated at each use, with reuse detection (RFC 9700 §4.14.2).

A refresh token is ``<family>.<secret>``. A family has one record, with the digest of its current secret. A token with
another secret was used before, or is stolen: it ends the family.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import Protocol

from attrs import frozen
from twisted.internet.defer import Deferred, succeed

LIFETIME = 14 * 24 * 3600.0
CAPACITY = 100_000

_FORM = re.compile(r"([A-Za-z0-9_-]{22})\.([A-Za-z0-9_-]{43})")


@frozen
class Family:
    """All refresh tokens of one chain of rotations. ``expires`` is in Unix seconds, and rotation does not change it."""

    client: str
    scopes: tuple[str, ...]
    digest: str
    expires: float


class FamilyStore(Protocol):
    """Stores families by an id without personal data.

    A store forgets a family when it ``expires``, by its own clock or by ``now``. Its answer is a failure with a
    ``GatewayError`` when it cannot be reached.
    """

    def put(self, id: str, family: Family, now: float) -> Deferred[None]: ...

    def get(self, id: str, now: float) -> Deferred[Family | None]: ...

    def replace(self, id: str, digest: str, family: Family, now: float) -> Deferred[bool]:
        """Store ``family`` if the stored one has ``digest`` (compare and set). Fires with whether it was stored."""
        ...

    def remove(self, id: str) -> Deferred[None]: ...


class MemoryFamilies:
    """A ``FamilyStore`` in memory, for one process. Beyond ``capacity`` families, the client with the most loses its
    least recently used one, so that one client cannot displace another's."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._families: dict[str, Family] = {}
        self._of: dict[str, dict[str, None]] = {}
        """The ids of each client's families, the least recently used first."""

    def __len__(self) -> int:
        return len(self._families)

    def put(self, id: str, family: Family, now: float) -> Deferred[None]:
        self._keep(id, family)
        if len(self._families) > self._capacity:
            most = max(self._of.values(), key=len)
            self._forget(next(iter(most)))
        return succeed(None)

    def get(self, id: str, now: float) -> Deferred[Family | None]:
        family = self._families.get(id)
        return succeed(family if family is not None and now < family.expires else None)

    def replace(self, id: str, digest: str, family: Family, now: float) -> Deferred[bool]:
        current = self._families.get(id)
        if current is None or current.digest != digest or now >= current.expires:
            return succeed(False)
        self._keep(id, family)
        return succeed(True)

    def remove(self, id: str) -> Deferred[None]:
        self._forget(id)
        return succeed(None)

    def _keep(self, id: str, family: Family) -> None:
        self._forget(id)
        self._families[id] = family
        self._of.setdefault(family.client, {})[id] = None

    def _forget(self, id: str) -> None:
        family = self._families.pop(id, None)
        if family is not None:
            ids = self._of[family.client]
            del ids[id]
            if not ids:
                del self._of[family.client]


def new_token(family: str | None = None) -> tuple[str, str, str]:
    """The id of a family (a new one if none is given), a new token of it, and the digest that is stored."""
    id, secret = family or secrets.token_urlsafe(16), secrets.token_urlsafe(32)
    return id, f"{id}.{secret}", digest(secret)


def take_apart(token: str) -> tuple[str, str] | None:
    """The id of the family and the digest of a token; ``None`` if it is not one of ours."""
    found = _FORM.fullmatch(token)
    return (found[1], digest(found[2])) if found else None


def digest(secret: str) -> str:
    """The SHA-256 of a secret. It has 256 random bits, so that a plain hash suffices."""
    return hashlib.sha256(secret.encode()).hexdigest()
