"""The store in memory: what it keeps, for how long, and what leaves."""

from __future__ import annotations

import pytest
from support.limits import NOON, limit
from twisted.internet.task import Clock

from apigw.policy.limits.memory import SWEEP_INTERVAL, MemoryStore


def store(max_keys: int = 1_000_000) -> MemoryStore:
    return MemoryStore(Clock(), max_keys)


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


def test_keys_are_counted_by_limit() -> None:
    """Operators are told what is kept, and a limit of which nothing is kept is forgotten."""
    clock = Clock()
    clock.advance(1_000_000)
    store = MemoryStore(clock, max_keys=10)
    one, other = limit(5, endpoint="/one"), limit(2_000, endpoint="/other")
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
