"""The arithmetic of limits, and the store in memory, with integers for time."""

from __future__ import annotations

from collections import deque
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock

from apigw.config.model import RateLimit
from apigw.policy.limits.limits import (
    LARGEST_LIMIT,
    LONGEST_WINDOW,
    SECOND,
    SWEEP_INTERVAL,
    CounterLimit,
    Decision,
    Limit,
    LogLimit,
    MemoryStore,
    Selection,
    compile_limit,
    decide,
    scope_key,
    select,
)
from apigw.routing.pattern import Pattern

NOON = 1_700_006_400


def limit(number: int = 3, window: float = 60.0, algorithm: str = "auto", **rest: str) -> Limit:
    config = {"endpoint": "/api", "scope": "ip", "on_store_failure": "local", **rest}
    return compile_limit(RateLimit(limit=number, window=window, algorithm=algorithm, **config))


def store(max_keys: int = 1_000_000) -> MemoryStore:
    return MemoryStore(Clock(), max_keys)


def stamps(one: Limit, times: list[int]) -> list[int]:
    """Of requests at these microseconds, those that pass, by the decision code alone."""
    state, passed = None, []
    for now in times:
        rolled, clock, used, _, _ = one.look(state, now)
        if used < one.limit:
            state = one.count(rolled, clock, used)
            passed.append(clock)
    return passed


