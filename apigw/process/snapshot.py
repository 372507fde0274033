"""One generation of the configuration, ready for requests: immutable, and complete before the first one sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any

from attrs import field, frozen

from apigw.config.effective import effective
from apigw.config.errors import ConfigError, Problem, problem_in
from apigw.config.files import read
from apigw.config.model import Config, Cors, Service
from apigw.config.model import Route as RouteConfig
from apigw.ops.metrics import RouteSeries
from apigw.policy.auth.jwks import KeySet, carry_over
from apigw.policy.auth.jwt import Authenticator
from apigw.policy.auth.signing import Signer, load_signer
from apigw.policy.limits.limits import Limit, Selection, compile_limit, select
from apigw.policy.oauth.endpoint import Allow, Run, TokenEndpoint, metadata
from apigw.policy.oauth.refresh import FamilyStore
from apigw.process import admin_token
from apigw.proxy.headers import Peers
from apigw.routing.pattern import Pattern
from apigw.routing.router import Router
from apigw.upstream.upstream import Upstream
from apigw.wire.channel import Settings
from apigw.wire.tls import reason

UpstreamKey = tuple[Service, bytes]
"""A service as configured, and a digest of the files that its TLS names: the same key means the same pools."""


@frozen(eq=False)
class Demand:
    """What a route wants to know of the caller. Unless ``required``, no token passes, but a bad one does not."""

    authenticator: Authenticator
    required: bool
    roles: tuple[str, ...]
    scopes: tuple[str, ...]


@frozen(eq=False)
class Route:
    """What a matched request meets. Times are seconds; ``max_body_size`` is bytes, None for no limit."""

    pattern: str
    methods: tuple[str, ...] | None
    upstream: Upstream
    timeout: float
    max_body_size: int | None
    strip: int
    """How many raw segments of the path the service does not see."""
    buffer_body: int
    """Bytes of a body that is read whole before a connection to the service is taken; 0 where none is waited for."""
    preserve_host: bool
    forward_token: bool
    cors: Cors | None
    demand: Demand | None
    """None where nobody is asked who calls."""
    limits: Selection | None
    """None where none can apply."""
    address_limits: Selection
    """Those of ``limits`` to which a 401 is charged."""
    series: RouteSeries


@frozen(eq=False)
class OAuthServer:
    """The gateway's own token endpoint, and the documents that describe it."""

    endpoint: TokenEndpoint
    metadata: dict[str, Any]
    jwks: dict[str, Any] | None
    signer: Signer


@frozen(eq=False)
class Snapshot:
    config: Config
    routes: tuple[Route, ...]
    """In the order of the configuration."""
    router: Router[Route]
    peers: Peers
    metrics_allowed: Peers
    """Who may read ``/metrics`` on a public port."""
    settings: Settings
    upstreams: Mapping[UpstreamKey, Upstream]
    preflights: bool
    """Whether any route answers CORS preflights: where none does, nobody looks for them."""
    key_sets: Mapping[str, KeySet]
    oauth: OAuthServer | None
    limits: tuple[Limit, ...]
    """All of them, in the order of the configuration."""
    admin_token: bytes | None = field(repr=False)
    """What a write on the admin listener must bring; None where there are no writes."""
    log_decisions: bool
    """Whether each routing decision is worth a line at debug level."""


@frozen(eq=False)
class Parts:
    """What a snapshot is made with, and what outlives it: how to build an upstream and fetch a key set, where exchanges
    are counted, and what the token endpoint keeps."""

    build: Callable[[Service], Upstream]
    key_set: Callable[[str], KeySet]
    series: Callable[[str], RouteSeries]
    allow: Allow
    run: Run
    families: FamilyStore
    log_decisions: bool = False


