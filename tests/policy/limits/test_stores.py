"""All stores of limits by one contract, the one in Redis with a real server; and that they decide alike."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.awaiting import wait_for, waiting
from support.limits import NOON, limit
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.task import Clock

from apigw.policy.limits.arithmetic import Decision
from apigw.policy.limits.in_page import PageStore
from apigw.policy.limits.in_redis import RedisStore
from apigw.policy.limits.memory import MemoryStore
from apigw.shared.page import Page

NEXT = count()

Check = Callable[..., Decision]


def key() -> bytes:
    """One that no other test has used."""
    return b"key %d" % next(NEXT)


def in_memory() -> MemoryStore:
    """Whose clock is Unix time, as that of Redis."""
    clock = Clock()
    return MemoryStore(clock, clock.seconds)


def in_page(page: Page) -> PageStore:
    clock = Clock()
    return PageStore(page, clock, clock.seconds)


@pytest.fixture(params=["memory", "page", "redis"])
def store(request: pytest.FixtureRequest) -> Any:
    if request.param == "memory":
        return in_memory()
    if request.param == "page":
        return in_page(request.getfixturevalue("page"))
    return request.getfixturevalue("shared")


@pytest.fixture
def check(store: Any) -> Check:
    return lambda checks, at: wait_for(maybeDeferred(store.check, checks, at))


@pytest.fixture
def peek(store: Any) -> Check:
    return lambda checks, at: wait_for(maybeDeferred(store.peek, checks, at))


@waiting
def test_a_log_counts_exactly(check: Check) -> None:
    """The limit passes, no more, and each place is free again a window after it was taken."""
    one, name = limit(3, 60), key()
    seen = [check([(one, name)], NOON + at) for at in (0, 10.25, 20, 30, 59.999999, 60, 60.000001, 70.25)]
    assert [(d.allowed, d.remaining, d.reset - NOON, d.retry_after) for d in seen] == [
        (True, 2, 60, 0),
        (True, 1, 60, 0),
        (True, 0, 60, 0),
        (False, 0, 60, 30),
        (False, 0, 60, 1),
        (True, 0, 71, 0),
        (False, 0, 71, 11),
        (True, 0, 80, 0),
    ]


@waiting
def test_counters_weigh_the_window_before(check: Check) -> None:
    """A busy last window leaves less of this one, in proportion, and what is left shows."""
    one, name = limit(10, 60, "counter"), key()
    for _ in range(9):
        assert check([(one, name)], NOON + 59).allowed
    quarter = check([(one, name)], NOON + 75)
    assert (quarter.allowed, quarter.remaining, quarter.reset - NOON) == (True, 2, 120)
    assert check([(one, name)], NOON + 75).remaining == 1
    assert check([(one, name)], NOON + 75).remaining == 0
    refused = check([(one, name)], NOON + 75)
    assert (refused.allowed, refused.reset - NOON, refused.retry_after) == (False, 120, 5)
    assert not check([(one, name)], NOON + 79.999999).allowed
    assert check([(one, name)], NOON + 80).allowed


@waiting
def test_a_full_window_of_a_counter_waits_into_the_next(check: Check) -> None:
    """`Retry-After` is true also where the wait goes beyond the window's end."""
    one, name = limit(2, 60, "counter"), key()
    assert check([(one, name)], NOON).allowed
    assert check([(one, name)], NOON + 59).allowed
    refused = check([(one, name)], NOON + 59)
    assert (refused.reset - NOON, refused.retry_after) == (60, 31)
    assert not check([(one, name)], NOON + 89.999999).allowed
    assert check([(one, name)], NOON + 90).allowed


@waiting
def test_what_one_limit_refuses_is_counted_by_none(check: Check, peek: Check) -> None:
    """A caller who is over one limit does not use up the others, however long he hammers."""
    narrow, wide = limit(1, 60), limit(100, 600, "counter")
    checks = [(wide, key()), (narrow, key())]
    assert check(checks, NOON).limit is narrow
    for at in range(5):
        assert check(checks, NOON + at).limit is narrow
    assert peek(checks[:1], NOON + 5).remaining == 99
    assert check(checks, NOON + 60).allowed
    assert peek(checks[:1], NOON + 60).remaining == 98


