"""The store in memory: what it keeps, for how long, and what leaves."""

from __future__ import annotations

from math import ceil

import pytest
from support.limits import NOON, limit
from twisted.internet.task import Clock

from apigw.policy.limits.local import SWEEP_INTERVAL
from apigw.policy.limits.memory import MemoryStore


def store(max_keys: int = 1_000_000, clock: Clock | None = None) -> MemoryStore:
    """One that tests tell the time at each check, or by ``clock``; Unix time is the same."""
    clock = clock or Clock()
    return MemoryStore(clock, clock.seconds, max_keys)


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
    memory, one = store(clock=clock), limit(5, 60, algorithm)
    memory.start()
    for number in range(2_000):
        memory.check([(one, b"%d" % number)])
    clock.pump([SWEEP_INTERVAL] * 236)
    assert memory.check([(one, b"1")]).remaining == 3
    clock.pump([SWEEP_INTERVAL] * 2 * 236)
    assert len(memory) <= 1
    memory.stop()
    assert not clock.getDelayedCalls()


@pytest.mark.parametrize(("algorithm", "ends"), [("log", 60), ("counter", 120)])
def test_sweeping_forgets_nothing_that_still_counts(algorithm: str, ends: int) -> None:
    """Nobody is let through early because the store was tidied: a counter weighs for a window after its own."""
    memory, one = store(10), limit(100, 60, algorithm)
    for _ in range(100):
        memory.check([(one, b"x")], NOON)
    memory.sweep(NOON + ends - 0.000001)
    assert len(memory) == 1
    assert memory.peek([(one, b"x")], NOON + ends - 0.5).remaining == (0 if algorithm == "log" else 99)
    memory.sweep(NOON + ends)
    assert len(memory) == 0


def test_keys_are_counted_by_limit() -> None:
    """Operators are told what is kept, and a limit of which nothing is kept is forgotten."""
    clock = Clock()
    clock.advance(1_000_000)
    memory = store(10, clock)
    one, other = limit(5, endpoint="/one"), limit(2_000, endpoint="/other")
    for number in range(8):
        memory.check([(one, b"%d" % number), (other, b"%d" % (number % 2))])
        memory.check([(one, b"%d" % number)])
    assert (memory.keys_of(one), memory.keys_of(other)) == (8, 2)
    for number in range(8, 20):
        memory.check([(one, b"%d" % number)])
        assert memory.keys_of(one) + memory.keys_of(other) == len(memory) <= 10
    clock.advance(1_000)
    memory.sweep()
    assert (memory.keys_of(one), memory.keys_of(other), len(memory)) == (0, 0, 0)
    assert not memory._limits


class Clocks:
    """A monotonic clock, and Unix time, which can be set."""

    def __init__(self) -> None:
        self.monotonic = Clock()
        self.monotonic.advance(5_000.25)
        self._ahead = NOON - 5_000.25

    def now(self) -> float:
        return self.monotonic.seconds() + self._ahead

    def step(self, seconds: float) -> None:
        """As an administrator or a time server does."""
        self._ahead += seconds


@pytest.mark.parametrize("step", [60, -60, 3600, -3600])
@pytest.mark.parametrize("algorithm", ["log", "counter"])
def test_a_wall_clock_that_is_set_neither_frees_nor_blocks(algorithm: str, step: int) -> None:
    """What has been counted stays so for its window; when that ends is said in Unix time, as it is by then."""
    clocks = Clocks()
    memory = MemoryStore(clocks.monotonic, clocks.now, 10)
    checks = [(limit(2, 60, algorithm), b"x")]
    ends = 60.0 if algorithm == "log" else 60.0 - 5_000.25 % 60
    first = memory.check(checks)
    assert (first.remaining, first.reset) == (1, NOON + ceil(ends))
    clocks.step(step)
    clocks.monotonic.advance(1)
    assert memory.peek(checks).reset == NOON + step + ceil(ends)
    assert memory.check(checks).remaining == 0
    refused = memory.check(checks)
    assert (refused.allowed, refused.reset) == (False, NOON + step + ceil(ends))
    assert 1 <= refused.retry_after <= 90
    clocks.monotonic.advance(refused.retry_after)
    assert memory.check(checks).allowed
    clocks.monotonic.advance(120)
    memory.sweep()
    assert len(memory) == 0
