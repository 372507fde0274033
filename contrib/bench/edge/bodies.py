"""Bodies of 1 MiB both ways, and what a POST takes of one client's time, in one piece or in two."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from functools import partial
from statistics import median

from attrs import evolve, frozen

from bench import nginx, wrk
from bench.edge.programs import MIB_ORIGIN, NGINX_BODIES, with_bodies
from bench.figures import Sample, Verdict, as_json, cost_verdict, failures, ratio, summarize, table, times
from bench.ground import Ground, address_of
from bench.load import Address, encode
from bench.machine import MIB, cpu_seconds
from bench.part import Part
from bench.programs import Running, python_origin, start
from bench.result import NoResult, quantile
from bench.rounds import Contestant, gateways, line_up, missing, run_rounds
from bench.scenarios import BARE, Scenario

MOST = 1.15
"""Times what nginx spends on a body of 1 MiB."""
MOST_SLOWER = 0.2
"""Milliseconds that one client's POST may take longer than directly to the origin."""
CLIENTS = 8
BODY = b"p" * 1024
_SCENARIO = Scenario("bodies", with_bodies)


def part(ground: Ground, rounds: int, seconds: int) -> Part:
    ours = gateways([ground.variant], [_SCENARIO])
    wanted = [(NGINX_BODIES, BARE), *ours]
    files = start(MIB_ORIGIN, ground.cores.load, ground.directory, ground.stack)
    reads = start(python_origin(), ground.cores.load, ground.directory, ground.stack)
    down = line_up(wanted, files, ground)
    up = line_up(wanted, reads, ground)
    contestants = [evolve(one, name=_name(one, "down"), connections=CLIENTS) for one in down]
    send = partial(wrk.run, body=b"u" * MIB)
    contestants += [evolve(one, name=_name(one, "up"), connections=CLIENTS, tool=send) for one in up]
    samples = run_rounds(contestants, rounds, seconds, ground.say)
    rows = [["1 MiB", "CPU µs each", "times nginx", "bodies/s", "errors"]]
    rows += [
        _row(samples, one.name, f"nginx, {way}")
        for way in ("down", "up")
        for one in contestants
        if one.name.endswith(way)
    ]
    gateway = ground.variant.name
    promises = [cost_verdict(samples, f"{gateway}, {way}", f"nginx, {way}", MOST) for way in ("down", "up")]
    kept = [*missing(down, ours), *missing(up, ours), *failures(summarize(samples, "nginx, down"))]
    data = as_json(samples, [])
    return Part("bodies", "Bodies of 1 MiB", table(rows), data, [*kept, *(one for one in promises if one is not None)])


def _name(contestant: Contestant, way: str) -> str:
    return f"{contestant.name.removesuffix(' bodies')}, {way}"


def _row(samples: Sequence[Sample], name: str, reference: str) -> list[str]:
    own = [one for one in samples if one.contestant == name]
    return [
        name,
        f"{median(one.cost for one in own):.0f}",
        times(ratio(samples, name, reference)),
        f"{median(one.rate for one in own):,.0f}",
        str(sum(one.failed for one in own)),
    ]


@frozen
class Posts:
    """What some POSTs of one client took: milliseconds of its time, and microseconds of the proxy's CPU each."""

    p50: float
    p99: float
    cost: float


def posts(address: Address, count: int, pieces: int, session: int | None = None) -> Posts:
    """``count`` POSTs, one after the other over one connection, each sent in one piece, or its head before its body.

    Raises ``NoResult`` if one is not answered with 200. ``session`` is the proxy's.
    """
    whole = encode(BARE.path, "PUT", [("Content-Type", "text/plain")], BODY)
    sent = [whole] if pieces == 1 else [whole[: -len(BODY)], BODY]
    took: list[float] = []
    with socket.create_connection(address, 10) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        before = 0.0 if session is None else cpu_seconds(session)
        for _ in range(count):
            began = time.perf_counter()
            for piece in sent:
                client.sendall(piece)
            answer = client.recv(65536)
            while answer and not answer.endswith(b"}"):
                answer += client.recv(65536)
            took.append((time.perf_counter() - began) * 1e3)
            if not answer.startswith(b"HTTP/1.1 200"):
                raise NoResult(f"a POST was answered {answer[:80]!r}")
        spent = 0.0 if session is None else cpu_seconds(session) - before
    took.sort()
    return Posts(quantile(took, 0.5), quantile(took, 0.99), spent / count * 1e6)


def posts_part(ground: Ground, origin: Running, count: int) -> Part:
    """Directly to the origin, and through each proxy, in turn, four times."""
    ours = gateways([ground.variant], [_SCENARIO])
    started = line_up([(nginx.BARE, BARE), *ours], origin, ground)
    ways: list[tuple[str, Running]] = [("direct", origin), *((_bare(one.name), one.running) for one in started)]
    rows = [["one client, 1 KiB", "p50 ms", "p99 ms", "over direct, ms", "CPU µs/request"]]
    verdicts = missing(started, ours)
    data: dict[str, list[dict[str, float]]] = {}
    for pieces, how in ((1, "one piece"), (2, "two pieces")):
        seen: dict[str, list[Posts]] = {name: [] for name, _ in ways}
        for _ in range(4):
            for name, running in ways:
                session = None if name == "direct" else running.session
                seen[name].append(posts(address_of(running), count, pieces, session))
        slower = {
            name: median(p.p50 - d.p50 for p, d in zip(got, seen["direct"], strict=True)) for name, got in seen.items()
        }
        for name, got in seen.items():
            middle = [median(one.p50 for one in got), median(one.p99 for one in got)]
            cost = median(one.cost for one in got)
            rows.append([f"{name}, {how}", *(f"{each:.3f}" for each in middle), f"{slower[name]:.3f}", f"{cost:.0f}"])
            data[f"{name}, {how}"] = [{"p50": one.p50, "p99": one.p99, "cost": one.cost} for one in got]
        gateway = ground.variant.name
        if gateway in slower:
            verdicts.append(
                Verdict(
                    f"one client's POST in {how}, over direct",
                    slower[gateway] <= MOST_SLOWER,
                    f"{slower[gateway]:.3f} ms",
                    f"at most {MOST_SLOWER} ms",
                )
            )
    return Part("posts", "POSTs of one client", table(rows), {"posts": data}, verdicts)


def _bare(name: str) -> str:
    return name.removesuffix(" bodies")