def compile(config: Config, previous: Snapshot | None, parts: Parts) -> Snapshot:
    """Make ``config`` ready. What ``previous`` has for the same service is used again; ``previous`` is not changed.

    Raises ``ConfigError`` for what only shows now, such as a certificate that cannot be read.
    """
    upstreams: dict[UpstreamKey, Upstream] = {}
    named: dict[str, Upstream] = {}
    problems: list[Problem] = []
    for service in config.services:
        path = ("services", service.name)
        try:
            key = (service, _digest(service))
            kept = previous.upstreams.get(key) if previous is not None else None
            named[service.name] = upstreams[key] = kept or parts.build(service)
        except Exception as error:
            problems.append(problem_in(config, path, f"cannot be set up: {reason(error)}"))
    if problems:
        raise ConfigError(problems)
    gateway = config.gateway
    key_sets, authenticator, oauth = _authentication(config, previous, parts)
    limits = _limits(config)
    routes = []
    for route in config.routes:
        upstream = named[route.service]
        service = upstream.service
        holds = effective(config, route, service)
        methods = None if route.methods is None else frozenset(method.encode("ascii") for method in route.methods)
        compiled = Route(
            pattern=route.path,
            methods=route.methods,
            upstream=upstream,
            timeout=holds.timeout,
            max_body_size=holds.max_body_size,
            buffer_body=holds.buffer_body,
            strip=_segments(route.strip_prefix or "/"),
            preserve_host=service.preserve_host,
            forward_token=route.forward_token,
            cors=route.cors,
            demand=_demand(route, holds.auth, authenticator),
            limits=(selected := select(limits, Pattern.parse(route.path))) or None,
            address_limits=selected.of_addresses(),
            series=parts.series(route.path),
        )
        routes.append((route.path, methods, compiled))
    settings = Settings(
        client_header_timeout=gateway.client_header_timeout,
        client_body_timeout=gateway.client_body_timeout,
        client_least_rate=gateway.client_least_rate,
        keepalive_timeout=gateway.keepalive_timeout,
        max_header_size=gateway.max_header_size,
        max_header_count=gateway.max_header_count,
        max_connections=gateway.max_connections,
    )
    return Snapshot(
        config=config,
        routes=tuple(compiled for _, _, compiled in routes),
        router=Router(routes),
        peers=Peers(gateway.trusted_proxies),
        metrics_allowed=Peers(gateway.metrics_allow),
        settings=settings,
        upstreams=upstreams,
        preflights=any(route.cors for route in config.routes),
        key_sets=key_sets,
        oauth=oauth,
        limits=limits,
        admin_token=_admin_token(config),
        log_decisions=parts.log_decisions,
    )


def _authentication(
    config: Config, previous: Snapshot | None, parts: Parts
) -> tuple[Mapping[str, KeySet], Authenticator | None, OAuthServer | None]:
    """Raises ``ConfigError`` for keys that cannot be used."""
    auth = config.auth
    if auth is None:
        return {}, None, None
    urls = [verifier.jwks_url for verifier in auth.jwt if verifier.jwks_url is not None]
    key_sets = carry_over(urls, previous.key_sets if previous is not None else {}, parts.key_set)
    if auth.oauth is None:
        return key_sets, Authenticator(auth, key_sets, None, config.origins), None
    before = previous.oauth.signer if previous is not None and previous.oauth is not None else None
    signer = load_signer(auth.oauth.signing, config.origins, before)
    endpoint = TokenEndpoint(auth.oauth, signer, parts.allow, parts.run, parts.families, config.origins)
    server = OAuthServer(endpoint, metadata(auth.oauth), signer.jwks(), signer)
    return key_sets, Authenticator(auth, key_sets, signer, config.origins), server


def _limits(config: Config) -> tuple[Limit, ...]:
    """Raises ``ConfigError``."""
    limits = []
    for index, limit in enumerate(config.rate_limits):
        try:
            limits.append(compile_limit(limit))
        except ValueError as error:
            raise ConfigError([problem_in(config, ("rate_limits", index), f"cannot be kept: {error}")]) from None
    return tuple(limits)


def _admin_token(config: Config) -> bytes | None:
    """Raises ``ConfigError`` for one that cannot be used."""
    file = config.gateway.admin_token_file
    if file is None:
        return None
    path = ("gateway", "admin_token_file")
    try:
        return admin_token.parse(read(file))
    except ValueError as error:
        raise ConfigError([problem_in(config, path, f"{file!r} {error}")]) from None


def _demand(route: RouteConfig, auth: str, authenticator: Authenticator | None) -> Demand | None:
    if auth == "none" or authenticator is None:
        return None
    return Demand(authenticator, auth == "required", route.roles, route.scopes)


def _segments(prefix: str) -> int:
    return prefix.strip("/").count("/") + 1 if prefix != "/" else 0


def _digest(service: Service) -> bytes:
    digest = blake2b(digest_size=16)
    for file in (service.tls.ca_file, service.tls.client_cert_file, service.tls.client_key_file):
        if file is not None:
            with open(file, "rb") as content:
                digest.update(blake2b(content.read()).digest())
    return digest.digest()
