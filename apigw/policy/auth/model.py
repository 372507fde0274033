"""The configuration of authentication."""

from __future__ import annotations

from attrs import frozen

from apigw.config.model import Config, Open, Route, Secret


@frozen
class JWTVerifier:
    """A verifier of tokens. It has exactly one source of keys; the content of ``secret_file`` is in ``secret``."""

    name: str
    algorithm: str
    public_key_file: str | None = None
    secret: Secret | None = None
    jwks_file: str | None = None
    jwks_url: str | None = None
    key_id: str | None = None
    issuer: str | None = None
    audience: tuple[str, ...] = ()
    leeway: float = 30.0
    user_claim: str = "sub"
    roles_claim: str = "roles"


@frozen
class Auth(Open):
    """The section ``auth``. ``added`` has the keys of the token endpoint."""

    jwt: tuple[JWTVerifier, ...] = ()


@frozen
class AuthSection:
    auth: Auth | None = None


@frozen
class AuthOfGateway:
    auth_default: str | None = None


@frozen
class AuthOfRoute:
    """``auth`` is required, optional or none; ``None`` if the gateway's default applies (``demanded``)."""

    auth: str | None = None
    roles: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    forward_token: bool = True


def auth_of(config: Config) -> Auth | None:
    return config.of(AuthSection).auth


def demanded(config: Config, route: Route) -> str:
    """The ``auth`` of a route: required, optional or none."""
    given = config.gateway.of(AuthOfGateway).auth_default
    return route.of(AuthOfRoute).auth or default_auth(given, auth_of(config) is not None)


def default_auth(auth_default: str | None, has_auth: bool) -> str:
    """The ``auth`` of routes that do not set it."""
    return auth_default or ("required" if has_auth else "none")
