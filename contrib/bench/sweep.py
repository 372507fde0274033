"""What the cost of a request depends on: how many routes, how many connections, and how large a body."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from attrs import evolve

from bench import nginx
from bench.figures import Sample, as_json, failures, ratio, report, summarize, table, times
from bench.ground import Ground
from bench.machine import MIB
from bench.part import Part
from bench.programs import Running, python_origin, start
from bench.rounds import Contestant, gateways, line_up, missing, run_rounds
from bench.scenarios import BARE, LONG_QUEUE, ROUTES, Scenario

CONNECTIONS = (1, 8, 64, 512, 5_000)
SIZES = ((MIB, 8), (64 * MIB, 2))
"""Bytes of a body, and how many are downloaded at a time."""


def routes(ground: Ground, origin: Running, rounds: int, seconds: int, connections: int) -> Part:
    """One route, and 10 to 10,000 of which the one in the middle is asked for."""
    ours = gateways([ground.variant], (BARE, *ROUTES))
    started = line_up([(nginx.BARE, BARE), *ours], origin, ground)
    contestants = [evolve(one, connections=connections) for one in started]
    samples = run_rounds(contestants, rounds, seconds, ground.say)
    summaries = summarize(samples, nginx.BARE.name)
    promises = missing(started, ours) + failures(summaries)
    return Part("routes", "10 to 10,000 routes", report(summaries), as_json(samples, summaries), promises)


def connections(ground: Ground, origin: Running, rounds: int, seconds: int) -> Part:
    """1 to 5,000 connections with a request outstanding on each; ``n`` is nginx's cost with as many."""
    ours = gateways([ground.variant], [LONG_QUEUE])
    started = line_up([(nginx.BARE, BARE), *ours], origin, ground)
    contestants = [
        evolve(one, name=_with(_program(one), count), connections=count) for count in CONNECTIONS for one in started
    ]
    samples = run_rounds(contestants, rounds, seconds, ground.say)
    summaries = [one for count in CONNECTIONS for one in summarize(_of(samples, count), _with(nginx.BARE.name, count))]
    promises = missing(started, ours) + failures(summaries)
    text = f"n is nginx's cost with as many connections. To open them is in the cost.\n\n{report(summaries)}"
    return Part("connections", "1 to 5,000 connections", text, as_json(samples, summaries), promises)


def _program(contestant: Contestant) -> str:
    return contestant.name.removesuffix(f" {LONG_QUEUE.name}")


def _with(program: str, count: int) -> str:
    return f"{program}, {count:,} connection{'s' if count > 1 else ''}"


def _of(samples: Sequence[Sample], count: int) -> list[Sample]:
    return [one for one in samples if one.contestant.endswith(_with("", count))]


def bodies(ground: Ground, rounds: int, seconds: int) -> Part:
    """Downloads from an origin that sends as much as it is asked for; cost is by MiB received."""
    origin = start(python_origin(), ground.cores.load, ground.directory, ground.stack)
    ours = gateways([ground.variant], [BARE])
    started = line_up([(nginx.BARE, BARE), *ours], origin, ground)
    contestants = [
        evolve(one, name=_download(one.name, size), scenario=_asking_for(size), connections=count)
        for size, count in SIZES
        for one in started
    ]
    samples = run_rounds(contestants, rounds, seconds, ground.say)
    rows = [["", "CPU µs/MiB", "times nginx", "MiB/s", "errors"]]
    rows += [
        _body_row(samples, _download(one.name, size), _download(nginx.BARE.name, size))
        for size, _ in SIZES
        for one in started
    ]
    promises = missing(started, ours) + failures(summarize(samples, nginx.BARE.name))
    return Part("bodies", "Large bodies", table(rows), as_json(samples, []), promises)


def _asking_for(size: int) -> Scenario:
    return evolve(BARE, path=f"{BARE.path}?size={size}")


def _download(program: str, size: int) -> str:
    return f"{program}, {size // MIB} MiB"


def _body_row(samples: Sequence[Sample], name: str, reference: str) -> list[str]:
    own = [one for one in samples if one.contestant == name]
    return [
        name,
        f"{median(one.cost_of_mib for one in own):.0f}",
        times(ratio(samples, name, reference, lambda one: one.cost_of_mib)),
        f"{median(one.bytes / one.seconds / MIB for one in own):,.0f}",
        str(sum(one.failed for one in own)),
    ]
