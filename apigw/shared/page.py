"""The page of memory that the workers of one gateway share.

It is a memfd: it has no name, is inherited by forked workers at the same address, outlives the execution of a new
program in the master (``Page.open``), and is gone with the last process that has it.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
from contextlib import suppress
from hashlib import blake2b
from platform import libc_ver, machine
from struct import Struct
from typing import Final

from attrs import frozen

from apigw.shared.cells import Cells
from apigw.shared.debts import DEBTS, Debts
from apigw.shared.loads import Loads
from apigw.shared.locks import WORDS_OF_LOCK, Locks
from apigw.shared.places import Places
from apigw.shared.records import Records
from apigw.shared.slots import MOST_WORKERS, WORDS_OF_SLOT, Slots
from apigw.shared.table import Table

VERSION = 7
"""Of the layout. It changes with any change of what is where, or of what it means."""

LIMITS_MEMORY: Final = 64 * 1024 * 1024
"""Bytes, by default."""

RECORDS_MEMORY: Final = 32 * 1024 * 1024
"""Bytes, of which only those are used that something was written to: more than 100,000 families of refresh tokens."""

KEYS_MEMORY: Final = 1024 * 1024
"""Bytes: some 500 keys. One more is made when a reload changes the key's id."""

NAMES_MEMORY: Final = 16 * 1024 * 1024
"""Bytes: more than a thousand names with 256 addresses each, the most that are used of one."""

DENIALS_MEMORY: Final = 16 * 1024 * 1024
"""Bytes: 4,096 denials of the longest texts."""

LOCKS: Final = 512

CIRCUITS: Final = 4096
CIRCUIT_SIZE: Final = 3280
"""Words of the cell of a circuit."""
TARGETS: Final = 16384
TARGET_SIZE: Final = 288
SERVICES: Final = 2048
"""With retries."""
SERVICE_SIZE: Final = 8
CELL_LOCKS: Final = 64
"""The last locks are those of circuits and targets, each for many."""

STRIPES: Final = 64
"""Of the table of limits. Of eight workers that each check 20,000 requests a second, 2 of 1,000 find a lock taken."""

_SECRET_SIZE = 32
_HEADER = 512
_LAYOUT, _WORKERS, _USED, _MEMORY, _RECORDS, _SECRET = range(6)
_CHANGES: Final = 16
_IN_DEBT: Final = 17
_BEGIN = Struct(f"=8sqqqq{_SECRET_SIZE}s")
_SLOTS = _HEADER
_LOCKS = _SLOTS + MOST_WORKERS * WORDS_OF_SLOT
_CIRCUITS = _LOCKS + LOCKS * WORDS_OF_LOCK
_TARGETS = _CIRCUITS + CIRCUITS * CIRCUIT_SIZE
_KEYS = _TARGETS + TARGETS * TARGET_SIZE
_NAMES = _KEYS + KEYS_MEMORY // 8
_DENIALS = _NAMES + NAMES_MEMORY // 8
_LOADS = _DENIALS + DENIALS_MEMORY // 8
_SERVICES = _LOADS + MOST_WORKERS * TARGETS
_RETRIES = _SERVICES + SERVICES * SERVICE_SIZE
_DEBTS = _RETRIES + MOST_WORKERS * 2 * SERVICES
_REST = _DEBTS + MOST_WORKERS * DEBTS


class LayoutChanged(Exception):
    """The memory is not a page of this layout: the program that made it was another. Begin with an empty one."""


@frozen
class Death:
    """What a worker left. ``locks`` are those that it held, each with what it was writing: 0 nothing, 1 any of what the
    lock protects, and else one entry.

    ``complete``: whether all is freed. Else another worker hangs with a lock: call ``died`` again in a while.
    """

    locks: list[tuple[int, int]]
    complete: bool


