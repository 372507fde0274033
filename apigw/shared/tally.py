# Compiled: see docs/decisions/compiled.md
"""A number that each process counts for itself, and its sum over all of them."""

from __future__ import annotations

from typing import Final, final

from mypy_extensions import i64

from apigw.shared.loads import Loads
from apigw.shared.slots import Slots

LOOK: Final = 0.001
"""Seconds between two looks at the numbers of the others, while the bound is far."""

FASTEST: Final = 200
"""More than a worker adds between two looks: an exchange takes 10 µs at least."""


class Tally:
    """Of a process that is alone."""

    def __init__(self) -> None:
        self.own = 0
        """Of this process."""

    def total(self) -> int:
        """The sum over all processes."""
        return self.own

    def one_more(self, most: int, now: float) -> bool:
        """Add one. Whether the sum over all processes is more than ``most`` with it. ``now`` is in seconds."""
        self.own += 1
        return self.own > most

    def one_less(self) -> None:
        self.own -= 1

    def change(self, by: int) -> None:
        """Add ``by``, which may be negative, and tell the others."""
        self.own += by

    def add(self, by: int) -> int:
        """Returns the sum over all processes, with this."""
        self.change(by)
        return self.total()

    def subtract(self, by: int) -> None:
        self.change(-by)


@final
class SharedTally(Tally):
    """Of a worker, in a word of its slot. That of a worker which dies is gone with it.

    Of two that add at the same moment, each sees the other's, or one does: a bound on the sum may be kept too well by
    as many as there are workers, and is exceeded by no more.
    """

    def __init__(self, slots: Slots, worker: int, word: int) -> None:
        super().__init__()
        self._slots = slots
        self._line = slots.line(worker)
        self._column = slots.column(word)
        self._word = word
        self._looked = -1.0
        self._others = 0
        """What they had together when they were looked at."""
        self._since = 0
        """What they have added since, at most."""

    def one_more(self, most: int, now: float) -> bool:
        own = self.own + 1
        self.own = own
        self._line[self._word] = own
        if now - self._looked >= LOOK or own + self._others + self._since > most:
            self._looked = now
            workers = self._slots.used
            self._others = self._sum(workers) - own
            self._since = FASTEST * workers
        return own + self._others > most

    def one_less(self) -> None:
        own = self.own - 1
        self.own = own
        self._line[self._word] = own

    def change(self, by: int) -> None:
        own = self.own + by
        self.own = own
        self._line[self._word] = own

    def total(self) -> int:
        return self._sum(self._slots.used)

    def _sum(self, workers: i64) -> int:
        column = self._column
        total: i64 = 0
        for worker in range(workers):
            number: i64 = column[worker]
            total += number
        return int(total)


@final
class LoadTally(Tally):
    """Of a worker, in a number of its row of ``loads``, to which others in this process may add as well."""

    def __init__(self, loads: Loads, worker: int, number: int) -> None:
        super().__init__()
        self._loads = loads
        self._row = loads.row(worker)
        self._number = number

    def total(self) -> int:
        return self._loads.total(self._number)

    def one_more(self, most: int, now: float) -> bool:
        return self.add(1) > most

    def one_less(self) -> None:
        self.subtract(1)

    def change(self, by: int) -> None:
        self.own += by
        before: int = self._row[self._number]
        self._row[self._number] = before + by
