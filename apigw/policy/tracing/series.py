"""The metrics of tracing."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter

SENT, DROPPED, REFUSED = "sent", "dropped", "refused"
"""Values of ``result``."""


class TracingSeries:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._family = Counter(
            "gateway_trace_spans_total", "Recorded spans, by what became of them.", ["result"], registry=registry
        )
        self._spans = {result: self._family.labels(result) for result in (SENT, DROPPED, REFUSED)}

    def count(self, result: str, spans: int) -> None:
        self._spans[result].inc(spans)
