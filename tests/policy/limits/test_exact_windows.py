"""Exact windows by numbers of the caller's own."""

from __future__ import annotations

from twisted.internet.task import Clock

from apigw.policy.limits.exact_windows import ExactWindows
from apigw.policy.limits.memory import MemoryStore


def test_so_many_pass_in_any_window() -> None:
    """Then it says how long to wait, for each key and each pair of numbers apart."""
    clock = Clock()
    allow = ExactWindows(MemoryStore(clock, clock.seconds))
    assert [allow(b"one", 2, 60.0) for _ in range(3)] == [None, None, 60.0]
    assert allow(b"other", 2, 60.0) is None
    assert allow(b"one", 3, 10.0) is None
    clock.advance(40)
    assert allow(b"one", 2, 60.0) == 20.0
    clock.advance(20)
    assert allow(b"one", 2, 60.0) is None
