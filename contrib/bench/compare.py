"""The comparison: every program in turn under the same load, over several rounds."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from attrs import frozen

from bench import wrk
from bench.figures import Sample
from bench.machine import Cores, cpu_seconds, memory
from bench.programs import (
    HOST,
    NEIGHBOURS,
    NGINX_ORIGIN,
    NotStarted,
    Program,
    Running,
    Variant,
    python_origin,
    start,
)
from bench.scenarios import BARE, Scenario

Say = Callable[[str], None]


@frozen
class Contestant:
    """A program that runs, and the request that goes through it."""

    name: str
    running: Running
    scenario: Scenario

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.running.port}{self.scenario.path}"


def contestant_name(program: str, scenario: Scenario) -> str:
    return program if scenario is BARE else f"{program} {scenario.name}"


def wanted_names(variants: Sequence[Variant], scenarios: Sequence[Scenario], only: Sequence[str]) -> list[str]:
    """What the gateways will be called in a run. ``only`` empty means all."""
    chosen = [variant for variant in variants if not only or variant.name in only]
    return [contestant_name(variant.name, scenario) for variant in chosen for scenario in scenarios]


def start_origin(core: int, directory: Path, stack: ExitStack, say: Say) -> Running:
    """nginx where there is one; else the bench's own, which will be the bottleneck."""
    if NGINX_ORIGIN.installed:
        return start(NGINX_ORIGIN, core, directory, stack)
    say("nginx is not installed: the origin is the bench's own, and slow. Costs are comparable, rates are not")
    return start(python_origin(), core, directory, stack)


def start_beside(scenario: Scenario, core: int, directory: Path, stack: ExitStack) -> tuple[int, ...]:
    """Start what the gateway needs in a scenario besides an origin. Raises ``NotStarted``."""
    return tuple(start(program, core, directory, stack).port for program in scenario.beside)


def _get(port: int, scenario: Scenario) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(HOST, port, timeout=10)
    try:
        headers = [*scenario.headers, *(("Authorization", value) for value in scenario.authorizations()[:1])]
        connection.request("GET", scenario.path, headers=dict(headers))
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def refusal(contestant: Contestant, origin: Running) -> str:
    """Why this contestant cannot be measured: it does not answer the request as the origin does. Empty if it does."""
    try:
        expected = _get(origin.port, contestant.scenario)
        status, body = _get(contestant.running.port, contestant.scenario)
    except (OSError, http.client.HTTPException) as error:
        return f"no answer ({error!r})"
    return "" if (status, body) == expected else f"answered {status}: {body[:200].decode(errors='replace')}"


def line_up(
    variants: Sequence[Variant],
    scenarios: Sequence[Scenario],
    only: Sequence[str],
    cores: Cores,
    directory: Path,
    stack: ExitStack,
    say: Say,
) -> list[Contestant]:
    """Start the origin and everything that is to run; what cannot is named and left out. ``only`` empty means all."""
    origin = start_origin(cores.load, directory, stack, say)
    wanted: list[tuple[Program, Scenario]] = [
        (program, BARE) for program in NEIGHBOURS if not only or program.name in only
    ]
    for variant in variants:
        if not only or variant.name in only:
            for scenario in scenarios:
                wanted.append((variant.program(scenario.config, contestant_name(variant.name, scenario)), scenario))
    contestants = []
    for program, scenario in wanted:
        if not program.installed:
            say(f"left out: {program.name} ({program.executable} is not installed)")
            continue
        try:
            beside = start_beside(scenario, cores.load, directory, stack)
            running = start(program, cores.proxy, directory, stack, (origin.port, *beside))
        except NotStarted as error:
            say(f"left out: {error}")
            continue
        contestant = Contestant(program.name, running, scenario)
        if why := refusal(contestant, origin):
            say(f"left out: {program.name} {why}")
            running.stop()
            continue
        contestants.append(contestant)
    return contestants


def _load(contestant: Contestant, seconds: int, connections: int) -> wrk.Result:
    scenario = contestant.scenario
    return wrk.run(contestant.url, seconds, connections, scenario.headers, scenario.authorizations())


def measure(contestant: Contestant, number: int, seconds: int, connections: int) -> Sample:
    """One round of one contestant. Its memory is read right after the load."""
    session = contestant.running.session
    before = cpu_seconds(session)
    result = _load(contestant, seconds, connections)
    spent = cpu_seconds(session) - before
    used = memory(session)
    return Sample(
        contestant=contestant.name,
        round=number,
        requests=result.requests,
        failed=result.failed,
        seconds=result.seconds,
        cpu=spent,
        p50=result.p50,
        p95=result.p95,
        p99=result.p99,
        rss=used.rss,
        pss=used.pss,
    )


def run(contestants: Sequence[Contestant], rounds: int, seconds: int, connections: int, say: Say) -> list[Sample]:
    """All contestants once a round, each round beginning with another one; a second each to warm up before."""
    for contestant in contestants:
        _load(contestant, 1, connections)
    samples = []
    for number in range(rounds):
        first = number % len(contestants)
        for contestant in (*contestants[first:], *contestants[:first]):
            sample = measure(contestant, number, seconds, connections)
            say(f"round {number + 1}/{rounds}  {sample.contestant}: {sample.rate:,.0f}/s, {sample.cost:.1f} µs")
            samples.append(sample)
    return samples
