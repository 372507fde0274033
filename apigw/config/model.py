"""The classes of the configuration: frozen, hashable, compared by value.

Durations are seconds, sizes are bytes, paths are absolute. A value that the files omit has its default. If the default
is another setting, it is ``None``, and ``effective`` looks the setting up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from attrs import Factory, field, frozen

from apigw.config.problem import Origin as Origin
from apigw.config.problem import Path as Path
from apigw.config.problem import Problem

ALWAYS = ("/health", "/ready", "/metrics")
"""Paths that the gateway answers itself in every configuration."""

T = TypeVar("T")


@frozen
class Open:
    """A map to which policies add keys of their own (``keys.Keys``).

    ``added`` has a value of each policy's class, in the order of the policies. Values equal to the default are omitted,
    so that maps with the same meaning are equal.
    """

    added: tuple[object, ...] = field(default=(), kw_only=True)

    def of(self, model: type[T]) -> T:
        """The value of the class ``model``, with its defaults if the files set none of its keys."""
        for each in self.added:
            if isinstance(each, model):
                return each
        return model()


@frozen
class Secret:
    """Bytes that are not shown in a repr, a log line or ``apigw show``."""

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
    client_certificates: str | None = None

    @property
    def verifies(self) -> str:
        """Whether clients show a certificate: none, optional or required."""
        return self.client_certificates or ("none" if self.client_ca_file is None else "required")


@frozen
class Listen:
    endpoint: str
    tls: ServerTLS | None = None
    proxy_protocol: bool = False


@frozen
class AccessLog:
    """``file`` is ``-`` for stdout; ``format`` is ``json`` or ``combined``. ``fields``: empty for the usual ones."""

    file: str = "-"
    format: str = "json"
    fields: tuple[str, ...] = ()


@frozen
class Log:
    """The daemon's own log. ``format`` is ``text`` or ``json``."""

    format: str = "text"
    level: str = "info"


@frozen
class AuditLog:
    """``file`` is ``-`` for stdout."""

    file: str


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
    client_request_timeout: float | None = None
    stream_idle_timeout: float = 3600.0
    keepalive_timeout: float = 75.0
    tunnel_idle_timeout: float = 3600.0
    drain_timeout: float = 30.0
    drain_delay: float = 0.0
    max_header_size: int = 32 * 1024
    max_header_count: int = 100
    max_body_size: int | None = 100 * 1024 * 1024
    max_buffered: int = 64 * 1024 * 1024
    max_connections: int = 10_000
    max_connections_per_address: int | None = None
    max_requests: int | None = None
    max_lag: float | None = 1.0
    trusted_proxies: tuple[str, ...] = ()
    metrics_allow: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    access_log: AccessLog | None = AccessLog()
    audit_log: AuditLog | None = None
    log: Log = Log()
    workers: int | str = 1
    limits_memory: int = 64 * 1024 * 1024
    watch_files: bool = False


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
    """One address of a service, or a name that has some.

    ``scheme`` is ``http`` or ``https``; ``host`` a name or an address without brackets. ``lookup`` is ``dns`` or
    ``srv`` if the targets are the addresses that the name has; ``allow_local``: also those of this machine. ``called``
    is the name by which such an address was found: for TLS, and the ``Host`` of requests.
    """

    scheme: str
    host: str
    port: int
    weight: int = 1
    lookup: str = ""
    allow_local: bool = False
    called: str = ""


@frozen
class HashedBy:
    """The ``client``, the ``principal``, or the ``header`` or ``cookie`` with this ``name``."""

    by: str
    name: str = ""


@frozen
class Balance:
    """``algorithm`` is ``round_robin``, ``least_requests`` or ``hash``, which goes by ``hash``."""

    algorithm: str = "round_robin"
    hash: HashedBy | None = None


@frozen
class Ejection:
    """``for_`` is in seconds; ``most`` is a share of the targets."""

    failures: int = 5
    for_: float = 10.0
    most: float = 0.5


