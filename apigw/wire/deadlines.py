# Compiled: see docs/decisions/compiled.md
"""One list of deadlines instead of a timer for each request (docs/decisions/deadlines.md).

A connection is added once, when it opens. From then on, moving its deadline is one assignment. Ten times a second all
deadlines are compared with the time. How late that is, is the lag of the reactor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

NEVER: Final = float("inf")

log = Logger(namespace=__name__)


class Timed(Protocol):
    """An object with a timeout. ``deadline`` is in seconds of the clock, ``NEVER`` without a timeout."""

    deadline: float

    def deadline_passed(self) -> None:
        """Called in each tick in which the deadline is in the past."""


def _nobody(lag: float) -> None: ...


class Deadlines:
    """Calls ``deadline_passed`` of watched objects, up to ``tick`` seconds late, never early.

    ``observe_lag`` is told, with each tick, how many seconds the reactor was late for it. It must not raise.
    """

    def __init__(self, clock: IReactorTime, tick: float = 0.1) -> None:
        self.clock = clock
        self.seconds = clock.seconds
        self.observe_lag: Callable[[float], object] = _nobody
        self._watched: dict[Timed, None] = {}
        self._tick = tick
        self._next: IDelayedCall | None = None

    def start(self) -> None:
        # Not by a LoopingCall, which takes as long as all else that a tick does.
        self._next = self.clock.callLater(self._tick, self._run, self.seconds() + self._tick)

    def stop(self) -> None:
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _run(self, due: float) -> None:
        late = self.seconds() - due
        self.start()
        self.observe_lag(late)
        self.check()

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
                    # Else those after it would have to wait.
                    log.failure("timing out {timed} failed", timed=timed)
                    self.forget(timed)
