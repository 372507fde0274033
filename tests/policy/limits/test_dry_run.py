"""Limits that only count: they change nothing of what is in force, and tell what they would have done."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from support.awaiting import wait_for, waiting
from support.limits import concurrent, limit
from support.logged import logged
from twisted.internet.task import Clock

from apigw import errors
from apigw.config.model import Redis
from apigw.policy.limits.dry_run import DryRun, WouldRefuse
from apigw.policy.limits.in_redis import RedisStore
from apigw.policy.limits.keys import Callers
from apigw.policy.limits.selection import Selection
from apigw.policy.limits.stage import Counting, OfRoute
from apigw.redis.link import RedisLink

from .test_dimensions import exchange
from .test_plans import GOLD, HOUR, SILVER, gateway, passed, refused

DRY = {**HOUR, "dry_run": True}


def violations(routed: Any, family: str = "dry_run_violations") -> dict[str, float]:
    """By the name of the limit."""
    name = f"gateway_rate_limit_{family}_total"
    registry: CollectorRegistry = routed.metrics.registry
    samples = [sample for metric in registry.collect() for sample in metric.samples if sample.name == name]
    return {sample.labels["endpoint"]: sample.value for sample in samples if sample.value}


def test_a_dry_run_refuses_nothing_and_says_nothing(tmp_path: Path) -> None:
    """What it would have refused is counted under a name of its own; answers have no fields."""
    routed = gateway(tmp_path, {"route": "orders", "limit": 4, **DRY})
    assert passed(routed) == 9
    assert violations(routed) == {"route orders": 5}
    assert violations(routed, "violations") == {}
    assert routed.exchange("/orders/1").added == []


def test_it_sees_what_the_limits_in_force_let_pass(tmp_path: Path) -> None:
    """Each by itself; the same limit may be in force and a dry run with another number."""
    routed = gateway(
        tmp_path,
        {"route": "orders", "limit": 6, **HOUR},
        {"route": "orders", "limit": 4, **DRY},
        {"endpoint": "/orders/*", "concurrent": 1, "by": ["principal"], "dry_run": True},
    )
    assert passed(routed) == 6
    assert violations(routed) == {"route orders": 2, "/orders/*": 5}
    assert violations(routed, "violations") == {"route orders": 1}


def test_a_plan_on_trial_changes_no_other(tmp_path: Path) -> None:
    """Who would have it still has the plan that is in force, and counts for both."""
    routed = gateway(
        tmp_path,
        {"route": "orders", "roles": ["gold"], "limit": 2, **DRY},
        {"route": "orders", "plan": "others", "limit": 5, **HOUR},
        {"route": "orders", "plan": "others", "limit": 1, **DRY, "window": "1m"},
    )
    assert [passed(routed, each) for each in (GOLD, SILVER)] == [5, 5]
    assert violations(routed) == {"route orders (role gold)": 3, "route orders (others)": 4}


def test_a_401_counts_in_a_dry_run(tmp_path: Path) -> None:
    """As it would, were the limit in force; the answer stays 401."""
    routed = gateway(tmp_path, {"route": "orders", "limit": 2, "window": "1h", "scope": "ip", "dry_run": True})
    assert [refused(routed) for _ in range(5)] == [401] * 5
    assert violations(routed) == {"route orders": 3}
    assert routed.exchange("/orders/1").route.screens == ()


def test_it_is_no_reason_not_to_be_ready(tmp_path: Path) -> None:
    """A limit that is closed without its store, but only on trial, closes nothing."""
    routed = gateway(tmp_path, {"route": "orders", "limit": 2, **DRY, "on_store_failure": "closed"})
    assert passed(routed) == 9


def test_the_log_is_told_once_a_minute() -> None:
    """Of each limit, with the number since the last line."""
    clock, counted = Clock(), list[Any]()
    would_refuse = WouldRefuse(clock.seconds, counted.append)
    one, other = limit(dry_run=True), limit(endpoint="/b", dry_run=True)
    with logged() as lines:
        for _ in range(3):
            would_refuse(one)
        would_refuse(other)
        clock.advance(60)
        would_refuse(one)
    assert [(event["endpoint"], event["number"]) for event in lines] == [("/api", 1), ("/b", 1), ("/api", 3)]
    assert len(counted) == 5


@waiting
def test_nobody_waits_for_redis(shared: RedisStore) -> None:
    """The stage returns at once, and the store's answers are counted when they come; places are given back."""
    counted = list[Any]()
    rate = limit(2, endpoint="/dry-in-redis", dry_run=True)
    places = concurrent(1, endpoint="/dry-in-redis", dry_run=True)
    counting = Counting(shared, Callers(), counted.append)
    stage = DryRun(OfRoute(Selection((rate,)), Selection((places,)), Selection()), counting)
    made = [exchange() for _ in range(4)]
    for each in made:
        assert stage.run(each) is None
        assert each.waiting is None
    wait_for(shared.check([(limit(endpoint="/after"), b"a")]))
    assert [counted.count(rate), counted.count(places)] == [2, 3]
    for each in made:
        for end in each.at_end:
            end.run(each)
    again = exchange()
    stage.run(again)
    wait_for(shared.check([(limit(endpoint="/after"), b"a")]))
    assert counted.count(places) == 3


def test_without_redis_a_closed_one_passes() -> None:
    """Nothing is refused, whatever the store does."""
    store = RedisStore(RedisLink(Redis("redis://127.0.0.1:1"), Clock()), Clock(), time.time)
    closed = limit(1, dry_run=True, on_store_failure="closed")
    places = concurrent(1, dry_run=True, on_store_failure="closed")
    limits = OfRoute(Selection((closed,)), Selection((places,)), Selection())
    stage = DryRun(limits, Counting(store, Callers(), lambda _: None))
    try:
        assert [stage.run(exchange()) for _ in range(3)] == [None] * 3
    except errors.GatewayError:  # pragma: no cover
        pytest.fail("refused")
