"""The ways in: kept alive and new, plain and over TLS, HTTP/2; beside nginx, HAProxy and Envoy."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve, frozen

from bench import envoy, nginx, wrk
from bench.edge.programs import ENVOY_TLS, HAPROXY_TLS
from bench.figures import Sample, Verdict, as_json, cost_verdict, failures, report, summarize
from bench.ground import Ground
from bench.h2load import H2load
from bench.neighbours import HAPROXY
from bench.part import Part
from bench.programs import Running
from bench.result import Tool
from bench.rounds import Contestant, Entrant, gateways, line_up, missing, run_rounds
from bench.scenarios import BARE, HEADERS, TLS

CLOSE = ("Connection", "close")


@frozen
class Door:
    """``most`` times what nginx spends on a request that comes this way."""

    name: str
    scheme: str
    most: float | None
    tool: Tool = wrk.run
    connections: int = 64
    headers: tuple[tuple[str, str], ...] = HEADERS


DOORS = (
    Door("plain, kept alive", "http", 1.5),
    Door("plain, a new connection each", "http", 1.8, headers=(*HEADERS, CLOSE)),
    Door("plain, one client", "http", None, connections=1),
    Door("TLS, kept alive", "https", 1.6),
    Door("TLS, a new connection each", "https", 2.0, headers=(*HEADERS, CLOSE)),
    Door("TLS, one client", "https", None, connections=1),
    Door("HTTP/2, 16 x 16", "https", 1.6, H2load("h2", 16), 16),
    Door("HTTP/2, 64 x 1", "https", 2.0, H2load("h2", 1), 64),
)


def name_of(program: str, door: Door) -> str:
    return f"{program.removesuffix(' tls')}, {door.name}"


def contestants(started: Sequence[Contestant], scheme: str) -> list[Contestant]:
    """Each program that was started with a scheme, once for each of its doors."""
    return [
        evolve(
            one,
            name=name_of(one.name, door),
            tool=door.tool,
            connections=door.connections,
            scenario=evolve(one.scenario, headers=door.headers),
        )
        for door in DOORS
        if door.scheme == scheme
        for one in started
    ]


def verdicts(samples: Sequence[Sample], gateway: str) -> list[Verdict]:
    found = [
        cost_verdict(samples, name_of(gateway, door), name_of("nginx", door), door.most)
        for door in DOORS
        if door.most is not None
    ]
    return [verdict for verdict in found if verdict is not None]


def part(ground: Ground, origin: Running, rounds: int, seconds: int) -> Part:
    plain: list[Entrant] = [(nginx.BARE, BARE), (HAPROXY, BARE), (envoy.BARE, BARE)]
    secure: list[Entrant] = [(nginx.TLS, BARE), (HAPROXY_TLS, BARE), (ENVOY_TLS, BARE)]
    ours, ours_secure = gateways([ground.variant], [BARE]), gateways([ground.variant], [TLS])
    started = line_up([*plain, *ours], origin, ground)
    over_tls = line_up([*secure, *ours_secure], origin, ground, "https")
    samples = run_rounds([*contestants(started, "http"), *contestants(over_tls, "https")], rounds, seconds, ground.say)
    summaries = [
        one
        for door in DOORS
        for one in summarize(
            [sample for sample in samples if sample.contestant.endswith(f", {door.name}")], name_of("nginx", door)
        )
    ]
    text = (
        f"{rounds} rounds of {seconds} s, medians. n is nginx's cost of a request that comes the same way. "
        f"HTTP/2 over TLS: connections x streams.\n\n{report(summaries)}"
    )
    promises = missing([*started, *over_tls], [*ours, *ours_secure]) + failures(summaries)
    return Part(
        "doors", "The ways in", text, as_json(samples, summaries), promises + verdicts(samples, ground.variant.name)
    )
