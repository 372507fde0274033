"""What the configuration says of authentication, as values."""

from __future__ import annotations

from attrs import frozen

from apigw.config.model import Config, Open, Route, Secret


@frozen
class JWTVerifier:
    """One way to verify a token. Exactly one key source is given; ``secret_file`` is read into ``secret``."""

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
    """The section ``auth``. The gateway's own tokens have their place among its ``added`` keys."""

    jwt: tuple[JWTVerifier, ...] = ()


@frozen
class AuthSection:
    auth: Auth | None = None


@frozen
class AuthOfGateway:
    auth_default: str | None = None


@frozen
class AuthOfRoute:
    """``auth`` is required, optional or none; ``None`` where the gateway's default holds (``demanded``)."""

    auth: str | None = None
    roles: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    forward_token: bool = True


def auth_of(config: Config) -> Auth | None:
    return config.of(AuthSection).auth


def demanded(config: Config, route: Route) -> str:
    """What a route demands: required, optional or none."""
    given = config.gateway.of(AuthOfGateway).auth_default
    return route.of(AuthOfRoute).auth or default_auth(given, auth_of(config) is not None)


def default_auth(auth_default: str | None, has_auth: bool) -> str:
    """What a route demands that says nothing of ``auth``."""
    return auth_default or ("required" if has_auth else "none")
