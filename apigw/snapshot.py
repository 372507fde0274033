"""One generation of the configuration, ready for requests: immutable, and complete before the first one sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import blake2b

from attrs import frozen

from apigw.config.errors import ConfigError, Problem
from apigw.config.model import UNSET, Config, Cors, Service
from apigw.forwarding import Peers
from apigw.policy.routing import Router
from apigw.upstream import Upstream
from apigw.wire.channel import Settings

UpstreamKey = tuple[Service, bytes]
"""A service as configured, and a digest of the files that its TLS names: the same key means the same pools."""


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
    preserve_host: bool
    forward_token: bool
    cors: Cors | None


@frozen(eq=False)
class Snapshot:
    config: Config
    router: Router[Route]
    peers: Peers
    settings: Settings
    upstreams: Mapping[UpstreamKey, Upstream]
    preflights: bool
    """Whether any route answers CORS preflights: where none does, nobody looks for them."""
    log_decisions: bool
    """Whether each routing decision is worth a line at debug level."""


def compile(
    config: Config,
    previous: Snapshot | None,
    build: Callable[[Service], Upstream],
    log_decisions: bool = False,
) -> Snapshot:
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
            named[service.name] = upstreams[key] = kept or build(service)
        except Exception as error:
            problems.append(Problem(f"its TLS cannot be set up: {error}", path, config.origins.get(path)))
    if problems:
        raise ConfigError(problems)
    gateway = config.gateway
    routes = []
    for route in config.routes:
        upstream = named[route.service]
        service = upstream.service
        methods = None if route.methods is None else frozenset(method.encode("ascii") for method in route.methods)
        compiled = Route(
            pattern=route.path,
            methods=route.methods,
            upstream=upstream,
            timeout=route.timeout or service.timeout or gateway.request_timeout,
            max_body_size=gateway.max_body_size if route.max_body_size == UNSET else route.max_body_size,
            strip=route.strip_prefix.strip("/").count("/") + 1 if route.strip_prefix and route.strip_prefix != "/" else 0,
            preserve_host=service.preserve_host,
            forward_token=route.forward_token,
            cors=route.cors,
        )
        routes.append((route.path, methods, compiled))
    settings = Settings(
        client_header_timeout=gateway.client_header_timeout,
        client_body_timeout=gateway.client_body_timeout,
        keepalive_timeout=gateway.keepalive_timeout,
        max_header_size=gateway.max_header_size,
        max_header_count=gateway.max_header_count,
        max_connections=gateway.max_connections,
    )
    return Snapshot(
        config=config,
        router=Router(routes),
        peers=Peers(gateway.trusted_proxies),
        settings=settings,
        upstreams=upstreams,
        preflights=any(route.cors for route in config.routes),
        log_decisions=log_decisions,
    )


def _digest(service: Service) -> bytes:
    digest = blake2b(digest_size=16)
    for file in (service.tls.ca_file, service.tls.client_cert_file, service.tls.client_key_file):
        if file is not None:
            with open(file, "rb") as content:
                digest.update(blake2b(content.read()).digest())
    return digest.digest()
