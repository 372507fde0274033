# Compiled: see docs/decisions/compiled.md
"""The gateway's metrics: all families of ``/metrics`` except those of policies.

Metrics that every exchange changes (requests, durations) are plain ints and lists, written by the reactor's thread
only, and rendered by ``text``. Measured: 0.3 µs an exchange instead of 2 with prometheus-client's children, and some
20 ms for the text of 2,000 routes instead of hundreds with ``generate_latest``. All others use prometheus-client.

Labels come from the configuration and from this code, never from what a client sends, so their number is bounded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)

from apigw.config.model import ALWAYS
from apigw.ops.measured import Bodies
from apigw.ops.series import BUCKETS, Key, RouteSeries, ServiceSeries, Spread
from apigw.ops.text import let_others_run, render

UNMATCHED = "unmatched"
RESERVED = frozenset({UNMATCHED, *ALWAYS})
"""Values of the label ``path`` that are no routes. No reload removes their series."""

CLIENT_LEFT = 499

PROTOCOLS = ("HTTP/1.1", "HTTP/2", "opening")
"""Values of the label ``protocol``; ``opening`` is for connections whose protocol is not known yet."""

TURNED_AWAY = ("full", "address")
"""Values of ``reason``: there are ``max_connections``, or as many of one address as it may have."""

SHED = ("full", "late")
"""Values of ``reason``: there are ``max_requests``, or the reactor is later than ``max_lag``."""

LOGS = ("access", "audit", "daemon")
"""Values of the label ``log``."""


class LookupSeries:
    """The series of name resolution."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.in_progress = 0
        """Number of look-ups in progress; the resolver sets it."""
        self.of_targets = 0
        """Those for targets ``dns`` and ``srv``."""
        results = Counter(
            "gateway_dns_lookups_total", "Lookups of host names that ended, by result.", ["result"], registry=registry
        )
        self._results = {True: results.labels("success"), False: results.labels("failure")}
        self._durations = Histogram(
            "gateway_dns_lookup_duration_seconds", "What lookups took.", buckets=BUCKETS, registry=registry
        )
        self._old = Counter(
            "gateway_dns_old_answers_total",
            "Times that the last good addresses were used, because a lookup failed or took long.",
            registry=registry,
        )
        progress = Gauge("gateway_dns_lookups_in_progress", "Lookups that have not ended.", registry=registry)
        progress.set_function(lambda: self.in_progress + self.of_targets)

    def ended(self, found: bool, seconds: float) -> None:
        self._results[found].inc()
        self._durations.observe(seconds)

    def old_used(self, times: int) -> None:
        self._old.inc(times)


