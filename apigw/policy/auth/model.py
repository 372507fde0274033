"""The configuration of authentication."""

from __future__ import annotations

from typing import Any

from attrs import frozen

from apigw.config.model import Config, Open, Route
from apigw.policy.auth.api_keys.model import APIKeys
from apigw.policy.auth.basic.model import BasicProvider
from apigw.policy.auth.introspection.model import IntrospectionProvider
from apigw.policy.auth.jwt.model import JWTVerifier
from apigw.policy.auth.mtls.model import CertificateProvider


@frozen
class Auth(Open):
    """The section ``auth``. ``added`` has the keys of the token endpoint."""

    jwt: tuple[JWTVerifier, ...] = ()
    api_keys: tuple[APIKeys, ...] = ()
    basic: tuple[BasicProvider, ...] = ()
    mtls: tuple[CertificateProvider, ...] = ()
    introspection: tuple[IntrospectionProvider, ...] = ()
    max_token_size: int = 8 * 1024


@frozen
class AuthSection:
    auth: Auth | None = None


@frozen
class AuthOfGateway:
    auth_default: str | None = None


@frozen
class AuthOfRoute:
    """``auth`` is required, optional or none; ``None`` if the gateway's default applies (``demanded``).

    ``providers`` are the names of those that are believed, ``None`` for all. ``claims`` are pairs of a claim and what
    it must be.
    """

    auth: str | None = None
    roles: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    forward_token: bool = True
    providers: tuple[str, ...] | None = None
    claims: tuple[tuple[str, Any], ...] = ()


def auth_of(config: Config) -> Auth | None:
    return config.of(AuthSection).auth


def demanded(config: Config, route: Route) -> str:
    """The ``auth`` of a route: required, optional or none."""
    given = config.gateway.of(AuthOfGateway).auth_default
    return route.of(AuthOfRoute).auth or default_auth(given, auth_of(config) is not None)


def default_auth(auth_default: str | None, has_auth: bool) -> str:
    """The ``auth`` of routes that do not set it."""
    return auth_default or ("required" if has_auth else "none")
