# Compiled: see docs/decisions/compiled.md
"""One coarse list of deadlines in place of a timer per request.

A connection watches itself once, when it opens. From then on, moving its deadline is one attribute assignment,
which is all that a request pays; a tick looks at every watched object a few times a second.
"""

from __future__ import annotations

from typing import Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

NEVER = float("inf")

log = Logger(namespace=__name__)


class Timed(Protocol):
    """Something that gives up. ``deadline`` is in the seconds of the clock, ``NEVER`` while nothing is waited for."""

    deadline: float

    def deadline_passed(self) -> None:
        """Called once a tick, as long as the deadline lies in the past."""


class Deadlines:
    """Calls ``deadline_passed`` of what it watches, up to ``tick`` seconds late, never early."""

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
        """One tick. What is given up may forget itself or others meanwhile."""
        now = self.seconds()
        for timed in [timed for timed in self._watched if timed.deadline <= now]:
            if timed in self._watched and timed.deadline <= now:
                try:
                    timed.deadline_passed()
                except Exception:
                    # The loop would end, and with it every other timeout of the process.
                    log.failure("timing out {timed} failed", timed=timed)
                    self.forget(timed)
