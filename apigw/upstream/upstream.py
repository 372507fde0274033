# Compiled: see docs/decisions/compiled.md
"""A service in the program (``Upstream``): its targets, and their ejection and health."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from random import random
from typing import Any

from attrs import evolve
from twisted.logger import Logger

from apigw.config.model import CircuitBreaker, Service
from apigw.config.model import Target as TargetConfig
from apigw.errors import NoHealthyTarget
from apigw.ops.series import ServiceSeries
from apigw.shared.page import Page
from apigw.shared.tally import Tally
from apigw.upstream.balancing import Balancer, RoundRobin
from apigw.upstream.circuit import Circuit
from apigw.upstream.record import Record
from apigw.upstream.retries import Budget, Retries
from apigw.upstream.shared_allowance import SharedAllowance
from apigw.upstream.shared_record import SharedRecord
from apigw.upstream.shared_target import SharedTarget
from apigw.upstream.target import ASIDE_FOR, FAILURES_IN_A_ROW, Target
from apigw.upstream.tls import no_tls, tls_for
from apigw.wire.agent import Agent, MakePool, endpoint_to, http1_pool
from apigw.wire.allowance import Allowance
from apigw.wire.deadlines import NEVER, Deadlines
from apigw.wire.http2.streams import http2_pool
from apigw.wire.negotiated import negotiated_pool
from apigw.wire.pool import ENDLESS, PoolSettings

log = Logger(namespace=__name__)


class Upstream:
    """A service: its targets, and what they share. ``replace_targets`` changes the configured targets."""

    def __init__(
        self,
        service: Service,
        make_target: Callable[[TargetConfig], Target],
        balancer: Balancer,
        deadlines: Deadlines,
        agent: Agent,
        circuit: Circuit | None,
        series: ServiceSeries,
        retries: Retries | None = None,
    ) -> None:
        self.service = service
        self.retries: Retries | None = retries
        self.circuit = circuit
        self.series = series
        self.name = service.name
        self.agent = agent
        """For health checks. Its connections are separate from those of exchanges."""
        self.targets: tuple[Target, ...] = ()
        self.targets_changed: Callable[[], None] | None = None
        """Set by the health checks, if the service has them."""
        self._make_target = make_target
        self.balancer = balancer
        self.counts: bool = balancer.counts
        """Whether ``begin`` and ``end`` must be called."""
        self._deadlines = deadlines
        self._running = False
        self.replace_targets(service.targets)

    def start(self) -> None:
        self.series.circuit_is("closed" if self.circuit is None else str(self.circuit.status().state))
        self._running = True
        for target in self.targets:
            self._deadlines.watch(target)
        self.look()

    def look(self) -> None:
        """Notice what other workers have found out. Called twice a second if there are others."""
        if self.circuit is not None:
            self.circuit.look()
        for target in self.targets:
            if target.shared is not None:
                self._look_at(target, target.shared)

    def _look_at(self, target: Target, shared: SharedTarget) -> None:
        now = self._deadlines.seconds()
        shared.used(now)
        target.pool.give_way()
        if shared.healthy != target.healthy:
            self._be(target, shared.healthy)
        until = shared.aside_until
        # Two workers may have ejected one each, of the last two.
        if until > now and target.available and self.has_other(target):
            target.available = False
            target.deadline = until

    def close(self) -> None:
        """Close the connections: idle ones now, the others when their exchanges end."""
        if self.circuit is not None:
            self.circuit.stop()
        self._running = False
        for target in self.targets:
            self._retire(target)
        self.agent.close()

    def replace_targets(self, configs: Iterable[TargetConfig]) -> None:
        """Set the targets. Exchanges with removed targets continue to their end.

        An address that was there before keeps its connections and health, and gets its new weight.
        """
        left = list(self.targets)
        targets = []
        for config in configs:
            target = next((one for one in left if _address(one.config) == _address(config)), None)
            if target is None:
                target = self._make_target(config)
                target.set_aside = self._set_aside
                if self._running:
                    self._deadlines.watch(target)
            else:
                left.remove(target)
                target.config = config
            targets.append(target)
        self.targets = tuple(targets)
        self.balancer.use(self.targets)
        for target in left:
            self._retire(target)
        if self.targets_changed is not None:
            self.targets_changed()

    def _retire(self, target: Target) -> None:
        self._deadlines.forget(target)
        target.pool.close()

    def none_healthy(self) -> NoHealthyTarget:
        """The error for an exchange if the balancer has no target."""
        return NoHealthyTarget(f"No target of the service {self.name} is healthy.")

    def other(self, target: Target) -> Target | None:
        """Another available target, for failover from ``target``; or None."""
        return self.balancer.pick(target)

    def other_than(self, tried: list[Target]) -> Target | None:
        for target in self.targets:
            if target.available and target not in tried:
                return target
        return self.balancer.pick(None)

    def has_other(self, target: Target) -> bool:
        return any(other.available for other in self.targets if other is not target)

    def begin(self, target: Target) -> None:
        """An exchange with ``target`` begins."""
        self.balancer.begin(target)

    def end(self, target: Target) -> None:
        """An exchange has ended, in any way. Call it once for each ``begin``."""
        self.balancer.end(target)

    def _set_aside(self, target: Target) -> bool:
        if not self.has_other(target):
            return False
        if target.available:
            log.warn(
                "{service}: {target} ejected for {seconds:g} s after {times} failed connections in a row",
                service=self.name,
                target=target.name,
                seconds=ASIDE_FOR,
                times=FAILURES_IN_A_ROW,
            )
        target.available = False
        target.deadline = self._deadlines.seconds() + ASIDE_FOR
        if target.shared is not None:
            target.shared.set_aside(target.deadline)
        return True

    def health_changed(self, target: Target, healthy: bool, why: str = "") -> None:
        """The result of the health checks has changed, or was confirmed. ``why``: the reason of the last failure."""
        if target.healthy != healthy:
            self._be(target, healthy)
            if target.shared is not None:
                target.shared.set_aside(0.0)
            log.warn(
                "{service}: {target} is {state}",
                service=self.name,
                target=target.name,
                state="healthy again" if healthy else f"unhealthy: {why}",
            )

    def _be(self, target: Target, healthy: bool) -> None:
        target.healthy = healthy
        target.available = healthy
        target.deadline = NEVER


def _address(config: TargetConfig) -> tuple[str, str, int]:
    return config.scheme, config.host, config.port


_ALPN = {"auto": [b"h2", b"http/1.1"], "h2": [b"h2"], "grpc": [b"h2"]}
"""What is offered for a ``protocol``."""
_POOLS: dict[str, Any] = {"auto": negotiated_pool, "http1": http1_pool}


def build(
    service: Service,
    reactor: Any,
    deadlines: Deadlines,
    series: ServiceSeries,
    page: Page | None = None,
    random: Callable[[], float] = random,
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

    def make_target(config: TargetConfig) -> Target:
        tls = verified(config.host) if config.scheme == "https" else None
        endpoint = endpoint_to(reactor, config.host, config.port, service.connect_timeout, tls)
        scheme = config.scheme.encode("ascii")
        shared = None
        allowance = Allowance(service.max_connections, service.max_pending)
        if page is not None:
            cell = _cell_of(service, config, page, reactor.seconds())
            if cell:
                shared = SharedTarget(page, cell)
                allowance = SharedAllowance(service.max_connections, service.max_pending, page, cell, reactor)
        return Target(config, make_pool(scheme, endpoint, evolve(settings, allowance=allowance)), shared)

    bounded = PoolSettings(max_age=settings.max_age, max_requests=settings.max_requests)
    agent = Agent(reactor, deadlines, verified, bounded, NEVER, make_pool)
    circuit = None
    if service.circuit_breaker is not None:
        check_timeout = None if service.health_check is None else service.health_check.timeout
        record = None if page is None else _record(service, service.circuit_breaker, page, reactor.seconds())
        circuit = Circuit(service.name, service.circuit_breaker, reactor, series, check_timeout, record)
    retries = None
    if service.retry is not None:
        retries = Retries(service.retry, Budget(service.retry.budget, Tally(), Tally()), random)
    return Upstream(service, make_target, RoundRobin(), deadlines, agent, circuit, series, retries)


def _record(service: Service, config: CircuitBreaker, page: Page, now: float) -> Record | None:
    """What all workers know of a circuit: it is one for as long as the service's configuration stays as it is."""
    cell = page.circuits.claim(repr(service).encode(), now)
    if cell:
        return SharedRecord(config, page, cell)
    log.warn("{service}: each worker has a circuit of its own, as the shared page has no room", service=service.name)
    return None


def _cell_of(service: Service, config: TargetConfig, page: Page, now: float) -> int:
    """Where workers share what they know of a target, as long as the service's configuration stays as it is; or 0."""
    cell = page.targets.claim(repr((service, _address(config))).encode(), now)
    if not cell:
        log.warn("{service}: workers share nothing of a target, as the page has no room", service=service.name)
    return cell
