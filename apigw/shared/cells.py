# Compiled: see docs/decisions/compiled.md
"""Cells of the shared page, each for one thing that has a name: a circuit, or a target.

Unlike the entries of a table of limits, a cell is looked for when a configuration is loaded, and kept by who found it.
What its words mean is a matter of its owner.
"""

from __future__ import annotations

from hashlib import blake2b
from struct import Struct
from typing import Final, final

from mypy_extensions import i64

from apigw.shared.locks import Locks

FIRST: Final = 3
"""The first word of a cell that is its owner's. Those before are its name, and when it was last in use."""

FORGOTTEN: Final = 600.0
"""Seconds after which a cell that nobody says he uses may become another's. Workers say so twice a second; one that has
not for so long was ended by the master."""

_SEEN: Final = 2
_REACH: Final = 64
"""So many cells are looked at for a name."""
_TRIES: Final = 10
"""Times that the lock is waited for, when a configuration is loaded."""

_DIGEST: Final = Struct("=qq")


@final
class Cells:
    """``count`` cells of ``size`` words from the word ``base`` on, under ``shared`` locks from ``first_lock`` on.

    The memory of a cell is used only when it is somebody's: where there are none, nobody writes or reads.
    """

    def __init__(
        self,
        words: memoryview,
        base: int,
        count: int,
        size: int,
        locks: Locks,
        first_lock: int,
        shared: int,
        secret: bytes,
    ) -> None:
        self.words = words
        self.locks = locks
        self.size: i64 = size
        self._base: i64 = base
        self._count: i64 = count
        self._first_lock: i64 = first_lock
        self._shared: i64 = shared
        self._secret = secret

    def claim(self, name: bytes, now: float) -> int:
        """The first word of the cell of ``name``, which is in use from ``now`` on. A new one is all zeros.

        0 if there is no room, or if its lock cannot be had.
        """
        first, second = _DIGEST.unpack(blake2b(name, digest_size=16, key=self._secret).digest())
        # 0 and 0 are the name of an empty cell.
        first = first or 1
        lock = int(self._first_lock)
        for _ in range(_TRIES):
            if self.locks.take(lock):
                try:
                    return self._claim(first, second, now)
                finally:
                    self.locks.give_back(lock)
        return 0

    def lock_of(self, cell: int) -> int:
        """The lock under which a cell is written."""
        return int(self._first_lock + (cell - self._base) // self.size % self._shared)

    def number_of(self, cell: int) -> int:
        """Which of them it is, from 0."""
        return int((cell - self._base) // self.size)

    def use(self, cell: int, now: float) -> None:
        """Say that the cell is in use."""
        self.words[cell + _SEEN] = int(now)

    def _claim(self, first: int, second: int, now: float) -> int:
        words = self.words
        free = 0
        for step in range(min(_REACH, int(self._count))):
            cell = int(self._base + (first + step) % int(self._count) * self.size)
            name: int = words[cell]
            if name == first and words[cell + 1] == second:
                if now - words[cell + _SEEN] > FORGOTTEN:
                    self._begin(cell, first, second)
                self.use(cell, now)
                return cell
            if not free and (not name or now - words[cell + _SEEN] > FORGOTTEN):
                free = cell
            if not name:
                break
        if free:
            self._begin(free, first, second)
            self.use(free, now)
        return free

    def _begin(self, cell: int, first: int, second: int) -> None:
        """Empty a cell. If this worker dies meanwhile, the cell has no name, or is empty."""
        words = self.words
        if words[cell]:
            # What was another's may be all over it. A new one is as empty as the system has made it.
            words[cell] = 1
            words[cell + 1 : cell + int(self.size)] = memoryview(bytes(8 * (int(self.size) - 1))).cast("q")
        words[cell + 1] = second
        words[cell] = first
