"""Latency against offered load, and the endurance run: how long clients wait who come when they like."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from attrs import asdict, evolve, frozen

from bench import nginx
from bench.figures import Verdict, table
from bench.ground import Ground, address_of
from bench.load import encode
from bench.machine import MIB, cpu_seconds, memory
from bench.offered import Offered, offer
from bench.part import Part
from bench.programs import Running
from bench.rounds import Contestant, gateways, line_up, missing
from bench.scenarios import ALL, BARE

SHARES = tuple(tenth / 10 for tenth in range(1, 10))
HALF = 0.5
MOST_TIMES_NGINX = 2.0
ENDURED_RATE = 10_000
ENDURED_P95 = 50.0
"""Milliseconds."""


@frozen
class Point:
    """One program at one rate; ``share`` is of the capacity of ``capacity_of``. Latencies are milliseconds, medians
    over the rounds; ``late`` is the generator's own part in them. ``failed`` is the sum."""

    contestant: str
    capacity_of: str
    share: float
    rate: float
    p50: float
    p95: float
    p99: float
    late: float
    failed: int


def point(contestant: str, capacity_of: str, share: float, runs: Sequence[Offered]) -> Point:
    return Point(
        contestant=contestant,
        capacity_of=capacity_of,
        share=share,
        rate=runs[0].rate,
        p50=median(run.percentile(0.5) for run in runs),
        p95=median(run.percentile(0.95) for run in runs),
        p99=median(run.percentile(0.99) for run in runs),
        late=median(run.late * 1e3 for run in runs),
        failed=sum(run.failed for run in runs),
    )


def verdicts(points: Sequence[Point]) -> list[Verdict]:
    """At half of its own capacity a gateway's p95 is at most twice nginx's at the same rate, and nothing fails."""
    at_half = {(one.capacity_of, one.contestant): one for one in points if one.share == HALF}
    found = []
    for (gateway, contestant), ours in at_half.items():
        theirs = at_half.get((gateway, "nginx"))
        if contestant == gateway and theirs is not None:
            found.append(
                Verdict(
                    f"p95 at half of its capacity ({ours.rate:,.0f}/s), {gateway} against nginx",
                    ours.p95 <= MOST_TIMES_NGINX * theirs.p95,
                    f"{ours.p95:.2f} ms, {ours.p95 / theirs.p95:.2f} times",
                    f"at most {MOST_TIMES_NGINX:.0f} times",
                )
            )
    failed = sum(one.failed for one in points)
    if failed:
        found.append(Verdict("errors under offered load", False, f"{failed} requests failed", "none"))
    return found


def report(points: Sequence[Point]) -> str:
    rows = [["capacity of", "share", "requests/s", "program", "p50 ms", "p95 ms", "p99 ms", "errors"]]
    rows += [
        [
            one.capacity_of,
            f"{one.share:.0%}",
            f"{one.rate:,.0f}",
            one.contestant,
            f"{one.p50:.2f}",
            f"{one.p95:.2f}",
            f"{one.p99:.2f}",
            str(one.failed),
        ]
        for one in points
    ]
    return table(rows)


def _offer(contestant: Contestant, rate: float, seconds: float, arrivals: str) -> Offered:
    scenario = contestant.scenario
    tokens = [("Authorization", value) for value in scenario.authorizations()[:1]]
    request = encode(scenario.path, headers=[*scenario.headers, *tokens])
    address = address_of(contestant.running)
    return offer(address, request, nginx.ANSWER.encode(), rate, seconds, contestant.connections, arrivals)


def _capacities(contestants: Sequence[Contestant], seconds: int) -> dict[str, float]:
    """What each completes a second when the load never waits."""
    found = {}
    for contestant in contestants:
        contestant.load(1)
        result = contestant.load(seconds)
        found[contestant.name] = result.requests / result.seconds
    return found


