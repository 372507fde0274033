# Compiled: see docs/decisions/compiled.md
"""What a route demands of its caller, once that is known: roles, scopes and claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from apigw.contract.principal import Principal, reach
from apigw.errors import Forbidden
from apigw.policy.auth.refusals import BEARER

ClaimDemands = Sequence[tuple[str, Any]]
"""Pairs of a claim, with dots into nested ones, and what it must be: a text, number or boolean, or several of them."""


class Demands:
    """At least one of ``roles``, if there are any, all of ``scopes``, and all of ``claims``."""

    def __init__(self, roles: Sequence[str] = (), scopes: Sequence[str] = (), claims: ClaimDemands = ()) -> None:
        self.roles = frozenset(roles)
        self.scopes = tuple(scopes)
        self.claims = as_demanded(claims)

    def check(self, principal: Principal) -> None:
        """Raises ``Forbidden``, with the challenge of RFC 6750 §3.1 where the caller sent a token."""
        if self.roles and self.roles.isdisjoint(principal.roles):
            raise _forbidden(principal, "the caller has none of the required roles", "role")
        if not principal.scopes.issuperset(self.scopes):
            scope = b', scope="%s"' % " ".join(self.scopes).encode()
            raise _forbidden(principal, "the token lacks a required scope", "scope", scope)
        if self.claims and unmet(principal.claims, self.claims) is not None:
            raise _forbidden(principal, "a claim is not what the route demands", "claim")


def as_demanded(claims: ClaimDemands) -> tuple[tuple[str, tuple[Any, ...]], ...]:
    """Each with all values that it may have."""
    return tuple((name, tuple(value) if isinstance(value, (list, tuple)) else (value,)) for name, value in claims)


def unmet(claims: Mapping[str, Any], demanded: Sequence[tuple[str, tuple[Any, ...]]]) -> str | None:
    """The first of the demanded claims that has none of its values; a list has one if it contains it."""
    for name, accepted in demanded:
        found = reach(claims, name)
        values = found if isinstance(found, list) else [found]
        if not any(_equal(value, one) for value in values for one in accepted):
            return name
    return None


def _equal(value: object, demanded: object) -> bool:
    """As JSON sees it: ``1`` and ``1.0`` are equal, but neither is ``"1"`` or ``true``."""
    if isinstance(value, bool) or isinstance(demanded, bool):
        return value is demanded
    return value == demanded


def _forbidden(principal: Principal, detail: str, reason: str, more: bytes = b"") -> Forbidden:
    if not principal.by_token:
        return Forbidden(detail, (), reason)
    challenge = b'%s, error="insufficient_scope", error_description="%s"%s' % (BEARER, detail.encode(), more)
    return Forbidden(detail, [(b"www-authenticate", challenge)], reason)
