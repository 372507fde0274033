# Compiled: see docs/decisions/compiled.md
"""A service and its targets: which one takes the next exchange, and what happens when it does not answer the phone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from math import gcd
from typing import Any, NoReturn

from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from apigw.config.model import Service, UpstreamTLS
from apigw.config.model import Target as TargetConfig
from apigw.errors import NoHealthyTarget
from apigw.ops.metrics import ServiceSeries
from apigw.upstream.circuit import Circuit
from apigw.wire.agent import Agent, TLSFor, endpoint_to
from apigw.wire.client_tls import ClientTLS
from apigw.wire.deadlines import NEVER, Deadlines
from apigw.wire.errors import ConnectFailed, PoolExhausted
from apigw.wire.http1.client import UpstreamConnection
from apigw.wire.pool import Pool, PoolSettings
from apigw.wire.tls import KeyPair

FAILURES_IN_A_ROW = 3
ASIDE_FOR = 10.0
"""Seconds for which a target that could not be connected to so many times gets no requests, if there is another."""

log = Logger(namespace=__name__)

Connected = tuple["Target", UpstreamConnection]


class Target:
    """One address of a service: its pool of connections, and what is known of its health."""

    def __init__(self, config: TargetConfig, pool: Pool) -> None:
        self.deadline = NEVER
        self.config = config
        host = f"[{config.host}]" if ":" in config.host else config.host
        usual = config.port == (443 if config.scheme == "https" else 80)
        authority = host if usual else f"{host}:{config.port}"
        self.name = f"{config.scheme}://{authority}"
        self.authority = authority.encode("idna" if not host.isascii() else "ascii")
        self.pool = pool
        self.available = True
        """Whether it gets requests: neither unhealthy nor set aside."""
        self.healthy = True
        self._failures = 0
        self.set_aside: Callable[[Target], bool] = lambda _: False

    def connect_succeeded(self) -> None:
        self._failures = 0

    def connect_failed(self, service: str, why: str) -> None:
        """Noted in the log when it begins: a line for each request would drown what else happens in an outage."""
        if not self._failures:
            log.warn("{service}: no connection to {target}: {why}", service=service, target=self.name, why=why)
        self._failures += 1
        if self._failures % FAILURES_IN_A_ROW == 0:
            self.set_aside(self)

    def deadline_passed(self) -> None:
        """It has been aside for long enough."""
        self.deadline = NEVER
        self._failures = 0
        self.available = self.healthy


class Upstream:
    """Shares exchanges out among the targets of one service: round-robin by weight over those that are available."""

    def __init__(
        self,
        service: Service,
        pools: Iterable[Pool],
        deadlines: Deadlines,
        agent: Agent,
        circuit: Circuit | None,
        series: ServiceSeries,
    ) -> None:
        self.service = service
        self.circuit = circuit
        self.series = series
        self.name = service.name
        self.agent = agent
        """For the gateway's own questions to the targets: its connections are not those that exchanges wait for."""
        self._deadlines = deadlines
        self.targets = tuple(Target(config, pool) for config, pool in zip(service.targets, pools, strict=True))
        for target in self.targets:
            target.set_aside = self._set_aside
        self._rotation = interleave(self.targets, [target.config.weight for target in self.targets])
        self._turn = -1

    def start(self) -> None:
        self.series.circuit_is("closed" if self.circuit is None else str(self.circuit.status().state))
        for target in self.targets:
            self._deadlines.watch(target)

    def close(self) -> None:
        """Close the connections: idle ones now, the others when their exchanges end."""
        if self.circuit is not None:
            self.circuit.stop()
        for target in self.targets:
            self._deadlines.forget(target)
            target.pool.close()
        self.agent.close()

    def pick(self, but: Target | None = None) -> Target:
        """The target whose turn it is. Raises ``NoHealthyTarget``."""
        for _ in self._rotation:
            self._turn = (self._turn + 1) % len(self._rotation)
            target = self._rotation[self._turn]
            if target.available and target is not but:
                return target
        raise NoHealthyTarget(f"No target of the service {self.name} is healthy.")

    def another(self, target: Target) -> Target:
        """The next that is not ``target``, or ``target`` where there is no other."""
        try:
            return self.pick(but=target)
        except NoHealthyTarget:
            return target

    def connect(self, target: Target, again: bool = True) -> Deferred[Connected]:
        """A new connection to ``target`` or, if none can be made and ``again``, to one other.

        Fails with ``ConnectFailed`` or ``PoolExhausted``. Nothing of an exchange has been sent by then.
        """
        try:
            connecting = target.pool.connect()
        except PoolExhausted as error:
            return fail(error)
        given: Deferred[Connected] = connecting.addCallbacks(
            partial(self._connected, target), partial(self._not_connected, target, again)
        )
        return given

    def _connected(self, target: Target, connection: UpstreamConnection) -> Connected:
        target.connect_succeeded()
        return target, connection

    def _not_connected(self, target: Target, again: bool, failure: Failure) -> Failure | Deferred[Connected]:
        if failure.check(ConnectFailed):
            why = failure.getErrorMessage()
            target.connect_failed(self.name, why)
            self.series.error("connect")
            if again:
                try:
                    other = self.pick(but=target)
                except NoHealthyTarget:
                    return failure
                return self.connect(other, again=False)
        return failure

    def _set_aside(self, target: Target) -> bool:
        if not any(other.available for other in self.targets if other is not target):
            return False
        if target.available:
            log.warn(
                "{service}: {target} set aside for {seconds:g} s: connecting failed {times} times in a row",
                service=self.name,
                target=target.name,
                seconds=ASIDE_FOR,
                times=FAILURES_IN_A_ROW,
            )
        target.available = False
        target.deadline = self._deadlines.seconds() + ASIDE_FOR
        return True

    def health_changed(self, target: Target, healthy: bool) -> None:
        """A health check has made up its mind."""
        if target.healthy != healthy:
            target.healthy = healthy
            target.available = healthy
            target.deadline = NEVER
            log.warn(
                "{service}: {target} is {state}",
                service=self.name,
                target=target.name,
                state="healthy again" if healthy else "unhealthy",
            )