def run(ground: Ground, origin: Running, rounds: int, seconds: int, connections: int, arrivals: str) -> Part:
    """Each gateway at a tenth to nine tenths of its capacity, and nginx at the same rates right after it."""
    ours = gateways([ground.variant], (ALL, BARE))
    started = line_up([(nginx.BARE, BARE), *ours], origin, ground)
    runners = [evolve(one, connections=connections) for one in started]
    neighbours = [one for one in runners if one.name == nginx.BARE.name]
    measured = [one for one in runners if one not in neighbours]
    capacities = _capacities(measured, max(2, seconds))
    pairs = [
        (program, gateway.name, share) for gateway in measured for share in SHARES for program in (gateway, *neighbours)
    ]
    runs: list[list[Offered]] = [[] for _ in pairs]
    for number in range(rounds):
        for (program, gateway, share), done in zip(pairs, runs, strict=True):
            one = _offer(program, share * capacities[gateway], seconds, arrivals)
            ground.say(
                f"round {number + 1}/{rounds}  {program.name} at {one.rate:,.0f}/s: p95 {one.percentile(0.95):.2f} ms"
            )
            done.append(one)
    points = [
        point(program.name, gateway, share, done) for (program, gateway, share), done in zip(pairs, runs, strict=True)
    ]
    late = max((one.late for one in points), default=0.0)
    text = (
        f"{rounds} rounds of {seconds} s at each rate, {connections} connections, {arrivals} arrivals, medians. "
        "Latency counts from when a request was due; in it is the generator's own delay, at the 95th percentile at "
        f"most {late:.2f} ms.\n\n"
        + ", ".join(f"{name} can do {rate:,.0f}/s" for name, rate in capacities.items())
        + f".\n\n{report(points)}"
    )
    data = {
        "arrivals": arrivals,
        "capacities": capacities,
        "points": [asdict(one) for one in points],
    }
    return Part("latency", "Latency against offered load", text, data, missing(started, ours) + verdicts(points))


@frozen
class Endured:
    """A long run at one rate. Latencies are milliseconds, memory is bytes, ``busy`` is the share of its core."""

    contestant: str
    rate: float
    seconds: float
    due: int
    answered: int
    failed: int
    p50: float
    p95: float
    p99: float
    longest: float
    late: float
    busy: float
    rss_at_rest: int
    rss: int


def endured_verdict(one: Endured) -> Verdict:
    return Verdict(
        f"{one.rate:,.0f} requests/s offered for {one.seconds:.0f} s, {one.contestant}",
        one.p95 < ENDURED_P95 and not one.failed and one.answered == one.due,
        f"p95 {one.p95:.2f} ms, {one.failed} of {one.due:,} failed",
        f"p95 under {ENDURED_P95:.0f} ms, no error",
    )


def endure(ground: Ground, origin: Running, seconds: int, connections: int, arrivals: str) -> Part:
    """The gateway with every policy on."""
    found: list[Endured] = []
    ours = gateways([ground.variant], [ALL])
    started = line_up(ours, origin, ground)
    for one in started:
        contestant = evolve(one, connections=connections)
        contestant.load(1)
        before = cpu_seconds(contestant.running.session)
        done = _offer(contestant, ENDURED_RATE, seconds, arrivals)
        spent = cpu_seconds(contestant.running.session) - before
        found.append(
            Endured(
                contestant=contestant.name,
                rate=ENDURED_RATE,
                seconds=seconds,
                due=done.due,
                answered=len(done.latencies),
                failed=done.failed,
                p50=done.percentile(0.5),
                p95=done.percentile(0.95),
                p99=done.percentile(0.99),
                longest=done.percentile(1.0),
                late=done.late * 1e3,
                busy=spent / done.seconds,
                rss_at_rest=contestant.rss_at_rest,
                rss=memory(contestant.running.session).rss,
            )
        )
    rows = [["", "offered", "p50 ms", "p95 ms", "p99 ms", "longest ms", "errors", "core busy", "RSS MiB"]]
    rows += [
        [
            one.contestant,
            f"{one.due:,} at {one.rate:,.0f}/s",
            *(f"{value:.2f}" for value in (one.p50, one.p95, one.p99, one.longest)),
            str(one.failed),
            f"{one.busy:.0%}",
            f"{one.rss / MIB:.0f}",
        ]
        for one in found
    ]
    data: dict[str, Any] = {"arrivals": arrivals, "runs": [asdict(one) for one in found]}
    promises = missing(started, ours) + [endured_verdict(one) for one in found]
    return Part("endurance", f"{ENDURED_RATE:,} requests a second, every policy on", table(rows), data, promises)
