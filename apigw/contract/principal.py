# Compiled: see docs/decisions/compiled.md
"""Who calls."""

from __future__ import annotations

import math
from collections.abc import Collection


class Principal:
    """The authenticated caller. It holds while ``begins <= now < expires``, in Unix seconds with the leeway in them.

    ``lines`` are the identity headers for the service, in UTF-8, as HTTP/1.1 sends them.
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
        named = (("x-user-id", id), ("x-user-roles", ",".join(roles)), ("x-auth-provider", provider))
        self.lines = "".join([f"{name}: {value}\r\n" for name, value in named]).encode()

    def has_one_of(self, roles: Collection[str]) -> bool:
        return not self._roles.isdisjoint(roles)
