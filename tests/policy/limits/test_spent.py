"""What is known of a limit that is used up, without counting and without waiting: in both stores."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from support import redis_server
from support.awaiting import wait_for, waiting
from support.limits import NOON, concurrent, limit
from twisted.internet import reactor
from twisted.internet.task import Clock

from apigw.config.model import Redis
from apigw.policy.limits.concurrent import Claim
from apigw.policy.limits.in_redis import RedisStore
from apigw.policy.limits.memory import MemoryStore
from apigw.policy.limits.refusals import Refusals
from apigw.redis.link import RedisLink


@pytest.fixture(scope="module")
def server() -> Iterator[redis_server.RedisServer]:
    with redis_server.running() as server:
        yield server


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def shared(server: redis_server.RedisServer, clock: Clock) -> Iterator[RedisStore]:
    server("FLUSHALL")
    link = RedisLink(Redis(server.url, timeout=5), reactor)
    store = RedisStore(link, reactor, time.time, clock=clock)
    wait_for(link.start())
    yield store
    wait_for(link.stop())


@pytest.mark.parametrize("algorithm", ["log", "counter"])
def test_memory_knows_exactly(algorithm: str) -> None:
    """A limit with room is not spent, one without is, until a request would pass; looking changes nothing."""
    memory, one, other = MemoryStore(Clock(), lambda: 0.0), limit(2, 60, algorithm), limit(5, 60, endpoint="/b")
    checks = [(other, b"a"), (one, b"a")]
    assert memory.spent(checks, NOON) is None
    for _ in range(2):
        memory.check([(one, b"a")], NOON)
    refusal = memory.spent(checks, NOON + 1)
    assert refusal is not None
    assert (refusal.allowed, refusal.limit) == (False, one)
    assert memory.spent(checks, NOON + 1 + refusal.retry_after) is None
    assert memory.spent([(one, b"b"), (other, b"a")], NOON + 1) is None
    assert memory.keys_of(other) == 0


@waiting
def test_of_redis_the_last_refusal_is_known(shared: RedisStore, clock: Clock) -> None:
    """From when it was told until it ends; of addresses only, and of the limit that refused."""
    one, other, of_users = limit(2, 60, "log"), limit(5, 60, endpoint="/b"), limit(1, 60, scope="user")
    checks = [(other, b"a"), (one, b"a"), (of_users, b"a")]
    assert shared.spent(checks, clock.seconds()) is None
    for allowed in (True, True, False):
        assert wait_for(shared.check([(other, b"a"), (one, b"a")])).allowed == allowed
        assert (shared.spent(checks, clock.seconds()) is None) == allowed
    wait_for(shared.check([(of_users, b"a")]))
    refused = wait_for(shared.check([(of_users, b"a")]))
    assert not refused.allowed
    assert shared.spent([(of_users, b"a"), (other, b"a")], clock.seconds()) is None
    assert shared.spent([(one, b"b")], clock.seconds()) is None
    refusal = shared.spent(checks, clock.seconds() + 10)
    assert refusal is not None
    assert (refusal.allowed, refusal.limit, refusal.remaining) == (False, one, 0)
    assert 45 <= refusal.retry_after <= 50
    assert abs(refusal.reset - time.time() - 60) < 5
    assert shared.spent([(limit(1, 60, "log"), b"a")], clock.seconds()) is not None
    assert shared.spent(checks, clock.seconds() + 60) is None
    assert shared._refusals._refused == {}


@waiting
@pytest.mark.parametrize("most", [1, 5])
def test_a_refusal_is_known_where_a_place_was_wanted_too(shared: RedisStore, clock: Clock, most: int) -> None:
    """As without one; whether there was a place or not."""
    one, places = limit(1, 60, "log"), concurrent(most)
    for _ in range(2):
        claim = Claim([(places, b"a")], shared)
        wait_for(shared.admit([(one, b"a")], claim))
    assert shared.spent([(one, b"a")], clock.seconds()) is not None
    assert shared.spent([(one, b"b")], clock.seconds()) is None


@waiting
def test_a_limit_that_was_raised_has_room_again(shared: RedisStore, clock: Clock) -> None:
    """At once after the reload, as in Redis."""
    for _ in range(2):
        wait_for(shared.check([(limit(1, 60, "log"), b"a")]))
    assert shared.spent([(limit(1, 60, "log"), b"a")], clock.seconds()) is not None
    assert shared.spent([(limit(2, 60, "log"), b"a")], clock.seconds()) is None


@waiting
def test_what_is_known_of_redis_is_bounded(shared: RedisStore, clock: Clock) -> None:
    """Of the refused addresses the one that was told longest ago is forgotten first."""
    shared._refusals = Refusals(clock, 3)
    one = limit(1, 60, "log")
    for key in (b"a", b"b", b"c", b"a", b"d"):
        for _ in range(2):
            wait_for(shared.check([(one, key)]))
    known = [shared.spent([(one, key)], clock.seconds()) is not None for key in (b"a", b"b", b"c", b"d")]
    assert known == [True, False, True, True]


@waiting
def test_without_redis_what_is_counted_here_is_known(server: redis_server.RedisServer, clock: Clock) -> None:
    """Where a limit is counted here then; one that is open or closed then is not."""
    link = RedisLink(Redis(server.url, timeout=5), reactor)
    store = RedisStore(link, reactor, time.time, clock=clock)
    local, opened = limit(1), limit(1, on_store_failure="open")
    for _ in range(2):
        wait_for(store.check([(local, b"a"), (opened, b"a")]))
    assert store.spent([(opened, b"a")], clock.seconds()) is None
    refusal = store.spent([(opened, b"a"), (local, b"a")], clock.seconds())
    assert refusal is not None
    assert refusal.limit is local
