# Compiled: see docs/decisions/compiled.md
"""The text of metrics: Prometheus' format 0.0.4, or OpenMetrics 1.0."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any

from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import exposition as openmetrics_exposition
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from apigw.ops.series import BUCKETS, Key, RouteSeries, Spread

PATHS_AT_A_TIME = 16
"""Routes between two pauses."""
SAMPLES_AT_A_TIME = 64
"""Samples of other families between two pauses, however few each family has: a pause wakes the thread anew."""


def render(
    families: Collector,
    routes: Mapping[Key, RouteSeries],
    services: Mapping[str, Spread],
    openmetrics: bool,
    pause: Callable[[], None],
) -> tuple[bytes, bytes]:
    """The content type and the text of ``families``, and of routes and services by their names.

    For use in a thread. Each series is copied by one call that no other thread can interrupt, so each histogram is
    consistent; different series may be of slightly different times. ``pause`` is called at least every
    millisecond, and must release the interpreter's lock. Otherwise the reactor would wait 5 ms
    (``sys.getswitchinterval``) at each of its system calls, until the text is complete.
    """
    paced = _Paced(families, pause)
    if openmetrics:
        content_type = openmetrics_exposition.CONTENT_TYPE_LATEST
        text = openmetrics_exposition.generate_latest(paced)
    else:
        content_type = CONTENT_TYPE_PLAIN_0_0_4
        text = generate_latest(paced)
    eof = b"# EOF\n" if openmetrics else b""
    pieces = _pieces(routes, services, openmetrics, pause)
    return content_type.encode(), b"".join((text.removesuffix(eof), *pieces, eof))


class _Paced:
    """Families whose rendering pauses after so many samples."""

    def __init__(self, families: Collector, pause: Callable[[], None]) -> None:
        self._families = families
        self._pause = pause
        self._samples = 0

    def collect(self) -> Iterator[Metric]:
        for family in self._families.collect():
            paced: Any = self._paced(family.samples)
            family.samples = paced
            yield family

    def _paced(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        for sample in samples:
            self._samples += 1
            if not self._samples % SAMPLES_AT_A_TIME:
                self._pause()
            yield sample


def let_others_run() -> None:
    """A pause after which the reactor's thread has had its turn."""
    # Zero would take the interpreter back before a waiting thread has woken up.
    time.sleep(0.00005)


def _pieces(
    all_routes: Mapping[Key, RouteSeries],
    services: Mapping[str, Spread],
    openmetrics: bool,
    pause: Callable[[], None],
) -> Iterator[bytes]:
    requests: list[bytes] = []
    durations: list[bytes] = []
    routes = list(all_routes.items())
    for start in range(0, len(routes), PATHS_AT_A_TIME):
        pause()
        counters: list[str] = []
        histograms: list[str] = []
        for (path, name), route in routes[start : start + PATHS_AT_A_TIME]:
            for method, series in route.methods.copy().items():
                labels = f'method="{method}",path="{_escaped(path)}",route="{_escaped(name)}"'
                for status, count in series.statuses.copy().items():
                    counters.append(f'gateway_requests_total{{{labels},status="{status}"}} {count}\n')
                histograms.append(_histogram(_REQUEST_DURATION, labels, series, openmetrics))
        requests.append("".join(counters).encode())
        durations.append("".join(histograms).encode())
    pause()
    family = "gateway_requests" if openmetrics else "gateway_requests_total"
    yield _head(family, "counter", "Requests that ended, by route and status.")
    yield from requests
    yield _head("gateway_request_duration_seconds", "histogram", "From a request's head to its response's end.")
    yield from durations
    yield _head("gateway_upstream_duration_seconds", "histogram", "What of that a service took.")
    for name, spread in services.items():
        yield _histogram(_UPSTREAM_DURATION, f'service="{_escaped(name)}"', spread, openmetrics).encode()


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _head(family: str, kind: str, help: str) -> bytes:
    return f"# HELP {family} {help}\n# TYPE {family} {kind}\n".encode()


def _template(family: str) -> str:
    bounds = [*map(repr, BUCKETS), "+Inf"]
    buckets = (f'{family}_bucket{{\0,le="{bound}"}} %d\n' for bound in bounds)
    return "".join((*buckets, f"{family}_count{{\0}} %d\n", f"{family}_sum{{\0}} %s\n"))


_REQUEST_DURATION = _template("gateway_request_duration_seconds")
_UPSTREAM_DURATION = _template("gateway_upstream_duration_seconds")


def _histogram(template: str, labels: str, spread: Spread, openmetrics: bool) -> str:
    counts = list(accumulate(spread.buckets.copy()))
    text = template.replace("\0", labels.replace("%", "%%")) % (*counts, counts[-1], spread.sum)
    if not openmetrics or not any(spread.exemplars):
        return text
    lines = text.split("\n")
    for bucket, each in enumerate(spread.exemplars.copy()):
        if each is not None:
            lines[bucket] += f' # {{trace_id="{each.trace_id.decode("ascii")}"}} {each.took} {each.ended:.3f}'
    return "\n".join(lines)
