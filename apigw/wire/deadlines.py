# Compiled: see docs/decisions/compiled.md
"""One list of deadlines instead of a timer for each request (docs/decisions/deadlines.md).

A connection is added once, when it opens. From then on, moving its deadline is one assignment. Ten times a second all
deadlines are compared with the time.
"""

from __future__ import annotations

from typing import Final, Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

NEVER: Final = float("inf")

log = Logger(namespace=__name__)


class Timed(Protocol):
    """An object with a timeout. ``deadline`` is in seconds of the clock, ``NEVER`` without a timeout."""

    deadline: float

    def deadline_passed(self) -> None:
        """Called in each tick in which the deadline is in the past."""


class Deadlines:
    """Calls ``deadline_passed`` of watched objects, up to ``tick`` seconds late, never early."""

    def __init__(self, clock: IReactorTime, tick: float = 0.1) -> None:
        self.clock = clock
        self.seconds = clock.seconds
        self._watched: dict[Timed, None] = {}
        self._loop = LoopingCall(self.check)
        self._loop.clock = clock
        self._tick = tick

    def start(self) -> None:
        self._loop.start(self._tick, now=False)

    def stop(self) -> None:
        if self._loop.running:
            self._loop.stop()

    def watch(self, timed: Timed) -> None:
        self._watched[timed] = None

    def forget(self, timed: Timed) -> None:
        self._watched.pop(timed, None)

    def check(self) -> None:
        """One tick. Called objects may remove themselves or others."""
        now = self.seconds()
        for timed in [timed for timed in self._watched if timed.deadline <= now]:
            if timed in self._watched and timed.deadline <= now:
                try:
                    timed.deadline_passed()
                except Exception:
                    # The loop would end, and with it every other timeout of the process.
                    log.failure("timing out {timed} failed", timed=timed)
                    self.forget(timed)
