# Compiled: see docs/decisions/compiled.md
"""Locks between the workers: POSIX semaphores in the shared page, and who holds each.

Decided, with figures, in docs/decisions/shared-page.md.
"""

from __future__ import annotations

import ctypes
from _multiprocessing import SemLock
from collections.abc import Callable
from typing import Any, Final, final

from mypy_extensions import i64

from apigw.shared.slots import LOCK_MISSES, LOCK_WAITS, MOST_WORKERS, Slots

WORDS_OF_LOCK: Final = 8
"""A line of the cache: the ``sem_t`` (32 bytes with glibc and musl), who holds it, and room."""

PATIENCE: Final = 0.002
"""Seconds that a worker waits for a lock. What is done under one takes microseconds, and the worker serves nobody
else while it waits."""

TRIES: Final = 40
"""How often a lock that is taken is tried again before the worker sleeps: for some 4 µs, twice as long as a lock is
held. To sleep, and to be woken by who gives it back, takes 25 µs of both."""

UNMARKED: Final = 0.02
"""Seconds after which a lock that is taken, and says not by whom, is taken to be the dead worker's."""

STRUCTURE: Final = 1
"""``writes`` of what has no place of its own: all that the lock protects is emptied if its holder dies."""

MASTER: Final = MOST_WORKERS

_HOLDER: Final = 4
_WRITTEN: Final = 8
_WORKER: Final = 0xFF


def _semaphore(address: int) -> SemLock:
    """What is at an address, initialised by ``sem_init``, as CPython's object for it.

    Of the kind 1, which is released by anyone, and not only by who has taken it. Without a name CPython uses the
    address as it is. When the object ends, CPython would call ``sem_close``, which is for named ones (musl reads
    memory that is not its own then): so it never ends.
    """
    semaphore = SemLock._rebuild(address, 1, 1, None)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(semaphore))
    return semaphore


@final
class Locks:
    """``count`` locks from the word ``base`` on. ``address`` is that of word 0 in this process.

    Whoever needs several takes them in ascending order. Threads of a worker exclude one another, too.
    """

    def __init__(self, words: memoryview, base: int, count: int, address: int, slots: Slots) -> None:
        self.count = count
        # Indexed by the number of a lock: small numbers are objects already, which those of words would have to become.
        self._holders = words[base + _HOLDER : base + count * WORDS_OF_LOCK : WORDS_OF_LOCK]
        self._slots = slots
        self._semaphores = [_semaphore(address + 8 * (base + lock * WORDS_OF_LOCK)) for lock in range(count)]
        # Looking up a method of a semaphore takes as long as calling it.
        self._acquire: list[Any] = [semaphore.acquire for semaphore in self._semaphores]
        self._release: list[Any] = [semaphore.release for semaphore in self._semaphores]
        self.worker: i64 = MASTER

    def take(self, lock: i64) -> bool:
        """Take a lock. False if it is not free within ``PATIENCE``, which the worker's slot counts."""
        if not self._acquire[lock](False) and not self._wait(lock):
            return False
        self._holders[lock] = self.worker + 1
        return True

    def writes(self, lock: i64, what: i64) -> None:
        """From now on ``what`` is written, until the lock is given back. It is emptied if the worker dies before.

        A lock's owner says what its numbers mean. ``STRUCTURE`` is everything.
        """
        self._holders[lock] = (self.worker + 1) | what << _WRITTEN

    def give_back(self, lock: i64) -> None:
        self._holders[lock] = 0
        self._release[lock]()

    def close(self) -> None:
        """The page is about to be closed."""
        self._holders.release()

    def free_of(self, worker: int, empty: Callable[[int, int], object]) -> list[tuple[int, int]]:
        """Free the locks that a dead worker holds, and return each with what it was writing. Called by the master.

        ``empty(lock, what)`` empties what it was writing, while its lock is still taken. A worker may die before it has
        said that it holds a lock: so one that nobody holds, and that is not free within ``UNMARKED``, is freed too.
        """
        freed: list[tuple[int, int]] = []
        for lock in range(self.count):
            semaphore = self._semaphores[lock]
            held: int = self._holders[lock]
            if held:
                if held & _WORKER != worker + 1:
                    continue
                if held >> _WRITTEN:
                    empty(lock, held >> _WRITTEN)
                self._holders[lock] = 0
            elif semaphore.acquire(False) or semaphore.acquire(True, UNMARKED):
                semaphore.release()
                continue
            elif self._holders[lock]:  # it is a busy one, and a living worker holds it now
                continue
            semaphore.release()
            freed.append((lock, held >> _WRITTEN))
        return freed

    def _wait(self, lock: i64) -> bool:
        self._count(LOCK_WAITS)
        acquire = self._acquire[lock]
        for _ in range(TRIES):
            if acquire(False):
                return True
        if acquire(True, PATIENCE):
            return True
        self._count(LOCK_MISSES)
        return False

    def _count(self, word: i64) -> None:
        if self.worker != MASTER:
            self._slots.add(self.worker, word, 1)
