"""From samples to a table, ratios and verdicts. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import comb
from operator import attrgetter
from statistics import median

from attrs import asdict, frozen

from bench.machine import MIB


@frozen
class Sample:
    """One program under load for one round. Latencies are milliseconds, ``cpu`` is seconds of CPU; memory and what the
    client received are bytes."""

    contestant: str
    round: int
    requests: int
    bytes: int
    failed: int
    seconds: float
    cpu: float
    p50: float
    p95: float
    p99: float
    rss: int
    pss: int
    rss_at_rest: int

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds if self.seconds else 0.0

    @property
    def cost(self) -> float:
        """CPU microseconds per request."""
        return self.cpu / self.requests * 1e6 if self.requests else float("nan")

    @property
    def cost_of_mib(self) -> float:
        """CPU microseconds per MiB that the client received."""
        return self.cpu / self.bytes * MIB * 1e6 if self.bytes else float("nan")

    @property
    def busy(self) -> float:
        """How much of its core the program used. Well below 1, the load was the bottleneck and the rate says little."""
        return self.cpu / self.seconds if self.seconds else 0.0


@frozen
class Summary:
    """Medians over the rounds; ``failed`` is the sum. ``ratio`` is the cost in units of the reference, or ``None``."""

    contestant: str
    rate: float
    cost: float
    busy: float
    p50: float
    p95: float
    p99: float
    rss: float
    pss: float
    rss_at_rest: float
    failed: int
    ratio: float | None


def ratio(
    samples: Iterable[Sample],
    contestant: str,
    reference: str,
    cost: Callable[[Sample], float] = attrgetter("cost"),
) -> float | None:
    """The median of ``ratios``; ``None`` if there is no round with both."""
    found = ratios(samples, contestant, reference, cost)
    return median(found) if found else None


def ratios(
    samples: Iterable[Sample],
    contestant: str,
    reference: str,
    cost: Callable[[Sample], float] = attrgetter("cost"),
) -> list[float]:
    """``contestant``'s cost by ``reference``'s in the same round, for each round with both.

    Round by round, because what else the machine does changes from one round to the next and hits neighbours in time
    alike.
    """
    costs: dict[str, dict[int, float]] = {contestant: {}, reference: {}}
    for sample in samples:
        if sample.contestant in costs and sample.requests:
            costs[sample.contestant][sample.round] = cost(sample)
    ours, theirs = costs[contestant], costs[reference]
    return [ours[number] / theirs[number] for number in ours.keys() & theirs.keys() if theirs[number]]


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Where the median is with at least 95 % certainty, by the ranks of the values (the sign test: no distribution is
    assumed). With fewer than six values it is all of their range, and less certain."""
    ordered = sorted(values)
    count, below, rank = len(ordered), 0.0, 0
    while below + (chance := comb(count, rank) / 2**count) <= 0.025:
        below, rank = below + chance, rank + 1
    first = max(rank - 1, 0)
    return ordered[first], ordered[count - 1 - first]


def summarize(samples: Sequence[Sample], reference: str) -> list[Summary]:
    """One summary a contestant, in the order in which they first appear."""
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.contestant, []).append(sample)
    return [
        Summary(
            contestant=name,
            rate=median(sample.rate for sample in group),
            cost=median(sample.cost for sample in group),
            busy=median(sample.busy for sample in group),
            p50=median(sample.p50 for sample in group),
            p95=median(sample.p95 for sample in group),
            p99=median(sample.p99 for sample in group),
            rss=median(sample.rss for sample in group),
            pss=median(sample.pss for sample in group),
            rss_at_rest=median(sample.rss_at_rest for sample in group),
            failed=sum(sample.failed for sample in group),
            ratio=ratio(samples, name, reference),
        )
        for name, group in groups.items()
    ]


