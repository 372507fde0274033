"""HTTP/2 to clients and to the service."""

from __future__ import annotations

from attrs import evolve

from bench import nginx
from bench.edge.programs import ENVOY_H2, H2C_ORIGIN, with_http2_behind
from bench.figures import added_verdict, as_json, cost_verdict, failures, report, summarize
from bench.ground import Ground
from bench.h2load import H2load
from bench.part import Part
from bench.programs import Running
from bench.rounds import gateways, line_up, missing, run_rounds
from bench.scenarios import BARE, TLS, Scenario

STREAMS = 16
MOST = 2.6
"""Times what nginx spends on a bare proxied request: HTTP/2 over TLS in, HTTP/2 out."""
MOST_ADDED = 0.3
"""n that HTTP/2 to the service may cost more than HTTP/1.1 to it."""
_BEHIND = Scenario("h2-h2", with_http2_behind, beside=(H2C_ORIGIN,))


def part(ground: Ground, origin: Running, rounds: int, seconds: int) -> Part:
    ours = gateways([ground.variant], [TLS, _BEHIND])
    plain = line_up([(nginx.BARE, BARE)], origin, ground)
    started = line_up([(ENVOY_H2, evolve(BARE, beside=(H2C_ORIGIN,))), *ours], origin, ground, "https")
    tool = H2load("h2", STREAMS)
    contestants = plain + [evolve(one, tool=tool, connections=STREAMS) for one in started]
    samples = run_rounds(contestants, rounds, seconds, ground.say)
    summaries = summarize(samples, nginx.BARE.name)
    gateway = ground.variant.name
    both, one = f"{gateway} h2-h2", f"{gateway} tls"
    promises = [
        cost_verdict(samples, both, nginx.BARE.name, MOST),
        added_verdict(samples, both, one, nginx.BARE.name, MOST_ADDED),
    ]
    text = (
        f"{STREAMS} connections of {STREAMS} streams over TLS; n is a bare proxied request of nginx, over HTTP/1.1 "
        f"without TLS. {one}: HTTP/1.1 to the service; {both}: HTTP/2 without TLS.\n\n{report(summaries)}"
    )
    kept = missing(started, ours) + failures(summaries)
    return Part("h2-h2", "HTTP/2 to HTTP/2", text, as_json(samples, summaries), kept + [p for p in promises if p])
