"""The metrics of one worker as text for other processes, and their sum over all workers.

The text is plain data, made by ``pack`` of lines of JSON, each of at most ``LINE`` series. Whoever sums parses it in a
thread, a line at a time.

Counters and histograms are summed. Gauges go by their meaning, ``GAUGES``; what has no sum gets the label ``worker``,
and a series for each.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import starmap
from operator import add
from typing import Any

import orjson
from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Exemplar as ShownExemplar
from prometheus_client.samples import Sample

from apigw.ops.exposition import Page
from apigw.ops.metrics import Metrics
from apigw.ops.packing import pack, unpack
from apigw.ops.series import CIRCUIT_STATES, Exemplar, Key, MethodSeries, RouteSeries, Spread
from apigw.ops.text import let_others_run, render

Pause = Callable[[], None]
"""Lets other threads run; called at least every millisecond."""

SUMMED = frozenset({"counter", "histogram", "summary"})
"""Types of families whose samples are added up. What they counted outlives their worker."""


def worst(one: float, other: float) -> float:
    """The worse of two states of a circuit: open, then half-open, then closed."""
    return next((state for state in _WORST_FIRST if state in (one, other)), one)


_WORST_FIRST = [CIRCUIT_STATES[state] for state in ("open", "half-open", "closed")]


GAUGES: Mapping[str, Callable[[float, float], float]] = {
    "gateway_requests_in_flight": add,
    "gateway_dns_lookups_in_progress": add,
    "gateway_buffered_bytes": add,
    "gateway_circuit_breaker_state": worst,
    "gateway_target_up": min,
    "gateway_upstream_connections": add,
    "gateway_upstream_waiting_requests": add,
    "gateway_certificate_expires_seconds": min,
    "gateway_rate_limit_store_up": min,
    "gateway_denials": max,
    "gateway_denials_store_up": min,
    "gateway_config_last_reload_successful": min,
    "gateway_build_info": max,
}
"""How two values become one. Other gauges, as those of users' policies, have a series for each worker."""

BY_WORKER = frozenset({"gateway_reactor_lag_seconds", "process_cpu_seconds"})
"""Counters and histograms with a series for each worker, which its successor continues."""

OF_PLUGINS = "gateway_plugin_"
"""How the names of all begin that plugins have made."""

STARTS, DEATHS = "gateway_worker_starts", "gateway_worker_deaths"

LINE = 64
"""Routes, services, or series of a family in a line. Measured: it is parsed and added in less than half a
millisecond."""

_COUNTS, _FAMILY, _SERVICES, _ROUTES = "counts", "family", "services", "routes"

Counts = Mapping[str, Mapping[str, int]]
"""Numbers that are no metrics, by question and name (``Machine.counts``)."""


def packed(metrics: Metrics, worker: int, pause: Pause = let_others_run, counts: Counts | None = None) -> str:
    """What ``worker`` says of itself. For use in a thread, as ``text.render``."""
    totals = Totals()
    totals.add_counts(counts or {})
    for family in (*_of_worker(worker, 1, 0), *_of_registry(metrics.registry.collect(), worker)):
        totals.add_family(family)
    totals.routes, totals.services = metrics.routes(), metrics.services()
    return totals.packed(pause)


def gone(total: str | None, last: str | None, worker: int, died: bool = True) -> str:
    """The total of workers that are gone, ``worker`` with them. Counters and histograms survive.

    ``total`` is what this returned for those before (``None``: there were none), ``last`` is the last that ``worker``
    said (``None``: nothing). ``died`` counts a death. A pure function; of 2,000 routes it takes some 50 ms.
    """
    totals = Totals()
    for value in (total, last):
        if value is not None:
            totals.add(value)
    for family in _of_worker(worker, last is None, died):
        totals.add_family(family)
    totals.families = {name: each for name, each in totals.families.items() if each.type in SUMMED}
    return totals.packed()


def page(living: Iterable[str], dead: Iterable[str], openmetrics: bool, pause: Pause = let_others_run) -> Page:
    """Content type and text of ``/metrics`` for all workers, from what they said; ``dead`` is what ``gone`` returned.

    For use in a thread.
    """
    totals = Totals()
    for value in living:
        totals.add(value, pause)
    known = totals.configured()
    for value in dead:
        totals.add(value, pause, known)
    return render(totals, totals.routes, totals.services, openmetrics, pause)