class Page:
    """``words`` are all of it as signed 64-bit numbers.

    ``descriptor`` is closed on exec: a master that executes itself makes it inheritable, and tells the new program its
    number. The size is fixed, and memory is used only where something was written.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        self.descriptor = descriptor
        self.size = size
        self._map = mmap.mmap(descriptor, size)
        self.words = memoryview(self._map).cast("q")
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        self.slots = Slots(self.words, _SLOTS, _USED)
        self.locks = Locks(self.words, _LOCKS, LOCKS, self._address, self.slots)
        self.circuits = self._cells(_CIRCUITS, CIRCUITS, CIRCUIT_SIZE)
        self.targets = self._cells(_TARGETS, TARGETS, TARGET_SIZE)
        limits: int = self.words[_MEMORY] // 64 * 8
        records: int = self.words[_RECORDS] // 64 * 8
        self.limits = Table(self.words, self.locks, 0, STRIPES, _REST, limits, self.secret)
        self.places = Places(self.limits)
        self.debts = Debts(self.words, _DEBTS, _IN_DEBT, self.slots)
        self._records = Table(self.words, self.locks, STRIPES, 1, _REST + limits, records, self.secret)
        self.records = Records(self._records)
        """Families of refresh tokens. A worker that dies while it writes one takes all with it."""
        self._keys = Table(self.words, self.locks, STRIPES + 1, 1, _KEYS, KEYS_MEMORY // 8, self.secret)
        self.keys = Records(self._keys)
        """What is generated once for all workers, and is to stay whatever befalls the other records."""
        self._names = Table(self.words, self.locks, STRIPES + 2, 1, _NAMES, NAMES_MEMORY // 8, self.secret)
        self.names = Records(self._names)
        """The addresses of the names of targets, as the worker that checks has looked them up."""
        self._denials = Table(self.words, self.locks, STRIPES + 3, 1, _DENIALS, DENIALS_MEMORY // 8, self.secret)
        self.denials = Records(self._denials)
        """Who is denied."""
        self.loads = Loads(self.words, _LOADS, TARGETS, self.slots)
        self.services = self._cells(_SERVICES, SERVICES, SERVICE_SIZE)
        """Services with retries: their names."""
        self.retries = Loads(self.words, _RETRIES, 2 * SERVICES, self.slots)
        """Two numbers for each of these: requests in flight, and how many of them are retries."""

    @classmethod
    def make(cls, workers: int, limits_memory: int = LIMITS_MEMORY, records_memory: int = RECORDS_MEMORY) -> Page:
        """An empty page. Raises ``OSError`` where it cannot be had."""
        size = -(-(_REST * 8 + limits_memory + records_memory) // mmap.PAGESIZE) * mmap.PAGESIZE
        descriptor = os.memfd_create("apigw", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(descriptor, size)
            # Made shorter, it would kill all that have it.
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            begin = (_layout(), workers, 0, limits_memory, records_memory, os.urandom(_SECRET_SIZE))
            os.pwrite(descriptor, _BEGIN.pack(*begin), 0)
            page = cls(descriptor, size)
            page._begin()
        except BaseException:
            os.close(descriptor)
            raise
        return page

    @classmethod
    def open(cls, descriptor: int) -> Page:
        """The page that the program before has made. Raises ``LayoutChanged``; the descriptor is the caller's then."""
        size = os.fstat(descriptor).st_size
        if os.pread(descriptor, 8, 8 * _LAYOUT) != _layout():
            raise LayoutChanged("the shared page has another layout")
        os.set_inheritable(descriptor, False)
        return cls(descriptor, size)

    @property
    def workers(self) -> int:
        """How many workers there are to be: the share of each where a lock cannot be had."""
        number: int = self.words[_WORKERS]
        return number

    @workers.setter
    def workers(self, number: int) -> None:
        self.words[_WORKERS] = number

    @property
    def limits_memory(self) -> int:
        """The bytes for the tables of limits, which cannot change."""
        number: int = self.words[_MEMORY]
        return number

    @property
    def denial_changes(self) -> int:
        """Another number after each change of ``denials``, so that nobody has to read them to know."""
        number: int = self.words[_CHANGES]
        return number

    def denials_changed(self) -> None:
        """Called after a change. Random, because two workers may add to the same number at once."""
        self.words[_CHANGES] = int.from_bytes(os.urandom(7), "big") + 1

    @property
    def secret(self) -> bytes:
        """32 random bytes, for keyed hashes."""
        return bytes(self.words[_SECRET : _SECRET + _SECRET_SIZE // 8])

    @property
    def worker(self) -> int:
        """The slot of this process."""
        return int(self.locks.worker)

    def become(self, worker: int, pid: int) -> None:
        """From now on this process is ``worker``, in a slot that no living process has. Called after the fork."""
        self.slots.claim(worker, pid)
        self.locks.worker = worker
        self.places.leave(worker)  # in case that the master could not free them all

    def died(self, worker: int) -> Death:
        """The process of a slot has ended, however: free what it held. Called by the master.

        As soon as it can, as others miss the locks; and before another process becomes this worker.
        """
        self.slots.clear(worker)
        self.loads.clear(worker)
        self.retries.clear(worker)
        self.debts.clear(worker)
        freed = self.locks.free_of(worker, self._empty)
        return Death(freed, self.places.leave(worker))

    def close(self) -> None:
        """Nothing of the page can be used after it. The memory is given back when nobody has a part of it any more."""
        self.locks.close()
        self.words.release()
        with suppress(BufferError):
            self._map.close()
        os.close(self.descriptor)

    def _cells(self, base: int, count: int, size: int) -> Cells:
        return Cells(self.words, base, count, size, self.locks, LOCKS - CELL_LOCKS, CELL_LOCKS, self.secret)

    def _begin(self) -> None:
        initialise = ctypes.CDLL(None, use_errno=True).sem_init
        initialise.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_uint)
        for lock in range(LOCKS):
            if initialise(self._address + 8 * (_LOCKS + lock * WORDS_OF_LOCK), True, 1):
                raise OSError(ctypes.get_errno(), "no semaphore can be made in shared memory")

    def _empty(self, lock: int, what: int) -> None:
        if lock < STRIPES:
            self.limits.empty(lock, what)
        elif lock == STRIPES:
            self._records.empty(lock, what)
        elif lock == STRIPES + 1:
            self._keys.empty(lock, what)
        elif lock == STRIPES + 2:
            self._names.empty(lock, what)
        elif lock == STRIPES + 3:
            self._denials.empty(lock, what)


def _layout() -> bytes:
    """Eight bytes that are equal for programs that can share a page: a ``sem_t`` is a matter of the C library."""
    return blake2b(repr((VERSION, libc_ver(), machine())).encode(), digest_size=8).digest()
