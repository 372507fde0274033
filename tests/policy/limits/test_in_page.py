"""The store in the shared page: what it does when it is full, when a lock is not to be had, and when a worker dies."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.forked import child, holds
from support.limits import NOON, concurrent, limit
from twisted.internet.task import Clock

from apigw.policy.limits.arithmetic import Checks, Limit
from apigw.policy.limits.concurrent import HELD, WANTED, Claim, ConcurrentLimit
from apigw.policy.limits.in_page import PageStore
from apigw.policy.limits.local import SWEEP_INTERVAL
from apigw.policy.limits.memory import MemoryStore
from apigw.policy.limits.page_log import glance
from apigw.shared.debts import DEBTS
from apigw.shared.page import Page
from apigw.shared.slots import LOCK_MISSES, WITHOUT_ROOM


@pytest.fixture
def small() -> Iterator[Page]:
    """With stripes of some 200 cells."""
    page = Page.make(4, 1024 * 1024)
    page.become(0, 1)
    yield page
    page.close()


def store(page: Page, clock: Clock | None = None) -> PageStore:
    if clock is None:
        clock = Clock()
        clock.advance(NOON)
    return PageStore(page, clock, clock.seconds)


def checks_of(page: Page, one: Limit, more: int) -> Checks:
    """Of ``one`` limit, or also of another, whose debts are counted in another word."""
    other, spot = limit(100, 60, endpoint="/y"), page.limits.spot
    word = spot(one.id + b"x").mark % DEBTS
    key = next(key for key in (b"x", b"y", b"z") if spot(other.id + key).mark % DEBTS != word)
    return [(one, b"x"), (other, key)][: 1 + more]


def names(memory: PageStore, one: Limit | ConcurrentLimit, number: int, lock: int = 0) -> list[bytes]:
    """Keys that meet in one stripe."""
    found: list[bytes] = []
    at = 0
    while len(found) < number:
        name = b"%d" % at
        if memory._table.spot(one.id + name).lock == lock:
            found.append(name)
        at += 1
    return found


STEP = st.tuples(st.sampled_from([0, 1, 700_000, 5_000_000, 9_999_999, 10_000_000]), st.integers(1, 40), st.booleans())


def test_long_logs_are_exact(page: Page) -> None:
    """However the stamps lie in chunks, and whatever has left the window: as in one process."""

    @settings(max_examples=50, deadline=None)
    @given(st.lists(STEP, max_size=40), st.lists(st.integers(1, 120), min_size=1, max_size=3))
    def alike(steps: list[Any], limits: list[int]) -> None:
        name = b"%d" % len(page.limits)
        memory, together, moment = MemoryStore(Clock(), lambda: 0.0), store(page), NOON * 1_000_000
        for at, (ahead, number, looking) in enumerate(steps):
            checks = [(limit(limits[at % len(limits)], 10, "log", scope="user", endpoint=f"/{len(page.limits)}"), name)]
            for _ in range(number):
                moment += ahead if number < 5 else ahead // number
                now = moment / 1_000_000
                if looking:
                    assert together.peek(checks, now) == memory.peek(checks, now)
                assert together.check(checks, now) == memory.check(checks, now)
        for lock in range(64):
            page.locks.take(lock)
            page.limits.clear(lock)
            page.locks.give_back(lock)

    alike()


def test_a_full_table_keeps_who_is_being_refused(small: Page) -> None:
    """A flood of new addresses costs no memory, and does not free the caller who hammers."""
    memory, one = store(small), limit(1)
    hammer, *flood = names(memory, one, 1_000)
    memory.check([(one, hammer)], NOON)
    for name in flood:
        assert not memory.check([(one, hammer)], NOON).allowed
        assert memory.check([(one, name)], NOON).allowed
    assert len(memory) <= small.limits.cells


def test_a_long_log_becomes_a_counter_when_there_is_no_room(small: Page) -> None:
    """It takes no other's room, and goes on from what it has counted; once it is unused it is a log again."""
    memory, long, short = store(small), limit(100_000, 60, "log"), limit(3, 60, "log", endpoint="/short")
    (other,), (name,) = names(memory, short, 1), names(memory, long, 1)
    memory.check([(short, other)], NOON)
    cells = int(small.limits.cells)
    number = 7 * (cells - 3)
    for at in range(number):
        assert memory.check([(long, name)], NOON + 30 + 29 * at / number).remaining == 100_000 - at - 1
    assert memory.check([(long, name)], NOON + 60).remaining == 100_000 - number - 1
    assert memory.peek([(long, name)], NOON + 90).remaining == 100_000 - number // 2 - 1
    assert memory.peek([(short, other)], NOON + 59).remaining == 2
    assert memory.check([(long, name)], NOON + 181).remaining == 99_999
    assert memory.peek([(long, name)], NOON + 240).remaining == 99_999
    assert memory.peek([(long, name)], NOON + 241).remaining == 100_000