# Bursts about the ends of windows: where a limiter that is only nearly right lets too many through.
def bursts(span: int) -> st.SearchStrategy[list[int]]:
    near = st.builds(lambda window, off: window * span // 2 + off, st.integers(0, 12), st.integers(-2, 2))
    burst = st.builds(lambda at, size: [max(at, 0)] * size, near, st.integers(1, 6))
    return st.lists(burst, max_size=30).map(lambda all_of: sorted(now for burst in all_of for now in burst))


@given(st.data(), st.integers(1, 7), st.integers(1, 50))
def test_no_window_however_placed_lets_more_than_the_limit_pass(data: st.DataObject, number: int, span: int) -> None:
    """An adversary who knows the boundaries gets no more than the limit through, and an honest caller no less."""
    one = limit(number, span / SECOND, "log")
    times = data.draw(bursts(span))
    passed = stamps(one, times)
    for first, beyond in zip(passed, passed[number:], strict=False):
        assert beyond - first >= span
    expected: list[int] = []
    for now in times:
        if sum(now - span < earlier for earlier in expected) < number:
            expected.append(now)
    assert passed == expected


@given(st.lists(st.integers(0, 400), max_size=120), st.integers(1, 7))
def test_a_clock_that_is_set_back_gives_nothing_away(times: list[int], number: int) -> None:
    """Whatever the clock of the machine does, the stamps within a key only grow, and hold the limit."""
    passed = stamps(limit(number, 100 / SECOND, "log"), times)
    assert passed == sorted(passed)
    assert all(beyond - first >= 100 for first, beyond in zip(passed, passed[number:], strict=False))


@given(st.data(), st.integers(1, 7), st.integers(1, 50))
def test_counters_follow_their_formula_to_the_microsecond(data: st.DataObject, number: int, span: int) -> None:
    """The estimate that is documented is the one that refuses, without any error of rounding."""
    one = limit(number, span / SECOND, "counter")
    windows: dict[int, int] = {}
    state = None
    for now in data.draw(bursts(span)):
        rolled, clock, used, _, _ = one.look(state, now)
        window, elapsed = divmod(now, span)
        current = windows.get(window, 0)
        weighted = windows.get(window - 1, 0) * (1 - Fraction(elapsed, span))
        assert (used < number) == (weighted + current + 1 <= number)
        if used < number:
            state = one.count(rolled, clock, used)
            windows[window] = current + 1


@given(st.data(), st.integers(1, 7), st.integers(2, 50), st.sampled_from(["log", "counter"]))
def test_a_refusal_names_the_first_moment_at_which_a_request_passes(
    data: st.DataObject, number: int, span: int, algorithm: str
) -> None:
    """Whoever waits as told passes, and nobody is told to wait longer than needed."""
    one = limit(number, span / SECOND, algorithm)
    state = None
    for now in data.draw(bursts(span)):
        rolled, clock, used, _, passes = one.look(state, now)
        if used < number:
            state = one.count(rolled, clock, used)
        else:
            assert one.look(state, passes)[2] < number
            assert one.look(state, passes - 1)[2] >= number
            assert passes > now


@given(
    st.integers(0, LARGEST_LIMIT),
    st.integers(0, LARGEST_LIMIT),
    st.integers(1, 2**43),
    st.integers(1, LARGEST_LIMIT),
    st.integers(0, 2**51),
)
def test_counters_are_exact_at_any_size(current: int, previous: int, span: int, number: int, clock: int) -> None:
    """A limit of two thousand million in a hundred days is as exact as one of three a minute."""
    one = limit(number, span / SECOND, "counter")
    assert isinstance(one, CounterLimit)
    used, resets, passes = one.standing(clock, current, previous)
    elapsed = clock % one.span
    assert (used < number) == (previous * (1 - Fraction(elapsed, one.span)) + current + 1 <= number)
    assert resets == clock - elapsed + one.span
    assert used < number or passes > clock


def test_headers_count_down_and_then_say_when_to_come_back() -> None:
    """A caller reads from each response how much is left and until when."""
    memory, one = store(), limit(3, 60)
    seen = [memory.check([(one, b"x")], NOON + at) for at in (0, 10.25, 20, 30, 59.999999, 60)]
    assert [(d.allowed, d.remaining, d.reset - NOON, d.retry_after) for d in seen] == [
        (True, 2, 60, 0),
        (True, 1, 60, 0),
        (True, 0, 60, 0),
        (False, 0, 60, 30),
        (False, 0, 60, 1),
        (True, 0, 71, 0),
    ]
    assert seen[3].headers() == [
        (b"x-ratelimit-limit", b"3"),
        (b"x-ratelimit-remaining", b"0"),
        (b"x-ratelimit-reset", b"%d" % (NOON + 60)),
        (b"retry-after", b"30"),
    ]
    assert [name for name, _ in seen[0].headers()] == [
        b"x-ratelimit-limit",
        b"x-ratelimit-remaining",
        b"x-ratelimit-reset",
    ]


def test_the_tightest_limit_speaks_for_all() -> None:
    """Of several limits the headers show the least that remains, and of several refusals the longest wait."""
    wide, narrow, slow = limit(9, 60), limit(3, 5), limit(3, 600)
    later, soon = (NOON + 50) * SECOND, (NOON + 2) * SECOND
    now = NOON * SECOND
    assert decide([(wide, 1, later, 0), (narrow, 1, soon, 0)], now) == Decision(True, narrow, 1, NOON + 2, 0)
    assert decide([(narrow, 1, soon, 0), (slow, 1, later, 0)], now) == Decision(True, slow, 1, NOON + 50, 0)
    refused = decide([(wide, 0, soon, 0), (narrow, 3, soon, soon), (slow, 3, later, later)], now)
    assert refused == Decision(False, slow, 0, NOON + 50, 50)


def test_auto_keeps_a_log_up_to_a_thousand_and_counters_above() -> None:
    """A limit of a million a day does not keep a million stamps."""
    assert isinstance(limit(1_000), LogLimit)
    daily = limit(1_000_000, 86_400)
    assert isinstance(daily, CounterLimit)
    memory = store()
    for at in range(5_000):
        memory.check([(daily, b"x")], NOON + at)
    assert sum(len(table) for table in memory._tables) == 1
    assert all(isinstance(state, int) for table in memory._tables for state in table.values())


def test_a_long_log_stays_exact_while_it_is_trimmed() -> None:
    """A busy key of a large exact limit is right for hours, and holds little more than its window."""
    one = limit(1_000, 10)
    state, passed = None, deque([-(10**9)] * 1_000)
    for now in range(0, 60 * SECOND, 7_001):
        rolled, clock, used, _, _ = one.look(state, now)
        assert (used < 1_000) == (passed[0] + 10 * SECOND <= now)
        if used < 1_000:
            state = one.count(rolled, clock, used)
            passed.append(now)
            passed.popleft()
    assert state is not None
    assert len(state) <= 1_126


def test_a_lowered_limit_counts_what_was_counted_under_the_old_one() -> None:
    """A reload that halves a limit takes effect at once, and says rightly how long to wait."""
    memory, before, after = store(), limit(4), limit(2)
    for at in range(4):
        assert memory.check([(before, b"x")], NOON + at).allowed
    refused = memory.check([(after, b"x")], NOON + 4)
    assert (refused.allowed, refused.retry_after) == (False, 58)
    assert not memory.check([(after, b"x")], NOON + 61.999999).allowed
    assert memory.check([(after, b"x")], NOON + 62).allowed


def test_what_counts_differently_is_counted_apart() -> None:
    """Two limits never share a count because their names look alike."""
    ids = {
        one.id
        for one in (
            limit(),
            limit(scope="user"),
            limit(endpoint="/api/*"),
            limit(window=61),
            limit(algorithm="counter"),
        )
    }
    assert len(ids) == 5
    assert limit(3).id == limit(4).id


def test_the_longest_unused_keys_leave_first() -> None:
    """A flood of new addresses costs no memory, and does not free the caller who is being refused."""
    memory, one = store(3), limit(1)
    for key in (b"a", b"b", b"c"):
        assert memory.check([(one, key)], NOON).allowed
    assert not memory.check([(one, b"a")], NOON + 1).allowed
    assert memory.check([(one, b"d")], NOON + 2).allowed
    assert len(memory) == 3
    assert not memory.peek([(one, b"a")], NOON + 3).allowed
    assert not memory.peek([(one, b"c")], NOON + 3).allowed
    assert memory.peek([(one, b"b")], NOON + 3).allowed


def test_a_large_store_keeps_to_its_bound() -> None:
    """The bound holds to the key, however the keys spread over the tables."""
    memory, one = store(20_000), limit(1)
    for number in range(50_000):
        memory.check([(one, b"%d" % number)], NOON)
        assert len(memory) <= 20_000
    assert len(memory) == sum(len(table) for table in memory._tables) > 19_000


@pytest.mark.parametrize("algorithm", ["log", "counter"])
def test_memory_shrinks_after_the_window(algorithm: str) -> None:
    """A gateway that was busy gives the memory back when its callers have gone."""
    clock = Clock()
    clock.advance(NOON)
    memory, one = MemoryStore(clock), limit(5, 60, algorithm)
    memory.start()
    for number in range(2_000):
        memory.check([(one, b"%d" % number)])
    clock.pump([SWEEP_INTERVAL] * 236)
    assert memory.check([(one, b"1")]).remaining == 3
    clock.pump([SWEEP_INTERVAL] * 2 * 236)
    assert len(memory) <= 1
    memory.stop()
    assert not clock.getDelayedCalls()


def test_sweeping_forgets_nothing_that_still_counts() -> None:
    """Nobody is let through early because the store was tidied."""
    memory, one = MemoryStore(Clock(), 10), limit(1, 60)
    memory.check([(one, b"x")], NOON)
    memory.sweep(NOON + 59.999999)
    assert not memory.check([(one, b"x")], NOON + 59.999999).allowed
    memory.sweep(NOON + 60)
    assert len(memory) == 0


USERS = st.text(st.characters(codec="utf-8") | st.sampled_from("0123456789:\0|"), max_size=60)


@settings(max_examples=300)
@given(st.tuples(USERS, USERS), st.tuples(USERS, USERS))
def test_no_two_callers_share_a_key(one: tuple[str, str], other: tuple[str, str]) -> None:
    """Nobody spends another's quota by choosing an odd name, and no name makes a long key."""
    keys = [scope_key("user", provider, user, "192.0.2.1") for provider, user in (one, other)]
    assert (keys[0] == keys[1]) == (one == other)
    assert all(len(key) <= 40 for key in keys)
    assert scope_key("user", None, None, one[1]) != keys[0]


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("fe80::1%eth0", "fe80::1", True),
        ("", "unix", False),
    ],
)
def test_addresses_are_counted_by_who_holds_them(first: str, second: str, same: bool) -> None:
    """One IPv6 customer is one caller; an IPv4 caller is the same one on a dual-stack socket."""
    for scope in ("ip", "user"):
        keys = [scope_key(scope, None, None, address) for address in (first, second)]
        assert (keys[0] == keys[1]) is same


