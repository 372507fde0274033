# Compiled: see docs/decisions/compiled.md
"""Makes a principal from the claims of a verified token, and authorizes it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from attrs import frozen

from apigw.contract.principal import Principal
from apigw.errors import Forbidden, Unauthorized

REALM = b'Bearer realm="apigw"'
LATEST_TIME = 253_402_300_800.0
MAX_ID = 256


@frozen
class Refusal:
    """A reason to refuse a token: ``reason`` is for metrics, ``detail`` for the caller. Calling it returns the 401."""

    reason: str
    detail: str
    error: str = "invalid_token"

    def __call__(self) -> Unauthorized:
        challenge = b'%s, error="%s", error_description="%s"' % (REALM, self.error.encode(), self.detail.encode())
        return Unauthorized(self.detail, [(b"www-authenticate", challenge)], self.reason)


def missing_token() -> Unauthorized:
    """The 401 for a missing token, without an error code (RFC 6750 §3.1)."""
    return Unauthorized("A token is required.", [(b"www-authenticate", REALM)], "missing")


EXPIRED = Refusal("expired", "the token has expired")
NOT_YET_VALID = Refusal("not_yet_valid", "the token is not valid yet")
ISSUED_IN_FUTURE = Refusal("issued_in_future", "the token was issued in the future")
WRONG_ISSUER = Refusal("issuer", "the token is from another issuer")
WRONG_AUDIENCE = Refusal("audience", "the token is for another audience")
NO_EXPIRY = Refusal("claims", "the token has no expiry")
BAD_TIME = Refusal("claims", "a time in the token is not a number of seconds")
BAD_STRING = Refusal("claims", "a claim that must be a string is something else")
BAD_AUDIENCE = Refusal("claims", "the audience is neither a string nor a list of strings")
BAD_ID = Refusal("claims", "the token does not name its user by a printable string")
BAD_ROLES = Refusal("claims", "the roles are not a list of printable strings without commas")
BAD_SCOPES = Refusal("claims", "the scopes are neither a string nor a list of strings")


def authorize(principal: Principal, roles: Collection[str], scopes: Collection[str]) -> None:
    """Check that the principal has at least one of ``roles``, if there are any, and all of ``scopes``.

    Raises ``Forbidden`` with the challenge of RFC 6750 §3.1.
    """
    if roles and not principal.has_one_of(roles):
        detail = "the caller has none of the required roles"
        challenge = b'%s, error="insufficient_scope", error_description="%s"' % (REALM, detail.encode())
        raise Forbidden(detail, [(b"www-authenticate", challenge)], "role")
    if scopes and not principal.scopes.issuperset(scopes):
        detail = "the token lacks a required scope"
        challenge = b'%s, error="insufficient_scope", error_description="%s", scope="%s"' % (
            REALM,
            detail.encode(),
            " ".join(scopes).encode(),
        )
        raise Forbidden(detail, [(b"www-authenticate", challenge)], "scope")


def is_name(value: object) -> bool:
    """Whether ``value`` may be an id or a role: printable, against header injection, without spaces at its ends."""
    return isinstance(value, str) and 0 < len(value) <= MAX_ID and value.isprintable() and value == value.strip()


def is_role(value: object) -> bool:
    """Whether ``value`` may be a role: no comma, because ``X-User-Roles`` is a comma-separated list."""
    return is_name(value) and "," not in value  # type: ignore[operator]  # is_name has said that it is text


@frozen
class ClaimRules:
    """The checks of a verifier's claims (RFC 7519 §4.1), and the names of the claims with id and roles."""

    provider: str
    issuer: str | None = None
    audience: frozenset[str] = frozenset()
    leeway: float = 30.0
    user_claim: str = "sub"
    roles_claim: str = "roles"

    def principal(self, claims: dict[str, Any], now: float) -> Principal:
        """The principal of verified ``claims``. Raises ``Unauthorized``."""
        for name in ("iss", "sub", "jti", "client_id"):
            if not isinstance(claims.get(name, ""), str):
                raise BAD_STRING()
        if self.issuer is not None and claims.get("iss") != self.issuer:
            raise WRONG_ISSUER()
        self._check_audience(claims.get("aud", ()))
        begins, expires = self._times(claims, now)
        user = _reach(claims, self.user_claim)
        if not is_name(user):
            raise BAD_ID()
        roles = _reach(claims, self.roles_claim, [])
        if not isinstance(roles, list) or not all(map(is_role, roles)):
            raise BAD_ROLES()
        return Principal(self.provider, user, tuple(roles), _scopes(claims), begins, expires)

    def _check_audience(self, audience: object) -> None:
        if isinstance(audience, str):
            audience = (audience,)
        if not isinstance(audience, (list, tuple)) or not all(isinstance(one, str) for one in audience):
            raise BAD_AUDIENCE()
        if self.audience and self.audience.isdisjoint(audience):
            raise WRONG_AUDIENCE()

    def _times(self, claims: dict[str, Any], now: float) -> tuple[float, float]:
        if "exp" not in claims:
            raise NO_EXPIRY()
        expires = _seconds(claims["exp"]) + self.leeway
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


def _reach(claims: dict[str, Any], path: str, default: Any = None) -> Any:
    """The claim of that very name (some providers use URLs as names), else the one that the dotted path leads to."""
    if path in claims:
        return claims[path]
    found: Any = claims
    for name in path.split("."):
        if not isinstance(found, dict):
            return None
        if name not in found:
            return default
        found = found[name]
    return found


def _scopes(claims: dict[str, Any]) -> frozenset[str]:
    """``scope`` (RFC 8693 §4.2), or else ``scp``, as other providers have it; each as one string or as a list."""
    value = claims.get("scope", claims.get("scp", ""))
    scopes = value.split(" ") if isinstance(value, str) else value
    if not isinstance(scopes, list) or not all(isinstance(scope, str) and scope.isprintable() for scope in scopes):
        raise BAD_SCOPES()
    return frozenset(scope for scope in scopes if scope)
