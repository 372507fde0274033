"""Keeps the garbage collector away from the objects of the program (docs/decisions/garbage.md).

A full collection visits every object, which stops the reactor: for some 15 ms, and with 10,000 routes for 130
(measured). The objects of an exchange are freed by reference counts, so these collections find nothing.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from twisted.application.service import Service

YOUNG = 10_000
"""Threshold of new objects for a collection. Python 3.11's 700 is reached by fifty exchanges in flight."""

YOUNGEST = 2_000
"""The same while a configuration is made: nearly all of them stay, and a collection takes some 0.3 ms."""

NEVER = 2**31 - 1

KEPT = 4 * 2**20
"""Bytes of freed memory that glibc keeps at the end of its heap, and up to which it takes memory from there."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


@contextmanager
def paused() -> Generator[None, None, None]:
    """Collect nothing, while the program is imported and made: nearly all of it stays, and visiting it again and again
    takes a sixth of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def settle() -> None:
    """Collect once, then freeze all objects: later collections do not visit them."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def keep_freed() -> None:
    """Keep some freed memory, where the C library is glibc: by default it gives 128 KiB back to the kernel at once, and
    each piece of a large body gets its pages anew (mallopt(3))."""
    tune = getattr(ctypes.CDLL(None), "mallopt", None)
    if tune is not None:
        tune(_TRIM_THRESHOLD, KEPT)
        tune(_MMAP_THRESHOLD, KEPT)


class Garbage(Service):
    """Calls ``at_start`` when everything has started. Between ``begin`` and ``end`` a new configuration is made."""

    def __init__(self, reactor: Any, at_start: Callable[[], object] = settle) -> None:
        self._reactor = reactor
        self._at_start = at_start
        self._old = gc.get_threshold()[1:]

    def startService(self) -> None:
        super().startService()
        keep_freed()
        gc.set_threshold(YOUNG, *self._old)
        self._reactor.callWhenRunning(self._at_start)

    def begin(self) -> None:
        """Many objects are about to be made that stay. Collect only the youngest, a few at a time."""
        gc.set_threshold(YOUNGEST, NEVER, NEVER)

    def end(self) -> None:
        """They have been made: freeze them, and whatever else there is."""
        gc.collect(0)
        gc.freeze()
        gc.set_threshold(YOUNG, *self._old)