def interleave(targets: Iterable[Target], weights: Iterable[int]) -> tuple[Target, ...]:
    """A rotation in which each target stands as often as its weight says, as evenly spread as can be.

    Smooth weighted round-robin: each turn everyone gains its weight, the richest is taken and pays the total.
    """
    targets, weights = list(targets), list(weights)
    shared = gcd(*weights)
    weights = [weight // shared for weight in weights]
    total = sum(weights)
    credit = [0] * len(targets)
    rotation = []
    for _ in range(total):
        credit = [have + gain for have, gain in zip(credit, weights, strict=True)]
        richest = max(range(len(targets)), key=credit.__getitem__)
        credit[richest] -= total
        rotation.append(targets[richest])
    return tuple(rotation)


def build(service: Service, reactor: Any, deadlines: Deadlines, series: ServiceSeries) -> Upstream:
    """An upstream that has connected to nothing yet. Raises what ``ClientTLS`` does if its TLS has files."""
    settings = PoolSettings(
        connect_timeout=service.connect_timeout,
        keepalive_timeout=service.keepalive_timeout,
        max_connections=service.max_connections,
        max_pending=service.max_pending,
    )
    pools = []
    secure = any(target.scheme == "https" for target in service.targets)
    tls_for = _tls_for(service.tls) if secure else _no_tls
    for target in service.targets:
        tls = tls_for(target.host) if target.scheme == "https" else None
        endpoint = endpoint_to(reactor, target.host, target.port, service.connect_timeout, tls)
        pools.append(Pool(endpoint, settings, deadlines))
    agent = Agent(reactor, deadlines, tls_for, timeout=NEVER)
    circuit = None
    if service.circuit_breaker is not None:
        probed = service.health_check is not None
        circuit = Circuit(service.name, service.circuit_breaker, reactor, series.circuit, probed)
    return Upstream(service, pools, deadlines, agent, circuit, series)


def _tls_for(tls: UpstreamTLS) -> TLSFor:
    own = None
    if tls.client_cert_file is not None and tls.client_key_file is not None:
        own = KeyPair(tls.client_cert_file, tls.client_key_file)
    client_tls = ClientTLS(tls.ca_file, own)
    return lambda host: client_tls.to(tls.server_name or host)


def _no_tls(host: str) -> NoReturn:
    raise ValueError(f"{host} is not spoken to by TLS")
