"""The snapshot in use, and the effects of a change."""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from apigw import __version__, is_compiled
from apigw.config.errors import Problem
from apigw.config.model import Path
from apigw.ops.metrics import Metrics
from apigw.ops.readiness import Readiness
from apigw.process.descriptors import Descriptors
from apigw.process.garbage import settle
from apigw.process.rules import RULES
from apigw.process.snapshot import Snapshot
from apigw.process.tree import Upstreams
from apigw.proxy.held_body import Buffers
from apigw.proxy.pipeline import Pipeline
from apigw.redis.link import RedisLink
from apigw.wire.channel import ChannelFactory

log = Logger()


class Current:
    """``snapshot`` is the one in use. ``show`` installs the resources of a new snapshot."""

    def __init__(
        self,
        snapshot: Snapshot,
        show: Callable[[Snapshot], object],
        *,
        pipeline: Pipeline,
        channels: ChannelFactory,
        upstreams: Upstreams,
        readiness: Readiness,
        redis: RedisLink | None,
        buffers: Buffers,
        metrics: Metrics,
    ) -> None:
        self.snapshot = snapshot
        self._show = show
        self._pipeline = pipeline
        self._channels = channels
        self._upstreams = upstreams
        self._readiness = readiness
        self._redis = redis
        self._buffers = buffers
        self._metrics = metrics
        self._descriptors = Descriptors()
        self._warned: frozenset[tuple[Path, str]] = frozenset()

    def start(self) -> None:
        """The program starts: put the first snapshot in use."""
        self.use(self.snapshot)
        config = self.snapshot.config
        log.info(
            "apigw {version}, {kind}: {routes} routes to {services} services",
            version=__version__,
            kind="compiled" if is_compiled() else "not compiled",
            routes=len(config.routes),
            services=len(config.services),
        )

    def stop(self) -> None:
        """No effect: the snapshot stays in use until the end."""

    def use(self, snapshot: Snapshot) -> None:
        """Put ``snapshot`` in use. Cannot fail: all that can was done when it was compiled."""
        previous, self.snapshot = self.snapshot, snapshot
        gateway = snapshot.config.gateway
        self._pipeline.use(snapshot.table)
        self._buffers.most = gateway.max_buffered
        self._channels.settings = self._descriptors.fit(snapshot.settings, snapshot.config.services)
        self._show(snapshot)
        for name, prepared in snapshot.prepared.items():
            prepared.adopt(previous.prepared[name])
        self._upstreams.adopt(snapshot.upstreams)
        checks = self._upstreams.checks()
        for prepared in snapshot.prepared.values():
            checks.update(prepared.checks())
        self._readiness.checks = checks
        self._readiness.forget()
        redis = snapshot.config.redis
        if redis is not None and self._redis is not None:
            self._redis.timeout = redis.timeout
        self._keep_series()
        self._warn(snapshot.config.warnings)

    def reload_ended(self, succeeded: bool) -> None:
        """A reload has ended. Removes metric series that a refused configuration has created."""
        self._metrics.reloaded(succeeded)
        self._keep_series()
        settle()

    def _keep_series(self) -> None:
        """The metrics have the series of this configuration, and no others."""
        config = self.snapshot.config
        routes = {route.path for route in config.routes}
        reserved = {path for each in RULES.reserved for path in each.paths}
        self._metrics.retain(routes | reserved, {service.name for service in config.services})
        for prepared in self.snapshot.prepared.values():
            prepared.keep_series()

    def _warn(self, warnings: tuple[Problem, ...]) -> None:
        """Say what the last configuration did not say already, wherever it stands now."""
        for warning in warnings:
            if (warning.path, warning.sentence) not in self._warned:
                log.warn("{warning}", warning=str(warning))
        self._warned = frozenset((warning.path, warning.sentence) for warning in warnings)