def test_scopes_count_by_what_they_say() -> None:
    """`ip` does not look at who is signed in, and `endpoint` at nobody."""
    assert scope_key("ip", "main", "alice", "192.0.2.1") == scope_key("ip", None, None, "192.0.2.1")
    assert scope_key("user", "main", "alice", "192.0.2.1") == scope_key("user", "main", "alice", "192.0.2.2")
    assert scope_key("user", "main", "alice", "::1") != scope_key("user", "other", "alice", "::1")
    assert scope_key("endpoint", "main", "alice", "192.0.2.1") == b""


def test_a_route_knows_the_limits_that_can_apply_to_it() -> None:
    """Limits reach narrower and wider routes, and only the paths that they name."""
    everywhere, search, other = limit(endpoint="/api/*"), limit(endpoint="/api/search"), limit(endpoint="/admin/*")
    limits = (everywhere, search, other)
    wide = select(limits, Pattern.parse("/api/:what"))
    assert (wide.always, wide.sometimes) == ((everywhere,), (search,))
    assert wide.of(b"/api/search") == (everywhere, search)
    assert wide.of(b"/api/users") == (everywhere,)
    narrow = select(limits, Pattern.parse("/api/search"))
    assert narrow.of(b"/api/search") == (everywhere, search)
    assert not select(limits, Pattern.parse("/static/*"))


