# Compiled: see docs/decisions/compiled.md
"""Who calls."""

from __future__ import annotations

import math
from collections.abc import Collection


class Principal:
    """The authenticated caller. It holds while ``begins <= now < expires``, in Unix seconds with the leeway in them.

    ``fields`` are the identity headers for the service, names and values in UTF-8.
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
        self.fields: list[tuple[bytes, bytes]] = [
            (b"x-user-id", id.encode()),
            (b"x-user-roles", ",".join(roles).encode()),
            (b"x-auth-provider", provider.encode()),
        ]

    def has_one_of(self, roles: Collection[str]) -> bool:
        return not self._roles.isdisjoint(roles)
