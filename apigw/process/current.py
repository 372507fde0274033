"""The snapshot in force, and all that follows from a change of it."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.web.resource import IResource

from apigw.config.errors import Problem
from apigw.config.model import Path
from apigw.ops.metrics import Metrics
from apigw.ops.readiness import Check, Readiness
from apigw.policy.limits.in_redis import RedisStore
from apigw.policy.limits.memory import MemoryStore
from apigw.policy.limits.model import rate_limits_of
from apigw.policy.limits.policy import PreparedLimits
from apigw.process.descriptors import Descriptors
from apigw.process.garbage import settle
from apigw.process.rules import RULES
from apigw.process.snapshot import Snapshot
from apigw.process.tree import Upstreams
from apigw.proxy.held_body import Buffers
from apigw.proxy.pipeline import Pipeline
from apigw.proxy.site import Site
from apigw.redis.link import RedisLink
from apigw.wire.channel import ChannelFactory

Store = MemoryStore | RedisStore

log = Logger()


class Current:
    """``snapshot`` is the one in force. ``resources`` gives what the gateway itself answers then, by path."""

    def __init__(
        self,
        snapshot: Snapshot,
        resources: Callable[[Snapshot], dict[bytes, IResource]],
        *,
        pipeline: Pipeline,
        channels: ChannelFactory,
        public: Site,
        upstreams: Upstreams,
        readiness: Readiness,
        redis: RedisLink | None,
        store: Store,
        buffers: Buffers,
        metrics: Metrics,
    ) -> None:
        self.snapshot = snapshot
        self._resources = resources
        self._pipeline = pipeline
        self._channels = channels
        self._public = public
        self._upstreams = upstreams
        self._readiness = readiness
        self._redis = redis
        self._store = store
        self._buffers = buffers
        self._metrics = metrics
        self._descriptors = Descriptors()
        self._warned: frozenset[tuple[Path, str]] = frozenset()

    @property
    def limits(self) -> PreparedLimits:
        return limits_of(self.snapshot)

    def start(self) -> None:
        """The program begins: the first snapshot is in force, and its policies begin to work."""
        self.use(self.snapshot)

    def stop(self) -> None:
        """Nothing: what is in force stays so until the end."""

    def use(self, snapshot: Snapshot) -> None:
        """From now on, this one. Cannot fail: all that could has been done when it was compiled."""
        previous, self.snapshot = self.snapshot, snapshot
        gateway = snapshot.config.gateway
        self._pipeline.table = snapshot.table
        self._buffers.most = gateway.max_buffered
        self._channels.settings = self._descriptors.fit(snapshot.settings)
        self._public.reserve(self._resources(snapshot))
        self._pipeline.reserved = self._public.reserved
        for name, prepared in snapshot.prepared.items():
            prepared.adopt(previous.prepared[name])
        self._upstreams.adopt(snapshot.upstreams)
        self._readiness.checks = {**self._upstreams.checks(), **store_checks(self._store, limits_of(snapshot))}
        self._readiness.forget()
        redis = snapshot.config.redis
        if redis is not None and self._redis is not None:
            self._redis.timeout = redis.timeout
        self._keep_series()
        self._warn(snapshot.config.warnings)

    def reload_ended(self, succeeded: bool) -> None:
        """A reload is over, and what was made for a configuration that is not taken goes."""
        self._metrics.reloaded(succeeded)
        self._keep_series()
        settle()

    def _keep_series(self) -> None:
        """The metrics have the series of this configuration, and no others."""
        config = self.snapshot.config
        limits = {(limit.endpoint, limit.scope) for limit in rate_limits_of(config)}
        routes = {route.path for route in config.routes}
        reserved = {path for each in RULES.reserved for path in each.paths}
        self._metrics.retain(routes | reserved, {service.name for service in config.services}, limits)
        for endpoint, scope in limits:
            self._metrics.limit(endpoint, scope)

    def _warn(self, warnings: tuple[Problem, ...]) -> None:
        """Say what the last configuration did not say already, wherever it stands now."""
        for warning in warnings:
            if (warning.path, warning.sentence) not in self._warned:
                log.warn("{warning}", warning=str(warning))
        self._warned = frozenset((warning.path, warning.sentence) for warning in warnings)


def limits_of(snapshot: Snapshot) -> PreparedLimits:
    prepared = snapshot.prepared["limits"]
    assert isinstance(prepared, PreparedLimits)
    return prepared


def store_checks(store: Store, limits: PreparedLimits) -> dict[str, Check]:
    """What ``/ready`` asks of Redis: nothing, unless requests are refused without it."""

    def usable() -> Deferred[object]:
        return succeed(None) if store.up else fail(RuntimeError("Redis cannot be used"))

    if all(limit.on_store_failure != "closed" for limit in limits.limits):
        return {}
    return {"rate limit store": usable}
