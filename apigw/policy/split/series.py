"""The metrics of splits."""

from __future__ import annotations

from collections.abc import Collection

from prometheus_client import CollectorRegistry, Counter


class SplitSeries:
    """Written by the reactor's thread. A series begins at zero, and survives reloads that keep route and service."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._of: dict[tuple[str, str], Counter] = {}
        self._requests = Counter(
            "gateway_split_requests_total",
            "Requests of routes with a split, by the service that was chosen.",
            ["route", "service"],
            registry=registry,
        )

    def of(self, route: str, service: str) -> Counter:
        series = self._of.get((route, service))
        if series is None:
            series = self._of[route, service] = self._requests.labels(route, service)
        return series

    def retain(self, kept: Collection[tuple[str, str]]) -> None:
        """Keep the series of these routes and services, and remove all others."""
        for key in self._of.keys() - kept:
            del self._of[key]
            self._requests.remove(*key)
        for key in kept:
            self.of(*key)