def counts_of(value: str, question: str) -> Mapping[str, int]:
    """Those of a question, of what was said."""
    _, counts = orjson.loads(unpack(value)[0])
    found: Mapping[str, int] = counts.get(question, {})
    return found


class Family:
    """A family of metrics, with the value of each series by its name and its labels."""

    __slots__ = ("documentation", "name", "samples", "type", "unit")

    def __init__(self, name: str, documentation: str, type: str, unit: str) -> None:
        self.name = name
        self.documentation = documentation
        self.type = type
        self.unit = unit
        self.samples: dict[Series, Value] = {}

    def combine(self, one: float, other: float) -> float:
        return one + other if self.type in SUMMED else GAUGES.get(self.name, max)(one, other)

    def add(self, series: Series, value: Value) -> None:
        known = self.samples.get(series)
        if known is None:
            self.samples[series] = value
        else:
            exemplar = max(known[1], value[1], key=_age) if known[1] and value[1] else known[1] or value[1]
            self.samples[series] = self.combine(known[0], value[0]), exemplar


Series = tuple[str, ...]
"""Its name; then the name and the value of each label, in the order of the family."""

Value = tuple[float, Any]
"""The number; and its exemplar, as a list of labels, value and Unix time, or None."""


class Known:
    """Names that the configuration has now. What a worker that is gone counted for others is not shown."""

    __slots__ = ("endpoints", "routes", "services")

    def __init__(self, routes: Iterable[Key], services: Iterable[str], endpoints: Iterable[str]) -> None:
        self.routes = set(routes)
        self.services = set(services)
        self.endpoints = set(endpoints)

    def has(self, series: Series) -> bool:
        for label, value in zip(series[1::2], series[2::2], strict=True):
            if label == "service" and value not in self.services:
                return False
            if label == "endpoint" and value not in self.endpoints:
                return False
        return True


class Totals:
    """A sum that grows. It is a collector, for the rendering of its families."""

    def __init__(self) -> None:
        self.routes: dict[Key, RouteSeries] = {}
        self.services: dict[str, Spread] = {}
        self.families: dict[str, Family] = {}
        self.counts: dict[str, Counter[str]] = {}

    def add(self, value: str, pause: Pause = lambda: None, known: Known | None = None) -> None:
        """Add what was said; with ``known`` only what is of its names."""
        for line in unpack(value):
            pause()
            kind, entries, *family = orjson.loads(line)
            if kind == _COUNTS:
                self.add_counts(entries)
            elif kind == _ROUTES:
                for path, name, methods in entries:
                    if known is None or (path, name) in known.routes:
                        self._add_route(self.routes.setdefault((path, name), RouteSeries()), methods)
            elif kind == _SERVICES:
                for name, buckets, seconds, exemplars in entries:
                    if known is None or name in known.services:
                        _add(self.services.setdefault(name, Spread()), buckets, seconds, exemplars)
            else:
                self._add_samples(Family(*family), entries, known)

    def add_counts(self, counts: Counts) -> None:
        for question, numbers in counts.items():
            self.counts.setdefault(question, Counter()).update(numbers)

    def add_family(self, metric: Metric) -> None:
        """Add a family as prometheus-client has it."""
        new = Family(metric.name, metric.documentation, metric.type, metric.unit)
        family = self.families.setdefault(metric.name, new)
        for sample in metric.samples:
            exemplar = sample.exemplar
            kept = None if exemplar is None else [exemplar.labels, exemplar.value, exemplar.timestamp]
            labels = (word for pair in sample.labels.items() for word in pair)
            family.add((sample.name, *labels), (sample.value, kept))

    def packed(self, pause: Pause = lambda: None) -> str:
        """The sum as text. The series may be those that are being counted."""
        lines = [orjson.dumps((_COUNTS, self.counts))]
        written = 0

        def write(kind: str, entries: Sequence[Any], shown: Callable[[Any], Any], *family: str) -> None:
            nonlocal written
            for start in range(0, len(entries) or 1, LINE):  # a family without series has its head
                line = entries[start : start + LINE]
                written += 1 + len(line)
                if written > LINE:  # most families have few series, and each pause wakes this thread anew
                    pause()
                    written = 1 + len(line)
                lines.append(orjson.dumps((kind, [shown(each) for each in line], *family)))

        for family in self.families.values():
            about = family.name, family.documentation, family.type, family.unit
            write(_FAMILY, list(family.samples.items()), _shown_sample, *about)
        write(_SERVICES, list(self.services.items()), _shown_service)
        write(_ROUTES, list(self.routes.items()), _shown_route)
        return pack(lines)

    def configured(self) -> Known:
        """The names of what is counted: every worker has a series for what is configured, before the first event."""
        series = (each for family in self.families.values() for each in family.samples)
        endpoints = (each[each.index("endpoint", 1) + 1] for each in series if "endpoint" in each[1::2])
        return Known(self.routes, self.services, endpoints)

    def collect(self) -> Iterator[Metric]:
        for family in self.families.values():
            metric = Metric(family.name, family.documentation, family.type, "")
            metric.unit = family.unit
            # Made when they are rendered, between two pauses.
            samples: Any = starmap(_sample, family.samples.items())
            metric.samples = samples
            yield metric

    def _add_samples(self, family: Family, entries: Iterable[Any], known: Known | None) -> None:
        family = self.families.setdefault(family.name, family)
        # What plugins call a service, or an endpoint, is none of the configuration.
        is_ours = not family.name.startswith(OF_PLUGINS)
        for *labels, number, exemplar in entries:
            series = tuple(labels)
            if known is None or not is_ours or known.has(series):
                family.add(series, (float(number), exemplar))

    def _add_route(self, route: RouteSeries, methods: Iterable[Any]) -> None:
        for method, statuses, buckets, seconds, exemplars in methods:
            series = route.methods.get(method)
            if series is None:
                series = route.methods[method] = MethodSeries()
            for status, count in zip(statuses[::2], statuses[1::2], strict=True):
                series.statuses[status] = series.statuses.get(status, 0) + count
            _add(series, buckets, seconds, exemplars)


