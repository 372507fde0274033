"""The deadline list: one tick for all that is waited for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.logged import failures, logged
from twisted.internet.task import Clock

from apigw.wire.deadlines import NEVER, Deadlines


class Wait:
    def __init__(self, deadline: float, then: Callable[[Wait], None] = lambda wait: None) -> None:
        self.deadline = deadline
        self.passed = 0
        self._then = then

    def deadline_passed(self) -> None:
        self.passed += 1
        self._then(self)


def running(*waits: Wait) -> tuple[Clock, Deadlines]:
    clock = Clock()
    deadlines = Deadlines(clock)
    for wait in waits:
        deadlines.watch(wait)
    deadlines.start()
    return clock, deadlines


def test_never_early_and_a_tick_late_at_most() -> None:
    """A timeout of ten seconds takes ten seconds."""
    waits = [Wait(10 + number / 100) for number in range(100)]
    clock, _ = running(*waits)
    for _ in range(1200):
        clock.advance(0.01)
        for wait in waits:
            assert not wait.passed or clock.seconds() >= wait.deadline
            assert wait.passed or clock.seconds() < wait.deadline + 0.11


def test_as_long_as_it_is_not_moved_it_passes_again() -> None:
    """Whoever ignores a deadline is reminded."""
    again, moved, never = Wait(1), Wait(1, lambda wait: setattr(wait, "deadline", NEVER)), Wait(NEVER)
    clock, _ = running(again, moved, never)
    clock.pump([0.1] * 20)
    assert again.passed == pytest.approx(11, abs=1)
    assert (moved.passed, never.passed) == (1, 0)


def test_who_is_forgotten_in_the_same_tick_is_left_alone() -> None:
    """What one gives up may end others, which are then no longer late."""
    second = Wait(1)
    clock, deadlines = running()
    deadlines.watch(Wait(1, lambda wait: (deadlines.forget(wait), deadlines.forget(second))[0]))
    deadlines.watch(second)
    clock.pump([0.1] * 20)
    assert second.passed == 0


def test_who_is_moved_in_the_same_tick_is_left_alone() -> None:
    """The same, for one whose deadline moves."""
    second = Wait(1)
    clock, deadlines = running()
    deadlines.watch(Wait(1, lambda wait: setattr(second, "deadline", NEVER)))
    deadlines.watch(second)
    clock.pump([0.1] * 20)
    assert second.passed == 0


def test_a_fault_in_one_does_not_stop_the_others() -> None:
    """All timeouts of the process hang on one loop: it outlives any of them."""

    def fail(wait: Wait) -> None:
        wait.deadline = NEVER
        raise RuntimeError("a bug")

    other = Wait(2)
    clock, _ = running(Wait(1, fail), other)
    with logged() as events:
        clock.pump([0.1] * 30)
    assert other.passed
    assert failures(events) == ["a bug"]


def test_stop() -> None:
    """After the end nothing is late."""
    wait = Wait(1)
    clock, deadlines = running(wait)
    deadlines.stop()
    deadlines.stop()
    clock.pump([0.1] * 20)
    assert wait.passed == 0
    assert clock.getDelayedCalls() == []
