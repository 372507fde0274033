# Compiled: see docs/decisions/compiled.md
"""What workers have admitted without the lock of its count, and not counted yet: their debts.

Each worker has words of its own for them, which all read. So whoever counts under the lock knows what is still to be
counted, and whoever has no lock knows what the others have admitted in the same way.
"""

from __future__ import annotations

from typing import Final, final

from mypy_extensions import i64

from apigw.shared.loads import Loads
from apigw.shared.slots import Slots

DEBTS: Final = 512
"""Words of each worker. A name's debts are in one of them, by its mark; another name may have the same, and is then
thought to have debts, too."""

KNOWN_FOR: Final = 10_000_000
"""Microseconds for which debts are looked for after the last worker has said that it has some. Each says so four times
a second while it has, and one that hangs for so long was killed."""


@final
class Debts:
    """From the word ``base`` on; until when they are to be looked for is in the word ``until``. Times are whole
    microseconds of the monotonic clock.

    A debt is there before its worker looks at the count and admits, and until it is counted.
    """

    def __init__(self, words: memoryview, base: int, until: int, slots: Slots) -> None:
        self._until = words[until : until + 1]
        self._words = Loads(words, base, DEBTS, slots)

    def any(self, now: i64) -> bool:
        """Whether there may be some: mostly there are none, and nobody has to add them up."""
        until: i64 = self._until[0]
        return now < until

    def of(self, mark: i64) -> i64:
        """All workers' debts of a name, or more."""
        return self._words.total(mark % DEBTS)

    def add(self, worker: int, mark: i64, now: i64) -> None:
        self._change(worker, mark, 1)
        self.say(now)

    def say(self, now: i64) -> None:
        """That there are debts. Who says so later is not contradicted."""
        before: i64 = self._until[0]
        if before < now + KNOWN_FOR:
            self._until[0] = now + KNOWN_FOR

    def subtract(self, worker: int, mark: i64) -> None:
        self._change(worker, mark, -1)

    def clear(self, worker: int) -> None:
        """It is gone, and nobody knows any more what its debts were of."""
        self._words.clear(worker)

    def _change(self, worker: int, mark: i64, by: i64) -> None:
        row = self._words.row(worker)
        before: i64 = row[mark % DEBTS]
        row[mark % DEBTS] = before + by
