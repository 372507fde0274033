"""What the garbage collector looks at: the exchanges, and not the program around them.

A full collection goes through every object there is, which holds the reactor for some 15 ms. What an exchange leaves
behind goes by reference counts, so that this is work for nothing, and a request that waits for it.
"""

from __future__ import annotations

import gc
from typing import Any

from twisted.application.service import Service

YOUNG = 10_000
"""So many new objects are worth a look; fifty exchanges in flight are enough for the 700 of Python 3.11."""


def settle() -> None:
    """What lives now is here to stay: no collection looks at it again, until the next ``settle``."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


class Garbage(Service):
    """Settles when everything has started."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def startService(self) -> None:
        super().startService()
        gc.set_threshold(YOUNG, *gc.get_threshold()[1:])
        self._reactor.callWhenRunning(settle)
