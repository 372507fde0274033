"""What operators see of authentication: its family of ``/metrics``."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter


class AuthSeries:
    """The reactor's thread writes."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._failures = Counter(
            "gateway_auth_failures_total", "Callers turned away, by reason.", ["reason"], registry=registry
        )

    def failed(self, reason: str) -> None:
        """Count a 401 or 403. ``reason`` is a word of the code's own, never of the token's."""
        self._failures.labels(reason).inc()
