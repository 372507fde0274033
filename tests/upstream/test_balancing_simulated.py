"""What balancing does for requests in time: services in memory, on a clock of the test's own."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from twisted.internet.task import Clock

from apigw import is_compiled
from apigw.config.model import Ejection, Service
from apigw.config.model import Target as TargetConfig
from apigw.ops.metrics import Metrics
from apigw.upstream.balancing import Balancer, LeastRequests, RoundRobin
from apigw.upstream.target import Target
from apigw.upstream.upstream import Upstream
from apigw.wire.deadlines import Deadlines

pytestmark = pytest.mark.skipif(is_compiled(), reason="what is compiled knows an actor from the real part")


class Quiet:
    """A pool, or an agent, without connections."""

    def close(self) -> None: ...


def upstream_of(number: int, balancer: Balancer, clock: Clock, **settings: Any) -> Upstream:
    quiet: Any = Quiet()
    configs = tuple(TargetConfig("http", "127.0.0.1", 9001 + each) for each in range(number))
    series = Metrics(CollectorRegistry(), "0").service("main")
    deadlines = Deadlines(clock)
    deadlines.start()
    service = Service("main", configs, **settings)
    upstream = Upstream(service, lambda config: Target(config, quiet), balancer, deadlines, quiet, None, series)
    upstream.start()
    return upstream


def slowest_percent(balancer: Balancer, requests: int = 4000, in_flight: int = 64) -> float:
    """The 99th percentile of what requests take, in ms: four targets that serve one at a time, in 1, 1, 1 and 10 ms."""
    upstream = upstream_of(4, balancer, Clock(), ejection=None)
    takes = dict(zip(upstream.targets, (1.0, 1.0, 1.0, 10.0), strict=True))
    free_at = dict.fromkeys(upstream.targets, 0.0)
    ends: list[tuple[float, int, float, Target]] = []
    latencies: list[float] = []
    for number in range(requests + in_flight):
        now = 0.0
        if number >= in_flight:
            now, _, began, ended = heapq.heappop(ends)
            upstream.end(ended)
            latencies.append(now - began)
        target = upstream.choose()
        assert target is not None
        upstream.begin(target)
        free_at[target] = max(now, free_at[target]) + takes[target]
        heapq.heappush(ends, (free_at[target], number, now, target))
    return sorted(latencies[len(latencies) // 4 :])[-len(latencies) // 100]


def test_a_slow_target_holds_up_a_third_of_what_it_does_in_turn() -> None:
    """At most; with least requests it gets what it can serve."""
    assert slowest_percent(LeastRequests(Random(1).random)) <= slowest_percent(RoundRobin()) / 3


def errors_of(works: Callable[[float], bool], seconds: int, each: float = 0.01) -> tuple[list[float], list[float]]:
    """When clients saw errors, and when the first of two targets was used: it works, or not; there are no retries."""
    clock = Clock()
    upstream = upstream_of(2, LeastRequests(Random(1).random), clock, ejection=Ejection())
    flapping = upstream.targets[0]
    errors: list[float] = []
    used: list[float] = []
    while clock.seconds() < seconds:
        clock.advance(each)
        now = clock.seconds()
        target = upstream.choose()
        assert target is not None
        if target is flapping and not works(now):
            target.failed("status 503")
            errors.append(now)
        else:
            target.succeeded()
        if target is flapping:
            used.append(now)
    return errors, used


def test_a_target_that_breaks_down_costs_as_many_errors_as_it_takes_to_eject_it() -> None:
    """And one for each probe; two seconds after the end of its ejection it is in use again."""
    errors, used = errors_of(lambda now: not 5 <= now < 20, 60)
    ejected = errors[4]
    assert len(errors) == 5 + 1
    assert ejected + 10 <= errors[5] <= ejected + 12
    back = next(now for now in used if now > errors[5])
    assert errors[5] + 20 <= back <= errors[5] + 22
    assert sum(now > back for now in used) > 100


def test_a_target_that_comes_and_goes_every_second_is_ejected_ever_longer() -> None:
    """It works in every other second: a probe lets it in, and five errors put it out."""
    errors, _ = errors_of(lambda now: int(now) % 2 == 0, 600)
    assert len(errors) <= 5 * 10
