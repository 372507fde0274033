"""The metrics of external checks."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds: a checker beside the gateway answers in one or two milliseconds."""

RESULTS = ("passed", "refused", "failed", "remembered")


class CheckSeries:
    """How often each check was asked for, and how long its program took."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._total = Counter(
            "gateway_checks", "Requests that needed an external check.", ("check", "result"), registry=registry
        )
        self._seconds = Histogram(
            "gateway_check_duration_seconds",
            "Time to the answer of an external check.",
            ("check",),
            buckets=BUCKETS,
            registry=registry,
        )
        self._known: set[str] = set()

    def counted(self, check: str, result: str) -> None:
        """One of ``RESULTS``."""
        self._total.labels(check, result).inc()

    def answered(self, check: str, seconds: float) -> None:
        self._seconds.labels(check).observe(seconds)

    def retain(self, checks: set[str]) -> None:
        """Those of the configuration begin with 0; others go."""
        for gone in self._known - checks:
            self._seconds.remove(gone)
            for result in RESULTS:
                self._total.remove(gone, result)
        for name in checks:
            self._seconds.labels(name)
            for result in RESULTS:
                self._total.labels(name, result)
        self._known = set(checks)
