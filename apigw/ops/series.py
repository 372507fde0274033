# Compiled: see docs/decisions/compiled.md
"""The series of routes and services, as they are counted."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of the buckets in seconds, inclusive."""

FRESH: Final = 1.0
"""Seconds for which the exemplar of a bucket stays. They are read less often (Prometheus: every 15 s or more)."""

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER: Final = "OTHER"

UPSTREAM_ERRORS = ("connect", "timeout", "lost", "protocol", "overloaded")
"""Values of the label ``kind``."""

RETRIED = ("connect", "reset")
"""Values of ``reason`` that every service has. The others are statuses."""

CIRCUIT_STATES: Final = {"closed": 0, "open": 1, "half-open": 2}

MOST_STATUS: Final = 16
"""The highest status of gRPC."""


_BOUNDS: Final = list(BUCKETS)


def bucket_of(seconds: float) -> int:
    """The index of the bucket for a duration. Most are in one of the first, and bisecting costs a call."""
    number = 0
    for bound in _BOUNDS:
        if seconds <= bound:
            return number
        number += 1
    return number


class Exemplar:
    """A request whose trace is recorded: its ``trace_id``, in hexadecimal digits, what it ``took``, and when it ended.

    Seconds, and Unix time.
    """

    __slots__ = ("ended", "took", "trace_id")

    def __init__(self, trace_id: bytes, took: float, ended: float) -> None:
        self.trace_id = trace_id
        self.took = took
        self.ended = ended


class Spread:
    """A histogram of seconds over ``BUCKETS``, with a recent exemplar of each bucket that has one."""

    __slots__ = ("buckets", "exemplars", "sum")

    def __init__(self) -> None:
        self.buckets = [0] * (len(BUCKETS) + 1)
        self.sum = 0.0
        self.exemplars: list[Exemplar | None] = [None] * (len(BUCKETS) + 1)

    def observe(self, seconds: float, trace_id: bytes = b"", ended: float = 0.0) -> None:
        """``trace_id`` is that of the request that took so long, if its trace is recorded, and ``ended`` its Unix time.
        It is the exemplar, unless the one before is fresh."""
        bucket = bucket_of(seconds)
        self.buckets[bucket] += 1
        self.sum += seconds
        if trace_id:
            known = self.exemplars[bucket]
            if known is None or not known.ended <= ended < known.ended + FRESH:
                self.exemplars[bucket] = Exemplar(trace_id, seconds, ended)


class MethodSeries(Spread):
    """The series of one method of one route: durations, and answers by status."""

    __slots__ = ("statuses",)

    def __init__(self) -> None:
        super().__init__()
        self.statuses: dict[int, int] = {}


Key = tuple[str, str]
"""The labels ``path`` and ``route`` of a series: the pattern, and the name of the route."""


class RouteSeries:
    """The series of one route and one of its paths."""

    __slots__ = ("_known", "methods")

    def __init__(self) -> None:
        self.methods: dict[str, MethodSeries] = {}
        self._known: dict[bytes | str, MethodSeries] = {}

    def observe(
        self, method: bytes | str, status: int, seconds: float | None, trace_id: bytes = b"", ended: float = 0.0
    ) -> None:
        """Count one exchange at its end. ``seconds`` is ``None`` for tunnels and event streams; the others are those of
        ``Spread.observe``."""
        try:
            series = self._known[method]
        except KeyError:
            series = self._of(method)
        try:
            series.statuses[status] += 1
        except KeyError:
            # RFC 9110 §15: what is outside of 100..599 is to be taken for a server error.
            known = status if 100 <= status <= 599 else 599
            series.statuses[known] = series.statuses.get(known, 0) + 1
        if seconds is not None:
            series.observe(seconds, trace_id, ended)

    def _of(self, method: bytes | str) -> MethodSeries:
        name = method if isinstance(method, str) else method.decode("latin-1")
        if name not in METHODS:
            return self.methods.setdefault(OTHER, MethodSeries())
        series = self._known[method] = self.methods.setdefault(name, MethodSeries())
        return series


class ServiceSeries:
    """The series of one service; made by ``Metrics.service``."""

    def __init__(
        self,
        name: str,
        errors: Counter,
        calls: Counter,
        state: Gauge,
        transitions: Counter,
        ejections: Counter,
        targets: Gauge,
        retries: Counter,
        denied: Counter,
    ) -> None:
        self.durations = Spread()
        self._name = name
        self._errors_family = errors
        self._errors: dict[str, Counter] = {kind: errors.labels(name, kind) for kind in UPSTREAM_ERRORS}
        self._calls_family = calls
        self._calls: dict[int, Counter] = {}
        self._state = state.labels(name)
        self._transitions = {to: transitions.labels(name, to) for to in CIRCUIT_STATES}
        self._retries_family = retries
        self._retries: dict[str, Counter] = {why: retries.labels(name, why) for why in RETRIED}
        self._denied = denied.labels(name)
        self.ejected = ejections.labels(name).inc
        """``ejected()``: count an ejection of a target."""
        self._targets = targets

    def observe(self, seconds: float, trace_id: bytes = b"", ended: float = 0.0) -> None:
        """Count an answer: ``seconds`` from the first byte sent to the upstream to the last byte of its response. The
        others are those of ``Spread.observe``."""
        self.durations.observe(seconds, trace_id, ended)

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

    def retried(self, why: str) -> None:
        """Count a request that is sent again: ``why`` is one of ``RETRIED``, or a status."""
        try:
            self._retries[why].inc()
        except KeyError:
            child = self._retries[why] = self._retries_family.labels(self._name, why)
            child.inc()

    def retry_denied(self) -> None:
        """Count a retry that is not made because too many are under way."""
        self._denied.inc()

    def circuit_is(self, state: str) -> None:
        """Set the state of a new circuit, without counting a transition."""
        self._state.set(CIRCUIT_STATES[state])

    def circuit(self, to: str) -> None:
        """Count a transition to ``closed``, ``open`` or ``half-open``."""
        self._state.set(CIRCUIT_STATES[to])
        self._transitions[to].inc()

    def target_is(self, target: str, up: bool) -> None:
        """Whether a target gets requests."""
        self._targets.labels(self._name, target).set(up)

    def target_gone(self, target: str) -> None:
        """It is no target of the service any more."""
        self._targets.remove_by_labels({"service": self._name, "target": target})
