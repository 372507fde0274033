# Compiled: see docs/decisions/compiled.md
"""Who calls."""

from __future__ import annotations

import math
from collections.abc import Collection
from hashlib import blake2b


class Principal:
    """The authenticated caller. It holds while ``begins <= now < expires``, in Unix seconds with the leeway in them.

    ``fields`` are the identity headers for the service, names and values in UTF-8. ``key`` stands for provider and id
    together: at most 33 bytes, and never the same for two principals.
    """

    def __init__(
        self,
        provider: str,
        id: str,
        roles: tuple[str, ...] = (),
        scopes: frozenset[str] = frozenset(),
        begins: float = -math.inf,
        expires: float = math.inf,
    ) -> None:
        self.provider = provider
        self.id = id
        self.roles = roles
        self._roles = frozenset(roles)
        self.scopes = scopes
        self.begins = begins
        self.expires = expires
        self.key = key_of(provider, id)
        self.fields: list[tuple[bytes, bytes]] = [
            (b"x-user-id", id.encode()),
            (b"x-user-roles", ",".join(roles).encode()),
            (b"x-auth-provider", provider.encode()),
        ]

    def has_one_of(self, roles: Collection[str]) -> bool:
        return not self._roles.isdisjoint(roles)


def key_of(provider: str, id: str) -> bytes:
    issuer = provider.encode("utf-8", "surrogatepass")
    return bounded(b"u", b"%d:%b%b" % (len(issuer), issuer, id.encode("utf-8", "surrogatepass")))


def bounded(kind: bytes, text: bytes) -> bytes:
    """``text`` as it is where it is short, else a digest; ``kind`` is a small letter that tells what it is of."""
    return kind + text if len(text) < 32 else kind.upper() + blake2b(text, digest_size=24).digest()
