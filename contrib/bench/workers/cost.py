"""What a request costs with several workers, and what a limit adds that they share.

All gateways may use both cores, the one with one process too; the load and the origin have one of these, as always. So
rates say little here, and CPU per request is what counts: of all processes of a gateway, the master included.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from attrs import frozen

from bench import nginx
from bench.figures import Sample, Verdict, additions, as_json, failures, interval, ratios, report, summarize, table
from bench.ground import Ground
from bench.machine import memory
from bench.part import Part
from bench.programs import NotStarted, Running, start
from bench.rounds import Contestant, refusal, run_rounds
from bench.scenarios import BARE, Scenario, with_limit
from bench.workers.several import Several, Waits, several

LIMIT = Scenario("limit", with_limit)
"""One limit, by address: as the load has one address, all workers count in one entry, and wait for one lock."""


@frozen
class Most:
    """``name`` may cost at most ``times`` as much as ``over``."""

    name: str
    over: str
    times: float


ONE, TWO, EIGHT = "1 process", "2 workers", "8 workers"
ONE_OF_MANY, EIGHT_OF_MANY = "1 process, 4 times the connections", "8 workers, 4 times the connections"
FOUR, FOUR_LIMITED = "4 workers", "4 workers, a limit"
MANY = 4
Entrant = tuple[str, int, Scenario, int]
"""Its name, how many workers it has, what it is asked to do, and by how many times the connections."""
BY_NUMBER: tuple[Entrant, ...] = (
    (ONE, 1, BARE, 1),
    (TWO, 2, BARE, 1),
    (EIGHT, 8, BARE, 1),
    (ONE_OF_MANY, 1, BARE, MANY),
    (EIGHT_OF_MANY, 8, BARE, MANY),
)
BY_LIMIT: tuple[Entrant, ...] = ((FOUR, 4, BARE, 1), (FOUR_LIMITED, 4, LIMIT, 1))
TARGETS = (Most(TWO, ONE, 1.05), Most(EIGHT_OF_MANY, ONE_OF_MANY, 1.1))
"""With 64 connections each of eight workers has eight. Whenever it runs it finds eight requests at most, and so few
share the cost of the switch to it, as they do with nginx (docs/decisions/workers.md). So eight workers are judged with
as many connections for each as two have."""
MOST_ADDED = 0.12
"""n, of a limit over all workers."""


def of_workers(ground: Ground, origin: Running, rounds: int, seconds: int, connections: int) -> Part:
    """Of two and of eight workers, against one process."""
    samples, text, data = _run(ground, origin, [], BY_NUMBER, rounds, seconds, connections)
    return Part(
        "workers-cost", "CPU per request with workers", text, data, [*number_verdicts(samples), *_failed(samples)]
    )


def of_limit(ground: Ground, origin: Running, rounds: int, seconds: int, connections: int) -> Part:
    """Of a limit that four workers share, in units of nginx's cost."""
    unit = start(nginx.BARE, ground.cores.both, ground.directory, ground.stack, (origin.port,))
    contestants = [Contestant(nginx.BARE.name, unit, BARE, memory(unit.session).rss, connections)]
    samples, text, data = _run(ground, origin, contestants, BY_LIMIT, rounds, seconds, connections)
    return Part(
        "workers-limit", "CPU of a limit over all workers", text, data, [limit_verdict(samples), *_failed(samples)]
    )


def _run(
    ground: Ground,
    origin: Running,
    contestants: list[Contestant],
    entrants: Sequence[Entrant],
    rounds: int,
    seconds: int,
    connections: int,
) -> tuple[list[Sample], str, dict[str, object]]:
    """Alternating rounds: the samples, and both ways of telling them."""
    gateways: dict[str, Several] = {}
    for name, workers, scenario, times in entrants:
        one = gateways[name] = several(ground, workers, (origin.port,), scenario.config, name)
        rss = memory(one.running.session).rss
        contestants.append(Contestant(name, one.running, scenario, rss, times * connections))
    for contestant in contestants:
        if why := refusal(contestant, origin):
            raise NotStarted(f"{contestant.name} {why}")
    samples = run_rounds(contestants, rounds, seconds, ground.say)
    waits = {name: one.locks() for name, one in gateways.items() if name not in (ONE, ONE_OF_MANY)}
    summaries = summarize(samples, contestants[0].name)
    unit = "n" if contestants[0].name == nginx.BARE.name else "times"
    text = f"{report(summaries, unit)}\n\nLocks of the shared page, in all rounds:\n\n{lock_report(samples, waits)}"
    return samples, text, as_json(samples, summaries)


def _failed(samples: Sequence[Sample]) -> list[Verdict]:
    return failures(summarize(samples, samples[0].contestant))


def number_verdicts(samples: Sequence[Sample]) -> list[Verdict]:
    """On each of ``TARGETS``."""
    found = []
    for most in TARGETS:
        measured = ratios(samples, most.name, most.over)
        seen = f"{median(measured):.3f} times ({between(measured)})"
        wanted = f"at most {most.times:.2f}"
        promise = f"CPU per request, {most.name} against {most.over}"
        found.append(Verdict(promise, median(measured) <= most.times, seen, wanted))
    return found


def limit_verdict(samples: Sequence[Sample]) -> Verdict:
    measured = additions(samples, FOUR_LIMITED, FOUR, nginx.BARE.name)
    seen = f"{median(measured):.3f} n ({between(measured)})"
    promise = "added CPU per request, a limit in memory over 4 workers"
    return Verdict(promise, median(measured) <= MOST_ADDED, seen, f"at most {MOST_ADDED:.2f} n")


def between(values: Sequence[float]) -> str:
    """The median's interval, in words."""
    low, high = interval(values)
    return f"95 %: {low:.3f} to {high:.3f}, {len(values)} rounds"


def lock_report(samples: Sequence[Sample], waits: dict[str, Waits]) -> str:
    rows = [["", "requests", "waits", "waits of a million requests", "in vain"]]
    for name, counted in waits.items():
        requests = sum(one.requests for one in samples if one.contestant == name)
        share = f"{counted.waits / requests * 1e6:,.0f}" if requests else "-"
        rows.append([name, f"{requests:,}", f"{counted.waits:,}", share, f"{counted.misses:,}"])
    return table(rows)