class Metrics:
    """All metric families of the gateway, except those of policies.

    Only the reactor's thread writes; ``render`` may run in any thread.

    Children (``route``, ``service``, ``connections``) are made once and kept by their users. A second
    call returns the same object, and may come from any thread. Counters start at zero before the first event, so that
    ``rate()`` includes it.
    """

    def __init__(self, registry: CollectorRegistry, version: str) -> None:
        disable_created_metrics()
        self.in_flight = 0
        """Exchanges that have begun and not ended; whoever accounts for them adds and takes away."""
        self.registry = registry
        """The registry, for families of policies."""
        self._routes: dict[Key, RouteSeries] = {}
        self._services: dict[str, ServiceSeries] = {}

        self._errors = Counter(
            "gateway_upstream_errors_total",
            "Calls to a service that failed, by what went wrong.",
            ["service", "kind"],
            registry=registry,
        )
        self._calls = Counter(
            "gateway_grpc_calls_total",
            "gRPC calls of a service that were answered, by their status.",
            ["service", "grpc_status"],
            registry=registry,
        )
        self._circuit_state = Gauge(
            "gateway_circuit_breaker_state",
            "The circuit of a service: 0 closed, 1 open, 2 half-open.",
            ["service"],
            registry=registry,
        )
        self._transitions = Counter(
            "gateway_circuit_breaker_transitions_total",
            "How often the circuit of a service went to a state.",
            ["service", "to"],
            registry=registry,
        )
        self._retries = Counter(
            "gateway_upstream_retries_total",
            "Requests that were sent to a service again, by why.",
            ["service", "reason"],
            registry=registry,
        )
        self._denied = Counter(
            "gateway_upstream_retries_denied_total",
            "Retries that were not made because too many were under way.",
            ["service"],
            registry=registry,
        )
        self._ejections = Counter(
            "gateway_upstream_ejections_total",
            "How often a target was ejected, because it had failed several times in a row.",
            ["service"],
            registry=registry,
        )
        self._targets = Gauge(
            "gateway_target_up",
            "Whether a target gets requests: it is neither unhealthy nor ejected.",
            ["service", "target"],
            registry=registry,
        )
        self._of_services = (
            self._errors,
            self._calls,
            self._circuit_state,
            self._transitions,
            self._ejections,
            self._targets,
            self._retries,
            self._denied,
        )
        self.bodies = Bodies()
        registry.register(self.bodies)
        self._connections = Gauge(
            "gateway_connections", "Open connections of clients.", ["protocol"], registry=registry
        )
        turned_away = Counter(
            "gateway_connections_refused_total",
            "New connections of clients that were closed at once, by reason.",
            ["reason"],
            registry=registry,
        )
        self._turned_away = {reason: turned_away.labels(reason) for reason in TURNED_AWAY}
        shed = Counter(
            "gateway_requests_shed_total",
            "Requests that were refused at once because there was too much, by reason.",
            ["reason"],
            registry=registry,
        )
        self._shed = {reason: shed.labels(reason) for reason in SHED}
        self._lines_lost = Counter(
            "gateway_log_lines_lost_total",
            "Lines of a log that could not be written.",
            ["log"],
            registry=registry,
        )
        for name in LOGS:
            self._lines_lost.labels(name)
        self.buffered = 0
        """Bytes of buffered request bodies; set before each rendering."""
        buffered = Gauge("gateway_buffered_bytes", "Requests' bodies that are buffered.", registry=registry)
        buffered.set_function(lambda: self.buffered)
        reloads = Counter(
            "gateway_config_reloads_total",
            "Reloads of the configuration, by result.",
            ["result"],
            registry=registry,
        )
        self._reloads = {True: reloads.labels("success"), False: reloads.labels("failure")}
        upgrades = Counter(
            "gateway_upgrades_total", "Upgrades of the program, by result.", ["result"], registry=registry
        )
        self._upgrades = {True: upgrades.labels("success"), False: upgrades.labels("failure")}
        self._last_reload = Gauge(
            "gateway_config_last_reload_successful",
            "Whether the configuration that was read last is the one that serves.",
            registry=registry,
        )
        in_flight = Gauge("gateway_requests_in_flight", "Requests that have begun and not ended.", registry=registry)
        in_flight.set_function(lambda: self.in_flight)
        lag = Histogram(
            "gateway_reactor_lag_seconds",
            "How much later than asked for the reactor calls back.",
            buckets=BUCKETS,
            registry=registry,
        )
        self.lookups = LookupSeries(registry)
        self.reactor_lag = lag.observe
        """``reactor_lag(seconds)`` records one sample of the event loop lag."""
        Gauge("gateway_build_info", "The version that runs.", ["version"], registry=registry).labels(version).set(1)
        ProcessCollector(registry=registry)

        self._last_reload.set(1)

    def route(self, pattern: str, name: str = "") -> RouteSeries:
        """The series of a route's pattern, or of a reserved path, or of ``UNMATCHED``, which have no other name."""
        return self._routes.setdefault((pattern, name or pattern), RouteSeries())

    def service(self, name: str) -> ServiceSeries:
        try:
            return self._services[name]
        except KeyError:
            return self._services.setdefault(name, ServiceSeries(name, *self._of_services))

    def connections(self, protocol: str) -> Gauge:
        """The open connections of one protocol: ``inc()`` and ``dec()``."""
        return self._connections.labels(protocol)

    def turned_away(self, reason: str) -> None:
        """Count a connection for which there was no place."""
        self._turned_away[reason].inc()

    def shed(self, reason: str) -> None:
        """Count a request that was refused because there was too much."""
        self._shed[reason].inc()

    def lines_lost(self, log: str) -> Callable[[int], object]:
        """Counts lines of a log of ``LOGS`` that could not be written. May be called from any thread."""
        return self._lines_lost.labels(log).inc

    def reloaded(self, succeeded: bool, counts: bool = True) -> None:
        """How a reload has ended. It ``counts`` if no other worker counts it."""
        self._reloads[succeeded].inc(counts)
        self._last_reload.set(succeeded)

    def upgraded(self, succeeded: bool) -> None:
        """How an upgrade has ended."""
        self._upgrades[succeeded].inc()

    def retain(self, routes: Collection[Key], services: Collection[str]) -> None:
        """Remove all series of other routes and services. Their exchanges in flight are not counted any more."""
        for key in self._routes.keys() - routes - {(path, path) for path in RESERVED}:
            del self._routes[key]
        for name in self._services.keys() - services:
            del self._services[name]
            for family in self._of_services:
                family.remove_by_labels({"service": name})

    def routes(self) -> dict[Key, RouteSeries]:
        """The series of routes, reserved paths and ``UNMATCHED``."""
        return self._routes.copy()

    def services(self) -> dict[str, Spread]:
        """What services took, by name."""
        return {name: service.durations for name, service in self._services.copy().items()}

    def render(self, openmetrics: bool = False, pause: Callable[[], None] | None = None) -> tuple[bytes, bytes]:
        """The content type and the text, for use in a thread; ``pause`` as in ``text.render``."""
        return render(self.registry, self._routes.copy(), self.services(), openmetrics, pause or let_others_run)


LATEST = 100
"""Samples of the event loop lag whose maximum is shown: those of ten seconds."""


class Lag:
    """The samples of the event loop lag (``wire.deadlines``). Each of ``observers`` is told each of them."""

    def __init__(self, *observers: Callable[[float], None]) -> None:
        self._observers = observers
        self._latest: deque[float] = deque([0.0], maxlen=LATEST)

    @property
    def worst(self) -> float:
        """The longest delay lately, in seconds."""
        return max(self._latest)

    def observe(self, late: float) -> None:
        """A sample, in seconds."""
        self._latest.append(late)
        for observe in self._observers:
            observe(late)
