"""The configuration as values: frozen, hashable, compared by what they say.

Durations are seconds, sizes are bytes, paths are absolute. A value that was left out has its default here already,
except where the default is another setting (``None`` then; ``snapshot.compile`` resolves it).
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import Factory, field, frozen

from apigw.config.problem import Origin as Origin
from apigw.config.problem import Path as Path
from apigw.config.problem import Problem


@frozen
class Secret:
    """Bytes that never show in a repr, a log line or ``apigw show``."""

    value: bytes = field(repr=lambda _: "'…'")


@frozen
class Certificate:
    cert_file: str
    key_file: str


@frozen
class ServerTLS:
    certificates: tuple[Certificate, ...]
    min_version: str = "1.2"
    client_ca_file: str | None = None


@frozen
class Listen:
    endpoint: str
    tls: ServerTLS | None = None


@frozen
class AccessLog:
    """``file`` is ``-`` for stdout; ``format`` is ``json`` or ``combined``."""

    file: str = "-"
    format: str = "json"


@frozen
class Gateway:
    listen: tuple[Listen, ...] = (Listen("tcp:8080"),)
    admin: str | None = "tcp:9090:interface=127.0.0.1"
    admin_token_file: str | None = None
    request_timeout: float = 30.0
    client_body_timeout: float = 30.0
    client_header_timeout: float = 10.0
    client_least_rate: int | None = 1024
    keepalive_timeout: float = 75.0
    tunnel_idle_timeout: float = 3600.0
    drain_timeout: float = 30.0
    drain_delay: float = 0.0
    max_header_size: int = 32 * 1024
    max_header_count: int = 100
    max_body_size: int | None = 100 * 1024 * 1024
    max_buffered: int = 64 * 1024 * 1024
    max_connections: int = 10_000
    trusted_proxies: tuple[str, ...] = ()
    metrics_allow: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    access_log: AccessLog | None = AccessLog()
    auth_default: str | None = None


@frozen
class Redis:
    url: str
    password_file: str | None = None
    ca_file: str | None = None
    sentinels: tuple[tuple[str, int], ...] = ()
    sentinel_name: str | None = None
    prefix: str = "apigw"
    timeout: float = 0.1


@frozen
class Target:
    """One address of a service. ``scheme`` is ``http`` or ``https``; ``host`` a name or an address without brackets."""

    scheme: str
    host: str
    port: int
    weight: int = 1


@frozen
class UpstreamTLS:
    ca_file: str | None = None
    server_name: str | None = None
    client_cert_file: str | None = None
    client_key_file: str | None = None


@frozen
class HealthCheck:
    path: str = "/health"
    interval: float = 10.0
    timeout: float = 2.0
    unhealthy_after: int = 3
    healthy_after: int = 2


@frozen
class CircuitBreaker:
    error_rate: float = 0.5
    window: float = 60.0
    min_requests: int = 20
    open_for: float = 30.0
    half_open_requests: int = 3


@frozen
class Service:
    """A named backend. ``timeout`` is ``None`` where the gateway's ``request_timeout`` holds."""

    name: str
    targets: tuple[Target, ...]
    tls: UpstreamTLS = UpstreamTLS()
    connect_timeout: float = 5.0
    timeout: float | None = None
    keepalive_timeout: float = 4.0
    max_connections: int = 256
    max_pending: int = 1024
    preserve_host: bool = False
    critical: bool = True
    health_check: HealthCheck | None = None
    circuit_breaker: CircuitBreaker | None = None


@frozen
class Cors:
    origins: tuple[str, ...]
    credentials: bool = False
    max_age: float = 600.0


@frozen
class Route:
    """``methods`` is ``None`` for all. ``max_body_size``: ``UNSET`` where the gateway's holds, ``None`` for none."""

    path: str
    service: str
    methods: tuple[str, ...] | None = None
    auth: str | None = None
    roles: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    forward_token: bool = True
    strip_prefix: str | None = None
    timeout: float | None = None
    max_body_size: int | None = -1
    buffer_body: int = 64 * 1024
    cors: Cors | None = None


UNSET = -1


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
class AcceptedKey:
    """A key that verifies the gateway's own tokens without signing them: the one before, or the next."""

    key_id: str
    public_key_file: str | None = None
    secret: Secret | None = None


@frozen
class OAuthSigning:
    """``accepted`` holds the other keys while the signing key is rotated; with RS256 they are published too.

    RS256 without ``private_key_file`` signs with a key that is made at start, whose id begins with ``key_id``.
    """

    algorithm: str
    key_id: str
    private_key_file: str | None = None
    secret: Secret | None = None
    accepted: tuple[AcceptedKey, ...] = ()


@frozen
class OAuthClient:
    """``secret_hash`` holds several hashes while a secret is rotated."""

    id: str
    secret_hash: tuple[str, ...]
    roles: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()


@frozen
class Quota:
    limit: int
    window: float


@frozen
class OAuth:
    signing: OAuthSigning
    issuer: str
    audience: tuple[str, ...] = ()
    token_lifetime: float = 3600.0
    rate_limit: Quota = Quota(10, 60.0)
    refresh_tokens: bool = False
    clients: tuple[OAuthClient, ...] = ()


@frozen
class Auth:
    jwt: tuple[JWTVerifier, ...] = ()
    oauth: OAuth | None = None


@frozen
class RateLimit:
    """``scope``: user, ip, endpoint. ``algorithm``: auto, log, counter. ``on_store_failure``: local, open, closed."""

    endpoint: str
    limit: int
    window: float
    scope: str
    algorithm: str = "auto"
    on_store_failure: str = "local"


@frozen
class Config:
    """Everything the files said.

    ``origins`` maps a path such as ``("routes", 0, "path")`` to its place in them. ``warnings`` are worth a line in the
    log and no reason to refuse the configuration.
    """

    gateway: Gateway = Gateway()
    services: tuple[Service, ...] = ()
    routes: tuple[Route, ...] = ()
    redis: Redis | None = None
    auth: Auth | None = None
    rate_limits: tuple[RateLimit, ...] = ()
    origins: Mapping[Path, Origin] = field(default=Factory(dict), eq=False, hash=False, repr=False)
    warnings: tuple[Problem, ...] = field(default=(), eq=False, hash=False, repr=False)
