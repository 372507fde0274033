"""The configuration of token introspection."""

from __future__ import annotations

from typing import Any

from attrs import frozen

from apigw.config.model import Secret


@frozen
class IntrospectionProvider:
    """Times are seconds. ``claims`` are pairs of a claim and what it must be; the content of ``client_secret_file`` is
    in ``client_secret``."""

    name: str
    url: str
    client_id: str
    client_secret: Secret | None = None
    cache: float = 30.0
    timeout: float = 2.0
    issuer: str | None = None
    audience: tuple[str, ...] = ()
    token_type: str | None = None
    claims: tuple[tuple[str, Any], ...] = ()
    user_claim: str = "sub"
    roles_claim: str = "roles"
    roles_allowed: tuple[str, ...] = ()