def test_short_logs_stay_logs_in_a_full_table(small: Page) -> None:
    """Others, unused for longer, leave for the next stamps."""
    memory, one, flood = store(small), limit(60, 60, "log"), limit(1, endpoint="/flood")
    (name,) = names(memory, one, 1)
    for key in names(memory, flood, 500):
        memory.check([(flood, key)], NOON)
    for at in range(60):
        assert memory.check([(one, name)], NOON + at / 2).remaining == 59 - at
    assert memory.check([(one, name)], NOON + 60.25).remaining == 0
    assert not memory.check([(one, name)], NOON + 60.25).allowed


def test_expired_keys_leave(small: Page) -> None:
    """In parts, all in half a minute; what still counts stays."""
    clock = Clock()
    clock.advance(NOON)
    memory, soon, late = store(small, clock), limit(5, 60), limit(5, 3600, "counter")
    memory.start()
    for number in range(500):
        memory.check([(soon, b"%d" % number)])
    memory.check([(late, b"x")])
    assert (memory.keys_of(soon), memory.keys_of(late)) == (500, 1)
    clock.pump([SWEEP_INTERVAL] * 4 * 90)
    assert (memory.keys_of(soon), memory.keys_of(late), len(memory)) == (0, 1, 1)
    assert memory.peek([(late, b"x")]).remaining == 4
    memory.stop()
    assert not clock.getDelayedCalls()


def hold(page: Page, lock: int) -> None:
    page.become(1, 1)
    assert page.locks.take(lock)


@pytest.mark.parametrize("algorithm", ["log", "counter"])
@pytest.mark.parametrize("more", [0, 1])
def test_without_a_lock_a_limit_is_kept(page: Page, algorithm: str, more: int) -> None:
    """Where its holder is stopped: there is room for what all have counted, for what this worker admits beside, and for
    one that the holder may be counting. Else a request is refused, for the moment. Each miss is counted."""
    memory = store(page)
    checks = checks_of(page, limit(10, 60, algorithm), more)
    for _ in range(6):
        memory.check(checks, NOON)
    lock = page.limits.spot(checks[0][0].id + b"x").lock
    with child(holds(lambda: hold(page, lock))) as other:
        other.wait_so_far()
        other.stop()
        seen = [memory.check(checks, NOON + 1) for _ in range(4)]
        assert [decision.allowed for decision in seen] == [True, True, True, False]
        assert dict(seen[0].headers)[b"x-ratelimit-limit"] == b"10"
        assert (seen[3].remaining, seen[3].retry_after) == (0, 1)
        assert not memory.peek(checks, NOON + 1).allowed
        assert page.slots.get(0, LOCK_MISSES) == 5
        other.kill()
    assert page.died(1).locks == [(lock, 0)]
    assert [memory.check(checks, NOON + 2).allowed for _ in range(2)] == [True, False]


@pytest.fixture
def workers(page: Page) -> Iterator[list[Page]]:
    """The same page as four workers have it, the first of which is ``page``."""
    pages = [page]
    for worker in range(1, 4):
        pages.append(Page.open(os.dup(page.descriptor)))
        pages[worker].become(worker, 1)
    yield pages
    for each in pages[1:]:
        each.close()


