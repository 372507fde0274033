# Compiled: see docs/decisions/compiled.md
"""The authenticated caller."""

from __future__ import annotations

import math
from collections.abc import Mapping
from hashlib import blake2b
from json import loads
from typing import Any, Final

IDENTITY: Final = frozenset({b"x-user-id", b"x-user-roles", b"x-auth-provider"})
"""The fields of a request that tell the service who calls. From clients they are taken on every route."""


class Principal:
    """The authenticated caller. Valid while ``begins <= now < expires``, in Unix seconds that include the leeway.

    ``provider`` is the name of the verifier, ``id`` the caller's id there. ``fields`` are the identity headers for the
    service, in UTF-8. ``key`` identifies provider and id together, in at most 32 bytes; it differs between callers.
    ``document`` is the JSON object of the ``claims``. They are parsed when somebody asks for them: most routes do not,
    and the dicts of all tokens that are remembered would take several times the memory.
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
        self.scopes = scopes
        self.begins = begins
        self.expires = expires
        self.key = key_of(provider, id)
        self.by_token = False
        """Whether it sent a bearer token: only then a refusal names what the token lacks (RFC 6750)."""
        self.document = b"{}"
        self._claims: Mapping[str, Any] | None = None
        self.fields: list[tuple[bytes, bytes]] = [
            (b"x-user-id", id.encode()),
            (b"x-user-roles", ",".join(roles).encode()),
            (b"x-auth-provider", provider.encode()),
        ]

    @property
    def claims(self) -> Mapping[str, Any]:
        """What else is known of the caller, such as the claims of its token, by their names."""
        claims = self._claims
        if claims is None:
            claims = self._claims = loads(self.document)
            self.document = b""
        return claims


def reach(claims: Mapping[str, Any], path: str) -> Any:
    """The claim of that very name (some providers use URLs as names), else the one that the dotted path leads to.

    ``None`` if there is none.
    """
    if path in claims:
        return claims[path]
    found: Any = claims
    for name in path.split("."):
        if not isinstance(found, dict):
            return None
        found = found.get(name)
    return found


def key_of(provider: str, id: str) -> bytes:
    """``Principal.key``. The provider's length is part of it, so that no two pairs give the same text."""
    issuer = provider.encode("utf-8", "surrogatepass")
    return bounded(b"u", b"%d:%b%b" % (len(issuer), issuer, id.encode("utf-8", "surrogatepass")))


def bounded(kind: bytes, text: bytes) -> bytes:
    """A key of at most 32 bytes: ``kind`` and ``text`` if that is under 32 bytes, else the capital and a digest.

    ``kind`` is a lower-case letter for the kind of text. BLAKE2b of 24 bytes: a collision takes some 2^96 attempts.
    """
    return kind + text if len(text) < 32 else kind.upper() + blake2b(text, digest_size=24).digest()
