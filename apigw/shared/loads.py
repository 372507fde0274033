# Compiled: see docs/decisions/compiled.md
"""How many requests each worker has in flight with each target or service: a row of numbers for each worker, which
only it writes.

So it is counted without locks, and no two workers write to one line of the cache.
"""

from __future__ import annotations

from typing import final

from mypy_extensions import i64

from apigw.shared.slots import Slots


@final
class Loads:
    """``targets`` words for each worker, from the word ``base`` on."""

    def __init__(self, words: memoryview, base: int, targets: int, slots: Slots) -> None:
        self._words = words
        self._base: i64 = base
        self._targets: i64 = targets
        self._slots = slots

    def row(self, worker: int) -> memoryview:
        """A word for each target: how many requests this worker has in flight, which it writes itself."""
        begin, size = int(self._base) + worker * int(self._targets), int(self._targets)
        return self._words[begin : begin + size]

    def total(self, target: i64) -> int:
        """The sum over all workers."""
        words = self._words
        at = self._base + target
        total: i64 = 0
        used: i64 = self._slots.used
        for _ in range(used):
            number: i64 = words[at]
            total += number
            at += self._targets
        return total

    def of_others(self, worker: i64, target: i64) -> int:
        """The sum over all workers but this one."""
        words = self._words
        at = self._base + target
        total: i64 = 0
        used: i64 = self._slots.used
        for each in range(used):
            if each != worker:
                number: i64 = words[at]
                total += number
            at += self._targets
        return total

    def clear(self, worker: int) -> None:
        """Nothing of it is in flight: it is gone, or begins."""
        self.row(worker)[:] = memoryview(bytes(8 * int(self._targets))).cast("q")