@pytest.mark.parametrize("algorithm", ["log", "counter"])
@pytest.mark.parametrize("counted", [0, 50, 96, 98, 99])
def test_workers_without_a_lock_admit_exactly_the_limit(workers: list[Page], algorithm: str, counted: int) -> None:
    """Whoever holds it has lost its core, and is about to count one more: together they admit as many as allowed."""
    clock = Clock()
    clock.advance(NOON)
    stores = [store(page, clock) for page in workers]
    holder, others = stores[0], stores[1:]
    one, name = limit(100, 3600, algorithm), b"x"
    admitted = sum(holder.check([(one, name)]).allowed for _ in range(counted))
    spot = holder._spot(one.id, name)
    assert workers[0].locks.take(spot.lock)
    found = holder._table.find(spot) != 0
    standing = holder._look(one, spot, found, int(NOON * 1_000_000))
    admitted += sum(each.check([(one, name)]).allowed for _ in range(20) for each in others)
    holder._count(spot, found, standing)
    admitted += 1
    workers[0].locks.give_back(spot.lock)
    for _ in range(100):
        admitted += sum(each.check([(one, name)]).allowed for each in stores)
    for each in others:
        each.sweep()
    for _ in range(100):
        admitted += sum(each.check([(one, name)]).allowed for each in stores)
    assert admitted == 100


def test_what_is_owed_is_counted_at_the_end(page: Page) -> None:
    """Of a worker that ends before the next sweep."""
    clock = Clock()
    clock.advance(NOON)
    memory, one = store(page, clock), limit(10, 60)
    memory.start()
    lock = page.limits.spot(one.id + b"x").lock
    assert page.locks.take(lock)
    assert memory.check([(one, b"x")]).allowed
    page.locks.give_back(lock)
    memory.stop()
    assert store(page, clock).peek([(one, b"x")]).remaining == 9


def test_a_debt_of_an_old_request_is_known(workers: list[Page]) -> None:
    """One that has waited for something, as for its authentication: its own, and those of others."""
    clock = Clock()
    clock.advance(NOON)
    one, another = limit(3, 3600), limit(9, 3600, endpoint="/y")
    memory, late = store(workers[0], clock), store(workers[1], clock)
    lock = workers[0].limits.spot(one.id + b"x").lock
    elsewhere = names(memory, another, 1, lock)[0]
    assert workers[2].locks.take(lock)
    assert late.check([(one, b"x")], NOON).allowed
    assert late.check([(another, elsewhere)], NOON - 60).allowed
    workers[2].locks.give_back(lock)
    assert [memory.check([(one, b"x")], NOON).allowed for _ in range(3)] == [True, True, False]
    late.sweep()
    assert memory.peek([(one, b"x")]).remaining == 0


def test_debts_of_the_dead_are_forgotten(workers: list[Page]) -> None:
    """Nobody will count them: they keep no request from its place in the limit."""
    clock = Clock()
    clock.advance(NOON)
    one = limit(3, 60)
    memory, dead = store(workers[0], clock), store(workers[1], clock)
    lock = workers[0].limits.spot(one.id + b"x").lock
    assert workers[2].locks.take(lock)
    assert [dead.check([(one, b"x")]).allowed for _ in range(3)] == [True, True, False]
    workers[2].locks.give_back(lock)
    assert [memory.check([(one, b"x")]).allowed for _ in range(2)] == [True, False]
    workers[0].died(1)
    assert [memory.check([(one, b"x")]).allowed for _ in range(3)] == [True, True, False]


def test_one_whose_place_is_free_but_not_its_limit(page: Page) -> None:
    """Without a lock, too, who is refused by one holds nothing of the other."""
    clock = Clock()
    clock.advance(NOON)
    memory, rate, places = store(page, clock), limit(3, 60), concurrent(2)
    lock = page.limits.spot(rate.id + b"x").lock
    assert page.locks.take(lock)

    def admit() -> Claim:
        claim = Claim([(places, b"x")], memory)
        memory.admit([(rate, b"x")], claim)
        return claim

    first = admit()
    assert (first.state, admit().full) == (HELD, places)
    first.release()
    second = admit()
    assert second.state == HELD
    second.release()
    refused = admit()
    assert (refused.state, refused.full) == (WANTED, None)
    page.locks.give_back(lock)
    memory.sweep()
    assert memory.peek([(rate, b"x")]).remaining == 1


