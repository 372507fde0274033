"""HTTP/2 and HTTP/1.1 over TLS to the client, HTTP/1.1 without TLS to the origin."""

from __future__ import annotations

from attrs import evolve

from bench import nginx, twisted_site
from bench.figures import as_json, cost_verdict, failures, report, summarize
from bench.ground import Ground
from bench.h2load import H2load
from bench.part import Part
from bench.programs import Running
from bench.rounds import gateways, line_up, missing, run_rounds
from bench.scenarios import BARE, TLS

STREAMS = 4
MOST_TIMES_TWISTED = 0.5


def run(ground: Ground, origin: Running, rounds: int, seconds: int, connections: int) -> Part:
    """``connections`` requests are outstanding: with HTTP/2 four on each connection, with HTTP/1.1 one."""
    entrants = [(nginx.TLS, BARE), *gateways([ground.variant], [TLS]), (twisted_site.PROGRAM, BARE)]
    started = line_up(entrants, origin, ground, "https")
    h2 = H2load("h2", STREAMS)
    http1 = H2load("http/1.1")
    few = max(1, connections // STREAMS)
    contestants = [evolve(one, name=_name(one.name, "h2"), tool=h2, connections=few) for one in started]
    contestants += [
        evolve(one, name=_name(one.name, "http/1.1"), tool=http1, connections=connections) for one in started
    ]
    samples = run_rounds(contestants, rounds, seconds, ground.say)
    summaries = summarize(samples, _name("nginx", "h2"))
    text = (
        f"{rounds} rounds of {seconds} s, {connections} requests outstanding, with HTTP/2 as {STREAMS} streams on each "
        f"of {few} connections, medians. twisted.web answers by itself; the others proxy. n is here nginx's cost with "
        f"HTTP/2. Handshakes are in the cost.\n\n{report(summaries)}"
    )
    gateway = ground.variant.name
    verdict = cost_verdict(samples, _name(gateway, "h2"), _name(twisted_site.PROGRAM.name, "h2"), MOST_TIMES_TWISTED)
    promises = missing(started, entrants[1:2]) + failures(summaries) + ([verdict] if verdict else [])
    return Part("http2", "HTTP/2 and TLS", text, as_json(samples, summaries), promises)


def _name(program: str, protocol: str) -> str:
    return f"{program.removesuffix(' tls')}, {protocol}"
