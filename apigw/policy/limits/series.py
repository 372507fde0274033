"""What operators see of limits: their families of ``/metrics``."""

from __future__ import annotations

from collections.abc import Collection

from prometheus_client import CollectorRegistry, Counter, Gauge

from apigw.policy.limits.quota import Quota


class LimitSeries:
    """The reactor's thread writes. A limit's series stands at zero before it refuses anybody: so ``rate()`` sees that.

    A series is named by the endpoint, kind and scope of its limit, and is the same across reloads that keep them.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._limits: dict[tuple[str, str, str], Counter] = {}
        self._violations = Counter(
            "gateway_rate_limit_violations_total",
            "Requests refused by a limit.",
            ["endpoint", "kind", "scope"],
            registry=registry,
        )
        self._store_up = Gauge(
            "gateway_rate_limit_store_up",
            "Whether the store of the limits answers; memory always does.",
            registry=registry,
        )
        self._fallbacks = Counter(
            "gateway_rate_limit_fallbacks_total",
            "Checks decided without the store of the limits, because it was slow or gone.",
            registry=registry,
        )
        self._store_up.set(1)

    def violated(self, limit: Quota) -> None:
        """Count a request that ``limit`` refuses."""
        self._of(limit.series).inc()

    def store_up(self, up: bool) -> None:
        self._store_up.set(up)

    def fallback(self) -> None:
        """Count a check that was decided without the store."""
        self._fallbacks.inc()

    def retain(self, limits: Collection[tuple[str, str, str]]) -> None:
        """These have series, by endpoint, kind and scope, and no others."""
        for key in self._limits.keys() - limits:
            del self._limits[key]
            self._violations.remove(*key)
        for key in limits:
            self._of(key)

    def violations(self) -> dict[tuple[str, str, str], int]:
        """How many requests each limit has refused, by its endpoint, kind and scope."""
        (family,) = self._violations.collect()
        return {
            (sample.labels["endpoint"], sample.labels["kind"], sample.labels["scope"]): int(sample.value)
            for sample in family.samples
            if sample.name.endswith("_total")
        }

    def fallbacks(self) -> int:
        """How many checks were decided without the store."""
        (family,) = self._fallbacks.collect()
        return int(next(sample.value for sample in family.samples if sample.name.endswith("_total")))

    def _of(self, key: tuple[str, str, str]) -> Counter:
        series = self._limits.get(key)
        if series is None:
            series = self._limits[key] = self._violations.labels(*key)
        return series
