"""What holds for a route once every default that is another setting has been looked up, and which paths are no routes'.

``check``, ``apigw routes``, the compiled snapshot and the public listener all ask here.
"""

from __future__ import annotations

from attrs import frozen

from apigw.config.model import UNSET, Config, Route, Service

ALWAYS = ("/health", "/ready", "/metrics")
OF_TOKENS = ("/oauth/token", "/.well-known/oauth-authorization-server")
OF_KEYS = ("/.well-known/jwks.json",)
"""The token endpoint's public keys: with RS256, as HS256 has nothing to publish."""


def reserved_paths(config: Config) -> tuple[str, ...]:
    """The paths that the gateway answers itself, before it looks for a route."""
    oauth = config.auth.oauth if config.auth is not None else None
    return reserved_with(None if oauth is None else oauth.signing.algorithm)


def reserved_with(algorithm: str | None) -> tuple[str, ...]:
    """The same; ``algorithm`` is what the token endpoint signs with, ``None`` where there is none."""
    if algorithm is None:
        return ALWAYS
    return ALWAYS + OF_TOKENS + (OF_KEYS if algorithm == "RS256" else ())


@frozen
class Effective:
    """What holds for a route. ``auth`` is required, optional or none; ``max_body_size`` is ``None`` for no limit."""

    service: Service
    auth: str
    timeout: float
    max_body_size: int | None
    buffer_body: int


def default_auth(auth_default: str | None, has_auth: bool) -> str:
    """What a route demands that says nothing of ``auth``."""
    return auth_default or ("required" if has_auth else "none")


def effective(config: Config, route: Route, service: Service) -> Effective:
    """``service`` is the one that the route names."""
    gateway = config.gateway
    return Effective(
        service=service,
        auth=route.auth or default_auth(gateway.auth_default, config.auth is not None),
        timeout=route.timeout or service.timeout or gateway.request_timeout,
        max_body_size=gateway.max_body_size if route.max_body_size == UNSET else route.max_body_size,
        buffer_body=route.buffer_body,
    )
