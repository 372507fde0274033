"""What operators see of authentication: its family of ``/metrics``."""

from __future__ import annotations

from collections.abc import Collection

from prometheus_client import CollectorRegistry, Counter

RESULTS = ("active", "inactive", "failed")


class AuthSeries:
    """The reactor's thread writes."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._failures = Counter(
            "gateway_auth_failures_total", "Callers turned away, by reason.", ["reason"], registry=registry
        )
        self._introspections = Counter(
            "gateway_introspections_total",
            "Questions to the servers of opaque tokens, by result.",
            ["provider", "result"],
            registry=registry,
        )
        self._providers = set[str]()

    def failed(self, reason: str) -> None:
        """Count a 401 or 403. ``reason`` is a word of the code's own, never of the token's."""
        self._failures.labels(reason).inc()

    def introspected(self, provider: str, result: str) -> None:
        """Count a question to a server. ``result`` is active, inactive or failed."""
        self._begin(provider)
        self._introspections.labels(provider, result).inc()

    def keep(self, providers: Collection[str]) -> None:
        """Those of these providers begin with 0; others go."""
        for gone in self._providers.difference(providers):
            self._providers.discard(gone)
            for result in RESULTS:
                self._introspections.remove(gone, result)
        for name in providers:
            self._begin(name)

    def _begin(self, provider: str) -> None:
        if provider not in self._providers:
            self._providers.add(provider)
            for result in RESULTS:
                self._introspections.labels(provider, result)
