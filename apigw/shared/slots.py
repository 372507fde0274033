# Compiled: see docs/decisions/compiled.md
"""Slots of the shared page: numbers of each worker that only it writes, and that all workers read without a lock.

A word has 64 bits and is written by one store of the machine, so that no reader sees half of a number.
"""

from __future__ import annotations

from typing import Final, final

from mypy_extensions import i64

MOST_WORKERS: Final = 128
"""At most 64 workers, and as many again: during an upgrade the old ones drain while the new ones serve."""

WORDS_OF_SLOT: Final = 32
"""256 bytes, so that no two workers write to one line of the cache, or to two that are fetched together."""

STALE: Final = 3_000
"""Milliseconds after which a worker without a tick is left out: it hangs, or was stopped."""

NOBODY: Final = 2**62
"""What ``least_connections`` says if no worker is ready: a number above any count, so that nobody waits for others."""

PID: Final = 0
READY: Final = 1
"""1 while it accepts connections."""
CONNECTIONS: Final = 2
"""Of clients, at present."""
TICK: Final = 3
"""Monotonic time of its last tick, in milliseconds."""
LOCK_WAITS: Final = 4
"""How often a lock of the page was not free at once. Never cleared, as the next two."""
LOCK_MISSES: Final = 5
"""How often it was not free within ``locks.PATIENCE``."""
WITHOUT_ROOM: Final = 6
"""How often a table had no room for what must not leave, as places."""
IN_FLIGHT: Final = 7
"""Exchanges, at present."""
BUFFERED: Final = 8
"""Bytes of bodies of requests that are buffered, at present."""
AWAY: Final = 9
"""1 while it has no file for another connection, and leaves them to the others."""

_KEPT: Final = (LOCK_WAITS, LOCK_MISSES, WITHOUT_ROOM)


@final
class Slots:
    """The slots, in ``words`` (signed 64-bit) from ``base`` on. The word ``used`` holds how many have been used.

    Times are those of CLOCK_MONOTONIC, as the reactor's, in milliseconds: it is the same in all processes of a machine.
    """

    def __init__(self, words: memoryview, base: int, used: int) -> None:
        self._words = words
        self._base: i64 = base
        self._used = used

    @property
    def used(self) -> int:
        """How many slots have been used: no worker has a higher number."""
        number: int = self._words[self._used]
        return number

    def claim(self, worker: int, pid: int) -> None:
        """A new worker begins with zeros; its counters continue those of the last one in its slot."""
        self.clear(worker)
        self._words[self._base + worker * WORDS_OF_SLOT + PID] = pid
        if worker >= self._words[self._used]:
            self._words[self._used] = worker + 1

    def clear(self, worker: int) -> None:
        """It is gone. Called by the master."""
        if not 0 <= worker < MOST_WORKERS:
            raise ValueError(f"there is no slot {worker}")
        at = self._base + worker * WORDS_OF_SLOT
        for word in range(WORDS_OF_SLOT):
            if word not in _KEPT:
                self._words[at + word] = 0

    def get(self, worker: i64, word: i64) -> int:
        number: int = self._words[self._base + worker * WORDS_OF_SLOT + word]
        return number

    def line(self, worker: int) -> memoryview:
        """The words of one slot."""
        at = int(self._base) + worker * WORDS_OF_SLOT
        return self._words[at : at + WORDS_OF_SLOT]

    def column(self, word: int) -> memoryview:
        """One word of each slot."""
        at = int(self._base) + word
        return self._words[at : at + MOST_WORKERS * WORDS_OF_SLOT : WORDS_OF_SLOT]

    def put(self, worker: i64, word: i64, number: int) -> None:
        """Called by the worker itself."""
        self._words[self._base + worker * WORDS_OF_SLOT + word] = number

    def add(self, worker: i64, word: i64, by: int) -> None:
        """Called by the worker itself."""
        at = self._base + worker * WORDS_OF_SLOT + word
        before: int = self._words[at]
        self._words[at] = before + by

    def total(self, word: i64) -> int:
        """The sum over all workers, also of those that are gone where the word is never cleared."""
        words, at = self._words, self._base + word
        total = 0
        used: i64 = words[self._used]
        for _ in range(used):
            number: int = words[at]
            total += number
            at += WORDS_OF_SLOT
        return total

    def ready(self, now: int) -> list[int]:
        """The workers that are ready and not stale at ``now``, in ascending order."""
        used: int = self._words[self._used]
        return [worker for worker in range(used) if self._serves(self._base + worker * WORDS_OF_SLOT, now)]

    def checker(self, now: int) -> int:
        """The worker that does what is done once for the machine: the lowest that is ready and not stale.

        While all of them drain, the lowest that is not stale; -1 if none is.
        """
        words, at = self._words, self._base
        alive = -1
        used: i64 = words[self._used]
        for worker in range(used):
            if self._serves(at, now):
                return worker
            tick: int = words[at + TICK]
            if alive < 0 and words[at + PID] and now - tick <= STALE:
                alive = worker
            at += WORDS_OF_SLOT
        return alive

    def least_connections(self, now: int) -> int:
        """The smallest number of connections of the workers that are ready, not stale and not away, or ``NOBODY``."""
        words, at = self._words, self._base
        least = NOBODY
        used: i64 = words[self._used]
        for _ in range(used):
            # In this order, as most have more connections than the least: one word is read of these.
            connections: int = words[at + CONNECTIONS]
            if connections < least and self._serves(at, now) and not words[at + AWAY]:
                least = connections
            at += WORDS_OF_SLOT
        return least

    def _serves(self, at: i64, now: int) -> bool:
        words = self._words
        if not words[at + READY]:
            return False
        tick: int = words[at + TICK]
        return now - tick <= STALE
