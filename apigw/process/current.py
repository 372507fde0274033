"""The snapshot in use, and the effects of a change."""

from __future__ import annotations

from collections.abc import Callable, Generator

from attrs import evolve

from apigw.ops.metrics import Metrics
from apigw.ops.readiness import Readiness
from apigw.process.pieces import at_once
from apigw.process.reports import Reports
from apigw.process.rules import RULES
from apigw.process.snapshot import Snapshot
from apigw.process.tree import Upstreams
from apigw.proxy.held_body import Buffers
from apigw.proxy.pipeline import Pipeline
from apigw.redis.link import RedisLink
from apigw.wire.channel import ChannelFactory


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
        reports: Reports,
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
        self._reports = reports

    def start(self) -> None:
        """The program starts: put the first snapshot in use."""
        self.use(self.snapshot)
        at_once(self.keeping_series())
        self._reports.started(self.snapshot.config)

    def stop(self) -> None:
        """No effect: the snapshot stays in use until the end."""

    def use(self, snapshot: Snapshot) -> None:
        """Put ``snapshot`` in use. Cannot fail: all that can was done when it was compiled.

        It takes a millisecond. ``keeping_series`` has the part that can be done later.
        """
        previous, self.snapshot = self.snapshot, snapshot
        gateway = snapshot.config.gateway
        self._pipeline.use(snapshot.table)
        self._buffers.most = gateway.max_buffered
        connections = self._reports.in_use(snapshot.config)
        self._channels.settings = evolve(snapshot.settings, max_connections=connections)
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

    def keeping_series(self) -> Generator[None, None, None]:
        """Give the metrics the series of this configuration, and no others, in steps."""
        snapshot = self.snapshot
        routes = {(path, path) for each in RULES.reserved for path in each.paths}
        for route in snapshot.config.routes:
            routes.add((route.path, route.name))
            yield
        self._metrics.retain(routes, {service.name for service in snapshot.config.services})
        for prepared in snapshot.prepared.values():
            yield
            prepared.keep_series()