@frozen
class UpstreamTLS:
    ca_file: str | None = None
    server_name: str | None = None
    client_cert_file: str | None = None
    client_key_file: str | None = None


@frozen
class HealthCheck:
    path: str = "/health"
    host: str | None = None
    expected_status: tuple[int, ...] | None = None
    grpc: bool | None = None
    grpc_service: str | None = None
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
class Retry:
    """``on``: the words ``connect`` and ``reset``, and statuses. ``tries`` include the first. ``methods``: their names,
    ``idempotent`` and ``all``. ``budget`` is a share of the requests in flight."""

    on: tuple[str | int, ...] = ("connect", "reset", 502, 503, 504)
    tries: int = 2
    per_try_timeout: float | None = None
    methods: tuple[str, ...] = ("idempotent",)
    budget: float = 0.2


@frozen
class Service(Open):
    """A named backend. ``timeout`` is ``None`` if the gateway's ``request_timeout`` applies."""

    name: str
    targets: tuple[Target, ...]
    tls: UpstreamTLS = UpstreamTLS()
    connect_timeout: float = 5.0
    timeout: float | None = None
    keepalive_timeout: float = 4.0
    max_connections: int = 256
    max_pending: int = 1024
    max_connection_age: float | None = 300.0
    max_connection_requests: int | None = 10_000
    preserve_host: bool = False
    critical: bool = False
    balance: Balance = Balance()
    slow_start: float | None = None
    ejection: Ejection | None = Ejection()
    max_requests: int | None = None
    health_check: HealthCheck | None = None
    circuit_breaker: CircuitBreaker | None = CircuitBreaker()
    retry: Retry | None = None
    protocol: str = "http1"


@frozen
class Condition:
    """What a header, cookie or value of the query must be; one of the three is set.

    ``equal``: the text of one. ``present``: whether there is one. ``regex``: an expression that matches the whole of
    one.
    """

    name: str
    equal: str | None = None
    present: bool | None = None
    regex: str | None = None


@frozen
class Route(Open):
    """A route for one path. One that is written with several paths is as many routes, with the same ``name``.

    ``service`` is ``None`` if a policy answers. ``methods`` is ``None`` for all. ``max_body_size``: ``UNSET`` if the
    gateway's applies, ``None`` for no limit. ``hosts`` are in the form of ``addresses.matched_host``, and empty for all
    that no route names. ``encoded_slashes`` and ``empty_segments`` are ``refuse`` or ``keep``. ``access_log``
    is ``True``, or ``None`` for no line.
    """

    path: str
    service: str | None = None
    methods: tuple[str, ...] | None = None
    strip_prefix: str | None = None
    timeout: float | None = None
    max_body_size: int | None = -1
    buffer_body: int = 64 * 1024
    hosts: tuple[str, ...] = ()
    headers: tuple[Condition, ...] = ()
    query: tuple[Condition, ...] = ()
    cookies: tuple[Condition, ...] = ()
    strict_methods: bool = False
    encoded_slashes: str = "refuse"
    empty_segments: str = "refuse"
    access_log: bool | None = True
    name: str = Factory(lambda self: "".join((*self.hosts[:1], self.path)), takes_self=True)
    """As written, or its first host and its first path."""


UNSET = -1


@frozen
class Config(Open):
    """The whole configuration.

    ``origins`` maps a path such as ``("routes", 0, "path")`` to its place in them. ``warnings`` are logged, and do
    not prevent a start. ``reserved`` are the paths that the gateway answers itself, before it looks for a route.
    ``files`` are those that it was read from, and those that it names.
    """

    gateway: Gateway = Gateway()
    services: tuple[Service, ...] = ()
    routes: tuple[Route, ...] = ()
    redis: Redis | None = None
    reserved: tuple[str, ...] = field(default=ALWAYS, eq=False)
    origins: Mapping[Path, Origin] = field(default=Factory(dict), eq=False, hash=False, repr=False)
    files: tuple[str, ...] = field(default=(), eq=False, hash=False, repr=False)
    warnings: tuple[Problem, ...] = field(default=(), eq=False, hash=False, repr=False)
