"""The metrics of rate limits."""

from __future__ import annotations

from collections.abc import Iterable, Set

from prometheus_client import CollectorRegistry, Counter, Gauge

from apigw.policy.limits.quota import Quota

Labels = tuple[str, str, str]
"""Endpoint, kind and scope of a limit."""


class Kept:
    """Which series and numbers stay: what is collected here limit by limit, as there may be thousands."""

    def __init__(self) -> None:
        self.refused: set[Labels] = set()
        self.would_refuse: set[Labels] = set()
        self.ids: set[bytes] = set()

    @classmethod
    def of(cls, limits: Iterable[Quota]) -> Kept:
        kept = cls()
        for limit in limits:
            kept.add(limit)
        return kept

    def add(self, limit: Quota) -> None:
        (self.would_refuse if limit.config.dry_run else self.refused).add(limit.series)
        self.ids.add(limit.id)


class Violations:
    """One counter of limits, and how often each of them was counted."""

    def __init__(self, name: str, documentation: str, registry: CollectorRegistry) -> None:
        self._children: dict[Labels, Counter] = {}
        self._counter = Counter(name, documentation, ["endpoint", "kind", "scope"], registry=registry)
        self._of_limits: dict[bytes, int] = {}

    def __call__(self, limit: Quota) -> None:
        """Count a request."""
        self._child(limit.series).inc()
        self._of_limits[limit.id] = self.of(limit) + 1

    def begin(self, limit: Quota) -> None:
        self._child(limit.series)

    def of(self, limit: Quota) -> int:
        """How often. Limits that differ in their windows have the same series, but not the same number here."""
        return self._of_limits.get(limit.id, 0)

    def retain(self, kept: Set[Labels], ids: Set[bytes]) -> None:
        for labels in self._children.keys() - kept:
            del self._children[labels]
            self._counter.remove(*labels)
        for labels in kept - self._children.keys():
            self._child(labels)
        self._of_limits = {id: number for id, number in self._of_limits.items() if id in ids}

    def _child(self, labels: Labels) -> Counter:
        child = self._children.get(labels)
        if child is None:
            child = self._children[labels] = self._counter.labels(*labels)
        return child


class LimitSeries:
    """Metrics of limits, written by the reactor's thread. Series start at zero, for ``rate()``.

    A series belongs to the endpoint, kind and scope of a limit, and survives reloads that keep all three.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._refused = Violations("gateway_rate_limit_violations_total", "Requests refused by a limit.", registry)
        self._would_refuse = Violations(
            "gateway_rate_limit_dry_run_violations_total",
            "Requests that a limit in a dry run would have refused.",
            registry,
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
        """Count a request that ``limit`` refuses, or would in its dry run."""
        (self._would_refuse if limit.config.dry_run else self._refused)(limit)

    def store_up(self, up: bool) -> None:
        self._store_up.set(up)

    def fallback(self) -> None:
        """Count a check that was decided without Redis."""
        self._fallbacks.inc()

    def begin(self, limit: Quota) -> None:
        """Make its series, before ``retain``, which would take too long to make thousands at once."""
        (self._would_refuse if limit.config.dry_run else self._refused).begin(limit)

    def retain(self, kept: Kept) -> None:
        """Keep these series, and remove all others."""
        self._refused.retain(kept.refused, kept.ids)
        self._would_refuse.retain(kept.would_refuse, kept.ids)

    def violations(self, limit: Quota) -> int:
        """How many requests it has refused, or would have in its dry run."""
        return (self._would_refuse if limit.config.dry_run else self._refused).of(limit)

    def fallbacks(self) -> int:
        """Number of checks that were decided without Redis."""
        (family,) = self._fallbacks.collect()
        return int(next(sample.value for sample in family.samples if sample.name.endswith("_total")))
