"""The metrics of rate limits."""

from __future__ import annotations

from collections.abc import Collection

from prometheus_client import CollectorRegistry, Counter, Gauge

from apigw.policy.limits.quota import Quota

VIOLATIONS, FALLBACKS = "gateway_rate_limit_violations", "gateway_rate_limit_fallbacks"


class LimitSeries:
    """Metrics of limits, written by the reactor's thread. Series start at zero, for ``rate()``.

    A series belongs to the endpoint, kind and scope of a limit, and survives reloads that keep all three.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._limits: dict[tuple[str, str, str], Counter] = {}
        self._violations = Counter(
            f"{VIOLATIONS}_total",
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
            f"{FALLBACKS}_total",
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
        """Count a check that was decided without Redis."""
        self._fallbacks.inc()

    def retain(self, limits: Collection[tuple[str, str, str]]) -> None:
        """Keep the series of these limits, given by endpoint, kind and scope, and remove all others."""
        for key in self._limits.keys() - limits:
            del self._limits[key]
            self._violations.remove(*key)
        for key in limits:
            self._of(key)

    def violations(self) -> dict[tuple[str, str, str], int]:
        """Number of refused requests by endpoint, kind and scope."""
        (family,) = self._violations.collect()
        return {
            (sample.labels["endpoint"], sample.labels["kind"], sample.labels["scope"]): int(sample.value)
            for sample in family.samples
            if sample.name.endswith("_total")
        }

    def fallbacks(self) -> int:
        """Number of checks that were decided without Redis."""
        (family,) = self._fallbacks.collect()
        return int(next(sample.value for sample in family.samples if sample.name.endswith("_total")))

    def _of(self, key: tuple[str, str, str]) -> Counter:
        series = self._limits.get(key)
        if series is None:
            series = self._limits[key] = self._violations.labels(*key)
        return series
