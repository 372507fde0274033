# Compiled: see docs/decisions/compiled.md
"""The series of one service."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

from apigw.ops.spread import Spread

UPSTREAM_ERRORS = ("connect", "timeout", "lost", "protocol", "overloaded")
"""Values of the label ``kind``."""

CIRCUIT_STATES = {"closed": 0, "open": 1, "half-open": 2}

MOST_STATUS = 16
"""The highest status of gRPC."""


class ServiceSeries:
    """The series of one service; made by ``Metrics.service``."""

    def __init__(self, name: str, errors: Counter, calls: Counter, state: Gauge, transitions: Counter) -> None:
        self.durations = Spread()
        self.observe = self.durations.observe
        """``observe(seconds)``: from the first byte sent to the upstream to the last byte of its response."""
        self._name = name
        self._errors_family = errors
        self._errors: dict[str, Counter] = {kind: errors.labels(name, kind) for kind in UPSTREAM_ERRORS}
        self._calls_family = calls
        self._calls: dict[int, Counter] = {}
        self._state = state.labels(name)
        self._transitions = {to: transitions.labels(name, to) for to in CIRCUIT_STATES}

    def error(self, kind: str) -> None:
        """Count a failed call. ``kind`` is one of ``UPSTREAM_ERRORS``."""
        try:
            self._errors[kind].inc()
        except KeyError:
            child = self._errors[kind] = self._errors_family.labels(self._name, kind)
            child.inc()

    def called(self, status: int) -> None:
        """Count a gRPC call that was answered with ``status``. Those that gRPC does not know count as UNKNOWN, 2."""
        known = status if status <= MOST_STATUS else 2
        try:
            self._calls[known].inc()
        except KeyError:
            child = self._calls[known] = self._calls_family.labels(self._name, str(known))
            child.inc()

    def circuit_is(self, state: str) -> None:
        """Set the state of a new circuit, without counting a transition."""
        self._state.set(CIRCUIT_STATES[state])

    def circuit(self, to: str) -> None:
        """Count a transition to ``closed``, ``open`` or ``half-open``."""
        self._state.set(CIRCUIT_STATES[to])
        self._transitions[to].inc()