@pytest.mark.parametrize("algorithm", ["log", "counter"])
@pytest.mark.parametrize("more", [0, 1])
@pytest.mark.parametrize("places", [False, True])
def test_what_was_admitted_without_a_lock_counts(page: Page, algorithm: str, more: int, places: bool) -> None:
    """Once the lock can be had: so a holder that waits for a core takes no request too many through the limit."""
    page.workers = 2
    clock = Clock()
    clock.advance(NOON)
    memory = store(page, clock)
    checks = checks_of(page, limit(10, 60, algorithm), more)

    def admitted() -> bool:
        if not places:
            return memory.check(checks).allowed
        decision = memory.admit(checks, Claim([(concurrent(90), b"x")], memory))
        return decision is not None and decision.allowed

    assert all(admitted() for _ in range(6))
    with child(holds(lambda: hold(page, page.limits.spot(checks[0][0].id + b"x").lock))) as other:
        other.wait_so_far()
        other.stop()
        assert [admitted() for _ in range(2)] == [True, True]
        memory.sweep()
        other.kill()
    page.died(1)
    assert memory.peek(checks).remaining == 4
    for _ in range(2):
        memory.sweep()
        assert memory.peek(checks).remaining == 2


@pytest.mark.parametrize("algorithm", ["log", "counter"])
@pytest.mark.parametrize("more", [0, 1])
def test_without_a_lock_what_is_used_up_stays_so(page: Page, algorithm: str, more: int) -> None:
    """Until a request would pass."""
    memory = store(page)
    checks = checks_of(page, limit(4, 60, algorithm), more)
    seen = [memory.check(checks, NOON + 1) for _ in range(5)]
    assert [decision.allowed for decision in seen] == [True] * 4 + [False]
    with child(holds(lambda: hold(page, page.limits.spot(checks[0][0].id + b"x").lock))) as other:
        other.wait_so_far()
        other.stop()
        refused = memory.check(checks, NOON + 2)
        assert (refused.allowed, refused.headers[:3]) == (False, seen[-1].headers[:3])
        rate_and_places = Claim([(concurrent(90), b"x")], memory)
        refusal = memory.admit(checks, rate_and_places, NOON + 2)
        assert refusal is not None
        assert not refusal.allowed
        assert rate_and_places.state != HELD
        assert [memory.check(checks, NOON + 180).allowed for _ in range(4)] == [True] * 3 + [False]
        other.kill()
    page.died(1)


def test_places_without_a_lock(page: Page) -> None:
    """A worker's share of them; what ends meanwhile is freed as soon as the lock can be had."""
    clock, one = Clock(), concurrent(4)
    memory = store(page, clock)

    def claim() -> Claim:
        wanted = Claim([(one, b"x")], memory)
        memory.admit([], wanted)
        return wanted

    first = claim()
    with child(holds(lambda: hold(page, page.limits.spot(one.id + b"x").lock))) as other:
        other.wait_so_far()
        other.stop()
        claims = [claim() for _ in range(3)]
        assert [each.state == HELD for each in claims] == [True, True, False]
        assert claims[2].full is one
        claims[0].release()
        assert claim().state == HELD
        first.release()
        other.kill()
    page.died(1)
    assert memory.taken(one) == (1, 1)
    memory.sweep()
    assert memory.taken(one) == (0, 0)


def test_places_of_a_dead_worker_are_free(page: Page) -> None:
    """And those of the living stay taken."""
    one, other = concurrent(3), concurrent(5, endpoint="/y")
    memory = store(page)

    def claim(*names: bytes) -> bool:
        wanted = Claim([(limit, name) for limit in (one, other) for name in names], memory)
        memory.admit([], wanted)
        return wanted.state == HELD

    def work() -> None:
        page.become(9, 1)
        assert claim(b"a")
        assert claim(b"a")
        assert claim(b"b")

    assert claim(b"a")
    with child(holds(work)) as dead:
        dead.wait_so_far()
        assert (memory.taken(one), memory.taken(other)) == ((2, 4), (2, 4))
        assert not claim(b"a")
        dead.kill()
    assert page.died(9).complete
    assert (memory.taken(one), memory.taken(other)) == ((1, 1), (1, 1))
    assert claim(b"a")
    assert claim(b"a")
    assert not claim(b"a")


