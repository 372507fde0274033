"""The metrics of plugins, as ``/metrics`` shows them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from attrs import define
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from apigw.policy.plugins.guard import Counts, Guard
from apigw.policy.plugins.log import PluginLog

_COUNTED = (
    ("calls", "Calls of methods of the plugin."),
    ("seconds", "Seconds that were spent in the code of the plugin."),
    ("skipped", "Calls that were not made, because the plugin was cut off for failing."),
    ("blocked", "Calls that kept the event loop for 50 ms or more."),
)


@define(eq=False)
class Kept:
    """What outlives a change of a plugin's settings."""

    counts: Counts
    log: PluginLog
    metrics: Any
    guard: Guard | None = None


class PluginSeries(Collector):
    """``shown`` are the plugins of the configuration in use, by their names; replaced, never changed."""

    def __init__(self) -> None:
        self.shown: Mapping[str, Kept] = {}

    def describe(self) -> Iterator[Metric]:
        return self._families({})

    def collect(self) -> Iterator[Metric]:
        return self._families(self.shown)

    def _families(self, shown: Mapping[str, Kept]) -> Iterator[Metric]:
        for name, doc in _COUNTED:
            family = CounterMetricFamily(f"gateway_plugin_{name}", doc, labels=["plugin"])
            for plugin, kept in shown.items():
                family.add_metric([plugin], getattr(kept.counts, name))
            yield family
        failures = CounterMetricFamily(
            "gateway_plugin_failures", "Calls of the plugin that failed, by how.", labels=["plugin", "kind"]
        )
        lost = CounterMetricFamily(
            "gateway_plugin_log_lines_lost",
            "Lines of its log that were dropped, because there were too many.",
            labels=["plugin"],
        )
        cut_off = GaugeMetricFamily(
            "gateway_plugin_cut_off", "Whether the plugin is cut off, because it failed too often.", labels=["plugin"]
        )
        for plugin, kept in shown.items():
            for kind, count in kept.counts.failures.items():
                failures.add_metric([plugin, kind], count)
            lost.add_metric([plugin], kept.log.lost)
            cut_off.add_metric([plugin], kept.guard is not None and kept.guard.cut_off)
        yield failures
        yield lost
        yield cut_off


class Family(Collector):
    """A family that a plugin has made, as far as it can be shown: what is wrong with it harms no other.

    Labels may be of a client, and so be no Unicode; ``set_function`` may have been given what raises.
    """

    def __init__(self, name: str, family: Collector, log: PluginLog) -> None:
        self._name = name
        self._family = family
        self._log = log

    def describe(self) -> Iterable[Metric]:
        return self._family.describe()  # type: ignore[attr-defined]  # of every metric of prometheus-client

    def collect(self) -> Iterable[Metric]:
        try:
            shown = list(self._family.collect())
            for each in shown:
                each.samples = [_encodable(sample) for sample in each.samples]
        except BaseException as error:
            self._log.failed(f"the metric {self._name}", error)
            return []
        return shown


def _encodable(sample: Sample) -> Sample:
    exemplar = sample.exemplar
    if exemplar is not None:
        exemplar = exemplar._replace(labels=_escaped(exemplar.labels))
    return sample._replace(labels=_escaped(sample.labels), exemplar=exemplar)


def _escaped(labels: Mapping[str, str]) -> dict[str, str]:
    return {name: value.encode("utf-8", "backslashreplace").decode() for name, value in labels.items()}
