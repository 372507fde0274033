"""The page of memory that the workers of one gateway share.

It is a memfd: it has no name, is inherited by forked workers at the same address, outlives the execution of a new
program in the master (``Page.open``), and is gone with the last process that has it.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
from hashlib import blake2b
from platform import libc_ver, machine
from struct import Struct
from typing import Final

from attrs import frozen

from apigw.shared.locks import WORDS_OF_LOCK, Locks
from apigw.shared.places import Places
from apigw.shared.slots import MOST_WORKERS, WORDS_OF_SLOT, Slots
from apigw.shared.table import Table

VERSION = 1
"""Of the layout. It changes with any change of what is where, or of what it means."""

LIMITS_MEMORY: Final = 64 * 1024 * 1024
"""Bytes, by default."""

LOCKS: Final = 512

STRIPES: Final = 64
"""Of the table of limits. Of eight workers that each check 20,000 requests a second, 2 of 1,000 find a lock taken."""

_SECRET_SIZE = 32
_HEADER = 512
_LAYOUT, _WORKERS, _USED, _MEMORY, _SECRET = range(5)
_BEGIN = Struct(f"=8sqqq{_SECRET_SIZE}s")
_SLOTS = _HEADER
_LOCKS = _SLOTS + MOST_WORKERS * WORDS_OF_SLOT
_REST = _LOCKS + LOCKS * WORDS_OF_LOCK


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
        limits: int = self.words[_MEMORY] // 8
        self.limits = Table(self.words, self.locks, 0, STRIPES, _REST, limits, self.secret)
        self.places = Places(self.limits)

    @classmethod
    def make(cls, workers: int, limits_memory: int = LIMITS_MEMORY) -> Page:
        """An empty page. Raises ``OSError`` where it cannot be had."""
        size = -(-(_REST * 8 + limits_memory) // mmap.PAGESIZE) * mmap.PAGESIZE
        descriptor = os.memfd_create("apigw", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(descriptor, size)
            # Made shorter, it would kill all that have it.
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            os.pwrite(descriptor, _BEGIN.pack(_layout(), workers, 0, limits_memory, os.urandom(_SECRET_SIZE)), 0)
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
        freed = self.locks.free_of(worker, self._empty)
        return Death(freed, self.places.leave(worker))

    def close(self) -> None:
        """Give the memory back. Nothing of the page can be used after it."""
        self.words.release()
        self._map.close()
        os.close(self.descriptor)

    def _begin(self) -> None:
        initialise = ctypes.CDLL(None, use_errno=True).sem_init
        initialise.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_uint)
        for lock in range(LOCKS):
            if initialise(self._address + 8 * (_LOCKS + lock * WORDS_OF_LOCK), True, 1):
                raise OSError(ctypes.get_errno(), "no semaphore can be made in shared memory")

    def _empty(self, lock: int, what: int) -> None:
        if lock < STRIPES:
            self.limits.empty(lock, what)


def _layout() -> bytes:
    """Eight bytes that are equal for programs that can share a page: a ``sem_t`` is a matter of the C library."""
    return blake2b(repr((VERSION, libc_ver(), machine())).encode(), digest_size=8).digest()