def _add(spread: Spread, buckets: list[int], seconds: float, exemplars: list[Any]) -> None:
    spread.buckets = list(map(add, spread.buckets, buckets))
    spread.sum += seconds
    for bucket, trace_id, took, ended in exemplars:
        known = spread.exemplars[bucket]
        if known is None or known.ended < ended:
            spread.exemplars[bucket] = Exemplar(trace_id.encode("ascii"), took, ended)


def _shown_exemplars(spread: Spread) -> list[Any]:
    exemplars = enumerate(spread.exemplars.copy())
    return [(bucket, each.trace_id.decode("ascii"), each.took, each.ended) for bucket, each in exemplars if each]


def _shown_route(route: tuple[Key, RouteSeries]) -> list[Any]:
    methods = []
    for method, series in route[1].methods.copy().items():
        statuses = [number for each in series.statuses.copy().items() for number in each]
        methods.append([method, statuses, series.buckets.copy(), series.sum, _shown_exemplars(series)])
    return [*route[0], methods]


def _shown_service(service: tuple[str, Spread]) -> list[Any]:
    return [service[0], service[1].buckets.copy(), service[1].sum, _shown_exemplars(service[1])]


def _shown_sample(sample: tuple[Series, Value]) -> list[Any]:
    series, (number, exemplar) = sample
    # JSON has neither infinities nor NaN.
    return [*series, number if math.isfinite(number) else str(number), exemplar]


def _sample(series: Series, value: Value) -> Sample:
    number, exemplar = value
    labels = dict(zip(series[1::2], series[2::2], strict=True))
    return Sample(series[0], labels, number, None, exemplar and ShownExemplar(*exemplar))


def _age(exemplar: list[Any]) -> float:
    return exemplar[2] or 0.0


def _of_worker(worker: int, starts: int, deaths: int) -> Iterator[Metric]:
    for name, documentation, count in (
        (STARTS, "Starts of a worker.", starts),
        (DEATHS, "Times that a worker ended before its time.", deaths),
    ):
        family = CounterMetricFamily(name, documentation, labels=["worker"])
        family.add_metric([str(worker)], count)
        yield family


def _of_registry(families: Iterable[Metric], worker: int) -> Iterator[Metric]:
    """The families of a worker, those that have no sum with its label."""
    for family in families:
        summed = family.type in SUMMED or family.name in GAUGES
        if family.name in BY_WORKER or not summed:
            samples = family.samples
            family.samples = [each._replace(labels={**each.labels, "worker": str(worker)}) for each in samples]
        yield family
