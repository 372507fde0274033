"""Verification of the tokens that the gateway itself issues."""

from __future__ import annotations

from attrs import frozen

from apigw.policy.auth.jwt.keys import Keys

PROVIDER = "oauth"
ACCESS_TOKEN_TYPES = frozenset({"at+jwt"})


@frozen(eq=False)
class OwnTokens:
    """``keys`` verify them. Their ``iss`` is ``issuer``, and their ``aud`` any of ``audience``."""

    algorithm: str
    keys: Keys
    issuer: str
    audience: tuple[str, ...]
