"""Limits as arithmetic: integers in, integers out."""

from __future__ import annotations

from collections import deque
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.limits import limit

from apigw.policy.limits.arithmetic import LARGEST_LIMIT, LONGEST_WINDOW, SECOND, CounterLimit, Limit, LogLimit, State


def stamps(one: Limit, times: list[int]) -> list[int]:
    """Of requests at these microseconds, those that pass, by the decision code alone."""
    state: State | None = None
    passed = []
    for now in times:
        standing = one.look(state, now)
        if standing.used < one.limit:
            state = one.count(state, standing)
            passed.append(standing.clock)
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
    state: State | None = None
    for now in data.draw(bursts(span)):
        standing = one.look(state, now)
        window, elapsed = divmod(now, span)
        current = windows.get(window, 0)
        weighted = windows.get(window - 1, 0) * (1 - Fraction(elapsed, span))
        assert (standing.used < number) == (weighted + current + 1 <= number)
        if standing.used < number:
            state = one.count(state, standing)
            windows[window] = current + 1


@given(st.data(), st.integers(1, 7), st.integers(2, 50), st.sampled_from(["log", "counter"]))
def test_a_refusal_names_the_first_moment_at_which_a_request_passes(
    data: st.DataObject, number: int, span: int, algorithm: str
) -> None:
    """Whoever waits as told passes, and nobody is told to wait longer than needed."""
    one = limit(number, span / SECOND, algorithm)
    state: State | None = None
    for now in data.draw(bursts(span)):
        standing = one.look(state, now)
        if standing.used < number:
            state = one.count(state, standing)
        else:
            assert one.look(state, standing.passes).used < number
            assert one.look(state, standing.passes - 1).used >= number
            assert standing.passes > now


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
    standing = one.told(clock, current, previous)
    elapsed = clock % one.span
    assert (standing.used < number) == (previous * (1 - Fraction(elapsed, one.span)) + current + 1 <= number)
    assert standing.resets == clock - elapsed + one.span
    assert standing.used < number or standing.passes > clock


def test_auto_keeps_a_log_up_to_a_thousand_and_counters_above() -> None:
    """A limit of a million a day does not keep a million stamps."""
    assert isinstance(limit(1_000), LogLimit)
    daily = limit(1_000_000, 86_400)
    assert isinstance(daily, CounterLimit)
    state: State | None = None
    for at in range(5_000):
        state = daily.count(state, daily.look(state, at * SECOND))
    assert isinstance(state, int)


def test_a_long_log_stays_exact_while_it_is_trimmed() -> None:
    """A busy key of a large exact limit is right for hours, and holds little more than its window."""
    one = limit(1_000, 10)
    state: State | None = None
    passed = deque([-(10**9)] * 1_000)
    for now in range(0, 60 * SECOND, 7_001):
        standing = one.look(state, now)
        assert (standing.used < 1_000) == (passed[0] + 10 * SECOND <= now)
        if standing.used < 1_000:
            state = one.count(state, standing)
            passed.append(now)
            passed.popleft()
    assert state is not None
    assert len(state) <= 1_126


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


@pytest.mark.parametrize(
    ("number", "window"),
    [(0, 60), (-1, 60), (LARGEST_LIMIT + 1, 60), (1, 0), (1, -1), (1, LONGEST_WINDOW * 1.01), (1, float("nan"))],
)
def test_limits_that_cannot_be_kept_are_refused(number: int, window: float) -> None:
    """A quota of nothing, or one beyond exact arithmetic, is an error and not a surprise."""
    with pytest.raises(ValueError, match=r"limit|window"):
        limit(number, window)
