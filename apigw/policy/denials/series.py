"""The metrics of denials."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge

from apigw.policy.denials.denial import KINDS, Denial


class DenialSeries:
    """``with_store``: whether there is a Redis."""

    def __init__(self, registry: CollectorRegistry, with_store: bool) -> None:
        self._denied = Counter("gateway_denied", "Requests that a denial refused.", ("kind",), registry=registry)
        self._holding = Gauge("gateway_denials", "Denials that hold.", ("kind",), registry=registry)
        self._store: Gauge | None = None
        if with_store:
            self._store = Gauge(
                "gateway_denials_store_up", "Whether denials come from Redis, and go there.", registry=registry
            )
            self._store.set(1)
        for kind in KINDS:
            self._denied.labels(kind)
        self.hold(())

    def denied(self, kind: str) -> None:
        self._denied.labels(kind).inc()

    def hold(self, denials: Iterable[Denial]) -> None:
        """These hold now."""
        counted = dict.fromkeys(KINDS, 0)
        for each in denials:
            counted[each.kind] += 1
        for kind, number in counted.items():
            self._holding.labels(kind).set(number)

    def store_up(self, up: bool) -> None:
        if self._store is not None:
            self._store.set(up)