def test_a_401_is_charged_to_the_limits_of_addresses() -> None:
    """Whoever guesses tokens runs out of tries, but spends no user's quota."""
    by_ip, by_user = limit(2), limit(2, scope="user")
    found = Selection((by_ip, by_user), (by_user,)).of_addresses()
    assert (found.always, found.sometimes) == ((by_ip,), ())


@pytest.mark.parametrize(
    ("number", "window"),
    [(0, 60), (-1, 60), (LARGEST_LIMIT + 1, 60), (1, 0), (1, -1), (1, LONGEST_WINDOW * 1.01), (1, float("nan"))],
)
def test_limits_that_cannot_be_kept_are_refused(number: int, window: float) -> None:
    """A quota of nothing, or one beyond exact arithmetic, is an error and not a surprise."""
    with pytest.raises(ValueError, match=r"limit|window"):
        limit(number, window)


def test_keys_are_counted_by_limit() -> None:
    """What operators are told is kept is not what is kept, or a limit that is gone is remembered for ever."""
    clock = Clock()
    clock.advance(1_000_000)
    store = MemoryStore(clock, max_keys=10)
    one = compile_limit(RateLimit("/one", 5, 60.0, "ip"))
    other = compile_limit(RateLimit("/other", 2_000, 60.0, "ip"))
    for number in range(8):
        store.check([(one, b"%d" % number), (other, b"%d" % (number % 2))])
        store.check([(one, b"%d" % number)])
    assert (store.keys_of(one), store.keys_of(other)) == (8, 2)
    for number in range(8, 20):
        store.check([(one, b"%d" % number)])
        assert store.keys_of(one) + store.keys_of(other) == len(store) <= 10
    clock.advance(1_000)
    store.sweep()
    assert (store.keys_of(one), store.keys_of(other), len(store)) == (0, 0, 0)
    assert not store._limits
