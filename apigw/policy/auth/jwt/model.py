"""The configuration of verifiers of JWTs."""

from __future__ import annotations

from typing import Any

from attrs import field, frozen

from apigw.config.model import Secret


def _several(algorithm: str | tuple[str, ...]) -> tuple[str, ...]:
    return (algorithm,) if isinstance(algorithm, str) else algorithm


@frozen
class JWTVerifier:
    """A verifier of tokens. It has exactly one source of keys; the content of ``secret_file`` is in ``secret``.

    ``algorithm`` is empty for all that verify with a public key. ``claims`` are pairs of a claim and what it must be.
    """

    name: str
    algorithm: tuple[str, ...] = field(default=(), converter=_several)
    public_key_file: str | None = None
    secret: Secret | None = None
    jwks_file: str | None = None
    jwks_url: str | None = None
    openid: bool = False
    key_id: str | None = None
    issuer: str | None = None
    audience: tuple[str, ...] = ()
    leeway: float = 30.0
    token_type: str | None = None
    claims: tuple[tuple[str, Any], ...] = ()
    user_claim: str = "sub"
    roles_claim: str = "roles"
    roles_allowed: tuple[str, ...] = ()
