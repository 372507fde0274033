# Compiled: see docs/decisions/compiled.md
"""Makes an upstream of a service's configuration, with what workers share of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from hashlib import blake2b
from random import random
from typing import Any, Final

from attrs import evolve
from twisted.logger import Logger

from apigw.config.model import Balance, CircuitBreaker, Ejection, Service
from apigw.config.model import Target as TargetConfig
from apigw.ops.series import ServiceSeries
from apigw.shared.page import Page
from apigw.upstream.admission import Admission
from apigw.upstream.balancing import Balancer, Hash, LeastRequests, RoundRobin
from apigw.upstream.circuit import Circuit
from apigw.upstream.record import Record
from apigw.upstream.retries import Retries, budget_of
from apigw.upstream.shared_allowance import SharedAllowance
from apigw.upstream.shared_record import SharedRecord
from apigw.upstream.shared_standing import SharedStanding
from apigw.upstream.shared_target import SharedTarget
from apigw.upstream.standing import Standing
from apigw.upstream.target import Target
from apigw.upstream.tls import no_tls, tls_for
from apigw.upstream.upstream import Upstream, address_of
from apigw.wire.agent import Agent, MakeEndpoint, MakePool, endpoint_to, http1_pool
from apigw.wire.allowance import Allowance
from apigw.wire.deadlines import NEVER, Deadlines
from apigw.wire.http2.streams import http2_pool
from apigw.wire.negotiated import negotiated_pool
from apigw.wire.pool import ENDLESS, PoolSettings

log = Logger(namespace=__name__)

_ALPN: Final = {"auto": [b"h2", b"http/1.1"], "h2": [b"h2"], "grpc": [b"h2"]}
"""What is offered for a ``protocol``."""
_POOLS: dict[str, Any] = {"auto": negotiated_pool, "http1": http1_pool}


def build(
    service: Service,
    reactor: Any,
    deadlines: Deadlines,
    series: ServiceSeries,
    page: Page | None = None,
    random: Callable[[], float] = random,
    make_endpoint: MakeEndpoint = endpoint_to,
) -> Upstream:
    """An upstream, without connections. Raises what ``ClientTLS`` raises for unusable files.

    ``page`` is where workers share its circuit and what they know of its targets; ``look`` must be called then.
    """
    settings = PoolSettings(
        connect_timeout=service.connect_timeout,
        keepalive_timeout=service.keepalive_timeout,
        max_connections=service.max_connections,
        max_pending=service.max_pending,
        max_age=NEVER if service.max_connection_age is None else service.max_connection_age,
        max_requests=service.max_connection_requests or ENDLESS,
    )
    secure = any(target.scheme == "https" for target in service.targets)
    verified = tls_for(service.tls, _ALPN.get(service.protocol)) if secure else no_tls
    make_pool: MakePool = partial(_POOLS.get(service.protocol, http2_pool), deadlines)

    bounded = PoolSettings(max_age=settings.max_age, max_requests=settings.max_requests)
    first = Ejection().for_ if service.ejection is None else service.ejection.for_
    # What workers know of a target they share for as long as the service's configuration stays as it is.
    digest = b"" if page is None else blake2b(repr(service).encode(), digest_size=16).digest()

    def make_target(config: TargetConfig) -> Target:
        tls = verified(config.called or config.host) if config.scheme == "https" else None
        endpoint = make_endpoint(reactor, config.host, config.port, service.connect_timeout, tls)
        scheme = config.scheme.encode("ascii")
        own = None
        if config.called and tls is not None:
            own = Agent(
                reactor, deadlines, lambda host: verified(config.called), bounded, NEVER, make_pool, make_endpoint
            )
        shared = None
        standing = Standing(first)
        allowance = Allowance(service.max_connections, service.max_pending)
        if page is not None:
            cell = page.targets.claim(digest + repr(address_of(config)).encode(), reactor.seconds())
            if not cell:
                log.warn("{service}: workers share nothing of a target, as the page has no room", service=service.name)
            else:
                shared = SharedTarget(page, cell)
                standing = SharedStanding(first, page, cell)
                allowance = SharedAllowance(service.max_connections, service.max_pending, page, cell, reactor)
        return Target(config, make_pool(scheme, endpoint, evolve(settings, allowance=allowance)), shared, standing, own)

    agent = Agent(reactor, deadlines, verified, bounded, NEVER, make_pool, make_endpoint)
    circuit = None
    if service.circuit_breaker is not None:
        check_timeout = None if service.health_check is None else service.health_check.timeout
        record = None if page is None else _record(service, service.circuit_breaker, page, reactor.seconds())
        circuit = Circuit(service.name, service.circuit_breaker, reactor, series, check_timeout, record)
    retries = None
    if service.retry is not None:
        budget = budget_of(service.name, service.retry.budget, page, reactor.seconds())
        retries = Retries(service.retry, budget, random)
    balancer = _balancer(service.balance, random)
    admission = _admission(service, reactor, deadlines, page)
    return Upstream(service, make_target, balancer, deadlines, agent, circuit, series, retries, admission)


def _admission(service: Service, reactor: Any, deadlines: Deadlines, page: Page | None) -> Admission | None:
    most, waiting = service.max_requests, service.max_pending
    if most is None:
        return None
    allowance = Allowance(most, waiting)
    if page is not None:
        cell = page.targets.claim(repr((service, "requests")).encode(), reactor.seconds())
        if cell:
            allowance = SharedAllowance(most, waiting, page, cell, reactor)
        else:
            log.warn("{service}: max_requests is each worker's, as the page has no room", service=service.name)
    return Admission(allowance, service.connect_timeout, deadlines)


def _balancer(balance: Balance, random: Callable[[], float]) -> Balancer:
    if balance.algorithm == "least_requests":
        return LeastRequests(random)
    return Hash() if balance.algorithm == "hash" else RoundRobin()


def _record(service: Service, config: CircuitBreaker, page: Page, now: float) -> Record | None:
    """What all workers know of a circuit: it is one for as long as the service's configuration stays as it is."""
    cell = page.circuits.claim(repr(service).encode(), now)
    if cell:
        return SharedRecord(config, page, cell)
    log.warn("{service}: each worker has a circuit of its own, as the shared page has no room", service=service.name)
    return None