def test_a_death_is_told_to_be_incomplete_while_another_hangs(page: Page) -> None:
    """The master asks again when that one has gone, too."""
    one, memory = concurrent(3), store(page)

    def work() -> None:
        page.become(2, 1)
        memory.admit([], Claim([(one, b"a")], memory))

    with child(holds(work)) as dead:
        dead.wait_so_far()
        dead.kill()
    with child(holds(lambda: hold(page, page.limits.spot(one.id + b"a").lock))) as hangs:
        hangs.wait_so_far()
        hangs.stop()
        assert not page.died(2).complete
        hangs.kill()
    assert page.died(1).complete
    assert page.died(2).complete
    assert memory.taken(one) == (0, 0)


def test_places_for_which_there_is_no_room(small: Page) -> None:
    """The worker's share is left, and that is counted."""
    one, memory = concurrent(8, scope="user"), store(small)
    cells = small.limits.cells
    keys = names(memory, one, cells // 2 + 3)
    claims = [Claim([(one, name)], memory) for name in keys]
    for claim in claims:
        memory.admit([], claim)
        assert claim.state == HELD
    assert small.slots.get(0, WITHOUT_ROOM) == sum(claim.by_share for claim in claims) > 0
    for claim in claims:
        claim.release()
    assert memory.taken(one) == (0, 0)
    for _ in range(64):
        memory.sweep()
    assert len(memory) == 0


def test_a_limit_without_room_lets_pass(small: Page) -> None:
    """Where a stripe holds nothing but places, and that is counted."""
    one, places, memory = limit(1), concurrent(8), store(small)
    for at, key in enumerate(names(memory, places, small.limits.cells)):
        small.locks.worker = 7 if at == 0 else 0  # whose share needs one more cell of 223
        memory.admit([], Claim([(places, key)], memory))
    before = small.slots.get(0, WITHOUT_ROOM)
    (name,) = names(memory, one, 1)
    assert memory.check([(one, name)], NOON).allowed
    assert small.slots.get(0, WITHOUT_ROOM) == before + 1


def test_a_place_in_a_stripe_that_was_emptied(page: Page) -> None:
    """It ends without anybody's being freed."""
    one, memory = concurrent(3), store(page)
    claim = Claim([(one, b"a")], memory)
    memory.admit([], claim)
    lock = page.limits.spot(one.id + b"a").lock
    page.locks.take(lock)
    page.limits.clear(lock)
    page.locks.give_back(lock)
    claim.release()
    assert memory.taken(one) == (0, 0)


def test_redis_goes_by_the_page_while_it_is_gone(page: Page) -> None:
    """Not by what one worker has counted."""
    from twisted.internet import reactor

    from apigw.config.model import Redis
    from apigw.policy.limits.in_redis import RedisStore
    from apigw.redis.link import RedisLink

    one = limit(3)
    shared = RedisStore(RedisLink(Redis("redis://127.0.0.1:1"), reactor), reactor, lambda: NOON, local=store(page))
    other = store(page)
    other.check([(one, b"x")])
    seen: list[Any] = []
    shared.check([(one, b"x")]).addCallback(seen.append)
    assert seen[0].remaining == 1


@pytest.mark.parametrize("line", range(1, 9))
def test_a_count_that_is_written_meanwhile_is_not_too_small(page: Page, line: int) -> None:
    """The holder of the lock begins a window, at any line of a look without it (of what is compiled: at none)."""
    memory, one = store(page), limit(10, 60, "counter")
    for _ in range(8):
        memory.check([(one, b"x")], NOON)
    after, spot = NOON + 60.5, memory._spot(one.id, b"x")
    used = memory._look(one, spot, page.limits.find(spot) != 0, int(after * 1_000_000)).used
    at = 0

    def write(frame: Any, event: str, _: object) -> Any:
        nonlocal at
        if frame.f_code.co_name != "look_counter":
            return None if frame.f_code.co_name != "glance" else write
        at += event == "line"
        if event == "line" and at == line:
            sys.settrace(None)
            assert memory.check([(one, b"x")], after).allowed
        return write

    sys.settrace(write)
    try:
        known = glance(page.limits, one, spot, int(after * 1_000_000)).used
    finally:
        sys.settrace(None)
    assert known >= used
