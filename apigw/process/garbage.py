"""Keeps the garbage collector away from the objects of the program (docs/decisions/garbage.md).

A full collection visits every object, which stops the reactor for some 15 ms (measured). The objects of an exchange are
freed by reference counts, so these collections find nothing.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service

YOUNG = 10_000
"""Threshold of new objects for a collection. Python 3.11's 700 is reached by fifty exchanges in flight."""


def settle() -> None:
    """Collect once, then freeze all objects: later collections do not visit them, until the next ``settle``."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


class Garbage(Service):
    """Calls ``settle`` when everything has started."""

    def __init__(self, reactor: Any, settle: Callable[[], object] = settle) -> None:
        self._reactor = reactor
        self._settle = settle

    def startService(self) -> None:
        super().startService()
        gc.set_threshold(YOUNG, *gc.get_threshold()[1:])
        self._reactor.callWhenRunning(self._settle)