def table(rows: Sequence[Sequence[str]]) -> str:
    """Markdown. The first row is the heading. The first column is aligned to the left, numbers to the right."""
    widths = [max(3, *(len(row[column]) for row in rows)) for column in range(len(rows[0]))]
    lines = [[row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows]
    lines.insert(1, ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def times(value: float | None) -> str:
    """A ratio, or a dash where there is none."""
    return "-" if value is None else f"{value:.2f}"


def report(summaries: Iterable[Summary], unit: str = "n") -> str:
    """What a comparison prints. ``n`` is the cost in units of nginx's, if it is what the summaries refer to."""
    rows = [["", "CPU µs/request", unit, "requests/s", "core busy", "p50 ms", "p95 ms", "p99 ms", "errors"]]
    rows += [
        [
            one.contestant,
            f"{one.cost:.1f}",
            times(one.ratio),
            f"{one.rate:,.0f}",
            f"{one.busy:.0%}",
            f"{one.p50:.2f}",
            f"{one.p95:.2f}",
            f"{one.p99:.2f}",
            str(one.failed),
        ]
        for one in summaries
    ]
    return table(rows)


def memory_report(summaries: Iterable[Summary]) -> str:
    """Resident memory before the first request and after the load; PSS divides what processes share among them."""
    rows = [["MiB", "RSS at rest", "RSS after load", "PSS after load"]]
    rows += [
        [one.contestant, *(f"{size / MIB:.0f}" for size in (one.rss_at_rest, one.rss, one.pss))] for one in summaries
    ]
    return table(rows)


@frozen
class Verdict:
    """One promise, and whether it was kept. ``seen`` and ``wanted`` let a reader judge; ``details`` are lines below."""

    promise: str
    kept: bool
    seen: str
    wanted: str
    details: tuple[str, ...] = ()

    def __str__(self) -> str:
        first = f"{'PASS' if self.kept else 'FAIL'}  {self.promise}: {self.seen} (wanted: {self.wanted})"
        return "\n".join((first, *(f"      {line}" for line in self.details)))


def cost_verdict(samples: Sequence[Sample], contestant: str, reference: str, most: float) -> Verdict | None:
    """Whether ``contestant`` costs at most ``most`` times ``reference``; ``None`` if one of them did not run."""
    seen = ratio(samples, contestant, reference)
    if seen is None:
        return None
    digits = 2 if most >= 1 else 3
    return Verdict(
        f"CPU per request, {contestant} against {reference}",
        seen <= most,
        f"{seen:.{digits}f} times",
        f"at most {most:.{digits}f}",
    )


def added(samples: Iterable[Sample], contestant: str, over: str, reference: str) -> float | None:
    """The median of ``additions``; ``None`` if there is no round with all three."""
    found = additions(samples, contestant, over, reference)
    return median(found) if found else None


def additions(samples: Iterable[Sample], contestant: str, over: str, reference: str) -> list[float]:
    """What ``contestant`` costs more than ``over`` in the same round, in units of ``reference``'s cost there."""
    costs: dict[str, dict[int, float]] = {contestant: {}, over: {}, reference: {}}
    for sample in samples:
        if sample.contestant in costs and sample.requests:
            costs[sample.contestant][sample.round] = sample.cost
    ours, base, unit = costs[contestant], costs[over], costs[reference]
    rounds = ours.keys() & base.keys() & unit.keys()
    return [(ours[number] - base[number]) / unit[number] for number in rounds if unit[number]]


def added_verdict(samples: Sequence[Sample], contestant: str, over: str, reference: str, most: float) -> Verdict | None:
    """Whether ``contestant`` costs at most ``most`` units more than ``over``; ``None`` if one of them did not run."""
    seen = added(samples, contestant, over, reference)
    if seen is None:
        return None
    return Verdict(
        f"added CPU per request, {contestant} over {over}", seen <= most, f"{seen:.2f} n", f"at most {most:.2f} n"
    )


def failures(summaries: Iterable[Summary]) -> list[Verdict]:
    """A verdict, never kept, on each contestant of which requests failed."""
    return [
        Verdict(f"errors, {one.contestant}", False, f"{one.failed} requests failed", "none")
        for one in summaries
        if one.failed
    ]


def as_json(samples: Iterable[Sample], summaries: Iterable[Summary]) -> dict[str, object]:
    """The samples of every round, with what follows from each, and the medians: enough to draw any plot from."""
    return {
        "samples": [{**asdict(one), "rate": one.rate, "cost": one.cost, "busy": one.busy} for one in samples],
        "medians": [asdict(one) for one in summaries],
    }
