"""Exact windows by numbers of the caller's own."""

from __future__ import annotations

from twisted.internet.task import Clock

from apigw.policy.limits.arithmetic import LARGEST_LIMIT
from apigw.policy.limits.exact_windows import ExactWindows
from apigw.policy.limits.memory import MemoryStore


def test_so_many_pass_in_any_window() -> None:
    """Then it says how long to wait, for each key and each pair of numbers apart."""
    clock = Clock()
    windows = ExactWindows(MemoryStore(clock, clock.seconds))

    def allow(key: bytes, limit: int, window: float) -> float | None:
        return windows([(key, limit)], window)

    assert [allow(b"one", 2, 60.0) for _ in range(3)] == [None, None, 60.0]
    assert allow(b"other", 2, 60.0) is None
    assert allow(b"one", 3, 10.0) is None
    clock.advance(40)
    assert allow(b"one", 2, 60.0) == 20.0
    clock.advance(20)
    assert allow(b"one", 2, 60.0) is None


def test_who_is_refused_counts_nowhere() -> None:
    """So nobody fills the store with keys that he invents, and pushes those of others out."""
    clock = Clock()
    store = MemoryStore(clock, clock.seconds)
    windows = ExactWindows(store)
    answers = [windows([(b"invented %d" % number, 1), (b"address", 2)], 60.0) for number in range(10)]
    assert answers == [None, None, *[60.0] * 8]
    assert len(store) == 3


def test_no_number_is_too_large() -> None:
    """An address may have several times the most that a limit can be."""
    clock = Clock()
    assert ExactWindows(MemoryStore(clock, clock.seconds))([(b"address", 6 * LARGEST_LIMIT)], 60.0) is None
