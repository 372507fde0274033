"""The configuration as values: frozen, hashable, compared by what they say.

Durations are seconds, sizes are bytes, paths are absolute. A value that was left out has its default here already,
except where the default is another setting (``None`` then; ``effective`` looks it up).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from attrs import Factory, field, frozen

from apigw.config.problem import Origin as Origin
from apigw.config.problem import Path as Path
from apigw.config.problem import Problem

ALWAYS = ("/health", "/ready", "/metrics")
"""What every gateway answers itself."""

T = TypeVar("T")


@frozen
class Open:
    """A map to which policies add keys of their own (``keys.Keys``).

    ``added`` has a value of each policy's class, in the order of the policies, but for those that say no more than
    their defaults: what says the same is equal.
    """

    added: tuple[object, ...] = field(default=(), kw_only=True)

    def of(self, model: type[T]) -> T:
        """The keys that are ``model``'s."""
        return next((each for each in self.added if isinstance(each, model)), None) or model()


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
class Gateway(Open):
    listen: tuple[Listen, ...] = (Listen("tcp:8080"),)
    admin: str | None = "tcp:9090:interface=127.0.0.1"
    admin_token_file: str | None = None
    admin_hosts: tuple[str, ...] = ()
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
class Service(Open):
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
    critical: bool = False
    health_check: HealthCheck | None = None
    circuit_breaker: CircuitBreaker | None = None


@frozen
class Route(Open):
    """``methods`` is ``None`` for all. ``max_body_size``: ``UNSET`` where the gateway's holds, ``None`` for none."""

    path: str
    service: str
    methods: tuple[str, ...] | None = None
    strip_prefix: str | None = None
    timeout: float | None = None
    max_body_size: int | None = -1
    buffer_body: int = 64 * 1024


UNSET = -1


@frozen
class Config(Open):
    """Everything the files said.

    ``origins`` maps a path such as ``("routes", 0, "path")`` to its place in them. ``warnings`` are worth a line in the
    log and no reason to refuse the configuration. ``reserved`` are the paths that the gateway answers itself, before it
    looks for a route.
    """

    gateway: Gateway = Gateway()
    services: tuple[Service, ...] = ()
    routes: tuple[Route, ...] = ()
    redis: Redis | None = None
    reserved: tuple[str, ...] = field(default=ALWAYS, eq=False)
    origins: Mapping[Path, Origin] = field(default=Factory(dict), eq=False, hash=False, repr=False)
    warnings: tuple[Problem, ...] = field(default=(), eq=False, hash=False, repr=False)
