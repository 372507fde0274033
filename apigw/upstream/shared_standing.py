# Compiled: see docs/decisions/compiled.md
"""How a target does, as all workers know it, in the page that they share (docs/decisions/shared-circuits.md)."""

from __future__ import annotations

from typing import Final, final

from mypy_extensions import i64

from apigw.shared.page import Page
from apigw.upstream.shared_target import COLUMNS, STANDING
from apigw.upstream.standing import LONGEST, PROBE_LEASE, Standing, next_length

_FAILURES: Final = STANDING
_UNTIL: Final = STANDING + 1
"""This and the following words are floating-point numbers."""
_ENDED: Final = STANDING + 2
_LENGTH: Final = STANDING + 3
_PROBING_UNTIL: Final = STANDING + 4


@final
class SharedStanding(Standing):
    """In words of the target's cell of ``page.targets``.

    What changes it takes the lock, which is as rare as failures are. Without it nothing changes, so that no two workers
    do the same: the next failure tries again.
    """

    def __init__(self, first: float, page: Page, cell: int) -> None:
        super().__init__(first)
        self._locks = page.locks
        self._lock: i64 = page.targets.lock_of(cell)
        self._words = page.targets.words[cell : cell + COLUMNS]
        self._times = self._words.cast("B").cast("d")

    @property
    def until(self) -> float:
        until: float = self._times[_UNTIL]
        return until

    def lately(self, now: float) -> bool:
        times = self._times
        length: float = times[_LENGTH]
        ended: float = times[_ENDED]
        return length > 0 and now - ended <= LONGEST

    def succeeded(self) -> None:
        # Without the lock: if another request fails in this instant, either may be the first.
        if self._words[_FAILURES]:
            self._words[_FAILURES] = 0

    def failed(self) -> int:
        if not self._locks.take(self._lock):
            return 0
        failures: int = self._words[_FAILURES]
        self._words[_FAILURES] = failures + 1
        self._locks.give_back(self._lock)
        return failures + 1

    def eject(self, now: float) -> float:
        times = self._times
        if not self._locks.take(self._lock):
            return self.until
        until: float = times[_UNTIL]
        if until <= now:
            length = next_length(self.first, times[_LENGTH], times[_ENDED], now)
            until = now + length
            times[_LENGTH] = length
            times[_ENDED] = until
            times[_PROBING_UNTIL] = 0.0
            self._words[_FAILURES] = 0
            times[_UNTIL] = until
        self._locks.give_back(self._lock)
        return until

    def take_probe(self, now: float) -> bool:
        times = self._times
        if now < times[_PROBING_UNTIL] or not self._locks.take(self._lock):
            return False
        taken = now >= times[_PROBING_UNTIL]
        if taken:
            times[_PROBING_UNTIL] = now + PROBE_LEASE
        self._locks.give_back(self._lock)
        return taken

    def readmit(self) -> None:
        self._words[_FAILURES] = 0
        self._times[_UNTIL] = 0.0
