"""Limits of what runs at a time: all stores by one contract, the one in Redis with a real server."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from support import redis_server
from support.awaiting import wait_for, waiting
from support.limits import NOON, concurrent, limit
from twisted.internet import reactor
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock, deferLater

from apigw.config.model import Redis
from apigw.policy.limits.arithmetic import Checks, Decision
from apigw.policy.limits.concurrent import LEASE, Claim, Want
from apigw.policy.limits.in_page import PageStore
from apigw.policy.limits.in_redis import Outcome, Pending, RedisStore
from apigw.policy.limits.memory import MemoryStore
from apigw.redis.link import RedisLink

NEXT = count()


def key() -> bytes:
    """One that no other test has used."""
    return b"place %d" % next(NEXT)


@pytest.fixture(scope="module")
def server() -> Iterator[redis_server.RedisServer]:
    with redis_server.running() as server:
        yield server


def of(server: redis_server.RedisServer) -> tuple[RedisLink, RedisStore]:
    link = RedisLink(Redis(server.url, timeout=5), reactor)
    store = RedisStore(link, reactor, time.time)
    wait_for(link.start())
    assert store.up
    return link, store


@pytest.fixture(scope="module")
def shared(server: redis_server.RedisServer) -> Iterator[RedisStore]:
    link, store = of(server)
    yield store
    wait_for(link.stop())


@pytest.fixture
def other(server: redis_server.RedisServer) -> Iterator[RedisStore]:
    """Of another gateway, with the same Redis."""
    link, store = of(server)
    yield store
    wait_for(link.stop())


@pytest.fixture(params=["memory", "page", "redis"])
def store(request: pytest.FixtureRequest) -> Any:
    clock = Clock()
    if request.param == "memory":
        return MemoryStore(clock, clock.seconds)
    if request.param == "page":
        return PageStore(request.getfixturevalue("page"), clock, clock.seconds)
    return request.getfixturevalue("shared")


def admit(store: Any, checks: Checks, *wanted: Want, at: float | None = None) -> tuple[Claim, Decision | None]:
    claim = Claim(list(wanted), store)
    return claim, wait_for(maybeDeferred(store.admit, checks, claim, at))


def passes(store: Any, *wanted: Want) -> Claim | None:
    """The claim, where nothing refuses it."""
    claim, _ = admit(store, [], *wanted)
    return claim if claim.full is None else None


def settled(store: Any) -> None:
    """What was given back has reached the store."""
    wait_for(maybeDeferred(store.peek, [(limit(), key())]))


@waiting
def test_so_many_at_a_time(store: Any) -> None:
    """A place is free when its exchange ends, each caller has places of its own, and giving back twice frees one."""
    one, ada, bob = concurrent(2), key(), key()
    first, second = passes(store, (one, ada)), passes(store, (one, ada))
    assert first
    assert second
    assert passes(store, (one, ada)) is None
    assert passes(store, (one, bob))
    first.release()
    first.release()
    assert passes(store, (one, ada))
    assert passes(store, (one, ada)) is None


@waiting
def test_rates_and_places_are_one_question(store: Any) -> None:
    """What has no place is counted by no rate, and what a rate refuses takes no place."""
    rate, places, name = limit(3), concurrent(1), key()
    held, decision = admit(store, [(rate, name)], (places, name), at=NOON)
    assert decision
    assert (decision.allowed, decision.remaining) == (True, 2)
    for _ in range(4):
        refused, decision = admit(store, [(rate, name)], (places, name), at=NOON)
        assert decision
        assert (refused.full, decision.allowed, decision.remaining) == (places, True, 2)
    held.release()
    for left in (1, 0):
        again, decision = admit(store, [(rate, name)], (places, name), at=NOON)
        assert decision
        assert (again.full, decision.allowed, decision.remaining) == (None, True, left)
        again.release()
    for _ in range(3):
        refused, decision = admit(store, [(rate, name)], (places, name), at=NOON)
        assert decision
        assert (refused.full, decision.allowed, decision.retry_after) == (None, False, 60)
    assert passes(store, (places, name))


@waiting
def test_a_reload_keeps_the_places(store: Any) -> None:
    """Another number for the same endpoint and scope counts what was taken before; another scope begins anew."""
    name = key()
    held = [passes(store, (concurrent(3), name)) for _ in range(3)]
    assert passes(store, (concurrent(2), name)) is None
    assert passes(store, (concurrent(4), name))
    assert passes(store, (concurrent(1, scope="user"), name))
    for claim in held:
        assert claim
        claim.release()
    assert passes(store, (concurrent(2), name))
    assert passes(store, (concurrent(2), name)) is None


@waiting
def test_what_is_taken_is_shown(store: Any) -> None:
    """Callers and places, and nothing of what has ended."""
    one = concurrent(5, endpoint="/shown")
    claims = [passes(store, (one, name)) for name in (b"a", b"a", b"b")]
    assert store.taken(one) == (2, 3)
    for claim in claims:
        assert claim
        claim.release()
    assert store.taken(one) == (0, 0)


LIMITS = [concurrent(1, endpoint="/x"), concurrent(2), concurrent(3, scope="endpoint")]
STEP = st.one_of(
    st.tuples(
        st.just("begin"),
        st.lists(st.tuples(st.integers(0, 2), st.sampled_from([b"a", b"b"])), min_size=1, unique_by=lambda w: w[0]),
        st.booleans(),
    ),
    st.tuples(st.just("end"), st.integers(0, 30), st.booleans()),
    st.tuples(st.just("reload"), st.integers(0, 2), st.integers(1, 4)),
)


@waiting
def test_never_more_than_so_many(store: Any) -> None:
    """Whatever begins, ends, is cancelled while it waits, or is reloaded: and at the end every place is free."""

    @settings(max_examples=100, deadline=None)
    @given(st.lists(STEP, max_size=40))
    def holds(steps: list[Any]) -> None:
        suffix, limits = key(), list(LIMITS)
        open_: list[Claim] = []
        for kind, what, more in steps:
            if kind == "reload":
                limits[what] = concurrent(more, endpoint=limits[what].endpoint, scope=limits[what].scope)
            elif kind == "begin":
                claim = Claim([(limits[index], name + suffix) for index, name in what], store)
                asked = maybeDeferred(store.admit, [], claim)
                if more:
                    claim.release()
                wait_for(asked)
                taken = Counter((one.id, name) for held in open_ for one, name in held.wanted)
                full = [one for one, name in claim.wanted if taken[one.id, name] >= one.most]
                assert claim.full is (full[0] if full else None)
                if not full and not more:
                    open_.append(claim)
            elif open_:
                claim = open_.pop(what % len(open_))
                claim.release()
                if more:
                    claim.release()
        for claim in open_:
            claim.release()
        settled(store)
        for one in limits:
            for name in (b"a", b"b"):
                for last in [passes(store, (one, name + suffix)) for _ in range(one.most)]:
                    assert last
                    last.release()

    holds()


FAILING = st.one_of(STEP, st.just(("fail", 0, False)), st.just(("back", 0, False)))


@waiting
def test_a_redis_that_fails_now_and_then(server: redis_server.RedisServer) -> None:
    """A gateway knows what it holds while Redis is gone, and Redis knows what has ended meanwhile when it is back."""
    clock = Clock()
    link = RedisLink(Redis(server.url, timeout=5), reactor, clock)
    store = RedisStore(link, reactor, time.time, clock=clock)
    wait_for(link.start())

    def come_back() -> None:
        if not link.up:
            clock.advance(1)
            until(lambda: link.up)

    @settings(max_examples=50, deadline=None, phases=[Phase.generate])  # each connects anew: shrinking takes minutes
    @given(st.lists(FAILING, max_size=30))
    def holds(steps: list[Any]) -> None:
        suffix, open_ = key(), Counter[tuple[bytes, bytes]]()
        claims: list[Claim] = []
        for kind, what, more in steps:
            if kind == "fail":
                link.give_up("the test wants it so")
            elif kind == "back":
                come_back()
            elif kind == "begin":
                claim = Claim([(LIMITS[index], name + suffix) for index, name in what], store)
                asked = store.admit([], claim)
                if more:
                    link.give_up("the test wants it so, in the middle")
                wait_for(asked)
                full = [one for one, name in claim.wanted if open_[one.id, name] >= one.most]
                assert claim.full is (full[0] if full else None)
                if not full:
                    claims.append(claim)
                    open_.update((one.id, name) for one, name in claim.wanted)
            elif kind == "end" and claims:
                claim = claims.pop(what % len(claims))
                claim.release()
                open_.subtract((one.id, name) for one, name in claim.wanted)
        names = [(one.id, name + suffix) for one in LIMITS for name in (b"a", b"b")]

        def leases() -> list[int]:
            come_back()
            settled(store)
            return [server("ZCARD", store._key(*name)) for name in names]

        assert leases() == [open_[name] for name in names]
        for claim in claims:
            claim.release()
        assert leases() == [0] * len(names)
        assert [store.taken(one) for one in LIMITS] == [(0, 0)] * len(LIMITS)

    holds()
    wait_for(link.stop())


@waiting
def test_places_of_a_gateway_that_died(shared: RedisStore, other: RedisStore) -> None:
    """They are free when their leases end; those of one that lives are renewed."""
    one, name, soon = concurrent(2), key(), time.time() - LEASE + 1.5
    dead, _ = admit(other, [], (one, name), at=soon)
    alive, _ = admit(shared, [], (one, name), at=soon)
    assert dead.full is None
    assert alive.full is None
    assert passes(shared, (one, name)) is None
    shared.renew()
    settled(shared)
    later = time.time() + LEASE - 5
    assert admit(shared, [], (one, name), at=later)[0].full is None
    assert admit(shared, [], (one, name), at=later)[0].full is one


@waiting
def test_a_redis_that_has_lost_everything(server: redis_server.RedisServer, shared: RedisStore) -> None:
    """Whoever holds a place takes it again when leases are renewed."""
    one, name = concurrent(1), key()
    assert passes(shared, (one, name))
    server("FLUSHALL")
    shared.renew()
    settled(shared)
    assert passes(shared, (one, name)) is None


@waiting
def test_ends_and_checks_of_a_turn_travel_together(server: redis_server.RedisServer, shared: RedisStore) -> None:
    """One call of the script has both, ends first: what is freed in a turn can be taken in it."""
    one, name = concurrent(1), key()
    held = passes(shared, (one, name))
    assert held
    settled(shared)
    before = evaluations(server)
    held.release()
    assert passes(shared, (one, name))
    assert evaluations(server) == before + 1


def evaluations(server: redis_server.RedisServer) -> int:
    stats = server("INFO", "commandstats").decode()
    line = next((line for line in stats.splitlines() if line.startswith("cmdstat_evalsha:")), "calls=0,")
    return int(line.partition("calls=")[2].partition(",")[0])


@waiting
@pytest.mark.parametrize("cancelled", [False, True])
def test_a_redis_that_is_gone(cancelled: bool) -> None:
    """`local` goes by what this gateway holds, taken before or since; `open` refuses nobody; `closed` everybody."""
    with redis_server.running() as server:
        link, store = of(server)
        one, name = concurrent(2), key()
        held = passes(store, (one, name))
        assert held
        server.kill()
        asked: list[Outcome] = []
        claim = Claim([(one, name)], store)
        pending = store.ask([], asked.append, claim)
        if isinstance(pending, Pending) and cancelled:
            pending.cancel()
            claim.release()
        until(lambda: not store.up)
        second = passes(store, (one, name)) if cancelled else claim
        assert second
        assert passes(store, (one, name)) is None
        second.release()
        assert passes(store, (one, name))
        assert passes(store, (concurrent(1, on_store_failure="open"), name))
        assert passes(store, (concurrent(1, on_store_failure="open"), name))
        with pytest.raises(Exception, match="does not answer"):
            passes(store, (concurrent(1, on_store_failure="closed"), name))
        wait_for(link.stop())


def until(holds: Callable[[], bool]) -> None:
    for _ in range(1_000):
        if holds():
            return
        wait_for(deferLater(reactor, 0.01))
    raise AssertionError("waited in vain")


def test_what_ends_in_a_long_outage_is_not_kept() -> None:
    """Redis ends a lease by itself after 30 s: only what ends before that is told later."""
    clock = Clock()
    link = RedisLink(Redis("redis://127.0.0.1:1"), reactor, clock)
    store = RedisStore(link, reactor, time.time, clock=clock)

    def one_ends() -> None:
        claim = Claim([(concurrent(10), key())], store)
        store.admit([], claim)
        claim.release()

    link.on_up(False)
    for seconds, kept in ((1, 1), (28, 2), (1, 2), (1000, 2)):
        clock.advance(seconds)
        one_ends()
        assert len(store._unsaid) == kept
    assert not store._held
