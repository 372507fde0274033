"""Rounds: every program in turn under the same load, several times over."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

from attrs import frozen

from bench import nginx, wrk
from bench.figures import Sample, Verdict
from bench.ground import Ground
from bench.machine import cpu_seconds, memory
from bench.programs import HOST, NotStarted, Program, Running, Variant, python_origin, start
from bench.result import Result, Tool
from bench.scenarios import BARE, Scenario

Say = Callable[[str], None]
Entrant = tuple[Program, Scenario]
CONNECTIONS = 64


@frozen
class Contestant:
    """A program that runs, the request that goes through it, and the load. Memory at rest is in bytes."""

    name: str
    running: Running
    scenario: Scenario
    rss_at_rest: int = 0
    connections: int = CONNECTIONS
    tool: Tool = wrk.run
    scheme: str = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{HOST}:{self.running.port}{self.scenario.path}"

    def load(self, seconds: int) -> Result:
        scenario = self.scenario
        return self.tool(self.url, seconds, self.connections, scenario.headers, scenario.authorizations())


def contestant_name(program: str, scenario: Scenario) -> str:
    return program if scenario is BARE else f"{program} {scenario.name}"


def gateways(variants: Iterable[Variant], scenarios: Sequence[Scenario]) -> list[Entrant]:
    """Each gateway with each configuration."""
    return [
        (variant.program(scenario.config, contestant_name(variant.name, scenario)), scenario)
        for variant in variants
        for scenario in scenarios
    ]


def missing(contestants: Iterable[Contestant], wanted: Iterable[Entrant]) -> list[Verdict]:
    """A verdict, never kept, on each that does not run: of neighbours some may be missing, but that the gateway is must
    not look like success."""
    runs = {one.running.name for one in contestants}
    return [
        Verdict(f"{program.name} runs", False, "it was left out, see above", "runs")
        for program, _ in wanted
        if program.name not in runs
    ]


def start_origin(core: int, directory: Path, stack: ExitStack, say: Say) -> Running:
    """nginx where there is one; else the bench's own, which will be the bottleneck."""
    if nginx.ORIGIN.installed:
        return start(nginx.ORIGIN, core, directory, stack)
    say("nginx is not installed: the origin is the bench's own, and slow. Costs are comparable, rates are not")
    return start(python_origin(), core, directory, stack)


def start_beside(scenario: Scenario, core: int, directory: Path, stack: ExitStack) -> tuple[int, ...]:
    """Start what the gateway needs in a scenario besides an origin. Raises ``NotStarted``."""
    return tuple(start(program, core, directory, stack).port for program in scenario.beside)


def _connect(port: int, scheme: str) -> http.client.HTTPConnection:
    if scheme == "http":
        return http.client.HTTPConnection(HOST, port, timeout=10)
    anyone = ssl.create_default_context()
    anyone.check_hostname = False
    anyone.verify_mode = ssl.CERT_NONE
    return http.client.HTTPSConnection(HOST, port, timeout=10, context=anyone)


def _get(port: int, scenario: Scenario, scheme: str = "http") -> tuple[int, bytes]:
    connection = _connect(port, scheme)
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
        status, body = _get(contestant.running.port, contestant.scenario, contestant.scheme)
    except (OSError, http.client.HTTPException) as error:
        return f"no answer ({error!r})"
    return "" if (status, body) == expected else f"answered {status}: {body[:200].decode(errors='replace')}"


def line_up(entrants: Iterable[Entrant], origin: Running, ground: Ground, scheme: str = "http") -> list[Contestant]:
    """Start everything that is to run, all before the same origin; what cannot is named and left out."""
    contestants = []
    for program, scenario in entrants:
        if lacks := program.lacks:
            ground.say(f"left out: {program.name} ({lacks})")
            continue
        try:
            beside = start_beside(scenario, ground.cores.load, ground.directory, ground.stack)
            running = start(program, ground.cores.proxy, ground.directory, ground.stack, (origin.port, *beside))
        except NotStarted as error:
            ground.say(f"left out: {error}")
            continue
        at_rest = memory(running.session).rss
        contestant = Contestant(program.name, running, scenario, at_rest, scheme=scheme)
        if why := refusal(contestant, origin):
            ground.say(f"left out: {program.name} {why}")
            running.stop()
            continue
        contestants.append(contestant)
    return contestants


def measure(contestant: Contestant, number: int, seconds: int) -> Sample:
    """One round of one contestant. Its memory is read right after the load."""
    session = contestant.running.session
    before = cpu_seconds(session)
    result = contestant.load(seconds)
    spent = cpu_seconds(session) - before
    used = memory(session)
    return Sample(
        contestant=contestant.name,
        round=number,
        requests=result.requests,
        bytes=result.bytes,
        failed=result.failed,
        seconds=result.seconds,
        cpu=spent,
        p50=result.p50,
        p95=result.p95,
        p99=result.p99,
        rss=used.rss,
        pss=used.pss,
        rss_at_rest=contestant.rss_at_rest,
    )


def run_rounds(contestants: Sequence[Contestant], rounds: int, seconds: int, say: Say) -> list[Sample]:
    """All contestants once a round, each round beginning with another one; a second each to warm up before."""
    for contestant in contestants:
        contestant.load(1)
    samples = []
    for number in range(rounds if contestants else 0):
        first = number % len(contestants)
        for contestant in (*contestants[first:], *contestants[:first]):
            sample = measure(contestant, number, seconds)
            say(f"round {number + 1}/{rounds}  {sample.contestant}: {sample.rate:,.0f}/s, {sample.cost:.1f} µs")
            samples.append(sample)
    return samples
