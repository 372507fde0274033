"""What the admin listener's page of metrics holds, as Prometheus reads it."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from support.asking import metrics
from support.daemon import Daemon


def samples(daemon: Daemon) -> list[Sample]:
    return [sample for family in text_string_to_metric_families(metrics(daemon)) for sample in family.samples]


def counted(daemon: Daemon, name: str, *labels: str) -> dict[tuple[str, ...], float]:
    """The values of one metric by the values of its labels, without those at zero."""
    return {
        tuple(sample.labels[label] for label in labels): sample.value
        for sample in samples(daemon)
        if sample.name == name and sample.value
    }


def value(daemon: Daemon, name: str, **labels: str) -> float | None:
    found = [each.value for each in samples(daemon) if each.name == name and labels.items() <= each.labels.items()]
    return found[0] if found else None