@waiting
def test_looking_counts_nothing(check: Check, peek: Check) -> None:
    """An operator who asks what is left leaves it as it is."""
    checks = [(limit(2), key())]
    assert [peek(checks, NOON).remaining for _ in range(3)] == [2, 2, 2]
    assert check(checks, NOON).remaining == 1
    assert peek(checks, NOON).remaining == 1


@waiting
@pytest.mark.parametrize("algorithm", ["log", "counter"])
def test_time_never_runs_backwards_within_a_key(check: Check, algorithm: str) -> None:
    """A clock that is set back gives nobody a second quota, and the wait that is told is the true one."""
    one, name = limit(2, 60, algorithm), key()
    assert check([(one, name)], NOON).allowed
    assert check([(one, name)], NOON + 10).allowed
    refused = check([(one, name)], NOON - 3600)
    assert not refused.allowed
    assert not check([(one, name)], NOON - 3600 + refused.retry_after - 1).allowed
    assert check([(one, name)], NOON - 3600 + refused.retry_after).allowed


@waiting
def test_a_lowered_limit_counts_what_was_counted_under_the_old_one(check: Check) -> None:
    """A reload that halves a limit takes effect at once, and says rightly how long to wait."""
    name = key()
    for at in range(4):
        assert check([(limit(4), name)], NOON + at).allowed
    refused = check([(limit(2), name)], NOON + 4)
    assert (refused.allowed, refused.retry_after) == (False, 58)
    assert not check([(limit(2), name)], NOON + 61.999999).allowed
    assert check([(limit(2), name)], NOON + 62).allowed


@waiting
def test_huge_limits_are_exact(check: Check) -> None:
    """Numbers beyond what a Lua double holds do not disturb the answer."""
    one, name = limit(2**31 - 1, 86_400 * 100, "counter"), key()
    assert check([(one, name)], NOON).remaining == 2**31 - 2
    assert check([(one, name)], NOON + 86_400 * 100).remaining < 2**31 - 2


@waiting
def test_a_log_after_a_long_silence(check: Check) -> None:
    """A key whose whole log has passed starts anew, and one with half of it keeps the other half."""
    one, name = limit(100, 60), key()
    for at in range(100):
        assert check([(one, name)], NOON + at / 10).allowed
    assert check([(one, name)], NOON + 64.95).remaining == 49
    assert check([(one, name)], NOON + 1_000).remaining == 99


LIMITS = [
    limit(3, 10, "log"),
    limit(1, 30, "log", scope="user"),
    limit(5, 12, "counter"),
    limit(2, 10.000001, "counter", scope="endpoint"),
    limit(7, 3600, "counter", endpoint="/x"),
    limit(20, 15, "log", endpoint="/y"),
]
STEP = st.tuples(
    st.one_of(
        st.sampled_from([0, 1, -1, 5_000_000, 10_000_000, 9_999_999, 12_000_000, -40_000_000]),
        st.integers(0, 20_000_000),
    ),
    st.lists(
        st.tuples(st.sampled_from(LIMITS), st.sampled_from([b"a", b"b"])), min_size=1, unique_by=lambda c: c[0].id
    ),
    st.booleans(),
)


@waiting
def test_all_stores_decide_alike(shared: RedisStore, page: Page) -> None:
    """A gateway that moves from memory to Redis, falls back, or gets workers, does not change what a caller sees."""

    @settings(max_examples=150, deadline=None)
    @given(st.lists(STEP, max_size=40))
    def alike(steps: list[Any]) -> None:
        memory, suffix, moment = in_memory(), key(), NOON * 1_000_000
        together = in_page(page)
        answers: list[Deferred[Any]] = []
        expected = []
        for ahead, chosen, looking in steps:
            moment += ahead
            checks = [(one, name + suffix) for one, name in chosen]
            now = moment / 1_000_000
            answers.append(shared.peek(checks, now) if looking else shared.check(checks, now))
            expected.append(memory.peek(checks, now) if looking else memory.check(checks, now))
            assert (together.peek(checks, now) if looking else together.check(checks, now)) == expected[-1]
        assert wait_for(gatherResults(answers)) == expected

    alike()
