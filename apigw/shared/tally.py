# Compiled: see docs/decisions/compiled.md
"""A number that each process counts for itself, and its sum over all of them."""

from __future__ import annotations

from typing import final

from mypy_extensions import i64

from apigw.shared.loads import Loads
from apigw.shared.slots import Slots


class Tally:
    """Of a process that is alone."""

    def __init__(self) -> None:
        self.own = 0
        """Of this process. Who changes it calls ``total`` next, unless this process is ``alone``."""
        self.alone = True

    def total(self) -> int:
        """Tell the others, and return the sum over all processes."""
        return self.own

    def add(self, by: int) -> int:
        """Returns the sum over all processes, with this."""
        self.own += by
        return self.total()

    def subtract(self, by: int) -> None:
        self.own -= by
        self.total()


@final
class SharedTally(Tally):
    """Of a worker, in a word of its slot. That of a worker which dies is gone with it.

    Of two that add at the same moment, each sees the other's, or one does: a bound on the sum may be kept too well by
    as many as there are workers, and is exceeded by no more.
    """

    def __init__(self, slots: Slots, worker: int, word: int) -> None:
        super().__init__()
        self.alone = False
        self._slots = slots
        self._worker: i64 = worker
        self._word: i64 = word

    def total(self) -> int:
        self._slots.put(self._worker, self._word, self.own)
        return self._slots.total(self._word)


@final
class LoadTally(Tally):
    """Of a worker, in a number of its row of ``loads``, to which others in this process may add as well."""

    def __init__(self, loads: Loads, worker: int, number: int) -> None:
        super().__init__()
        self.alone = False
        self._loads = loads
        self._worker: i64 = worker
        self._number: i64 = number

    def total(self) -> int:
        return self._loads.total(self._number)

    def add(self, by: int) -> int:
        self.own += by
        self._loads.add(self._worker, self._number, by)
        return self._loads.total(self._number)

    def subtract(self, by: int) -> None:
        self.own -= by
        self._loads.add(self._worker, self._number, -by)
