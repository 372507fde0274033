# Compiled: see docs/decisions/compiled.md
"""Makes a principal from the claims of a verified token."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

from attrs import frozen

from apigw.contract.principal import Principal, reach
from apigw.policy.auth.authorization import unmet
from apigw.policy.auth.refusals import EXPIRED, Refusal

LATEST_TIME = 253_402_300_800.0
MAX_ID = 256

NOT_YET_VALID = Refusal("not_yet_valid", "the token is not valid yet")
ISSUED_IN_FUTURE = Refusal("issued_in_future", "the token was issued in the future")
WRONG_ISSUER = Refusal("issuer", "the token is from another issuer")
WRONG_AUDIENCE = Refusal("audience", "the token is for another audience")
NO_EXPIRY = Refusal("claims", "the token has no expiry")
BAD_TIME = Refusal("claims", "a time in the token is not a number of seconds")
BAD_AUDIENCE = Refusal("claims", "the audience is neither a string nor a list of strings")
BAD_ID = Refusal("claims", "the token does not name its user by a printable string")
UNMET = Refusal("claims", "a claim of the token is not what its provider is configured to demand")


def is_name(value: object) -> bool:
    """Whether ``value`` may be an id or a role: printable, against header injection, without spaces at its ends."""
    return isinstance(value, str) and 0 < len(value) <= MAX_ID and value.isprintable() and value == value.strip()


def is_role(value: object) -> bool:
    """Whether ``value`` may be a role: no comma, because ``X-User-Roles`` is a comma-separated list."""
    return is_name(value) and "," not in value  # type: ignore[operator]  # is_name has said that it is text


def allowed(patterns: Iterable[str]) -> re.Pattern[str] | None:
    """Matches a role that one of ``patterns`` allows, in which ``*`` stands for any characters; in linear time."""
    parts = [_expression(pattern) for pattern in patterns]
    return re.compile("|".join(parts), re.DOTALL) if parts else None


def _expression(pattern: str) -> str:
    """The first place of what stands between two stars is always good enough: atomic groups keep to it."""
    first, *middle = map(re.escape, re.split(r"\*+", pattern))
    if not middle:
        return first
    last = middle.pop()
    return first + "".join(f"(?>.*?{text})" for text in middle) + ".*" + last


@frozen
class ClaimRules:
    """The checks of a verifier's claims (RFC 7519 §4.1), and the names of the claims with id and roles.

    ``claims`` are what the token must have, as of ``authorization.as_demanded``. ``roles_allowed``: other roles are
    dropped. ``needs_expiry``: whether a token without ``exp`` is refused.
    """

    provider: str
    issuer: str | None = None
    audience: frozenset[str] = frozenset()
    leeway: float = 30.0
    user_claim: str = "sub"
    roles_claim: str = "roles"
    claims: tuple[tuple[str, tuple[Any, ...]], ...] = ()
    roles_allowed: re.Pattern[str] | None = None
    needs_expiry: bool = True

    def principal(self, claims: dict[str, Any], now: float) -> Principal:
        """The principal of verified ``claims``. Raises ``Unauthorized``.

        What nobody asks for cannot spoil a token: unusable roles and scopes are none at all.
        """
        if self.issuer is not None and claims.get("iss") != self.issuer:
            raise WRONG_ISSUER()
        if self.audience:
            self._check_audience(claims.get("aud", ()))
        begins, expires = self._times(claims, now)
        user = reach(claims, self.user_claim)
        if not is_name(user):
            raise BAD_ID()
        if self.claims and unmet(claims, self.claims) is not None:
            raise UNMET()
        roles = _roles(reach(claims, self.roles_claim))
        if self.roles_allowed is not None:
            roles = tuple(filter(self.roles_allowed.fullmatch, roles))
        return Principal(self.provider, user, roles, _scopes(claims), begins, expires)

    def _check_audience(self, audience: object) -> None:
        if isinstance(audience, str):
            audience = (audience,)
        if not isinstance(audience, (list, tuple)) or not all(isinstance(one, str) for one in audience):
            raise BAD_AUDIENCE()
        if self.audience.isdisjoint(audience):
            raise WRONG_AUDIENCE()

    def _times(self, claims: dict[str, Any], now: float) -> tuple[float, float]:
        if "exp" not in claims and self.needs_expiry:
            raise NO_EXPIRY()
        expires = _seconds(claims["exp"]) + self.leeway if "exp" in claims else math.inf
        not_before = _seconds(claims.get("nbf", 0)) - self.leeway
        issued = _seconds(claims.get("iat", 0)) - self.leeway
        if now >= expires:
            raise EXPIRED()
        if now < not_before:
            raise NOT_YET_VALID()
        if now < issued:
            raise ISSUED_IN_FUTURE()
        return max(not_before, issued), expires


def _seconds(value: object) -> float:
    # the upper bound is the year 10000: what lies beyond is infinite, or counts milliseconds
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < LATEST_TIME:
        return float(value)
    raise BAD_TIME()


def _roles(value: object) -> tuple[str, ...]:
    """A list of roles, or one as a text."""
    roles: list[Any] = value if isinstance(value, list) else [value]
    return tuple(roles) if all(map(is_role, roles)) else ()


def _scopes(claims: dict[str, Any]) -> frozenset[str]:
    """``scope`` (RFC 8693 §4.2), or else ``scp``, as other providers have it; each as one string or as a list."""
    value = claims.get("scope", claims.get("scp", ""))
    scopes = value.split(" ") if isinstance(value, str) else value
    if not isinstance(scopes, list) or not all(isinstance(scope, str) and scope.isprintable() for scope in scopes):
        return frozenset()
    return frozenset(scope for scope in scopes if scope)
